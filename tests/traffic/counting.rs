//! What was sent is what was counted: IPVS's counters and the fast path's, together.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use proxy_tests::agent::Agent;
use proxy_tests::dns::Resolver;
use proxy_tests::http::Connection;
use proxy_tests::objects::{DNS_FRONTEND, OVER_IPV6, ServiceObject, WEB_FRONTEND, WEB6_FRONTEND};
use proxy_tests::slow_path::Seen;
use proxy_tests::stage::Stage;
use proxy_tests::wait;
use proxy_tests::wire::{self, Wire};
use serde_json::Value;

use crate::scenario::{AGENT, scenarios};

scenarios! { AGENT =>
    both_planes_together_count_what_clients_sent,
    what_a_service_carried_ends_with_it_and_not_with_its_backends,
    services_are_printed_as_ipvsadm_prints_them,
}

const WEB: &str = "default/web:http";
const WEB6: &str = "default/web6:http";
const DNS: &str = "kube-system/dns:dns";

/// More flows than the table holds, connections that close, connections that last, transfers of
/// large packets, both families.
fn both_planes_together_count_what_clients_sent() -> Result<()> {
    const FLOWS: usize = 530;
    const SIZE: u64 = 4 << 20;
    let stage = Stage::without_agent(&["--flow-entries", "1024"])?;
    stage.manifests.write("over-ipv6.yaml", OVER_IPV6)?;
    let stage = stage.started()?;
    watch(&stage)?;
    let client = stage.client()?;
    let mut lasting = Vec::new();
    for frontend in [WEB_FRONTEND, WEB6_FRONTEND] {
        let mut connection = stage.fast_connection(frontend)?;
        for _ in 0..40 {
            connection.get("/")?;
        }
        connection.download(SIZE, |_| ())?;
        connection.upload(SIZE / 4)?;
        lasting.push(connection);
        stage.short_requests(frontend, 10)?;
    }
    let mut resolvers = Vec::new();
    for _ in 0..FLOWS {
        resolvers.push(Resolver::open(&client, DNS_FRONTEND)?);
    }
    for _ in 0..5 {
        for resolver in &mut resolvers {
            resolver.ask()?;
        }
    }
    // One connection ends, the other goes on.
    drop(lasting.pop());
    wait_equal(&stage.agent, "services", &[WEB, WEB6, DNS], || on_the_clients_wire(&stage))?;
    wait_equal(&stage.agent, "backends", &[], || on_the_backends_wire(&stage))?;
    let stats = stage.agent.json("stats")?;
    for service in [WEB, WEB6, DNS] {
        let row = of(&stats, "services", service)?;
        let fast = planes(&row["fast"]);
        ensure!(fast.inwards.packets > 20 && fast.outwards.packets > 20, "{service}: {row}");
    }
    printed_as_ipvsadm_prints(&stage)
}

/// Counts at every client and backend.
fn watch(stage: &Stage) -> Result<()> {
    let client = stage.client()?;
    for (name, ip, frontend, l4) in [
        ("web", "ip", WEB_FRONTEND, "tcp"),
        ("web6", "ip6", WEB6_FRONTEND, "tcp"),
        ("dns", "ip", DNS_FRONTEND, "udp"),
    ] {
        let (addr, port) = (frontend.ip(), frontend.port());
        let to = format!("{ip} daddr {addr} {l4} dport {port}");
        wire::watch_client(&client, name, &to, &format!("{ip} saddr {addr} {l4} sport {port}"))?;
    }
    for pod in backends(stage) {
        for (name, version) in [("ipv4", "ipv4"), ("ipv6", "ipv6")] {
            let (l4, port) =
                if pod.name.starts_with("web-") { ("tcp", 8080) } else { ("udp", 5353) };
            let family = format!("meta nfproto {version} {l4}");
            let to = format!("{family} dport {port}");
            wire::watch_backend(&pod.namespace, name, &to, &format!("{family} sport {port}"))?;
        }
    }
    Ok(())
}

fn backends(stage: &Stage) -> impl Iterator<Item = &proxy_tests::topology::Pod> {
    let pods = stage.topology.pods().iter();
    pods.filter(|pod| pod.name.starts_with("web-") || pod.name.starts_with("dns-"))
}

