//! The command line: one file a verb, each parses, calls and prints.
//!
//! Exit codes: 0 done, 1 failed or degraded, 2 wrong usage, 3 a precondition is missing.

mod backends;
mod bugreport;
mod cleanup;
mod completion;
mod config;
mod diff;
mod doctor;
mod dump;
mod flows;
mod logging;
mod man;
mod maps;
pub mod output;
mod plan;
mod repeat;
mod run;
mod selection;
mod servers;
mod services;
#[cfg(test)]
mod snapshot;
mod stats;
mod status;
mod top;
mod trace;
pub mod version;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{
    agent,
    audit::observe,
    chain::chain,
    config::{Paths, RunFlags},
    kernel::{bpf, ipvs, node},
    ledger,
};

pub use version::kernel;

/// A Kubernetes Service proxy: the kernel's IPVS schedules, eBPF carries established flows
#[derive(Debug, Parser)]
#[command(name = "passlane", version, max_term_width = 100, after_help = AFTER_HELP)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

/// What holds for every verb.
const AFTER_HELP: &str = "\
Exit codes: 0 done; 1 failed or degraded; 2 wrong usage or configuration; 3 a precondition is missing.
stdout is data, stderr is messages. JSON and YAML documents say what they are by apiVersion and kind; \
fields are added within a version, never renamed or removed.
Every verb works without a network and without kubeconfig, but run and plan with a cluster; all that \
only read work without an agent, from the kernel's state.";

#[derive(Debug, Subcommand)]
enum Verb {
    /// Serve Services until stopped; forwarding goes on afterwards
    ///
    /// Flags win over the fields of --config, unlike kube-proxy's; `passlane config show` lists
    /// both.
    Run(Box<RunFlags>),
    /// What the agent last did, and what the kernel says now
    ///
    /// Exit code 1 when no agent runs or it is not ready: fit for a probe.
    Status(status::Flags),
    /// Virtual servers and their destinations, from IPVS
    Services(services::Flags),
    /// Where traffic goes: every destination with its Services, connections and ids
    Backends(backends::Flags),
    /// Flows on the fast path, from the pinned maps
    Flows(flows::Flags),
    /// The pinned BPF maps, or the entries of one, decoded
    Maps(maps::Flags),
    /// Rates, the fast path's share, drops and drift, live in a terminal
    ///
    /// q or Ctrl-C ends it, s sorts by another column, p pauses.
    Top(top::Flags),
    /// Packets and bytes by reason, by Service and by backend, of both planes
    Stats(stats::Flags),
    /// What is wanted, what the kernel holds and what the BPF maps hold, where they differ
    ///
    /// Asks the agent. Without one, what the kernel holds is compared with itself and with the ledger.
    /// Exit code 1 when something of ours was changed by somebody else. What others have is listed and
    /// never touched.
    Diff(diff::Flags),
    /// What becomes of a packet, and why
    ///
    /// Says which Service and backend it reaches, whether it is masqueraded, which plane carries it and
    /// what the flow entries of both directions are good for.
    Trace(trace::Flags),
    /// Everything that passlane trace needs, as JSON: keep it, and ask it elsewhere
    Dump(dump::Flags),
    /// What a pass would change now: reads the source and the node, and changes nothing
    ///
    /// Takes the flags of passlane run. One line a change, in order; none when all is as it should be.
    Plan(Box<plan::Flags>),
    /// Check every precondition, with the cure for what is missing
    Doctor(doctor::Flags),
    /// What a configuration of kube-proxy means here
    #[command(subcommand)]
    Config(config::Verb),
    /// Remove everything that passlane made, and nothing else
    Cleanup(cleanup::Flags),
    /// One archive with all that support would ask for, without secrets
    Bugreport(bugreport::Flags),
    /// A completion script for a shell
    Completion(completion::Flags),
    /// Write the man pages into a directory
    #[command(hide = true)]
    Man(man::Flags),
    /// Versions of this build, of the map ABI and of the kernel
    Version(FormatFlag),
}

/// The flags of verbs that read and print.
#[derive(clap::Args, Clone, Debug)]
struct ReadFlags {
    #[command(flatten)]
    paths: Paths,
    #[command(flatten)]
    format: FormatFlag,
}

#[derive(clap::Args, Clone, Debug)]
struct FormatFlag {
    /// How to print
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "table")]
    output: output::Format,
    /// Tables without their first line
    #[arg(long)]
    no_headers: bool,
}

impl FormatFlag {
    /// Prints a view.
    fn show<V: output::View>(&self, view: &V) -> Result<(), output::Error> {
        let layout = output::Layout::Alone;
        output::text(&output::show(view, self.output, !self.no_headers, layout)?)
    }
}

