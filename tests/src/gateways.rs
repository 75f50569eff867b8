//! Two gateways behind a router that spreads flows over them by hash, and backends that answer clients
//! by themselves.
//!
//! ```text
//!  client 172.22.0.2 ── router 172.22.0.1, 172.20.0.2 ── segment ─┬─ first gateway 172.20.0.1
//!                                                                  ├─ second gateway 172.20.0.4
//!                                                                  └─ backends 172.20.0.11 ...
//! ```
//!
//! Everything has an IPv6 address as well, with the same last number: `fd00:20::11` is the first backend.
//! Every backend has the VIP and does not answer ARP for it; what it answers goes to the router and
//! past the gateways.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use proxy_userspace::model::Protocol;
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::agent::Agent;
use crate::echo::{Caller, Dial, EchoServer, Outcome};
use crate::exposed::Family;
use crate::netns::Namespace;
use crate::objects::Manifests;
use crate::process;
use crate::topology::{NODE, NODE6, OUTSIDE, OUTSIDE6, Topology};

/// What clients dial.
pub const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 80);
/// What they dial over IPv6.
pub const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x80);
/// The port that they dial and backends listen on.
pub const PORT: u16 = 80;
/// Another port, for what a test serves by itself.
pub const HTTP: u16 = 8080;
const SECOND: Ipv4Addr = Ipv4Addr::new(172, 20, 0, 4);
const SECOND6: Ipv6Addr = segment6(4);
/// Open files at once.
const FILES: u64 = 16_384;
const CLIENT: Ipv4Addr = Ipv4Addr::new(172, 22, 0, 2);
const CLIENT6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x22, 0, 0, 0, 0, 0, 2);

/// A gateway that the router may send to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Gateway {
    /// The node of the topology.
    First,
    /// The other one.
    Second,
}

/// The router, the gateways and the backends. Dropping it removes all.
#[derive(Debug)]
pub struct Gateways {
    /// What clients and the Service speak.
    pub family: Family,
    /// What clients come from.
    pub client: Namespace,
    /// The second gateway; the first one is the node of the topology.
    pub second: Namespace,
    /// Backends by name; one may be stopped.
    pub backends: BTreeMap<String, Backend>,
    /// Where the services are written down, for both gateways.
    pub manifests: Manifests,
    /// The rest.
    pub topology: Topology,
}

/// A backend.
#[derive(Debug)]
pub struct Backend {
    /// Its own address, of the family that is spoken.
    pub address: IpAddr,
    /// Its host.
    pub host: Namespace,
    _server: EchoServer,
}

impl Gateways {
    /// Builds everything but agents, with backends `b1`, `b2` and so on.
    pub fn build(backends: u8) -> Result<Self> {
        Self::build_over(Family::V4, backends)
    }

    /// The same, with clients of this family.
    pub fn build_over(family: Family, backends: u8) -> Result<Self> {
        allow_files()?;
        let mut topology = Topology::with_pods(&[])?;
        let second = topology.add_host("second", SECOND)?;
        second.set_sysctl("net/ipv4/ip_forward", "1")?;
        second.set_sysctl("net/ipv6/conf/all/forwarding", "1")?;
        second.run("ip", &["addr", "add", &format!("{SECOND6}/64"), "dev", "eth0", "nodad"])?;
        let router = topology.outside.clone();
        for gateway in [&topology.node, &second] {
            gateway.set_sysctl("net/ipv4/conf/all/rp_filter", "0")?;
            gateway.set_sysctl("net/ipv4/conf/eth0/rp_filter", "0")?;
            let routes = format!(
                "route replace default via {OUTSIDE}\nroute replace ::/0 via {OUTSIDE6} dev eth0\n"
            );
            gateway.feed("ip", &["-batch", "-"], &routes)?;
        }
        let client = Namespace::named(format!("{}-clients", topology.name()));
        build_router(&router, &client)?;
        let manifests = Manifests::empty_in(topology.directory())?;
        let backends_by_name = BTreeMap::new();
        let mut gateways =
            Self { family, client, second, backends: backends_by_name, manifests, topology };
        for number in 1..=backends {
            gateways.add_backend(number)?;
        }
        Ok(gateways)
    }

