//! The maps of flows, mapped into this process: an array of sets that begins at a page. To ask for its
//! elements by system calls would take a hundred times as long, most of it for sets in which nothing is.

use std::{io, os::fd::AsFd as _, ptr};

use aya::maps::{MapData, MapError};
use proxy_common::{
    abi::{Addr, HashFlowEntry, HashFlowSet},
    flow_place::WAYS,
};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::super::{Error, maps::failed};

/// A map of flows that can be read.
#[derive(Debug)]
pub(super) struct Mapped<A> {
    entries: ptr::NonNull<HashFlowEntry<A>>,
    count: usize,
}

// SAFETY: the memory is the kernel's and is read only, each time as it is at that moment; it belongs to
// no thread.
unsafe impl<A> Send for Mapped<A> {}
// SAFETY: as above.
unsafe impl<A> Sync for Mapped<A> {}

impl<A: Addr> Mapped<A> {
    /// Maps a map of sets of this family.
    ///
    /// # Errors
    ///
    /// [`Error::Map`], also when it is of other sets.
    pub(super) fn open(map: &MapData, name: &'static str) -> Result<Self, Error> {
        let failed = failed("map", name);
        let info = map.info().map_err(&failed)?;
        if info.value_size() as usize != size_of::<HashFlowSet<A>>() {
            return Err(failed(MapError::IoError(io::ErrorKind::InvalidInput.into())));
        }
        let count = info.max_entries() as usize * WAYS;
        // SAFETY: a new mapping, wherever the kernel wants it.
        let mapped = unsafe {
            let len = count * size_of::<HashFlowEntry<A>>();
            mmap(ptr::null_mut(), len, ProtFlags::READ, MapFlags::SHARED, map.fd().as_fd(), 0)
        };
        let entries = mapped.map_err(|errno| failed(MapError::IoError(errno.into())))?;
        let entries = ptr::NonNull::new(entries.cast());
        let entries =
            entries.ok_or_else(|| failed(MapError::IoError(io::ErrorKind::InvalidData.into())))?;
        Ok(Self { entries, count })
    }

    /// Calls `see` with the entries that are used. Each may be half of another one: its proof tells.
    pub(super) fn each(&self, mut see: impl FnMut(HashFlowEntry<A>)) {
        let mut entry = self.entries.as_ptr().cast_const();
        for _ in 0..self.count {
            // SAFETY: one of the `count` entries that are mapped as long as this is. Programs write to
            // them meanwhile, so nothing may refer to them: each read takes what is there. Every
            // pattern of bits is an entry.
            unsafe {
                if (&raw const (*entry).protocol).read_volatile() != 0 {
                    see(entry.read_volatile());
                }
                entry = entry.add(1);
            }
        }
    }
}

impl<A> Drop for Mapped<A> {
    fn drop(&mut self) {
        let len = self.count * size_of::<HashFlowEntry<A>>();
        // SAFETY: what `open` has mapped, and nobody refers to.
        let _ = unsafe { munmap(self.entries.as_ptr().cast(), len) };
    }
}
