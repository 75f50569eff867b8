//! Who is served, and where.

use std::net::{IpAddr, SocketAddr};

use super::{
    Draft, Field, Listen, LocalMode, ProxyMode,
    Shape::{Address, Flag, List, Number, Text},
    USED, optional, shown, used,
};
use crate::config::{
    problem::Fault,
    report::Verdict,
    settings::{DetectLocal, HEALTHZ_PORT, METRICS_PORT, NodePortAddress, NodePortAddresses},
    tree::Value,
    values::{address, choice, cidr, flag, interface, socket_address, text, texts, whole},
};

pub(super) const FIELDS: &[Field] = &[
    used(
        ("mode", "proxy-mode"),
        Text,
        "Taken from kube-proxy; IPVS schedules whatever it says",
        set_mode,
        |_| shown("ipvs"),
    ),
    used(
        ("bindAddress", "bind-address"),
        Text,
        "The node's primary address instead of that of its Node object",
        |draft, value| {
            // An unspecified address only chooses the family of the two servers.
            draft.settings.bind_address = Some(address(value)?);
            USED
        },
        |settings| optional(settings.bind_address),
    ),
    used(
        ("healthzBindAddress", "healthz-bind-address"),
        Address,
        "Where /healthz and /livez are served [default: 0.0.0.0:10256]; off for nowhere",
        |draft, value| {
            draft.healthz = listen(value, HEALTHZ_PORT)?;
            USED
        },
        |settings| listening(settings.healthz_bind_address),
    ),
    used(
        ("metricsBindAddress", "metrics-bind-address"),
        Address,
        "Where /metrics and /proxyMode are served [default: 127.0.0.1:10249]; off for nowhere",
        |draft, value| {
            draft.metrics = listen(value, METRICS_PORT)?;
            USED
        },
        |settings| listening(settings.metrics_bind_address),
    ),
    used(
        ("", "healthz-port"),
        Number,
        "The port of --healthz-bind-address; 0 for nowhere",
        |draft, value| {
            draft.healthz = listen_at_port(draft.healthz, value)?;
            USED
        },
        |_| Value::Null,
    ),
    used(
        ("", "metrics-port"),
        Number,
        "The port of --metrics-bind-address; 0 for nowhere",
        |draft, value| {
            draft.metrics = listen_at_port(draft.metrics, value)?;
            USED
        },
        |_| Value::Null,
    ),
    used(
        ("nodePortAddresses", "nodeport-addresses"),
        List,
        "The node's addresses that serve NodePorts: CIDRs, primary, localhost, all [default: all but \
         localhost]",
        set_nodeport_addresses,
        |settings| Value::texts(settings.nodeport_addresses.0.iter().map(nodeport_text)),
    ),
    used(
        ("clusterCIDR", "cluster-cidr"),
        Text,
        "The range of the cluster's Pods, or an IPv4 and an IPv6 one separated by a comma",
        |draft, value| {
            let cidrs = text(value)?.split(',').map(|text| cidr(text.trim()));
            draft.settings.cluster_cidrs = cidrs.collect::<Result<_, _>>()?;
            USED
        },
        |settings| {
            let cidrs: Vec<_> = settings.cluster_cidrs.iter().map(ToString::to_string).collect();
            optional((!cidrs.is_empty()).then(|| cidrs.join(",")))
        },
    ),
    used(
        ("detectLocalMode", "detect-local-mode"),
        Text,
        "What tells traffic of this node's Pods: ClusterCIDR, NodeCIDR, BridgeInterface, \
         InterfaceNamePrefix [default: ClusterCIDR, with --cluster-cidr]",
        |draft, value| {
            draft.local_mode = Some(choice(
                value,
                &LOCAL_MODES,
                "ClusterCIDR, NodeCIDR, BridgeInterface or InterfaceNamePrefix",
            )?);
            USED
        },
        |settings| {
            let mode = match &settings.detect_local {
                DetectLocal::None => return Value::Null,
                DetectLocal::ClusterCidr(_) => LocalMode::ClusterCidr,
                DetectLocal::NodeCidr => LocalMode::NodeCidr,
                DetectLocal::BridgeInterface(_) => LocalMode::BridgeInterface,
                DetectLocal::InterfacePrefix(_) => LocalMode::InterfaceNamePrefix,
            };
            optional(LOCAL_MODES.iter().find_map(|(name, each)| (*each == mode).then_some(*name)))
        },
    ),
    used(
        ("detectLocal.bridgeInterface", "pod-bridge-interface"),
        Text,
        "The bridge of this node's Pods, for --detect-local-mode BridgeInterface",
        |draft, value| {
            draft.bridge = interface(value)?;
            USED
        },
        |settings| match &settings.detect_local {
            DetectLocal::BridgeInterface(name) => shown(name),
            _ => Value::Null,
        },
    ),
    used(
        ("detectLocal.interfaceNamePrefix", "pod-interface-name-prefix"),
        Text,
        "How the names of Pods' interfaces begin, for --detect-local-mode InterfaceNamePrefix",
        |draft, value| {
            draft.prefix = interface(value)?;
            USED
        },
        |settings| match &settings.detect_local {
            DetectLocal::InterfacePrefix(prefix) => shown(prefix),
            _ => Value::Null,
        },
    ),
    used(
        ("iptables.masqueradeAll", "masquerade-all"),
        Flag,
        "Masquerade all traffic to cluster IPs",
        |draft, value| {
            draft.settings.masquerade_all = flag(value)?;
            USED
        },
        |settings| Value::Flag(settings.masquerade_all),
    ),
    used(
        ("nftables.masqueradeAll", ""),
        Flag,
        "",
        |draft, value| {
            let all = flag(value)?;
            if draft.mode != ProxyMode::Nftables {
                return Ok(Verdict::Ignored("mode is not nftables; iptables.masqueradeAll counts"));
            }
            draft.settings.masquerade_all = all;
            USED
        },
        |_| Value::Null,
    ),
];

