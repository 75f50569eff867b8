//! `passlane man`: the man pages, for packages. Image and packages take them from the directory that
//! `passlane man DIR` fills.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use clap::{Args, Command};
use clap_mangen::Man;

use super::Failure;

/// The flags of `passlane man`.
#[derive(Args, Clone, Debug)]
pub(super) struct Flags {
    /// Where passlane.1, passlane-run.1 and so on go; made when it is missing
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

/// Writes a page for passlane and one for each verb.
pub(super) fn run(flags: &Flags) -> Result<(), Failure> {
    write(&flags.directory)
        .map_err(|source| Failure::Write { path: flags.directory.clone(), source })
}

fn write(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    for (name, page) in pages()? {
        fs::write(directory.join(format!("{name}.1")), page)?;
    }
    Ok(())
}

/// Returns the pages by name.
fn pages() -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut command = super::command().disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    add(&command, "passlane".to_owned(), &mut pages)?;
    Ok(pages)
}

fn add(command: &Command, name: String, pages: &mut Vec<(String, Vec<u8>)>) -> io::Result<()> {
    let mut page = Vec::new();
    Man::new(command.clone()).render(&mut page)?;
    pages.push((name.clone(), page));
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        add(verb, format!("{name}-{}", verb.get_name()), pages)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_has_a_page_and_the_main_page_the_exit_codes() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path()).unwrap();
        let page = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap();
        assert!(page("passlane.1").contains("Exit codes"), "{}", page("passlane.1"));
        for verb in super::super::command().get_subcommands() {
            let name = format!("passlane-{}.1", verb.get_name());
            assert_eq!(directory.path().join(&name).exists(), !verb.is_hide_set(), "{name}");
        }
        assert!(page("passlane-run.1").contains("ipvs\\-scheduler"));
        assert!(page("passlane-config-convert.1").contains("passlane config convert"));
    }
}
