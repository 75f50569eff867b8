//! Who changes the node, by probes of the kernel's functions that do it. They end with the agent.

use std::{fs, io, os::unix::fs::MetadataExt as _, time::Duration};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, MapData},
    programs::{KProbe, ProgramError},
};
use proxy_common::abi::{DEEDS, Deed, Doer as Seen, LAST, Part as Code, WitnessSetting};
use rustix::{
    fs::{major, minor},
    time::{ClockId, clock_gettime},
};

use super::{
    Error,
    load::verified_instructions,
    maps::{Abi, failed},
};
use crate::kernel::btf;

/// The object that `cargo xtask build-ebpf` made.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/witness.bpf.o"));

/// A part of the node.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Part {
    /// Virtual servers and destinations.
    Ipvs,
    /// The nft ruleset.
    Nft,
    /// Routes, addresses and links.
    Address,
    /// Sysctls.
    Sysctl,
}

/// A process that changed something.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Doer {
    /// Name of the program, at most 15 bytes.
    pub command: String,
    /// Process id, in the first PID namespace.
    pub process: u32,
    /// User id, in the first user namespace.
    pub user: u32,
}

/// Who changes something.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum By {
    /// Anybody but the agent.
    Others,
    /// The agent.
    Agent,
}

/// The probes, attached.
pub struct Witness {
    programs: Ebpf,
    deeds: HashMap<MapData, Abi<Deed>, Abi<Seen>>,
    last: Array<MapData, u64>,
    parts: Vec<Part>,
    whole: Vec<Part>,
}

/// A program, and the functions of the kernel that it is put before. All are called by address, so
/// none is inlined; older kernels lack some.
struct Probe {
    part: Part,
    program: &'static str,
    functions: &'static [&'static str],
}

const PROBES: [Probe; 4] = [
    Probe {
        part: Part::Ipvs,
        program: "sees_ipvs",
        functions: &["ip_vs_genl_set_cmd", "do_ip_vs_set_ctl"],
    },
    Probe { part: Part::Nft, program: "sees_nft", functions: &["nf_tables_commit"] },
    Probe {
        part: Part::Address,
        program: "sees_address",
        functions: &[
            "inet_rtm_delroute",
            "inet6_rtm_delroute",
            "inet_rtm_deladdr",
            "inet6_rtm_deladdr",
            "rtnl_newlink",
            "rtnl_setlink",
            "rtnl_dellink",
        ],
    },
    Probe { part: Part::Sysctl, program: "sees_sysctl", functions: &["proc_sys_write"] },
];

/// What the agent reads IPVS by.
const READS: [&str; 2] = ["ip_vs_genl_get_cmd", "ip_vs_genl_dump_services"];

/// Where the kernel keeps what the programs read.
const FIELDS: [(&str, btf::Field); 4] = [
    (WitnessSetting::TASK_PARENT, ("task_struct", "real_parent")),
    (WitnessSetting::TASK_PROCESS, ("task_struct", "tgid")),
    (WitnessSetting::TASK_NAMESPACES, ("task_struct", "nsproxy")),
    (WitnessSetting::NAMESPACES_NET, ("nsproxy", "net_ns")),
];
/// Added up, they are [`WitnessSetting::NET_INODE`].
const INODE: [btf::Field; 2] = [("net", "ns"), ("ns_common", "inum")];

