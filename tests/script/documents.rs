//! What the documents say is there: commands that a test runs, links, alerts, events, fields.
//!
//! The commands themselves run where they belong: on a node in `traffic/documents.rs`, against an API
//! server in `cluster/documents.rs`, and those of a clone of the repository here.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use libtest_mimic::{Failed, Trial};
use proxy_tests::documents::{self, Place};
use proxy_userspace::config::{ConfigFile, RunFlags, Settings};

const TROUBLESHOOTING: &str = "docs/troubleshooting.md";
const ALERTS: &str = "deploy/chart/files/alerts.yaml";

type Check = fn() -> Result<()>;

/// All tests of documents.
pub(crate) fn trials() -> Vec<Trial> {
    let all: [(&str, Check); 6] = [
        ("every command of the documents is one that a test runs", commands_are_known),
        ("the commands of a clone are understood", commands_of_a_clone_are_understood),
        ("every link of the documents leads somewhere", links_lead_somewhere),
        ("every alert has its heading in the troubleshooting", alerts_have_headings),
        ("every event that the troubleshooting names is in the list", events_are_in_the_list),
        ("every configuration in the documents can be used", configurations_can_be_used),
    ];
    let run = |check: Check| check().map_err(|error| Failed::from(format!("{error:#}")));
    all.into_iter().map(|(name, check)| Trial::test(name, move || run(check))).collect()
}

fn commands_are_known() -> Result<()> {
    for place in [Place::Node, Place::Cluster, Place::Build] {
        documents::commands(place)?;
    }
    Ok(())
}

/// Their arguments are read, and then help is printed instead of anything done.
fn commands_of_a_clone_are_understood() -> Result<()> {
    for command in documents::commands(Place::Build)? {
        for part in command.parts() {
            let asked = understood(&part).with_context(|| command.at.clone())?;
            ensure!(asked, "{}: `{}` is not understood", command.at, part.join(" "));
        }
    }
    let wrong = ["cargo", "xtask", "image", "--no-such-flag"].map(str::to_owned);
    ensure!(!understood(&wrong)?, "anything is understood");
    Ok(())
}

fn understood(words: &[String]) -> Result<bool> {
    let (_, arguments) = words.split_first().context("no program")?;
    // What comes after is another program's.
    let ours: Vec<&String> = arguments.iter().take_while(|word| *word != "--").collect();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    command.args(ours).arg("-h").current_dir(documents::root());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(command.status().context("start cargo")?.success())
}

fn links_lead_somewhere() -> Result<()> {
    let mut files = documents::files()?;
    let own = ["ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"];
    files.extend(own.map(str::to_owned));
    let mut count = 0;
    for file in files {
        let text = documents::read(&file)?;
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.contains("://")) {
            leads_somewhere(&file, link)?;
            count += 1;
        }
    }
    ensure!(count > 0, "there is no link");
    Ok(())
}

fn leads_somewhere(file: &str, link: &str) -> Result<()> {
    let (path, heading) = link.split_once('#').unwrap_or((link, ""));
    let from = documents::root().join(file);
    let to = match path {
        "" => from,
        path => from.parent().unwrap_or(Path::new("")).join(path),
    };
    ensure!(to.exists(), "{file} links to {path}, which is not there");
    if !heading.is_empty() {
        let text = fs::read_to_string(&to)?;
        let found = headings(&text).any(|other| anchor(other) == heading);
        ensure!(found, "{file} links to {link}, and there is no such heading");
    }
    Ok(())
}

/// The headings of a document, of any level.
fn headings(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_matches('#').trim())
}

/// What a link to a heading is called.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

fn alerts_have_headings() -> Result<()> {
    let alerts = documents::read(ALERTS)?;
    let alerts: BTreeSet<&str> =
        alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let text = documents::read(TROUBLESHOOTING)?;
    let headed: BTreeSet<&str> =
        headings(&text).filter(|heading| heading.starts_with("Passlane")).collect();
    ensure!(!alerts.is_empty(), "{ALERTS} has no alert");
    ensure!(alerts == headed, "alerts are {alerts:?}, and headings {headed:?}");
    Ok(())
}

fn events_are_in_the_list() -> Result<()> {
    let list = documents::read("LOGS.md")?;
    let known: BTreeSet<&str> = list.split('`').skip(1).step_by(2).collect();
    let text = documents::read(TROUBLESHOOTING)?;
    let named: Vec<&str> =
        text.split("event=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    ensure!(!named.is_empty(), "no event is named");
    let unknown: Vec<_> = named.into_iter().filter(|event| !known.contains(event)).collect();
    ensure!(unknown.is_empty(), "LOGS.md does not have {unknown:?}");
    Ok(())
}

/// Those of kube-proxy's form; values of the chart are rendered in `cluster/documents.rs`.
fn configurations_can_be_used() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("config.yaml");
    let mut count = 0;
    for block in documents::blocks()? {
        if block.language != "yaml" || !block.text.contains("kind: KubeProxyConfiguration") {
            continue;
        }
        let at = || format!("{}:{}", block.file, block.line);
        fs::write(&file, &block.text)?;
        let read = ConfigFile::read(&file).with_context(at)?;
        Settings::resolve(&RunFlags::default(), Some(&read)).with_context(at)?;
        count += 1;
    }
    ensure!(count > 0, "no document has one");
    Ok(())
}
