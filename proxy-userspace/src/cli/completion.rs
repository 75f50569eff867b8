//! `passlane completion`.

use clap::Args;
use clap_complete::Shell;

use super::{Failure, output};

/// The flags of `passlane completion`.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct Flags {
    /// For bash: passlane completion bash > /etc/bash_completion.d/passlane
    #[arg(value_enum, value_name = "SHELL")]
    shell: Shell,
}

/// Prints the script.
pub(super) fn run(flags: &Flags) -> Result<(), Failure> {
    Ok(output::text(&script(flags.shell))?)
}

fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut super::command(), "passlane", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn every_shell_learns_every_verb_that_is_shown() {
        for shell in Shell::value_variants() {
            let script = script(*shell);
            for verb in crate::cli::command().get_subcommands().filter(|verb| !verb.is_hide_set()) {
                assert!(script.contains(verb.get_name()), "{shell}: {}", verb.get_name());
            }
        }
    }
}
