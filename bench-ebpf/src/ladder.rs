//! The rungs: one step more each. None of them does more than its name says.

use aya_ebpf::{macros::classifier, programs::TcContext};
use proxy_common::{
    abi::{Addr, Flow, FlowKey, FlowState, ServiceKey, Transform},
    packet::checksum,
};

use crate::{
    frame::{self, Frame},
    maps::{FLOWS4, FLOWS6, Flows, SERVICES4, SERVICES6, Services, TEMPLATE},
    template::Template,
};

const OK: i32 = 0;
const SHOT: i32 = 2;
const TCP: u8 = 6;
const ANY: u64 = 0;
/// Up to the end of a TCP header over IPv4, and over IPv6.
const BYTES4: usize = 54;
const BYTES6: usize = 74;

/// What the families differ in.
trait Net<const N: usize> {
    type Addr: Addr;
    const L4: usize;

    fn flows() -> &'static Flows<Self::Addr>;
    fn services() -> &'static Services<Self::Addr>;
    /// Protocol and addresses of a plain packet.
    fn addresses(frame: &Frame<N>) -> Option<(u8, Self::Addr, Self::Addr)>;
    /// The destination after translation.
    fn destination(template: &Template) -> Self::Addr;
    /// The difference that another address makes to a sum.
    fn replace(from: Self::Addr, to: Self::Addr) -> u32;
    /// Stores the destination and what depends on it in the IP header.
    fn rewrite(frame: &Frame<N>, to: &Transform<Self::Addr>);
    /// The addresses as one word: a rung that only parses must not be optimised away.
    fn word(addr: Self::Addr) -> u32;
}

struct Ipv4;
struct Ipv6;

impl Net<BYTES4> for Ipv4 {
    type Addr = [u8; 4];
    const L4: usize = 34;

    #[inline(always)]
    fn flows() -> &'static Flows<[u8; 4]> {
        &FLOWS4
    }

    #[inline(always)]
    fn services() -> &'static Services<[u8; 4]> {
        &SERVICES4
    }

    #[inline(always)]
    fn addresses(frame: &Frame<BYTES4>) -> Option<(u8, [u8; 4], [u8; 4])> {
        let plain = frame.load::<u16>(12) == 0x0800_u16.to_be()
            && frame.load::<u8>(14) == 0x45
            && frame.load::<u16>(20) & 0x3fff_u16.to_be() == 0;
        plain.then(|| {
            let address = |at| frame.load::<u32>(at).to_ne_bytes();
            (frame.load::<u8>(23), address(26), address(30))
        })
    }

    #[inline(always)]
    fn destination(template: &Template) -> [u8; 4] {
        template.to[0].to_ne_bytes()
    }

    #[inline(always)]
    fn replace(from: [u8; 4], to: [u8; 4]) -> u32 {
        checksum::replace(u32::from_ne_bytes(from), u32::from_ne_bytes(to))
    }

    #[inline(always)]
    fn rewrite(frame: &Frame<BYTES4>, to: &Transform<[u8; 4]>) {
        frame.store(24, checksum::apply(frame.load::<u16>(24), to.ip_delta));
        frame.store(30, u32::from_ne_bytes(to.destination));
    }

    #[inline(always)]
    fn word(addr: [u8; 4]) -> u32 {
        u32::from_ne_bytes(addr)
    }
}

#[inline(always)]
fn words(addr: [u8; 16]) -> [u32; 4] {
    let word = |at: usize| u32::from_ne_bytes([addr[at], addr[at + 1], addr[at + 2], addr[at + 3]]);
    [word(0), word(4), word(8), word(12)]
}

#[inline(always)]
fn address6(words: [u32; 4]) -> [u8; 16] {
    let (a, b) = (words[0].to_ne_bytes(), words[1].to_ne_bytes());
    let (c, d) = (words[2].to_ne_bytes(), words[3].to_ne_bytes());
    [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3], c[0], c[1], c[2], c[3], d[0], d[1], d[2], d[3]]
}

impl Net<BYTES6> for Ipv6 {
    type Addr = [u8; 16];
    const L4: usize = 54;

    #[inline(always)]
    fn flows() -> &'static Flows<[u8; 16]> {
        &FLOWS6
    }

    #[inline(always)]
    fn services() -> &'static Services<[u8; 16]> {
        &SERVICES6
    }

    #[inline(always)]
    fn addresses(frame: &Frame<BYTES6>) -> Option<(u8, [u8; 16], [u8; 16])> {
        let plain = frame.load::<u16>(12) == 0x86dd_u16.to_be() && frame.load::<u8>(14) >> 4 == 6;
        plain.then(|| {
            let load = |at: usize| {
                address6([
                    frame.load(at),
                    frame.load(at + 4),
                    frame.load(at + 8),
                    frame.load(at + 12),
                ])
            };
            (frame.load::<u8>(20), load(22), load(38))
        })
    }

    #[inline(always)]
    fn destination(template: &Template) -> [u8; 16] {
        address6(template.to)
    }

    #[inline(always)]
    fn replace(from: [u8; 16], to: [u8; 16]) -> u32 {
        let (from, to) = (words(from), words(to));
        let word = |at: usize| checksum::replace(from[at], to[at]);
        checksum::add(checksum::add(word(0), word(1)), checksum::add(word(2), word(3)))
    }

    #[inline(always)]
    fn rewrite(frame: &Frame<BYTES6>, to: &Transform<[u8; 16]>) {
        let [a, b, c, d] = words(to.destination);
        frame.store(38, a);
        frame.store(42, b);
        frame.store(46, c);
        frame.store(50, d);
    }

    #[inline(always)]
    fn word(addr: [u8; 16]) -> u32 {
        let [a, b, c, d] = words(addr);
        a ^ b ^ c ^ d
    }
}

