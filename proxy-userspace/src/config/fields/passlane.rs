//! What kube-proxy does not have: the section `passlane`.

use proxy_common::abi::capacity;

use super::{
    Field,
    Shape::{Flag, List, Number, Text, Time},
    USED, optional, shown, used,
};
use crate::{
    config::{
        duration::GoDuration,
        problem::Fault,
        settings::{Source, Vips},
        tree::Value,
        values::{choice, cidrs, flag, interface, is_pattern, period, text, texts, time, whole},
    },
    model::FastPath,
    plan::{
        interfaces::{InterfaceMode, Selection},
        uplinks::XdpMode,
    },
};

pub(super) const FIELDS: &[Field] = &[
    used(
        ("passlane.source", "source"),
        Text,
        "Where Services and EndpointSlices come from: kubernetes, or file:PATH [default: \
         kubernetes]",
        |draft, value| {
            draft.settings.source = source(text(value)?)?;
            USED
        },
        |settings| match &settings.source {
            Source::Kubernetes => shown("kubernetes"),
            Source::File(path) => shown(format!("file:{}", path.display())),
        },
    ),
    used(
        ("passlane.proxyName", "proxy-name"),
        Text,
        "Serve the Services whose label service.kubernetes.io/service-proxy-name has this value \
         [default: those without the label]",
        |draft, value| {
            draft.settings.proxy_name = Some(text(value)?.to_owned());
            USED
        },
        |settings| optional(settings.proxy_name.as_ref()),
    ),
    used(
        ("passlane.vips", "vips"),
        Text,
        "How VIPs come onto the dummy device: routes; addresses; or none, where others put them onto \
         interfaces, such as keepalived [default: routes]",
        |draft, value| {
            draft.settings.vips = choice(value, &VIPS, "routes, addresses or none")?;
            USED
        },
        |settings| word(&VIPS, settings.vips),
    ),
    used(
        ("passlane.dummyDevice", "dummy-device"),
        Text,
        "Device that carries the VIPs [default: kube-ipvs0]",
        |draft, value| {
            draft.settings.dummy_device = interface(value)?;
            USED
        },
        |settings| shown(&settings.dummy_device),
    ),
    used(
        ("passlane.adopt", "adopt"),
        Flag,
        "Take over what kube-proxy's ipvs mode runs or has left on this node, connections included, \
         and remove its iptables chains and ip sets [default: false]",
        |draft, value| {
            draft.settings.adopt = flag(value)?;
            USED
        },
        |settings| Value::Flag(settings.adopt),
    ),
    used(
        ("passlane.externalIPs.enabled", "external-ips"),
        Flag,
        "Serve spec.externalIPs [default: true]",
        |draft, value| {
            draft.settings.external_ips.enabled = flag(value)?;
            USED
        },
        |settings| Value::Flag(settings.external_ips.enabled),
    ),
    used(
        ("passlane.externalIPs.cidrs", "external-ip-cidrs"),
        List,
        "Serve only those spec.externalIPs that are in these ranges",
        |draft, value| {
            draft.settings.external_ips.cidrs = cidrs(value)?;
            USED
        },
        |settings| Value::texts(&settings.external_ips.cidrs),
    ),
    used(
        ("passlane.sourceRangesOnExternalIPs", "source-ranges-on-external-ips"),
        Flag,
        "spec.loadBalancerSourceRanges hold for external IPs as well [default: false]",
        |draft, value| {
            draft.settings.source_ranges_on_external_ips = flag(value)?;
            USED
        },
        |settings| Value::Flag(settings.source_ranges_on_external_ips),
    ),
    used(
        ("passlane.rejectUnassigned", "reject-unassigned"),
        Flag,
        "Reject what is sent to cluster IPs that no Service has [default: true]",
        |draft, value| {
            draft.settings.reject_unassigned = flag(value)?;
            USED
        },
        |settings| Value::Flag(settings.reject_unassigned),
    ),
    used(
        ("passlane.drainTimeout", "drain-timeout"),
        Time,
        "How long a destination that left keeps its connections [default: 5m]",
        |draft, value| {
            draft.settings.drain_timeout = time(value)?;
            USED
        },
        |settings| shown(GoDuration(settings.drain_timeout)),
    ),
    used(
        ("passlane.fastPath", "fast-path"),
        Text,
        "Fast path for established flows: off; observe, which learns and counts only; auto, \
         wherever nothing of others would be skipped; or force, there as well [default: auto]",
        |draft, value| {
            draft.settings.fast_path = choice(value, &FastPath::WORDS, MODES)?;
            USED
        },
        |settings| shown(settings.fast_path.word()),
    ),
    used(
        ("passlane.interfaceModes", "interface-modes"),
        List,
        "What the fast path may do on some interfaces, each NAME=MODE: names with at most one *, \
         modes as for --fast-path, which the rest has; the first that fits counts",
        |draft, value| {
            draft.settings.interface_modes =
                texts(value)?.into_iter().map(interface_mode).collect::<Result<_, _>>()?;
            USED
        },
        |settings| Value::texts(&settings.interface_modes),
    ),
    used(
        ("passlane.interfaces", "interfaces"),
        List,
        "Interfaces of the fast path: auto, or names separated by commas, each with at most one * \
         [default: auto]",
        |draft, value| {
            draft.settings.interfaces = selection(value)?;
            USED
        },
        |settings| selected(&settings.interfaces),
    ),
    used(
        ("passlane.xdp", "xdp"),
        Text,
        "Transit from uplink to uplink at the driver, by XDP: off; auto, with drivers that are \
         known to do it well; or force, with any that can. Attaching interrupts some NICs' links \
         for a moment [default: off]",
        |draft, value| {
            draft.settings.xdp = choice(value, &XDP, "off, auto or force")?;
            USED
        },
        |settings| word(&XDP, settings.xdp),
    ),
    used(
        ("passlane.uplinks", "uplinks"),
        List,
        "Interfaces that xdp takes for uplinks: auto, which means NICs, or names separated by \
         commas, each with at most one * [default: auto]",
        |draft, value| {
            draft.settings.uplinks = selection(value)?;
            USED
        },
        |settings| selected(&settings.uplinks),
    ),
    used(
        ("passlane.flowEntries", "flow-entries"),
        Number,
        "Entries of the flow map of each family: two a connection, 176 bytes each over IPv4 and 224 \
         over IPv6; 0 takes up to a 200th of the memory [default: 0]",
        |draft, value| {
            draft.settings.flow_entries = match value {
                Value::Whole(0) => None,
                value => Some(whole(value, capacity::LEAST_FLOWS..=1 << 26)?),
            };
            USED
        },
        |settings| Value::Whole(settings.flow_entries.unwrap_or(0).into()),
    ),
    used(
        ("passlane.installRate", "install-rate"),
        Number,
        "New flow entries a second that the clients of one interface may cause, so that one does \
         not crowd out the others; 0 is an eighth of the flow map [default: 0]",
        |draft, value| {
            draft.settings.install_rate = Some(whole(value, 0..=1 << 26)?).filter(|rate| *rate > 0);
            USED
        },
        |settings| Value::Whole(settings.install_rate.unwrap_or(0).into()),
    ),
    used(
        ("passlane.softLease", "soft-lease"),
        Time,
        "After this time one packet of a flow takes the slow path and renews the lease [default: \
         3s]",
        |draft, value| {
            draft.settings.soft_lease = period(value)?;
            USED
        },
        |settings| shown(GoDuration(settings.soft_lease)),
    ),
    used(
        ("passlane.hardLease", "hard-lease"),
        Time,
        "After this time no packet of a flow takes the fast path without renewal; below 10s \
         [default: 5s]",
        |draft, value| {
            draft.settings.hard_lease = period(value)?;
            USED
        },
        |settings| shown(GoDuration(settings.hard_lease)),
    ),
    used(
        ("passlane.metricsPerService", "metrics-per-service"),
        Number,
        "Connections, packets and bytes of this many Service ports in /metrics, the first by \
         namespace and name [default: 0]",
        |draft, value| {
            draft.settings.metrics_per_service = whole(value, 0..=100_000)?;
            USED
        },
        |settings| Value::Whole(settings.metrics_per_service.into()),
    ),
    used(
        ("passlane.logDatapath", "log-datapath"),
        Flag,
        "Log what the datapath learns; for looking closely, not for production",
        |draft, value| {
            draft.settings.log_datapath = flag(value)?;
            USED
        },
        |settings| Value::Flag(settings.log_datapath),
    ),
    used(
        ("passlane.stateDir", "state-dir"),
        Text,
        "Directory for the ledger, the lock and the status, on a file system that a reboot \
         empties; the other verbs need the same [default: /run/passlane]",
        |draft, value| {
            draft.settings.paths.state_dir = text(value)?.into();
            USED
        },
        |settings| shown(settings.paths.state_dir.display()),
    ),
    used(
        ("passlane.bpffs", "bpffs"),
        Text,
        "Directory for pinned maps and links, on a bpffs; the other verbs need the same [default: \
         /sys/fs/bpf/passlane]",
        |draft, value| {
            draft.settings.paths.bpffs = text(value)?.into();
            USED
        },
        |settings| shown(settings.paths.bpffs.display()),
    ),
    used(
        ("passlane.snapshotDir", "snapshot-dir"),
        Text,
        "Directory for the last good snapshot of the cluster, on a file system that a reboot \
         keeps; a node serves from it when it starts before the API server answers [default: \
         /var/lib/passlane]",
        |draft, value| {
            draft.settings.paths.snapshot_dir = text(value)?.into();
            USED
        },
        |settings| shown(settings.paths.snapshot_dir.display()),
    ),
];