fn on_the_clients_wire(stage: &Stage) -> Result<BTreeMap<String, Wire>> {
    let client = stage.client()?;
    let counted =
        |(service, name): (&str, &str)| Ok((service.to_owned(), wire::counted(&client, name)?));
    [(WEB, "web"), (WEB6, "web6"), (DNS, "dns")].into_iter().map(counted).collect()
}

fn on_the_backends_wire(stage: &Stage) -> Result<BTreeMap<String, Wire>> {
    let mut wires = BTreeMap::new();
    for pod in backends(stage) {
        let web = pod.name.starts_with("web-");
        let (l4, port) = if web { ("TCP", 8080) } else { ("UDP", 5353) };
        let ipv4 = wire::counted(&pod.namespace, "ipv4")?;
        wires.insert(format!("{}:{port}/{l4}", pod.address), ipv4);
        let ipv6 = wire::counted(&pod.namespace, "ipv6")?;
        wires.insert(format!("[{}]:{port}/{l4}", pod.address6), ipv6);
    }
    Ok(wires)
}

/// Waits until what `passlane stats` adds up is what was on the wire: IPVS is up to 2 seconds late.
/// Packets may still be on their way, so the wire is read each time. With no names, all that the
/// wire has.
fn wait_equal(
    agent: &Agent,
    section: &str,
    names: &[&str],
    wire: impl Fn() -> Result<BTreeMap<String, Wire>>,
) -> Result<()> {
    let mut last = String::new();
    let equal = wait::until("both planes add up to the wire", wait::PATIENCE / 3, || {
        let (stats, wires) = (agent.json("stats")?, wire()?);
        let mut unequal = Vec::new();
        for (name, wire) in wires {
            if !names.is_empty() && !names.contains(&name.as_str()) {
                continue;
            }
            let row = of(&stats, section, &name)?;
            let total = planes(&row["total"]);
            if total != wire {
                let (slow, fast) = (planes(&row["slow"]), planes(&row["fast"]));
                unequal.push(format!(
                    "{name}: wire {wire:?}, total {total:?} of slow {slow:?} and fast {fast:?}"
                ));
            }
        }
        last = unequal.join("\n");
        Ok(unequal.is_empty().then_some(()))
    });
    equal.with_context(|| last)
}

/// Returns the row of a Service or a backend.
fn of<'a>(stats: &'a Value, section: &str, name: &str) -> Result<&'a Value> {
    let key = section.trim_end_matches('s');
    let mut rows = stats[section].as_array().into_iter().flatten();
    rows.find(|row| row[key] == name).with_context(|| format!("no {key} {name} in the statistics"))
}

fn planes(traffic: &Value) -> Wire {
    let number = |key: &str| traffic[key].as_u64().unwrap_or(u64::MAX);
    Wire {
        inwards: Seen { packets: number("in_packets"), bytes: number("in_bytes") },
        outwards: Seen { packets: number("out_packets"), bytes: number("out_bytes") },
    }
}

/// `services -o ipvsadm --stats` has the same numbers, for a virtual server and its destinations.
fn printed_as_ipvsadm_prints(stage: &Stage) -> Result<()> {
    let text = stage.agent.text(&["services", "-o", "ipvsadm", "--stats"])?;
    let stats = stage.agent.json("stats")?;
    let web = planes(&of(&stats, "services", WEB)?["total"]);
    let mut lines = text.lines().skip_while(|line| !line.contains(" 10.96.0.10:80 "));
    let head = lines.next().with_context(|| text.clone())?;
    ensure!(wire_of(head) == Some(web), "{head}\nis not {web:?}");
    let destinations: Vec<&str> = lines.take_while(|line| line.starts_with("  ->")).collect();
    ensure!(destinations.len() == 3, "{text}");
    let sum = destinations
        .iter()
        .map(|line| wire_of(line).with_context(|| (*line).to_owned()))
        .try_fold(Wire::default(), |sum, wire| anyhow::Ok(sum.plus(wire?)))?;
    ensure!(sum == web, "the destinations add up to {sum:?}, not to {web:?}:\n{text}");
    Ok(())
}

