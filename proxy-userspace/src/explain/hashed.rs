//! What the schedulers `mh`, `sh` and `dh` choose, from the kernel's list of destinations.

use std::net::SocketAddr;

use proxy_common::hash::{
    DhTable, Family, ShTable, fixed_slot,
    mh::{self, Size},
    word,
};

use super::dump::{Server, Target};
use crate::model::SchedulerFlags;

/// `sh-fallback` and `mh-fallback`.
const FALLBACK: u32 = 0x08;
/// `sh-port` and `mh-port`.
const PORT: u32 = 0x10;

/// What a hash says, and why.
pub(super) enum Foretold<'a> {
    One(&'a Target, String),
    Nobody(String),
    Unknown(String),
}

fn is_set(flags: SchedulerFlags, flag: u32) -> bool {
    flags.0 & flag != 0
}

fn family(server: &Server) -> Family {
    Family::of(server.virtual_server.frontend.addr)
}

/// The client as the scheduler sees it.
fn place(server: &Server, client: SocketAddr) -> u32 {
    let port = if is_set(server.virtual_server.flags, PORT) { client.port() } else { 0 };
    word(client.ip(), family(server)).wrapping_add(port.into())
}

fn takes_connections(server: &Server) -> impl Fn(u32) -> bool + Copy + '_ {
    |position| at(server, position).is_some_and(|target| target.destination.weight > 0)
}

fn at(server: &Server, position: u32) -> Option<&Target> {
    server.destinations.get(position as usize)
}

fn foretold(server: &Server, position: Option<u32>, why: String) -> Foretold<'_> {
    match position.and_then(|position| at(server, position)) {
        Some(target) => Foretold::One(target, why),
        None => Foretold::Nobody(why),
    }
}

/// What `sh` chooses for a client.
pub(super) fn by_source(server: &Server, client: SocketAddr) -> Foretold<'_> {
    let weights: Vec<u32> =
        server.destinations.iter().map(|target| target.destination.weight).collect();
    let fallback = is_set(server.virtual_server.flags, FALLBACK);
    let place = place(server, client);
    let chosen = ShTable::build(&weights).choose(place, fallback, takes_connections(server));
    let slot = fixed_slot(place, 0);
    let why = format!("takes the one that the client's hash names (slot {slot} of 256)");
    foretold(server, chosen, why)
}

/// What `dh` chooses for everybody.
pub(super) fn by_destination(server: &Server) -> Foretold<'_> {
    let place = word(server.virtual_server.frontend.addr, family(server));
    let table = DhTable::build(u32::try_from(server.destinations.len()).unwrap_or(u32::MAX));
    let chosen = table.choose(place, takes_connections(server));
    let slot = fixed_slot(place, 0);
    let why = format!("takes the one that the dialled address names (slot {slot} of 256)");
    foretold(server, chosen, why)
}

/// What `mh` chooses for a client. The kernel keeps a drained destination's slots by the weight it had
/// before, and tells nobody of that weight: what follows from every likely one is said.
pub(super) fn by_maglev(server: &Server, index: Option<u8>, client: SocketAddr) -> Foretold<'_> {
    let Some(size) = index.and_then(Size::of_index) else {
        return Foretold::Unknown(
            "takes the one that the client's hash names, always the same; how large this kernel's \
             tables are is not known"
                .to_owned(),
        );
    };
    let place = place(server, client);
    let (slot, slots) = (size.slot(place, 0), size.slots());
    let why = format!("takes the one that the client's hash names (slot {slot} of {slots})");
    let fallback = is_set(server.virtual_server.flags, FALLBACK);
    let with = |drained: u32| {
        let table = mh::Table::build(size, &places(server, drained)).ok()?;
        Some(table.choose(place, fallback, takes_connections(server)))
    };
    let weights = server.destinations.iter().map(|target| target.destination.weight);
    let above_0 = weights.clone().filter(|weight| *weight > 0);
    let likely = match weights.clone().any(|weight| weight == 0) {
        true => vec![above_0.clone().max().unwrap_or(1), above_0.min().unwrap_or(1), 0],
        false => vec![0],
    };
    let Some(mut choices) = likely.iter().map(|weight| with(*weight)).collect::<Option<Vec<_>>>()
    else {
        let more = server.destinations.len();
        return Foretold::Unknown(format!(
            "has {slots} slots in this kernel and cannot take {more} destinations: it goes on with \
             the table of before"
        ));
    };
    choices.dedup();
    match *choices {
        [only] if likely.len() == 1 => foretold(server, only, why),
        [only] => {
            let why = format!("{why}, whether drained destinations still have slots or not");
            foretold(server, only, why)
        }
        _ => Foretold::Unknown(format!(
            "{why}; whose slot that is depends on the weights that drained destinations had before, \
             which the kernel does not tell"
        )),
    }
}

/// The destinations, those of weight 0 with the weight that they had before.
fn places(server: &Server, drained: u32) -> Vec<mh::Destination> {
    let place = |target: &Target| {
        let destination = &target.destination;
        let last_weight = if destination.weight > 0 { destination.weight } else { drained };
        let key = destination.key;
        mh::Destination::new(key.addr, key.port, family(server), last_weight)
    };
    server.destinations.iter().map(place).collect()
}
