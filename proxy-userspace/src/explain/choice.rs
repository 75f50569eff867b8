//! Which destination a connection goes to: the one IPVS has for it, or what the scheduler would say.

use std::net::SocketAddr;

use proxy_common::hash::UNSCHEDULED_PORT;

use super::{
    dump::{Connection, Dump, Server, Target},
    hashed::{self, Foretold},
    trace::Chosen,
};
use crate::model::{Frontend, Protocol, Scheduler};

/// What IPVS does with a packet.
pub(super) struct Choice {
    /// The destination, as far as it is known beforehand.
    pub(super) backend: Option<SocketAddr>,
    pub(super) by: Chosen,
    /// Those that could be chosen.
    pub(super) candidates: Vec<SocketAddr>,
    pub(super) words: String,
}

/// Returns the connection of a client with a frontend.
pub(super) fn connection<'a>(
    dump: &'a Dump,
    client: SocketAddr,
    frontend: &Frontend,
) -> Option<&'a Connection> {
    dump.connections
        .iter()
        .find(|connection| connection.client == client && connection.frontend == *frontend)
}

/// Returns the connection that a packet from a backend belongs to. Behind a masquerade the client is
/// another one than the packet is sent to, so the flow entries know more.
pub(super) fn connection_of_reply(
    dump: &Dump,
    protocol: Protocol,
    backend: SocketAddr,
    client: SocketAddr,
) -> Option<&Connection> {
    dump.connections.iter().find(|connection| {
        connection.frontend.protocol == protocol
            && socket(&connection.destination) == backend
            && connection.client == client
    })
}

fn socket(key: &crate::model::DestinationKey) -> SocketAddr {
    SocketAddr::new(key.addr, key.port)
}

fn at(target: &Target) -> SocketAddr {
    socket(&target.destination.key)
}

/// The destination of a connection that IPVS has.
pub(super) fn held(connection: &Connection) -> Choice {
    let backend = socket(&connection.destination);
    let Connection { state, expires_secs, .. } = connection;
    Choice {
        backend: Some(backend),
        by: Chosen::Connection,
        candidates: vec![backend],
        words: format!(
            "{backend}, because IPVS has this connection ({state}, expires in {expires_secs} s \
             without a packet on its path)"
        ),
    }
}

/// The destination of a new connection.
pub(super) fn fresh(dump: &Dump, server: &Server, client: SocketAddr) -> Choice {
    if client.port() == UNSCHEDULED_PORT {
        let words = format!(
            "none: IPVS schedules nothing from port {UNSCHEDULED_PORT}, that of FTP's data"
        );
        return Choice { backend: None, by: Chosen::Nobody, candidates: Vec::new(), words };
    }
    if let Some(choice) = by_affinity(dump, server, client) {
        return choice;
    }
    let scheduler = server.virtual_server.scheduler;
    let available: Vec<&Target> =
        server.destinations.iter().filter(|target| target.destination.weight > 0).collect();
    let candidates: Vec<SocketAddr> = available.iter().map(|target| at(target)).collect();
    let choice = |backend: Option<&Target>, by, words| {
        let candidates = candidates.clone();
        Choice { backend: backend.map(at), by, candidates, words }
    };
    let list = all(server);
    // A hash may name one of weight 0, though there is another.
    let sure = !scheduler.depends_on_order() || server.destinations.len() == 1;
    match available.as_slice() {
        [] => return choice(None, Chosen::Nobody, nobody(server)),
        [only] if sure => {
            let words =
                format!("{}, the only destination with a weight above 0 ({})", at(only), one(only));
            return choice(Some(only), Chosen::Scheduler, words);
        }
        _ => {}
    }
    match schedule(dump, server, &available, client) {
        Foretold::One(target, why) => {
            let words = format!("{}: {scheduler} {why}; of {list}", at(target));
            choice(Some(target), Chosen::Scheduler, words)
        }
        Foretold::Nobody(why) => {
            choice(None, Chosen::Nobody, format!("none: {scheduler} {why}; of {list}"))
        }
        Foretold::Unknown(why) => {
            choice(None, Chosen::Scheduler, format!("{scheduler} {why}: of {list}"))
        }
    }
}