/// Why a verb ends with another exit code than 0.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Flags that are each right and together wrong.
    #[error("{0}")]
    Usage(String),
    /// A configuration that cannot be used.
    #[error(transparent)]
    Config(#[from] crate::config::Error),
    /// Something that must be there first is not.
    #[error(transparent)]
    Fatal(#[from] agent::Fatal),
    /// It works, but not as it should; what is wrong was printed.
    #[error("")]
    Degraded,
    /// An agent holds the state that the verb would change.
    #[error("an agent runs with this --state-dir: stop it first")]
    Running,
    /// IPVS.
    #[error(transparent)]
    Ipvs(#[from] ipvs::Error),
    /// The node cannot be read.
    #[error(transparent)]
    Observe(#[from] observe::Error),
    /// A subsystem is not there.
    #[error(transparent)]
    Node(#[from] node::Error),
    /// BPF maps.
    #[error(transparent)]
    Bpf(#[from] bpf::Error),
    /// A file that is no dump.
    #[error(transparent)]
    Dump(#[from] dump::Error),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
    /// The status file.
    #[error(transparent)]
    Status(#[from] crate::status::Error),
    /// The agent does not answer.
    #[error(transparent)]
    Admin(#[from] crate::admin::client::Error),
    /// The connection table of IPVS.
    #[error(transparent)]
    Connections(#[from] ipvs::connections::Error),
    /// A file that was asked for cannot be written.
    #[error("write {path}")]
    Write {
        /// The file or directory.
        path: std::path::PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// The terminal.
    #[error("use the terminal")]
    Terminal(#[source] std::io::Error),
    /// stdout.
    #[error(transparent)]
    Output(#[from] output::Error),
    /// Threads or timers are not to be had.
    #[error("start the runtime")]
    Runtime(#[source] std::io::Error),
    /// The saved snapshot cannot be removed.
    #[error("remove the snapshot in --snapshot-dir")]
    Snapshot(#[source] std::io::Error),
    /// Cleanup could not remove everything; what stays was said.
    #[error("{0} objects could not be removed: see above, then run cleanup again")]
    Leftover(usize),
}

impl Failure {
    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_)
            | Self::Config(_)
            | Self::Dump(_)
            | Self::Output(output::Error::NoNames) => ExitCode::from(2),
            Self::Fatal(
                agent::Fatal::Source(_) | agent::Fatal::NoAnswer { .. } | agent::Fatal::Signal(_),
            ) => ExitCode::FAILURE,
            Self::Fatal(_) | Self::Node(_) => ExitCode::from(3),
            _ => ExitCode::FAILURE,
        }
    }
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    match dispatch(Arguments::parse().verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let text = chain(&failure);
            if !text.is_empty() {
                eprintln!("passlane: {text}");
            }
            failure.exit_code()
        }
    }
}

fn dispatch(verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Run(flags) => run::run(*flags),
        Verb::Status(flags) => status::run(&flags),
        Verb::Services(flags) => services::run(&flags),
        Verb::Backends(flags) => backends::run(&flags),
        Verb::Flows(flags) => flows::run(&flags),
        Verb::Maps(flags) => maps::run(&flags),
        Verb::Top(flags) => top::run(&flags),
        Verb::Stats(flags) => stats::run(&flags),
        Verb::Diff(flags) => diff::run(&flags),
        Verb::Trace(flags) => trace::run(&flags),
        Verb::Dump(flags) => dump::run(&flags),
        Verb::Plan(flags) => plan::run(&flags),
        Verb::Doctor(flags) => doctor::run(&flags),
        Verb::Config(verb) => config::run(&verb),
        Verb::Cleanup(flags) => cleanup::run(&flags),
        Verb::Bugreport(flags) => bugreport::run(&flags),
        Verb::Completion(flags) => completion::run(&flags),
        Verb::Man(flags) => man::run(&flags),
        Verb::Version(format) => version::run(&format),
    }
}

/// Returns the command line with all verbs.
fn command() -> clap::Command {
    <Arguments as clap::CommandFactory>::command()
}

/// Runs a verb that waits for the kernel.
fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::Runtime)?
        .block_on(future)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn help_of_run_names_the_flags_of_kube_proxy_and_who_wins() {
        let mut command = Arguments::command();
        let run = command.find_subcommand_mut("run").unwrap();
        let short = run.render_help().to_string();
        assert!(short.contains("--ipvs-scheduler") && short.contains("--fast-path"), "{short}");
        assert!(!short.contains("--feature-gates"), "what is ignored stays out:\n{short}");
        let long = run.render_long_help().to_string();
        assert!(long.contains("--feature-gates"), "{long}");
        let words: Vec<&str> = long.split_whitespace().collect();
        assert!(words.join(" ").contains("Flags win over"), "{long}");
    }
}
