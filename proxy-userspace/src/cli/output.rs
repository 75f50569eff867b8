//! Tables, JSON and YAML: one printer for every verb. stdout is data.

use std::io::{self, Write};

use clap::ValueEnum;
use comfy_table::{Table, presets::NOTHING};
use serde::Serialize;

/// How a verb prints.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum Format {
    /// Columns for people
    #[default]
    Table,
    /// More columns
    Wide,
    /// One JSON value
    Json,
    /// The same as YAML
    Yaml,
}

/// An error of printing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// stdout is gone.
    #[error("write to stdout")]
    Write(#[from] io::Error),
    /// A value has no JSON form.
    #[error("print as JSON")]
    Json(#[from] serde_json::Error),
    /// A value has no YAML form.
    #[error("print as YAML")]
    Yaml(#[from] serde_saphyr::ser::Error),
}

/// Prints text to stdout.
///
/// # Errors
///
/// [`Error::Write`], but not when the reader has seen enough and closed the pipe.
pub fn text(text: &str) -> Result<(), Error> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

/// Prints a value, or the table of it.
///
/// # Errors
///
/// As [`text`], and when the value cannot be serialised.
pub fn value<T: Serialize>(
    value: &T,
    format: Format,
    table: impl FnOnce(bool) -> Table,
) -> Result<(), Error> {
    match format {
        Format::Json => text(&(serde_json::to_string_pretty(value)? + "\n")),
        Format::Yaml => text(&serde_saphyr::to_string(value)?),
        Format::Table => text(&render(&table(false))),
        Format::Wide => text(&render(&table(true))),
    }
}

/// Makes a table as kubectl prints them: capital headers, three spaces, no lines.
pub fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_preset(NOTHING);
    table.set_header(header);
    table
}

/// Renders a table without spaces at line ends.
pub fn render(table: &Table) -> String {
    let mut table = table.clone();
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}