/// The flow of a plain TCP packet.
#[inline(always)]
fn parse<const N: usize, F: Net<N>>(ctx: &TcContext) -> Option<(Frame<N>, FlowKey<F::Addr>)> {
    let frame = Frame::<N>::of(ctx)?;
    let (protocol, source, destination) = F::addresses(&frame)?;
    if protocol != TCP {
        return None;
    }
    let key = FlowKey {
        source,
        destination,
        source_port: u16::from_be(frame.load(F::L4)),
        destination_port: u16::from_be(frame.load(F::L4 + 2)),
        interface: frame::interface(ctx),
        protocol,
        _pad: [0; 3],
    };
    Some((frame, key))
}

#[inline(always)]
fn only_parse<const N: usize, F: Net<N>>(ctx: &TcContext) -> i32 {
    let Some((_, key)) = parse::<N, F>(ctx) else { return SHOT };
    let ports = u32::from(key.source_port) << 16 | u32::from(key.destination_port);
    // Zero for no packet that the bench makes.
    match F::word(key.source) ^ F::word(key.destination) ^ ports ^ key.interface {
        0 => SHOT,
        _ => OK,
    }
}

#[inline(always)]
fn lru<const N: usize, F: Net<N>>(ctx: &TcContext) -> i32 {
    let Some((_, key)) = parse::<N, F>(ctx) else { return SHOT };
    if F::flows().get_ptr(&key).is_some() { OK } else { SHOT }
}

#[inline(always)]
fn rewrite<const N: usize, F: Net<N>>(ctx: &TcContext) -> i32 {
    let Some((frame, key)) = parse::<N, F>(ctx) else { return SHOT };
    let Some(flow) = F::flows().get_ptr(&key) else { return SHOT };
    // SAFETY: the program runs under RCU: the element stays readable until it ends.
    let to = unsafe { &(*flow).transform };
    let bytes = &to.ethernet;
    let word =
        |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    frame.store(0, word(0));
    frame.store(4, word(4));
    frame.store(8, word(8));
    F::rewrite(&frame, to);
    frame.store(F::L4 + 2, to.destination_port.to_be());
    let check = F::L4 + 16;
    frame.store(check, checksum::apply(frame.load::<u16>(check), to.port_delta));
    frame::redirect(to.interface)
}

/// A rung that looks for a Service that is not there.
#[inline(always)]
fn miss<const N: usize, F: Net<N>>(ctx: &TcContext) -> i32 {
    let Some((_, key)) = parse::<N, F>(ctx) else { return SHOT };
    let key = ServiceKey {
        addr: key.destination,
        port: key.destination_port,
        protocol: key.protocol,
        _pad: 0,
    };
    if F::services().get_ptr(&key).is_some() { SHOT } else { OK }
}

/// Not a rung: makes the entries of the others.
#[inline(always)]
fn fill<const N: usize, F: Net<N>>(ctx: &TcContext) -> i32 {
    let Some((_, key)) = parse::<N, F>(ctx) else { return SHOT };
    let Some(template) = TEMPLATE.get(0) else { return SHOT };
    let Some(flow) = draft::<N, F>(template, &key) else { return SHOT };
    if F::flows().insert(&key, &flow, ANY).is_ok() { OK } else { SHOT }
}

#[inline(always)]
fn draft<const N: usize, F: Net<N>>(
    template: &Template,
    key: &FlowKey<F::Addr>,
) -> Option<Flow<F::Addr>> {
    let destination = F::destination(template);
    let address_delta = F::replace(key.destination, destination);
    let ports = |port: u16| u32::from(!port.to_be());
    let destination_port = u16::from_be(template.to_port as u16);
    let port_delta = checksum::add(ports(key.destination_port), destination_port.to_be().into());
    let (a, b) = (template.ethernet[0].to_ne_bytes(), template.ethernet[1].to_ne_bytes());
    let c = template.ethernet[2].to_ne_bytes();
    Some(Flow {
        state: FlowState::ACTIVE,
        transform: Transform {
            destination,
            destination_port,
            interface: template.interface,
            ip_delta: address_delta,
            port_delta: checksum::add(address_delta, port_delta),
            ethernet: [
                a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3], c[0], c[1], c[2], c[3], 0, 0,
            ],
            ..Transform::default()
        },
        ..Flow::default()
    })
}

/// The first rung, and what is subtracted.
#[classifier]
pub fn empty(_: TcContext) -> i32 {
    OK
}

macro_rules! rungs {
    ($($name4:ident, $name6:ident = $rung:ident;)+) => {$(
        #[classifier]
        pub fn $name4(ctx: TcContext) -> i32 {
            $rung::<BYTES4, Ipv4>(&ctx)
        }

        #[classifier]
        pub fn $name6(ctx: TcContext) -> i32 {
            $rung::<BYTES6, Ipv6>(&ctx)
        }
    )+};
}

rungs! {
    parse4, parse6 = only_parse;
    lru4, lru6 = lru;
    rewrite4, rewrite6 = rewrite;
    miss4, miss6 = miss;
    fill4, fill6 = fill;
}