    /// Adds backend `b` and its number, at 172.20.0.10 and the number.
    pub fn add_backend(&mut self, number: u8) -> Result<()> {
        let name = format!("b{number}");
        let address = Ipv4Addr::new(172, 20, 0, 10 + number);
        let host = self.topology.add_host(&name, address)?;
        for (key, value) in [
            ("net/ipv4/conf/all/arp_ignore", "1"),
            ("net/ipv4/conf/all/arp_announce", "2"),
            ("net/ipv4/conf/all/rp_filter", "0"),
            ("net/ipv4/conf/default/rp_filter", "0"),
        ] {
            host.set_sysctl(key, value)?;
        }
        let address6 = segment6(u16::from(10 + number));
        let commands = format!(
            "addr add {VIP}/32 dev lo\nroute add default via {OUTSIDE}\n\
             addr add {address6}/64 dev eth0 nodad\n\
             addr add {VIP6}/128 dev lo nodad\nroute add ::/0 via {OUTSIDE6} dev eth0\n"
        );
        host.feed("ip", &["-batch", "-"], &commands)?;
        host.run("ethtool", &["-K", "eth0", "tx", "off"])?;
        let server = EchoServer::start(&host, PORT, &name, &[Protocol::Tcp, Protocol::Udp])?;
        let address = self.of_family(address, address6);
        self.backends.insert(name, Backend { address, host, _server: server });
        Ok(())
    }

    /// Returns an agent of the second gateway that is not running yet.
    pub fn second_agent(&self, options: &[&str]) -> Result<Agent> {
        let directory = self.topology.directory().join("second");
        std::fs::create_dir_all(&directory)?;
        Ok(Agent::new(&self.topology, &self.manifests, options)
            .inside(&self.second, &directory)
            .pinning_at(&self.topology.bpffs().join("second")))
    }

    /// Writes the Service with these backends: forwarding, flags of its scheduler, and the port.
    pub fn serve(&self, forwarding: &str, flags: &str, backends: &[&str]) -> Result<()> {
        self.write(forwarding, flags, backends, "")
    }

    /// The same, with weight 0 for one of them.
    pub fn drain(
        &self,
        forwarding: &str,
        flags: &str,
        backends: &[&str],
        drained: &str,
    ) -> Result<()> {
        let backend = self.backends.get(drained).with_context(|| format!("no {drained}"))?;
        let weight = format!(", passlane.io/weights: \"{}=0\"", backend.address);
        self.write(forwarding, flags, backends, &weight)
    }

    /// The same, each with at most so many connections.
    pub fn limit(&self, backends: &[&str], connections: u32) -> Result<()> {
        let limits = format!(", passlane.io/connection-limits: \"{connections}\"");
        self.write("route", ",mh-port", backends, &limits)
    }

    fn write(&self, forwarding: &str, flags: &str, backends: &[&str], more: &str) -> Result<()> {
        let mut endpoints = String::new();
        for name in backends {
            let backend = self.backends.get(*name).with_context(|| format!("no {name}"))?;
            write!(endpoints, "{{addresses: [\"{}\"]}}, ", backend.address)?;
        }
        let text = manifest(self.family, forwarding, flags, &endpoints, more);
        self.manifests.write("gateway.yaml", &text)
    }

    /// What clients dial.
    #[must_use]
    pub fn vip(&self) -> IpAddr {
        self.of_family(VIP, VIP6)
    }

    /// The same, with the port.
    #[must_use]
    pub fn frontend(&self) -> SocketAddr {
        (self.vip(), PORT).into()
    }

    fn of_family(&self, ipv4: Ipv4Addr, ipv6: Ipv6Addr) -> IpAddr {
        match self.family {
            Family::V4 => ipv4.into(),
            Family::V6 => ipv6.into(),
        }
    }