const LOCAL_MODES: [(&str, LocalMode); 4] = [
    ("ClusterCIDR", LocalMode::ClusterCidr),
    ("NodeCIDR", LocalMode::NodeCidr),
    ("BridgeInterface", LocalMode::BridgeInterface),
    ("InterfaceNamePrefix", LocalMode::InterfaceNamePrefix),
];

fn set_mode(draft: &mut Draft, value: &Value) -> Result<Verdict, Fault> {
    if let Ok(found @ "kernelspace") = text(value) {
        return Err(Fault::OtherSystem { found: found.to_owned() });
    }
    draft.mode = choice(
        value,
        &[
            ("ipvs", ProxyMode::Ipvs),
            ("iptables", ProxyMode::Iptables),
            ("nftables", ProxyMode::Nftables),
        ],
        "ipvs, iptables or nftables",
    )?;
    match draft.mode {
        ProxyMode::Ipvs => USED,
        _ => Ok(Verdict::Ignored("IPVS schedules; Services behave as in mode ipvs")),
    }
}

fn set_nodeport_addresses(draft: &mut Draft, value: &Value) -> Result<Verdict, Fault> {
    let items: Vec<NodePortAddress> = texts(value)?
        .into_iter()
        .map(|text| match text {
            "all" => Ok(NodePortAddress::All),
            "primary" => Ok(NodePortAddress::Primary),
            "localhost" => Ok(NodePortAddress::Localhost),
            text => cidr(text).map(NodePortAddress::Cidr).map_err(|_| Fault::UnknownValue {
                found: text.to_owned(),
                expected: "a CIDR, primary, localhost or all",
            }),
        })
        .collect::<Result<_, _>>()?;
    draft.settings.nodeport_addresses = NodePortAddresses(items);
    USED
}

fn nodeport_text(item: &NodePortAddress) -> String {
    match item {
        NodePortAddress::All => "all".into(),
        NodePortAddress::Primary => "primary".into(),
        NodePortAddress::Localhost => "localhost".into(),
        NodePortAddress::Cidr(cidr) => cidr.to_string(),
    }
}

fn listen(value: &Value, port: u16) -> Result<Listen, Fault> {
    match text(value)? {
        "off" | "" => Ok(Listen::Off),
        _ => socket_address(value, port).map(Listen::At),
    }
}

fn listen_at_port(listen: Listen, value: &Value) -> Result<Listen, Fault> {
    Ok(match (whole(value, 0..=u16::MAX)?, listen) {
        (0, _) => Listen::Off,
        // As in kube-proxy, an address that has a port keeps it.
        (_, Listen::At(address)) => Listen::At(address),
        (port, _) => Listen::Port(port),
    })
}

fn listening(address: Option<SocketAddr>) -> Value {
    address.map_or_else(|| shown("off"), shown)
}

impl Listen {
    /// Returns the address, given kube-proxy's.
    pub(in crate::config) fn resolve(self, addr: IpAddr, port: u16) -> Option<SocketAddr> {
        match self {
            Self::Default => Some((addr, port).into()),
            Self::Port(port) => Some((addr, port).into()),
            Self::At(address) => Some(address),
            Self::Off => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    #[test]
    fn a_port_alone_keeps_kube_proxys_address() {
        let all = IpAddr::from([0, 0, 0, 0]);
        let resolve = |listen: Listen| listen.resolve(all, 1).map(|address| address.to_string());
        let at = |port| listen_at_port(Listen::Default, &Value::Whole(port)).unwrap();
        assert_eq!(resolve(at(99)), Some("0.0.0.0:99".into()));
        assert_eq!(resolve(at(0)), None);
        assert_eq!(resolve(Listen::Default), Some("0.0.0.0:1".into()));
        let address = Listen::At("192.0.2.1:7".parse().unwrap());
        assert_eq!(listen_at_port(address, &Value::Whole(99)).unwrap(), address);
    }

    #[test]
    fn settings_without_local_detection_name_no_mode() {
        let field = FIELDS.iter().find(|field| field.path == "detectLocalMode").unwrap();
        let super::super::Role::Used { get, .. } = field.role else { panic!() };
        assert_eq!(get(&Settings::default()), Value::Null);
        let local = DetectLocal::NodeCidr;
        let settings = Settings { detect_local: local, ..Settings::default() };
        assert_eq!(get(&settings), shown("NodeCIDR"));
    }
}
