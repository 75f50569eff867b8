//! Attaches the program to interfaces, by a pinned link each: it outlives the agent, and a new agent
//! replaces the program behind it without a gap.

use std::path::PathBuf;

use aya::programs::XdpMode;

use super::{
    super::{
        Error,
        attach::unpin,
        pins::pins_in,
        xdp_link::{self, Place},
    },
    HashPlane,
    load::PROGRAM,
};
use crate::model::HashMode;

/// Names of pinned links, an interface index behind each.
const LINK: &str = "link-";

fn of_xdp(mode: HashMode) -> XdpMode {
    match mode {
        HashMode::Native => XdpMode::Driver,
        HashMode::Generic => XdpMode::Skb,
    }
}

impl HashPlane {
    /// Attaches the program to an interface, replacing what an earlier agent left there, which keeps
    /// its mode: detach it first for another one. It passes everything on until the interface is in
    /// the map `hash_uplinks`.
    ///
    /// # Errors
    ///
    /// [`Error::Program`], also where another program is or the driver has no such mode, and
    /// [`Error::Link`].
    pub fn attach(&mut self, name: &str, index: u32, mode: HashMode) -> Result<(), Error> {
        let place = Place { name, index, mode: of_xdp(mode), pin: self.link_pin(index) };
        xdp_link::attach(&mut self.programs, PROGRAM, place)
    }

    /// Detaches the program from an interface; one that has none is detached already. Stop what other
    /// interfaces send to it first: without a program a driver may drop it.
    ///
    /// # Errors
    ///
    /// [`Error::Link`] when the pin cannot be removed.
    pub fn detach(&self, index: u32) -> Result<(), Error> {
        unpin(self.link_pin(index))
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
        let index =
            |path: &PathBuf| path.file_name()?.to_str()?.strip_prefix(LINK)?.parse::<u32>().ok();
        Ok(pins.iter().filter_map(index).collect())
    }

    fn link_pin(&self, index: u32) -> PathBuf {
        self.pins.hash_map(&format!("{LINK}{index}"))
    }
}
