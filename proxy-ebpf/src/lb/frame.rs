//! The only raw access to frames, and the helpers that concern them.

use aya_ebpf::{bindings::xdp_md, helpers, programs::XdpContext};
use proxy_common::abi::Plain;

/// The frame that the program runs on: as it was received, a VLAN tag in it.
pub struct Frame<'a> {
    ctx: &'a XdpContext,
}

/// `N` bytes of the frame, checked against its end. Growing the frame invalidates it.
pub struct Window<const N: usize> {
    start: *mut u8,
}

impl<const N: usize> Window<N> {
    /// Loads a field, in the byte order of the packet.
    #[inline(always)]
    pub fn load<T: Plain, const OFFSET: usize>(&self) -> T {
        const { assert!(OFFSET + size_of::<T>() <= N, "outside the window") };
        // SAFETY: the constructor checked `N` bytes. Loads of any alignment are valid on the
        // architectures that Passlane supports, and the verifier refuses the program elsewhere.
        unsafe { *self.start.add(OFFSET).cast::<T>() }
    }

    /// Stores a field.
    #[inline(always)]
    pub fn store<T: Plain, const OFFSET: usize>(&self, value: T) {
        const { assert!(OFFSET + size_of::<T>() <= N, "outside the window") };
        // SAFETY: as in `load`; the program has the frame to itself.
        unsafe { *self.start.add(OFFSET).cast::<T>() = value }
    }
}

impl<'a> Frame<'a> {
    #[inline(always)]
    pub fn new(ctx: &'a XdpContext) -> Self {
        Self { ctx }
    }

    /// Returns `N` bytes from `at` on. That must be a constant on each path that leads here: the
    /// verifier knows no range otherwise.
    #[inline(always)]
    pub fn window<const N: usize>(&self, at: usize) -> Option<Window<N>> {
        let (start, end) = self.bounds();
        // The verifier understands this comparison of pointers, and not that of a difference.
        (start + at + N <= end).then_some(Window { start: (start + at) as *mut u8 })
    }

    /// Bytes from the Ethernet header on.
    #[inline(always)]
    pub fn len(&self) -> u32 {
        let (start, end) = self.bounds();
        end.wrapping_sub(start) as u32
    }

    /// The interface that it came in by.
    #[inline(always)]
    pub fn interface(&self) -> u32 {
        // SAFETY: the kernel passes a valid context; the verifier rewrites the access.
        unsafe { (*self.raw()).ingress_ifindex }
    }

    /// Adds so many bytes in front of the frame, or takes some away; false when there is no room, and
    /// nothing changed. Windows taken before are invalid.
    #[inline(always)]
    pub fn grow(&self, bytes: i32) -> bool {
        // SAFETY: a plain helper call on the program's own context.
        bytes == 0 || unsafe { helpers::bpf_xdp_adjust_head(self.raw(), -bytes) } == 0
    }

    #[inline(always)]
    fn raw(&self) -> *mut xdp_md {
        self.ctx.ctx
    }

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
}

/// Redirects to an interface; returns the action code.
#[inline(always)]
pub fn redirect(interface: u32) -> u32 {
    // SAFETY: no memory is involved.
    unsafe { helpers::bpf_redirect(interface, 0) as u32 }
}

/// Returns the low 32 bits of jiffies. The JIT inlines it.
#[inline(always)]
pub fn jiffies() -> u32 {
    // SAFETY: no memory is involved.
    unsafe { helpers::bpf_jiffies64() as u32 }
}
