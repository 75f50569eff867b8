//! The commands of the documents: what readers type, so what tests run.
//!
//! A block marked `sh` has a command a line; one marked `console` has commands after `$ ` and what
//! they print below them, where `…` stands for anything. `# exit 3` behind a command says its exit
//! code, where that is not 0. Blocks marked `text`, `yaml` or `json` are not typed; others are errors.

mod command;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

pub use command::{Command, Place};
use command::{split_comment, words};

/// The documents whose commands are run, besides all in [`DIRECTORY`].
const ALONE: [&str; 2] = ["README.md", "deploy/chart/README.md"];
/// Where the others are.
pub const DIRECTORY: &str = "docs";

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

#[cfg(test)]
mod tests;
