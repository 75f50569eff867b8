//! The address in a socket's system call: the only raw access to `bpf_sock_addr`.
//!
//! Fields are read and written a word at a time, as `sock_addr_is_valid_access` allows.

use aya_ebpf::{
    EbpfContext as _,
    helpers::{bpf_get_netns_cookie, bpf_get_socket_cookie},
    programs::SockAddrContext,
};
use proxy_common::abi::LocalAddress;

const MAPPED: [u32; 3] = [0, 0, 0xffff_u32.to_be()];

/// Which fields hold the address: those of the system call's family.
#[derive(Clone, Copy)]
pub enum Named {
    V4,
    V6,
}

pub struct Socket<'a> {
    ctx: &'a SockAddrContext,
}

impl<'a> Socket<'a> {
    pub fn new(ctx: &'a SockAddrContext) -> Self {
        Self { ctx }
    }

    /// Returns the address of the call; one of IPv4 is IPv4-mapped, as sockets of IPv6 name it.
    #[inline(always)]
    pub fn address(&self, named: Named) -> LocalAddress {
        let raw = self.ctx.sock_addr;
        // SAFETY: the context is valid for the run of the program; each read is one word.
        let (words, port) = unsafe {
            let words = match named {
                Named::V4 => {
                    let addr = (&raw const (*raw).user_ip4).read_volatile();
                    [MAPPED[0], MAPPED[1], MAPPED[2], addr]
                }
                Named::V6 => {
                    let addr = (&raw const (*raw).user_ip6).cast::<u32>();
                    [
                        addr.read_volatile(),
                        addr.add(1).read_volatile(),
                        addr.add(2).read_volatile(),
                        addr.add(3).read_volatile(),
                    ]
                }
            };
            (words, (&raw const (*raw).user_port).read_volatile())
        };
        LocalAddress { addr: bytes(words), port: u16::from_be(port as u16), _pad: [0; 2] }
    }

    /// Replaces the address of the call.
    #[inline(always)]
    pub fn set_address(&self, named: Named, to: &LocalAddress) {
        let raw = self.ctx.sock_addr;
        let words = words(to.addr);
        // SAFETY: as in `address`; these fields may be written on these hooks.
        unsafe {
            match named {
                Named::V4 => (&raw mut (*raw).user_ip4).write_volatile(words[3]),
                Named::V6 => {
                    let addr = (&raw mut (*raw).user_ip6).cast::<u32>();
                    addr.write_volatile(words[0]);
                    addr.add(1).write_volatile(words[1]);
                    addr.add(2).write_volatile(words[2]);
                    addr.add(3).write_volatile(words[3]);
                }
            }
            (&raw mut (*raw).user_port).write_volatile(to.port.to_be().into());
        }
    }

    /// Returns the IP protocol of the socket.
    #[inline(always)]
    pub fn protocol(&self) -> u8 {
        // SAFETY: as in `address`.
        unsafe { (&raw const (*self.ctx.sock_addr).protocol).read_volatile() as u8 }
    }

    /// Returns what identifies the socket for as long as it lives.
    #[inline(always)]
    pub fn cookie(&self) -> u64 {
        // SAFETY: the helper takes the program's context.
        unsafe { bpf_get_socket_cookie(self.ctx.as_ptr()) }
    }

    /// Returns what identifies the network namespace of the socket.
    #[inline(always)]
    pub fn namespace(&self) -> u64 {
        // SAFETY: the helper takes the program's context.
        unsafe { bpf_get_netns_cookie(self.ctx.as_ptr()) }
    }
}

/// Returns the family of a loopback address: 4 for 127.0.0.0/8, 6 for ::1.
#[inline(always)]
pub fn loopback_family(addr: &[u8; 16]) -> Option<u8> {
    let words = words(*addr);
    match [words[0], words[1], words[2]] {
        MAPPED if addr[12] == 127 => Some(4),
        [0, 0, 0] if words[3] == 1_u32.to_be() => Some(6),
        _ => None,
    }
}

#[inline(always)]
fn words(addr: [u8; 16]) -> [u32; 4] {
    let word = |at: usize| u32::from_ne_bytes([addr[at], addr[at + 1], addr[at + 2], addr[at + 3]]);
    [word(0), word(4), word(8), word(12)]
}

#[inline(always)]
fn bytes(words: [u32; 4]) -> [u8; 16] {
    let [a, b, c, d] = words.map(u32::to_ne_bytes);
    [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3], c[0], c[1], c[2], c[3], d[0], d[1], d[2], d[3]]
}
