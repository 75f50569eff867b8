//! What kube-proxy has and passlane does not need or does not have, with the reason.

use super::{
    Field, Role,
    Shape::{self, Flag, List, Map, Number, Text, Time},
};

const WINDOWS: &str = "it is for Windows";
const NO_MARK: &str = "passlane marks no packets";
const OTHER_MODE: &str = "IPVS schedules; the fields of ipvs count";
const GONE: &str = "kube-proxy does not have it any more either";

pub(super) const FIELDS: &[Field] = &[
    ignored(
        ("bindAddressHardFail", "bind-address-hard-fail"),
        Flag,
        "a port that is taken is reported and tried again; forwarding does not stop for it",
    ),
    ignored(("enableProfiling", "profiling"), Flag, "there is no /debug/pprof"),
    ignored(
        ("showHiddenMetricsForVersion", "show-hidden-metrics-for-version"),
        Text,
        "no metric is hidden",
    ),
    ignored(("featureGates", "feature-gates"), Map, "passlane has no feature gates"),
    ignored(
        ("clientConnection.acceptContentTypes", ""),
        Text,
        "passlane and the API server speak JSON",
    ),
    ignored(
        ("clientConnection.contentType", "kube-api-content-type"),
        Text,
        "passlane and the API server speak JSON",
    ),
    ignored(
        ("configSyncPeriod", "config-sync-period"),
        Time,
        "objects are watched; a lost watch lists them anew",
    ),
    ignored(
        ("logging.flushFrequency", "log-flush-frequency"),
        Text,
        "log lines are written at once",
    ),
    ignored(("logging.vmodule", "vmodule"), List, "the log level is one for all modules"),
    ignored(("logging.options", ""), Map, "log lines go to stderr, unbuffered"),
    ignored(("", "log-text-split-stream"), Flag, "log lines go to stderr, unbuffered"),
    ignored(("", "log-text-info-buffer-size"), Text, "log lines go to stderr, unbuffered"),
    ignored(("", "log-json-split-stream"), Flag, "log lines go to stderr, unbuffered"),
    ignored(("", "log-json-info-buffer-size"), Text, "log lines go to stderr, unbuffered"),
    ignored(("iptables.masqueradeBit", "iptables-masquerade-bit"), Number, NO_MARK),
    ignored(
        ("iptables.localhostNodePorts", "iptables-localhost-nodeports"),
        Flag,
        "in mode ipvs, NodePorts are not served on loopback addresses",
    ),
    Field {
        path: "iptables.snatNodeInternalIP",
        flag: "",
        shape: Flag,
        help: "",
        role: Role::Unsupported(
            "masquerade takes the address of the interface that packets leave by",
        ),
    },
    ignored(("iptables.syncPeriod", "iptables-sync-period"), Time, OTHER_MODE),
    ignored(("iptables.minSyncPeriod", "iptables-min-sync-period"), Time, OTHER_MODE),
    ignored(("nftables.masqueradeBit", ""), Number, NO_MARK),
    ignored(("nftables.syncPeriod", ""), Time, OTHER_MODE),
    ignored(("nftables.minSyncPeriod", ""), Time, OTHER_MODE),
    ignored(("winkernel.networkName", ""), Text, WINDOWS),
    ignored(("winkernel.sourceVip", ""), Text, WINDOWS),
    ignored(("winkernel.enableDSR", ""), Flag, WINDOWS),
    ignored(("winkernel.rootHnsEndpointName", ""), Text, WINDOWS),
    ignored(("winkernel.forwardHealthCheckVip", ""), Flag, WINDOWS),
    ignored(("windowsRunAsService", ""), Flag, WINDOWS),
    ignored(("portRange", ""), Text, "only the userspace mode of kube-proxy had it"),
    // ConfigMaps of clusters that were upgraded still have these.
    ignored(("udpIdleTimeout", ""), Time, GONE),
    ignored(("resourceContainer", ""), Text, GONE),
    ignored(("conntrack.max", ""), Number, GONE),
    refused("cleanup", "run `passlane cleanup` instead"),
    refused("write-config-to", "run `passlane config show -o yaml` instead"),
];

const fn ignored(
    (path, flag): (&'static str, &'static str),
    shape: Shape,
    reason: &'static str,
) -> Field {
    let help = if flag.is_empty() { "" } else { "Taken from kube-proxy and ignored" };
    Field { path, flag, shape, help, role: Role::Ignored(reason) }
}

const fn refused(flag: &'static str, cure: &'static str) -> Field {
    let help = "Refused, with what to do instead";
    Field { path: "", flag, shape: Flag, help, role: Role::Refused(cure) }
}
