//! How the demo speaks: headings and data on stdout, progress on stderr.

use std::{
    io::{self, Write as _},
    time::Instant,
};

use anyhow::Result;

use super::summary::Summary;
use crate::agent;
use crate::stage::Stage;

/// The demo's voice.
#[derive(Debug)]
pub(super) struct Report {
    start: Instant,
}

impl Report {
    pub(super) fn new() -> Self {
        Self { start: Instant::now() }
    }

    /// Says what is being done.
    pub(super) fn step(&self, text: &str) {
        // One write: lines of stdout may go to the same terminal.
        let line = format!("[{:5.1} s] {text}\n", self.start.elapsed().as_secs_f64());
        let _ = io::stderr().write_all(line.as_bytes());
    }

    /// Begins a section: what is seen, and why it matters.
    pub(super) fn heading(&self, title: &str, why: &str) {
        println!("\n== {title}\n   {why}\n");
    }

    /// Prints data, indented, without trailing blank lines.
    pub(super) fn data(&self, text: &str) {
        for line in text.trim_end().lines() {
            println!("   {line}");
        }
    }

    /// Says what came out, promise by promise.
    pub(super) fn conclusion(&self, summary: &Summary) {
        let Summary { requests, errors, errors_after_kill, digest_ok, .. } = summary;
        let seconds = self.start.elapsed().as_secs();
        self.heading("What came out", &format!("{} in {seconds} s", summary.kernel));
        let spread: Vec<String> =
            summary.spread.iter().map(|(name, count)| format!("{name} {count}")).collect();
        for (promise, held, seen) in [
            ("no exchange fails", *errors == 0, format!("{errors} of {requests} failed")),
            ("64 MiB arrive unchanged", *digest_ok, format!("digest_ok {digest_ok}")),
            (
                "at least 90 % of them on the fast path",
                summary.fast_path_share >= 0.9,
                percent(summary.fast_path_share),
            ),
            ("round robin is exact", summary.is_evenly_spread(), spread.join(", ")),
            (
                "no exchange fails without the agent",
                *errors_after_kill == 0,
                format!("{errors_after_kill} failed"),
            ),
        ] {
            let mark = if held { "yes" } else { "NO " };
            println!("   {mark}  {promise:<40} {seen}");
        }
    }

    /// Says what can be done in the shell.
    pub(super) fn shell(&self, stage: &Stage) -> Result<()> {
        let places = format!(
            "--state-dir {} --bpffs {}",
            stage.topology.state_dir().display(),
            stage.topology.bpffs().display()
        );
        let client = stage.client()?;
        self.heading("A shell in the node", "everything is removed when it ends");
        self.data(&format!(
            "{} status {places}\n\
             $PASSLANE flows {places}\n\
             $PASSLANE run --source file:{} {places} &    # the agent was killed: start it again\n\
             ip netns exec {} curl -s 10.96.0.10          # from the client pod\n\
             ipvsadm -Ln; nft list ruleset; bpftool net; ip netns list",
            agent::binary()?.display(),
            stage.manifests.directory().display(),
            client.name(),
        ));
        Ok(())
    }
}

/// A share as a person reads it.
pub(super) fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}