    /// Makes the router send what is for the VIP to these gateways, by the hash of each flow.
    pub fn route(&self, gateways: &[Gateway]) -> Result<()> {
        let mut words = format!("route replace {}", self.vip());
        for gateway in gateways {
            let address = match gateway {
                Gateway::First => self.of_family(NODE, NODE6),
                Gateway::Second => self.of_family(SECOND, SECOND6),
            };
            write!(words, " nexthop via {address} dev segment")?;
        }
        self.topology.outside.feed("ip", &["-batch", "-"], &format!("{words}\n")).map(drop)
    }

    /// Makes the router ask on the segment who has the VIP.
    pub fn route_on_link(&self) -> Result<()> {
        let words = format!("route replace {} dev segment\n", self.vip());
        self.topology.outside.feed("ip", &["-batch", "-"], &words).map(drop)
    }

    /// Both gateways, as [`Gateways::route`] takes them.
    #[must_use]
    pub fn both() -> [Gateway; 2] {
        [Gateway::First, Gateway::Second]
    }

    /// Opens a connection, from a port of the kernel's choice.
    pub fn connect(&self) -> Result<Open> {
        let dial = Dial::new(&self.client, Protocol::Tcp, self.frontend());
        let mut caller = dial.caller()?;
        let answer = caller.answer()?;
        let client = self.of_family(CLIENT, CLIENT6);
        ensure!(answer.source == client, "a backend saw {} for {client}", answer.source);
        Ok(Open { caller, by: answer.by })
    }

    /// Says whether a connection is answered within a moment.
    pub fn is_answered(&self) -> Result<bool> {
        let dial = Dial::new(&self.client, Protocol::Tcp, self.frontend());
        Ok(dial.within(Duration::from_secs(2)).ask()?.answer().is_some())
    }

    /// Opens many.
    pub fn connect_many(&self, count: usize) -> Result<Crowd> {
        let open = (0..count).map(|number| self.connect().with_context(|| format!("{number}")));
        Ok(Crowd { open: open.collect::<Result<_>>()? })
    }
}

/// A connection, and who answers it.
#[derive(Debug)]
pub struct Open {
    caller: Caller,
    /// The backend that answered first.
    pub by: String,
}

/// Connections that are kept open.
#[derive(Debug)]
pub struct Crowd {
    open: Vec<Open>,
}

impl Crowd {
    /// Returns how many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Says whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Adds others.
    pub fn join(&mut self, others: Self) {
        self.open.extend(others.open);
    }

    /// Returns how many each backend has.
    #[must_use]
    pub fn spread(&self) -> BTreeMap<String, usize> {
        let mut spread = BTreeMap::new();
        for open in &self.open {
            *spread.entry(open.by.clone()).or_insert(0) += 1;
        }
        spread
    }

    /// Asks on every connection, and counts those that were lost: without an answer, or with one of
    /// another backend.
    pub fn lost(&mut self) -> Result<Vec<String>> {
        let parts = self.open.chunks_mut(64);
        thread::scope(|scope| {
            let threads: Vec<_> = parts
                .map(|part| scope.spawn(|| part.iter_mut().filter_map(Open::lost).collect()))
                .collect();
            let lost = threads
                .into_iter()
                .map(|thread| thread.join().map_err(|_| anyhow!("a client panicked")));
            Ok(lost.collect::<Result<Vec<Vec<String>>>>()?.concat())
        })
    }

    /// Parts with the connections of a backend.
    #[must_use]
    pub fn of(&mut self, name: &str) -> Self {
        let all = std::mem::take(&mut self.open);
        let (of, others) = all.into_iter().partition(|open| open.by == name);
        self.open = others;
        Self { open: of }
    }
}

