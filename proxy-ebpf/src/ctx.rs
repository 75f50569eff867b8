//! The only raw packet and skb access.

use core::marker::PhantomData;

use aya_ebpf::{
    bindings::{__sk_buff, xdp_md},
    helpers,
    programs::{TcContext, XdpContext},
};
use proxy_common::{abi::Plain, packet::checksum};

use crate::family::Family;

/// Flags of `bpf_l4_csum_replace`, `linux/bpf.h`.
const F_PSEUDO_HDR: u64 = 1 << 4;
const F_MARK_MANGLED_0: u64 = 1 << 5;

/// What programs at tc and at XDP see of a packet alike.
pub trait Frame {
    /// First byte and end of the linear part: pointers into the packet, to the verifier.
    fn bounds(&self) -> (usize, usize);
    /// The interface the program runs on.
    fn interface(&self) -> u32;
    /// Bytes from the Ethernet header on.
    fn len(&self) -> u32;
    /// Payload bytes of a segment; 0 when it is no GSO packet.
    fn gso_size(&self) -> u32;

    /// Returns the headers, and `N` bytes from the L4 header on, when they are in the linear part.
    #[inline(always)]
    fn headers<F: Family, const N: usize>(&self) -> Option<Headers<F, N>> {
        let (start, end) = self.bounds();
        // The verifier understands this comparison of pointers, and not that of a difference.
        (start + F::L4 + N <= end)
            .then_some(Headers { start: start as *mut u8, family: PhantomData })
    }
}

/// The packet a tc program runs on.
pub struct Skb<'a> {
    ctx: &'a TcContext,
}

/// The frame an XDP program runs on: as it was received, a VLAN tag in it.
pub struct XdpFrame<'a> {
    ctx: &'a XdpContext,
}

/// The headers of a frame up to the L4 header and `N` bytes of that, all in the linear part and
/// checked against `data_end`. A helper that may move the packet invalidates it: take a new one.
pub struct Headers<F, const N: usize> {
    start: *mut u8,
    family: PhantomData<F>,
}

impl<F: Family, const N: usize> Headers<F, N> {
    /// Loads a field before the L4 header, `OFFSET` bytes from the start of the frame, in the byte
    /// order of the packet.
    #[inline(always)]
    pub fn frame<T: Plain, const OFFSET: usize>(&self) -> T {
        const { assert!(OFFSET + size_of::<T>() <= F::L4, "not before the L4 header") };
        self.load(OFFSET)
    }

    /// Loads a field of the L4 header or its payload, `OFFSET` bytes from the start of that header.
    #[inline(always)]
    pub fn l4<T: Plain, const OFFSET: usize>(&self) -> T {
        const { assert!(OFFSET + size_of::<T>() <= N, "outside the window") };
        self.load(F::L4 + OFFSET)
    }

    /// Stores a field before the L4 header.
    #[inline(always)]
    pub fn store_frame<T: Plain, const OFFSET: usize>(&self, value: T) {
        const { assert!(OFFSET + size_of::<T>() <= F::L4, "not before the L4 header") };
        self.store(OFFSET, value);
    }

    /// Stores a field of the L4 header.
    #[inline(always)]
    pub fn store_l4<T: Plain, const OFFSET: usize>(&self, value: T) {
        const { assert!(OFFSET + size_of::<T>() <= N, "outside the window") };
        self.store(F::L4 + OFFSET, value);
    }

    #[inline(always)]
    fn load<T: Plain>(&self, offset: usize) -> T {
        // SAFETY: the constructor checked `F::L4 + N` bytes from `start`, and the callers that the
        // field ends within them. Fields of network headers are not aligned to T from the frame's
        // start; BPF loads of any alignment are valid on the architectures Passlane supports, and
        // the verifier refuses the program elsewhere.
        unsafe { *self.start.add(offset).cast::<T>() }
    }

    #[inline(always)]
    fn store<T: Plain>(&self, offset: usize, value: T) {
        // SAFETY: as in `load`; the program has the packet to itself, and the verifier's prologue
        // unshares a cloned one before a program that writes.
        unsafe { *self.start.add(offset).cast::<T>() = value }
    }
}

/// Reads a field of `__sk_buff`.
macro_rules! field {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[inline(always)]
        pub fn $name(&self) -> u32 {
            // SAFETY: the kernel passes a valid context; the verifier rewrites the access.
            unsafe { (*self.raw()).$name }
        }
    };
}

impl<'a> Skb<'a> {
    #[inline(always)]
    pub fn new(ctx: &'a TcContext) -> Self {
        Self { ctx }
    }

    #[inline(always)]
    fn raw(&self) -> *mut __sk_buff {
        self.ctx.skb.skb
    }

    field!(
        /// `PACKET_HOST` and so on.
        pkt_type
    );
    field!(
        /// EtherType, network order.
        protocol
    );
    field!(
        /// Not 0 when a VLAN tag is kept beside the packet.
        vlan_present
    );
    field!(
        /// The token.
        tc_index
    );
    field!(
        /// Firewall mark.
        mark
    );
    field!(
        /// Queueing priority.
        priority
    );

    /// Sets the token.
    #[inline(always)]
    pub fn set_tc_index(&self, token: u32) {
        // SAFETY: as for reads; tc programs may write this field.
        unsafe { (*self.raw()).tc_index = token }
    }

    /// Sets firewall mark and queueing priority.
    #[inline(always)]
    pub fn set_mark_and_priority(&self, mark: u32, priority: u32) {
        // SAFETY: as for reads; tc programs may write both fields.
        unsafe {
            (*self.raw()).mark = mark;
            (*self.raw()).priority = priority;
        }
    }

