//! Requests of the IPVS family as bytes. No I/O.

use bytes::BytesMut;

use super::{
    attribute::DecodeError,
    destination,
    info::{self, Timeouts},
    listing,
    sync::daemon::{self, Daemon, DaemonState},
    virtual_server,
};
use crate::model::{Destination, DestinationKey, Frontend, VirtualServer};

/// A request of the IPVS family.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Request {
    /// NEW_SERVICE: fails with EEXIST when the frontend is taken.
    NewVirtualServer(VirtualServer),
    /// SET_SERVICE: fails with ESRCH when there is none. With another scheduler than before, new
    /// connections are refused for tens of milliseconds; with the same one, nothing is disturbed
    /// (`ip_vs_edit_service`).
    SetVirtualServer(VirtualServer),
    /// DEL_SERVICE: fails with ESRCH when there is none.
    RemoveVirtualServer(Frontend),
    /// GET_SERVICE of one: fails with ESRCH when there is none.
    GetVirtualServer(Frontend),
    /// GET_SERVICE as a dump.
    ListVirtualServers,
    /// NEW_DEST: fails with EEXIST when it is there, ESRCH without its virtual server.
    NewDestination(Frontend, Destination),
    /// SET_DEST: fails with ENOENT when it is not there, ESRCH without its virtual server.
    SetDestination(Frontend, Destination),
    /// DEL_DEST: fails with ENOENT when it is not there, ESRCH without its virtual server.
    RemoveDestination(Frontend, DestinationKey),
    /// GET_DEST, always a dump; empty when there is no such virtual server.
    ListDestinations(Frontend),
    /// The same of any virtual server.
    ListDestinationsOf(listing::Key),
    /// NEW_DAEMON: fails with EEXIST when there is one of its state, ENODEV without its interface.
    NewDaemon(Daemon),
    /// DEL_DAEMON: fails with ESRCH when there is none.
    RemoveDaemon(DaemonState),
    /// GET_DAEMON, always a dump.
    ListDaemons,
    /// SET_CONFIG.
    SetTimeouts(Timeouts),
    /// GET_CONFIG.
    GetTimeouts,
    /// GET_INFO.
    GetInfo,
}

/// What kind of reply a request gets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reply {
    /// An acknowledgement only.
    Acknowledgement,
    /// One message.
    One,
    /// Any number of messages.
    Dump,
}

impl Request {
    /// Returns the command number, `IPVS_CMD_*`.
    pub fn command(&self) -> u8 {
        match self {
            Self::NewVirtualServer(_) => 1,
            Self::SetVirtualServer(_) => 2,
            Self::RemoveVirtualServer(_) => 3,
            Self::GetVirtualServer(_) | Self::ListVirtualServers => 4,
            Self::NewDestination(..) => 5,
            Self::SetDestination(..) => 6,
            Self::RemoveDestination(..) => 7,
            Self::ListDestinations(_) | Self::ListDestinationsOf(_) => 8,
            Self::NewDaemon(_) => 9,
            Self::RemoveDaemon(_) => 10,
            Self::ListDaemons => 11,
            Self::SetTimeouts(_) => 12,
            Self::GetTimeouts => 13,
            Self::GetInfo => 15,
        }
    }

    /// Returns what kind of reply the kernel gives.
    pub fn reply(&self) -> Reply {
        match self {
            Self::GetVirtualServer(_) | Self::GetTimeouts | Self::GetInfo => Reply::One,
            Self::ListVirtualServers
            | Self::ListDestinations(_)
            | Self::ListDestinationsOf(_)
            | Self::ListDaemons => Reply::Dump,
            Self::NewVirtualServer(_)
            | Self::SetVirtualServer(_)
            | Self::RemoveVirtualServer(_)
            | Self::NewDestination(..)
            | Self::SetDestination(..)
            | Self::RemoveDestination(..)
            | Self::NewDaemon(_)
            | Self::RemoveDaemon(_)
            | Self::SetTimeouts(_) => Reply::Acknowledgement,
        }
    }

    /// Returns the attributes: the message without the netlink and generic netlink headers.
    pub fn encode(&self) -> BytesMut {
        let mut buffer = BytesMut::new();
        match self {
            Self::NewVirtualServer(vs) | Self::SetVirtualServer(vs) => {
                virtual_server::encode(&mut buffer, vs);
            }
            Self::RemoveVirtualServer(frontend)
            | Self::GetVirtualServer(frontend)
            | Self::ListDestinations(frontend) => {
                virtual_server::encode_key(&mut buffer, frontend);
            }
            Self::ListDestinationsOf(key) => listing::encode_key(&mut buffer, key),
            Self::NewDestination(frontend, destination)
            | Self::SetDestination(frontend, destination) => {
                virtual_server::encode_key(&mut buffer, frontend);
                destination::encode(&mut buffer, destination);
            }
            Self::RemoveDestination(frontend, key) => {
                virtual_server::encode_key(&mut buffer, frontend);
                destination::encode_key(&mut buffer, key);
            }
            Self::SetTimeouts(timeouts) => info::encode_timeouts(&mut buffer, timeouts),
            Self::NewDaemon(wanted) => daemon::encode(&mut buffer, wanted),
            Self::RemoveDaemon(state) => daemon::encode_key(&mut buffer, *state),
            Self::ListVirtualServers | Self::ListDaemons | Self::GetTimeouts | Self::GetInfo => {}
        }
        buffer
    }
}

/// Reads every message of a GET_SERVICE dump, skipping virtual servers by firewall mark.
pub fn decode_virtual_servers(
    messages: &[BytesMut],
) -> Result<Vec<virtual_server::VirtualServerState>, DecodeError> {
    messages.iter().filter_map(|message| virtual_server::decode(message).transpose()).collect()
}

/// Reads every message of a GET_DEST dump, in the kernel's order: the newest first.
pub fn decode_destinations(
    messages: &[BytesMut],
    frontend: &Frontend,
) -> Result<Vec<destination::DestinationState>, DecodeError> {
    messages.iter().map(|message| destination::decode(message, frontend)).collect()
}
