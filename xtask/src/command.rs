//! Running other programs. A failure names the program, its arguments and how it ended.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};

static STARTED: OnceLock<Instant> = OnceLock::new();

/// Starts the clock that progress lines show.
pub(crate) fn start_clock() {
    STARTED.get_or_init(Instant::now);
}

/// One progress line on stderr with the seconds since the start.
pub(crate) fn progress(text: &str) {
    let elapsed = STARTED.get_or_init(Instant::now).elapsed().as_secs_f64();
    // A closed stderr is no reason to stop work.
    let _ = io::stderr().write_all(format!("[{elapsed:6.1}s] {text}\n").as_bytes());
}

/// The command as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}

/// Runs to the end with stdout sent to stderr: our stdout is for data.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    command.stdin(Stdio::null()).stdout(io::stderr());
    let status = command.status().with_context(|| format!("cannot start `{}`", shown(command)))?;
    ensure!(status.success(), "`{}` failed: {status}", shown(command));
    Ok(())
}

/// Runs and returns stdout; on failure the error carries what the program wrote to stderr.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    command.stdin(Stdio::null());
    let output = command.output().with_context(|| format!("cannot start `{}`", shown(command)))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` failed: {}: {}", shown(command), output.status, stderr.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The program's path: an absolute path that exists, or the first on PATH and the sbin directories.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    if program.starts_with('/') {
        return Some(PathBuf::from(program)).filter(|path| path.exists());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(|dir| Path::new(dir).to_path_buf()))
        .map(|dir| dir.join(program))
        .find(|path| path.is_file())
}

/// Whether installing something needs no question: `--yes`, CI, or nobody there to ask.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Consent {
    given: bool,
}

impl Consent {
    pub(crate) fn new(yes: bool) -> Self {
        Self { given: yes || std::env::var_os("CI").is_some() || !io::stdin().is_terminal() }
    }

    /// Names what will be done and asks unless consent was given; an error when refused.
    pub(crate) fn ask(self, what: &str, by_hand: &str) -> Result<()> {
        if self.given {
            progress(what);
            return Ok(());
        }
        let _ = write!(io::stderr(), "{what}. Go on? [y/N] ");
        let mut answer = String::new();
        io::stdin().read_line(&mut answer)?;
        ensure!(matches!(answer.trim(), "y" | "Y" | "yes"), "refused; by hand: `{by_hand}`");
        Ok(())
    }
}
