//! Counts what is asked of the allocator.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicU64, Ordering},
};

static COUNT: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);

/// The system's allocator, with counters. Growing counts as allocating what is new.
pub(crate) struct Counting;

fn count(bytes: usize) {
    COUNT.fetch_add(1, Ordering::Relaxed);
    BYTES.fetch_add(bytes as u64, Ordering::Relaxed);
}

// SAFETY: every call goes to the system's allocator with its arguments as they are, and the
// counters allocate nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller upholds the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller upholds the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size.saturating_sub(layout.size()));
        // SAFETY: the caller upholds the contract of `realloc`; the block is the system's.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller upholds the contract of `dealloc`; the block is the system's.
        unsafe { System.dealloc(block, layout) }
    }
}

/// Counter values at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    count: u64,
    bytes: u64,
}

impl Mark {
    /// Reads the counters.
    pub(crate) fn now() -> Self {
        Self { count: COUNT.load(Ordering::Relaxed), bytes: BYTES.load(Ordering::Relaxed) }
    }

    /// Returns how many allocations, and of how many bytes, were made since.
    pub(crate) fn since(self) -> (u64, u64) {
        let now = Self::now();
        (now.count - self.count, now.bytes - self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allocation_is_counted_with_its_size() {
        let mark = Mark::now();
        let block = std::hint::black_box(Vec::<u8>::with_capacity(1 << 20));
        let (count, bytes) = mark.since();
        assert!(count >= 1 && bytes >= 1 << 20, "{count} {bytes}");
        drop(block);
    }
}
