//! The kernel as the oracle of scheduling: random virtual servers with `mh`, `sh` and `dh`, edited
//! between rounds of thousands of flows from made-up clients, and every choice compared with ours.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use etherparse::PacketBuilder;
use proxy_common::hash::{
    DhTable, Family, ShTable, UNSCHEDULED_PORT,
    mh::{self, Size},
    word,
};
use proxy_userspace::{
    kernel::ipvs::{Client, connections, mh_table},
    model::{
        Destination, DestinationKey, Forwarding, Frontend, Protocol, Scheduler, SchedulerFlags,
        Tunnel, VirtualServer,
    },
};
use rustix::{
    fd::OwnedFd,
    net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket},
};

use crate::{Case, namespace::sh, needs::Need};

pub(crate) fn cases() -> Vec<Case> {
    crate::cases![
        &[Need::Root, Need::Ipvs, Need::Dummy];
        the_size_of_maglev_tables_is_seen,
        hashing_schedulers_choose_as_foretold,
        every_connection_is_listed_while_their_table_grows,
    ]
}

/// Packets to anywhere leave by a device that swallows them.
const SINK: &str = "ip link set lo up
    ip link add sink type dummy
    ip link set sink addrgenmode none
    ip link set sink up
    ip addr add 10.0.0.1/32 dev sink
    ip addr add fd00::1/128 dev sink nodad
    ip route add default dev sink
    ip -6 route add default dev sink";

/// The seed of a run, to have it again.
const SEED: &str = "PASSLANE_SEED";
const SERVERS: u32 = 24;
const ROUNDS: u32 = 3;
const FLOWS: u32 = 40;
/// Several times what the first table of Linux 7.1 is made for.
const CROWD: u16 = 2048;

async fn the_size_of_maglev_tables_is_seen() -> Result<()> {
    // No kernel of a distribution is known that was built with another.
    ensure!(mh_table::see()? == Size::DEFAULT);
    // It was seen elsewhere: nothing of it is here.
    ensure!(Client::open().await?.virtual_servers().await?.is_empty());
    ensure!(connections::read()?.is_empty());
    Ok(())
}

async fn hashing_schedulers_choose_as_foretold() -> Result<()> {
    sh(SINK)?;
    let since = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let seed = match std::env::var(SEED) {
        Ok(seed) => seed.parse()?,
        Err(_) => since.as_nanos() as u64,
    };
    println!("{SEED}={seed}");
    let mut random = Random(seed);
    let (client, sender) = (Client::open().await?, Sender::open()?);
    let mut tally = Tally::default();
    for number in 0..SERVERS {
        let mut foretold = HashMap::new();
        let mut server = Server::any(number, &mut random);
        client.put_virtual_server(&server.virtual_server).await?;
        for round in 0..ROUNDS {
            server.edit(&client, &mut random, round).await?;
            let tables = server.tables(&client).await?;
            for _ in 0..FLOWS {
                let from = server.any_client(&mut random);
                let chosen = tables.choose(from);
                let frontend = server.virtual_server.frontend;
                let sent = sender.send(from, frontend);
                ensure!(sent.is_ok() || chosen.is_none(), "{from} to {frontend}: {sent:?}");
                foretold.insert((from, frontend), (chosen, round));
            }
        }
        println!("{number}: {server}");
        // At once: a TCP connection that nobody answers is forgotten after a minute.
        tally.compare(&foretold, server.virtual_server.frontend)?;
    }
    tally.judge()
}

/// From Linux 7.1 the kernel moves connections to larger tables, and lists one table.
async fn every_connection_is_listed_while_their_table_grows() -> Result<()> {
    sh(SINK)?;
    let (client, sender) = (Client::open().await?, Sender::open()?);
    let frontend = Frontend { addr: [172, 20, 0, 9].into(), port: 53, protocol: Protocol::Udp };
    let virtual_server = VirtualServer {
        frontend,
        scheduler: Scheduler::Mh,
        flags: SchedulerFlags(0),
        persistent_secs: 0,
    };
    client.put_virtual_server(&virtual_server).await?;
    let destination = Destination {
        limits: Default::default(),
        key: DestinationKey { addr: [10, 1, 0, 1].into(), port: 53 },
        weight: 1,
        forwarding: Forwarding::Masq,
    };
    client.put_destination(&frontend, &destination).await?;
    for count in 1..=CROWD {
        sender.send(SocketAddr::from(([100, 64, 0, 1], 1024 + count)), frontend)?;
        if count % 16 == 0 {
            let listed = connections::read()?.len();
            ensure!(listed == usize::from(count), "{listed} of {count} are listed");
        }
    }
    Ok(())
}

