//! The rungs: one step more each. None of them does more than its name says.
//!
//! Keys are put together from whole words: the kernel hashes them by words, and a word that was
//! stored in parts cannot be loaded before all of them have left the store buffer.

use aya_ebpf::{
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use proxy_common::packet::checksum;

use crate::{
    frame::{self, Context, Frame},
    maps::{
        FLOWS4, FLOWS6, FlowKey, Flows, Rewrite, SERVICES4, SERVICES6, ServiceKey, Services,
        TEMPLATE,
    },
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
    /// An address by words, as they lie in the packet.
    type Addr: Copy + 'static;
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
    fn rewrite(frame: &Frame<N>, to: &Rewrite<Self::Addr>);
    /// The address as one word: a rung that only parses must not be optimised away.
    fn word(addr: Self::Addr) -> u32;
}

struct Ipv4;
struct Ipv6;

impl Net<BYTES4> for Ipv4 {
    type Addr = u32;
    const L4: usize = 34;

    #[inline(always)]
    fn flows() -> &'static Flows<u32> {
        &FLOWS4
    }

    #[inline(always)]
    fn services() -> &'static Services<u32> {
        &SERVICES4
    }

    #[inline(always)]
    fn addresses(frame: &Frame<BYTES4>) -> Option<(u8, u32, u32)> {
        let plain = frame.load::<u16>(12) == 0x0800_u16.to_be()
            && frame.load::<u8>(14) == 0x45
            && frame.load::<u16>(20) & 0x3fff_u16.to_be() == 0;
        plain.then(|| (frame.load(23), frame.load(26), frame.load(30)))
    }

    #[inline(always)]
    fn destination(template: &Template) -> u32 {
        template.to[0]
    }

    #[inline(always)]
    fn replace(from: u32, to: u32) -> u32 {
        checksum::replace(from, to)
    }

    #[inline(always)]
    fn rewrite(frame: &Frame<BYTES4>, to: &Rewrite<u32>) {
        frame.store(24, checksum::apply(frame.load::<u16>(24), to.ip_delta));
        frame.store(30, to.destination);
    }

    #[inline(always)]
    fn word(addr: u32) -> u32 {
        addr
    }
}

impl Net<BYTES6> for Ipv6 {
    type Addr = [u32; 4];
    const L4: usize = 54;

    #[inline(always)]
    fn flows() -> &'static Flows<[u32; 4]> {
        &FLOWS6
    }

    #[inline(always)]
    fn services() -> &'static Services<[u32; 4]> {
        &SERVICES6
    }

    #[inline(always)]
    fn addresses(frame: &Frame<BYTES6>) -> Option<(u8, [u32; 4], [u32; 4])> {
        let plain = frame.load::<u16>(12) == 0x86dd_u16.to_be() && frame.load::<u8>(14) >> 4 == 6;
        plain.then(|| {
            let load = |at: usize| {
                [frame.load(at), frame.load(at + 4), frame.load(at + 8), frame.load(at + 12)]
            };
            (frame.load(20), load(22), load(38))
        })
    }

    #[inline(always)]
    fn destination(template: &Template) -> [u32; 4] {
        template.to
    }

    #[inline(always)]
    fn replace(from: [u32; 4], to: [u32; 4]) -> u32 {
        let word = |at: usize| checksum::replace(from[at], to[at]);
        checksum::add(checksum::add(word(0), word(1)), checksum::add(word(2), word(3)))
    }

    #[inline(always)]
    fn rewrite(frame: &Frame<BYTES6>, to: &Rewrite<[u32; 4]>) {
        frame.store(38, to.destination[0]);
        frame.store(42, to.destination[1]);
        frame.store(46, to.destination[2]);
        frame.store(50, to.destination[3]);
    }

    #[inline(always)]
    fn word(addr: [u32; 4]) -> u32 {
        addr[0] ^ addr[1] ^ addr[2] ^ addr[3]
    }
}

/// The flow of a plain TCP packet.
#[inline(always)]
fn parse<const N: usize, F: Net<N>>(ctx: &impl Context) -> Option<(Frame<N>, FlowKey<F::Addr>)> {
    let frame = Frame::<N>::of(ctx)?;
    let (protocol, source, destination) = F::addresses(&frame)?;
    if protocol != TCP {
        return None;
    }
    let key = FlowKey {
        source,
        destination,
        ports: frame.load(F::L4),
        interface: ctx.interface(),
        protocol: protocol.into(),
    };
    Some((frame, key))
}

