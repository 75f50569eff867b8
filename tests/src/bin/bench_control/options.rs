//! The bench's command line.

use std::time::Duration;

use crate::fleet::Size;

/// What the bench was asked for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Options {
    /// Which part of the bench this process is.
    pub(crate) mode: Mode,
    /// End with one line of JSON.
    pub(crate) json: bool,
    /// What plans are carried out on.
    pub(crate) target: Target,
    /// How long to measure changes of a size.
    pub(crate) change_time: Duration,
}

/// Which part of the bench a process is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Mode {
    /// All of it.
    All(Vec<Size>),
    /// One size.
    Child(Size),
}

/// What plans are carried out on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Target {
    /// Nothing: they are encoded.
    Fake,
    /// The kernel of this machine.
    Real,
}

impl Target {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Fake => "fake",
            Self::Real => "real",
        }
    }
}

const USAGE: &str = "Usage: bench-control [--kernel fake|real] [--json] [--size SERVICESxENDPOINTS]... [--seconds N]\n\n\
    --kernel K   real: that of this machine, in network namespaces [default: fake]\n\
    --json       end with one line of JSON on stdout\n\
    --size S     measure this size (repeatable) [default: 1000x4 10000x10 30000x4 50000x5]\n\
    --seconds N  measure changes of a size for so long [default: 20]";

const DEFAULT: [Size; 4] = [
    Size { services: 1000, endpoints: 4 },
    Size { services: 10_000, endpoints: 10 },
    Size { services: 30_000, endpoints: 4 },
    Size { services: 50_000, endpoints: 5 },
];

impl Options {
    /// Reads the arguments after the program's name. Errs with the text to show.
    pub(crate) fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let (mut json, mut seconds, mut sizes, mut child) = (false, 20, Vec::new(), None);
        let mut target = Target::Fake;
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
            match argument.as_str() {
                "--json" => json = true,
                "--kernel" => {
                    target = match value()?.as_str() {
                        "fake" => Target::Fake,
                        "real" => Target::Real,
                        other => return Err(format!("--kernel {other}: fake or real\n\n{USAGE}")),
                    };
                }
                "--size" => sizes.push(value()?.parse()?),
                "--child" => child = Some(value()?.parse()?),
                "--seconds" => {
                    seconds =
                        value()?.parse().map_err(|_| "--seconds needs a number".to_owned())?;
                }
                "--help" | "-h" => return Err(USAGE.to_owned()),
                other => return Err(format!("unknown argument {other}\n\n{USAGE}")),
            }
        }
        if sizes.is_empty() {
            sizes.extend(DEFAULT);
        }
        let mode = child.map_or(Mode::All(sizes), Mode::Child);
        Ok(Self { mode, json, target, change_time: Duration::from_secs(seconds) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read_and_unknown_ones_refused() {
        let parse = |words: &[&str]| Options::parse(words.iter().map(|&word| word.to_owned()));
        let options = parse(&["--json", "--size", "7x2", "--seconds", "3"]).unwrap();
        let size = Size { services: 7, endpoints: 2 };
        assert_eq!(options.mode, Mode::All(vec![size]));
        assert!(options.json && options.change_time == Duration::from_secs(3));
        assert_eq!(parse(&["--child", "7x2"]).unwrap().mode, Mode::Child(size));
        assert_eq!(parse(&["--kernel", "real"]).unwrap().target, Target::Real);
        assert_eq!(parse(&[]).unwrap().mode, Mode::All(DEFAULT.into()));
        for wrong in [
            &["--size"][..],
            &["--size", "7"],
            &["--seconds", "x"],
            &["--fast"],
            &["--kernel", "x"],
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
