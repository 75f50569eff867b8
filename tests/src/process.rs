//! Running programs: one way to run a tool and read what it printed.

use std::ffi::OsStr;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, bail};

/// Runs `program` and returns its standard output.
///
/// Errs, with what it printed on stderr, when it cannot be started or ends with another code
/// than 0.
pub fn run<S: AsRef<OsStr>>(program: &str, args: &[S]) -> Result<String> {
    let output = output(program, args)?;
    if !output.status.success() {
        bail!("{}: {}", described(program, args), complaint(&output));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs `program` to its end, whatever its exit code.
pub fn output<S: AsRef<OsStr>>(program: &str, args: &[S]) -> Result<Output> {
    Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .with_context(|| described(program, args))
}

/// Runs `program` with `input` on its standard input.
pub fn feed<S: AsRef<OsStr>>(program: &str, args: &[S], input: &str) -> Result<String> {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| described(program, args))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).with_context(|| described(program, args))?;
    }
    let output = child.wait_with_output().with_context(|| described(program, args))?;
    if !output.status.success() {
        bail!("{} with\n{input}{}", described(program, args), complaint(&output));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Makes this thread, and those it starts, leave the processors to everything else: clients that
/// ask without end shall not keep a proxy from reacting, on a machine of any speed.
pub fn give_way() {
    const LAST: i32 = 19;
    // Not permitted is as good as it gets.
    let _ = rustix::process::setpriority_process(None, LAST);
}

/// Whether `program` can be started at all.
#[must_use]
pub fn exists(program: &str) -> bool {
    let Some(path) = std::env::var_os("PATH") else { return false };
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// What a failed program had to say, with its exit status.
#[must_use]
pub fn complaint(output: &Output) -> String {
    format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim())
}

fn described<S: AsRef<OsStr>>(program: &str, args: &[S]) -> String {
    let args: Vec<_> = args.iter().map(|arg| arg.as_ref().to_string_lossy()).collect();
    format!("{program} {}", args.join(" "))
}
