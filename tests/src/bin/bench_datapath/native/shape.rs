//! Packets as templates, entries and slots: what restoring programs and the datapath find in maps.

use proxy_common::abi::{Addr, Flow, Pending};

use super::rows::{Row, Traffic};
use crate::{
    packets::{ACK, L4, Net, Plain},
    stage::{self, key},
    template::{PAYLOAD, Template},
};

/// Odd, so that every flow comes up, and far from the order that entries were made in.
pub(crate) const STEP: u32 = 40_503;
/// Of the slot in `pending4` and `pending6`.
pub(crate) const TOKEN: u32 = 5;
/// The index of the loopback device: where test runs come in.
const LOOPBACK: u32 = 1;

/// Words of a template, as aya writes them.
pub(crate) type Words = [u32; size_of::<Template>() / 4];

/// Returns the packet of a flow as it comes in.
pub(crate) fn packet<A: Net>(traffic: Traffic, flow: u16) -> Plain<A> {
    let l4 = if traffic == Traffic::Udp { L4::Udp } else { ACK };
    let (source_port, port) = match traffic {
        Traffic::Tcp | Traffic::Udp => (40_000, 80),
        Traffic::UnknownFlow => (41_000, 80),
        Traffic::Stamped => (42_000, 80),
        Traffic::NoService => (40_000, 81),
    };
    Plain {
        source: (A::client(flow), source_port),
        destination: (A::VIP, port),
        payload: vec![b'0'; PAYLOAD],
        ..Plain::request(l4)
    }
}

/// Returns the packet as the tested program sees it: at egress it was translated.
pub(crate) fn seen<A: Net>(traffic: Traffic, flow: u16) -> Plain<A> {
    let packet = packet(traffic, flow);
    if traffic == Traffic::Stamped { stage::translated(&packet) } else { packet }
}

/// Returns the template of a row, its next packet one of the flow that comes up at `cursor`.
pub(crate) fn template<A: Net>(row: &Row, cursor: u32) -> Template {
    let frame = seen::<A>(row.traffic, 0).frame();
    let token = if row.traffic == Traffic::Stamped { TOKEN } else { 0 };
    Template { mask: row.flows - 1, cursor, token, ..of_frame::<A>(&frame) }
}

/// Returns the template of a frame, all packets of one flow.
pub(crate) fn of_frame<A: Net>(frame: &[u8]) -> Template {
    let at = |offset: usize| frame.get(offset..offset + 4).map_or(0, word);
    let mut headers = [0; 15];
    for (index, header) in headers.iter_mut().enumerate() {
        *header = at(14 + 4 * index);
    }
    let mut to = [0; 4];
    for (to, bytes) in to.iter_mut().zip(A::POD.as_ref().chunks_exact(4)) {
        *to = word(bytes);
    }
    Template {
        ethernet: [at(0), at(4), at(8)],
        ether_type: u16::from_ne_bytes(A::ETHER_TYPE).into(),
        headers,
        mask: 0,
        step: STEP,
        cursor: 0,
        token: 0,
        to,
        to_port: u16::to_be(8080).into(),
        interface: stage::OUT,
    }
}

/// Returns the flow that comes up at `cursor`.
pub(crate) fn flow_at(row: &Row, cursor: u32) -> u16 {
    (cursor.wrapping_mul(STEP) & (row.flows - 1)) as u16
}

fn word(bytes: &[u8]) -> u32 {
    bytes.try_into().map_or(0, u32::from_ne_bytes)
}

/// Lays a template out.
pub(crate) fn words(template: &Template) -> Words {
    let Template {
        ethernet,
        ether_type,
        headers,
        mask,
        step,
        cursor,
        token,
        to,
        to_port,
        interface,
    } = *template;
    let mut words = [0; size_of::<Template>() / 4];
    let all = ethernet
        .into_iter()
        .chain([ether_type])
        .chain(headers)
        .chain([mask, step, cursor, token])
        .chain(to)
        .chain([to_port, interface]);
    for (word, value) in words.iter_mut().zip(all) {
        *word = value;
    }
    words
}

/// Returns the entry that a stamped packet renews.
pub(crate) fn learned<A: Net>() -> Flow<A> {
    let packet = packet::<A>(Traffic::Stamped, 0);
    let mut flow = stage::entry(&packet, &stage::translated(&packet));
    flow.transform.interface = LOOPBACK;
    if A::L4 == <[u8; 16] as Net>::L4 {
        // The hop limit is the second byte of its word, the TTL the first.
        let address_delta = flow.transform.address_delta;
        let hop = u32::from(!u16::from_ne_bytes([0, 1]));
        flow.transform.ip_delta = proxy_common::packet::checksum::add(address_delta, hop);
    }
    flow
}

/// Returns the slot of the stamped packet, word by word.
pub(crate) fn pending<A: Net + Addr>() -> Vec<u32> {
    let packet = packet::<A>(Traffic::Stamped, 0);
    let frame = packet.frame();
    let at = |offset: usize| frame.get(offset..offset + 4).map_or(0, word);
    let pending = Pending {
        key: key(&packet),
        fingerprint: at(A::L4 + 4),
        fingerprint2: at(A::L4 + 8),
        ip_first: at(14),
        ip_len: frame.len() as u32 - 14,
        ttl: packet.ttl.into(),
        ..Pending::default()
    };
    let addresses = [pending.key.source, pending.key.destination];
    let mut words: Vec<u32> = addresses
        .iter()
        .flat_map(|addr| addr.as_ref().chunks_exact(4).map(word).collect::<Vec<_>>())
        .collect();
    let [a, b] = pending.key.source_port.to_ne_bytes();
    let [c, d] = pending.key.destination_port.to_ne_bytes();
    words.extend([u32::from_ne_bytes([a, b, c, d]), pending.key.interface]);
    words.push(u32::from_ne_bytes([pending.key.protocol, 0, 0, 0]));
    words.extend([pending.stamped_at, pending.epoch, pending.edits, pending.cpu]);
    words.extend([pending.fingerprint, pending.fingerprint2]);
    words.extend([pending.ip_first, pending.ip_len, pending.ttl]);
    words
}
