//! A kernel that believes everything: it takes up a plan, and counts the bytes that the real one
//! would have been sent.

use proxy_userspace::{
    kernel::ipvs::Command,
    plan::{Action, Observed, Plan},
};

/// Headers of a generic netlink message: 16 bytes of netlink, 4 of generic netlink.
const HEADERS: usize = 20;
/// Requests in one send(), as `kernel::ipvs` does it.
const REQUESTS_PER_SEND: usize = 96;

/// What the node would hold.
pub(crate) struct Fake {
    observed: Observed,
    buffer: Vec<u8>,
}

/// What a plan would have taken.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Sent {
    /// Actions of all kinds.
    pub(crate) actions: usize,
    /// Requests to IPVS.
    pub(crate) requests: usize,
    /// Their bytes.
    pub(crate) bytes: usize,
}

impl Fake {
    /// An empty node, with a fast path.
    pub(crate) fn new() -> Self {
        let observed = Observed { fast_path: true, ..Observed::default() };
        Self { observed, buffer: Vec::new() }
    }

    /// Returns what the node holds.
    pub(crate) fn observed(&self) -> &Observed {
        &self.observed
    }

    /// Carries a plan out.
    pub(crate) fn apply(&mut self, plan: &Plan) -> Sent {
        let mut sent = Sent { actions: plan.actions.len(), ..Sent::default() };
        for action in &plan.actions {
            if let Some(command) = command(action) {
                self.encode(&command, &mut sent);
            }
            self.observed.apply(action);
        }
        self.buffer.clear();
        sent
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

fn command(action: &Action) -> Option<Command> {
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