    /// Pulls `len` bytes into the linear part. Windows taken before are invalid.
    #[inline(always)]
    pub fn pull(&self, len: u32) -> bool {
        self.ctx.pull_data(len).is_ok()
    }

    /// Corrects the L4 checksum, `AT` bytes from the start of the L4 header, by precomputed
    /// differences, in whichever way the skb keeps it (none, complete, partial). Windows taken before
    /// are invalid.
    ///
    /// The helper corrects it for the addresses. A program cannot see in which way the skb keeps it,
    /// but what the helper did tells: only a checksum that is in the packet already has the ports in
    /// it, and is corrected for them here, which costs half of another call.
    #[inline(always)]
    pub fn fix_l4_checksum<F: Family, const N: usize, const AT: usize>(
        &self,
        udp: bool,
        address_delta: u32,
        port_delta: u32,
    ) {
        let Some(headers) = self.headers::<F, N>() else { return };
        let before = headers.l4::<u16, AT>();
        if udp && before == 0 {
            return;
        }
        let at = (F::L4 + AT) as u32;
        let mangled = if udp { F_MARK_MANGLED_0 } else { 0 };
        self.replace_in_l4_checksum(at, address_delta, F_PSEUDO_HDR | mangled);
        if port_delta == 0 {
            return;
        }
        let Some(headers) = self.headers::<F, N>() else { return };
        // UDP has no checksum of zero: that says that there is none.
        let sent = |check: u16| if udp && check == 0 { 0xffff } else { check };
        let full = sent(checksum::kernel_apply(before, address_delta));
        if full == before || before == 0xffff {
            // Addresses of the same sum, perhaps: nothing can be told.
            self.replace_in_l4_checksum(at, port_delta, mangled);
        } else if full == headers.l4::<u16, AT>() {
            headers.store_l4::<u16, AT>(sent(checksum::kernel_apply(full, port_delta)));
        }
    }

    #[inline(always)]
    fn replace_in_l4_checksum(&self, at: u32, delta: u32, flags: u64) {
        // SAFETY: a plain helper call on the program's own packet. Its only failure is an offset
        // outside the packet, which parsing has ruled out.
        unsafe { helpers::bpf_l4_csum_replace(self.raw(), at, 0, delta.into(), flags) };
    }

    /// Adds a difference to the sum of the whole packet, where a device has supplied one
    /// (`CHECKSUM_COMPLETE`).
    #[inline(always)]
    pub fn add_to_sum(&self, delta: u32) {
        // SAFETY: a plain helper call on the program's own packet; without such a sum it does
        // nothing but say so.
        unsafe { helpers::bpf_csum_update(self.raw(), delta) };
    }
}

impl Frame for Skb<'_> {
    #[inline(always)]
    fn bounds(&self) -> (usize, usize) {
        // SAFETY: the kernel passes a valid context; the verifier turns both words into packet
        // pointers. The reads are volatile so that no word is kept from an earlier window: kept
        // across blocks it gets zero-extended, and is no pointer any more to the verifier.
        let (start, end) = unsafe {
            let raw = self.raw();
            ((&raw const (*raw).data).read_volatile(), (&raw const (*raw).data_end).read_volatile())
        };
        (start as usize, end as usize)
    }

    #[inline(always)]
    fn interface(&self) -> u32 {
        // SAFETY: the kernel passes a valid context; the verifier rewrites the access.
        unsafe { (*self.raw()).ifindex }
    }

    #[inline(always)]
    fn len(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.raw()).len }
    }

    #[inline(always)]
    fn gso_size(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.raw()).gso_size }
    }
}

impl<'a> XdpFrame<'a> {
    #[inline(always)]
    pub fn new(ctx: &'a XdpContext) -> Self {
        Self { ctx }
    }

    #[inline(always)]
    fn raw(&self) -> *mut xdp_md {
        self.ctx.ctx
    }
}

impl Frame for XdpFrame<'_> {
    #[inline(always)]
    fn bounds(&self) -> (usize, usize) {
        // SAFETY: as for an skb, and volatile for the same reason.
        let (start, end) = unsafe {
            let raw = self.raw();
            ((&raw const (*raw).data).read_volatile(), (&raw const (*raw).data_end).read_volatile())
        };
        (start as usize, end as usize)
    }

    #[inline(always)]
    fn interface(&self) -> u32 {
        // SAFETY: the kernel passes a valid context; the verifier rewrites the access.
        unsafe { (*self.raw()).ingress_ifindex }
    }

    #[inline(always)]
    fn len(&self) -> u32 {
        let (start, end) = self.bounds();
        end.wrapping_sub(start) as u32
    }

    /// A frame is what came over the wire: drivers aggregate nothing below XDP.
    #[inline(always)]
    fn gso_size(&self) -> u32 {
        0
    }
}

/// Redirects to the egress of an interface; returns the action code.
#[inline(always)]
pub fn redirect(interface: u32) -> i32 {
    // SAFETY: no memory is involved.
    unsafe { helpers::bpf_redirect(interface, 0) as i32 }
}

/// Redirects to the ingress of an interface's peer in its namespace; returns the action code.
#[inline(always)]
pub fn redirect_peer(interface: u32) -> i32 {
    // SAFETY: no memory is involved.
    unsafe { helpers::bpf_redirect_peer(interface, 0) as i32 }
}

/// Returns the low 32 bits of jiffies. The JIT inlines it.
#[inline(always)]
pub fn jiffies() -> u32 {
    // SAFETY: no memory is involved.
    unsafe { helpers::bpf_jiffies64() as u32 }
}

/// Returns the CPU the program runs on.
#[inline(always)]
pub fn cpu() -> u32 {
    // SAFETY: no memory is involved.
    unsafe { helpers::bpf_get_smp_processor_id() }
}
