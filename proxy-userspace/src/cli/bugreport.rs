//! `passlane bugreport`: one archive with all that support would ask for, without secrets.

mod parts;
mod redact;

use std::{
    fs::File,
    io::{self, IsTerminal, Write},
    path::PathBuf,
    sync::mpsc,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use clap::Args;
use serde::Serialize;

use super::{Failure, output};
use crate::config::Paths;
use parts::{Context, Outcome, PARTS, Part};
use redact::redact;

/// The flags of `passlane bugreport`.
#[derive(Args, Clone, Debug)]
pub(super) struct Flags {
    /// The archive, a tar; - is stdout: kubectl exec POD -- passlane bugreport > report.tar
    #[arg(value_name = "FILE", default_value = "-")]
    file: PathBuf,
    /// The file that the agent logs to, where it is not the journal
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    #[command(flatten)]
    paths: Paths,
}

/// A part that takes longer is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is in the archive, and what is not and why.
#[derive(Debug, Serialize)]
struct Manifest {
    #[serde(rename = "apiVersion")]
    api_version: &'static str,
    kind: &'static str,
    /// Seconds since 1970.
    taken_at: u64,
    node: String,
    passlane: &'static str,
    parts: Vec<Entry>,
}

#[derive(Debug, Serialize)]
struct Entry {
    file: &'static str,
    /// After secrets were removed.
    bytes: usize,
    /// Why it is not there.
    #[serde(skip_serializing_if = "Option::is_none")]
    failed: Option<String>,
}

/// Writes the archive. That parts are missing is said, and no failure.
pub(super) fn run(flags: &Flags) -> Result<(), Failure> {
    let Flags { file, log, paths } = flags;
    let to_stdout = file.as_os_str() == "-";
    if to_stdout && io::stdout().is_terminal() {
        let cure = "name a file, or send stdout to one: passlane bugreport > report.tar";
        return Err(Failure::Usage(cure.to_owned()));
    }
    let context = Context { paths: paths.clone(), log: log.clone() };
    let failed = |source| Failure::Write { path: file.clone(), source };
    let entries = match to_stdout {
        true => write(io::stdout().lock(), &context, PARTS),
        false => File::create(file).and_then(|archive| write(archive, &context, PARTS)),
    };
    let entries = match entries {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
        entries => entries.map_err(failed)?,
    };
    for Entry { file, failed, .. } in &entries {
        if let Some(failed) = failed {
            eprintln!("passlane: without {file}: {failed}");
        }
    }
    Ok(())
}

fn write(to: impl Write, context: &Context, parts: &[Part]) -> io::Result<Vec<Entry>> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let node = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let mut archive = Archive { builder: tar::Builder::new(to), now, node };
    let mut entries = Vec::new();
    for part in parts {
        let (name, outcome) = (part.0, gather(*part, context));
        // What went wrong may quote what it was given.
        let (text, failed) = match outcome {
            Ok(text) => (Some(redact(&text)), None),
            Err(why) => (None, Some(redact(&why))),
        };
        if let Some(text) = &text {
            archive.add(name, text.as_bytes())?;
        }
        entries.push(Entry { file: name, bytes: text.map_or(0, |text| text.len()), failed });
    }
    let manifest = Manifest {
        api_version: output::API_VERSION,
        kind: "BugReport",
        taken_at: now,
        node: archive.node.clone(),
        passlane: env!("CARGO_PKG_VERSION"),
        parts: entries,
    };
    archive.add("manifest.json", &serde_json::to_vec_pretty(&manifest)?)?;
    archive.builder.into_inner()?.flush()?;
    Ok(manifest.parts)
}

/// Gathers a part on a thread of its own: one that hangs or panics takes nothing else with it.
fn gather((name, part): Part, context: &Context) -> Outcome {
    let (tell, told) = mpsc::channel();
    let context = context.clone();
    let started = thread::Builder::new().name(name.to_owned()).spawn(move || {
        // Nobody listens any more when it took too long.
        let _ = tell.send(part(&context));
    });
    started.map_err(|error| format!("start a thread: {error}"))?;
    told.recv_timeout(PATIENCE).unwrap_or_else(|error| {
        Err(match error {
            mpsc::RecvTimeoutError::Timeout => format!("nothing within {} s", PATIENCE.as_secs()),
            mpsc::RecvTimeoutError::Disconnected => "passlane panicked here: see stderr".to_owned(),
        })
    })
}

/// The tar file.
struct Archive<W: Write> {
    builder: tar::Builder<W>,
    now: u64,
    node: String,
}

impl<W: Write> Archive<W> {
    fn add(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(self.now);
        let path = format!("passlane-bugreport-{}-{}/{name}", self.node, self.now);
        self.builder.append_data(&mut header, path, content)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, io::Read};

    use super::*;

    fn files(archive: &[u8]) -> BTreeMap<String, String> {
        let mut files = BTreeMap::new();
        for entry in tar::Archive::new(archive).entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().into_owned();
            let name: PathBuf = path.components().skip(1).collect();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            files.insert(name.display().to_string(), text);
        }
        files
    }

    fn context() -> Context {
        Context { paths: Paths { state_dir: "/nonexistent".into(), ..Paths::default() }, log: None }
    }

    #[test]
    fn parts_that_fail_or_panic_are_named_and_the_others_are_there_without_secrets() {
        let parts: &[Part] = &[
            ("good.txt", |_| Ok("password: s3cret\nfine\n".into())),
            ("bad.txt", |_| Err("open it with --token=s3cret: no".into())),
            ("panics.txt", |_| Ok(std::env::var("PASSLANE_IS_NOT_SET").unwrap())),
            ("node/last.txt", |_| Ok("last".into())),
        ];
        let mut archive = Vec::new();
        write(&mut archive, &context(), parts).unwrap();
        let files = files(&archive);
        let names: Vec<&str> = files.keys().map(String::as_str).collect();
        assert_eq!(names, ["good.txt", "manifest.json", "node/last.txt"]);
        assert_eq!(files["good.txt"], "password: <removed>\nfine\n");
        assert!(!String::from_utf8_lossy(&archive).contains("s3cret"));
        let manifest: serde_json::Value = serde_json::from_str(&files["manifest.json"]).unwrap();
        assert_eq!(manifest["kind"], "BugReport");
        assert_eq!(manifest["parts"][1]["failed"], "open it with --token=<removed> no");
        assert_eq!(manifest["parts"][2]["failed"], "passlane panicked here: see stderr");
        assert_eq!(manifest["parts"][3]["bytes"], 4);
    }

    #[test]
    fn names_of_parts_are_unique() {
        let names: std::collections::BTreeSet<&str> = PARTS.iter().map(|part| part.0).collect();
        assert_eq!(names.len(), PARTS.len());
    }

    #[test]
    fn without_an_agent_there_is_a_report_all_the_same() {
        let mut archive = Vec::new();
        let entries = write(&mut archive, &context(), PARTS).unwrap();
        assert_eq!(entries.len(), PARTS.len());
        let files = files(&archive);
        assert!(files["version.json"].contains("\"kind\": \"Version\""));
        let config = entries.iter().find(|entry| entry.file == "agent/config.yaml").unwrap();
        assert_eq!(config.failed.as_deref(), Some("no agent runs with this --state-dir"));
    }
}
