//! Whole files and whole command lines.

use std::{collections::BTreeSet, time::Duration};

use clap::Parser;
use ipnet::IpNet;

use super::{fields, *};
use crate::{
    model::{FastPath, HashMode, Scheduler, SchedulerFlags},
    plan::{
        interfaces::{InterfaceMode, Selection},
        uplinks::XdpMode,
    },
};

const KUBEADM: &str = include_str!("golden/kubeadm.yaml");
const EVERY_FIELD: &str = include_str!("golden/every-field.yaml");
const HEADER: &str = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";

#[derive(Debug, Parser)]
struct CommandLine {
    #[command(flatten)]
    flags: RunFlags,
}

fn flags(words: &[&str]) -> RunFlags {
    CommandLine::try_parse_from(["run"].iter().chain(words)).unwrap().flags
}

fn resolve(text: Option<&str>, words: &[&str]) -> Result<(Settings, Vec<FieldReport>), Error> {
    let file = text.map(|text| ConfigFile::parse("c.yaml", text)).transpose()?;
    Settings::resolve(&flags(words), file.as_ref())
}

fn file(fields: &str) -> Result<(Settings, Vec<FieldReport>), Error> {
    resolve(Some(&format!("{HEADER}{fields}")), &[])
}

/// Returns the message of the only problem.
fn problem(result: Result<(Settings, Vec<FieldReport>), Error>) -> String {
    let error = result.unwrap_err();
    assert_eq!(error.problems.len(), 1, "{error}");
    error.to_string()
}

fn cidr(text: &str) -> IpNet {
    text.parse().unwrap()
}

const fn secs(secs: u64) -> Option<Duration> {
    Some(Duration::from_secs(secs))
}

#[test]
fn without_file_and_flags_everything_is_kube_proxys_default() {
    let (settings, reports) = resolve(None, &[]).unwrap();
    assert_eq!(settings, Settings::default());
    assert_eq!(settings.healthz_bind_address.unwrap().to_string(), "0.0.0.0:10256");
    assert_eq!(settings.metrics_bind_address.unwrap().to_string(), "127.0.0.1:10249");
    assert_eq!(reports, []);
}

#[test]
fn kubeadms_config_map_is_taken_as_it_is() {
    let (settings, reports) = resolve(Some(KUBEADM), &[]).unwrap();
    let expected = Settings {
        kubeconfig: Some("/var/lib/kube-proxy/kubeconfig.conf".into()),
        cluster_cidrs: vec![cidr("10.244.0.0/16")],
        detect_local: DetectLocal::ClusterCidr(vec![cidr("10.244.0.0/16")]),
        logging: Logging { verbosity: 0, format: LogFormat::Text },
        ..Settings::default()
    };
    assert_eq!(settings, expected);
    let notable: Vec<_> = reports.iter().filter(|report| report.is_notable()).collect();
    assert!(notable.is_empty(), "nothing of it is lost: {notable:?}");
    let mode = reports.iter().find(|report| report.field == "mode").unwrap();
    assert_eq!(mode.to_string(), "mode ipvs: used");
    assert_eq!(mode.place, "c.yaml: data.config.conf:52");
}

#[test]
fn the_json_form_of_the_config_map_is_the_same() {
    let value = tree::parse(KUBEADM).unwrap().value;
    let json = serde_json::to_string(&value).unwrap();
    assert_eq!(resolve(Some(&json), &[]).unwrap(), resolve(Some(KUBEADM), &[]).unwrap());
}

fn every_field_of_the_hash_plane() -> HashPlane {
    HashPlane {
        interfaces: vec!["eth2".into()],
        mode: HashMode::Generic,
        flow_entries: Some(4096),
        sync_interface: "eth3".into(),
        sync_id: 7,
    }
}

