//! A connection as the sync protocol describes it. No I/O.

use std::{net::SocketAddr, time::Duration};

use serde::Serialize;

use super::message::{Entry, flag};
use crate::{
    kernel::ipvs::destination,
    model::{DestinationKey, Forwarding, Frontend, Protocol},
};

/// A connection that IPVS shall have.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct SyncedConnection {
    /// What the client dialled.
    pub frontend: Frontend,
    /// The client.
    pub client: SocketAddr,
    /// Where its packets go. Must be a destination of the virtual server `frontend`, of the same
    /// address family: without one, DR still leads there and tunnels drop (`__ip_vs_get_out_rt`).
    pub destination: DestinationKey,
    /// How. The kernel takes the destination's own method when it has that destination, also the
    /// kind of tunnel, which the protocol cannot say.
    pub forwarding: Forwarding,
    /// Where it is in its life.
    pub state: SyncState,
    /// Until it expires unless a packet comes, in whole seconds. A packet renews it for as long as
    /// IPVS's own timeout of its state.
    pub timeout: Duration,
}

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SyncState {
    /// TCP, both ways open.
    Established,
    /// TCP, a FIN was seen.
    FinWait,
    /// UDP has no other.
    Udp,
}

/// A state that the protocol of the connection does not have: the kernel would ignore it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a connection to {frontend} cannot be in state {state:?}")]
pub struct WrongState {
    frontend: Frontend,
    state: SyncState,
}

impl SyncedConnection {
    /// Returns what a message says of it, in order.
    ///
    /// The kernel takes an inactive entry about a connection that leads elsewhere for the late end of
    /// one that was replaced, and ignores it (`ip_vs_proc_conn`). So an active one goes before it,
    /// which moves the connection, and the second one makes it what it is.
    ///
    /// # Errors
    ///
    /// The protocol does not have that state.
    pub(super) fn entries(&self) -> Result<impl Iterator<Item = Entry>, WrongState> {
        let entry = self.entry()?;
        let active = Entry { flags: entry.flags & !flag::INACTIVE, ..entry };
        Ok((active != entry).then_some(active).into_iter().chain([entry]))
    }

    fn entry(&self) -> Result<Entry, WrongState> {
        let Self { frontend, state, .. } = *self;
        // `IP_VS_TCP_S_*` and `IP_VS_UDP_S_NORMAL`.
        let number = match (frontend.protocol, state) {
            (Protocol::Tcp, SyncState::Established) => 1,
            (Protocol::Tcp, SyncState::FinWait) => 4,
            (Protocol::Udp, SyncState::Udp) => 0,
            _ => return Err(WrongState { frontend, state }),
        };
        Ok(Entry {
            protocol: frontend.protocol.number(),
            flags: self.flags(),
            state: number,
            client: self.client,
            frontend: SocketAddr::new(frontend.addr, frontend.port),
            destination: SocketAddr::new(self.destination.addr, self.destination.port),
            fwmark: 0,
            // 0 would mean something else.
            timeout_secs: u32::try_from(self.timeout.as_secs()).unwrap_or(u32::MAX).max(1),
        })
    }

    /// As a master has them of such a connection: answers of DR and tunnels do not come by
    /// (`__ip_vs_update_dest`), and only an open TCP connection is active (`tcp_state_active_table`).
    fn flags(&self) -> u32 {
        let mut flags = destination::method(self.forwarding) & flag::METHOD;
        if self.forwarding != Forwarding::Masq {
            flags |= flag::NO_OUTPUT;
        }
        if self.state != SyncState::Established {
            flags |= flag::INACTIVE;
        }
        flags
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Tunnel;

    fn connection(protocol: Protocol, forwarding: Forwarding) -> SyncedConnection {
        let state = match protocol {
            Protocol::Udp => SyncState::Udp,
            _ => SyncState::Established,
        };
        SyncedConnection {
            frontend: Frontend { addr: [203, 0, 113, 1].into(), port: 53, protocol },
            client: "198.51.100.9:40000".parse().unwrap(),
            destination: DestinationKey { addr: [10, 1, 0, 5].into(), port: 53 },
            forwarding,
            state,
            timeout: Duration::from_secs(300),
        }
    }

    #[test]
    fn flags_are_those_that_a_master_sends() {
        let flags = |protocol, forwarding| connection(protocol, forwarding).entry().unwrap().flags;
        assert_eq!(flags(Protocol::Tcp, Forwarding::Route), 0x083);
        assert_eq!(flags(Protocol::Udp, Forwarding::Route), 0x183);
        assert_eq!(flags(Protocol::Tcp, Forwarding::Tunnel(Tunnel::Gre)), 0x082);
        assert_eq!(flags(Protocol::Tcp, Forwarding::Masq), 0);
        let state = SyncState::FinWait;
        let ending = SyncedConnection { state, ..connection(Protocol::Tcp, Forwarding::Route) };
        assert_eq!((ending.entry().unwrap().flags, ending.entry().unwrap().state), (0x183, 4));
    }

    #[test]
    fn an_inactive_connection_is_moved_before_it_is_described() {
        let flags = |connection: SyncedConnection| -> Vec<u32> {
            connection.entries().unwrap().map(|entry| entry.flags).collect()
        };
        assert_eq!(flags(connection(Protocol::Udp, Forwarding::Route)), [0x083, 0x183]);
        assert_eq!(flags(connection(Protocol::Tcp, Forwarding::Route)), [0x083]);
    }

    #[test]
    fn a_state_of_another_protocol_is_refused() {
        let udp = connection(Protocol::Udp, Forwarding::Route);
        let state = SyncState::Established;
        assert!(SyncedConnection { state, ..udp }.entry().is_err());
        let sctp = connection(Protocol::Sctp, Forwarding::Route);
        assert!(sctp.entry().unwrap_err().to_string().contains("203.0.113.1:53/SCTP"));
    }

    #[test]
    fn a_timeout_is_never_the_zero_that_means_another() {
        let timeout = Duration::from_millis(300);
        let brief = SyncedConnection { timeout, ..connection(Protocol::Udp, Forwarding::Route) };
        assert_eq!(brief.entry().unwrap().timeout_secs, 1);
    }
}
