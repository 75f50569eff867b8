//! The form of a case file.

use std::fmt;

use anyhow::{Context, Result, bail, ensure};

/// A case: prose, then steps.
pub(crate) struct Case {
    /// Lines before the first step, each with `#` or empty.
    prose: String,
    pub(crate) steps: Vec<Step>,
}

/// One state of the manifests and what follows from it.
#[derive(Default)]
pub(crate) struct Step {
    /// The sentence of the step; empty for the first one of a case without steps.
    title: String,
    /// Manifests, node and observed, in the order of the file.
    pub(crate) inputs: Vec<Section>,
    /// The case asks for the desired state.
    pub(crate) shows_desired: bool,
    /// What is printed, in a fixed order.
    pub(crate) outputs: Vec<Section>,
}

pub(crate) struct Section {
    pub(crate) name: String,
    pub(crate) body: String,
}

/// Sections that are printed; all others are read.
const OUTPUTS: [&str; 4] = ["desired", "plan", "notices", "error"];

impl Case {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut prose = String::new();
        let mut steps = Vec::<Step>::new();
        for (number, line) in text.lines().enumerate() {
            let position = || format!("line {}: {line:?}", number + 1);
            if let Some(title) = heading(line, "==") {
                steps.push(Step { title: title.to_owned(), ..Step::default() });
            } else if let Some(name) = heading(line, "--") {
                if steps.is_empty() {
                    steps.push(Step::default());
                }
                let step = steps.last_mut().with_context(position)?;
                step.open(name).with_context(position)?;
            } else if let Some(step) = steps.last_mut() {
                step.add(line).with_context(position)?;
            } else {
                ensure!(line.is_empty() || line.starts_with('#'), "not prose: {}", position());
                prose.push_str(line);
                prose.push('\n');
            }
        }
        ensure!(!prose.is_empty(), "no prose: say why this must be so");
        ensure!(!steps.is_empty(), "no step");
        Ok(Self { prose, steps })
    }
}

impl Step {
    fn open(&mut self, name: &str) -> Result<()> {
        self.shows_desired |= name == "desired";
        let section = Section { name: name.to_owned(), body: String::new() };
        if OUTPUTS.contains(&name) {
            self.outputs.push(section);
        } else if self.outputs.is_empty() {
            self.inputs.push(section);
        } else {
            bail!("an input after an output: start a new step");
        }
        Ok(())
    }

    fn add(&mut self, line: &str) -> Result<()> {
        let sections = if self.outputs.is_empty() { &mut self.inputs } else { &mut self.outputs };
        let section = sections.last_mut().context("a line outside a section")?;
        section.body.push_str(line);
        section.body.push('\n');
        Ok(())
    }

    /// Forgets what was printed before.
    pub(crate) fn clear(&mut self) {
        self.outputs.clear();
    }

    pub(crate) fn print(&mut self, name: &str, value: impl fmt::Display) {
        self.outputs.push(Section { name: name.to_owned(), body: value.to_string() });
    }
}

fn heading<'a>(line: &'a str, mark: &str) -> Option<&'a str> {
    line.strip_prefix(mark)?.strip_suffix(mark)?.strip_prefix(' ')?.strip_suffix(' ')
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.prose)?;
        for step in &self.steps {
            if !step.title.is_empty() {
                writeln!(f, "== {} ==", step.title)?;
            }
            for Section { name, body } in step.inputs.iter().chain(&step.outputs) {
                write!(f, "-- {name} --\n{body}")?;
            }
        }
        Ok(())
    }
}
