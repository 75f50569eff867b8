//! What somebody who helps from afar wants to see of a node: commands and files, as they are.

use std::{
    fs, io,
    io::Read,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// More than this of one file or command helps nobody.
const LARGEST: u64 = 32 << 20;
/// How long a command may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// Something that cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file.
    #[error("read {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// A command that is not there, say.
    #[error("run {command}")]
    Run {
        /// The command.
        command: String,
        /// Cause.
        source: io::Error,
    },
    /// A command that failed.
    #[error("{command}: {complaint}")]
    Failed {
        /// The command.
        command: String,
        /// What it said.
        complaint: String,
    },
}

/// Returns a file, up to a limit; what is no UTF-8 is replaced.
///
/// # Errors
///
/// [`Error::File`].
pub fn file(path: &Path) -> Result<String, Error> {
    let failed = |source| Error::File { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    fs::File::open(path).map_err(failed)?.take(LARGEST).read_to_end(&mut bytes).map_err(failed)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Returns the last lines of a file.
///
/// # Errors
///
/// [`Error::File`].
pub fn tail(path: &Path, lines: usize) -> Result<String, Error> {
    use io::Seek;
    let failed = |source| Error::File { path: path.to_owned(), source };
    let mut file = fs::File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    file.seek(io::SeekFrom::Start(length.saturating_sub(LARGEST))).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(LARGEST).read_to_end(&mut bytes).map_err(failed)?;
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    let from = all.len().saturating_sub(lines);
    Ok(all[from..].iter().map(|line| format!("{line}\n")).collect())
}

/// Returns `name value` of every setting in these directories and of these files below `/proc/sys`.
/// What is not there, or not readable, is left out.
pub fn settings(places: &[&str]) -> String {
    let root = Path::new("/proc/sys");
    let mut files = Vec::new();
    for place in places {
        let path = root.join(place);
        match fs::read_dir(&path) {
            Ok(entries) => files.extend(entries.flatten().map(|entry| entry.path())),
            Err(_) => files.push(path),
        }
    }
    files.sort();
    let line = |path: &PathBuf| {
        let value = fs::read_to_string(path).ok()?;
        let name = path.strip_prefix(root).ok()?.to_string_lossy().replace('/', ".");
        Some(format!("{name} = {}\n", value.trim_end()))
    };
    files.iter().filter_map(line).collect()
}

/// Returns the arguments of a process, the first of which is its program.
///
/// # Errors
///
/// [`Error::File`].
pub fn arguments(pid: u32) -> Result<Vec<String>, Error> {
    let text = file(&PathBuf::from(format!("/proc/{pid}/cmdline")))?;
    Ok(text.split_terminator('\0').map(str::to_owned).collect())
}

/// Returns what a command prints, up to a limit. One that takes too long is ended.
///
/// # Errors
///
/// [`Error::Run`] and [`Error::Failed`].
pub fn command(program: &str, arguments: &[&str]) -> Result<String, Error> {
    let command = [&[program], arguments].concat().join(" ");
    let failed = |source| Error::Run { command: command.clone(), source };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let printed = child.stdout.take().map(drain);
    let complained = child.stderr.take().map(drain);
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        match child.try_wait().map_err(failed)? {
            Some(status) => break Some(status),
            None if Instant::now() > deadline => {
                // It may have ended by itself just now.
                let _ = child.kill();
                let _ = child.wait();
                break None;
            }
            None => thread::sleep(Duration::from_millis(10)),
        }
    };
    let text = |reader: Option<thread::JoinHandle<String>>| {
        reader.and_then(|reader| reader.join().ok()).unwrap_or_default()
    };
    let (printed, complained) = (text(printed), text(complained));
    let complaint = match status {
        Some(status) if status.success() => return Ok(printed),
        Some(status) => format!("{status}: {}", complained.lines().next().unwrap_or_default()),
        None => format!("did not end within {} s", PATIENCE.as_secs()),
    };
    Err(Error::Failed { command, complaint })
}

/// Reads to the end, so that the command can write, and keeps what is not too much.
fn drain(mut from: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What came before an error is worth something too.
        let _ = from.by_ref().take(LARGEST).read_to_end(&mut bytes);
        let _ = io::copy(&mut from, &mut io::sink());
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_says_what_it_printed_or_why_it_failed() {
        assert_eq!(command("echo", &["a", "b"]).unwrap(), "a b\n");
        let error = command("sh", &["-c", "echo no such thing >&2; exit 3"]).unwrap_err();
        assert!(error.to_string().ends_with("exit status: 3: no such thing"), "{error}");
        let error = command("passlane-no-such-command", &[]).unwrap_err();
        assert!(matches!(error, Error::Run { .. }), "{error}");
    }

    #[test]
    fn a_command_that_prints_much_does_not_hang() {
        let text = command("sh", &["-c", "head -c 3000000 /dev/zero | tr '\\0' x"]).unwrap();
        assert_eq!(text.len(), 3_000_000);
    }

    #[test]
    fn the_tail_is_the_last_lines() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        fs::write(&path, "one\ntwo\nthree\n").unwrap();
        assert_eq!(tail(&path, 2).unwrap(), "two\nthree\n");
        assert_eq!(tail(&path, 9).unwrap(), "one\ntwo\nthree\n");
        assert!(tail(&directory.path().join("none"), 1).is_err());
    }

    #[test]
    fn settings_have_their_dotted_names_and_the_absent_are_left_out() {
        let text = settings(&["kernel/ostype", "kernel/no_such_setting"]);
        assert_eq!(text, "kernel.ostype = Linux\n");
    }

    #[test]
    fn the_arguments_of_a_process_are_known() {
        let own = arguments(std::process::id()).unwrap();
        assert_eq!(own.first().map(String::as_str), std::env::args().next().as_deref());
    }
}
