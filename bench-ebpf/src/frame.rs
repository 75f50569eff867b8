//! Raw packet and skb access.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::{EbpfContext as _, bindings::__sk_buff, helpers, programs::TcContext};

/// The first `N` bytes of a frame, checked.
pub struct Frame<const N: usize> {
    start: *mut u8,
}

impl<const N: usize> Frame<N> {
    #[inline(always)]
    pub fn of(ctx: &TcContext) -> Option<Self> {
        // The verifier understands this comparison of pointers, and not that of a difference.
        (ctx.data() + N <= ctx.data_end()).then_some(Self { start: ctx.data() as *mut u8 })
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

#[inline(always)]
pub fn interface(ctx: &TcContext) -> u32 {
    let skb: *mut __sk_buff = ctx.as_ptr().cast();
    // SAFETY: the kernel passes a valid context.
    unsafe { (*skb).ifindex }
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