#[inline(always)]
fn only_parse<const N: usize, F: Net<N>>(ctx: &impl Context) -> i32 {
    let Some((_, key)) = parse::<N, F>(ctx) else { return SHOT };
    // Zero for no packet that the bench makes.
    match F::word(key.source) ^ F::word(key.destination) ^ key.ports ^ key.interface {
        0 => SHOT,
        _ => OK,
    }
}

/// Reads a word of what it found: without that, one packet's misses would hide behind the next ones'.
#[inline(always)]
fn lru<const N: usize, F: Net<N>>(ctx: &impl Context) -> i32 {
    let Some((_, key)) = parse::<N, F>(ctx) else { return SHOT };
    let Some(to) = F::flows().get_ptr(&key) else { return SHOT };
    // SAFETY: the program runs under RCU: the element stays readable until it ends.
    let interface = unsafe { (*to).interface };
    if interface != 0 { OK } else { SHOT }
}

#[inline(always)]
fn rewrite<const N: usize, F: Net<N>>(ctx: &impl Context) -> i32 {
    let Some((frame, key)) = parse::<N, F>(ctx) else { return SHOT };
    let Some(to) = F::flows().get_ptr(&key) else { return SHOT };
    // SAFETY: the program runs under RCU: the element stays readable until it ends.
    let to = unsafe { &*to };
    frame.store(0, to.ethernet[0]);
    frame.store(4, to.ethernet[1]);
    frame.store(8, to.ethernet[2]);
    F::rewrite(&frame, to);
    frame.store(F::L4 + 2, to.port as u16);
    let check = F::L4 + 16;
    frame.store(check, checksum::apply(frame.load::<u16>(check), to.l4_delta));
    frame::redirect(to.interface)
}

/// A rung that looks for a Service that is not there.
#[inline(always)]
fn miss<const N: usize, F: Net<N>>(ctx: &impl Context) -> i32 {
    let Some((_, key)) = parse::<N, F>(ctx) else { return SHOT };
    let key = ServiceKey {
        addr: key.destination,
        port_and_protocol: key.ports >> 16 | key.protocol << 16,
    };
    if F::services().get_ptr(&key).is_some() { SHOT } else { OK }
}

/// Not a rung: makes the entries of the others.
#[inline(always)]
fn fill<const N: usize, F: Net<N>>(ctx: &impl Context) -> i32 {
    let Some((_, key)) = parse::<N, F>(ctx) else { return SHOT };
    let Some(template) = TEMPLATE.get(0) else { return SHOT };
    let destination = F::destination(template);
    let ip_delta = F::replace(key.destination, destination);
    let port_delta = checksum::replace(key.ports >> 16, template.to_port);
    let to = Rewrite {
        destination,
        port: template.to_port,
        interface: template.interface,
        ip_delta,
        l4_delta: checksum::add(ip_delta, port_delta),
        ethernet: template.ethernet,
        rest: [0; 18],
    };
    if F::flows().insert(&key, &to, ANY).is_ok() { OK } else { SHOT }
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

/// At XDP only what the hash plane is compared with.
const PASS: u32 = 2;
const DROP: u32 = 1;

#[inline(always)]
fn at_xdp(action: i32) -> u32 {
    if action == OK { PASS } else { DROP }
}

/// What is subtracted at XDP.
#[xdp]
pub fn xdp_empty(_: XdpContext) -> u32 {
    PASS
}

macro_rules! rungs_at_xdp {
    ($($name4:ident, $name6:ident = $rung:ident;)+) => {$(
        #[xdp]
        pub fn $name4(ctx: XdpContext) -> u32 {
            at_xdp($rung::<BYTES4, Ipv4>(&ctx))
        }

        #[xdp]
        pub fn $name6(ctx: XdpContext) -> u32 {
            at_xdp($rung::<BYTES6, Ipv6>(&ctx))
        }
    )+};
}

rungs_at_xdp! {
    xdp_lru4, xdp_lru6 = lru;
    xdp_fill4, xdp_fill6 = fill;
}
