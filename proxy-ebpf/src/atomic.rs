//! What `core::sync::atomic` does not offer for BPF: it has no compare and exchange there.

use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd};

/// Replaces `old` by `new` at `word`; true when it was `old`. One BPF `cmpxchg`.
///
/// # Safety
///
/// `word` points to an aligned word of a map element that is alive.
#[inline(always)]
pub unsafe fn replace(word: *mut u32, old: u32, new: u32) -> bool {
    // SAFETY: the caller upholds it.
    let (_, replaced) = unsafe {
        atomic_cxchg::<u32, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(word, old, new)
    };
    replaced
}

/// Adds to `word`. One BPF instruction.
///
/// # Safety
///
/// `word` points to an aligned word of a map element that is alive.
#[inline(always)]
pub unsafe fn add(word: *mut u64, value: u64) {
    // SAFETY: the caller upholds it. Nothing else is ordered by it.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(word, value) };
}