/// Session affinity is a template: the next connection of a client goes where the last one went.
fn by_affinity(dump: &Dump, server: &Server, client: SocketAddr) -> Option<Choice> {
    let seconds = server.virtual_server.persistent_secs;
    let frontend = &server.virtual_server.frontend;
    let template = connection(dump, SocketAddr::new(client.ip(), 0), frontend)?;
    let backend = socket(&template.destination);
    let target = server.destinations.iter().find(|target| at(target) == backend)?;
    (target.destination.weight > 0).then(|| Choice {
        backend: Some(backend),
        by: Chosen::Affinity,
        candidates: vec![backend],
        words: format!(
            "{backend}, because the client was sent there before (session affinity of {seconds} \
             s, {} s left)",
            template.expires_secs
        ),
    })
}

fn nobody(server: &Server) -> String {
    match server.destinations.len() {
        0 => "none: the virtual server has no destination, so IPVS refuses".to_owned(),
        _ => format!(
            "none: no destination has a weight above 0, so IPVS refuses; of {}",
            all(server)
        ),
    }
}

fn one(target: &Target) -> String {
    let Target { destination, active, inactive } = target;
    format!("weight {}, {active} active, {inactive} inactive", destination.weight)
}

fn all(server: &Server) -> String {
    let targets = server.destinations.iter();
    let list: Vec<String> =
        targets.map(|target| format!("{} ({})", at(target), one(target))).collect();
    list.join(", ")
}

/// What the scheduler chooses of the destinations with a weight, where that can be known, and why.
fn schedule<'a>(
    dump: &Dump,
    server: &'a Server,
    available: &[&'a Target],
    client: SocketAddr,
) -> Foretold<'a> {
    let unknown = |why: &str| Foretold::Unknown(why.to_owned());
    let named = |target: Option<&'a Target>, why: &str| match target {
        Some(target) => Foretold::One(target, why.to_owned()),
        None => unknown(why),
    };
    match server.virtual_server.scheduler {
        Scheduler::Rr | Scheduler::Wrr => unknown("takes the next one in turn"),
        Scheduler::Lc => {
            named(least(available, |target| (load(target), 1)), "takes the least loaded one now")
        }
        Scheduler::Wlc => named(
            least(available, |target| (load(target), weight(target))),
            "takes the one with the least load for its weight now",
        ),
        Scheduler::Sed => named(
            least(available, |target| (waiting(target), weight(target))),
            "takes the one that would answer soonest now",
        ),
        Scheduler::Nq => {
            let idle = available.iter().find(|target| target.active == 0).copied();
            let soonest = || least(available, |target| (waiting(target), weight(target)));
            named(
                idle.or_else(soonest),
                "takes an idle one, else the one that would answer soonest, now",
            )
        }
        Scheduler::Fo => named(heaviest(available.iter()), "takes the one of the highest weight"),
        Scheduler::Ovf => named(
            heaviest(available.iter().filter(|target| u64::from(target.active) <= weight(target))),
            "takes the one of the highest weight whose active connections are no more than that",
        ),
        Scheduler::Sh => hashed::by_source(server, client),
        Scheduler::Dh => hashed::by_destination(server),
        Scheduler::Mh => hashed::by_maglev(server, dump.mh_index, client),
        Scheduler::Lblc | Scheduler::Lblcr => {
            unknown("takes the one that served the dialled address last, unless that is overloaded")
        }
        Scheduler::Twos => unknown("takes the less loaded of two random ones"),
    }
}

/// The load that `lc`, `wlc` and their kin compare (`ip_vs_dest_conn_overhead`).
fn load(target: &Target) -> u64 {
    (u64::from(target.active) << 8) + u64::from(target.inactive)
}

fn waiting(target: &Target) -> u64 {
    u64::from(target.active) + 1
}

fn weight(target: &Target) -> u64 {
    target.destination.weight.into()
}

/// The first of those with the least quotient, as the kernel walks its list.
fn least<'a>(
    available: &[&'a Target],
    quotient: impl Fn(&Target) -> (u64, u64),
) -> Option<&'a Target> {
    available.iter().copied().reduce(|least, target| {
        let ((load, share), (best, of)) = (quotient(target), quotient(least));
        if u128::from(best) * u128::from(share) > u128::from(load) * u128::from(of) {
            target
        } else {
            least
        }
    })
}

/// The first of those with the highest weight.
fn heaviest<'a, 'b>(targets: impl Iterator<Item = &'b &'a Target>) -> Option<&'a Target>
where
    'a: 'b,
{
    targets
        .copied()
        .reduce(|most, target| if weight(target) > weight(most) { target } else { most })
}
