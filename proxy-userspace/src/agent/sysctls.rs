//! The kernel settings IPVS and the fast path need (values and reasons: IPVS's and conntrack's
//! documentation in the kernel, `ipvs-sysctl.rst` and `nf_conntrack-sysctl.rst`).

use tracing::{info, warn};

use crate::{
    chain::chain,
    config::{Conntrack, Settings},
    kernel::{
        cpu,
        sysctl::{self, Error, Key},
    },
    ledger::{self, Ledger, Record, SysctlChange},
};

/// Who needs a setting.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Need {
    /// Every forwarded packet.
    Always,
    /// The fast path only.
    FastPath,
    /// The hash plane only.
    HashPlane,
    /// The operator: what is forwarded does not depend on it.
    Configured,
}

/// A setting.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Setting {
    /// Dotted name.
    pub key: &'static str,
    /// The value that is written.
    pub value: u64,
    /// Which values will do.
    pub bound: Bound,
    /// Who needs it.
    pub need: Need,
    /// What it is for, as `doctor` says it.
    pub why: &'static str,
}

/// Which values of a setting will do. Settings with two values are 0 or 1.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Bound {
    /// This one and greater ones.
    AtLeast,
    /// This one.
    Exactly,
}

const fn setting(key: &'static str, value: u64, need: Need, why: &'static str) -> Setting {
    Setting { key, value, bound: Bound::AtLeast, need, why }
}

/// How long IPVS keeps an established TCP connection when nobody says otherwise.
const IPVS_TCP_SECS: u64 = 900;
/// Conntrack must not forget a connection that IPVS still forwards: it keeps it so much longer.
const BEYOND_IPVS: u64 = 100;

const UNACKNOWLEDGED: &str = "net.netfilter.nf_conntrack_tcp_timeout_unacknowledged";
const MAX_RETRANS: &str = "net.netfilter.nf_conntrack_tcp_timeout_max_retrans";
const LIBERAL: &str = "net.netfilter.nf_conntrack_tcp_be_liberal";

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
        LIBERAL,
        1,
        Need::FastPath,
        "conntrack does not see the packets on the fast path, so their windows surprise it",
    ),
    setting(
        UNACKNOWLEDGED,
        IPVS_TCP_SECS + BEYOND_IPVS,
        Need::FastPath,
        "acknowledgements on the fast path are not seen by conntrack",
    ),
    setting(
        MAX_RETRANS,
        IPVS_TCP_SECS + BEYOND_IPVS,
        Need::FastPath,
        "acknowledgements on the fast path are not seen by conntrack",
    ),
];

/// So that IPVS goes on with flows that it never saw begin, when XDP lets go of them.
const OF_HASH_PLANE: [Setting; 2] = [
    setting(
        "net.ipv4.vs.sloppy_tcp",
        1,
        Need::HashPlane,
        "IPVS takes over TCP flows in mid-stream: it did not see their SYN",
    ),
    setting(
        "net.ipv4.vs.schedule_icmp",
        1,
        Need::HashPlane,
        "ICMP errors about flows that IPVS does not know go to their backend",
    ),
];

/// Returns every setting that does not depend on the configuration.
pub fn settings() -> &'static [Setting] {
    &SETTINGS
}

/// Returns every setting that a configuration asks for, on a node with so many CPUs.
fn settings_of(settings: &Settings, cpus: u32) -> Vec<Setting> {
    let mut all = SETTINGS.to_vec();
    if let Some(tcp) = settings.ipvs_timeouts.tcp {
        let waiting =
            all.iter_mut().filter(|each| [UNACKNOWLEDGED, MAX_RETRANS].contains(&each.key));
        waiting.for_each(|each| each.value = each.value.max(tcp.as_secs() + BEYOND_IPVS));
    }
    if settings.hash_plane.is_wanted() {
        all.extend(OF_HASH_PLANE);
    }
    all.extend(conntrack(&settings.conntrack, cpus));
    if settings.strict_arp {
        all.extend([
            exactly("net.ipv4.conf.all.arp_ignore", 1, "strictARP: answers for own addresses only"),
            exactly("net.ipv4.conf.all.arp_announce", 2, "strictARP: asks from own addresses only"),
        ]);
    }
    all
}

const fn exactly(key: &'static str, value: u64, why: &'static str) -> Setting {
    Setting { key, value, bound: Bound::Exactly, need: Need::Configured, why }
}

