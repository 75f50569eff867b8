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
            let FormatFlag { output, no_headers } = *format;
            output::value(&settings.to_value(), output, !no_headers, |wide| {
                verdicts(&reports, wide)
            })?;
        }
        Verb::Show(format) => {
            let value = Settings::default().to_value();
            output::value(&value, format.output, !format.no_headers, |_| {
                defaults(&Settings::default())
            })?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_is_not_used_says_why() {
        let text = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n\
                    mode: ipvs\nportRange: 1-2\nclusterCIDR: ''\n";
        let file = ConfigFile::parse("c.yaml", text).unwrap();
        let (_, reports) = Settings::resolve(&RunFlags::default(), Some(&file)).unwrap();
        let printed = output::render(&verdicts(&reports, false), true);
        let expected = "\
FIELD         VALUE   VERDICT
mode          ipvs    used
clusterCIDR   \"\"      not set
portRange     1-2     ignored because only the userspace mode of kube-proxy had it
";
        assert_eq!(printed, expected);
        let printed = output::render(&verdicts(&reports, true), true);
        assert!(printed.lines().any(|line| line.ends_with("had it   c.yaml:4")), "{printed}");
    }

    #[test]
    fn every_default_is_listed_with_its_flag() {
        let printed = output::render(&defaults(&Settings::default()), true);
        let has = |line: &[&str]| {
            let words = |text: &str| text.split_whitespace().eq(line.iter().copied());
            assert!(printed.lines().any(words), "{line:?} in\n{printed}");
        };
        has(&["ipvs.scheduler", "rr", "--ipvs-scheduler"]);
        has(&["passlane.drainTimeout", "5m0s", "--drain-timeout"]);
        has(&["healthzBindAddress", "0.0.0.0:10256", "--healthz-bind-address"]);
    }
}