/// Reads the numbers of a line of `--stats`: connections, packets in and out, bytes in and out.
fn wire_of(line: &str) -> Option<Wire> {
    let mut words = line.split_whitespace().rev();
    let mut number = || words.next()?.parse::<u64>().ok();
    let (out_bytes, in_bytes, out_packets, in_packets) =
        (number()?, number()?, number()?, number()?);
    Some(Wire {
        inwards: Seen { packets: in_packets, bytes: in_bytes },
        outwards: Seen { packets: out_packets, bytes: out_bytes },
    })
}

/// Ids are given out again, and counts must not go with them.
fn what_a_service_carried_ends_with_it_and_not_with_its_backends() -> Result<()> {
    let stage = Stage::start(&["--drain-timeout", "1s"])?;
    watch(&stage)?;
    let mut connection = stage.fast_connection(WEB_FRONTEND)?;
    for _ in 0..50 {
        connection.get("/")?;
    }
    drop(connection);
    let on_the_wire = || {
        let mut wires = on_the_clients_wire(&stage)?;
        wires.retain(|name, _| name == WEB);
        Ok(wires)
    };
    wait_equal(&stage.agent, "services", &[WEB], on_the_wire)?;
    // All backends go, others come: they begin with nothing, and the Service keeps what it had.
    let fast = |row: &Value| planes(&row["fast"]);
    let before = fast(of(&stage.agent.json("stats")?, "services", WEB)?);
    ensure!(before.inwards.packets > 0, "nothing was fast");
    stage.manifests.write("web.yaml", &ServiceObject::web(&[31]).yaml())?;
    wait::until_true("the backends are others", wait::PATIENCE, || {
        let stats = stage.agent.json("stats")?;
        let rows = stats["backends"].as_array().into_iter().flatten();
        let web: Vec<_> =
            rows.filter(|row| row["backend"].to_string().contains(":8080/")).collect();
        Ok(web.len() == 1 && web[0]["backend"] == "10.1.1.31:8080/TCP")
    })?;
    let stats = stage.agent.json("stats")?;
    let new = fast(of(&stats, "backends", "10.1.1.31:8080/TCP")?);
    ensure!(new == Wire::default(), "a new backend begins with {new:?}");
    let after = fast(of(&stats, "services", WEB)?);
    ensure!(after == before, "the Service had {before:?} and has {after:?}");
    // The Service goes; another one at the same address begins with nothing.
    stage.manifests.remove("web.yaml")?;
    wait::until_true("the Service is gone", wait::PATIENCE, || {
        Ok(of(&stage.agent.json("stats")?, "services", WEB).is_err())
    })?;
    stage.manifests.write("web.yaml", &ServiceObject::web(&[11, 12]).yaml())?;
    let again = wait::until("the Service is there again", wait::PATIENCE, || {
        Ok(of(&stage.agent.json("stats")?, "services", WEB).ok().map(fast))
    })?;
    ensure!(again == Wire::default(), "a Service that was made anew begins with {again:?}");
    Ok(())
}

/// The numbers of IPVS alone, so that the form can be compared byte for byte.
fn services_are_printed_as_ipvsadm_prints_them() -> Result<()> {
    let stage = Stage::start(&["--fast-path", "off"])?;
    let mut connection = Connection::open(&stage.client()?, WEB_FRONTEND)?;
    for _ in 0..20 {
        connection.get("/")?;
    }
    stage.short_requests(WEB_FRONTEND, 5)?;
    let node = &stage.topology.node;
    let mut shown = (String::new(), String::new());
    let same = wait::until_true("both print the same", wait::PATIENCE / 3, || {
        let theirs = node.run("ipvsadm", &["-Ln", "--stats"])? + &node.run("ipvsadm", &["-Ln"])?;
        let ours = stage.agent.text(&["services", "-o", "ipvsadm", "--stats"])?
            + &stage.agent.text(&["services", "-o", "ipvsadm"])?;
        let web = theirs.lines().find(|line| line.contains(" 10.96.0.10:80 "));
        let counted = web.and_then(wire_of).is_some_and(|wire| wire.inwards.packets > 25);
        let same = ours == theirs && counted;
        shown = (ours, theirs);
        Ok(same)
    });
    same.with_context(|| format!("ours:\n{}\ntheirs:\n{}", shown.0, shown.1))
}
