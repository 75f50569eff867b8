//! `passlane config`: what a configuration means here.

use std::path::PathBuf;

use clap::Subcommand;

use super::{Failure, FormatFlag, output};
use crate::config::{ConfigFile, FieldReport, RunFlags, Settings};

#[derive(Clone, Debug, Subcommand)]
pub(super) enum Verb {
    /// Say of every field of a kube-proxy configuration what becomes of it; with -o yaml, print
    /// the configuration for --config that results
    Convert {
        /// KubeProxyConfiguration, or kubeadm's ConfigMap kube-proxy
        #[arg(value_name = "FILE")]
        file: PathBuf,
        #[command(flatten)]
        format: FormatFlag,
    },
    /// Every field with its default
    Show(FormatFlag),
}

/// Prints what the verb asks for.
pub(super) fn run(verb: &Verb) -> Result<(), Failure> {
    match verb {
        Verb::Convert { file, format } => {
            let file = ConfigFile::read(file)?;
            let (settings, reports) = Settings::resolve(&RunFlags::default(), Some(&file))?;
            output::value(&settings.to_value(), format.output, |wide| verdicts(&reports, wide))?;
        }
        Verb::Show(format) => {
            let value = Settings::default().to_value();
            output::value(&value, format.output, |_| defaults(&Settings::default()))?;
        }
    }
    Ok(())
}

fn verdicts(reports: &[FieldReport], wide: bool) -> comfy_table::Table {
    if wide {
        let mut table = output::table(["FIELD", "VALUE", "VERDICT", "PLACE"]);
        for FieldReport { field, value, verdict, place } in reports {
            table.add_row([field, value, &verdict.to_string(), place]);
        }
        return table;
    }
    let mut table = output::table(["FIELD", "VALUE", "VERDICT"]);
    for FieldReport { field, value, verdict, .. } in reports {
        table.add_row([field, value, &verdict.to_string()]);
    }
    table
}

fn defaults(settings: &Settings) -> comfy_table::Table {
    let mut table = output::table(["FIELD", "DEFAULT", "FLAG"]);
    for (field, value, flag) in settings.fields() {
        let flag = format!("--{flag}");
        table.add_row([field.to_owned(), value.to_string(), flag]);
    }
    table
}
