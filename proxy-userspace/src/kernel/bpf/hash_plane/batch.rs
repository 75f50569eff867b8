//! Reads and writes many elements with one system call (`BPF_MAP_LOOKUP_BATCH` and
//! `BPF_MAP_UPDATE_BATCH`, Linux 5.6): a table has thousands, and what replaces a table waits until no
//! program uses the old one.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _},
};

use aya::maps::MapData;

use super::super::fingerprint::{Attributes, LOOKUP_BATCH};

/// `BPF_MAP_UPDATE_BATCH`.
const UPDATE_BATCH: libc::c_int = 26;

/// Writes elements, by index: slots of a table, or file descriptors of tables.
pub(super) fn write(map: &MapData, elements: &[(u32, u32)]) -> io::Result<()> {
    // The kernel does not write to either.
    let (mut keys, mut values): (Vec<u32>, Vec<u32>) = elements.iter().copied().unzip();
    match call(UPDATE_BATCH, map, &mut keys, &mut values)? {
        written if written == elements.len() => Ok(()),
        _ => Err(io::Error::from(io::ErrorKind::WriteZero)),
    }
}

/// Returns the slots of a table of so many.
pub(super) fn read(table: &MapData, slots: usize) -> io::Result<Vec<u32>> {
    let (mut keys, mut values) = (vec![0; slots], vec![0; slots]);
    match call(LOOKUP_BATCH, table, &mut keys, &mut values)? {
        read if read == slots => Ok(values),
        _ => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
    }
}

/// Calls the kernel with as many keys as values; returns how many elements it treated. The map is an
/// array, and its values have 4 bytes.
fn call(
    command: libc::c_int,
    map: &MapData,
    keys: &mut [u32],
    values: &mut [u32],
) -> io::Result<usize> {
    let mut next = 0_u32;
    let mut attributes = Attributes {
        out_batch: (&raw mut next) as u64,
        keys: keys.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        count: keys.len().min(values.len()) as u32,
        map_fd: map.fd().as_fd().as_raw_fd() as u32,
        ..Attributes::default()
    };
    // SAFETY: the kernel reads and writes the attributes, whose size it is told. It reads or writes at
    // most `count` keys and values of 4 bytes each, which both buffers have room for, and one key at
    // `out_batch`. All of them live until it returns.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            &raw mut attributes,
            size_of::<Attributes>() as libc::c_uint,
        )
    };
    match result {
        0 => Ok(attributes.count as usize),
        _ => Err(io::Error::last_os_error()),
    }
}
