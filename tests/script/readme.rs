//! The tables of `tests/README.md` name tests and files, which get other names as time goes by.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use libtest_mimic::Failed;
use proxy_tests::documents;

const HAZARDS: &str = "## The hazards of the fast path";
/// Members of the workspace that tables name files and tests of.
const SOURCES: [&str; 4] = ["proxy-common/src", "proxy-ebpf/src", "proxy-userspace/src", "tests"];

/// How names begin that look like tests: of sysctls and of metrics.
const OTHERS: [&str; 3] = ["kubeproxy_", "nf_", "passlane_"];

fn read() -> Result<String, Failed> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    Ok(fs::read_to_string(path)?)
}

/// Every case that a table links to is there.
pub(crate) fn cases_are_there() -> Result<(), Failed> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = read()?;
    let links = readme.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let cases: Vec<_> = links.filter(|link| link.starts_with("script/")).collect();
    if cases.is_empty() {
        return Err("no link to a case".into());
    }
    match cases.iter().find(|case| !directory.join(case).exists()) {
        Some(case) => Err(format!("README.md links to {case}, which is not there").into()),
        None => Ok(()),
    }
}

/// Every test and every file that a table names is there, and each hazard has both.
pub(crate) fn tests_and_files_are_there() -> Result<(), Failed> {
    let known = Known::read()?;
    let readme = read()?;
    let (before, hazards) = readme.split_once(HAZARDS).ok_or("no table of hazards")?;
    let mut missing = Vec::new();
    for row in rows(before) {
        let cells = row.get(1..).unwrap_or_default();
        missing.extend(cells.iter().flat_map(|cell| known.unknown(cell)));
    }
    for row in rows(hazards) {
        let &[hazard, treatment, tests] = row.as_slice() else {
            return Err(format!("not three cells: {row:?}").into());
        };
        missing.extend([treatment, tests].iter().flat_map(|cell| known.unknown(cell)));
        let has_test = names(tests).any(is_test) || tests.contains("](script/");
        if !has_test && !tests.contains(".rs`") {
            missing.push(format!("a test of the hazard \"{hazard}\""));
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(format!("README.md names what is not there: {}", missing.join(", ")).into())
}

/// Every test and every file that a document names is there.
pub(crate) fn documents_name_what_is_there() -> Result<(), Failed> {
    let known = Known::read()?;
    let mut missing = Vec::new();
    for file in documents::files()? {
        let unknown = known.unknown(&documents::read(&file)?);
        missing.extend(unknown.into_iter().map(|name| format!("{name} in {file}")));
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(format!("documents name what is not there: {}", missing.join(", ")).into())
}

/// The cells of each row of each table, without headings.
fn rows(text: &str) -> impl Iterator<Item = Vec<&str>> {
    let lines: Vec<&str> = text.lines().collect();
    let is_rule = |line: &&str| line.starts_with("|---");
    let mut found = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        let heads = lines.get(number + 1).is_some_and(is_rule);
        if let Some(row) = line.strip_prefix("| ").filter(|_| !heads) {
            let row = row.strip_suffix('|').unwrap_or(row);
            found.push(row.split(" | ").map(str::trim).collect());
        }
    }
    found.into_iter()
}

/// What a cell has between backticks.
fn names(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// A sentence, as tests are named.
fn is_test(name: &str) -> bool {
    name.matches('_').count() >= 3
        && name.chars().all(|c| c == '_' || c.is_ascii_lowercase() || c.is_ascii_digit())
}

/// What the sources of the workspace have.
struct Known {
    functions: BTreeSet<String>,
    files: Vec<String>,
}

impl Known {
    fn read() -> Result<Self, Failed> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut files = Vec::new();
        for source in SOURCES {
            rust_files(&root.join(source), &mut files)?;
        }
        let mut functions = BTreeSet::new();
        for file in &files {
            let text = fs::read_to_string(file)?;
            let after = text.split("fn ").skip(1);
            functions.extend(after.filter_map(|rest| Some(rest.split(['(', '<']).next()?.into())));
            // Cases of a table are named by texts.
            functions.extend(text.split('"').filter(|text| is_test(text)).map(str::to_owned));
        }
        let shown = |file: &PathBuf| file.display().to_string();
        Ok(Self { functions, files: files.iter().map(shown).collect() })
    }

    /// Returns the names in a text that nothing has.
    fn unknown(&self, cell: &str) -> Vec<String> {
        let here = |name: &&str| {
            if let Some(path) = name.strip_suffix(".rs") {
                let path = path
                    .strip_prefix("ebpf/")
                    .map_or(path.into(), |rest| format!("proxy-ebpf/src/{rest}"));
                return self.files.iter().any(|file| file.ends_with(&format!("/{path}.rs")));
            }
            !is_test(name)
                || OTHERS.iter().any(|start| name.starts_with(start))
                || self.functions.contains(*name)
        };
        names(cell).filter(|name| !here(name)).map(str::to_owned).collect()
    }
}

fn rust_files(directory: &Path, into: &mut Vec<PathBuf>) -> Result<(), Failed> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            rust_files(&path, into)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
    Ok(())
}
