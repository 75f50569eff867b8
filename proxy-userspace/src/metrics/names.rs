//! The one list of metrics: `METRICS.md`, the exposition and the tests follow it.

use std::time::Duration;

use crate::source::kubernetes::REQUEST_BUCKETS;

/// A metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metric {
    /// Its name as it is scraped, with `_total`.
    pub name: &'static str,
    /// What its number does.
    pub kind: Kind,
    /// Its labels; every sample has all of them.
    pub labels: &'static [&'static str],
    /// A sentence, which says the unit.
    pub help: &'static str,
}

/// What the number of a metric does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// It rises, and begins with the agent or with what it is about.
    Counter,
    /// It rises and falls.
    Gauge,
    /// Durations with these upper ends in seconds.
    Histogram(&'static [f64]),
}

impl Kind {
    /// Returns the word that Prometheus has for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// kube-proxy's for a pass: 0.001 times 2 to the power of 0 to 14.
pub const SYNC_BUCKETS: &[f64] = &doubling::<15>();
/// kube-proxy's from a change of an endpoint to the node: 0.25, 0.5, 1 to 59, 60 to 115 by 5, 120 to
/// 300 by 30.
pub const PROGRAMMING_BUCKETS: &[f64] = &programming();
const fn doubling<const N: usize>() -> [f64; N] {
    let (mut ends, mut index, mut units) = ([0.0; N], 0, 1u32);
    while index < N {
        // Divided, so that each is the number nearest to its decimal form.
        ends[index] = units as f64 / 1000.0;
        units *= 2;
        index += 1;
    }
    ends
}

const fn programming() -> [f64; 80] {
    let (mut ends, mut index) = ([0.0; 80], 0);
    while index < ends.len() {
        ends[index] = match index {
            0 => 0.25,
            1 => 0.5,
            2..=60 => (index - 1) as f64,
            61..=72 => (60 + (index - 61) * 5) as f64,
            _ => (120 + (index - 73) * 30) as f64,
        };
        index += 1;
    }
    ends
}

/// A reading of the kernel is served again for at least this time.
pub const LEAST_INTERVAL: Duration = Duration::from_secs(1);

/// Declares the metrics once, as constants and as a list.
macro_rules! metrics {
    ($($constant:ident = $name:literal, $kind:expr, [$($label:literal),*], $help:literal;)+) => {
        $(#[doc = $help] pub const $constant: Metric =
            Metric { name: $name, kind: $kind, labels: &[$($label),*], help: $help };)+

        /// Every metric, in the order of `METRICS.md`.
        pub const ALL: &[Metric] = &[$($constant,)+];
    };
}

use Kind::{Counter, Gauge, Histogram};

metrics! {
    SYNC_DURATION = "kubeproxy_sync_proxy_rules_duration_seconds", Histogram(SYNC_BUCKETS), ["ip_family"],
        "Passes over the node, by the seconds that each took. One pass does both families";
    SYNC_FULL_DURATION = "kubeproxy_sync_full_proxy_rules_duration_seconds", Histogram(SYNC_BUCKETS), ["ip_family"],
        "Passes that compared everything, by the seconds that each took";
    SYNC_PARTIAL_DURATION = "kubeproxy_sync_partial_proxy_rules_duration_seconds", Histogram(SYNC_BUCKETS), ["ip_family"],
        "Passes that took up changes only, by the seconds that each took";
    SYNC_LAST = "kubeproxy_sync_proxy_rules_last_timestamp_seconds", Gauge, ["ip_family"],
        "When a pass last brought everything into the kernel, in seconds since 1970; 0 before the first";
    SYNC_LAST_QUEUED = "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds", Gauge, ["ip_family"],
        "When a pass was last asked for, in seconds since 1970";
    SERVICE_CHANGES = "kubeproxy_sync_proxy_rules_service_changes_total", Counter, [],
        "Changes of Services that were seen";
    SERVICE_CHANGES_PENDING = "kubeproxy_sync_proxy_rules_service_changes_pending", Gauge, [],
        "Changes of Services that are not in the kernel yet";
    ENDPOINT_CHANGES = "kubeproxy_sync_proxy_rules_endpoint_changes_total", Counter, [],
        "Changes of EndpointSlices that were seen";
    ENDPOINT_CHANGES_PENDING = "kubeproxy_sync_proxy_rules_endpoint_changes_pending", Gauge, [],
        "Changes of EndpointSlices that are not in the kernel yet";
    NO_LOCAL_ENDPOINTS = "kubeproxy_sync_proxy_rules_no_local_endpoints_total", Gauge, ["ip_family", "traffic_policy"],
        "Services with traffic policy Local, internal or external, and endpoints on other nodes only";
    NETWORK_PROGRAMMING = "kubeproxy_network_programming_duration_seconds", Histogram(PROGRAMMING_BUCKETS), ["ip_family"],
        "Changes of EndpointSlices, by the seconds from the annotation endpoints.kubernetes.io/last-change-trigger-time until they were in the kernel";
    HEALTHZ = "kubeproxy_proxy_healthz_total", Counter, ["code"],
        "Answers of /healthz on healthzBindAddress";
    LIVEZ = "kubeproxy_proxy_livez_total", Counter, ["code"],
        "Answers of /livez on healthzBindAddress";
    CONNTRACK_DURATION = "kubeproxy_conntrack_reconciler_sync_duration_seconds", Histogram(SYNC_BUCKETS), ["ip_family"],
        "Searches of conntrack for stale UDP flows, by the seconds that each took";
    CONNTRACK_DELETED = "kubeproxy_conntrack_reconciler_deleted_entries_total", Counter, ["ip_family"],
        "Entries that were deleted from conntrack, of UDP flows to what is gone";
    BUILD_INFO = "kubernetes_build_info", Gauge, ["build_date", "compiler", "git_commit", "git_tree_state", "git_version", "go_version", "major", "minor", "platform"],
        "Always 1; the labels are about this build of Passlane, and empty where it has no such thing";
    REST_REQUESTS = "rest_client_requests_total", Counter, ["code", "method", "host"],
        "Requests to the API server; code is <error> without an answer";
    REST_DURATION = "rest_client_request_duration_seconds", Histogram(REQUEST_BUCKETS), ["verb", "host"],
        "Requests to the API server, by the seconds until the answer began";
    PROCESS_CPU = "process_cpu_seconds_total", Counter, [],
        "Seconds of CPU that the agent used";
    PROCESS_MEMORY = "process_resident_memory_bytes", Gauge, [],
        "Bytes of memory that the agent holds";
    PROCESS_FILES = "process_open_fds", Gauge, [],
        "File descriptors that the agent has open";
    PROCESS_START = "process_start_time_seconds", Gauge, [],
        "When the agent started, in seconds since 1970";
    INFO = "passlane_info", Gauge, ["version", "mode", "kernel"],
        "Always 1; mode is that of the fast path";
    READY = "passlane_ready", Gauge, ["component"],
        "1 when a component does its work: source, once it has told everything; slow_path; fast_path, wherever it is not turned off; metrics, the reading of the kernel";
    SERVICES = "passlane_services", Gauge, [],
        "Services with forwarding state";
    FRONTENDS = "passlane_frontends", Gauge, [],
        "Addresses, ports and protocols that clients can dial";
    CHECK_UP = "passlane_backend_check_up", Gauge, ["service", "backend"],
        "Backends of Services with a health check: 1 for one that is up, 0 for one that is down";
    CHECK_TRANSITIONS = "passlane_backend_check_transitions_total", Counter, ["service", "backend"],
        "How often a backend rose or fell by its health check";
    NOTICES = "passlane_notices", Gauge, ["reason"],
        "What was asked for and is not done; passlane status has a sentence for each";
    PASSES = "passlane_passes_total", Counter, ["scope", "outcome"],
        "Passes over the node, by whether everything was compared and whether all changes succeeded";
    PASS_FAILURES = "passlane_pass_failures", Gauge, [],
        "Changes that failed in the last pass and are tried again";
    ACTIONS = "passlane_actions_total", Counter, ["action", "outcome"],
        "Changes of the node that were tried";
    IPVS_OPERATIONS = "passlane_ipvs_operations_total", Counter, ["operation", "outcome"],
        "Commands to IPVS";
    NFT_TRANSACTIONS = "passlane_nft_transactions_total", Counter, ["outcome"],
        "Transactions of the nft table";
    DRIFT = "passlane_drift_objects", Gauge, ["subsystem", "kind"],
        "Objects on the node that are not as they should be, when they were last looked at";
    DRIFT_HEALED = "passlane_drift_healed_total", Counter, ["subsystem", "kind"],
        "Objects on the node that were not as they should be and were mended";
    AUDIT_LOOKS = "passlane_audit_looks_total", Counter, [],
        "Looks at the whole node for what others changed";
    AUDIT_READINGS = "passlane_audit_readings_total", Counter, [],
        "Looks after which a part of the node was read in full";
    AUDIT_CPU = "passlane_audit_cpu_seconds_total", Counter, [],
        "Processor time of the looks";
    SOURCE_CONNECTED = "passlane_source_connected", Gauge, [],
        "1 when the source can tell everything; the last good state stays in force meanwhile";
    SOURCE_STALE_SINCE = "passlane_source_stale_since_timestamp_seconds", Gauge, [],
        "When the snapshot was saved that is served because the API server has not answered yet, in seconds since 1970; 0 when none is";
    SOURCE_RELISTS = "passlane_source_relists_total", Counter, [],
        "Lists of a kind of objects after the first one";
    LEASE = "passlane_lease_seconds", Gauge, ["kind"],
        "How long an entry of the flow maps holds: soft, until a packet renews it, and hard";
    INTERFACES = "passlane_interfaces", Gauge, ["mode"],
        "Interfaces, by what the fast path does there";
    ATTACHED = "passlane_attached_programs", Gauge, ["interface", "hook", "mode"],
        "Always 1 for each program of the fast path that is attached";
    DATAPATH_PACKETS = "passlane_datapath_packets_total", Counter, ["class", "reason"],
        "Packets that a program of the fast path saw, by why they went the way they went. Those of class learn are counted under another reason too";
    DATAPATH_BYTES = "passlane_datapath_bytes_total", Counter, ["class", "reason"],
        "Bytes of these packets, as on the wire";
    FAST_RATIO = "passlane_datapath_fast_ratio", Gauge, [],
        "Of the packets of known Services, those that took the fast path, since the programs were loaded";
    HASH_PLANE_PACKETS = "passlane_hash_plane_packets_total", Counter, ["class", "reason"],
        "Packets that the hash plane saw, by what it did with them and why: carried to a backend, given to the kernel, or other, which are none of its own";
    HASH_PLANE_BYTES = "passlane_hash_plane_bytes_total", Counter, ["class", "reason"],
        "Bytes of the same packets";
    DROPS = "passlane_datapath_drops_total", Counter, ["reason"],
        "Packets that the nft table dropped or rejected, by the purpose of the rule; the fast path drops none";
    MAP_ENTRIES = "passlane_bpf_map_entries", Gauge, ["map"],
        "Entries of a map";
    MAP_MAX_ENTRIES = "passlane_bpf_map_max_entries", Gauge, ["map"],
        "Entries that a map has room for. A full flow map gives room for new flows by itself";
    IPVS_CONNECTIONS = "passlane_ipvs_connections_total", Counter, [],
        "Connections that IPVS scheduled, for all virtual servers of the node";
    IPVS_PACKETS = "passlane_ipvs_packets_total", Counter, ["direction"],
        "Packets that IPVS carried, for all virtual servers of the node, from clients (in) and to them (out)";
    IPVS_BYTES = "passlane_ipvs_bytes_total", Counter, ["direction"],
        "Bytes of these packets, from the IP header on";
    SERVICE_CONNECTIONS = "passlane_service_connections_total", Counter, ["service"],
        "Connections of a Service port that IPVS scheduled; only with metricsPerService";
    SERVICE_PACKETS = "passlane_service_packets_total", Counter, ["service", "plane", "direction"],
        "Packets of a Service port, by plane, slow or fast, and from clients (in) or to them (out); only with metricsPerService";
    SERVICE_BYTES = "passlane_service_bytes_total", Counter, ["service", "plane", "direction"],
        "Bytes of these packets, from the IP header on";
    SERVICES_DROPPED = "passlane_service_metrics_dropped", Gauge, [],
        "Service ports that are left out since metricsPerService names fewer; none when it is 0";
    READINGS = "passlane_kernel_readings_total", Counter, ["outcome"],
        "Readings of the kernel for /metrics. One serves all scrapes for a second at least, and for 10 times as long as it took";
    READING_DURATION = "passlane_kernel_reading_duration_seconds", Gauge, [],
        "Seconds that the last reading of the kernel took";
    READING_AGE = "passlane_kernel_reading_age_seconds", Gauge, [],
        "Seconds since the last reading of the kernel, from which the numbers of maps, packets and IPVS come";
    SCRAPES = "passlane_scrapes_total", Counter, ["reading"],
        "Scrapes, by whether they waited for a fresh reading of the kernel, shared one, or got an old one because it took too long";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The official list of the metrics that kube-proxy has and we can: name, type, labels.
    const KUBE_PROXY: &str = "\
kubeproxy_sync_proxy_rules_duration_seconds histogram ip_family
kubeproxy_sync_full_proxy_rules_duration_seconds histogram ip_family
kubeproxy_sync_partial_proxy_rules_duration_seconds histogram ip_family
kubeproxy_sync_proxy_rules_last_timestamp_seconds gauge ip_family
kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds gauge ip_family
kubeproxy_sync_proxy_rules_service_changes_total counter
kubeproxy_sync_proxy_rules_service_changes_pending gauge
kubeproxy_sync_proxy_rules_endpoint_changes_total counter
kubeproxy_sync_proxy_rules_endpoint_changes_pending gauge
kubeproxy_sync_proxy_rules_no_local_endpoints_total gauge ip_family,traffic_policy
kubeproxy_network_programming_duration_seconds histogram ip_family
kubeproxy_proxy_healthz_total counter code
kubeproxy_proxy_livez_total counter code
kubeproxy_conntrack_reconciler_sync_duration_seconds histogram ip_family
kubeproxy_conntrack_reconciler_deleted_entries_total counter ip_family
rest_client_requests_total counter code,method,host
rest_client_request_duration_seconds histogram verb,host
";

    #[test]
    fn kube_proxys_metrics_have_its_types_and_labels() {
        for line in KUBE_PROXY.lines() {
            let mut words = line.split(' ');
            let (name, kind) = (words.next().unwrap(), words.next().unwrap());
            let labels: Vec<&str> = words.next().map_or(vec![], |list| list.split(',').collect());
            let metric = ALL.iter().find(|metric| metric.name == name);
            let metric = metric.unwrap_or_else(|| panic!("{name} is missing"));
            assert_eq!((metric.kind.word(), metric.labels), (kind, &labels[..]), "{name}");
        }
        let known = ALL.iter().filter(|metric| metric.name.starts_with("kubeproxy_"));
        for metric in known {
            assert!(KUBE_PROXY.contains(metric.name), "{} is none of kube-proxy's", metric.name);
        }
    }

    #[test]
    fn buckets_are_kube_proxys() {
        let text = |ends: &[f64]| ends.iter().map(f64::to_string).collect::<Vec<_>>().join(" ");
        assert_eq!(
            text(SYNC_BUCKETS),
            "0.001 0.002 0.004 0.008 0.016 0.032 0.064 0.128 0.256 0.512 1.024 2.048 4.096 8.192 \
             16.384"
        );
        let mut expected = vec![0.25, 0.5];
        expected.extend((1..60).map(f64::from));
        expected.extend((60..120).step_by(5).map(f64::from));
        expected.extend((120..=300).step_by(30).map(f64::from));
        assert_eq!(PROGRAMMING_BUCKETS, expected);
    }

    #[test]
    fn names_follow_the_rules_of_prometheus_and_are_there_once() {
        let mut seen = BTreeSet::new();
        for metric in ALL {
            let Metric { name, kind, labels, help } = metric;
            assert!(seen.insert(name), "{name} is there twice");
            let words = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            assert!(words(name) && labels.iter().all(|label| words(label)), "{name}");
            // kube-proxy's one gauge that is called a total keeps its name.
            let total = name.ends_with("_total") && *metric != NO_LOCAL_ENDPOINTS;
            assert_eq!(total, *kind == Kind::Counter, "{name}");
            let histogram = matches!(kind, Kind::Histogram(_));
            assert!(!histogram || name.ends_with("_seconds"), "{name}");
            assert!(help.len() > 15 && !help.ends_with('.') && !help.contains('\n'), "{name}");
        }
    }
}
