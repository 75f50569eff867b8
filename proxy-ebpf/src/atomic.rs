//! Compare and exchange, which `core::sync::atomic` does not offer for BPF.

use core::intrinsics::{AtomicOrdering, atomic_cxchg};

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
