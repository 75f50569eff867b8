//! Attaches the program for uplinks to their drivers, by a pinned link: it outlives the agent, and a
//! new agent replaces the program behind it without a gap.

use aya::programs::XdpMode;

use super::{
    Datapath, Error,
    attach::unpin,
    load::TRANSIT,
    pins::pins_in,
    xdp_link::{self, Place},
};

impl Datapath {
    /// Attaches the program to the driver of an uplink, replacing what an earlier agent left there.
    /// It passes everything on until the uplink is in the map `uplinks`.
    ///
    /// # Errors
    ///
    /// [`Error::Program`], also where another program is or the driver has no native XDP, and
    /// [`Error::Link`].
    pub fn attach_transit(&mut self, name: &str, index: u32) -> Result<(), Error> {
        let pin = self.link_pin(index, TRANSIT);
        let place = Place { name, index, mode: XdpMode::Driver, pin };
        xdp_link::attach(&mut self.programs, TRANSIT, place)
    }

    /// Detaches the program from an uplink. Stop what other uplinks send to it first: without a
    /// program a driver may drop it.
    ///
    /// # Errors
    ///
    /// [`Error::Link`] when the pin cannot be removed.
    pub fn detach_transit(&self, index: u32) -> Result<(), Error> {
        unpin(self.link_pin(index, TRANSIT))
    }

    /// Returns the indexes of interfaces that the program is pinned for, by this agent or an earlier
    /// one.
    ///
    /// # Errors
    ///
    /// [`Error::Link`] when the directory of links cannot be read.
    pub fn transit_pins(&self) -> Result<Vec<u32>, Error> {
        let directory = self.pins.links();
        let pins = pins_in(&directory).map_err(|source| Error::Link {
            operation: "open",
            path: directory,
            source,
        })?;
        let index = |path: &std::path::PathBuf| {
            let (index, program) = path.file_name()?.to_str()?.split_once('-')?;
            (program == TRANSIT).then(|| index.parse().ok())?
        };
        Ok(pins.iter().filter_map(index).collect())
    }
}
