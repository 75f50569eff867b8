//! Reading the guest kernel's console for signs that it cannot go on.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

/// What the kernel prints when it is broken, and what to call it.
const MARKERS: &[(&str, &str)] = &[
    ("Kernel panic - not syncing", "kernel panic"),
    ("Oops: ", "kernel oops"),
    ("general protection fault", "kernel oops"),
    ("BUG: unable to handle", "kernel oops"),
    ("kernel BUG at", "kernel BUG"),
    ("BUG: scheduling while atomic", "kernel BUG"),
    ("BUG: sleeping function", "kernel BUG"),
    ("BUG: soft lockup", "soft lockup"),
    ("hard LOCKUP", "hard lockup"),
    ("rcu_sched self-detected stall", "RCU stall"),
    ("rcu_preempt self-detected stall", "RCU stall"),
    ("detected stalls on CPUs", "RCU stall"),
    ("blocked for more than", "hung task"),
    ("Out of memory: Killed process", "out of memory; give more with --memory"),
];

/// Follows a console log as it grows.
pub(super) struct Console {
    path: PathBuf,
    read: u64,
    partial: String,
    last: String,
}

impl Console {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), read: 0, partial: String::new(), last: String::new() }
    }

    /// The first sign of trouble in what was printed since the last call.
    pub(super) fn trouble(&mut self) -> Option<String> {
        let mut text = Vec::new();
        let mut file = File::open(&self.path).ok()?;
        file.seek(SeekFrom::Start(self.read)).ok()?;
        self.read += file.read_to_end(&mut text).ok()? as u64;
        self.partial.push_str(&String::from_utf8_lossy(&text));
        let mut found = None;
        while let Some(end) = self.partial.find('\n') {
            let line: String = self.partial.drain(..=end).collect();
            let line = line.trim();
            found = found.or_else(|| classify(line));
            if !line.is_empty() {
                line.clone_into(&mut self.last);
            }
        }
        found
    }

    /// The last line on the console.
    pub(super) fn last(&self) -> &str {
        &self.last
    }
}

fn classify(line: &str) -> Option<String> {
    let (_, name) = MARKERS.iter().find(|(marker, _)| line.contains(marker))?;
    Some(format!("{name}: {line}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn trouble_is_found_once_its_line_is_complete() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let mut console = Console::new(file.path());
        write!(file, "[ 1.0] all is well\n[ 2.0] Kernel panic - not").unwrap();
        assert_eq!(console.trouble(), None);
        assert_eq!(console.last(), "[ 1.0] all is well");
        writeln!(file, " syncing: sysrq").unwrap();
        let found = console.trouble().unwrap();
        assert!(found.starts_with("kernel panic: [ 2.0]"), "{found}");
    }

    #[test]
    fn a_warning_is_not_trouble() {
        assert_eq!(classify("WARNING: CPU: 0 PID: 1 at net/core/dev.c"), None);
        assert!(classify("watchdog: BUG: soft lockup - CPU#1 stuck for 61s!").is_some());
    }
}
