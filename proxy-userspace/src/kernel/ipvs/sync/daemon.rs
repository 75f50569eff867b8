//! The sync daemons of a network namespace as nests of `IPVS_DAEMON_ATTR_*`, and the rule that ours
//! is started and removed, and nobody else's.

use std::fmt;

use bytes::BytesMut;
use serde::{Deserialize, Serialize};

use crate::kernel::ipvs::{
    Client, Error, Operation,
    attribute::{Attributes, DecodeError, daemon, put, put_nest, put_u32, top},
    message::Request,
};

/// What a daemon does. A namespace has one of each at most.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DaemonState {
    /// Sends the connections of its node.
    Master,
    /// Takes those of others.
    Backup,
}

/// A sync daemon of the kernel.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Daemon {
    /// What it does.
    pub state: DaemonState,
    /// The interface whose multicast group it belongs to.
    pub interface: String,
    /// What its messages have; 0 of a backup takes those of every id.
    pub id: u32,
}

/// What became of a backup daemon that is wanted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Backup {
    /// It was not there.
    Started,
    /// It was there, with this interface and id.
    Present,
    /// Another one is there, and stays: a namespace has one.
    Foreign(Daemon),
}

/// What became of a backup daemon that is not wanted any more.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Removal {
    /// It is gone.
    Gone,
    /// There was none.
    Absent,
    /// Another one is there, and stays.
    Foreign(Daemon),
}

impl fmt::Display for Daemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            DaemonState::Master => "master",
            DaemonState::Backup => "backup",
        };
        write!(f, "ipvs sync daemon in state {state} on {} with id {}", self.interface, self.id)
    }
}

impl DaemonState {
    /// `IP_VS_STATE_*`.
    fn number(self) -> u32 {
        match self {
            Self::Master => 1,
            Self::Backup => 2,
        }
    }
}

impl Client {
    /// Returns the sync daemons: none, a master, a backup, or both.
    ///
    /// # Errors
    ///
    /// The kernel refuses to say, or says what is not understood.
    pub async fn daemons(&self) -> Result<Vec<Daemon>, Error> {
        let operation = Operation::ListDaemons;
        let messages = self.read(operation, Request::ListDaemons).await?;
        let decoded = messages.iter().map(|message| decode(message));
        decoded.collect::<Result<_, _>>().map_err(|cause| Error::Unreadable { operation, cause })
    }

    /// Starts a backup daemon unless there is one. What is there stays, whoever made it.
    ///
    /// # Errors
    ///
    /// The kernel refuses: there is no such interface, or no multicast on it.
    pub async fn put_backup(&self, interface: &str, id: u8) -> Result<Backup, Error> {
        let wanted = backup(interface, id);
        if let Some(found) = self.backup().await? {
            return Ok(if found == wanted { Backup::Present } else { Backup::Foreign(found) });
        }
        self.read(Operation::StartBackup, Request::NewDaemon(wanted)).await?;
        Ok(Backup::Started)
    }

    /// Stops the backup daemon with this interface and id; another one stays. Its connections stay.
    ///
    /// The kernel stops whatever backup there is: one that replaced ours after it was looked at
    /// would go.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub async fn remove_backup(&self, interface: &str, id: u8) -> Result<Removal, Error> {
        let ours = backup(interface, id);
        match self.backup().await? {
            None => Ok(Removal::Absent),
            Some(found) if found != ours => Ok(Removal::Foreign(found)),
            Some(found) => {
                // No answer comes if the daemon goes before it ran: `kthread_stop` says -EINTR then,
                // for which `netlink_rcv_skb` sends none.
                let request = Request::RemoveDaemon(found.state);
                self.ask_for_silence(Operation::StopBackup, &request).await?;
                Ok(Removal::Gone)
            }
        }
    }

    async fn backup(&self) -> Result<Option<Daemon>, Error> {
        let daemons = self.daemons().await?;
        Ok(daemons.into_iter().find(|daemon| daemon.state == DaemonState::Backup))
    }
}

fn backup(interface: &str, id: u8) -> Daemon {
    Daemon { state: DaemonState::Backup, interface: interface.to_owned(), id: id.into() }
}

/// Appends the nest that NEW needs. The group, port and size of messages are the kernel's defaults.
pub fn encode(buffer: &mut BytesMut, wanted: &Daemon) {
    put_nest(buffer, top::DAEMON, |nest| {
        put_u32(nest, daemon::STATE, wanted.state.number());
        put(nest, daemon::MCAST_IFN, &[wanted.interface.as_bytes(), b"\0"].concat());
        put_u32(nest, daemon::SYNC_ID, wanted.id);
    });
}

/// Appends the nest that DEL needs.
pub fn encode_key(buffer: &mut BytesMut, state: DaemonState) {
    put_nest(buffer, top::DAEMON, |nest| put_u32(nest, daemon::STATE, state.number()));
}

/// Reads a GET_DAEMON reply without its headers.
///
/// # Errors
///
/// Something is missing, or the state is not known.
pub fn decode(message: &[u8]) -> Result<Daemon, DecodeError> {
    let message = Attributes::parse("daemon message", message)?;
    let nest = Attributes::parse("daemon", message.bytes(top::DAEMON)?)?;
    let state = match nest.u32(daemon::STATE)? {
        1 => DaemonState::Master,
        2 => DaemonState::Backup,
        state => return Err(DecodeError::DaemonState { state }),
    };
    let (interface, id) = (nest.string(daemon::MCAST_IFN)?, nest.u32(daemon::SYNC_ID)?);
    Ok(Daemon { state, interface, id })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_daemon_survives_encode_and_decode(interface in "[a-z0-9]{1,15}", id: u8) {
            let mut message = BytesMut::new();
            encode(&mut message, &backup(&interface, id));
            prop_assert_eq!(decode(&message), Ok(backup(&interface, id)));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let mut message = BytesMut::new();
            put(&mut message, top::DAEMON, &bytes);
            let _ = decode(&message);
        }
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn a_start_is_what_the_kernels_policy_wants() {
        // IPVS_CMD_ATTR_DAEMON is 3 of linux/ip_vs.h; within: state 1 and id 3, NLA_U32, and
        // interface 2, NLA_NUL_STRING.
        let mut message = BytesMut::new();
        encode(&mut message, &backup("lo", 7));
        let expected: [&[u8]; 4] = [
            &[28, 0, 3, 0],
            &[8, 0, 1, 0, 2, 0, 0, 0],
            &[7, 0, 2, 0, b'l', b'o', 0, 0],
            &[8, 0, 3, 0, 7, 0, 0, 0],
        ];
        assert_eq!(message, expected.concat().as_slice());
        let mut message = BytesMut::new();
        encode_key(&mut message, DaemonState::Backup);
        assert_eq!(message.as_ref(), [12, 0, 3, 0, 8, 0, 1, 0, 2, 0, 0, 0]);
    }

    #[test]
    fn an_unknown_state_is_an_error() {
        let mut message = BytesMut::new();
        put_nest(&mut message, top::DAEMON, |nest| put_u32(nest, daemon::STATE, 3));
        assert_eq!(decode(&message), Err(DecodeError::DaemonState { state: 3 }));
    }
}
