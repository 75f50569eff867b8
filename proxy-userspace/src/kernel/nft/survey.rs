//! What others have in the ruleset that the fast path or IPVS cannot live with: flowtables, and
//! rules that queue packets to a process.
//!
//! By netlink and not by `nft`: a look has to be cheap enough to be taken again and again. It is
//! taken by the ruleset's generation and not by events, because these come for each element that is
//! put into a set, and our own Services put tens of thousands.

use bytes::{BufMut, BytesMut};
use netlink_packet_core::NetlinkMessage;
use netlink_proto::{ConnectionHandle, sys::protocols::NETLINK_NETFILTER};
use tokio::sync::Mutex;

use super::error::{Error, Operation};
use crate::kernel::{
    netlink,
    raw::{Raw, attributes, find, text},
};

/// `NFNL_SUBSYS_NFTABLES`, in the upper byte of a message type.
const NFTABLES: u16 = 10 << 8;
/// `NFT_MSG_GETTABLE`.
const GET_TABLE: u16 = NFTABLES | 1;
/// `NFT_MSG_GETRULE`.
pub(super) const GET_RULE: u16 = NFTABLES | 7;
/// `NFT_MSG_GETGEN`.
const GET_GENERATION: u16 = NFTABLES | 16;
/// `NFT_MSG_GETFLOWTABLE`.
const GET_FLOWTABLE: u16 = NFTABLES | 23;
/// Size of `struct nfgenmsg`.
pub(super) const HEADER: usize = 4;
/// `NFTA_GEN_ID`.
const GENERATION_ID: u16 = 1;
/// `NFTA_FLOWTABLE_TABLE`, also `NFTA_RULE_TABLE` and `NFTA_TABLE_NAME`.
pub(super) const TABLE: u16 = 1;
/// `NFTA_FLOWTABLE_NAME`, also `NFTA_RULE_CHAIN`.
pub(super) const NAME: u16 = 2;
/// `NFTA_RULE_EXPRESSIONS`.
pub(super) const EXPRESSIONS: u16 = 4;
/// `NFTA_EXPR_NAME`.
pub(super) const EXPRESSION_NAME: u16 = 1;
/// `NFTA_EXPR_DATA`.
pub(super) const EXPRESSION_DATA: u16 = 2;
/// `NFTA_TARGET_NAME`.
const TARGET_NAME: u16 = 1;

/// The whole ruleset of one network namespace: that of the thread that opened it.
#[derive(Debug)]
pub struct Ruleset {
    /// The kernel permits one dump at a time on a socket.
    handle: Mutex<ConnectionHandle<Raw>>,
}

impl Ruleset {
    /// Connects. Must be called within a tokio runtime, which runs the connection until this value
    /// is dropped.
    ///
    /// # Errors
    ///
    /// [`Error::Open`].
    pub fn open() -> Result<Self, Error> {
        let handle = netlink::open(NETLINK_NETFILTER).map_err(Error::Open)?;
        Ok(Self { handle: Mutex::new(handle) })
    }

    /// Returns the number that every change of the ruleset raises.
    ///
    /// # Errors
    ///
    /// The kernel did not say.
    pub async fn generation(&self) -> Result<u32, Error> {
        let operation = Operation::ReadGeneration;
        let handle = self.handle.lock().await;
        let replies = netlink::ask(&handle, netlink::read(request(GET_GENERATION)))
            .await
            .map_err(|cause| Error::Netlink { operation, cause })?
            .map_err(|errno| Error::Answer { operation, errno })?;
        let id = replies.iter().find_map(|reply| reply.attribute(HEADER, GENERATION_ID));
        let id = id.and_then(|id| id.try_into().ok());
        id.map(u32::from_be_bytes).ok_or(Error::Odd { operation })
    }

    /// Returns all flowtables, as `family table name`. A flowtable breaks IPVS: it forwards a
    /// connection's packets past ip_vs without the translation.
    ///
    /// # Errors
    ///
    /// The kernel did not say.
    pub async fn flowtables(&self) -> Result<Vec<String>, Error> {
        let mut found = Vec::new();
        let request = netlink::dump(request(GET_FLOWTABLE));
        self.scan(Operation::ListFlowtables, request, |reply| found.extend(place(&reply))).await?;
        Ok(found)
    }

    /// Returns the chains with rules that hand packets to a process, as `family table chain`.
    /// Reads every rule: the cost grows with the ruleset.
    ///
    /// # Errors
    ///
    /// The kernel did not say.
    pub async fn queueing_chains(&self) -> Result<Vec<String>, Error> {
        let mut found = Vec::new();
        let request = netlink::dump(request(GET_RULE));
        self.scan(Operation::ListRules, request, |reply| {
            if queues(&reply) {
                found.extend(place(&reply));
            }
        })
        .await?;
        found.dedup();
        Ok(found)
    }

