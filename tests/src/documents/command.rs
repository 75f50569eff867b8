//! One command: where it belongs, and whether it did what its document says.

use std::process::Output;

use anyhow::{Result, ensure};

/// What runs on a node: `tests/traffic/documents.rs`.
const NODE: &[&str] = &[
    "bpftool",
    "cat",
    "conntrack",
    "curl",
    "grep",
    "ip",
    "ipset",
    "ipvsadm",
    "lsmod",
    "nft",
    "passlane",
    "sysctl",
    "tc",
];
/// What asks an API server: `tests/cluster/documents.rs`.
const CLUSTER: &[&str] = &["helm", "kubectl"];

/// Where a command belongs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Place {
    /// On a node with an agent.
    Node,
    /// Where helm and kubectl reach an API server.
    Cluster,
    /// In a clone of the repository.
    Build,
}

/// A command.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Command {
    /// The document and the line of the block.
    pub at: String,
    /// As a shell takes it, in one line.
    pub text: String,
    /// The exit code that the document says.
    pub exit: i32,
    /// What the document says that it prints.
    pub shown: Vec<String>,
}

impl Command {
    /// Where it belongs. A command that no test knows is an error.
    pub fn place(&self) -> Result<Place> {
        let programs: Vec<String> =
            self.parts().into_iter().filter_map(|part| part.into_iter().next()).collect();
        let all_of = |known: &[&str]| programs.iter().all(|name| known.contains(&name.as_str()));
        let any_of = |known: &[&str]| programs.iter().any(|name| known.contains(&name.as_str()));
        ensure!(!programs.is_empty(), "{}: {} runs nothing", self.at, self.text);
        if any_of(CLUSTER) && all_of(&[CLUSTER, NODE].concat()) {
            return Ok(Place::Cluster);
        }
        if all_of(NODE) {
            return Ok(Place::Node);
        }
        ensure!(
            all_of(&["cargo"]),
            "{}: no test runs `{}`; where it cannot be run, mark the block `text` and say so",
            self.at,
            self.text
        );
        Ok(Place::Build)
    }

    /// What a command of kubectl runs in the agent's pod, as typed on the node.
    #[must_use]
    pub fn on_a_node(self) -> Option<Self> {
        let (_, text) = self.text.split_once(" -- ").filter(|_| self.text.contains(" exec "))?;
        Some(Self { text: text.to_owned(), ..self })
    }

    /// The words of each program that it runs, without redirections.
    #[must_use]
    pub fn parts(&self) -> Vec<Vec<String>> {
        let mut parts: Vec<Vec<String>> = vec![Vec::new()];
        let mut is_target = false;
        for word in words(&self.text) {
            match word.as_str() {
                "|" | "&&" | "||" | ";" => parts.push(Vec::new()),
                ">" | "<" | ">>" => is_target = true,
                _ if is_target => is_target = false,
                _ => parts.last_mut().into_iter().for_each(|part| part.push(word.clone())),
            }
        }
        parts.retain(|part| !part.is_empty());
        parts
    }

    /// Holds what it did against what the document says.
    pub fn judge(&self, output: &Output) -> Result<()> {
        let printed = [&*output.stdout, &*output.stderr].map(String::from_utf8_lossy).concat();
        let said = || format!("{}: `{}` printed\n{printed}", self.at, self.text);
        let code = output.status.code();
        ensure!(code == Some(self.exit), "exit {code:?} instead of {}; {}", self.exit, said());
        let mut lines = printed.lines();
        for shown in &self.shown {
            ensure!(lines.any(|line| fits(shown, line)), "{shown:?} is missing; {}", said());
        }
        Ok(())
    }
}

/// Splits what is typed from the comment behind it.
pub(super) fn split_comment(line: &str) -> (&str, &str) {
    let mut quote = None;
    let mut before = ' ';
    for (index, c) in line.char_indices() {
        match (quote, c) {
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), _) if open == c => quote = None,
            (None, '#') if before == ' ' => {
                let (typed, comment) = line.split_at(index);
                return (typed, comment.strip_prefix('#').unwrap_or_default());
            }
            _ => {}
        }
        before = c;
    }
    (line, "")
}

/// Splits at blanks outside of quotes, and takes the quotes off.
pub(super) fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in text.chars() {
        match (quote, c) {
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (Some(open), _) if open == c => quote = None,
            (None, ' ') => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// Whether a line is as shown, where `…` stands for anything and blanks for each other.
pub(super) fn fits(shown: &str, line: &str) -> bool {
    let single = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (shown, line) = (single(shown), single(line));
    let mut parts = shown.split('…').map(str::trim);
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = line.strip_prefix(first) else { return false };
    let mut last = None;
    for part in parts {
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
        last = Some(part);
    }
    last.map_or(rest.is_empty(), |part| line.ends_with(part))
}
