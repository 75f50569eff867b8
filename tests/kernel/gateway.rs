//! A gateway with a client's network on one TAP device and its backends on another: whole frames in,
//! and what IPVS makes of them out.

use std::{
    net::{IpAddr, SocketAddr},
    ops::Range,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use etherparse::{IpHeaders, IpNumber, Ipv4Header, Ipv6Header, PacketBuilder, PacketBuilderStep};
use proxy_tests::tap::{Offload, Tap};
use proxy_userspace::{
    kernel::{
        ipvs::Client,
        module,
        sysctl::{self, Key},
    },
    model::{
        Destination, DestinationKey, Forwarding, Frontend, Protocol, Scheduler, SchedulerFlags,
        VirtualServer,
    },
};

use crate::namespace::sh;

/// Link-layer addresses: the gateway on both sides, and the client.
const UP: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub(crate) const CLIENT: [u8; 6] = [2, 0, 0, 0, 0, 9];
/// All backends begin so; the last byte is that of the backend's addresses.
const BACKEND: [u8; 5] = [2, 0, 0, 0, 1];

/// Nothing is asked or said on these links: every neighbour is known.
const SCENE: &str = "ip link set lo up
    sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
    sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0
    for way in front:01 back:02; do
        name=${way%:*}
        ip link set $name address 02:00:00:00:00:${way#*:} addrgenmode none
        sysctl -qw net.ipv6.conf.$name.router_solicitations=0 net.ipv6.conf.$name.accept_ra=0
        ip link set $name up
    done
    ip addr add 198.51.100.1/24 dev front
    ip addr add 2001:db8:c::1/64 dev front nodad
    ip addr add 10.1.0.1/24 dev back
    ip addr add fd00:1::1/64 dev back nodad
    for client in 198.51.100.9 2001:db8:c::9; do
        ip neigh add $client lladdr 02:00:00:00:00:09 dev front nud permanent
    done
    for backend in 5 6; do
        ip neigh add 10.1.0.$backend lladdr 02:00:00:00:01:0$backend dev back nud permanent
        ip neigh add fd00:1::$backend lladdr 02:00:00:00:01:0$backend dev back nud permanent
    done
    ip route add local 203.0.113.0/24 dev lo
    ip -6 route add local 2001:db8:f::/64 dev lo";

/// An address family.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Net {
    V4,
    V6,
}

impl Net {
    pub(crate) const ALL: [Self; 2] = [Self::V4, Self::V6];

    pub(crate) fn client(self) -> IpAddr {
        match self {
            Self::V4 => [198, 51, 100, 9].into(),
            Self::V6 => [0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 9].into(),
        }
    }

    pub(crate) fn vip(self) -> IpAddr {
        match self {
            Self::V4 => [203, 0, 113, 1].into(),
            Self::V6 => [0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 1].into(),
        }
    }

    /// The backends are 5 and 6.
    pub(crate) fn backend(self, number: u8) -> IpAddr {
        match self {
            Self::V4 => [10, 1, 0, number].into(),
            Self::V6 => [0xfd00, 1, 0, 0, 0, 0, 0, number.into()].into(),
        }
    }
}

/// A gateway in the namespace of the test.
pub(crate) struct Gateway {
    up: Tap,
    down: Tap,
    pub(crate) ipvs: Client,
    ports: Range<u16>,
}

impl Gateway {
    pub(crate) async fn open() -> Result<Self> {
        module::load("tun")?;
        let (up, down) = (Tap::open_here("front")?, Tap::open_here("back")?);
        sh(SCENE)?;
        let ipvs = Client::open().await?;
        for name in ["sloppy_tcp", "schedule_icmp"] {
            set(name, 1)?;
        }
        Ok(Self { up, down, ipvs, ports: 40_000..50_000 })
    }

    /// Puts a virtual server with scheduler mh and these destinations, of weight 1.
    pub(crate) async fn serve(
        &self,
        frontend: Frontend,
        forwarding: Forwarding,
        backends: &[IpAddr],
    ) -> Result<()> {
        let (scheduler, flags) = (Scheduler::Mh, SchedulerFlags(0));
        let server = VirtualServer { frontend, scheduler, flags, persistent_secs: 0 };
        self.ipvs.put_virtual_server(&server).await?;
        for addr in backends {
            let key = DestinationKey { addr: *addr, port: frontend.port };
            let destination =
                Destination { limits: Default::default(), key, weight: 1, forwarding };
            self.ipvs.put_destination(&frontend, &destination).await?;
        }
        Ok(())
    }

    /// Returns the client at a port that it did not have before: a connection outlives its virtual
    /// server.
    pub(crate) fn client(&mut self, net: Net) -> Result<SocketAddr> {
        Ok(SocketAddr::new(net.client(), self.ports.next().context("no port is left")?))
    }

    /// Puts a frame in from the client's side.
    pub(crate) fn send(&mut self, frame: &[u8]) -> Result<()> {
        self.up.send(frame, Offload::None)
    }

    /// Puts a frame in, and returns the one that goes to a backend.
    pub(crate) fn pass(&mut self, frame: &[u8]) -> Result<Vec<u8>> {
        self.send(frame)?;
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline {
            if let Some(frame) = self.at_backend()? {
                return Ok(frame);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        bail!("nothing came out for {}", hex(frame))
    }

    /// Returns a frame that has gone to a backend.
    pub(crate) fn at_backend(&mut self) -> Result<Option<Vec<u8>>> {
        receive(&mut self.down, |to| to.starts_with(&BACKEND))
    }

    /// Returns a frame that has gone to the client.
    pub(crate) fn at_client(&mut self) -> Result<Option<Vec<u8>>> {
        receive(&mut self.up, |to| to == CLIENT)
    }
}

/// The kernel sends of its own to groups, which nobody here is asked about.
fn receive(tap: &mut Tap, wanted: impl Fn(&[u8]) -> bool) -> Result<Option<Vec<u8>>> {
    while let Some(frame) = tap.receive()? {
        if wanted(frame.get(..6).context("a short frame")?) {
            return Ok(Some(frame));
        }
    }
    Ok(None)
}

/// Sets a setting of IPVS.
pub(crate) fn set(name: &str, value: u32) -> Result<()> {
    Ok(sysctl::write(&Key::dotted(&format!("net.ipv4.vs.{name}")), &value.to_string())?)
}

/// Returns the number of the backend that a frame goes to, by its link-layer address.
pub(crate) fn backend_of(frame: &[u8]) -> Result<u8> {
    ensure!(frame.starts_with(&BACKEND), "{}", hex(frame));
    Ok(frame[5])
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What the header of a packet says beside its ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// TOS or traffic class.
    pub(crate) tos: u8,
    pub(crate) ttl: u8,
    /// Without it, and with IPv4, a router may cut the packet.
    pub(crate) whole: bool,
    pub(crate) payload: usize,
}

impl Shape {
    pub(crate) const PLAIN: Self = Self { tos: 0, ttl: 64, whole: true, payload: 5 };
}

/// A frame of the client: an acknowledgement with data in mid-stream, or a datagram.
pub(crate) fn frame(from: SocketAddr, to: Frontend, shape: Shape) -> Result<Vec<u8>> {
    let packet = ip(from.ip(), to.addr, shape)?;
    let payload: Vec<u8> = (1..=shape.payload).map(|byte| byte as u8).collect();
    let mut bytes = Vec::new();
    match to.protocol {
        Protocol::Tcp => {
            packet
                .tcp(from.port(), to.port, 0x1234, 64_240)
                .ack(0x5678)
                .psh()
                .write(&mut bytes, &payload)?;
        }
        _ => packet.udp(from.port(), to.port).write(&mut bytes, &payload)?,
    }
    Ok(bytes)
}

/// A frame of the client with an ICMP error in it, about a packet that `about` begins.
pub(crate) fn too_big(to: IpAddr, about: &[u8]) -> Result<Vec<u8>> {
    let net = if to.is_ipv4() { Net::V4 } else { Net::V6 };
    let packet = ip(net.client(), to, Shape::PLAIN)?;
    let mut bytes = Vec::new();
    match net {
        Net::V4 => packet.icmpv4_raw(3, 4, [0, 0, 5, 0]).write(&mut bytes, about)?,
        Net::V6 => packet.icmpv6_raw(2, 0, [0, 0, 5, 0]).write(&mut bytes, about)?,
    }
    Ok(bytes)
}

fn ip(from: IpAddr, to: IpAddr, shape: Shape) -> Result<PacketBuilderStep<IpHeaders>> {
    let (tos, ttl) = (shape.tos, shape.ttl);
    let headers = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let ends = (from.octets(), to.octets());
            let mut header = Ipv4Header::new(0, ttl, IpNumber::TCP, ends.0, ends.1)?;
            header.dscp = (tos >> 2).try_into()?;
            header.ecn = (tos & 3).try_into()?;
            header.dont_fragment = shape.whole;
            header.identification = 0xbeef;
            IpHeaders::Ipv4(header, Default::default())
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let header = Ipv6Header {
                traffic_class: tos,
                flow_label: 0x6789a_u32.try_into()?,
                hop_limit: ttl,
                source: from.octets(),
                destination: to.octets(),
                ..Ipv6Header::default()
            };
            IpHeaders::Ipv6(header, Default::default())
        }
        (from, to) => bail!("{from} cannot dial {to}"),
    };
    Ok(PacketBuilder::ethernet2(CLIENT, UP).ip(headers))
}