    /// Returns all tables but ours, as `family table`.
    ///
    /// # Errors
    ///
    /// The kernel did not say.
    pub async fn foreign_tables(&self) -> Result<Vec<String>, Error> {
        let mut found = Vec::new();
        let request = netlink::dump(request(GET_TABLE));
        self.scan(Operation::ListTables, request, |reply| found.extend(table(&reply))).await?;
        let ours = format!("inet {}", super::TABLE);
        found.retain(|table| *table != ours);
        Ok(found)
    }

    /// Visits the rules that a request asks for.
    pub(super) async fn rules_of(&self, request: Raw, visit: impl FnMut(Raw)) -> Result<(), Error> {
        self.scan(Operation::ListRules, netlink::dump(request), visit).await
    }

    pub(super) async fn scan(
        &self,
        operation: Operation,
        request: NetlinkMessage<Raw>,
        visit: impl FnMut(Raw),
    ) -> Result<(), Error> {
        let handle = self.handle.lock().await;
        netlink::scan(&handle, request, visit)
            .await
            .map_err(|cause| Error::Netlink { operation, cause })?
            .map_err(|errno| Error::Answer { operation, errno })
    }
}

/// Of all families.
pub(super) fn request(message_type: u16) -> Raw {
    let mut bytes = BytesMut::with_capacity(HEADER);
    bytes.put_u32(0);
    Raw { message_type, bytes }
}

/// Returns family, table and name of a flowtable, or family, table and chain of a rule.
fn place(reply: &Raw) -> Option<String> {
    let name = reply.attribute(HEADER, NAME).map(text)?;
    Some(format!("{} {name}", table(reply)?))
}

/// Returns family and name of a table, or of the table of an object.
fn table(reply: &Raw) -> Option<String> {
    let family = match *reply.bytes.first()? {
        1 => "inet",
        2 => "ip",
        3 => "arp",
        5 => "netdev",
        7 => "bridge",
        10 => "ip6",
        _ => "?",
    };
    let table = reply.attribute(HEADER, TABLE).map(text)?;
    Some(format!("{family} {table}"))
}

/// Says whether a rule hands packets to a process: nft's `queue`, or the target `NFQUEUE` of
/// iptables.
fn queues(rule: &Raw) -> bool {
    let expressions = rule.attribute(HEADER, EXPRESSIONS).unwrap_or_default();
    attributes(expressions).any(|(_, expression)| {
        match find(expression, EXPRESSION_NAME).map(text).as_deref() {
            Some("queue") => true,
            Some("target") => {
                let data = find(expression, EXPRESSION_DATA).unwrap_or_default();
                find(data, TARGET_NAME).map(text).as_deref() == Some("NFQUEUE")
            }
            _ => false,
        }
    })
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns an attribute, padded.
    pub(in super::super) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = (4 + value.len() as u16).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn named(kind: u16, name: &str) -> Vec<u8> {
        attribute(kind, format!("{name}\0").as_bytes())
    }

    fn rule(expressions: &[Vec<u8>]) -> Raw {
        let list: Vec<u8> = expressions.iter().flat_map(|each| attribute(1, each)).collect();
        let mut bytes = BytesMut::from([2, 0, 0, 0].as_slice());
        bytes.extend(named(TABLE, "filter"));
        bytes.extend(named(NAME, "FORWARD"));
        bytes.extend(attribute(EXPRESSIONS, &list));
        Raw { message_type: NFTABLES | 6, bytes }
    }

    #[test]
    fn rules_that_queue_are_told_from_others() {
        let target = |name| {
            let data = attribute(EXPRESSION_DATA, &named(TARGET_NAME, name));
            [named(EXPRESSION_NAME, "target"), data].concat()
        };
        let counter = named(EXPRESSION_NAME, "counter");
        assert!(queues(&rule(&[counter.clone(), named(EXPRESSION_NAME, "queue")])));
        assert!(queues(&rule(&[counter.clone(), target("NFQUEUE")])));
        assert!(!queues(&rule(&[counter, target("MARK")])));
        assert_eq!(place(&rule(&[])).as_deref(), Some("ip filter FORWARD"));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let raw = Raw { message_type: GET_RULE, bytes: bytes.as_slice().into() };
            let _ = queues(&raw);
            let _ = place(&raw);
        }
    }
}
