//! The bench's command line.

use std::path::PathBuf;

/// What the bench was asked for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Options {
    /// Programs, one by one.
    Native {
        /// The object with the rungs.
        ladder: PathBuf,
        /// How often everything is measured.
        rounds: usize,
    },
    /// Whole paths.
    Guest,
}

const USAGE: &str = "Usage: bench-datapath native --ladder OBJECT [--rounds N]\n       bench-datapath guest\n\n\
    --ladder OBJECT  the programs to compare with, as `cargo xtask bench datapath` builds them\n\
    --rounds N       measure everything so often [default: 30]\n\n\
    The last line of output is JSON.";

impl Options {
    /// Reads the arguments after the program's name. Errs with the text to show.
    pub(crate) fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut arguments = arguments.into_iter();
        match arguments.next().as_deref() {
            Some("native") => Self::native(arguments),
            Some("guest") if arguments.next().is_none() => Ok(Self::Guest),
            _ => Err(USAGE.to_owned()),
        }
    }

    fn native(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let (mut ladder, mut rounds) = (None, 30);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
            match argument.as_str() {
                "--ladder" => ladder = Some(PathBuf::from(value()?)),
                "--rounds" => rounds = positive(&argument, &value()?)?,
                other => return Err(format!("unknown argument {other}\n\n{USAGE}")),
            }
        }
        let ladder = ladder.ok_or(USAGE)?;
        Ok(Self::Native { ladder, rounds })
    }
}

fn positive(name: &str, text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| format!("{name} needs a number, not {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Options, String> {
        Options::parse(words.iter().map(|&word| word.to_owned()))
    }

    #[test]
    fn arguments_are_read_and_unknown_ones_refused() {
        let native = parse(&["native", "--ladder", "x.o", "--rounds", "3"]);
        assert_eq!(native, Ok(Options::Native { ladder: "x.o".into(), rounds: 3 }));
        assert_eq!(parse(&["guest"]), Ok(Options::Guest));
        for wrong in [
            &["native"][..],
            &["guest", "now"],
            &["native", "--ladder"],
            &["native", "--ladder", "x.o", "--rounds", "0"],
            &["native", "--ladder", "x.o", "--fast"],
            &["other"],
            &[],
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
