//! A pod and its link to a node.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context as _, Result};

use crate::netns::Namespace;
use crate::process;

/// The next hop of every pod; it exists only as an answer of proxy ARP.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// The next hop of every pod over IPv6: an address of the node's end of each link.
const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// A pod: a namespace with one address a family, `eth0`, whose other end is in its node.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Its name in the topology.
    pub name: String,
    /// Its only IPv4 address.
    pub address: Ipv4Addr,
    /// Its only IPv6 address.
    pub address6: Ipv6Addr,
    /// Where its processes and sockets are.
    pub namespace: Namespace,
    /// Where the other end of its link is.
    router: Namespace,
}

impl Pod {
    /// A pod of `topology` at 10.1.`subnet`.`octet`; it is not built yet.
    pub(super) fn new(
        topology: &str,
        name: &str,
        (router, subnet): (&Namespace, u8),
        octet: u8,
    ) -> Self {
        // The same digits in both families: 10.1.1.11 and fd00:10:1:1::11.
        let digits = (u16::from(octet / 100) << 8) | (u16::from(octet / 10 % 10) << 4);
        let last = digits | u16::from(octet % 10);
        Self {
            name: name.to_owned(),
            address: Ipv4Addr::new(10, 1, subnet, octet),
            address6: Ipv6Addr::new(0xfd00, 0x10, 1, subnet.into(), 0, 0, 0, last),
            namespace: Namespace::named(format!("{topology}-{name}")),
            router: router.clone(),
        }
    }

    /// The node's end of the pod's veth pair.
    #[must_use]
    pub fn interface(&self) -> String {
        format!("v-{}", self.name)
    }

    /// The node it is on.
    #[must_use]
    pub fn router(&self) -> &Namespace {
        &self.router
    }

    /// A port of this pod.
    #[must_use]
    pub fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::from((self.address, port))
    }

    /// Its addresses, IPv4 first.
    #[must_use]
    pub fn addresses(&self) -> [IpAddr; 2] {
        [self.address.into(), self.address6.into()]
    }

    /// Makes the namespaces of pods of one node, their links to it and the routes of both ends. The
    /// node talks to them from `node_addresses`.
    pub(super) fn build(pods: &[Self], node_addresses: &[IpAddr; 2]) -> Result<()> {
        let Some(Self { router: node, .. }) = pods.first() else { return Ok(()) };
        // Few processes: in an emulated guest, starting them is what building takes.
        let names = pods.iter().map(|pod| format!("netns add {}\n", pod.namespace.name()));
        process::feed("ip", &["-batch", "-"], &names.collect::<String>())?;
        for pod in pods {
            pod.namespace.set_sysctl("net/ipv6/conf/default/accept_dad", "0")?;
        }
        let links: String = pods.iter().map(|pod| pod.link(node_addresses)).collect();
        node.feed("ip", &["-batch", "-"], &links)?;
        pods.iter().try_for_each(|pod| pod.settle().with_context(|| format!("pod {}", pod.name)))
    }

    /// What the node has to do for the link.
    fn link(&self, [source, source6]: &[IpAddr; 2]) -> String {
        let (name, link) = (self.namespace.name(), self.interface());
        let Self { address, address6, .. } = self;
        format!(
            "link add {link} type veth peer name eth0 netns {name}\n\
             addr add {GATEWAY6}/64 dev {link} nodad\n\
             link set {link} up\n\
             route add {address}/32 dev {link} src {source}\n\
             route add {address6}/128 dev {link} src {source6}\n"
        )
    }

    /// What remains to be done once the link is there.
    fn settle(&self) -> Result<()> {
        let Self { address, address6, router: node, .. } = self;
        node.set_sysctl(&format!("net/ipv4/conf/{}/proxy_arp", self.interface()), "1")?;
        self.namespace.feed(
            "ip",
            &["-batch", "-"],
            &format!(
                "link set lo up\n\
                 addr add {address}/32 dev eth0\n\
                 addr add {address6}/128 dev eth0 nodad\n\
                 link set eth0 up\n\
                 route add {GATEWAY} dev eth0 scope link\n\
                 route add default via {GATEWAY} dev eth0\n\
                 route add ::/0 via {GATEWAY6} dev eth0\n"
            ),
        )?;
        Ok(())
    }
}
