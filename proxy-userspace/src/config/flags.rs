//! The flags of `passlane run`, and the paths that every verb shares.

use std::{path::PathBuf, str::FromStr, time::Duration};

use clap::{Args, ValueEnum};

use crate::{model::Scheduler, plan::interfaces::Selection};

/// IPVS and conntrack may give the ports of a connection to another one 10 s after its end (state
/// CLOSE): a lease must be over by then.
const LEASE_LIMIT: Duration = Duration::from_secs(10);

/// Where state and pins are.
#[derive(Args, Clone, Debug)]
pub struct Paths {
    /// Directory for the ledger, the lock and the status; on a file system that a reboot empties
    #[arg(long, global = true, value_name = "DIR", default_value = "/run/passlane")]
    pub state_dir: PathBuf,
    /// Directory for pinned maps and links, on a bpffs
    #[arg(long, global = true, value_name = "DIR", default_value = "/sys/fs/bpf/passlane")]
    pub bpffs: PathBuf,
}

/// Whether established flows take the fast path.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum FastPathMode {
    /// Wherever it can run
    Auto,
    /// Nowhere
    Off,
    /// Learn and count what would have been fast, forward everything the slow way
    Observe,
}

/// Where Services come from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SourceArgument {
    /// A manifest file, or a directory of them.
    File(PathBuf),
}

impl FromStr for SourceArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path.into())),
            _ => Err("write file:PATH, where PATH is a manifest or a directory of them".into()),
        }
    }
}

/// The flags of `passlane run`.
#[derive(Args, Clone, Debug)]
pub struct RunFlags {
    /// Where Services and EndpointSlices come from: file:PATH
    #[arg(long, value_name = "SOURCE")]
    pub source: SourceArgument,
    /// Scheduler of Services without the annotation passlane.io/scheduler
    #[arg(long, value_name = "NAME", default_value = "rr", value_parser = Scheduler::from_str)]
    pub scheduler: Scheduler,
    /// Fast path for established flows
    #[arg(long, value_enum, default_value = "auto")]
    pub fast_path: FastPathMode,
    /// Interfaces of the fast path: auto, or names separated by commas, each with at most one *
    #[arg(long, value_name = "PATTERNS", default_value = "auto", value_parser = selection)]
    pub interfaces: Selection,
    /// Device that carries the VIPs as local routes
    #[arg(long, value_name = "NAME", default_value = "kube-ipvs0", value_parser = device_name)]
    pub dummy_device: String,
    /// Entries of the flow map: two a connection, 176 bytes each
    #[arg(long, value_name = "N", default_value_t = proxy_common::abi::capacity::FLOWS,
          value_parser = clap::value_parser!(u32).range(1024..=1 << 26))]
    pub flow_entries: u32,
    /// After this time one packet of a flow takes the slow path and renews the lease
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = duration)]
    pub soft_lease: Duration,
    /// After this time no packet of a flow takes the fast path without renewal; below 10s
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    pub hard_lease: Duration,
    /// Time between full comparisons of what should be and what is
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub sync_period: Duration,
    /// An endpoint that left its Service keeps its connections for at most this time
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration)]
    pub drain_timeout: Duration,
    /// Log what the datapath learns; for looking closely, not for production
    #[arg(long)]
    pub log_datapath: bool,
    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment here would become help text")]
    pub paths: Paths,
}

impl RunFlags {
    /// Checks what one flag alone cannot say.
    ///
    /// # Errors
    ///
    /// A sentence that names the flags and the cure.
    pub fn validate(&self) -> Result<(), String> {
        if self.hard_lease >= LEASE_LIMIT {
            return Err(format!(
                "--hard-lease {:?}: must be below {LEASE_LIMIT:?}, after which IPVS may give a \
                 closed connection's ports to another one",
                self.hard_lease
            ));
        }
        if self.soft_lease >= self.hard_lease {
            return Err(format!(
                "--soft-lease {:?}: must be below --hard-lease {:?}",
                self.soft_lease, self.hard_lease
            ));
        }
        Ok(())
    }
}

/// Parses a time: a whole number with unit `ms`, `s` or `m`.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|character: char| !character.is_ascii_digit());
    let unit = text.get(digits.len()..).unwrap_or_default();
    let number = digits.parse::<u64>().ok().filter(|number| *number > 0);
    match (number, unit) {
        (Some(number), "ms") => Ok(Duration::from_millis(number)),
        (Some(number), "s") => Ok(Duration::from_secs(number)),
        (Some(number), "m") => Ok(Duration::from_secs(number.saturating_mul(60))),
        _ => Err("write a whole number above 0 and a unit: 500ms, 3s, 1m".into()),
    }
}

fn selection(text: &str) -> Result<Selection, String> {
    if text == "auto" {
        return Ok(Selection::Auto);
    }
    let patterns: Vec<String> = text.split(',').map(str::to_owned).collect();
    match patterns.iter().find(|name| name.is_empty() || name.matches('*').count() > 1) {
        Some(pattern) => Err(format!("{pattern:?}: write names with at most one *")),
        None => Ok(Selection::Patterns(patterns)),
    }
}

fn device_name(text: &str) -> Result<String, String> {
    let fits = !text.is_empty() && text.len() <= 15 && !text.contains(['/', ' ', ':']);
    if fits { Ok(text.to_owned()) } else { Err("write an interface name of 1 to 15 bytes".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("3s"), Ok(Duration::from_secs(3)));
        for text in ["3", "0s", "s", "-1s", "3h", "1.5s", ""] {
            assert!(duration(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn interface_patterns_have_at_most_one_star() {
        assert_eq!(selection("auto"), Ok(Selection::Auto));
        assert!(selection("eth0,veth*").is_ok());
        assert!(selection("a*b*").is_err());
        assert!(selection("eth0,,eth1").is_err());
    }

    #[test]
    fn a_source_names_its_kind() {
        assert!("file:/etc/passlane".parse::<SourceArgument>().is_ok());
        assert!("/etc/passlane".parse::<SourceArgument>().is_err());
        assert!("file:".parse::<SourceArgument>().is_err());
    }
}
