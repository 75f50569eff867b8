//! A process of the node that runs until it is dropped.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

/// How much of a log is shown.
const LAST_LINES: usize = 15;

/// The process, and what it said.
pub(crate) struct Daemon {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts a program with its log in this directory.
    pub(crate) fn start(program: &Path, arguments: &[String], directory: &Path) -> Result<Self> {
        let name = program.file_name().context("a program has a name")?.to_string_lossy();
        let name = name.into_owned();
        let log = directory.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log)?;
        let child = Command::new("setpriv")
            // Ends with the thread that started it, however that ends.
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program)
            .args(arguments)
            // Memory is at hand, and time is not.
            .env("GOGC", "400")
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("start {name}"))?;
        Ok(Self { name, child, log })
    }

    /// Errs when it has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended, {status}: {}", self.name, self.last_words());
        }
        Ok(())
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// What it said last, with its name.
    pub(crate) fn last_words(&self) -> String {
        let text = self.log();
        let lines: Vec<_> = text.lines().collect();
        let last = lines.get(lines.len().saturating_sub(LAST_LINES)..).unwrap_or_default();
        format!("{}:\n{}\n", self.name, last.join("\n"))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
