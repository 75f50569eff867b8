//! Compares what is on the node without an agent: the ledger, the kernel's tables and the BPF maps
//! with each other. What Kubernetes or the file wants, nobody can say then.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::observe::Error;
use crate::{
    admin::{Comparison, Foreign},
    kernel::{
        bpf::{Maps, mode},
        ipvs::{self, Client},
        link::Links,
        nft,
        route::Routes,
        sysctl::{self, Key},
    },
    ledger::Owned,
    model::{Backend, Element, Frontend, RuleOptions},
    plan::{
        FrontendEntry, Observed, ObservedServer, ObservedTable,
        drift::{Object, Shown as _, settings, way},
        review::{Row, State},
    },
};

/// The device that carries the VIPs when the ledger names none.
const DEVICE: &str = "kube-ipvs0";
const NOTHING: &str = "nothing";
/// How a side is written that nobody knows.
const UNKNOWN: &str = "?";

/// What can be read without an agent.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The node, as far as it can be read.
    pub observed: Observed,
    /// Addresses of the node's interfaces.
    pub local: BTreeSet<IpAddr>,
    /// Sysctls that the ledger names, and their values.
    pub sysctls: BTreeMap<String, String>,
    /// Tables of others.
    pub tables: Vec<String>,
}

/// Reads the node and compares; `all` also names what agrees.
///
/// # Errors
///
/// The first subsystem that cannot be read. That there is no IPVS, no table and no map is none.
pub async fn compare(owned: &Owned, maps: Option<&Maps>, all: bool) -> Result<Comparison, Error> {
    let found = read(owned, maps).await?;
    let mut rows = rows(owned, &found);
    let same = rows.iter().filter(|row| row.state == State::Same).count();
    if !all {
        rows.retain(|row| row.state != State::Same);
    }
    let mut foreign = foreign(&found.observed);
    let tables = found.tables.into_iter();
    foreign.extend(tables.map(|object| Foreign { kind: "nft table".into(), object }));
    let unknown = [
        "what Kubernetes or the file wants now: Services, endpoints, weights and schedulers",
        "which elements the nft table should have",
        "whether programs are attached where they should be",
        "which programs on interfaces belong to others",
    ];
    let unknown = unknown.map(str::to_owned).into();
    Ok(Comparison { agent: false, rows, same, foreign, unknown })
}

/// Returns virtual servers and addresses of others.
pub fn foreign(found: &Observed) -> Vec<Foreign> {
    let servers = found.servers.iter().filter(|(_, server)| !server.owned);
    let servers = servers.map(|(frontend, server)| Foreign {
        kind: "virtual server".into(),
        object: format!("{frontend} {}", server.virtual_server.scheduler.name()),
    });
    let addrs = found.foreign_vips.iter();
    let addrs = addrs.map(|addr| Foreign { kind: "address".into(), object: addr.to_string() });
    servers.chain(addrs).collect()
}

async fn read(owned: &Owned, maps: Option<&Maps>) -> Result<Found, Error> {
    let name = owned.devices.first().map_or(DEVICE, String::as_str);
    let links = Links::open()?;
    let mut observed = Observed { servers: servers(owned).await?, ..Observed::default() };
    if let Some(index) = links.running_index_of(name).await? {
        observed.device = true;
        observed.vips = Routes::open()?.vips(index).await?;
        let ours = owned.addresses.get(name).cloned().unwrap_or_default();
        for addr in links.addresses(index).await? {
            let known = ours.contains(&addr);
            let held = if known { &mut observed.vips } else { &mut observed.foreign_vips };
            held.insert(addr);
        }
    }
    observed.table = table().await?;
    if let Some(maps) = maps {
        observed.fast_path = true;
        let entry = |id, flags| FrontendEntry { id, fast_path: mode(flags) };
        let frontends = maps.frontends()?.into_iter();
        observed.frontends =
            frontends.map(|(frontend, value)| (frontend, entry(value.id, value.flags))).collect();
        let backends = maps.backends()?.into_iter();
        observed.backends = backends.map(|(backend, value)| (backend, value.id)).collect();
    }
    let value = |key: &String| Some((key.clone(), sysctl::read(&Key::dotted(key)).ok()?));
    let interfaces = links.interfaces().await?;
    let others = interfaces.into_iter().filter(|interface| interface.name != name);
    Ok(Found {
        observed,
        local: others.flat_map(|interface| interface.addrs).collect(),
        sysctls: owned.sysctls.keys().filter_map(value).collect(),
        tables: nft::Ruleset::open()?.foreign_tables().await?,
    })
}

