//! Everything that an operator can decide, in the types that the rest of the agent works with.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use ipnet::IpNet;

use super::{HashPlane, Paths};
use crate::{
    kernel::ipvs::Timeouts,
    model::{FastPath, Scheduler, SchedulerFlags},
    plan::{
        interfaces::{InterfaceMode, Selection},
        uplinks::XdpMode,
    },
};

/// kube-proxy's ports.
pub(super) const HEALTHZ_PORT: u16 = 10256;
pub(super) const METRICS_PORT: u16 = 10249;

/// The merged configuration: defaults, then the file, then the flags.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Where Services come from.
    pub source: Source,
    /// `clientConnection.kubeconfig`; `None` means the Pod's service account.
    pub kubeconfig: Option<PathBuf>,
    /// URLs of API servers, tried in order; empty means that of the kubeconfig.
    pub api_servers: Vec<String>,
    /// Requests a second to the API server.
    pub qps: f32,
    /// Requests to the API server at once, beyond `qps`.
    pub burst: u32,
    /// The name of this node's Node object; `None` means the host's name.
    pub hostname_override: Option<String>,
    /// The value of label `service.kubernetes.io/service-proxy-name` of the Services to serve;
    /// `None` means those without the label.
    pub proxy_name: Option<String>,

    /// The node's primary address instead of that of its Node object.
    pub bind_address: Option<IpAddr>,
    /// The node's addresses that serve NodePorts.
    pub nodeport_addresses: NodePortAddresses,
    /// Which traffic comes from Pods of this node.
    pub detect_local: DetectLocal,
    /// The address ranges of the cluster's Pods, at most one of each family.
    pub cluster_cidrs: Vec<IpNet>,
    /// All traffic to cluster IPs is masqueraded.
    pub masquerade_all: bool,
    /// How the VIPs come onto the dummy device, if they do.
    pub vips: Vips,
    /// Whether and which `spec.externalIPs` are served.
    pub external_ips: ExternalIps,
    /// `spec.loadBalancerSourceRanges` hold for external IPs as well.
    pub source_ranges_on_external_ips: bool,
    /// What is sent to an address of a ServiceCIDR that no Service has is rejected.
    pub reject_unassigned: bool,

    /// The scheduler of Services without annotation `passlane.io/scheduler`.
    pub scheduler: (Scheduler, SchedulerFlags),
    /// Virtual servers of these addresses are somebody else's.
    pub exclude_cidrs: Vec<IpNet>,
    /// The node answers ARP only for addresses of the interface that was asked.
    pub strict_arp: bool,
    /// Timeouts of IPVS.
    pub ipvs_timeouts: IpvsTimeouts,
    /// How long a destination that left keeps its connections.
    pub drain_timeout: Duration,
    /// Limits and timeouts of conntrack.
    pub conntrack: Conntrack,
    /// Between full comparisons of what should be and what is.
    pub sync_period: Duration,
    /// The least time between two changes of the kernel; 0 means none.
    pub min_sync_period: Duration,
    /// For the kernel's out-of-memory killer, -1000 to 1000.
    pub oom_score_adj: i32,
    /// Do what takes all privileges, and end.
    pub init_only: bool,
    /// Where `/healthz` and `/livez` are served; `None` means nowhere.
    pub healthz_bind_address: Option<SocketAddr>,
    /// Where `/metrics` and `/proxyMode` are served; `None` means nowhere.
    pub metrics_bind_address: Option<SocketAddr>,

    /// Whether established flows take the fast path.
    pub fast_path: FastPath,
    /// On which interfaces.
    pub interfaces: Selection,
    /// What the fast path may do on some of them; the first that fits counts.
    pub interface_modes: Vec<InterfaceMode>,
    /// Whether transit between uplinks runs at the driver.
    pub xdp: XdpMode,
    /// Which interfaces are uplinks; `Auto` means NICs.
    pub uplinks: Selection,
    /// Packets that XDP sends to backends by itself.
    pub hash_plane: HashPlane,
    /// Entries of the flow map of each family; by the node's memory otherwise.
    pub flow_entries: Option<u32>,
    /// New entries a second that the clients of one interface may cause; a share of the map
    /// otherwise.
    pub install_rate: Option<u32>,
    /// After this time one packet of a flow takes the slow path and renews the lease.
    pub soft_lease: Duration,
    /// After this time no packet of a flow takes the fast path without renewal.
    pub hard_lease: Duration,
    /// How many Service ports have metrics of their own.
    pub metrics_per_service: u32,
    /// Log what the datapath learns.
    pub log_datapath: bool,
    /// Device that carries the VIPs.
    pub dummy_device: String,
    /// Take over what kube-proxy's `ipvs` mode has on this node.
    pub adopt: bool,
    /// Where state and pins are.
    pub paths: Paths,
    /// Logs.
    pub logging: Logging,
}

