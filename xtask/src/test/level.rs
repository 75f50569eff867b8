//! The levels of the specification, and running one of them.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::guests::Job;
use super::tally::Tally;
use crate::command::{self, Consent, progress};
use crate::vm::kernels::Kernel;
use crate::vm::{Accelerator, Guest, Streams};
use crate::workspace;

/// How near to real traffic on a real kernel a test is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
#[value(rename_all = "verbatim")]
pub(crate) enum Level {
    /// Unit and documentation tests
    L0,
    /// Scripts through the deciding code
    L1,
    /// The BPF programs, packet by packet, on this machine's kernel
    L2,
    /// The agent against stock kernels, in guests
    L3,
    /// Traffic through stock kernels, in guests
    L4,
    /// The Kubernetes source against a real API server, and the agent with it in guests
    L5,
}

impl Level {
    /// The test target of package proxy-tests; L0 is every package's own tests.
    pub(super) fn target(self) -> Option<&'static str> {
        match self {
            Self::L0 => None,
            Self::L1 => Some("script"),
            Self::L2 => Some("datapath"),
            Self::L3 => Some("kernel"),
            Self::L4 => Some("traffic"),
            Self::L5 => Some("cluster"),
        }
    }

    /// On which of the kernels its tests are worth their time: an API server is heavy, and does not
    /// care.
    pub(super) fn kernels(self, all: &[(Kernel, String)]) -> &[(Kernel, String)] {
        match all {
            [.., last] if self == Self::L5 => std::slice::from_ref(last),
            all => all,
        }
    }

    /// What a guest takes: one that is a node of a whole cluster holds a file system in it too.
    fn memory(self) -> &'static str {
        if self == Self::L5 { "3G" } else { "2G" }
    }

    /// How many guests share its tests.
    pub(super) fn parts(self) -> usize {
        if self == Self::L4 { 2 } else { 1 }
    }

    /// Runs on this machine.
    pub(super) fn is_native(self) -> bool {
        !matches!(self, Self::L3 | Self::L4)
    }

    /// Runs in guests; L5 in part.
    pub(super) fn has_guests(self) -> bool {
        matches!(self, Self::L3 | Self::L4 | Self::L5)
    }
}

/// One line of the summary.
pub(super) struct Outcome {
    pub(super) level: Level,
    /// Series of the guest's kernel; `host` when run here.
    pub(super) kernel: String,
    pub(super) tally: Tally,
    pub(super) elapsed: Duration,
}

impl Outcome {
    /// Adds another part of the same level on the same kernel.
    pub(super) fn join(mut self, other: Self) -> Self {
        self.tally.join(other.tally);
        self.elapsed += other.elapsed;
        self
    }
}

/// What every level is run with.
pub(super) struct Setting {
    pub(super) filter: Option<String>,
    pub(super) timeout: Duration,
    pub(super) agent: PathBuf,
    /// What a test cluster is run with, by the variable that names it; empty when no level needs one.
    pub(super) cluster: BTreeMap<String, String>,
    pub(super) consent: Consent,
}

impl Setting {
    /// Runs the unit and documentation tests of the default members.
    pub(super) fn units(&self) -> Result<Outcome> {
        let started = Instant::now();
        let mut tally = Tally::default();
        for kind in [["--lib", "--bins"].as_slice(), &["--doc"]] {
            let mut cargo = workspace::cargo();
            cargo.args(["test", "--no-fail-fast"]).args(kind).arg("--").args(&self.filter);
            self.watch(&mut cargo, &mut tally)?;
        }
        Ok(Outcome { level: Level::L0, kernel: host(), tally, elapsed: started.elapsed() })
    }

    /// Runs a level's binary on this machine.
    pub(super) fn natively(&self, level: Level, binary: &Path) -> Result<Outcome> {
        let started = Instant::now();
        let mut tally = Tally::default();
        let mut command = Command::new("setpriv");
        // Tests end when we do; in the foreground, Ctrl-C reaches them.
        command.args(["--pdeathsig", "TERM", "--", "timeout", "--foreground"]);
        command.args(["--kill-after=10", &self.timeout.as_secs().to_string()]);
        command.arg(binary).args(&self.filter).current_dir(directory()).envs(self.environment());
        self.watch(&mut command, &mut tally)?;
        Ok(Outcome { level, kernel: host(), tally, elapsed: started.elapsed() })
    }

