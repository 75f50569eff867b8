//! Attaches the program to interfaces: by a pinned link each, or as a filter of clsact where the kernel
//! has no links for tc (before 6.6). Either outlives the agent, and a new agent replaces the program
//! without a gap.

use std::path::{Path, PathBuf};

use aya::programs::{LinkOrder, TcAttachType, XdpMode, tc};

use super::{
    super::{
        Error,
        attach::{PRIORITY, has_tcx, unpin},
        load::classifier,
        pins::pins_in,
        tc_link,
        xdp_link::{self, Place},
    },
    HashPlane,
    load::{TC, XDP},
};
use crate::{kernel::link, model::HashMode};

/// Names of pinned links, an interface index behind each.
pub(in crate::kernel::bpf) const LINK: &str = "link-";
/// The same of pinned programs that are a filter there.
const FILTER: &str = "filter-";
/// Ahead of the other datapath's: it shall see what this one passes on.
pub(in crate::kernel::bpf) const FILTER_PRIORITY: u16 = PRIORITY - 1;
const HOOK: TcAttachType = TcAttachType::Ingress;

impl HashPlane {
    /// Attaches the program to an interface, replacing what an earlier agent left there, which keeps
    /// its mode: detach it first for another one. It passes everything on until the interface is in
    /// the map `hash_uplinks`.
    ///
    /// # Errors
    ///
    /// [`Error::Program`], also where another program is or the driver has no such mode, and
    /// [`Error::Link`].
    pub fn attach(&mut self, name: &str, index: u32) -> Result<(), Error> {
        let mode = match self.mode {
            HashMode::Native => XdpMode::Driver,
            HashMode::Generic => XdpMode::Skb,
            HashMode::Tc => return self.attach_to_tc(name, index),
        };
        // One that an earlier agent left at tc would see what this one passes.
        self.detach_filter(index)?;
        let place = Place { name, index, mode, pin: self.pins.hash_link(index) };
        xdp_link::attach(&mut self.programs, XDP, place)
    }

    /// Says whether attaching to an interface needs a clsact qdisc there.
    pub fn needs_clsact(&self, index: u32) -> bool {
        self.mode == HashMode::Tc && !has_tcx(index)
    }

    /// First of all: what this program sends on, no other sees, and what it passes, all do.
    fn attach_to_tc(&mut self, name: &str, index: u32) -> Result<(), Error> {
        let place = tc_link::Place { program: TC, name, hook: HOOK };
        if !self.needs_clsact(index) {
            let pin = self.pins.hash_link(index);
            return tc_link::attach_tcx(&mut self.programs, place, pin, LinkOrder::first());
        }
        // It may be there already; if it is not, attaching says so.
        let _ = tc::qdisc_add_clsact(name);
        tc_link::attach_clsact(&mut self.programs, place, FILTER_PRIORITY)?;
        // A filter has no pin, so this one tells where there is one.
        let pin = self.filter_pin(index);
        unpin(pin.clone())?;
        classifier(&mut self.programs, TC)?.pin(&pin).map_err(|source| Error::Link {
            operation: "pin",
            path: pin,
            source: std::io::Error::other(source),
        })
    }

    /// Detaches the program from an interface; one that has none is detached already. Stop what other
    /// interfaces send to it first: without a program a driver may drop it.
    ///
    /// # Errors
    ///
    /// [`Error::Link`] when the pin cannot be removed.
    pub fn detach(&self, index: u32) -> Result<(), Error> {
        unpin(self.pins.hash_link(index))?;
        self.detach_filter(index)
    }

    fn detach_filter(&self, index: u32) -> Result<(), Error> {
        let filter = self.filter_pin(index);
        detach_filter(&filter);
        unpin(filter)
    }

    /// Returns the indexes of interfaces that the program is pinned for, by this agent or an earlier
    /// one.
    ///
    /// # Errors
    ///
    /// [`Error::Link`] when the directory of pins cannot be read.
    pub fn attached(&self) -> Result<Vec<u32>, Error> {
        let directory = self.pins.hash();
        let pins = pins_in(&directory).map_err(|source| Error::Link {
            operation: "open",
            path: directory,
            source,
        })?;
        let index = |path: &PathBuf| index_of(path, LINK).or_else(|| index_of(path, FILTER));
        Ok(pins.iter().filter_map(index).collect())
    }

    fn filter_pin(&self, index: u32) -> PathBuf {
        self.pins.hash_map(&format!("{FILTER}{index}"))
    }
}

/// Takes the filter off an interface that a pin stands for; other pins stand for none.
pub(in crate::kernel::bpf) fn detach_filter(pin: &Path) {
    let is_there = pin.exists();
    if let Some(name) = index_of(pin, FILTER).filter(|_| is_there).and_then(link::name) {
        tc_link::detach_clsact(&name, HOOK, FILTER_PRIORITY);
    }
}

fn index_of(pin: &Path, kind: &str) -> Option<u32> {
    pin.file_name()?.to_str()?.strip_prefix(kind)?.parse().ok()
}
