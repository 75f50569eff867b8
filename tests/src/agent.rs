//! The agent in the node of a topology: started, asked, killed and cleaned up.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use proxy_common::abi::PIN_DIRECTORY;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::netns::Namespace;
use crate::objects::Manifests;
use crate::topology::Topology;
use crate::{process, residue, wait};

/// The agent's binary: `PASSLANE_BIN`, or `passlane` in the build directory this test came from.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("PASSLANE_BIN") {
        return Ok(PathBuf::from(path));
    }
    let test = std::env::current_exe().context("path of the test")?;
    let beside = test.ancestors().map(|directory| directory.join("passlane"));
    let found = beside.skip(1).take(2).find(|path| path.is_file());
    found.ok_or_else(|| anyhow!("no agent: set PASSLANE_BIN or build the package proxy-userspace"))
}

/// The agent of one node. Dropping it ends the process and runs `passlane cleanup`.
#[derive(Debug)]
pub struct Agent {
    node: Namespace,
    directory: PathBuf,
    bpffs: PathBuf,
    source: String,
    options: Vec<String>,
    prefix: Vec<String>,
    child: Option<Child>,
}

impl Agent {
    /// Starts an agent and waits until it says it is ready.
    pub fn start(topology: &Topology, manifests: &Manifests, options: &[&str]) -> Result<Self> {
        let mut agent = Self::new(topology, manifests, options);
        agent.spawn()?;
        agent.wait_ready()?;
        Ok(agent)
    }

    /// An agent that is not running yet.
    #[must_use]
    pub fn new(topology: &Topology, manifests: &Manifests, options: &[&str]) -> Self {
        Self {
            node: topology.node.clone(),
            directory: topology.directory().to_owned(),
            bpffs: topology.bpffs(),
            source: format!("file:{}", manifests.directory().display()),
            options: options.iter().map(|&option| option.to_owned()).collect(),
            prefix: Vec::new(),
            child: None,
        }
    }

    /// Sets the options of the next start.
    pub fn set_options(&mut self, options: &[&str]) {
        self.options = options.iter().map(|&option| option.to_owned()).collect();
    }

    /// Starts from now on through a command that ends by executing its arguments, e.g. `env`.
    #[must_use]
    pub fn through(mut self, prefix: &[&str]) -> Self {
        self.prefix = prefix.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Takes Services from another source than the manifests.
    #[must_use]
    pub fn following(mut self, source: &str) -> Self {
        source.clone_into(&mut self.source);
        self
    }

    /// Pins elsewhere from now on.
    #[must_use]
    pub fn pinning_at(mut self, directory: &Path) -> Self {
        directory.clone_into(&mut self.bpffs);
        self
    }

    /// Runs in another namespace than the node, as the agent of a node inside it, with its files in
    /// another directory.
    #[must_use]
    pub fn inside(mut self, namespace: &Namespace, directory: &Path) -> Self {
        self.node = namespace.clone();
        directory.clone_into(&mut self.directory);
        self
    }

    /// Starts the process and returns at once.
    pub fn spawn(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.log_path())?;
        let mut words = self.prefix.clone();
        words.push(binary()?.to_string_lossy().into_owned());
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .args(["run", "--source", &self.source])
            .args(self.places())
            .args(&self.options)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = self.node.enter(|| command.spawn().context("start the agent"))?;
        fs::write(self.directory.join(residue::AGENT_PID_FILE), child.id().to_string())?;
        self.child = Some(child);
        Ok(())
    }

    /// Waits until this process says it is ready; errs at once when it ends instead.
    pub fn wait_ready(&mut self) -> Result<()> {
        let pid = self.pid()?;
        let ready = wait::until("the agent is ready", wait::PATIENCE, || {
            if let Some(status) = self.ended()? {
                return Ok(Some(Err(status)));
            }
            let report = self.report()?;
            let ours = report["pid"].as_u64() == Some(u64::from(pid));
            Ok((ours && report["ready"] == true).then_some(Ok(())))
        });
        match ready {
            Ok(Ok(())) => Ok(()),
            Ok(Err(status)) => Err(anyhow!("the agent ended: {status}\n{}", self.log())),
            Err(error) => Err(error.context(self.log())),
        }
    }

