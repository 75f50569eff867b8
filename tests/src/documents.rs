//! The commands of the documents: what readers type, so what tests run.
//!
//! A block marked `sh` has a command a line; one marked `console` has commands after `$ ` and what
//! they print below them, where `…` stands for anything. `# exit 3` behind a command says its exit
//! code, where that is not 0. Blocks marked `text`, `yaml` or `json` are not typed; others are errors.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use anyhow::{Context as _, Result, bail, ensure};

/// The documents whose commands are run, besides all in [`DIRECTORY`].
const ALONE: [&str; 2] = ["README.md", "deploy/chart/README.md"];
/// Where the others are.
pub const DIRECTORY: &str = "docs";
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

/// A fenced block.
#[derive(Clone, Debug)]
pub struct Block {
    /// The document, from the root of the repository.
    pub file: String,
    /// The line of its fence, from 1.
    pub line: usize,
    /// What stands behind the fence.
    pub language: String,
    /// What is between the fences.
    pub text: String,
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

/// The root of the repository.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The names of the documents, from the root of the repository.
pub fn files() -> Result<Vec<String>> {
    let mut files = ALONE.map(str::to_owned).to_vec();
    for entry in fs::read_dir(root().join(DIRECTORY)).context(DIRECTORY)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        ensure!(name.ends_with(".md"), "{DIRECTORY}/{name} is no document");
        files.push(format!("{DIRECTORY}/{name}"));
    }
    files.sort();
    Ok(files)
}

/// The text of a document.
pub fn read(file: &str) -> Result<String> {
    fs::read_to_string(root().join(file)).with_context(|| format!("cannot read {file}"))
}

/// The words behind `program` of each command that stands between backticks in a sentence.
#[must_use]
pub fn in_sentences(text: &str, program: &str) -> Vec<Vec<String>> {
    let mut is_fenced = false;
    let sentences = text.lines().filter(|line| {
        let is_fence = line.trim_start().starts_with("```");
        is_fenced ^= is_fence;
        !is_fence && !is_fenced
    });
    let sentences = sentences.collect::<Vec<_>>().join(" ");
    let spans = sentences.split('`').skip(1).step_by(2);
    spans.filter_map(|span| span.strip_prefix(program)?.strip_prefix(' ')).map(words).collect()
}

/// All fenced blocks of all documents.
pub fn blocks() -> Result<Vec<Block>> {
    let mut found = Vec::new();
    for file in files()? {
        found.extend(blocks_of(&file, &read(&file)?)?);
    }
    Ok(found)
}

/// All commands that belong there, in the order of the documents.
pub fn commands(place: Place) -> Result<Vec<Command>> {
    let mut found = Vec::new();
    for block in blocks()? {
        for command in block.commands()? {
            if command.place()? == place {
                found.push(command);
            }
        }
    }
    ensure!(!found.is_empty(), "no command for {place:?} in any document");
    Ok(found)
}

fn blocks_of(file: &str, text: &str) -> Result<Vec<Block>> {
    let mut found: Vec<Block> = Vec::new();
    let mut open = false;
    for (number, line) in text.lines().enumerate() {
        match (line.trim_start().strip_prefix("```"), open) {
            (Some(language), false) => {
                let (file, language) = (file.to_owned(), language.to_owned());
                found.push(Block { file, line: number + 1, language, text: String::new() });
                open = true;
            }
            (Some(_), true) => open = false,
            (None, true) => {
                let block = found.last_mut().context("a block is open")?;
                block.text += line;
                block.text.push('\n');
            }
            (None, false) => {}
        }
    }
    ensure!(!open, "{file} ends within a block");
    Ok(found)
}

impl Block {
    /// The commands in it.
    pub fn commands(&self) -> Result<Vec<Command>> {
        let at = format!("{}:{}", self.file, self.line);
        let prompt = match self.language.as_str() {
            "sh" => "",
            "console" => "$ ",
            "text" | "yaml" | "json" => return Ok(Vec::new()),
            other => bail!("{at} is marked {other:?}: mark it sh, console, text, yaml or json"),
        };
        let mut found: Vec<Command> = Vec::new();
        // A backslash at the end joins two lines.
        let joined = self.text.replace("\\\n", " ");
        for line in joined.lines().filter(|line| !line.trim().is_empty()) {
            let Some(typed) = line.strip_prefix(prompt) else {
                let last = found.last_mut().with_context(|| format!("{at}: {line} of nothing"))?;
                last.shown.push(line.to_owned());
                continue;
            };
            let (text, comment) = split_comment(typed);
            let words: Vec<&str> = text.split_whitespace().collect();
            if words.is_empty() {
                continue;
            }
            let exit = comment.trim().strip_prefix("exit ").and_then(|rest| {
                rest.split(|c: char| !c.is_ascii_digit()).next().and_then(|code| code.parse().ok())
            });
            let (at, text) = (at.clone(), words.join(" "));
            found.push(Command { at, text, exit: exit.unwrap_or(0), shown: Vec::new() });
        }
        Ok(found)
    }
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
fn split_comment(line: &str) -> (&str, &str) {
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
fn words(text: &str) -> Vec<String> {
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
fn fits(shown: &str, line: &str) -> bool {
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

#[cfg(test)]
mod tests;
