//! The IPVS schedulers.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// An in-tree IPVS scheduler. The module of scheduler `x` is `ip_vs_x`.
#[derive(
    Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Scheduler {
    /// Round robin.
    #[default]
    Rr,
    /// Weighted round robin.
    Wrr,
    /// Least connections.
    Lc,
    /// Weighted least connections.
    Wlc,
    /// Locality-based least connections.
    Lblc,
    /// Locality-based least connections with replication.
    Lblcr,
    /// Source hashing.
    Sh,
    /// Destination hashing.
    Dh,
    /// Shortest expected delay.
    Sed,
    /// Never queue.
    Nq,
    /// Maglev hashing.
    Mh,
    /// Weighted failover.
    Fo,
    /// Weighted overflow.
    Ovf,
    /// Power of two choices.
    Twos,
}

/// A name that is no in-tree scheduler.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("unknown scheduler {name:?}: use one of {}", Scheduler::NAMES.join(", "))]
pub struct ParseSchedulerError {
    name: String,
}

impl Scheduler {
    const ALL: [Self; 14] = [
        Self::Rr,
        Self::Wrr,
        Self::Lc,
        Self::Wlc,
        Self::Lblc,
        Self::Lblcr,
        Self::Sh,
        Self::Dh,
        Self::Sed,
        Self::Nq,
        Self::Mh,
        Self::Fo,
        Self::Ovf,
        Self::Twos,
    ];
    /// The names, in the order of the variants.
    pub const NAMES: [&'static str; 14] = [
        "rr", "wrr", "lc", "wlc", "lblc", "lblcr", "sh", "dh", "sed", "nq", "mh", "fo", "ovf",
        "twos",
    ];

    /// Returns whether the choice of a destination depends on the order in which the kernel lists
    /// them: nodes agree only if that is the same on all of them.
    pub fn depends_on_order(self) -> bool {
        matches!(self, Self::Mh | Self::Sh | Self::Dh)
    }

    /// Returns the kernel's name.
    pub fn name(self) -> &'static str {
        Self::ALL
            .iter()
            .zip(Self::NAMES)
            .find_map(|(scheduler, name)| (*scheduler == self).then_some(name))
            .unwrap_or("rr")
    }
}

impl fmt::Display for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Scheduler {
    type Err = ParseSchedulerError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|scheduler| scheduler.name() == name)
            .ok_or_else(|| ParseSchedulerError { name: name.to_owned() })
    }
}

impl Scheduler {
    /// Returns the scheduler's flag of this name, as ipvsadm spells it: `sh-port`, `mh-fallback`,
    /// or for any scheduler `flag-1` to `flag-3`.
    pub fn flag(self, name: &str) -> Option<SchedulerFlags> {
        let bits = match (self, name) {
            (Self::Sh, "sh-fallback") | (Self::Mh, "mh-fallback") | (_, "flag-1") => 0x08,
            (Self::Sh, "sh-port") | (Self::Mh, "mh-port") | (_, "flag-2") => 0x10,
            (_, "flag-3") => 0x20,
            _ => return None,
        };
        Some(SchedulerFlags(bits))
    }

    /// Returns what [`Scheduler::flag`] takes, for a message.
    pub fn flag_names(self) -> &'static str {
        match self {
            Self::Sh => "sh, sh,sh-port or sh,sh-fallback",
            Self::Mh => "mh, mh,mh-port or mh,mh-fallback",
            _ => "the scheduler without flags, or with flag-1, flag-2 or flag-3",
        }
    }
}

/// The flags of a virtual server that belong to its scheduler: `IP_VS_SVC_F_SCHED1..3` of
/// `linux/ip_vs.h` (0x08, 0x10, 0x20). For `sh`: SCHED1 is `sh-fallback`, SCHED2 `sh-port`; for
/// `mh`: `mh-fallback`, `mh-port`.
#[derive(
    Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize,
)]
pub struct SchedulerFlags(pub u32);

impl SchedulerFlags {
    /// All bits a virtual server may carry here.
    pub const MASK: u32 = 0x38;

    /// Adds the flag without which a destination of weight 0 refuses the clients that the hash sends
    /// to it: `sh` and `mh` keep its slots (`ip_vs_sh_get`, `ip_vs_mh_get`). With it they go on to
    /// another one. `dh` has no such flag.
    #[must_use]
    pub const fn for_drains(self, scheduler: Scheduler) -> Self {
        match scheduler {
            Scheduler::Sh | Scheduler::Mh => Self(self.0 | 0x08),
            _ => self,
        }
    }
}
