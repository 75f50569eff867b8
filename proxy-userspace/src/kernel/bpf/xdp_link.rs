//! Attaches an XDP program by a pinned link: it outlives the agent, and a new agent replaces the
//! program behind it without a gap.

use std::path::PathBuf;

use aya::{
    Ebpf,
    programs::{ProgramError, XdpMode, links::FdLink, xdp::XdpLink},
};

use super::{
    Error,
    attach::{adopt, pin, replaced_pin_exists, unpin},
    load::xdp,
};

/// Where a program is attached, and pinned.
pub(super) struct Place<'a> {
    /// Interface name, for errors.
    pub(super) name: &'a str,
    /// Interface index.
    pub(super) index: u32,
    /// Of a new link; one that is pinned keeps its own.
    pub(super) mode: XdpMode,
    /// The pin of the link.
    pub(super) pin: PathBuf,
}

/// Attaches a program, replacing what an earlier agent left there.
///
/// # Errors
///
/// [`Error::Program`], also where another program is or the driver has no such mode, and
/// [`Error::Link`].
pub(super) fn attach(
    programs: &mut Ebpf,
    name: &'static str,
    place: Place<'_>,
) -> Result<(), Error> {
    let program = xdp(programs, name)?;
    let failed = |source| Error::Program {
        operation: "attach",
        program: name,
        interface: place.name.to_owned(),
        source: Box::new(source),
    };
    // A pin of an interface that had this index before cannot be taken over.
    let replaced = adopt::<XdpLink>(&place.pin).and_then(|link| program.attach_to_link(link).ok());
    let id = match replaced {
        Some(id) => id,
        None => {
            unpin(place.pin.clone())?;
            program.attach_to_if_index(place.index, place.mode).map_err(failed)?
        }
    };
    let link = program.take_link(id).map_err(failed)?;
    if replaced_pin_exists(&place.pin) {
        // The pin holds the link already; only our descriptor closes.
        return Ok(());
    }
    let link: FdLink = link.try_into().map_err(|_| failed(ProgramError::NotAttached))?;
    pin(link, place.pin)
}
