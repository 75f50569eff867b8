//! What the program sees of a frame at XDP and at tc alike, and the helpers that concern neither.

use aya_ebpf::helpers;
use proxy_common::abi::Plain;

use crate::outer::Headers;

/// Reads the first byte and the end of a frame from the context of either kind of program.
macro_rules! bounds {
    ($context:expr) => {{
        // SAFETY: the kernel passes a valid context; the verifier turns both words into packet
        // pointers. The reads are volatile so that no word is kept from an earlier window: kept
        // across blocks it gets zero-extended, and is no pointer any more to the verifier.
        let (start, end) = unsafe {
            let context = $context;
            let start = (&raw const (*context).data).read_volatile();
            (start, (&raw const (*context).data_end).read_volatile())
        };
        (start as usize, end as usize)
    }};
}
pub(crate) use bounds;

/// The frame that a program runs on, from the Ethernet header on.
pub trait Frame {
    /// A VLAN tag is in the frame, as on the wire; otherwise the kernel keeps it beside.
    const TAG_INSIDE: bool;
    /// The action code by which the kernel goes on with the frame.
    const PASS: u32;
    /// That by which it drops it.
    const DROP: u32;

    /// First byte and end of what can be read: pointers into the frame, to the verifier.
    fn bounds(&self) -> (usize, usize);
    /// Bytes from the Ethernet header on.
    fn len(&self) -> u32;
    /// The interface that it came in by.
    fn interface(&self) -> u32;
    /// Payload bytes of one segment, where several were received as one; 0 otherwise.
    fn gso_size(&self) -> u32;
    /// The VLAN of a tag beside the frame; a number that no VLAN has if it is no 802.1Q tag.
    fn vlan_beside(&self) -> Option<u32>;

    /// Makes all headers readable that parsing may look at. Windows taken before are invalid.
    fn pull(&self) -> bool;
    /// Makes room for these headers between Ethernet and IP, which is this far into the frame; false
    /// when there is none, and nothing changed. Windows taken before are invalid.
    fn grow(&self, headers: &Headers, ip: usize) -> bool;
    /// Gives a frame whose tag is beside it another one, or none for 0. Windows taken before are
    /// invalid.
    fn retag(&self, vlan: u16) -> bool;
    /// Sends the frame out of an interface; returns the action code.
    fn send(&self, interface: u32) -> u32;

    /// Returns `N` bytes from `at` on. That must be a constant on each path that leads here: the
    /// verifier knows no range otherwise.
    #[inline(always)]
    fn window<const N: usize>(&self, at: usize) -> Option<Window<N>> {
        let (start, end) = self.bounds();
        // The verifier understands this comparison of pointers, and not that of a difference.
        (start + at + N <= end).then_some(Window { start: (start + at) as *mut u8 })
    }

    /// Returns the whole frame, where it is no packet.
    #[inline(always)]
    fn whole<T: Plain>(&self) -> Option<&T> {
        let (start, end) = self.bounds();
        // SAFETY: as many bytes are there, all of which mean something, in any alignment as for a
        // window.
        (start + size_of::<T>() <= end).then(|| unsafe { &*(start as *const T) })
    }
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
        // SAFETY: as in `load`; the program has the frame to itself: at tc, the verifier's prologue
        // unshares one that others have, too.
        unsafe { *self.start.add(OFFSET).cast::<T>() = value }
    }
}

/// Redirects to the egress of an interface; returns the action code.
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