#[test]
fn every_field_is_taken_up_once() {
    let (settings, reports) = resolve(Some(EVERY_FIELD), &[]).unwrap();
    let expected = Settings {
        source: Source::File("/etc/passlane".into()),
        kubeconfig: Some("/etc/kubeconfig".into()),
        api_servers: vec!["https://192.0.2.10:6443".into(), "https://192.0.2.11:6443".into()],
        qps: 12.5,
        burst: 25,
        hostname_override: Some("node-a".into()),
        proxy_name: Some("passlane".into()),
        bind_address: Some("2001:db8::7".parse().unwrap()),
        nodeport_addresses: NodePortAddresses(vec![
            NodePortAddress::Primary,
            NodePortAddress::Localhost,
            NodePortAddress::Cidr(cidr("10.0.0.0/8")),
        ]),
        detect_local: DetectLocal::BridgeInterface("cni0".into()),
        cluster_cidrs: vec![cidr("10.244.0.0/16"), cidr("fd00:10:244::/56")],
        masquerade_all: true,
        vips: Vips::Addresses,
        external_ips: ExternalIps { enabled: true, cidrs: vec![cidr("203.0.113.0/24")] },
        source_ranges_on_external_ips: true,
        reject_unassigned: false,
        scheduler: (Scheduler::Mh, SchedulerFlags(0x10)),
        exclude_cidrs: vec![cidr("192.0.2.0/24"), cidr("2001:db8::/32")],
        strict_arp: true,
        ipvs_timeouts: IpvsTimeouts { tcp: secs(7200), tcp_fin: secs(120), udp: secs(300) },
        drain_timeout: Duration::from_secs(90),
        conntrack: Conntrack {
            max_per_core: Some(65_536),
            min: 500_000,
            tcp_established: secs(43_200),
            tcp_close_wait: secs(1800),
            tcp_be_liberal: true,
            udp: secs(40),
            udp_stream: secs(80),
        },
        sync_period: Duration::from_secs(60),
        min_sync_period: Duration::from_secs(2),
        init_only: false,
        oom_score_adj: -500,
        healthz_bind_address: Some("[::]:20256".parse().unwrap()),
        metrics_bind_address: Some("[::1]:10249".parse().unwrap()),
        fast_path: FastPath::Observe,
        interfaces: Selection::Patterns(vec!["eth0".into(), "veth*".into()]),
        interface_modes: vec![
            InterfaceMode { pattern: "veth0".into(), mode: FastPath::Off },
            InterfaceMode { pattern: "eth*".into(), mode: FastPath::Force },
        ],
        xdp: XdpMode::Force,
        uplinks: Selection::Patterns(vec!["eth0".into(), "eth1*".into()]),
        hash_plane: every_field_of_the_hash_plane(),
        flow_entries: Some(65_536),
        install_rate: Some(1_000),
        soft_lease: Duration::from_secs(1),
        hard_lease: Duration::from_millis(1500),
        metrics_per_service: 20,
        log_datapath: true,
        dummy_device: "vips0".into(),
        adopt: true,
        paths: Paths {
            state_dir: "/run/other".into(),
            bpffs: "/sys/fs/bpf/other".into(),
            snapshot_dir: "/var/lib/other".into(),
        },
        logging: Logging { verbosity: 4, format: LogFormat::Json },
    };
    assert_eq!(settings, expected);
    let reported: BTreeSet<&str> = reports.iter().map(|report| report.field.as_str()).collect();
    let known = fields::all().map(|field| field.path).filter(|path| !path.is_empty());
    assert_eq!(reported, known.collect(), "each field of the table is in the file");
    assert!(reports.iter().all(|report| report.verdict != Verdict::Unset), "{reports:#?}");
    let verdict = |path: &str| {
        let report = reports.iter().find(|report| report.field == path).unwrap();
        report.verdict.to_string()
    };
    assert_eq!(verdict("mode"), "ignored because IPVS schedules; Services behave as in mode ipvs");
    assert_eq!(verdict("winkernel.enableDSR"), "ignored because it is for Windows");
    assert!(verdict("iptables.snatNodeInternalIP").starts_with("unsupported because masquerade"));
    assert_eq!(verdict("nftables.masqueradeAll"), "used");
}

