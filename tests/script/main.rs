//! L1: the control plane as a specification. Each file in `cases/` is one behaviour: manifests in,
//! desired state, plan, notices or errors out. The file name is the sentence that it shows.
//!
//! ```text
//! # Why this must be so; the number of the bug that taught it.
//! == what happens in this step ==        optional; the next steps start from the applied plan
//! -- services.yaml --                    a manifest; in a later step it replaces this file
//! -- gone services.yaml --               the file is removed
//! -- node --                             facts and settings, see `case.rs`; they last
//! -- checks --                           what health checks found, see `run.rs`; it lasts
//! -- observed --                         what others did to the node, see `observed.rs`
//! -- desired --                          printed when the section is there
//! -- plan --                             always, unless loading fails
//! -- notices --                          when there are any
//! -- error --                            when loading fails: nothing is planned or applied
//! ```
//!
//! `PASSLANE_BLESS=1 cargo test -p proxy-tests --test script` rewrites the printed sections. Read
//! the difference as you would read code.

mod case;
mod compare;
mod documents;
mod observed;
mod readme;
mod run;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result};
use libtest_mimic::{Arguments, Failed, Trial};

use crate::case::Case;

fn main() -> Result<ExitCode> {
    let arguments = Arguments::from_args();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("script/cases");
    let mut trials = Vec::new();
    for entry in fs::read_dir(&directory).context("read script/cases")? {
        let file = entry?.path();
        if file.extension().is_some_and(|extension| extension == "script") {
            let name = file.file_stem().unwrap_or_default().to_string_lossy().replace('-', " ");
            trials.push(Trial::test(name, move || check(&file)));
        }
    }
    trials.push(Trial::test("every case that the readme names is there", readme::cases_are_there));
    trials.push(Trial::test(
        "every test and file that the readme names is there",
        readme::tests_and_files_are_there,
    ));
    trials.push(Trial::test(
        "every test and file that the documents name is there",
        readme::documents_name_what_is_there,
    ));
    trials.extend(documents::trials());
    trials.sort_by(|one, other| one.name().cmp(other.name()));
    Ok(libtest_mimic::run(&arguments, trials).exit_code())
}

fn check(file: &PathBuf) -> Result<(), Failed> {
    let expected = fs::read_to_string(file)?;
    let mut case = Case::parse(&expected).map_err(|error| format!("{error:#}"))?;
    run::run(&mut case).map_err(|error| format!("{error:#}"))?;
    let actual = case.to_string();
    if actual == expected {
        return Ok(());
    }
    if env::var_os("PASSLANE_BLESS").is_some_and(|value| value == "1") {
        fs::write(file, actual)?;
        return Ok(());
    }
    Err(format!("- expected, + actual:\n{}", compare::lines(&expected, &actual)).into())
}