/// Where Services come from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Source {
    /// An API server.
    Kubernetes,
    /// A manifest file, or a directory of them.
    File(PathBuf),
}

/// Which of the node's addresses serve NodePorts; none named means all but loopback.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct NodePortAddresses(pub Vec<NodePortAddress>);

/// One item of `nodePortAddresses`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NodePortAddress {
    /// Every address.
    All,
    /// The addresses of the Node object, the first of each family.
    Primary,
    /// 127.0.0.0/8 and ::1, for processes of the node, over TCP and UDP.
    Localhost,
    /// The addresses in this range.
    Cidr(IpNet),
}

impl NodePortAddresses {
    /// Says whether an address of the node serves NodePorts; `primary` are those of the Node.
    pub fn selects(&self, addr: IpAddr, primary: &[IpAddr]) -> bool {
        let selected = self.0.iter().any(|item| match item {
            NodePortAddress::All => true,
            NodePortAddress::Primary => primary.contains(&addr),
            NodePortAddress::Localhost => addr.is_loopback(),
            NodePortAddress::Cidr(cidr) => cidr.contains(&addr),
        });
        selected || self.0.is_empty() && !addr.is_loopback()
    }
}

/// How traffic of this node's Pods is told from the rest, which is masqueraded when it is sent to a
/// cluster IP.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum DetectLocal {
    /// Not at all: nothing is masqueraded for this.
    #[default]
    None,
    /// Its source is in the cluster's range.
    ClusterCidr(Vec<IpNet>),
    /// Its source is in `spec.podCIDRs` of this Node.
    NodeCidr,
    /// It comes from this bridge.
    BridgeInterface(String),
    /// It comes from an interface whose name begins so.
    InterfacePrefix(String),
}

/// How the VIPs come onto the dummy device.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Vips {
    /// As local routes.
    #[default]
    Routes,
    /// As addresses, like kube-proxy: for what looks for them there.
    Addresses,
    /// Not at all: somebody else puts them onto interfaces, where and when they shall be.
    None,
}

/// Whether and which `spec.externalIPs` are served. Who may write a Service can take over any
/// address with them (CVE-2020-8554).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ExternalIps {
    /// Any at all.
    pub enabled: bool,
    /// Only those in these ranges; none named means every one.
    pub cidrs: Vec<IpNet>,
}

impl ExternalIps {
    /// Says whether an external IP is served.
    pub fn permits(&self, addr: IpAddr) -> bool {
        self.enabled
            && (self.cidrs.is_empty() || self.cidrs.iter().any(|cidr| cidr.contains(&addr)))
    }
}

/// Timeouts of IPVS; `None` leaves one as it is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct IpvsTimeouts {
    /// Established TCP.
    pub tcp: Option<Duration>,
    /// TCP after a FIN.
    pub tcp_fin: Option<Duration>,
    /// UDP.
    pub udp: Option<Duration>,
}

impl IpvsTimeouts {
    /// Returns what to tell the kernel, or `None` when nothing is to be set.
    pub fn request(&self) -> Option<Timeouts> {
        let secs = |timeout: Option<Duration>| {
            timeout.map_or(0, |timeout| u32::try_from(timeout.as_secs()).unwrap_or(u32::MAX))
        };
        let any = self.tcp.is_some() || self.tcp_fin.is_some() || self.udp.is_some();
        any.then(|| Timeouts {
            tcp_secs: secs(self.tcp),
            tcp_fin_secs: secs(self.tcp_fin),
            udp_secs: secs(self.udp),
        })
    }
}

