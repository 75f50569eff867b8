//! Text to manifests.

use std::path::Path;

use serde_saphyr::{Location, NonFiniteFloatPolicy, Options};

use super::{
    Fault, Place, Problem,
    manifest::{Manifest, Object},
};

/// Bytes of one file. 50,000 Services with their endpoints take about a tenth of this.
const MAX_FILE_BYTES: usize = 1 << 30;
/// Values in one file; the default of the parser is a hundredth of what a large cluster has.
const MAX_VALUES: usize = 1 << 28;

/// Reads the documents of a file: YAML or JSON, which is a kind of YAML. A document that cannot be
/// read is a problem, and reading goes on with the next one, but for a syntax error: it ends the
/// file.
pub(super) fn read(
    file: &Path,
    mut text: &[u8],
    problems: &mut Vec<Problem>,
) -> Vec<Object<Manifest>> {
    let mut manifests = Vec::new();
    let mut empty = true;
    for document in serde_saphyr::read_with_options(&mut text, options()) {
        empty = false;
        match document {
            Ok(manifest) => manifests.push(manifest),
            Err(error) => problems.push(problem(file, error)),
        }
    }
    if empty {
        problems.push(about_file(file, Fault::Empty));
    }
    manifests
}

/// Returns a problem with a file as a whole.
pub(super) fn about_file(file: &Path, fault: Fault) -> Problem {
    let place = Place { file: file.to_owned(), line: 0, column: 0 };
    Problem { place, object: String::new(), field: String::new(), fault }
}

/// Returns a position in a file.
pub(super) fn place(file: &Path, at: Location) -> Place {
    Place { file: file.to_owned(), line: at.line(), column: at.column() }
}

fn problem(file: &Path, error: serde_saphyr::Error) -> Problem {
    let at = error.location().unwrap_or(Location::UNKNOWN);
    let (place, fault) = (place(file, at), Fault::Syntax(Box::new(error)));
    Problem { place, object: String::new(), field: String::new(), fault }
}

/// Aliases stay limited: they are how a small file becomes a large one.
fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_reader_input_bytes: Some(MAX_FILE_BYTES),
            max_events: MAX_VALUES,
            max_nodes: MAX_VALUES,
            max_documents: MAX_VALUES,
            max_total_scalar_bytes: MAX_FILE_BYTES,
        },
        with_snippet: false,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
    }
}