#[test]
fn the_printed_configuration_gives_the_same_settings() {
    let again = |settings: &Settings| {
        let text = serde_saphyr::to_string(&settings.to_value()).unwrap();
        resolve(Some(&text), &[]).unwrap_or_else(|error| panic!("{error}\n{text}"))
    };
    let six = file("bindAddress: '::'\ndetectLocalMode: NodeCIDR\n").unwrap().0;
    let off = resolve(None, &["--metrics-bind-address=", "--healthz-port=0"]).unwrap().0;
    let prefix = ["--detect-local-mode=InterfaceNamePrefix", "--pod-interface-name-prefix=cali"];
    let prefix = resolve(None, &prefix).unwrap().0;
    let every = resolve(Some(EVERY_FIELD), &[]).unwrap().0;
    let kubeadm = resolve(Some(KUBEADM), &[]).unwrap().0;
    for settings in [Settings::default(), six, off, prefix, every, kubeadm] {
        let (result, reports) = again(&settings);
        assert_eq!(result, settings);
        let lost: Vec<_> = reports.iter().filter(|report| report.is_notable()).collect();
        assert!(lost.is_empty(), "{lost:?}");
    }
}

#[test]
fn an_unknown_field_is_an_error_with_its_line_and_a_suggestion() {
    assert_eq!(
        problem(file("ipvs:\n  strictARP: true\n  schedular: rr\n")),
        "c.yaml:5: ipvs.schedular: unknown field; did you mean ipvs.scheduler?"
    );
    assert_eq!(
        problem(file("strictARP: true\n")),
        "c.yaml:3: strictARP: unknown field; did you mean ipvs.strictARP?"
    );
    assert_eq!(
        problem(file("passlane: {colour: red}\n")),
        "c.yaml:3: passlane.colour: unknown field; remove it"
    );
    let inner = KUBEADM.replace("    portRange:", "    portRanges:");
    assert_eq!(
        problem(resolve(Some(&inner), &[])),
        "c.yaml: data.config.conf:60: portRanges: unknown field; did you mean portRange?"
    );
}

#[test]
fn all_problems_of_a_file_are_told_at_once() {
    let error = file("ipvs: {strictArp: 1}\nclusterCidr: x\n").unwrap_err();
    assert_eq!(error.problems.len(), 2);
    let error = file("oomScoreAdj: 1001\nmode: userspace\n").unwrap_err();
    assert_eq!(
        error.to_string(),
        "c.yaml:4: mode: unknown value \"userspace\"; write ipvs, iptables or nftables\n\
         c.yaml:3: oomScoreAdj: 1001 is out of range; write -1000 to 1000"
    );
}

