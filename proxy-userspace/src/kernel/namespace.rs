//! The network namespace of the calling thread, and new ones.

use std::{io, os::fd::AsRawFd as _, thread};

use rustix::{
    net::{AddressFamily, SocketType, socket},
    thread::{UnshareFlags, unshare_unsafe},
};

/// Returns the cookie that the kernel gave the namespace when it was made: BPF programs know
/// namespaces by it (`SO_NETNS_COOKIE`, Linux 5.14).
///
/// # Errors
///
/// Those of `socket` and `getsockopt`.
pub fn cookie() -> io::Result<u64> {
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    let mut cookie = 0_u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, which `cookie` has room for; both live
    // until the call returns, and the descriptor is open.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}

/// Does work on a thread of its own, in a network namespace that nobody else is in and that ends with
/// it. Needs CAP_SYS_ADMIN.
///
/// # Errors
///
/// Those of `unshare`.
pub fn in_new<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = scope.spawn(move || {
            // SAFETY: file descriptors stay shared; the namespace is a matter of this thread alone.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
            Ok(work())
        });
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread of the work panicked")))
    })
}
