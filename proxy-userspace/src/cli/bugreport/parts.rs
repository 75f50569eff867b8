//! The parts of a report. Each is gathered for itself and may fail for itself.

use std::path::{Path, PathBuf};

use clap::Parser;

use crate::{
    chain::chain,
    cli::{
        Arguments, Verb, diff, doctor, dump, maps,
        output::{self, Format, Layout, View},
        services, stats, status, version,
    },
    config::{Paths, RunFlags, Settings},
    kernel::{inspect, link::Links, route::Routes},
    status::{Lock, Report},
};

/// What parts need to know.
#[derive(Clone, Debug)]
pub(super) struct Context {
    pub(super) paths: Paths,
    /// A file that the agent logs to.
    pub(super) log: Option<PathBuf>,
}

/// A part, or why it is not to be had.
pub(super) type Outcome = Result<String, String>;

/// A file of the archive, and what makes it.
pub(super) type Part = (&'static str, fn(&Context) -> Outcome);

/// Every part, in the order of the archive.
pub(super) const PARTS: &[Part] = &[
    ("version.json", |_| json(&version::gather())),
    ("status.json", |context| json(&status::gather(&context.paths).map_err(said)?)),
    ("status.txt", |context| wide(&status::gather(&context.paths).map_err(said)?)),
    ("doctor.txt", doctor),
    ("diff.txt", |context| wide(&diff::gather(&context.paths, false).map_err(said)?)),
    ("services.txt", |context| wide(&services::gather(&context.paths, None).map_err(said)?)),
    ("ipvsadm.txt", |_| services::whole().map_err(said)),
    ("stats.json", |context| json(&stats::all(&context.paths).map_err(said)?)),
    ("maps.txt", |context| maps::whole(&context.paths).map_err(said)),
    ("dump.json", |context| {
        dump::text(&dump::gather(&context.paths, None).map_err(said)?).map_err(said)
    }),
    ("ledger.jsonl", |context| read(&context.paths.state_dir.join("ledger.jsonl"))),
    ("agent/arguments.txt", |context| Ok(arguments(context)?.join(" ") + "\n")),
    ("agent/config.yaml", config),
    ("agent/process.txt", process),
    ("agent/log.txt", log),
    ("node/os-release", |_| read(Path::new("/etc/os-release"))),
    ("node/kernel.txt", |_| read(Path::new("/proc/version"))),
    ("node/modules.txt", |_| read(Path::new("/proc/modules"))),
    ("node/memory.txt", |_| read(Path::new("/proc/meminfo"))),
    ("node/sysctls.txt", |_| Ok(inspect::settings(SETTINGS))),
    ("node/interfaces.txt", |_| interfaces()),
    ("node/vips.txt", vips),
    ("node/nft-table.txt", |_| run("nft", &["list", "table", "inet", "passlane"])),
    ("node/nft-flowtables.txt", |_| run("nft", &["list", "flowtables"])),
    ("node/ip-rules.txt", |_| run("ip", &["rule", "show"])),
    ("node/routes.txt", |_| run("ip", &["route", "show", "table", "main"])),
    ("node/routes6.txt", |_| run("ip", &["-6", "route", "show", "table", "main"])),
    ("node/ip_vs_stats.txt", |_| read(Path::new("/proc/thread-self/net/ip_vs_stats"))),
    ("node/nf_conntrack.txt", |_| read(Path::new("/proc/thread-self/net/stat/nf_conntrack"))),
    ("node/softnet_stat.txt", |_| read(Path::new("/proc/thread-self/net/softnet_stat"))),
    ("node/bpf-programs.txt", |_| run("bpftool", &["prog", "show"])),
    ("node/bpf-net.txt", |_| run("bpftool", &["net", "show"])),
];

/// What forwarding depends on, below `/proc/sys`.
const SETTINGS: &[&str] = &[
    "net/ipv4/vs",
    "net/netfilter",
    "net/ipv4/ip_forward",
    "net/ipv4/conf/all",
    "net/ipv6/conf/all",
    "net/core",
    "kernel/unprivileged_bpf_disabled",
    "kernel/osrelease",
];

/// Lines of the log that are taken.
const LOG_LINES: usize = 5000;

fn said<E: std::error::Error + 'static>(error: E) -> String {
    chain(&error)
}

fn json(view: &impl View) -> Outcome {
    output::show(view, Format::Json, true, Layout::Alone).map_err(said)
}