impl Open {
    fn lost(&mut self) -> Option<String> {
        let why = match self.caller.ask() {
            Ok(Outcome::Answered(answer)) if answer.by == self.by => return None,
            Ok(outcome) => outcome.to_string(),
            Err(error) => format!("{error:#}"),
        };
        let from =
            self.caller.local().map_or_else(|error| error.to_string(), |addr| addr.to_string());
        Some(format!("from {from} of {}: {why}", self.by))
    }
}

/// Both ends of every connection are files of this process.
fn allow_files() -> Result<()> {
    let limit = Rlimit { current: Some(FILES), maximum: Some(FILES) };
    setrlimit(Resource::Nofile, limit).context("the limit of open files")
}

/// The router forwards between client and segment, and hashes addresses and ports.
fn build_router(router: &Namespace, client: &Namespace) -> Result<()> {
    process::run("ip", &["netns", "add", client.name()])?;
    for (key, value) in [
        ("net/ipv4/ip_forward", "1"),
        ("net/ipv4/conf/all/rp_filter", "0"),
        ("net/ipv4/conf/default/rp_filter", "0"),
        ("net/ipv4/conf/segment/rp_filter", "0"),
        ("net/ipv4/conf/all/send_redirects", "0"),
        ("net/ipv4/fib_multipath_hash_policy", "1"),
        ("net/ipv6/conf/all/forwarding", "1"),
        ("net/ipv6/fib_multipath_hash_policy", "1"),
    ] {
        router.set_sysctl(key, value)?;
    }
    let commands = format!(
        "link add clients type veth peer name eth0 netns {}\n\
         addr add 172.22.0.1/24 dev clients\n\
         addr add fd00:22::1/64 dev clients nodad\n\
         link set clients up\n",
        client.name()
    );
    router.feed("ip", &["-batch", "-"], &commands)?;
    let commands = format!(
        "link set lo up\naddr add {CLIENT}/24 dev eth0\naddr add {CLIENT6}/64 dev eth0 nodad\n\
         link set eth0 up\nroute add default via 172.22.0.1\n\
         route add ::/0 via fd00:22::1 dev eth0\n"
    );
    client.feed("ip", &["-batch", "-"], &commands)?;
    client.run("ethtool", &["-K", "eth0", "tx", "off"])?;
    Ok(())
}

/// An address on the segment.
const fn segment6(number: u16) -> Ipv6Addr {
    // Written as the IPv4 one is: 11 is `::11`.
    let [tens, ones] = [number / 10, number % 10];
    Ipv6Addr::new(0xfd00, 0x20, 0, 0, 0, 0, 0, tens * 16 + ones)
}

fn manifest(family: Family, forwarding: &str, flags: &str, endpoints: &str, more: &str) -> String {
    let (cluster_ip, vip, kind) = match family {
        Family::V4 => ("10.96.9.9", VIP.to_string(), "IPv4"),
        Family::V6 => ("fd00:96::9", VIP6.to_string(), "IPv6"),
    };
    format!(
        "apiVersion: v1\n\
         kind: Service\n\
         metadata: {{name: gateway, namespace: default, annotations: \
         {{passlane.io/forwarding: \"{forwarding}\", passlane.io/scheduler: \"mh{flags}\"{more}}}}}\n\
         spec: {{clusterIP: \"{cluster_ip}\", ipFamilies: [{kind}], externalIPs: [\"{vip}\"], ports: [\
         {{name: tcp, port: {PORT}}}, {{name: http, port: {HTTP}}}, \
         {{name: udp, port: {PORT}, protocol: UDP}}]}}\n\
         ---\n\
         apiVersion: discovery.k8s.io/v1\n\
         kind: EndpointSlice\n\
         metadata: {{name: gateway-1, namespace: default, \
         labels: {{kubernetes.io/service-name: gateway}}}}\n\
         addressType: {kind}\n\
         ports: [{{name: tcp, port: {PORT}}}, {{name: http, port: {HTTP}}}, \
         {{name: udp, port: {PORT}, protocol: UDP}}]\n\
         endpoints: [{endpoints}]\n"
    )
}