/// A client and what it dialled.
type Flow = (SocketAddr, Frontend);
/// The destination, and the round of the flow.
type Foretold = (Option<DestinationKey>, u32);

/// What became of the flows.
#[derive(Default)]
struct Tally {
    flows: usize,
    refused: usize,
    mismatches: Vec<String>,
}

impl Tally {
    /// Compares the connections of a frontend with what was foretold.
    fn compare(&mut self, foretold: &HashMap<Flow, Foretold>, frontend: Frontend) -> Result<()> {
        let chosen: HashMap<Flow, DestinationKey> = connections::read()?
            .into_iter()
            .filter(|connection| connection.frontend == frontend)
            .map(|connection| {
                let from = SocketAddr::new(connection.client_addr, connection.client_port);
                ((from, connection.frontend), connection.destination)
            })
            .collect();
        for (flow, (destination, round)) in foretold {
            let found = chosen.get(flow);
            if found != destination.as_ref() {
                self.mismatches.push(format!(
                    "{} to {}, round {round}: {destination:?} was foretold, IPVS chose {found:?}",
                    flow.0, flow.1
                ));
            }
        }
        let refused = foretold.values().filter(|(destination, _)| destination.is_none()).count();
        self.flows += foretold.len();
        self.refused += refused;
        Ok(())
    }

    fn judge(&self) -> Result<()> {
        let Self { flows, refused, mismatches } = self;
        let count = mismatches.len();
        println!("{flows} flows, {refused} refused, {count} mismatches");
        ensure!(mismatches.is_empty(), "{count} mismatches: {}", mismatches.join("; "));
        ensure!(*refused > 0 && refused * 2 < *flows, "{refused} refused: too tame or too wild");
        Ok(())
    }
}

/// Random numbers that a seed brings back (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, limit: u32) -> u32 {
        (self.next() % u64::from(limit)) as u32
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u32) as usize]
    }

    fn port(&mut self) -> u16 {
        self.below(65_535) as u16 + 1
    }

    /// An address of a net: the first bytes are given.
    fn addr(&mut self, family: Family, ipv4: [u8; 2], ipv6: [u8; 4]) -> IpAddr {
        let random = self.next().to_be_bytes();
        match family {
            Family::Ipv4 => [ipv4[0], ipv4[1], random[0], random[1] | 1].into(),
            Family::Ipv6 => {
                let mut addr = [0; 16];
                addr[..4].copy_from_slice(&ipv6);
                addr[8..].copy_from_slice(&random);
                addr.into()
            }
        }
    }
}

/// How the weights of a virtual server are spread.
#[derive(Clone, Copy, Debug)]
enum Weights {
    Equal,
    /// Also 0.
    Small,
    /// With a common divisor.
    Multiples(u32),
    /// More bits than the kernel looks at.
    Large,
}

impl Weights {
    fn any(self, random: &mut Random) -> u32 {
        match self {
            Self::Equal => 1,
            Self::Small => random.below(5),
            Self::Multiples(of) => of * (random.below(90) + 1),
            Self::Large => random.next() as u32 >> (random.below(30) + 1),
        }
    }
}

/// A virtual server, and what the kernel does not tell of its destinations.
struct Server {
    virtual_server: VirtualServer,
    family: Family,
    weights: Weights,
    /// The last weight of each that was not 0.
    last_weights: BTreeMap<DestinationKey, u32>,
    /// Destinations that have gone: they may come again.
    gone: Vec<DestinationKey>,
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let VirtualServer { frontend, scheduler, flags, .. } = self.virtual_server;
        let (count, weights) = (self.last_weights.len(), self.weights);
        write!(f, "{frontend} {scheduler} flags {:#x}: {count} destinations, {weights:?}", flags.0)
    }
}

