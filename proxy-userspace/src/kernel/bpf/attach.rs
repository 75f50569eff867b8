//! Attaches the programs to interfaces: TCX where the kernel has it (6.6), clsact elsewhere.
//!
//! A TCX link is pinned: it outlives the agent, and a new agent replaces the program behind it
//! without a gap. A clsact filter outlives the agent by itself; a fixed priority and handle let a
//! new agent find and replace it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use aya::programs::{
    LinkOrder, TcAttachType,
    links::{FdLink, PinnedLink},
    tc,
};

use super::{
    Datapath, Error,
    pins::{ignore_missing, pins_in},
    query, tc_link,
};

/// Priority of our clsact filters: ahead of the 49152 that the kernel gives unnumbered ones.
pub(super) const PRIORITY: u16 = 1977;

/// Where a program is attached.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Hook {
    /// Packets that come in: program `tc_in`.
    Ingress,
    /// Packets that go out: program `tc_out`.
    Egress,
}

impl Hook {
    /// Both hooks; egress first, so that the first stamped packet already finds its learner.
    pub const BOTH: [Self; 2] = [Self::Egress, Self::Ingress];

    /// Returns the name of the hook's program.
    pub fn program(self) -> &'static str {
        match self {
            Self::Ingress => "tc_in",
            Self::Egress => "tc_out",
        }
    }

    pub(super) fn attach_type(self) -> TcAttachType {
        match self {
            Self::Ingress => TcAttachType::Ingress,
            Self::Egress => TcAttachType::Egress,
        }
    }
}

/// Says whether the kernel has TCX: an interface can be asked for its TCX programs.
pub(super) fn has_tcx(index: u32) -> bool {
    query::tcx(index, Hook::Ingress).is_ok()
}

impl Datapath {
    /// Says whether attaching to an interface needs a clsact qdisc there: the kernel has no TCX.
    pub fn needs_clsact(&self, index: u32) -> bool {
        !has_tcx(index)
    }

    /// Attaches both programs to an interface, replacing what an earlier agent left there. Makes
    /// the clsact qdisc when it needs one.
    ///
    /// # Errors
    ///
    /// [`Error::Program`] and [`Error::Link`]; nothing stays attached at the other hook alone.
    pub fn attach(&mut self, name: &str, index: u32) -> Result<(), Error> {
        let tcx = has_tcx(index);
        if !tcx {
            // It may be there already; if it is not, attaching says so.
            let _ = tc::qdisc_add_clsact(name);
        }
        for hook in Hook::BOTH {
            let place = tc_link::Place { program: hook.program(), name, hook: hook.attach_type() };
            let attached = if tcx {
                let path = self.link_pin(index, hook.program());
                tc_link::attach_tcx(&mut self.programs, place, path, LinkOrder::default())
            } else {
                tc_link::attach_clsact(&mut self.programs, place, PRIORITY)
            };
            if let Err(error) = attached {
                // The error that matters is the first one.
                let _ = self.detach(name, index);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Detaches both programs from an interface. An interface that is gone is detached already.
    ///
    /// # Errors
    ///
    /// [`Error::Link`] when a pin cannot be removed.
    pub fn detach(&self, name: &str, index: u32) -> Result<(), Error> {
        for hook in Hook::BOTH {
            unpin(self.link_pin(index, hook.program()))?;
        }
        detach_filters(name);
        Ok(())
    }

    /// Removes pins of links whose interface is not among `indexes`.
    ///
    /// # Errors
    ///
    /// [`Error::Link`] when a pin cannot be removed.
    pub fn sweep_links(&self, indexes: &[u32]) -> Result<(), Error> {
        let failed =
            |path: &Path, source| Error::Link { operation: "unpin", path: path.to_owned(), source };
        let directory = self.pins.links();
        for path in pins_in(&directory).map_err(|source| failed(&directory, source))? {
            let index =
                path.file_name().and_then(|name| name.to_str()?.split('-').next()?.parse().ok());
            if !index.is_some_and(|index| indexes.contains(&index)) {
                ignore_missing(fs::remove_file(&path)).map_err(|source| failed(&path, source))?;
            }
        }
        Ok(())
    }

    pub(super) fn link_pin(&self, index: u32, program: &str) -> PathBuf {
        self.pins.links().join(format!("{index}-{program}"))
    }
}

/// Detaches our clsact filters from an interface; what is not there is detached already.
pub fn detach_filters(name: &str) {
    for hook in Hook::BOTH {
        tc_link::detach_clsact(name, hook.attach_type(), PRIORITY);
    }
}

/// Removes the pin of a link, which ends the link; one that is absent is removed already.
pub(super) fn unpin(path: PathBuf) -> Result<(), Error> {
    ignore_missing(fs::remove_file(&path)).map_err(|source| Error::Link {
        operation: "unpin",
        path,
        source,
    })
}

/// Pins a link, so that it outlives this process.
pub(super) fn pin(link: FdLink, path: PathBuf) -> Result<(), Error> {
    link.pin(&path).map(drop).map_err(|source| Error::Link {
        operation: "pin",
        path,
        source: io::Error::other(source),
    })
}

pub(super) fn replaced_pin_exists(path: &Path) -> bool {
    fs::exists(path).unwrap_or(false)
}

/// Opens a pinned link as one that a program can take over.
pub(super) fn adopt<L: TryFrom<FdLink>>(path: &Path) -> Option<L> {
    FdLink::from(PinnedLink::from_pin(path).ok()?).try_into().ok()
}
