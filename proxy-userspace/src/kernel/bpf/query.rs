//! Which programs are attached to an interface by TCX, as `BPF_PROG_QUERY` tells it.
//!
//! aya asks the kernel for each program by its id on top, which wants CAP_SYS_ADMIN. The ids alone want
//! CAP_NET_ADMIN only.

use std::io;

use aya_obj::generated::bpf_attach_type;

use super::Hook;

/// `BPF_PROG_QUERY`.
const PROG_QUERY: libc::c_int = 16;
/// Programs at one hook at most (`BPF_MPROG_MAX`).
const MOST: usize = 64;

/// The part of `union bpf_attr` that belongs to queries.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    interface: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    programs: u64,
    count: u32,
    _pad: u32,
    program_attach_flags: u64,
    links: u64,
    link_attach_flags: u64,
    revision: u64,
}

/// A program at a TCX hook.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct AtHook {
    /// Id of the program.
    pub(super) program: u32,
    /// Id of the link that attached it; 0 when it was attached without one.
    pub(super) link: u32,
}

/// Returns the programs at a TCX hook of an interface, in their order.
///
/// # Errors
///
/// `EINVAL` where the kernel has no TCX, `ENODEV` where there is no such interface.
pub(super) fn tcx(index: u32, hook: Hook) -> io::Result<Vec<AtHook>> {
    let attach_type = match hook {
        Hook::Ingress => bpf_attach_type::BPF_TCX_INGRESS,
        Hook::Egress => bpf_attach_type::BPF_TCX_EGRESS,
    };
    let (mut programs, mut links) = ([0_u32; MOST], [0_u32; MOST]);
    let mut attributes = Attributes {
        interface: index,
        attach_type: attach_type as u32,
        programs: programs.as_mut_ptr() as u64,
        count: MOST as u32,
        links: links.as_mut_ptr() as u64,
        ..Attributes::default()
    };
    // SAFETY: the kernel reads and writes the attributes, whose size it is told, and writes at most
    // `count` ids to either array, which have room for so many. All of them live until it returns.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            PROG_QUERY,
            &raw mut attributes,
            size_of::<Attributes>() as libc::c_uint,
        )
    };
    if result != 0 {
        let error = io::Error::last_os_error();
        // An interface where nothing was ever attached, in the first kernels with TCX.
        return if error.raw_os_error() == Some(libc::ENOENT) {
            Ok(Vec::new())
        } else {
            Err(error)
        };
    }
    let found = programs.into_iter().zip(links).take(attributes.count as usize);
    Ok(found.map(|(program, link)| AtHook { program, link }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_attributes_end_where_the_kernels_do() {
        // `revision` ends at byte 64 of `struct { … } query` in linux/bpf.h.
        assert_eq!(size_of::<Attributes>(), 64);
    }

    #[test]
    fn an_interface_that_is_not_there_is_an_error() {
        assert!(tcx(u32::MAX >> 1, Hook::Ingress).is_err());
    }
}