/// A line of a file, and what is said of it.
const BAD_VALUES: &[(&str, &str)] = &[
    ("mode: kernelspace", "mode: mode \"kernelspace\" is for Windows; write ipvs"),
    ("mode: [ipvs]", "mode: [ipvs] is a list; write a string"),
    ("ipvs: true", "ipvs: true is true or false; write an object"),
    ("ipvs: {strictARP: \"true\"}", "ipvs.strictARP: true is a string; write true or false"),
    ("ipvs: {tcpTimeout: 30}", "ipvs.tcpTimeout: \"30\" has no unit; write 30s for seconds"),
    ("ipvs: {udpTimeout: -1s}", "ipvs.udpTimeout: \"-1s\" is negative; write 0 or more"),
    (
        "ipvs: {excludeCIDRs: 10.0.0.0/8}",
        "ipvs.excludeCIDRs: 10.0.0.0/8 is a string; write a list of strings",
    ),
    (
        "ipvs: {excludeCIDRs: [10.0.0.0]}",
        "ipvs.excludeCIDRs: unknown value \"10.0.0.0\"; write a CIDR such as 10.244.0.0/16 or \
         fd00::/64",
    ),
    (
        "nodePortAddresses: [first]",
        "nodePortAddresses: unknown value \"first\"; write a CIDR, primary, localhost or all",
    ),
    (
        "clusterCIDR: 10.0.0.0/8,10.1.0.0/16",
        "clusterCIDR: unknown value \"10.0.0.0/8,10.1.0.0/16\"; write one range, or an IPv4 \
         and an IPv6 one separated by a comma",
    ),
    (
        "detectLocalMode: BridgeInterface",
        "detectLocalMode: BridgeInterface needs the bridge's name; set \
         detectLocal.bridgeInterface (--pod-bridge-interface)",
    ),
    (
        "detectLocalMode: InterfaceNamePrefix",
        "detectLocalMode: InterfaceNamePrefix needs the prefix; set \
         detectLocal.interfaceNamePrefix (--pod-interface-name-prefix)",
    ),
    (
        "conntrack: {maxPerCore: -1}",
        "conntrack.maxPerCore: -1 is out of range; write 0 to 2147483647",
    ),
    (
        "healthzBindAddress: localhost:1",
        "healthzBindAddress: unknown value \"localhost:1\"; write an IP address with a port, \
         such as 0.0.0.0:10256 or [::]:10256",
    ),
    (
        "metricsBindAddress: 127.0.0.1:10256",
        "metricsBindAddress: 127.0.0.1:10256 does not go with healthzBindAddress \
         0.0.0.0:10256; write another port",
    ),
    (
        "ipvs: {minSyncPeriod: 31s}",
        "ipvs.minSyncPeriod: 31s does not go with ipvs.syncPeriod 30s; write no more than that",
    ),
    (
        "passlane: {hardLease: 10s}",
        "passlane.hardLease: 10s does not go with the limit of 10s; write less: then IPVS may \
         give a closed connection's ports to another one",
    ),
    (
        "passlane: {softLease: 5s}",
        "passlane.softLease: 5s does not go with passlane.hardLease 5s; write less than that",
    ),
    (
        "passlane: {externalIPs: {enabled: false, cidrs: [192.0.2.0/24]}}",
        "passlane.externalIPs.cidrs: [192.0.2.0/24] does not go with \
         passlane.externalIPs.enabled false; write enabled: true, or remove the ranges",
    ),
    (
        "passlane: {apiServers: [192.0.2.1:6443]}",
        "passlane.apiServers: unknown value \"192.0.2.1:6443\"; write a URL such as \
         https://192.0.2.10:6443",
    ),
    (
        "passlane: {interfaces: [a*b*]}",
        "passlane.interfaces: unknown value \"a*b*\"; write auto, or names with at most one *",
    ),
    (
        "passlane: {source: /etc}",
        "passlane.source: unknown value \"/etc\"; write kubernetes, or file:PATH, where PATH \
         is a manifest or a directory of them",
    ),
    (
        "passlane: {dummyDevice: longer-than-fifteen}",
        "passlane.dummyDevice: unknown value \"longer-than-fifteen\"; write an interface name \
         of 1 to 15 bytes",
    ),
];

#[test]
fn a_bad_value_names_field_and_cure() {
    for (text, expected) in BAD_VALUES {
        assert_eq!(problem(file(text)), format!("c.yaml:3: {expected}"), "{text}");
    }
}

#[test]
fn a_file_of_another_kind_is_refused() {
    assert_eq!(
        resolve(Some("kind: Deployment\napiVersion: apps/v1\n"), &[]).unwrap_err().to_string(),
        "c.yaml: kind: unknown kind Deployment; write KubeProxyConfiguration, or a ConfigMap with \
         the key config.conf\n\
         c.yaml: apiVersion: unknown version apps/v1; write kubeproxy.config.k8s.io/v1alpha1"
    );
    assert_eq!(
        problem(resolve(Some("kind: ConfigMap\napiVersion: v1\ndata: {a: b}\n"), &[])),
        "c.yaml: data: no key config.conf in data; put the KubeProxyConfiguration there"
    );
    assert_eq!(resolve(Some(""), &[]).unwrap_err().problems.len(), 2);
    let message = problem(resolve(Some("kind: [\n"), &[]));
    assert!(message.contains("not YAML or JSON"), "{message}");
    let message = problem(file("mode: ipvs\nmode: iptables\n"));
    assert!(message.starts_with("c.yaml:4: "), "{message}");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let error = ConfigFile::read(std::path::Path::new("/nonexistent/c.yaml")).unwrap_err();
    assert!(error.to_string().starts_with("/nonexistent/c.yaml: read: "), "{error}");
}