/// What kube-proxy sets of conntrack. The limit is raised only, and its hash table with it; a
/// timeout is set as it is given.
fn conntrack(config: &Conntrack, cpus: u32) -> Vec<Setting> {
    let limit = config.max(cpus).filter(|max| *max > 0).into_iter().flat_map(|max| {
        let raise = |key, value: u32, why| setting(key, value.into(), Need::Configured, why);
        [
            raise("net.netfilter.nf_conntrack_max", max, "conntrack.maxPerCore and conntrack.min"),
            raise("net.netfilter.nf_conntrack_buckets", max / 4, "four entries a bucket"),
        ]
    });
    let liberal = config
        .tcp_be_liberal
        .then(|| setting(LIBERAL, 1, Need::Configured, "conntrack.tcpBeLiberal"));
    let timeouts = [
        (
            "net.netfilter.nf_conntrack_tcp_timeout_established",
            config.tcp_established,
            "conntrack.tcpEstablishedTimeout",
        ),
        (
            "net.netfilter.nf_conntrack_tcp_timeout_close_wait",
            config.tcp_close_wait,
            "conntrack.tcpCloseWaitTimeout",
        ),
        ("net.netfilter.nf_conntrack_udp_timeout", config.udp, "conntrack.udpTimeout"),
        (
            "net.netfilter.nf_conntrack_udp_timeout_stream",
            config.udp_stream,
            "conntrack.udpStreamTimeout",
        ),
    ];
    let timeouts = timeouts
        .into_iter()
        .filter_map(|(key, timeout, why)| Some(exactly(key, timeout?.as_secs(), why)));
    limit.chain(liberal).chain(timeouts).collect()
}

impl Setting {
    /// Returns every setting that a configuration asks for, on a node with so many CPUs.
    pub fn of(settings: &Settings, cpus: u32) -> Vec<Self> {
        settings_of(settings, cpus)
    }

    /// Says whether a value will do.
    pub fn holds(&self, value: &str) -> bool {
        value.parse::<u64>().is_ok_and(|value| match self.bound {
            Bound::AtLeast => value >= self.value,
            Bound::Exactly => value == self.value,
        })
    }

    /// Sets it unless it holds, recording the value before.
    ///
    /// # Errors
    ///
    /// It cannot be read or written, or the ledger cannot.
    pub fn put(&self, ledger: &mut Ledger) -> Result<(), Failure> {
        let key = Key::dotted(self.key);
        let previous = sysctl::read(&key)?;
        if self.holds(&previous) {
            return Ok(());
        }
        let written = self.value.to_string();
        let change = SysctlChange { previous: previous.clone(), written: written.clone() };
        let known = ledger.owned().sysctls.contains_key(self.key);
        ledger.record([Record::Sysctl { key: self.key.into(), change: Some(change) }])?;
        if let Err(error) = sysctl::write(&key, &written) {
            if !known {
                // Nothing was changed, so there is nothing to restore.
                ledger.record([Record::Sysctl { key: self.key.into(), change: None }])?;
            }
            return Err(error.into());
        }
        info!(event = "sysctl_set", key = self.key, value = self.value, previous, "{}", self.why);
        if self.key == LIBERAL && self.need == Need::FastPath {
            warn!(
                event = "conntrack_liberal",
                "conntrack in this network namespace now accepts TCP packets outside the window \
                 that it saw: it does not see packets on the fast path; --fast-path off does \
                 without"
            );
        }
        Ok(())
    }
}

/// Sets what is not set yet, recording the value before.
///
/// # Errors
///
/// The first setting that cannot be read or written.
pub(super) fn apply(ledger: &mut Ledger, need: Need) -> Result<(), Failure> {
    let all = SETTINGS.iter().chain(&OF_HASH_PLANE);
    all.filter(|setting| setting.need == need).try_for_each(|each| each.put(ledger))
}

/// As [`apply`], for the fast path of a configuration.
///
/// # Errors
///
/// As [`apply`].
pub(super) fn apply_for_fast_path(ledger: &mut Ledger, config: &Settings) -> Result<(), Failure> {
    let all = settings_of(config, cpu::online());
    all.iter().filter(|each| each.need == Need::FastPath).try_for_each(|each| each.put(ledger))
}

/// Sets what the operator asks for. Forwarding does not depend on it, so what cannot be set is
/// logged: a container without the host's network namespace may not set conntrack's limit.
///
/// # Errors
///
/// The ledger cannot be written.
pub(super) fn apply_configured(
    ledger: &mut Ledger,
    config: &Settings,
) -> Result<(), ledger::Error> {
    let all = settings_of(config, cpu::online());
    for setting in all.iter().filter(|each| each.need == Need::Configured) {
        match setting.put(ledger) {
            Ok(()) => {}
            Err(Failure::Ledger(error)) => return Err(error),
            Err(Failure::Sysctl(error)) => {
                let error = chain(&error);
                warn!(event = "sysctl_failed", key = setting.key, error, "{}", setting.why);
            }
        }
    }
    Ok(())
}

