//! Runs a program under what container runtimes forbid by default: `confined PROGRAM ARGUMENTS…`.
//!
//! Forbidden is what Docker's documentation names as blocked by its default seccomp profile, with the
//! newer calls of the same kinds, for a container that has CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON and no
//! other capability: `bpf` and `perf_event_open` are allowed to that one.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter,
};

const FORBIDDEN: &[i64] = &[
    // Mounts and roots.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_quotactl,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    // Namespaces.
    libc::SYS_setns,
    libc::SYS_unshare,
    // Modules and the machine.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_acct,
    libc::SYS_syslog,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_vhangup,
    // The clock.
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    // Keys, files by handle, other processes, memory of other nodes.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_open_by_handle_at,
    libc::SYS_kcmp,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_userfaultfd,
    libc::SYS_mbind,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    libc::SYS_set_mempolicy,
    libc::SYS_get_mempolicy,
    libc::SYS_fanotify_init,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
];

/// `CLONE_NEW*`: mount, cgroup, UTS, IPC, user, process and network namespaces.
const NEW_NAMESPACES: [u64; 7] =
    [0x2_0000, 0x200_0000, 0x400_0000, 0x800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000];
/// Sockets that reach out of a virtual machine.
const AF_VSOCK: u64 = 40;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let program = arguments.next().context("usage: confined PROGRAM ARGUMENTS…")?;
    let mut rules: Rules = FORBIDDEN.iter().map(|call| (*call, Vec::new())).collect();
    let flag = |flag| SeccompCmpOp::MaskedEq(flag);
    let clone: Result<Vec<_>> =
        NEW_NAMESPACES.into_iter().map(|bit| first_argument(flag(bit), bit)).collect();
    rules.insert(libc::SYS_clone, clone?);
    rules.insert(libc::SYS_socket, vec![first_argument(SeccompCmpOp::Eq, AF_VSOCK)?]);
    forbid(rules, libc::EPERM)?;
    // Its flags are in memory, where no filter can see them: libc is made to use the older call.
    forbid(Rules::from([(libc::SYS_clone3, Vec::new())]), libc::ENOSYS)?;
    Err(Command::new(&program).args(arguments).exec()).context(program.display().to_string())
}

fn first_argument(operator: SeccompCmpOp, value: u64) -> Result<SeccompRule> {
    let condition = SeccompCondition::new(0, SeccompCmpArgLen::Qword, operator, value)?;
    Ok(SeccompRule::new(vec![condition])?)
}

fn forbid(rules: Rules, errno: i32) -> Result<()> {
    let refused = SeccompAction::Errno(errno.unsigned_abs());
    let target = std::env::consts::ARCH.try_into()?;
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refused, target)?;
    let program: BpfProgram = filter.try_into()?;
    Ok(apply_filter(&program)?)
}