const VIPS: [(&str, Vips); 3] =
    [("routes", Vips::Routes), ("addresses", Vips::Addresses), ("none", Vips::None)];

const MODES: &str = "off, observe, auto or force";

const XDP: [(&str, XdpMode); 3] =
    [("off", XdpMode::Off), ("auto", XdpMode::Auto), ("force", XdpMode::Force)];

fn word<T: PartialEq>(words: &[(&'static str, T)], value: T) -> Value {
    optional(words.iter().find_map(|(word, each)| (*each == value).then_some(*word)))
}

fn source(text: &str) -> Result<Source, Fault> {
    match text.split_once(':') {
        None if text == "kubernetes" => Ok(Source::Kubernetes),
        Some(("file", path)) if !path.is_empty() => Ok(Source::File(path.into())),
        _ => Err(Fault::UnknownValue {
            found: text.to_owned(),
            expected: "kubernetes, or file:PATH, where PATH is a manifest or a directory of them",
        }),
    }
}

fn selected(selection: &Selection) -> Value {
    match selection {
        Selection::Auto => shown("auto"),
        Selection::Patterns(patterns) => Value::texts(patterns),
    }
}

fn interface_mode(text: &str) -> Result<InterfaceMode, Fault> {
    let parts = text.split_once('=').map(|(name, mode)| (name.trim(), mode.trim()));
    let read = parts.filter(|(name, _)| is_pattern(name)).and_then(|(name, mode)| {
        Some(InterfaceMode { pattern: name.to_owned(), mode: FastPath::named(mode)? })
    });
    read.ok_or_else(|| Fault::UnknownValue {
        found: text.to_owned(),
        expected: "NAME=MODE: a name with at most one *, and off, observe, auto or force",
    })
}

fn selection(value: &Value) -> Result<Selection, Fault> {
    let patterns: Vec<&str> = match value {
        Value::Text(text) => text.split(',').map(str::trim).collect(),
        value => texts(value)?,
    };
    if patterns.as_slice() == ["auto"] {
        return Ok(Selection::Auto);
    }
    let wrong = patterns.iter().find(|name| !is_pattern(name));
    match (wrong, patterns.is_empty()) {
        (Some(pattern), _) => Err(Fault::UnknownValue {
            found: (*pattern).to_owned(),
            expected: "auto, or names with at most one *",
        }),
        (None, true) => Ok(Selection::Auto),
        (None, false) => Ok(Selection::Patterns(patterns.into_iter().map(str::to_owned).collect())),
    }
}