/// A setting or its record could not be written.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The setting.
    #[error(transparent)]
    Sysctl(#[from] Error),
    /// Its record.
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

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, time::Duration};

    use super::*;
    use crate::config::{HashPlane, IpvsTimeouts};

    fn value_of(all: &[Setting], key: &str) -> Option<u64> {
        all.iter().find(|each| each.key.ends_with(key)).map(|each| each.value)
    }

    #[test]
    fn kube_proxys_defaults_raise_the_limit_and_set_two_timeouts() {
        let all = settings_of(&Settings::default(), 8);
        assert_eq!(all[..SETTINGS.len()], SETTINGS);
        let configured: Vec<_> =
            all[SETTINGS.len()..].iter().map(|each| (each.key, each.value)).collect();
        let expected = [
            ("net.netfilter.nf_conntrack_max", 262_144),
            ("net.netfilter.nf_conntrack_buckets", 65_536),
            ("net.netfilter.nf_conntrack_tcp_timeout_established", 86_400),
            ("net.netfilter.nf_conntrack_tcp_timeout_close_wait", 3_600),
        ];
        assert_eq!(configured, expected);
    }

    #[test]
    fn ipvs_takes_over_flows_in_mid_stream_for_a_hash_plane_only() {
        let interfaces = vec!["eth0".to_owned()];
        let hash_plane = HashPlane { interfaces, ..HashPlane::default() };
        let with = settings_of(&Settings { hash_plane, ..Settings::default() }, 1);
        let without = settings_of(&Settings::default(), 1);
        for key in ["net.ipv4.vs.sloppy_tcp", "net.ipv4.vs.schedule_icmp"] {
            assert_eq!((value_of(&with, key), value_of(&without, key)), (Some(1), None), "{key}");
        }
        let need = |all: &[Setting]| all.iter().filter(|each| each.need == Need::HashPlane).count();
        assert_eq!((need(&with), need(&without)), (OF_HASH_PLANE.len(), 0));
    }

    #[test]
    fn what_is_left_alone_is_not_set() {
        let conntrack = Conntrack {
            max_per_core: None,
            min: 5,
            tcp_established: None,
            tcp_close_wait: None,
            tcp_be_liberal: false,
            udp: None,
            udp_stream: None,
        };
        let settings = Settings { conntrack, ..Settings::default() };
        assert_eq!(settings_of(&settings, 8), SETTINGS);
    }

    #[test]
    fn every_conntrack_field_has_its_sysctl() {
        let conntrack = Conntrack {
            tcp_be_liberal: true,
            udp: Some(Duration::from_secs(33)),
            udp_stream: Some(Duration::from_secs(44)),
            ..Conntrack::default()
        };
        let all = settings_of(&Settings { conntrack, ..Settings::default() }, 1);
        assert_eq!(value_of(&all, "nf_conntrack_udp_timeout"), Some(33));
        assert_eq!(value_of(&all, "nf_conntrack_udp_timeout_stream"), Some(44));
        let liberal: Vec<_> = all.iter().filter(|each| each.key == LIBERAL).collect();
        // Wanted with the fast path off as well.
        assert_eq!(liberal.iter().filter(|each| each.need == Need::Configured).count(), 1);
    }

    #[test]
    fn conntrack_outlives_a_longer_timeout_of_ipvs() {
        let tcp = Some(Duration::from_secs(7200));
        let ipvs_timeouts = IpvsTimeouts { tcp, ..IpvsTimeouts::default() };
        let all = settings_of(&Settings { ipvs_timeouts, ..Settings::default() }, 1);
        assert_eq!(value_of(&all, "tcp_timeout_unacknowledged"), Some(7300));
        assert_eq!(value_of(&all, "tcp_timeout_max_retrans"), Some(7300));
        let tcp = Some(Duration::from_secs(60));
        let ipvs_timeouts = IpvsTimeouts { tcp, ..IpvsTimeouts::default() };
        let all = settings_of(&Settings { ipvs_timeouts, ..Settings::default() }, 1);
        assert_eq!(value_of(&all, "tcp_timeout_max_retrans"), Some(1000), "never less");
    }

    #[test]
    fn strict_arp_is_two_settings_with_exact_values() {
        let all = settings_of(&Settings { strict_arp: true, ..Settings::default() }, 1);
        let arp: Vec<_> = all.iter().filter(|each| each.key.contains(".arp_")).collect();
        let [ignore, announce] = arp.as_slice() else { panic!("{arp:?}") };
        assert_eq!((ignore.key, ignore.value), ("net.ipv4.conf.all.arp_ignore", 1));
        assert_eq!((announce.key, announce.value), ("net.ipv4.conf.all.arp_announce", 2));
        assert!(ignore.holds("1") && !ignore.holds("2") && !announce.holds("0"));
        assert!(settings()[0].holds("2") && !settings()[0].holds("0"));
    }

    #[test]
    fn every_setting_says_what_it_is_for() {
        let conntrack = Conntrack { udp: Some(Duration::from_secs(1)), ..Conntrack::default() };
        let hash_plane = HashPlane { interfaces: vec!["eth0".to_owned()], ..HashPlane::default() };
        let settings = Settings { strict_arp: true, conntrack, hash_plane, ..Settings::default() };
        let all = settings_of(&settings, 1);
        assert!(all.iter().all(|each| !each.why.is_empty()));
        let keys: BTreeSet<_> = all.iter().map(|each| each.key).collect();
        assert_eq!(keys.len(), all.len(), "each once");
    }
}
