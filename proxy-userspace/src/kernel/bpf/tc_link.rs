//! Attaches a program at tc: by a pinned TCX link, or as a filter of clsact. Either outlives the agent,
//! and a new agent replaces the program behind it without a gap.

use std::path::PathBuf;

use aya::{
    Ebpf,
    programs::{
        LinkOrder, ProgramError, TcAttachType,
        links::FdLink,
        tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle},
    },
};

use super::{
    Error,
    attach::{adopt, pin, replaced_pin_exists, unpin},
    load::classifier,
};

/// The handle of our filters: the only one of its priority.
pub(super) const HANDLE_NUMBER: u32 = 1;
const HANDLE: TcHandle = TcHandle::new(0, HANDLE_NUMBER as u16);

/// Which program is attached, and to what.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    /// Name of the program.
    pub(super) program: &'static str,
    /// Interface name.
    pub(super) name: &'a str,
    /// Ingress or egress.
    pub(super) hook: TcAttachType,
}

impl Place<'_> {
    fn failed(&self, source: ProgramError) -> Error {
        Error::Program {
            operation: "attach",
            program: self.program,
            interface: self.name.to_owned(),
            source: Box::new(source),
        }
    }
}

/// Attaches a program by a link with this pin, replacing what an earlier agent left there; a new link
/// gets this place among others.
///
/// # Errors
///
/// [`Error::Program`] and [`Error::Link`].
pub(super) fn attach_tcx(
    programs: &mut Ebpf,
    place: Place<'_>,
    path: PathBuf,
    order: LinkOrder,
) -> Result<(), Error> {
    let program = classifier(programs, place.program)?;
    // A pin that cannot be taken over, say of an interface that had this index before, is
    // removed; its link ends with it.
    let replaced =
        adopt::<SchedClassifierLink>(&path).and_then(|link| program.attach_to_link(link).ok());
    let id = match replaced {
        Some(id) => id,
        None => {
            unpin(path.clone())?;
            program
                .attach_with_options(place.name, place.hook, TcAttachOptions::TcxOrder(order))
                .map_err(|source| place.failed(source))?
        }
    };
    let link = program.take_link(id).map_err(|source| place.failed(source))?;
    if replaced_pin_exists(&path) {
        // The pin holds the link already; only our descriptor closes.
        return Ok(());
    }
    let link: FdLink = link.try_into().map_err(|_| place.failed(ProgramError::NotAttached))?;
    pin(link, path)
}

/// Attaches a program as the filter of this priority, in place of the one that an earlier agent left.
///
/// # Errors
///
/// [`Error::Program`].
pub(super) fn attach_clsact(
    programs: &mut Ebpf,
    place: Place<'_>,
    priority: u16,
) -> Result<(), Error> {
    let program = classifier(programs, place.program)?;
    let earlier = SchedClassifierLink::attached(place.name, place.hook, priority, HANDLE, None);
    let earlier = earlier.map_err(|error| place.failed(TcError::IoError(error).into()))?;
    let id = match program.attach_to_link(earlier) {
        Ok(id) => id,
        Err(_) => {
            let options = NlOptions { priority, handle: HANDLE, classid: None };
            program
                .attach_with_options(place.name, place.hook, TcAttachOptions::Netlink(options))
                .map_err(|source| place.failed(source))?
        }
    };
    let link = program.take_link(id).map_err(|source| place.failed(source))?;
    // The filter belongs to the interface, not to this process: dropping the link would
    // detach it.
    std::mem::forget(link);
    Ok(())
}

/// Takes our filter of this priority off an interface; one that is not there is off already.
pub(super) fn detach_clsact(name: &str, hook: TcAttachType, priority: u16) {
    // Dropping the link detaches the filter.
    drop(SchedClassifierLink::attached(name, hook, priority, HANDLE, None));
}
