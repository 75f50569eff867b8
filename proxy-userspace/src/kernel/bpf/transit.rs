//! Attaches the program for uplinks to their drivers, by a pinned link: it outlives the agent, and a
//! new agent replaces the program behind it without a gap.

use aya::programs::{ProgramError, XdpMode, links::FdLink, xdp::XdpLink};

use super::{
    Datapath, Error,
    attach::{adopt, pin, replaced_pin_exists, unpin},
    load::{TRANSIT, xdp},
    pins::pins_in,
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
        let path = self.link_pin(index, TRANSIT);
        let program = xdp(&mut self.programs, TRANSIT)?;
        let failed = |source| Error::Program {
            operation: "attach",
            program: TRANSIT,
            interface: name.to_owned(),
            source: Box::new(source),
        };
        // A pin of an interface that had this index before cannot be taken over.
        let replaced = adopt::<XdpLink>(&path).and_then(|link| program.attach_to_link(link).ok());
        let id = match replaced {
            Some(id) => id,
            None => {
                unpin(path.clone())?;
                program.attach_to_if_index(index, XdpMode::Driver).map_err(failed)?
            }
        };
        let link = program.take_link(id).map_err(failed)?;
        if replaced_pin_exists(&path) {
            // The pin holds the link already; only our descriptor closes.
            return Ok(());
        }
        let link: FdLink = link.try_into().map_err(|_| failed(ProgramError::NotAttached))?;
        pin(link, path)
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