impl Server {
    fn any(number: u32, random: &mut Random) -> Self {
        let family = random.one_of(&[Family::Ipv4, Family::Ipv6]);
        let protocol = random.one_of(&[Protocol::Tcp, Protocol::Udp]);
        let addr = random.addr(family, [172, 20], [0xfd, 0, 0, 0x96]);
        let mut frontend = Frontend { addr, port: random.port(), protocol };
        // No two alike, whatever comes up.
        frontend.port = frontend.port / 32 * 32 + number as u16 + 1;
        let scheduler = match number % 8 {
            0..=4 => Scheduler::Mh,
            5 | 6 => Scheduler::Sh,
            _ => Scheduler::Dh,
        };
        let flags = SchedulerFlags(random.one_of(&[0, 0x08, 0x10, 0x18]));
        let multiples = Weights::Multiples(random.below(1000) + 1);
        let weights = random.one_of(&[Weights::Equal, Weights::Small, multiples, Weights::Large]);
        let virtual_server = VirtualServer { frontend, scheduler, flags, persistent_secs: 0 };
        let (last_weights, gone) = (BTreeMap::new(), Vec::new());
        Self { virtual_server, family, weights, last_weights, gone }
    }

    /// Adds, removes, weighs and drains destinations; at first adds only.
    async fn edit(&mut self, client: &Client, random: &mut Random, round: u32) -> Result<()> {
        let most = random.one_of(&[3, 12, 40]);
        for _ in 0..random.below(most) + 1 {
            let held: Vec<DestinationKey> = self.last_weights.keys().copied().collect();
            let what = if round == 0 || held.is_empty() { 0 } else { random.below(5) };
            match what {
                0 | 1 => {
                    let new = self.any_destination(random);
                    let back = self.gone.pop().filter(|_| what == 1);
                    let weight = self.weights.any(random);
                    self.put(client, back.unwrap_or(new), weight).await?;
                }
                2 => self.remove(client, random.one_of(&held)).await?,
                3 => self.put(client, random.one_of(&held), 0).await?,
                _ => {
                    let weight = self.weights.any(random);
                    self.put(client, random.one_of(&held), weight).await?;
                }
            }
        }
        Ok(())
    }

    async fn put(&mut self, client: &Client, key: DestinationKey, weight: u32) -> Result<()> {
        let forwarding = match Family::of(key.addr) == self.family {
            true => Forwarding::Masq,
            false => Forwarding::Tunnel(Tunnel::Ipip),
        };
        let destination = Destination { limits: Default::default(), key, weight, forwarding };
        client.put_destination(&self.virtual_server.frontend, &destination).await?;
        match self.last_weights.get_mut(&key) {
            Some(last) if weight > 0 => *last = weight,
            Some(_) => {}
            None => drop(self.last_weights.insert(key, weight)),
        }
        Ok(())
    }

    async fn remove(&mut self, client: &Client, key: DestinationKey) -> Result<()> {
        client.remove_destination(&self.virtual_server.frontend, &key).await?;
        self.last_weights.remove(&key);
        self.gone.push(key);
        Ok(())
    }

    /// Some are of the other family, which only a tunnel leads to.
    fn any_destination(&self, random: &mut Random) -> DestinationKey {
        let (same, other) = match self.family {
            Family::Ipv4 => (Family::Ipv4, Family::Ipv6),
            Family::Ipv6 => (Family::Ipv6, Family::Ipv4),
        };
        let family = if random.below(8) == 0 { other } else { same };
        let addr = random.addr(family, [10, 1], [0xfd, 0, 0, 1]);
        DestinationKey { addr, port: random.port() }
    }

    fn any_client(&self, random: &mut Random) -> SocketAddr {
        let net = 64 + random.below(64) as u8;
        let addr = random.addr(self.family, [100, net], [0x20, 1, 0x0d, 0xb8]);
        let port = if random.below(100) == 0 { UNSCHEDULED_PORT } else { random.port() };
        SocketAddr::new(addr, port)
    }

