//! Tables, JSON, YAML and names: one printer for every verb. stdout is data.
//!
//! Every JSON or YAML document begins with `apiVersion` and `kind`; lists have `items`. Fields are
//! added within a version, never renamed or removed.

use std::io::{self, Write};

use clap::ValueEnum;
use comfy_table::{Table, presets::NOTHING};
use serde::Serialize;

/// The version of every document; another one when a field goes or changes its meaning.
pub const API_VERSION: &str = "cli.passlane.io/v1";

/// How a verb prints.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum Format {
    /// Columns for people
    #[default]
    Table,
    /// More columns
    Wide,
    /// One JSON document
    Json,
    /// The same as YAML
    Yaml,
    /// Names only, as KIND/NAME
    Name,
}

impl Format {
    /// Says whether the format is for people.
    pub fn is_text(self) -> bool {
        matches!(self, Self::Table | Self::Wide)
    }
}

/// How a table is printed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Style {
    /// With more columns.
    pub wide: bool,
    /// With a line of headers.
    pub headers: bool,
}

impl Style {
    /// Few columns, with headers.
    pub const NARROW: Self = Self { wide: false, headers: true };
}

/// What a verb prints.
pub(super) trait View: Serialize {
    /// The `kind` of the document.
    const KIND: &'static str;

    /// Returns it for people.
    fn text(&self, style: Style) -> String;

    /// Returns what `-o name` prints; `None` when it is nothing that has names.
    fn names(&self) -> Option<Vec<String>> {
        None
    }
}

/// A value with what says how to read it.
#[derive(Serialize)]
struct Document<'a, T> {
    #[serde(rename = "apiVersion")]
    api_version: &'static str,
    kind: &'static str,
    #[serde(flatten)]
    value: &'a T,
}

/// A document is in one line when others follow it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Layout {
    /// One for people.
    Alone,
    /// One of many.
    Sequence,
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
    /// The verb prints nothing that has names.
    #[error("-o name: there are no names to print; use -o table, wide, json or yaml")]
    NoNames,
}

/// Prints text to stdout. Says whether somebody still reads.
///
/// # Errors
///
/// [`Error::Write`], but not when the reader has seen enough and closed the pipe.
pub fn page(text: &str) -> Result<bool, Error> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        result => Ok(result.map(|()| true)?),
    }
}

/// Prints text to stdout.
///
/// # Errors
///
/// As [`page`].
pub fn text(text: &str) -> Result<(), Error> {
    page(text).map(drop)
}

/// Returns a view in a format.
pub(super) fn show<V: View>(
    view: &V,
    format: Format,
    headers: bool,
    layout: Layout,
) -> Result<String, Error> {
    let document = || Document { api_version: API_VERSION, kind: V::KIND, value: view };
    Ok(match format {
        Format::Json if layout == Layout::Sequence => serde_json::to_string(&document())? + "\n",
        Format::Json => serde_json::to_string_pretty(&document())? + "\n",
        Format::Yaml if layout == Layout::Sequence => {
            format!("---\n{}", serde_saphyr::to_string(&document())?)
        }
        Format::Yaml => serde_saphyr::to_string(&document())?,
        Format::Table | Format::Wide => view.text(Style { wide: format == Format::Wide, headers }),
        Format::Name => {
            let names = view.names().ok_or(Error::NoNames)?;
            names.into_iter().map(|name| name + "\n").collect()
        }
    })
}

/// Prints a document of another API, which says itself what it is, or the table of it.
///
/// # Errors
///
/// As [`text`], and when the value cannot be serialised.
pub fn value<T: Serialize>(
    value: &T,
    format: Format,
    headers: bool,
    table: impl FnOnce(bool) -> Table,
) -> Result<(), Error> {
    match format {
        Format::Json => text(&(serde_json::to_string_pretty(value)? + "\n")),
        Format::Yaml => text(&serde_saphyr::to_string(value)?),
        Format::Name => Err(Error::NoNames),
        Format::Table => text(&render(&table(false), headers)),
        Format::Wide => text(&render(&table(true), headers)),
    }
}

/// Makes a table as kubectl prints them: capital headers, three spaces, no lines.
pub fn table<const N: usize>(header: [&str; N]) -> Table {
    columns(&header)
}

/// The same with as many columns as come.
pub fn columns(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header(header);
    table
}

/// Renders a table without spaces at line ends.
pub fn render(table: &Table, headers: bool) -> String {
    let mut table = table.clone();
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    let lines = table.lines().skip(usize::from(!headers));
    lines.map(|line| line.trim_end().to_owned() + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Pods {
        items: Vec<&'static str>,
    }

    impl View for Pods {
        const KIND: &'static str = "PodList";

        fn text(&self, style: Style) -> String {
            let mut table = table(["NAME"]);
            for item in &self.items {
                table.add_row([*item]);
            }
            render(&table, style.headers)
        }

        fn names(&self) -> Option<Vec<String>> {
            Some(self.items.iter().map(|item| format!("pod/{item}")).collect())
        }
    }

    fn shown(format: Format, layout: Layout) -> String {
        show(&Pods { items: vec!["a", "b"] }, format, true, layout).unwrap()
    }

    #[test]
    fn a_document_says_first_what_it_is() {
        assert_eq!(
            shown(Format::Json, Layout::Alone),
            "{\n  \"apiVersion\": \"cli.passlane.io/v1\",\n  \"kind\": \"PodList\",\n  \
             \"items\": [\n    \"a\",\n    \"b\"\n  ]\n}\n"
        );
        assert_eq!(
            shown(Format::Yaml, Layout::Alone),
            "apiVersion: cli.passlane.io/v1\nkind: PodList\nitems:\n- a\n- b\n"
        );
    }

    #[test]
    fn documents_of_a_sequence_are_lines_of_json_or_documents_of_yaml() {
        let line = "{\"apiVersion\":\"cli.passlane.io/v1\",\"kind\":\"PodList\",\
                    \"items\":[\"a\",\"b\"]}\n";
        assert_eq!(shown(Format::Json, Layout::Sequence), line);
        assert!(shown(Format::Yaml, Layout::Sequence).starts_with("---\napiVersion: "));
    }

    #[test]
    fn names_have_their_kind_and_headers_can_be_left_out() {
        assert_eq!(shown(Format::Name, Layout::Alone), "pod/a\npod/b\n");
        assert_eq!(shown(Format::Table, Layout::Alone), "NAME\na\nb\n");
        let view = Pods { items: vec!["a"] };
        assert_eq!(show(&view, Format::Table, false, Layout::Alone).unwrap(), "a\n");
    }
}
