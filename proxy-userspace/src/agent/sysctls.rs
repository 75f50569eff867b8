//! The kernel settings IPVS and the fast path need (values and reasons: IPVS's and conntrack's
//! documentation in the kernel, `ipvs-sysctl.rst` and `nf_conntrack-sysctl.rst`).

use tracing::{info, warn};

use crate::{
    kernel::sysctl::{self, Error, Key},
    ledger::{self, Ledger, Record},
};

/// Who needs a setting.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Need {
    /// Every forwarded packet.
    Always,
    /// The fast path only.
    FastPath,
}

/// A setting.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Setting {
    /// Dotted name.
    pub key: &'static str,
    /// The least value that will do; settings with two values are 0 or 1.
    pub at_least: u64,
    /// Who needs it.
    pub need: Need,
    /// What it is for, as `doctor` says it.
    pub why: &'static str,
}

const fn setting(key: &'static str, at_least: u64, need: Need, why: &'static str) -> Setting {
    Setting { key, at_least, need, why }
}

/// Longer than the timeout of an established connection in IPVS, 900 s: conntrack must not forget
/// a connection that IPVS still forwards.
const BEYOND_IPVS: u64 = 1000;

const SETTINGS: [Setting; 7] = [
    setting("net.ipv4.ip_forward", 1, Need::Always, "forwards between interfaces"),
    setting("net.ipv4.vs.conntrack", 1, Need::Always, "lets conntrack see IPVS's connections"),
    setting(
        "net.ipv4.vs.expire_nodest_conn",
        1,
        Need::Always,
        "ends connections to a destination that is gone, at once",
    ),
    setting(
        "net.ipv4.vs.expire_quiescent_template",
        1,
        Need::Always,
        "lets session affinity leave a draining destination",
    ),
    setting(
        "net.netfilter.nf_conntrack_tcp_be_liberal",
        1,
        Need::FastPath,
        "conntrack does not see the packets on the fast path, so their windows surprise it",
    ),
    setting(
        "net.netfilter.nf_conntrack_tcp_timeout_unacknowledged",
        BEYOND_IPVS,
        Need::FastPath,
        "acknowledgements on the fast path are not seen by conntrack",
    ),
    setting(
        "net.netfilter.nf_conntrack_tcp_timeout_max_retrans",
        BEYOND_IPVS,
        Need::FastPath,
        "acknowledgements on the fast path are not seen by conntrack",
    ),
];

/// Returns every setting.
pub fn settings() -> &'static [Setting] {
    &SETTINGS
}

impl Setting {
    /// Says whether a value will do.
    pub fn holds(&self, value: &str) -> bool {
        value.parse::<u64>().is_ok_and(|value| value >= self.at_least)
    }
}

/// Sets what is not set yet, recording the value before.
///
/// # Errors
///
/// The first setting that cannot be read or written.
pub(super) fn apply(ledger: &mut Ledger, need: Need) -> Result<(), Failure> {
    for setting in SETTINGS.iter().filter(|setting| setting.need == need) {
        let key = Key::dotted(setting.key);
        let previous = sysctl::read(&key)?;
        if setting.holds(&previous) {
            continue;
        }
        ledger.record([Record::Sysctl {
            key: setting.key.into(),
            previous: Some(previous.clone()),
        }])?;
        sysctl::write(&key, &setting.at_least.to_string())?;
        info!(
            event = "sysctl_set",
            key = setting.key,
            value = setting.at_least,
            previous,
            "{}",
            setting.why
        );
        if setting.key.ends_with("be_liberal") {
            warn!(
                event = "conntrack_liberal",
                "conntrack in this network namespace now accepts TCP packets outside the window \
                 that it saw: it does not see packets on the fast path; --fast-path off does \
                 without"
            );
        }
    }
    Ok(())
}

/// A setting or its record could not be written.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Sysctl(#[from] Error),
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
}

impl From<Failure> for super::Fatal {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Sysctl(error) => Self::Sysctl(error),
            Failure::Ledger(error) => Self::Ledger(error),
        }
    }
}