#[test]
fn flags_win_over_the_file_and_the_file_over_defaults() {
    let text = format!("{HEADER}ipvs: {{scheduler: wlc, strictARP: true, syncPeriod: 1m}}\n");
    let (settings, reports) = resolve(
        Some(&text),
        &["--ipvs-scheduler", "sh,sh-port", "--ipvs-strict-arp=false", "--soft-lease=2s"],
    )
    .unwrap();
    assert_eq!(settings.scheduler, (Scheduler::Sh, SchedulerFlags(0x10)), "flag over file");
    assert!(!settings.strict_arp, "flag over file, to the default's value too");
    assert_eq!(settings.sync_period, Duration::from_secs(60), "file over default");
    assert_eq!(settings.soft_lease, Duration::from_secs(2), "flag over default");
    assert_eq!(settings.hard_lease, Settings::default().hard_lease, "default");
    let told: Vec<String> = reports.iter().map(ToString::to_string).collect();
    let expected = [
        "ipvs.scheduler wlc: ignored because the flag wins",
        "ipvs.strictARP true: ignored because the flag wins",
        "ipvs.syncPeriod 1m: used",
        "--ipvs-scheduler sh,sh-port: used",
        "--ipvs-strict-arp false: used",
        "--soft-lease 2s: used",
    ];
    assert_eq!(told, expected);
}

#[test]
fn flags_are_written_as_for_kube_proxy() {
    let words = [
        "--v=4",
        "--hostname-override=NODE-B",
        "--masquerade-all",
        "--oom-score-adj",
        "-998",
        "--nodeport-addresses=primary,10.0.0.0/8",
        "--nodeport-addresses=192.0.2.0/24",
        "--cluster-cidr=10.0.0.0/8",
        "--cluster-cidr=10.244.0.0/16",
        "--conntrack-max-per-core=0",
        "--ipvs-tcp-timeout=2h22m",
        "--proxy-mode=ipvs",
        "--master=https://192.0.2.1:6443",
        "--metrics-port=9999",
        "--kube-api-qps=2.5",
        "--interfaces=eth0,veth*",
        "--external-ips=false",
    ];
    let (settings, reports) = resolve(None, &words).unwrap();
    assert!(reports.iter().all(|report| report.verdict == Verdict::Used), "{reports:#?}");
    assert_eq!(settings.logging.level(), LogLevel::Debug);
    assert_eq!(settings.hostname_override.as_deref(), Some("node-b"));
    assert!(settings.masquerade_all && !settings.external_ips.enabled);
    assert_eq!(settings.oom_score_adj, -998);
    assert_eq!(settings.nodeport_addresses.0.len(), 3, "lists add up");
    assert_eq!(settings.cluster_cidrs, [cidr("10.244.0.0/16")], "the last one counts");
    assert_eq!(settings.conntrack.max_per_core, None);
    assert_eq!(settings.ipvs_timeouts.tcp, secs(142 * 60));
    assert_eq!(settings.api_servers, ["https://192.0.2.1:6443"]);
    assert_eq!(settings.metrics_bind_address.unwrap().to_string(), "127.0.0.1:9999");
    assert_eq!(settings.qps, 2.5);
    let patterns = Selection::Patterns(vec!["eth0".into(), "veth*".into()]);
    assert_eq!(settings.interfaces, patterns);
}

#[test]
fn the_command_line_of_kubeadms_daemon_set_is_taken() {
    let words = ["--config=/var/lib/kube-proxy/config.conf", "--hostname-override=node-a"];
    assert_eq!(flags(&words).config, Some("/var/lib/kube-proxy/config.conf".into()));
    let (settings, _) = resolve(Some(KUBEADM), &words).unwrap();
    assert_eq!(settings.hostname_override.as_deref(), Some("node-a"));
}

#[test]
fn an_empty_flag_sets_nothing_but_ends_a_list_or_a_server() {
    let text = format!(
        "{HEADER}hostnameOverride: a\nnodePortAddresses: [primary]\nipvs: {{scheduler: wlc}}\n"
    );
    let words = [
        "--hostname-override=",
        "--ipvs-scheduler=",
        "--nodeport-addresses=",
        "--metrics-bind-address=",
    ];
    let (settings, reports) = resolve(Some(&text), &words).unwrap();
    assert_eq!(settings.hostname_override.as_deref(), Some("a"));
    assert_eq!(settings.scheduler.0, Scheduler::Wlc);
    assert_eq!(settings.nodeport_addresses, NodePortAddresses::default());
    assert_eq!(settings.metrics_bind_address, None);
    let wlc = reports.iter().find(|report| report.field == "ipvs.scheduler").unwrap();
    assert_eq!(wlc.verdict, Verdict::Used);
}