    /// The process id of the running agent.
    pub fn pid(&self) -> Result<u32> {
        self.child.as_ref().map(Child::id).ok_or_else(|| anyhow!("the agent is not running"))
    }

    /// Waits until the process ends by itself.
    pub fn wait_ended(&mut self) -> Result<ExitStatus> {
        let status = wait::until("the agent ends", wait::PATIENCE, || self.ended())
            .with_context(|| self.log())?;
        self.child = None;
        Ok(status)
    }

    /// Ends the process with SIGKILL: it can do nothing more.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Asks the process to end, and waits until it did.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        let pid = i32::try_from(self.pid()?).ok().and_then(Pid::from_raw);
        kill_process(pid.ok_or_else(|| anyhow!("no process id"))?, Signal::TERM)?;
        self.wait_ended()
    }

    /// Runs a verb of the command line in the node, whatever its exit code.
    pub fn verb(&self, words: &[&str]) -> Result<Output> {
        let places = self.places();
        let args: Vec<&str> =
            words.iter().copied().chain(places.iter().map(String::as_str)).collect();
        let binary = binary()?;
        self.node.output(&binary.to_string_lossy(), &args)
    }

    /// Runs a verb that must succeed and returns its output.
    pub fn text(&self, words: &[&str]) -> Result<String> {
        let output = self.verb(words)?;
        if !output.status.success() {
            bail!("passlane {}: {}", words.join(" "), process::complaint(&output));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The JSON a verb prints, whatever its exit code: a degraded agent still reports.
    pub fn json(&self, verb: &str) -> Result<Value> {
        let output = self.verb(&[verb, "-o", "json"])?;
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("passlane {verb}: {}", process::complaint(&output)))
    }

    /// `passlane status`.
    pub fn status(&self) -> Result<Value> {
        self.json("status")
    }

    /// What the agent said last, from its file: the command to ask is a process each time, and takes
    /// from the agent the time it needs to get ready.
    fn report(&self) -> Result<Value> {
        let text = fs::read_to_string(self.directory.join("state").join("status.json"))?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Everything the processes of this agent logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Waits until the log has a line with all of these words and returns the line.
    pub fn wait_log(&self, words: &[&str]) -> Result<String> {
        wait::until(&format!("the agent logs {words:?}"), wait::PATIENCE, || {
            let log = self.log();
            let line = log.lines().find(|line| words.iter().all(|word| line.contains(word)));
            Ok(line.map(str::to_owned))
        })
        .with_context(|| self.log())
    }

    /// The directory of the pinned maps of the current layout.
    #[must_use]
    pub fn pins(&self) -> PathBuf {
        self.bpffs.join(PIN_DIRECTORY)
    }

    fn ended(&mut self) -> Result<Option<ExitStatus>> {
        let child = self.child.as_mut().ok_or_else(|| anyhow!("the agent is not running"))?;
        Ok(child.try_wait()?)
    }

    fn log_path(&self) -> PathBuf {
        self.directory.join("agent.log")
    }

    fn places(&self) -> Vec<String> {
        let shown = |path: &Path| path.display().to_string();
        vec![
            "--state-dir".to_owned(),
            shown(&self.directory.join("state")),
            "--bpffs".to_owned(),
            shown(&self.bpffs),
        ]
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let killed = self.kill();
        let cleaned = self.verb(&["cleanup"]);
        for error in [killed.err(), cleaned.err()].into_iter().flatten() {
            eprintln!("agent: {error:#}");
        }
        // The bound on how long a link of a killed process may linger in the kernel.
        let _gone = wait::until_true("the pins are gone", Duration::from_secs(1), || {
            Ok(!self.pins().exists())
        });
    }
}