/// Why nobody is seen.
#[derive(Debug, thiserror::Error)]
pub enum Blindness {
    /// The kernel does not tell its types.
    #[error("read the types of the kernel (CONFIG_DEBUG_INFO_BTF)")]
    Types(#[source] io::Error),
    /// The namespaces cannot be told.
    #[error("read the namespaces of the agent")]
    Namespace(#[source] io::Error),
    /// The kernel refused the programs.
    #[error(transparent)]
    Bpf(#[from] Error),
    /// No function could be probed.
    #[error("probe a function of the kernel (CONFIG_KPROBES, CAP_PERFMON, no lockdown)")]
    Probes(#[source] Box<ProgramError>),
}

impl Witness {
    /// Attaches the probes. Functions that this kernel does not have are left out.
    ///
    /// # Errors
    ///
    /// The kernel has no types, does not let the programs in, or none of the probes.
    pub fn attach() -> Result<Self, Blindness> {
        let mut programs = load()?;
        probe(&mut programs, "sees_agent", &READS)?;
        let (mut parts, mut whole, mut refused) = (Vec::new(), Vec::new(), None);
        for Probe { part, program, functions } in &PROBES {
            let Probed { attached, refusal } = probe(&mut programs, program, functions)?;
            parts.extend((attached > 0).then_some(*part));
            whole.extend((attached == functions.len()).then_some(*part));
            refused = refusal.or(refused);
        }
        if let (true, Some(error)) = (parts.is_empty(), refused) {
            return Err(Blindness::Probes(Box::new(error)));
        }
        let mut take = |name| programs.take_map(name).ok_or(Error::Missing { kind: "map", name });
        let (deeds, last) = (take(DEEDS.name)?, take(LAST.name)?);
        let deeds = deeds.try_into().map_err(failed("open", DEEDS.name))?;
        let last = last.try_into().map_err(failed("open", LAST.name))?;
        Ok(Self { programs, deeds, last, parts, whole })
    }

    /// Returns the parts of the node where somebody would be seen.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Says whether nobody can change a part unseen: all its functions have a probe.
    pub fn sees_all_of(&self, part: Part) -> bool {
        self.whole.contains(&part)
    }

    /// Returns when somebody last set out to change a part, in any network namespace; nothing when
    /// nobody did since the probes were attached.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn last(&self, part: Part, by: By) -> Result<Option<Moment>, Error> {
        let by = match by {
            By::Others => 0,
            By::Agent => Code::COUNT,
        };
        let at = self.last.get(&(part.code() + by), 0).map_err(failed("read", LAST.name))?;
        Ok((at != 0).then_some(Moment(Duration::from_nanos(at))))
    }

    /// Returns who changed a part since then, in the network namespace of the agent: not the agent,
    /// and not its children.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn doers(&self, part: Part, since: Moment) -> Result<Vec<Doer>, Error> {
        let mut doers = Vec::new();
        for entry in self.deeds.iter() {
            let (Abi(deed), Abi(seen)) = entry.map_err(failed("read", DEEDS.name))?;
            if deed.part == part.code() && Duration::from_nanos(seen.at) >= since.0 {
                doers.push(Doer {
                    command: text(&seen.command),
                    process: deed.process,
                    user: seen.user,
                });
            }
        }
        doers.sort_unstable();
        Ok(doers)
    }

    /// Returns how many instructions the verifier went through, by program (Linux 5.16).
    pub fn verified_instructions(&self) -> Vec<(String, u32)> {
        verified_instructions(&self.programs)
    }
}

/// Before how many functions a program was put, and the last refusal.
struct Probed {
    attached: usize,
    refusal: Option<ProgramError>,
}

/// Puts a program before functions of the kernel.
fn probe(programs: &mut Ebpf, name: &'static str, functions: &[&str]) -> Result<Probed, Error> {
    let program: &mut KProbe = match programs.program_mut(name).map(TryInto::try_into) {
        Some(Ok(program)) => program,
        _ => return Err(Error::Missing { kind: "program", name }),
    };
    program.load().map_err(|source| Error::Program {
        operation: "load",
        program: name,
        interface: "-".into(),
        source: Box::new(source),
    })?;
    let mut probed = Probed { attached: 0, refusal: None };
    for function in functions {
        match program.attach(*function, 0) {
            Ok(_) => probed.attached += 1,
            Err(error) => probed.refusal = Some(error),
        }
    }
    Ok(probed)
}

impl Part {
    fn code(self) -> u32 {
        match self {
            Self::Ipvs => Code::IPVS,
            Self::Nft => Code::NFT,
            Self::Address => Code::ADDRESS,
            Self::Sysctl => Code::SYSCTL,
        }
    }
}

/// A moment of `CLOCK_MONOTONIC`.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Moment(Duration);

impl Moment {
    /// Returns this one.
    pub fn now() -> Self {
        let time = clock_gettime(ClockId::Monotonic);
        Self(Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32))
    }

    /// Returns the one that is so much later.
    #[must_use]
    pub fn after(self, time: Duration) -> Self {
        Self(self.0.saturating_add(time))
    }
}

fn load() -> Result<Ebpf, Blindness> {
    let mut fields: Vec<btf::Field> = FIELDS.iter().map(|(_, field)| *field).collect();
    fields.extend(INODE);
    let offsets = btf::offsets(&fields).map_err(Blindness::Types)?;
    let namespace = |name| fs::metadata(name).map_err(Blindness::Namespace);
    let network = namespace("/proc/thread-self/ns/net")?;
    let processes = namespace("/proc/self/ns/pid")?;
    let device = u64::from(major(processes.dev())) << 20 | u64::from(minor(processes.dev()));
    let offset = |field: &btf::Field| u64::from(offsets[field]);
    let mut settings: Vec<(&str, u64)> =
        FIELDS.iter().map(|(setting, field)| (*setting, offset(field))).collect();
    settings.extend([
        (WitnessSetting::NET_INODE, INODE.iter().map(offset).sum()),
        (WitnessSetting::NETWORK, network.ino()),
        (WitnessSetting::PROCESSES, processes.ino()),
        (WitnessSetting::DEVICE, device),
        (WitnessSetting::PROCESS, std::process::id().into()),
    ]);
    let mut loader = EbpfLoader::new();
    loader.btf(None);
    for (name, value) in &settings {
        loader.override_global(name, value, true);
    }
    loader.load(OBJECT).map_err(|source| Error::Load(Box::new(source)).into())
}

fn text(command: &[u8]) -> String {
    let name = command.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(name).into_owned()
}
