//! keepalived on a gateway, with the configuration that the documents show.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::documents;
use crate::netns::Namespace;
use crate::wait;

/// Where the example is.
const DOCUMENT: &str = "docs/gateway.md";

/// The line of the example that differs from gateway to gateway.
const PRIORITY: &str = "priority 150";

/// A keepalived that can be started again and again. Dropping it ends it.
#[derive(Debug)]
pub struct Keepalived {
    gateway: Namespace,
    directory: PathBuf,
    child: Option<Child>,
}

/// The example of the documents.
pub fn example() -> Result<String> {
    let blocks = documents::blocks()?;
    let found = blocks
        .into_iter()
        .find(|block| block.file == DOCUMENT && block.text.contains("vrrp_instance"));
    let text = found.with_context(|| format!("{DOCUMENT} has no vrrp_instance"))?.text;
    ensure!(text.contains(PRIORITY), "no `{PRIORITY}` in\n{text}");
    ensure!(!text.contains("virtual_server"), "keepalived would serve by itself:\n{text}");
    Ok(text)
}

impl Keepalived {
    /// Starts it with the example, at this priority.
    pub fn start(gateway: &Namespace, directory: &Path, priority: u8) -> Result<Self> {
        fs::create_dir_all(directory)?;
        let text = example()?.replace(PRIORITY, &format!("priority {priority}"));
        fs::write(directory.join("keepalived.conf"), text)?;
        let mut keepalived =
            Self { gateway: gateway.clone(), directory: directory.to_owned(), child: None };
        keepalived.spawn()?;
        Ok(keepalived)
    }

    /// Starts the process.
    pub fn spawn(&mut self) -> Result<()> {
        let file = |name: &str| self.directory.join(name).display().to_string();
        let log = File::options().create(true).append(true).open(file("keepalived.log"))?;
        let mut command = Command::new("setsid");
        command
            .args(["keepalived", "--dont-fork", "--log-console", "--log-detail"])
            .args(["--use-file", &file("keepalived.conf"), "--pid", &file("keepalived.pid")])
            .args(["--vrrp_pid", &file("vrrp.pid"), "--checkers_pid", &file("checkers.pid")])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = self.gateway.enter(|| command.spawn().context("start keepalived"))?;
        self.child = Some(child);
        Ok(())
    }

    /// Asks it to end, and waits until it did.
    pub fn stop(&mut self) -> Result<()> {
        let mut child = self.child.take().context("keepalived does not run")?;
        kill_process(pid(&child)?, Signal::TERM)?;
        let ended = wait::until("keepalived ends", wait::PATIENCE, || Ok(child.try_wait()?));
        ended.map(drop).with_context(|| self.log())
    }

    /// Ends it and its children by SIGKILL: what it has put stays.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            kill_process_group(pid(&child)?, Signal::KILL)?;
            child.wait()?;
        }
        Ok(())
    }

    /// What it said so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("keepalived.log")).unwrap_or_default()
    }
}

fn pid(child: &Child) -> Result<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("no process id")
}

impl Drop for Keepalived {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("keepalived: {error:#}");
        }
    }
}
