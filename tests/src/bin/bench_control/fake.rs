//! A kernel that believes everything: it takes up a plan, and counts the bytes that the real one
//! would have been sent.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Result;
use proxy_userspace::{
    kernel::ipvs::Command,
    model::Frontend,
    plan::{Action, DesiredServer, Observed, Plan},
};

use crate::kernel::{Kernel, Sent};

/// Headers of a generic netlink message: 16 bytes of netlink, 4 of generic netlink.
const HEADERS: usize = 20;
/// Requests in one send(), as `kernel::ipvs` does it.
const REQUESTS_PER_SEND: usize = 96;

/// What the node would hold.
pub(crate) struct Fake {
    observed: Observed,
    buffer: Vec<u8>,
}

impl Fake {
    /// An empty node, with a fast path.
    pub(crate) fn new() -> Self {
        let observed = Observed { fast_path: true, ..Observed::default() };
        Self { observed, buffer: Vec::new() }
    }

    fn encode(&mut self, command: &Command, sent: &mut Sent) {
        for request in command.requests() {
            let attributes = request.encode();
            self.buffer.extend_from_slice(&[0; HEADERS]);
            self.buffer.extend_from_slice(&attributes);
            sent.requests += 1;
            sent.bytes += HEADERS + attributes.len();
            if sent.requests.is_multiple_of(REQUESTS_PER_SEND) {
                std::hint::black_box(&self.buffer);
                self.buffer.clear();
            }
        }
    }
}

impl Kernel for Fake {
    fn observed(&self) -> &Observed {
        &self.observed
    }

    fn apply(&mut self, plan: &Plan, _: &BTreeMap<Frontend, DesiredServer>) -> Result<Sent> {
        let mut sent = Sent::default();
        for action in &plan.actions {
            if let Some(command) = command(action) {
                self.encode(&command, &mut sent);
            }
            self.observed.apply(action);
        }
        self.buffer.clear();
        Ok(sent)
    }

    fn look(&mut self) -> Result<Option<Duration>> {
        Ok(None)
    }

    fn check(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Returns what IPVS is asked for an action.
pub(crate) fn command(action: &Action) -> Option<Command> {
    match action {
        Action::PutVirtualServer(server) => Some(Command::PutVirtualServer(*server)),
        Action::RemoveVirtualServer(frontend) => Some(Command::RemoveVirtualServer(*frontend)),
        Action::PutDestination { frontend, destination } => {
            Some(Command::PutDestination(*frontend, *destination))
        }
        Action::RemoveDestination { frontend, key } => {
            Some(Command::RemoveDestination(*frontend, *key))
        }
        _ => None,
    }
}
