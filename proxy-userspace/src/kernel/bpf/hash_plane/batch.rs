//! Reads and writes many elements with one system call (`BPF_MAP_LOOKUP_BATCH` and
//! `BPF_MAP_UPDATE_BATCH`, Linux 5.6): a table has thousands, and what replaces a table waits until no
//! program uses the old one.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _},
};

use aya::{Pod, maps::MapData};
use proxy_common::abi::Plain;

use super::super::{
    fingerprint::{Attributes, LOOKUP_BATCH},
    maps::Abi,
};

/// `BPF_MAP_UPDATE_BATCH`.
const UPDATE_BATCH: libc::c_int = 26;

/// Writes elements, by index: slots of a table, or file descriptors of tables.
pub(super) fn write(map: &MapData, elements: &[(u32, u32)]) -> io::Result<()> {
    // The kernel does not write to either.
    let (mut keys, mut values): (Vec<u32>, Vec<u32>) = elements.iter().copied().unzip();
    match call(UPDATE_BATCH, map, None, &mut keys, &mut values)? {
        written if written == elements.len() => Ok(()),
        _ => Err(io::Error::from(io::ErrorKind::WriteZero)),
    }
}

/// Returns so many elements of an array, from an index on.
pub(super) fn read<V: Plain + Default>(
    array: &MapData,
    first: u32,
    count: u32,
) -> io::Result<Vec<Abi<V>>> {
    let mut keys = vec![0; count as usize];
    let mut values = vec![Abi(V::default()); count as usize];
    match call(LOOKUP_BATCH, array, first.checked_sub(1), &mut keys, &mut values)? {
        read if read == values.len() => Ok(values),
        _ => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
    }
}

/// Calls the kernel with as many keys as values, for what comes behind a key; returns how many elements
/// it treated.
fn call<V: Pod>(
    command: libc::c_int,
    map: &MapData,
    behind: Option<u32>,
    keys: &mut [u32],
    values: &mut [V],
) -> io::Result<usize> {
    let value_size = map.info().map_err(io::Error::other)?.value_size() as usize;
    if value_size != size_of::<V>() {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let mut next = 0_u32;
    let mut attributes = Attributes {
        in_batch: behind.as_ref().map_or(0, |key| (&raw const *key) as u64),
        out_batch: (&raw mut next) as u64,
        keys: keys.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        count: keys.len().min(values.len()) as u32,
        map_fd: map.fd().as_fd().as_raw_fd() as u32,
        ..Attributes::default()
    };
    // SAFETY: the kernel reads and writes the attributes, whose size it is told. The map is an array of
    // values of the size of `V`, for which every pattern of bits is one: it reads or writes at most
    // `count` of them and of its keys, which both buffers have room for, and one key at `in_batch` and
    // at `out_batch`. All of them live until it returns.
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
