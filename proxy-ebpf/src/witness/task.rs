//! The task that runs, read where the agent says that the kernel keeps it: the only access to the
//! kernel's memory.

use aya_ebpf::{
    Global,
    bindings::bpf_pidns_info,
    helpers::{
        bpf_get_current_pid_tgid, bpf_get_current_task, bpf_get_ns_current_pid_tgid,
        bpf_probe_read_kernel,
    },
};

#[unsafe(no_mangle)]
static PROCESS: Global<u64> = Global::new(0);

#[unsafe(no_mangle)]
static PROCESSES: Global<u64> = Global::new(0);

#[unsafe(no_mangle)]
static DEVICE: Global<u64> = Global::new(0);

#[unsafe(no_mangle)]
static NETWORK: Global<u64> = Global::new(0);

#[unsafe(no_mangle)]
static TASK_PARENT: Global<u64> = Global::new(0);

#[unsafe(no_mangle)]
static TASK_PROCESS: Global<u64> = Global::new(0);

#[unsafe(no_mangle)]
static TASK_NAMESPACES: Global<u64> = Global::new(0);

#[unsafe(no_mangle)]
static NAMESPACES_NET: Global<u64> = Global::new(0);

#[unsafe(no_mangle)]
static NET_INODE: Global<u64> = Global::new(0);

/// Says whether the task that runs is one of the agent's.
#[inline(always)]
pub fn is_agent() -> bool {
    let mut ids = bpf_pidns_info { pid: 0, tgid: 0 };
    // SAFETY: the helper writes at most the size of what it is given, which lives until it returns.
    let result = unsafe {
        bpf_get_ns_current_pid_tgid(
            DEVICE.load(),
            PROCESSES.load(),
            &raw mut ids,
            size_of::<bpf_pidns_info>() as u32,
        )
    };
    result == 0 && u64::from(ids.tgid) == PROCESS.load()
}

/// Address of a `struct task_struct`.
#[derive(Clone, Copy)]
pub struct Task(u64);

impl Task {
    #[inline(always)]
    pub fn current() -> Self {
        // SAFETY: the helper only tells an address.
        Self(unsafe { bpf_get_current_task() })
    }

    /// Returns the process id of the task that runs, in the first PID namespace.
    #[inline(always)]
    pub fn current_process() -> u32 {
        (bpf_get_current_pid_tgid() >> 32) as u32
    }

    /// Returns the process id of who started it; 0 when it cannot be read.
    #[inline(always)]
    pub fn parent(self) -> u32 {
        read(read::<u64>(self.0, &TASK_PARENT), &TASK_PROCESS)
    }

    /// Says whether it is in the agent's network namespace.
    #[inline(always)]
    pub fn is_near(self) -> bool {
        let namespaces = read::<u64>(self.0, &TASK_NAMESPACES);
        let inode: u32 = read(read::<u64>(namespaces, &NAMESPACES_NET), &NET_INODE);
        u64::from(inode) == NETWORK.load()
    }
}

#[inline(always)]
fn read<T: Default>(base: u64, offset: &Global<u64>) -> T {
    let from = base.wrapping_add(offset.load()) as *const T;
    // SAFETY: the helper checks the address itself, and fails where nothing can be read; every bit
    // pattern is a value of the integers that it is asked for.
    unsafe { bpf_probe_read_kernel(from) }.unwrap_or_default()
}