async fn table() -> Result<Option<ObservedTable>, Error> {
    let reading = nft::Table::open().await?.read().await?;
    let of = |reading: nft::Reading| {
        let elements: BTreeSet<Element> = reading.elements.into_iter().collect();
        ObservedTable { rules: RuleOptions::default(), elements }
    };
    Ok(reading.filter(|reading| reading.whole).map(of))
}

async fn servers(owned: &Owned) -> Result<BTreeMap<Frontend, ObservedServer>, Error> {
    let client = match Client::open().await {
        Err(ipvs::Error::IpvsMissing) => return Ok(BTreeMap::new()),
        client => client?,
    };
    let mut servers = BTreeMap::new();
    for state in client.virtual_servers().await? {
        let virtual_server = state.virtual_server;
        let frontend = virtual_server.frontend;
        let owned = owned.virtual_servers.contains_key(&frontend);
        let held = if owned { client.destinations(&frontend).await? } else { Vec::new() };
        let order = held.iter().rev().map(|state| state.destination.key).collect();
        let destinations = held.iter().map(|state| state.destination).collect();
        let server = ObservedServer { virtual_server, destinations, order, owned };
        servers.insert(frontend, server);
    }
    Ok(servers)
}

/// Compares the sides with each other.
fn rows(owned: &Owned, found: &Found) -> Vec<Row> {
    let node = &found.observed;
    let mut rows = Vec::new();
    for (frontend, service) in &owned.virtual_servers {
        server_rows(*frontend, service, node, &mut rows);
    }
    for (frontend, entry) in node.frontends.iter() {
        if !owned.virtual_servers.contains_key(frontend) {
            let object = Object::FrontendEntry(*frontend);
            rows.push(drift(&object, None, (UNKNOWN, NOTHING, &entry.shown())));
        }
    }
    address_rows(owned, found, &mut rows);
    if owned.nat_table && node.table.is_none() {
        rows.push(drift(&Object::Table, None, ("recorded", NOTHING, "-")));
    }
    for (key, change) in &owned.sysctls {
        if let Some(value) = found.sysctls.get(key).filter(|value| **value != change.written) {
            let object = Object::Sysctl(key.clone());
            rows.push(drift(&object, None, (&change.written, value, "-")));
        }
    }
    rows
}

fn drift(object: &Object, service: Option<&str>, sides: (&str, &str, &str)) -> Row {
    let (wanted, kernel, bpf) = sides;
    Row {
        object: object.to_string(),
        service: service.map(str::to_owned),
        wanted: wanted.into(),
        kernel: kernel.into(),
        bpf: bpf.into(),
        state: State::Drift,
    }
}

fn server_rows(frontend: Frontend, service: &str, node: &Observed, rows: &mut Vec<Row>) {
    let held = node.servers.get(&frontend);
    let entry = node.frontends.get(&frontend);
    let agree = held.is_some() && (entry.is_some() || !node.fast_path);
    let bpf = match entry {
        Some(entry) => entry.shown(),
        None if node.fast_path => NOTHING.into(),
        None => "-".into(),
    };
    rows.push(Row {
        object: Object::VirtualServer(frontend).to_string(),
        service: Some(service.to_owned()),
        wanted: "recorded".into(),
        kernel: held.map_or(NOTHING.into(), |held| settings(&held.virtual_server)),
        bpf,
        state: if agree { State::Same } else { State::Drift },
    });
    let Some(held) = held else { return };
    let learns = entry.is_some_and(FrontendEntry::learns);
    for destination in &held.destinations {
        let backend = Backend::new(destination.key, frontend.protocol);
        let id = node.backends.get(&backend);
        // Of what drains, nothing is learned any more.
        let lacks = learns && id.is_none() && destination.weight > 0;
        rows.push(Row {
            object: Object::Destination(frontend, destination.key).to_string(),
            service: Some(service.to_owned()),
            wanted: UNKNOWN.into(),
            kernel: way(destination),
            bpf: id.map_or(if lacks { NOTHING.into() } else { "-".into() }, |id| id.shown()),
            state: if lacks { State::Drift } else { State::Same },
        });
    }
}