    /// Our tables, from the kernel's order.
    async fn tables(&self, client: &Client) -> Result<Tables> {
        let VirtualServer { frontend, scheduler, flags, .. } = self.virtual_server;
        let states = client.destinations(&frontend).await?;
        ensure!(states.len() == self.last_weights.len());
        let destinations: Vec<_> = states.iter().map(|state| state.destination).collect();
        let weights: Vec<u32> = destinations.iter().map(|each| each.weight).collect();
        let place = |Destination { key, .. }: &Destination| {
            let last_weight = self.last_weights.get(key).context("not ours")?;
            Ok(mh::Destination::new(key.addr, key.port, self.family, *last_weight))
        };
        let table = match scheduler {
            Scheduler::Sh => Table::Sh(Box::new(ShTable::build(&weights))),
            Scheduler::Dh => {
                let count = destinations.len() as u32;
                Table::Dh(DhTable::build(count), word(frontend.addr, self.family))
            }
            _ => {
                let places = destinations.iter().map(place).collect::<Result<Vec<_>>>()?;
                Table::Mh(mh::Table::build(Size::DEFAULT, &places)?)
            }
        };
        Ok(Tables { table, destinations, family: self.family, flags: flags.0 })
    }
}

enum Table {
    Mh(mh::Table),
    Sh(Box<ShTable>),
    Dh(DhTable, u32),
}

struct Tables {
    table: Table,
    destinations: Vec<Destination>,
    family: Family,
    flags: u32,
}

impl Tables {
    fn choose(&self, from: SocketAddr) -> Option<DestinationKey> {
        if from.port() == UNSCHEDULED_PORT {
            return None;
        }
        let port = if self.flags & 0x10 == 0 { 0 } else { from.port() };
        let place = word(from.ip(), self.family).wrapping_add(port.into());
        let fallback = self.flags & 0x08 != 0;
        let available = |position: u32| self.destinations[position as usize].weight > 0;
        let position = match &self.table {
            Table::Mh(table) => table.choose(place, fallback, available),
            Table::Sh(table) => table.choose(place, fallback, available),
            Table::Dh(table, frontend) => table.choose(*frontend, available),
        };
        position.map(|position| self.destinations[position as usize].key)
    }
}

/// Sends the first packets of flows, from whatever client they name.
struct Sender {
    ipv4: OwnedFd,
    ipv6: OwnedFd,
}

impl Sender {
    fn open() -> Result<Self> {
        let open = |family| socket(family, SocketType::RAW, Some(ipproto::RAW));
        Ok(Self { ipv4: open(AddressFamily::INET)?, ipv6: open(AddressFamily::INET6)? })
    }

    fn send(&self, from: SocketAddr, frontend: Frontend) -> Result<()> {
        const TTL: u8 = 64;
        let (ip, to) = match (from.ip(), frontend.addr) {
            (IpAddr::V4(from), IpAddr::V4(to)) => (
                PacketBuilder::ipv4(from.octets(), to.octets(), TTL),
                SocketAddr::new(to.into(), 0),
            ),
            (IpAddr::V6(from), IpAddr::V6(to)) => (
                PacketBuilder::ipv6(from.octets(), to.octets(), TTL),
                SocketAddr::new(to.into(), 0),
            ),
            (from, to) => anyhow::bail!("{from} cannot dial {to}"),
        };
        let mut packet = Vec::new();
        match frontend.protocol {
            Protocol::Tcp => {
                ip.tcp(from.port(), frontend.port, 1, 64_240).syn().write(&mut packet, &[])?;
            }
            _ => ip.udp(from.port(), frontend.port).write(&mut packet, b"x")?,
        }
        let socket = if to.is_ipv4() { &self.ipv4 } else { &self.ipv6 };
        let sent = sendto(socket, &packet, SendFlags::empty(), &to)?;
        ensure!(sent == packet.len(), "{sent} of {} bytes", packet.len());
        Ok(())
    }
}