#[test]
fn flags_from_before_still_work() {
    let words = ["--scheduler=lc", "--sync-period=5s", "-v", "6", "--source=file:/etc/x"];
    let (settings, _) = resolve(None, &words).unwrap();
    assert_eq!(settings.scheduler.0, Scheduler::Lc);
    assert_eq!(settings.sync_period, Duration::from_secs(5));
    assert_eq!(settings.logging.level(), LogLevel::Trace);
    assert_eq!(settings.source, Source::File("/etc/x".into()));
}

#[test]
fn flags_that_cannot_be_honoured_are_taken_and_named() {
    let words = ["--profiling", "--feature-gates=A=true,B=false", "--iptables-masquerade-bit=14"];
    let (settings, reports) = resolve(None, &words).unwrap();
    assert_eq!(settings, Settings::default());
    let told: Vec<String> = reports.iter().map(ToString::to_string).collect();
    let expected = [
        "--profiling true: ignored because there is no /debug/pprof",
        "--feature-gates A=true,B=false: ignored because passlane has no feature gates",
        "--iptables-masquerade-bit 14: ignored because passlane marks no packets",
    ];
    assert_eq!(told, expected);
    let message = problem(resolve(None, &["--cleanup"]));
    assert_eq!(message, "--cleanup: run `passlane cleanup` instead");
    assert!(resolve(None, &["--cleanup=false"]).is_ok());
}

#[test]
fn a_bad_flag_is_named_with_the_cure() {
    let cases = [
        ("--masquerade-all=maybe", "--masquerade-all: maybe is a string; write true or false"),
        ("--conntrack-min=many", "--conntrack-min: many is a string; write a whole number"),
        ("--fast-path=on", "--fast-path: unknown value \"on\"; write off, observe, auto or force"),
        (
            "--interface-modes=eth0=on",
            "--interface-modes: unknown value \"eth0=on\"; write NAME=MODE: a name with at most one \
             *, and off, observe, auto or force",
        ),
        ("--flow-entries=5", "--flow-entries: 5 is out of range; write 1024 to 67108864"),
        ("--soft-lease=0s", "--soft-lease: 0s is out of range; write 1ns to 292 years"),
        (
            "--hard-lease=2s",
            "passlane.softLease: 3s does not go with passlane.hardLease 2s; write less than that",
        ),
        ("--log-datapath=2", "--log-datapath: 2 is a string; write true or false"),
    ];
    for (flag, expected) in cases {
        assert_eq!(problem(resolve(None, &[flag])), expected);
    }
}

#[test]
fn what_another_mode_has_is_said_to_be_ignored() {
    let (settings, reports) = file("mode: iptables\nnftables: {masqueradeAll: true}\n").unwrap();
    assert!(!settings.masquerade_all);
    let told: Vec<String> = reports.iter().map(ToString::to_string).collect();
    let expected = [
        "mode iptables: ignored because IPVS schedules; Services behave as in mode ipvs",
        "nftables.masqueradeAll true: ignored because mode is not nftables; \
         iptables.masqueradeAll counts",
    ];
    assert_eq!(told, expected);
}

#[test]
fn local_traffic_is_told_as_kube_proxy_does() {
    let local = |text| file(text).unwrap().0.detect_local;
    assert_eq!(local(""), DetectLocal::None);
    let range = vec![cidr("10.244.0.0/16")];
    assert_eq!(local("clusterCIDR: 10.244.0.0/16"), DetectLocal::ClusterCidr(range));
    assert_eq!(local("detectLocalMode: NodeCIDR"), DetectLocal::NodeCidr);
    let (settings, reports) = file("detectLocalMode: ClusterCIDR").unwrap();
    assert_eq!(settings.detect_local, DetectLocal::None);
    let told = reports.last().unwrap();
    assert_eq!(
        told.to_string(),
        "detectLocalMode ClusterCIDR: ignored because clusterCIDR is not set; no traffic counts \
         as a Pod's"
    );
    assert_eq!((told.place.as_str(), reports.len()), ("c.yaml:3", 1));
}