fn address_rows(owned: &Owned, found: &Found, rows: &mut Vec<Row>) {
    let node = &found.observed;
    let served: BTreeSet<IpAddr> =
        owned.virtual_servers.keys().map(|frontend| frontend.addr).collect();
    if !served.is_empty() && !node.device {
        rows.push(drift(&Object::Device, None, ("there, and up", NOTHING, "-")));
        return;
    }
    let is_local = |addr: &IpAddr| {
        node.vips.contains(addr) || node.foreign_vips.contains(addr) || found.local.contains(addr)
    };
    // One that nothing guards is for others to make local: see `config::Vips`.
    let is_guarded = |addr: &IpAddr| {
        node.table.as_ref().is_none_or(|table| table.elements.contains(&Element::Vip(*addr)))
    };
    let lacking = served.iter().filter(|addr| !is_local(addr) && is_guarded(addr));
    rows.extend(lacking.map(|addr| drift(&Object::Vip(*addr), None, ("local", NOTHING, "-"))));
    let more = node.vips.difference(&served);
    rows.extend(more.map(|addr| drift(&Object::Vip(*addr), None, (NOTHING, "local", "-"))));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ledger::SysctlChange,
        model::{
            Destination, DestinationKey, FastPath, Forwarding, Protocol, Scheduler, SchedulerFlags,
            VirtualServer,
        },
    };

    const KEY: DestinationKey =
        DestinationKey { addr: IpAddr::V4(std::net::Ipv4Addr::new(10, 1, 1, 11)), port: 8080 };

    fn frontend() -> Frontend {
        Frontend { addr: [10, 96, 0, 10].into(), port: 80, protocol: Protocol::Tcp }
    }

    fn node() -> (Owned, Found) {
        let mut owned = Owned { nat_table: true, ..Owned::default() };
        owned.virtual_servers.insert(frontend(), "default/web:http".into());
        let change = SysctlChange { previous: "0".into(), written: "1".into() };
        owned.sysctls.insert("net.ipv4.vs.conntrack".into(), change);
        let server = ObservedServer {
            virtual_server: VirtualServer {
                frontend: frontend(),
                scheduler: Scheduler::Rr,
                flags: SchedulerFlags::default(),
                persistent_secs: 0,
            },
            destinations: [Destination {
                limits: Default::default(),
                key: KEY,
                weight: 1,
                forwarding: Forwarding::Masq,
            }]
            .into_iter()
            .collect(),
            order: vec![KEY],
            owned: true,
        };
        let entry = FrontendEntry { id: 1, fast_path: FastPath::Auto };
        let elements = [Element::Vip(frontend().addr)].into();
        let observed = Observed {
            device: true,
            vips: [frontend().addr].into(),
            servers: [(frontend(), server)].into(),
            table: Some(ObservedTable { elements, ..ObservedTable::default() }),
            frontends: [(frontend(), entry)].into_iter().collect(),
            backends: [(Backend::new(KEY, Protocol::Tcp), 2)].into_iter().collect(),
            fast_path: true,
            ..Observed::default()
        };
        let sysctls = [("net.ipv4.vs.conntrack".to_owned(), "1".to_owned())].into();
        (owned, Found { observed, sysctls, ..Found::default() })
    }

    fn drifted(change: impl FnOnce(&mut Found)) -> Vec<String> {
        let (owned, mut found) = node();
        change(&mut found);
        let rows = rows(&owned, &found).into_iter().filter(|row| row.state == State::Drift);
        rows.map(|row| row.object).collect()
    }

    #[test]
    fn sides_that_agree_have_no_drift() {
        assert_eq!(drifted(|_| {}), Vec::<String>::new());
        let stopped = drifted(|found| {
            found.observed.fast_path = false;
            found.observed.frontends = Default::default();
            found.observed.backends = Default::default();
        });
        assert_eq!(stopped, Vec::<String>::new(), "without a fast path there is nothing to miss");
    }

    #[test]
    fn each_side_that_lacks_what_another_has_is_named() {
        let server = format!("virtual server {}", frontend());
        let server = std::slice::from_ref(&server);
        assert_eq!(drifted(|found| found.observed.servers.clear()), server);
        assert_eq!(drifted(|found| found.observed.frontends.remove(&frontend())), server);
        let destination = format!("destination {} to {KEY}", frontend());
        let without = drifted(|found| found.observed.backends = Default::default());
        assert_eq!(without, [destination]);
        assert_eq!(drifted(|found| found.observed.vips.clear()), ["vip 10.96.0.10"]);
        assert_eq!(drifted(|found| found.observed.device = false), ["device of the VIPs"]);
        assert_eq!(drifted(|found| found.observed.table = None), ["table inet passlane"]);
        let changed = drifted(|found| {
            found.sysctls.insert("net.ipv4.vs.conntrack".into(), "0".into());
        });
        assert_eq!(changed, ["sysctl net.ipv4.vs.conntrack"]);
        let local = drifted(|found| {
            found.observed.vips.clear();
            found.local.insert(frontend().addr);
        });
        assert_eq!(local, Vec::<String>::new(), "an address of an interface is local already");
        let elsewhere = drifted(|found| {
            found.observed.vips.clear();
            found.observed.table = Some(ObservedTable::default());
        });
        assert_eq!(elsewhere, Vec::<String>::new(), "without a guard it is for others to put");
    }
}
