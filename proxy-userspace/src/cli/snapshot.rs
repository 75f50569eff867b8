//! What verbs print, held against files: `PASSLANE_BLESS=1 cargo test -p proxy-userspace --lib` rewrites
//! them. A field that goes or gets another name there breaks somebody's script.

use std::{env, fs, path::PathBuf};

use super::output::{Format, Layout, View, show};

/// Compares a view in every format with `snapshots/NAME.txt`.
pub(super) fn check(name: &str, view: &impl View) {
    let shown = |title: &str, format| {
        let text = show(view, format, true, Layout::Alone).unwrap();
        format!("--- {title}\n{text}")
    };
    let mut text = shown("table", Format::Table);
    text += &shown("wide", Format::Wide);
    text += &shown("json", Format::Json);
    if view.names().is_some() {
        text += &shown("name", Format::Name);
    }
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/cli/snapshots");
    let file = directory.join(format!("{name}.txt"));
    if env::var_os("PASSLANE_BLESS").is_some() {
        fs::create_dir_all(&directory).unwrap();
        fs::write(&file, &text).unwrap();
    }
    let expected = fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(text, expected, "{} differs", file.display());
}