/// Limits and timeouts of conntrack; `None` leaves one as it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Conntrack {
    /// Entries for each CPU of the node; `None` leaves the limit as it is, whatever `min` says.
    pub max_per_core: Option<u32>,
    /// Entries at least.
    pub min: u32,
    /// Established TCP.
    pub tcp_established: Option<Duration>,
    /// TCP in state CLOSE_WAIT.
    pub tcp_close_wait: Option<Duration>,
    /// TCP packets outside of the window are not INVALID.
    pub tcp_be_liberal: bool,
    /// UDP without a reply.
    pub udp: Option<Duration>,
    /// UDP with replies.
    pub udp_stream: Option<Duration>,
}

impl Conntrack {
    /// kube-proxy's limit for nodes with very many CPUs.
    const MOST: u32 = 1 << 20;

    /// Returns how many entries conntrack must have room for, as kube-proxy computes it; an
    /// explicit `min` above kube-proxy's limit is kept.
    pub fn max(&self, cpus: u32) -> Option<u32> {
        let scaled = self.max_per_core?.saturating_mul(cpus);
        Some(scaled.min(Self::MOST).max(self.min))
    }
}

/// How the agent logs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Logging {
    /// klog's number.
    pub verbosity: u8,
    /// How lines look.
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum LogLevel {
    /// What changes.
    Info,
    /// Each action.
    Debug,
    /// Everything.
    Trace,
}

impl Logging {
    /// Returns the level of klog's number.
    pub fn level(&self) -> LogLevel {
        match self.verbosity {
            0..=3 => LogLevel::Info,
            4 | 5 => LogLevel::Debug,
            _ => LogLevel::Trace,
        }
    }
}

impl Default for Conntrack {
    fn default() -> Self {
        Self {
            max_per_core: Some(32 * 1024),
            min: 128 * 1024,
            tcp_established: Some(Duration::from_secs(24 * 3600)),
            tcp_close_wait: Some(Duration::from_secs(3600)),
            tcp_be_liberal: false,
            udp: None,
            udp_stream: None,
        }
    }
}

impl Settings {
    /// Returns the settings as they may be shown: files are only named in them, and passwords are
    /// taken out of URLs.
    #[must_use]
    pub fn without_secrets(&self) -> Self {
        let api_servers = self.api_servers.iter().map(|url| without_password(url)).collect();
        Self { api_servers, ..self.clone() }
    }
}

fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}{path}")
}

