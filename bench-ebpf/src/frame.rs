//! Raw packet and skb access.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::{
    EbpfContext as _,
    bindings::__sk_buff,
    helpers,
    programs::{TcContext, XdpContext},
};

/// What a program runs on.
pub trait Context {
    /// Where the frame begins and ends.
    fn bounds(&self) -> (usize, usize);
    /// The interface that it came in by.
    fn interface(&self) -> u32;
}

impl Context for TcContext {
    #[inline(always)]
    fn bounds(&self) -> (usize, usize) {
        (self.data(), self.data_end())
    }

    #[inline(always)]
    fn interface(&self) -> u32 {
        let skb: *mut __sk_buff = self.as_ptr().cast();
        // SAFETY: the kernel passes a valid context.
        unsafe { (*skb).ifindex }
    }
}

impl Context for XdpContext {
    /// Read anew each time: growing the frame moves its start.
    #[inline(always)]
    fn bounds(&self) -> (usize, usize) {
        // SAFETY: the kernel passes a valid context; the verifier turns both words into packet
        // pointers.
        let (start, end) = unsafe {
            (
                (&raw const (*self.ctx).data).read_volatile(),
                (&raw const (*self.ctx).data_end).read_volatile(),
            )
        };
        (start as usize, end as usize)
    }

    #[inline(always)]
    fn interface(&self) -> u32 {
        // SAFETY: the kernel passes a valid context; the verifier rewrites the access.
        unsafe { (*self.ctx).ingress_ifindex }
    }
}

/// The first `N` bytes of a frame, checked.
pub struct Frame<const N: usize> {
    start: *mut u8,
}

impl<const N: usize> Frame<N> {
    #[inline(always)]
    pub fn of(ctx: &impl Context) -> Option<Self> {
        let (start, end) = ctx.bounds();
        // The verifier understands this comparison of pointers, and not that of a difference.
        (start + N <= end).then_some(Self { start: start as *mut u8 })
    }

    #[inline(always)]
    pub fn load<T: Copy>(&self, at: usize) -> T {
        // SAFETY: `of` checked `N` bytes, and offsets are constants that the verifier checks against
        // that. BPF loads of any alignment are valid where the bench runs.
        unsafe { *self.start.add(at).cast::<T>() }
    }

    #[inline(always)]
    pub fn store<T>(&self, at: usize, value: T) {
        // SAFETY: as in `load`.
        unsafe { *self.start.add(at).cast::<T>() = value }
    }
}

/// Clears what a program may have left in the skb, and sets the token.
#[inline(always)]
pub fn reset(ctx: &TcContext, token: u32) {
    let skb: *mut __sk_buff = ctx.as_ptr().cast();
    // SAFETY: the kernel passes a valid context, and tc programs may write these fields.
    unsafe {
        (*skb).mark = 0;
        (*skb).priority = 0;
        (*skb).tc_index = token;
    }
}

#[inline(always)]
pub fn redirect(interface: u32) -> i32 {
    // SAFETY: no memory is involved.
    unsafe { helpers::bpf_redirect(interface, 0) as i32 }
}

/// Adds so many bytes in front of the frame, or takes some away; false when there is no room.
#[inline(always)]
pub fn grow(ctx: &XdpContext, bytes: i32) -> bool {
    // SAFETY: a plain helper call on the program's own context.
    unsafe { helpers::bpf_xdp_adjust_head(ctx.ctx, -bytes) == 0 }
}

#[inline(always)]
pub fn jiffies() -> u32 {
    // SAFETY: no memory is involved.
    unsafe { helpers::bpf_jiffies64() as u32 }
}

#[inline(always)]
pub fn cpu() -> u32 {
    // SAFETY: no memory is involved.
    unsafe { helpers::bpf_get_smp_processor_id() }
}

/// Counts one more; the instruction waits for all loads before it, and those after it wait for it.
#[inline(always)]
pub fn next(counter: &mut u32) -> u32 {
    // SAFETY: an aligned word that is alive.
    unsafe { atomic_xadd::<u32, u32, { AtomicOrdering::SeqCst }>(counter, 1) }
}
