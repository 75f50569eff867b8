//! What the kernel's way is made of: parts are taken away one by one, and the rest is counted.

use std::{fmt::Write as _, fs};

use anyhow::{Context as _, Result};
use proxy_tests::netns::Namespace;

use super::{
    busy::Busy,
    modes::Mode,
    report::median,
    scene::{Path, Scene},
    traffic,
};

/// What one part costs a datagram from pod to pod.
pub(crate) struct Part {
    what: &'static str,
    /// Instructions a datagram before it was taken away, and afterwards.
    counts: [f64; 2],
}

/// What to take away from a node in a mode, in this order.
struct Removal {
    what: &'static str,
    remove: fn(&Scene) -> Result<()>,
}

fn chains(node: &Namespace, names: &[&str]) -> Result<()> {
    let commands: String = names
        .iter()
        .map(|name| {
            format!("flush chain inet passlane {name}\ndelete chain inet passlane {name}\n")
        })
        .collect();
    node.nft(&commands).map(drop)
}

const OF_THE_AGENT: &[Removal] = &[
    Removal {
        what: "the programs: stamp and learn",
        remove: |scene| {
            let agent = scene.agent.as_ref().context("no agent")?;
            let links = fs::read_dir(agent.pins().join("links"))?;
            for link in links {
                fs::remove_file(link?.path())?;
            }
            Ok(())
        },
    },
    Removal {
        what: "output: addresses of nobody, no endpoint",
        remove: |scene| chains(scene.node(), &["unserved_host"]),
    },
    Removal {
        what: "output: source ranges",
        remove: |scene| chains(scene.node(), &["sources_host"]),
    },
    Removal {
        what: "input: no endpoint; the guard behind ip_vs",
        remove: |scene| chains(scene.node(), &["unserved", "input"]),
    },
    Removal {
        what: "prerouting: source ranges",
        remove: |scene| chains(scene.node(), &["sources"]),
    },
    Removal {
        what: "address translation, in four hooks",
        remove: |scene| chains(scene.node(), &["inside", "inside_host", "postrouting"]),
    },
    Removal {
        what: "the rest of the table, and conntrack",
        remove: |scene| {
            scene.node().nft("delete table inet passlane\n")?;
            scene.node().set_sysctl("net/ipv4/vs/conntrack", "0").map(drop)
        },
    },
];

const OF_KUBE_PROXY: &[Removal] = &[Removal {
    what: "kube-proxy's rules, and conntrack",
    remove: |scene| {
        scene.node().nft("delete table ip kube\n")?;
        scene.node().set_sysctl("net/ipv4/vs/conntrack", "0").map(drop)
    },
}];

/// Counts a mode, and what each of its parts costs.
fn of(mode: Mode, removals: &[Removal]) -> Result<Vec<Part>> {
    let busy = Busy::start();
    let mut scene = Scene::set(mode)?;
    let mut run = traffic::datagrams_of(&scene, Path::PodToPod)?;
    // It would put everything back. Programs and rules stay.
    if let Some(agent) = &mut scene.agent {
        agent.kill()?;
    }
    drop(busy);
    let mut before = median(&run()?);
    let mut parts = Vec::new();
    for Removal { what, remove } in removals {
        let busy = Busy::start();
        remove(&scene).with_context(|| *what)?;
        drop(busy);
        let after = median(&run()?);
        parts.push(Part { what, counts: [before, after] });
        before = after;
    }
    Ok(parts)
}

/// Takes apart the agent's way and that of kube-proxy's ipvs mode, and returns a table.
pub(crate) fn table() -> Result<String> {
    let mut text = String::from("the kernel's way of a UDP datagram, pod -> pod\n");
    for (mode, removals) in [(Mode::Learning, OF_THE_AGENT), (Mode::Ipvs, OF_KUBE_PROXY)] {
        eprintln!("taking apart {}", mode.name());
        let parts = of(mode, removals).with_context(|| mode.name())?;
        let [all, _] = parts.first().map_or([f64::NAN; 2], |part| part.counts);
        let [_, rest] = parts.last().map_or([f64::NAN; 2], |part| part.counts);
        let _ = writeln!(text, "  {:48} {all:>8.0}", mode.name());
        for Part { what, counts: [before, after] } in parts {
            let _ = writeln!(text, "    {what:46} {:>8.0}", before - after);
        }
        let _ = writeln!(text, "    {:46} {rest:>8.0}", "ip_vs and routing");
    }
    Ok(text)
}
