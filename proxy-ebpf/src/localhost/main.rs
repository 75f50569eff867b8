//! Node ports at loopback addresses: what a process of the node dials there leads to the cluster
//! IP, before a route is looked up and a source address chosen. IPVS schedules as always.
//!
//! A packet that was sent from 127.0.0.1 could not leave the node. So it is the socket's address
//! that is changed, on `connect` and on `sendmsg`; `recvmsg` undoes it for UDP, whose programs look
//! at who answers.

#![no_std]
#![no_main]
#![allow(missing_docs, reason = "the program macro makes public functions that cannot have any")]
#![expect(unreachable_pub, reason = "a binary crate: pub says what other modules use")]

mod address;

use aya_ebpf::{
    Global,
    btf_maps::{HashMap, LruHashMap},
    macros::{btf_map, cgroup_sock_addr},
    programs::SockAddrContext,
};
use network_types::ip::IpProto;
use proxy_common::abi::{LOCAL_PEERS, LOCAL_PORTS, LocalAddress, LocalPeer, LocalPort};

use crate::address::{Named, Socket, loopback_family};

#[btf_map(name = "local_ports")]
static PORTS: HashMap<LocalPort, LocalAddress, { LOCAL_PORTS.max_entries as usize }> =
    HashMap::new();

#[btf_map(name = "local_peers")]
static PEERS: LruHashMap<LocalPeer, LocalAddress, { LOCAL_PEERS.max_entries as usize }> =
    LruHashMap::new();

/// The network namespace of the agent: the programs see the sockets of all of them.
#[unsafe(no_mangle)]
static NAMESPACE: Global<u64> = Global::new(0);

/// The system call goes on.
const PROCEED: i32 = 1;

#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    dial(&Socket::new(&ctx), Named::V4)
}

#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    dial(&Socket::new(&ctx), Named::V6)
}

#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(ctx: SockAddrContext) -> i32 {
    dial(&Socket::new(&ctx), Named::V4)
}

#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(ctx: SockAddrContext) -> i32 {
    dial(&Socket::new(&ctx), Named::V6)
}

#[cgroup_sock_addr(recvmsg4)]
pub fn recvmsg4(ctx: SockAddrContext) -> i32 {
    answer(&Socket::new(&ctx), Named::V4)
}

#[cgroup_sock_addr(recvmsg6)]
pub fn recvmsg6(ctx: SockAddrContext) -> i32 {
    answer(&Socket::new(&ctx), Named::V6)
}

/// Sends a socket that dials a node port at a loopback address to where that leads.
#[inline(always)]
fn dial(socket: &Socket<'_>, named: Named) -> i32 {
    let dialled = socket.address(named);
    let Some(family) = loopback_family(&dialled.addr) else { return PROCEED };
    if socket.namespace() != NAMESPACE.load() {
        return PROCEED;
    }
    let protocol = socket.protocol();
    let port = LocalPort { port: dialled.port, protocol, family };
    // SAFETY: the value is copied at once; the agent replaces elements, it never edits them.
    let Some(target) = (unsafe { PORTS.get(port).copied() }) else { return PROCEED };
    if protocol == IpProto::Udp as u8 {
        remember(socket, target, dialled);
    }
    socket.set_address(named, &target);
    PROCEED
}

/// Notes what a UDP socket dialled. A note that is there already is not written again: it costs
/// ten times the look.
#[inline(always)]
fn remember(socket: &Socket<'_>, answers: LocalAddress, dialled: LocalAddress) {
    let peer = LocalPeer { socket: socket.cookie(), answers, _pad: [0; 4] };
    // SAFETY: compared at once. Another CPU may write the same socket's note, which says the same
    // or what that socket dialled last.
    if unsafe { PEERS.get(peer) } != Some(&dialled) {
        // A full map forgets the oldest: its socket sees the cluster IP answer.
        let _ = PEERS.insert(peer, dialled, 0);
    }
}

/// Lets an answer come from where the socket sent its question.
#[inline(always)]
fn answer(socket: &Socket<'_>, named: Named) -> i32 {
    let answers = socket.address(named);
    let peer = LocalPeer { socket: socket.cookie(), answers, _pad: [0; 4] };
    // SAFETY: the value is copied at once; it is replaced as a whole.
    if let Some(dialled) = unsafe { PEERS.get(peer).copied() } {
        socket.set_address(named, &dialled);
    }
    PROCEED
}

/// aya's entry for kernels that gate helpers by licence.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