fn wide(view: &impl View) -> Outcome {
    output::show(view, Format::Wide, true, Layout::Alone).map_err(said)
}

fn read(path: &Path) -> Outcome {
    inspect::file(path).map_err(said)
}

fn run(program: &str, arguments: &[&str]) -> Outcome {
    inspect::command(program, arguments).map_err(said)
}

fn doctor(context: &Context) -> Outcome {
    let settings = settings(context).unwrap_or_default();
    wide(&doctor::gather(&context.paths, &settings).map_err(said)?)
}

/// Returns the process id of the running agent.
fn pid(context: &Context) -> Result<u32, String> {
    if !Lock::is_taken(&context.paths.state_dir) {
        return Err("no agent runs with this --state-dir".to_owned());
    }
    let report = Report::read(&context.paths.state_dir).map_err(said)?;
    report.map(|report| report.pid).ok_or_else(|| "the agent has not reported yet".to_owned())
}

fn arguments(context: &Context) -> Result<Vec<String>, String> {
    inspect::arguments(pid(context)?).map_err(said)
}

/// Returns the settings that the running agent was started with: its flags are those of its process,
/// and its file is read again.
fn settings(context: &Context) -> Result<Settings, String> {
    let arguments = Arguments::try_parse_from(arguments(context)?).map_err(|error| {
        let text = error.to_string();
        format!("the agent's flags are not of this version: {}", text.lines().next().unwrap_or(""))
    })?;
    match arguments.verb {
        Verb::Run(flags) => loaded(&flags),
        _ => Err("the process of the agent is not passlane run".to_owned()),
    }
}

fn loaded(flags: &RunFlags) -> Result<Settings, String> {
    Settings::load(flags).map(|(settings, _)| settings).map_err(said)
}

fn config(context: &Context) -> Outcome {
    serde_saphyr::to_string(&settings(context)?.to_value()).map_err(said)
}

fn process(context: &Context) -> Outcome {
    let directory = PathBuf::from(format!("/proc/{}", pid(context)?));
    let mut text = String::new();
    for name in ["status", "limits", "cgroup", "oom_score_adj"] {
        text += &format!("{name}\n{}\n", read(&directory.join(name))?);
    }
    Ok(text)
}

fn log(context: &Context) -> Outcome {
    if let Some(path) = &context.log {
        return inspect::tail(path, LOG_LINES).map_err(said);
    }
    let unit = |arguments: &[&str]| {
        let lines = LOG_LINES.to_string();
        let fixed = ["--no-pager", "-o", "short-iso-precise", "-n", &lines];
        run("journalctl", &[&fixed, arguments].concat())
    };
    let found = match pid(context) {
        Ok(pid) => unit(&[&format!("_PID={pid}")]),
        Err(_) => unit(&["-u", "passlane"]),
    };
    let cure = "name the file by --log; of a pod, kubectl logs has it";
    match found {
        Ok(text) if text.contains("-- No entries --") => {
            Err(format!("the journal has nothing of the agent: {cure}"))
        }
        Ok(text) => Ok(text),
        Err(error) => Err(format!("{error}; {cure}")),
    }
}

fn interfaces() -> Outcome {
    let interfaces = crate::cli::block_on(async {
        let links = Links::open().map_err(crate::audit::observe::Error::from)?;
        Ok(links.interfaces().await.map_err(crate::audit::observe::Error::from)?)
    });
    let line = |interface| format!("{interface:?}\n");
    Ok(interfaces.map_err(said)?.iter().map(line).collect())
}

/// The routes and addresses that make VIPs local.
fn vips(context: &Context) -> Outcome {
    let device = settings(context).unwrap_or_default().dummy_device;
    let found = crate::cli::block_on(async {
        let error = crate::audit::observe::Error::from;
        let links = Links::open().map_err(error)?;
        let Some(index) = links.index_of(&device).await.map_err(error)? else { return Ok(None) };
        let routes = Routes::open().map_err(crate::audit::observe::Error::from)?;
        let routes = routes.vips(index).await.map_err(crate::audit::observe::Error::from)?;
        Ok(Some((routes, links.addresses(index).await.map_err(error)?)))
    });
    let Some((routes, addresses)) = found.map_err(said)? else {
        return Err(format!("there is no device {device}"));
    };
    let routes = routes.iter().map(|vip| format!("route {vip}\n"));
    Ok(routes.chain(addresses.iter().map(|addr| format!("address {addr}\n"))).collect())
}
