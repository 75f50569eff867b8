//! Every field of the configuration, once: its path in the file, its flag, what it is for, how it
//! is read and printed, or why it is not used. Files, flags, `--help` and `passlane config convert`
//! all follow this table.

mod client;
mod hash_plane;
mod ignored;
mod kernel;
mod passlane;
mod serving;

use std::net::SocketAddr;

use super::{problem::Fault, report::Verdict, settings::Settings, tree::Value};

/// One field.
pub(super) struct Field {
    /// Path in the file, such as `ipvs.scheduler`; empty when there is only a flag.
    pub(super) path: &'static str,
    /// Name of the flag without dashes; empty when there is none.
    pub(super) flag: &'static str,
    /// How the flag's text becomes a value.
    pub(super) shape: Shape,
    /// One line for `--help`; empty when there is no flag.
    pub(super) help: &'static str,
    /// What becomes of it.
    pub(super) role: Role,
}

/// What belongs into a field.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Shape {
    /// A string, or a word.
    Text,
    /// A time such as `30s`.
    Time,
    /// An address to listen at; the empty flag means nowhere.
    Address,
    /// A number.
    Number,
    /// `true` or `false`; the flag alone means `true`.
    Flag,
    /// A list; the flag takes commas.
    List,
    /// An object with keys of its own.
    Map,
}

impl Shape {
    /// Says whether the text of a flag sets nothing, as the empty strings that templates leave.
    pub(super) fn sets_nothing(self, text: &str) -> bool {
        match self {
            Self::Text | Self::Time | Self::Number | Self::Map | Self::Flag => text.is_empty(),
            Self::Address | Self::List => false,
        }
    }
}

/// What becomes of a field.
pub(super) enum Role {
    /// It is used.
    Used {
        /// Takes a value up.
        set: fn(&mut Draft, &Value) -> Result<Verdict, Fault>,
        /// Returns the value in force; [`Value::Null`] when it is not set.
        get: fn(&Settings) -> Value,
    },
    /// Nothing is lost without it, for this reason.
    Ignored(&'static str),
    /// It is not to be had, for this reason.
    Unsupported(&'static str),
    /// The flag is an error: what to do instead.
    Refused(&'static str),
}

/// Settings in the making: what depends on several fields waits here.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) settings: Settings,
    pub(super) mode: ProxyMode,
    pub(super) local_mode: Option<LocalMode>,
    pub(super) bridge: String,
    pub(super) prefix: String,
    pub(super) healthz: Listen,
    pub(super) metrics: Listen,
}

/// `mode`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum ProxyMode {
    #[default]
    Ipvs,
    Iptables,
    Nftables,
}

/// `detectLocalMode`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum LocalMode {
    ClusterCidr,
    NodeCidr,
    BridgeInterface,
    InterfaceNamePrefix,
}

/// Where a server listens.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Listen {
    /// Where kube-proxy does.
    #[default]
    Default,
    /// Where kube-proxy does, but at this port.
    Port(u16),
    /// Here.
    At(SocketAddr),
    /// Nowhere.
    Off,
}

/// What a setter returns when nothing is special.
const USED: Result<Verdict, Fault> = Ok(Verdict::Used);

/// Returns all fields, in the order in which they are taken up and printed.
pub(super) fn all() -> impl Iterator<Item = &'static Field> {
    let groups: [&'static [Field]; 6] = [
        serving::FIELDS,
        kernel::FIELDS,
        client::FIELDS,
        passlane::FIELDS,
        hash_plane::FIELDS,
        ignored::FIELDS,
    ];
    groups.into_iter().flatten()
}

const fn used(
    (path, flag): (&'static str, &'static str),
    shape: Shape,
    help: &'static str,
    set: fn(&mut Draft, &Value) -> Result<Verdict, Fault>,
    get: fn(&Settings) -> Value,
) -> Field {
    Field { path, flag, shape, help, role: Role::Used { set, get } }
}

/// Returns the text, or null for none.
fn optional(text: Option<impl ToString>) -> Value {
    text.map_or(Value::Null, |text| Value::Text(text.to_string()))
}

/// Returns the text.
fn shown(text: impl ToString) -> Value {
    Value::Text(text.to_string())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_path_and_every_flag_is_there_once() {
        let mut names = BTreeSet::new();
        for field in all() {
            assert!(!field.path.is_empty() || !field.flag.is_empty());
            for name in [field.path.to_owned(), format!("--{}", field.flag)] {
                assert!(name.is_empty() || name == "--" || names.insert(name.clone()), "{name}");
            }
            assert_eq!(field.help.is_empty(), field.flag.is_empty(), "help of {}", field.flag);
        }
    }

    #[test]
    fn no_field_is_a_section_of_others() {
        for field in all().filter(|field| !field.path.is_empty()) {
            let section = format!("{}.", field.path);
            assert!(!all().any(|other| other.path.starts_with(&section)), "{section}");
        }
    }

    #[test]
    fn every_flag_of_kube_proxy_is_known() {
        const KUBE_PROXY: &str = "bind-address bind-address-hard-fail cleanup cluster-cidr \
            config-sync-period conntrack-max-per-core conntrack-min conntrack-tcp-be-liberal \
            conntrack-tcp-timeout-close-wait conntrack-tcp-timeout-established \
            conntrack-udp-timeout conntrack-udp-timeout-stream detect-local-mode feature-gates \
            healthz-bind-address healthz-port hostname-override init-only \
            iptables-localhost-nodeports iptables-masquerade-bit iptables-min-sync-period \
            iptables-sync-period ipvs-exclude-cidrs ipvs-min-sync-period ipvs-scheduler \
            ipvs-strict-arp ipvs-sync-period ipvs-tcp-timeout ipvs-tcpfin-timeout \
            ipvs-udp-timeout kube-api-burst kube-api-content-type kube-api-qps kubeconfig \
            log-flush-frequency log-json-info-buffer-size log-json-split-stream \
            log-text-info-buffer-size log-text-split-stream logging-format masquerade-all master \
            metrics-bind-address metrics-port nodeport-addresses oom-score-adj \
            pod-bridge-interface pod-interface-name-prefix profiling proxy-mode \
            show-hidden-metrics-for-version v vmodule write-config-to";
        for flag in KUBE_PROXY.split_whitespace() {
            assert!(all().any(|field| field.flag == flag), "--{flag}");
        }
    }
}