/// kube-proxy's defaults where it has the setting.
impl Default for Settings {
    fn default() -> Self {
        Self {
            source: Source::Kubernetes,
            kubeconfig: None,
            api_servers: Vec::new(),
            qps: 5.0,
            burst: 10,
            hostname_override: None,
            proxy_name: None,
            bind_address: None,
            nodeport_addresses: NodePortAddresses::default(),
            detect_local: DetectLocal::None,
            cluster_cidrs: Vec::new(),
            masquerade_all: false,
            vips: Vips::Routes,
            external_ips: ExternalIps { enabled: true, cidrs: Vec::new() },
            source_ranges_on_external_ips: false,
            reject_unassigned: true,
            scheduler: (Scheduler::Rr, SchedulerFlags::default()),
            exclude_cidrs: Vec::new(),
            strict_arp: false,
            ipvs_timeouts: IpvsTimeouts::default(),
            drain_timeout: Duration::from_secs(300),
            conntrack: Conntrack::default(),
            sync_period: Duration::from_secs(30),
            min_sync_period: Duration::ZERO,
            init_only: false,
            oom_score_adj: -999,
            healthz_bind_address: Some((Ipv4Addr::UNSPECIFIED, HEALTHZ_PORT).into()),
            metrics_bind_address: Some((Ipv4Addr::LOCALHOST, METRICS_PORT).into()),
            fast_path: FastPath::Auto,
            interfaces: Selection::Auto,
            interface_modes: Vec::new(),
            xdp: XdpMode::Off,
            uplinks: Selection::Auto,
            hash_plane: HashPlane::default(),
            flow_entries: None,
            install_rate: None,
            soft_lease: Duration::from_secs(3),
            hard_lease: Duration::from_secs(5),
            metrics_per_service: 0,
            log_datapath: false,
            dummy_device: "kube-ipvs0".into(),
            adopt: false,
            paths: Paths::default(),
            logging: Logging { verbosity: 2, format: LogFormat::Text },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn node_ports_are_served_on_every_address_but_loopback_unless_told_otherwise() {
        let all = NodePortAddresses::default();
        assert!(all.selects(addr("192.0.2.1"), &[]));
        assert!(!all.selects(addr("127.0.0.1"), &[]));
        let some = NodePortAddresses(vec![
            NodePortAddress::Primary,
            NodePortAddress::Cidr("10.0.0.0/8".parse().unwrap()),
        ]);
        let primary = [addr("192.0.2.1")];
        assert!(some.selects(addr("192.0.2.1"), &primary));
        assert!(some.selects(addr("10.1.2.3"), &primary));
        assert!(!some.selects(addr("192.0.2.2"), &primary));
        let local = NodePortAddresses(vec![NodePortAddress::Localhost]);
        assert!(local.selects(addr("127.0.0.1"), &[]) && local.selects(addr("::1"), &[]));
        assert!(!local.selects(addr("192.0.2.1"), &[]));
        let cidr = NodePortAddresses(vec![NodePortAddress::Cidr("127.0.0.0/8".parse().unwrap())]);
        assert!(cidr.selects(addr("127.0.0.1"), &[]) && !cidr.selects(addr("::1"), &[]));
        let all = NodePortAddresses(vec![NodePortAddress::All]);
        assert!(all.selects(addr("127.0.0.1"), &[]), "all, where it is said, is all");
    }

    #[test]
    fn external_ips_are_limited_to_their_ranges() {
        let mut external = ExternalIps { enabled: true, cidrs: Vec::new() };
        assert!(external.permits(addr("8.8.8.8")));
        external.cidrs = vec!["192.0.2.0/24".parse().unwrap()];
        assert!(external.permits(addr("192.0.2.9")) && !external.permits(addr("8.8.8.8")));
        external.enabled = false;
        assert!(!external.permits(addr("192.0.2.9")));
    }

    #[test]
    fn the_limit_of_conntrack_is_kube_proxys() {
        let mut conntrack = Conntrack::default();
        assert_eq!(conntrack.max(1), Some(131_072), "min");
        assert_eq!(conntrack.max(8), Some(262_144), "for each CPU");
        assert_eq!(conntrack.max(192), Some(1_048_576), "not more than this");
        conntrack.min = 2_000_000;
        assert_eq!(conntrack.max(192), Some(2_000_000), "but what is asked for");
        conntrack.max_per_core = None;
        assert_eq!(conntrack.max(8), None, "min counts only with maxPerCore");
    }

    #[test]
    fn only_timeouts_that_are_set_are_sent_to_ipvs() {
        assert_eq!(IpvsTimeouts::default().request(), None);
        let timeouts = IpvsTimeouts { tcp: Some(Duration::from_secs(7200)), ..Default::default() };
        let request = Timeouts { tcp_secs: 7200, tcp_fin_secs: 0, udp_secs: 0 };
        assert_eq!(timeouts.request(), Some(request), "0 leaves one as it is");
    }

    #[test]
    fn passwords_are_taken_out_of_urls() {
        let shown = |url: &str| {
            let settings = Settings { api_servers: vec![url.into()], ..Settings::default() };
            settings.without_secrets().api_servers.remove(0)
        };
        assert_eq!(shown("https://me:p@ss@192.0.2.1:6443/a@b"), "https://192.0.2.1:6443/a@b");
        assert_eq!(shown("https://192.0.2.1:6443"), "https://192.0.2.1:6443");
    }

    #[test]
    fn klogs_numbers_are_levels() {
        let level = |verbosity| Logging { verbosity, format: LogFormat::Text }.level();
        assert_eq!([0, 2, 3].map(level), [LogLevel::Info; 3]);
        assert_eq!([4, 5].map(level), [LogLevel::Debug; 2]);
        assert_eq!([6, 10].map(level), [LogLevel::Trace; 2]);
    }
}