    /// Runs a level's binary in a guest: one boot for all its tests.
    pub(super) fn in_guest(&self, job: &Job<'_>) -> Outcome {
        let Job { level, binary, series, kernel, part } = *job;
        let started = Instant::now();
        let mut tally = Tally::default();
        let mut lines = Lines::of(series);
        let mut command = vec![binary.display().to_string()];
        command.extend(self.filter.clone());
        let mut environment = self.environment();
        environment.insert("PASSLANE_IN_GUEST".to_owned(), "1".to_owned());
        environment.insert("PASSLANE_TEST_PART".to_owned(), part.to_string());
        let guest = Guest {
            kernel: kernel.clone(),
            command,
            environment,
            directory: directory(),
            memory: level.memory().to_owned(),
            cpus: 2,
            accelerator: Accelerator::Auto,
            timeout: Some(self.timeout),
            keep_log: false,
            consent: self.consent,
        };
        let status = guest.run(Streams::Capture(&mut |is_stderr, bytes| {
            if is_stderr {
                let _ = io::stderr().write_all(bytes);
            } else {
                tally.feed(bytes);
                lines.pass_on(bytes);
            }
        }));
        lines.end();
        match status {
            Ok(status) => judge(&mut tally, status == 0, &format!("exit status {status}")),
            Err(error) => {
                progress(&format!("{series}: {error:#}"));
                tally.broken(&format!("{error:#}"));
            }
        }
        Outcome { level, kernel: series.to_owned(), tally, elapsed: started.elapsed() }
    }

    fn environment(&self) -> BTreeMap<String, String> {
        let text = |path: &Path| path.display().to_string();
        let mut environment = BTreeMap::from([
            ("PASSLANE_BIN".to_owned(), text(&self.agent)),
            // As cargo would set it.
            ("CARGO_MANIFEST_DIR".to_owned(), text(&directory())),
        ]);
        environment.extend(self.cluster.clone());
        environment
    }

    fn watch(&self, command: &mut Command, tally: &mut Tally) -> Result<()> {
        let shown = command::shown(command);
        progress(&shown);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start `{shown}`"))?;
        let mut stdout = child.stdout.take().context("stdout is piped")?;
        let mut bytes = [0; 8192];
        while let count @ 1.. = stdout.read(&mut bytes)? {
            pass_on(tally, bytes.get(..count).unwrap_or_default());
        }
        let status = child.wait()?;
        judge(tally, status.success(), &format!("`{shown}`: {status}"));
        Ok(())
    }
}

/// A binary that fails must have said which test failed, and one that passes must have run.
fn judge(tally: &mut Tally, success: bool, how: &str) {
    if (!success && tally.failed.is_empty()) || tally.results == 0 {
        tally.broken(how);
    }
}

fn pass_on(tally: &mut Tally, bytes: &[u8]) {
    tally.feed(bytes);
    // A closed stdout does not stop the tests.
    let mut stdout = io::stdout().lock();
    let _ = stdout.write_all(bytes).and_then(|()| stdout.flush());
}

/// The output of one of several guests that run at once: whole lines, each with its kernel.
struct Lines<'a> {
    series: &'a str,
    rest: Vec<u8>,
}

impl<'a> Lines<'a> {
    fn of(series: &'a str) -> Self {
        Self { series, rest: Vec::new() }
    }

    fn pass_on(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            self.print(&line);
        }
    }

    fn end(&mut self) {
        let mut line = std::mem::take(&mut self.rest);
        if !line.is_empty() {
            line.push(b'\n');
            self.print(&line);
        }
    }

    /// A closed stdout does not stop the tests.
    fn print(&self, line: &[u8]) {
        let mut stdout = io::stdout().lock();
        let _ = write!(stdout, "{:<5}| ", self.series)
            .and_then(|()| stdout.write_all(line))
            .and_then(|()| stdout.flush());
    }
}

/// Where cargo would run the tests of package proxy-tests.
fn directory() -> PathBuf {
    workspace::root().join("tests")
}

fn host() -> String {
    "host".to_owned()
}
