//! The demo's command line.

use std::path::PathBuf;

/// What the demo was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// End with one line of JSON.
    pub json: bool,
    /// Leave a shell in the node at the end.
    pub keep: bool,
    /// Where the manifests are.
    pub examples: PathBuf,
}

const USAGE: &str = "Usage: demo [--json] [--keep] [--examples DIR]\n\n\
    --json          end with one line of JSON on stdout\n\
    --keep          leave a shell in the node at the end\n\
    --examples DIR  manifests to serve [default: deploy/examples]";

impl Options {
    /// Reads the arguments after the program's name. Errs with the text to show.
    pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut options =
            Self { json: false, keep: false, examples: PathBuf::from("deploy/examples") };
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--json" => options.json = true,
                "--keep" => options.keep = true,
                "--examples" => {
                    let directory = arguments.next();
                    options.examples = directory.ok_or("--examples needs a directory")?.into();
                }
                "--help" | "-h" => return Err(USAGE.to_owned()),
                other => return Err(format!("unknown argument {other}\n\n{USAGE}")),
            }
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read_and_unknown_ones_refused() {
        let words = ["--json", "--examples", "elsewhere"].map(str::to_owned);
        let options = Options::parse(words).unwrap();
        assert!(options.json && !options.keep);
        assert_eq!(options.examples, PathBuf::from("elsewhere"));
        assert!(Options::parse(["--fast".to_owned()]).unwrap_err().contains("--fast"));
        assert!(Options::parse(["--examples".to_owned()]).is_err());
    }
}
