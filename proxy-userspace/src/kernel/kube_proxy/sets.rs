//! kube-proxy's ip sets, by netlink: their members say which virtual servers and addresses are its
//! own.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use bytes::{BufMut, BytesMut};
use netlink_proto::{ConnectionHandle, sys::protocols::NETLINK_NETFILTER};
use rustix::io::Errno;

use crate::{
    kernel::{
        module, netlink,
        raw::{Raw, attributes, find, text},
    },
    model::{Estate, Frontend, Protocol},
};

/// The sets of the `ipvs` mode. Those of IPv6 have `KUBE-6-` for `KUBE-`.
const NAMES: [&str; 17] = [
    "KUBE-LOOP-BACK",
    "KUBE-CLUSTER-IP",
    "KUBE-EXTERNAL-IP",
    "KUBE-EXTERNAL-IP-LOCAL",
    "KUBE-LOAD-BALANCER",
    "KUBE-LOAD-BALANCER-LOCAL",
    "KUBE-LOAD-BALANCER-FW",
    "KUBE-LOAD-BALANCER-SOURCE-IP",
    "KUBE-LOAD-BALANCER-SOURCE-CIDR",
    "KUBE-NODE-PORT-TCP",
    "KUBE-NODE-PORT-LOCAL-TCP",
    "KUBE-NODE-PORT-UDP",
    "KUBE-NODE-PORT-LOCAL-UDP",
    "KUBE-NODE-PORT-SCTP-HASH",
    "KUBE-NODE-PORT-LOCAL-SCTP-HASH",
    "KUBE-HEALTH-CHECK-NODE-PORT",
    "KUBE-IPVS-IPS",
];
/// The kernel holds no longer name.
const LONGEST: usize = 31;

/// `NFNL_SUBSYS_IPSET`, in the upper byte of a message type.
const IPSET: u16 = 6 << 8;
/// `IPSET_CMD_DESTROY`.
const DESTROY: u16 = IPSET | 3;
/// `IPSET_CMD_LIST`.
const LIST: u16 = IPSET | 7;
/// `IPSET_PROTOCOL_MIN`, which every kernel still speaks.
const PROTOCOL: u8 = 6;
/// `IPSET_ATTR_PROTOCOL`.
const ATTR_PROTOCOL: u16 = 1;
/// `IPSET_ATTR_SETNAME`.
const ATTR_NAME: u16 = 2;
/// `IPSET_ATTR_FLAGS`.
const ATTR_FLAGS: u16 = 6;
/// `IPSET_ATTR_ADT`: the members, each an `IPSET_ATTR_DATA`.
const ATTR_MEMBERS: u16 = 8;
/// `IPSET_ATTR_IP`, with one of the two below in it.
const ATTR_IP: u16 = 1;
/// `IPSET_ATTR_IPADDR_IPV4`.
const ATTR_IPV4: u16 = 1;
/// `IPSET_ATTR_IPADDR_IPV6`.
const ATTR_IPV6: u16 = 2;
/// `IPSET_ATTR_PORT`, big-endian.
const ATTR_PORT: u16 = 4;
/// `IPSET_ATTR_PROTO`.
const ATTR_TRANSPORT: u16 = 7;
/// `IPSET_FLAG_LIST_SETNAME`: no members.
const FLAG_NAMES: u32 = 1 << 1;
/// `struct nfgenmsg`.
const HEADER: usize = 4;
/// Attributes are padded to this.
const ALIGNMENT: usize = 4;

/// An error of an ip set.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No netlink socket.
    #[error("open a netfilter netlink socket")]
    Open(#[source] io::Error),
    /// No answer of the kernel.
    #[error("{operation}")]
    Netlink {
        /// What was asked.
        operation: String,
        /// Why there was none.
        #[source]
        cause: netlink::Failure,
    },
    /// The kernel answered with an error number.
    #[error("{operation}: {errno}")]
    Answer {
        /// What was asked.
        operation: String,
        /// The answer.
        errno: Errno,
    },
}

/// The ip sets of one network namespace: that of the thread that opened it.
#[derive(Debug)]
pub struct Sets {
    /// `None` where the kernel has no ip sets: asking would load the module.
    handle: Option<ConnectionHandle<Raw>>,
}

impl Sets {
    /// Connects. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`Error::Open`].
    pub fn open() -> Result<Self, Error> {
        if !module::is_present("ip_set") {
            return Ok(Self { handle: None });
        }
        let handle = netlink::open(NETLINK_NETFILTER).map_err(Error::Open)?;
        Ok(Self { handle: Some(handle) })
    }

    /// Returns the names of those of kube-proxy's sets that are there.
    ///
    /// # Errors
    ///
    /// The kernel did not say.
    pub async fn names(&self) -> Result<Vec<String>, Error> {
        let mut names = Vec::new();
        self.list(FLAG_NAMES, |reply| {
            names.extend(reply.attribute(HEADER, ATTR_NAME).map(text).filter(|name| is_ours(name)));
        })
        .await?;
        Ok(names)
    }

    /// Returns what the members of kube-proxy's sets name.
    ///
    /// # Errors
    ///
    /// The kernel did not say.
    pub async fn estate(&self) -> Result<Estate, Error> {
        let mut estate = Estate::default();
        self.list(0, |reply| take(&mut estate, &reply)).await?;
        Ok(estate)
    }

    /// Destroys kube-proxy's sets. Returns a sentence for each that is in use.
    ///
    /// # Errors
    ///
    /// The kernel did not answer, or refused for another reason.
    pub async fn clear_away(&self) -> Result<Vec<String>, Error> {
        let Some(handle) = &self.handle else { return Ok(Vec::new()) };
        let mut kept = Vec::new();
        for name in self.names().await? {
            let operation = format!("destroy ip set {name}");
            let request = netlink::write(message(DESTROY, Some(&name), 0), 0);
            let answer = netlink::ask(handle, request)
                .await
                .map_err(|cause| Error::Netlink { operation: operation.clone(), cause })?;
            match answer {
                Ok(_) | Err(Errno::NOENT) => {}
                Err(Errno::BUSY) => kept.push(format!("ip set {name} stays: rules use it")),
                Err(errno) => return Err(Error::Answer { operation, errno }),
            }
        }
        Ok(kept)
    }

    async fn list(&self, flags: u32, visit: impl FnMut(Raw)) -> Result<(), Error> {
        let Some(handle) = &self.handle else { return Ok(()) };
        let operation = || "list ip sets".to_owned();
        let request = netlink::dump(message(LIST, None, flags));
        let answer = netlink::scan(handle, request, visit)
            .await
            .map_err(|cause| Error::Netlink { operation: operation(), cause })?;
        match answer {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(Error::Answer { operation: operation(), errno }),
        }
    }
}

/// Says whether a set is one of kube-proxy's.
fn is_ours(name: &str) -> bool {
    plain(name).is_some()
}

/// Returns the name that a set of kube-proxy has for IPv4.
fn plain(name: &str) -> Option<&'static str> {
    NAMES.into_iter().find(|known| *known == name || ipv6_name(known) == name)
}

fn ipv6_name(name: &str) -> String {
    let mut name = name.replacen("KUBE-", "KUBE-6-", 1);
    name.truncate(LONGEST);
    name
}

/// Takes up the members of one message: a large set comes in several.
fn take(estate: &mut Estate, reply: &Raw) {
    let Some(name) = reply.attribute(HEADER, ATTR_NAME).map(text).and_then(|name| plain(&name))
    else {
        return;
    };
    let members = reply.attribute(HEADER, ATTR_MEMBERS).unwrap_or_default();
    for (_, member) in attributes(members) {
        match name {
            "KUBE-IPVS-IPS" => estate.addrs.extend(addr(member)),
            "KUBE-CLUSTER-IP"
            | "KUBE-EXTERNAL-IP"
            | "KUBE-EXTERNAL-IP-LOCAL"
            | "KUBE-LOAD-BALANCER"
            | "KUBE-NODE-PORT-SCTP-HASH" => estate.frontends.extend(frontend(member)),
            "KUBE-NODE-PORT-TCP" => {
                estate.node_ports.extend(port(member).map(|port| (Protocol::Tcp, port)));
            }
            "KUBE-NODE-PORT-UDP" => {
                estate.node_ports.extend(port(member).map(|port| (Protocol::Udp, port)));
            }
            _ => {}
        }
    }
}

fn frontend(member: &[u8]) -> Option<Frontend> {
    let number = *find(member, ATTR_TRANSPORT)?.first()?;
    let protocol = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]
        .into_iter()
        .find(|protocol| protocol.number() == number)?;
    Some(Frontend { addr: addr(member)?, port: port(member)?, protocol })
}

fn addr(member: &[u8]) -> Option<IpAddr> {
    let ip = find(member, ATTR_IP)?;
    let v4 = || Some(Ipv4Addr::from(<[u8; 4]>::try_from(find(ip, ATTR_IPV4)?).ok()?));
    let v6 = || Some(Ipv6Addr::from(<[u8; 16]>::try_from(find(ip, ATTR_IPV6)?).ok()?));
    v4().map(IpAddr::V4).or_else(|| v6().map(IpAddr::V6))
}

fn port(member: &[u8]) -> Option<u16> {
    find(member, ATTR_PORT)?.try_into().ok().map(u16::from_be_bytes)
}

fn message(message_type: u16, name: Option<&str>, flags: u32) -> Raw {
    let mut bytes = BytesMut::new();
    // Of any family, version 0, no resource.
    bytes.put_u32(0);
    put(&mut bytes, ATTR_PROTOCOL, &[PROTOCOL]);
    if let Some(name) = name {
        put(&mut bytes, ATTR_NAME, format!("{name}\0").as_bytes());
    }
    if flags != 0 {
        // `NLA_F_NET_BYTEORDER`, which the kernel wants to see here.
        put(&mut bytes, ATTR_FLAGS | 1 << 14, &flags.to_be_bytes());
    }
    Raw { message_type, bytes }
}

fn put(bytes: &mut BytesMut, kind: u16, value: &[u8]) {
    let length = ALIGNMENT + value.len();
    bytes.put_slice(&u16::try_from(length).unwrap_or(u16::MAX).to_ne_bytes());
    bytes.put_slice(&kind.to_ne_bytes());
    bytes.put_slice(value);
    bytes.put_bytes(0, length.next_multiple_of(ALIGNMENT) - length);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = BytesMut::new();
        put(&mut bytes, kind, value);
        bytes.to_vec()
    }

    fn listing(name: &str, members: &[Vec<u8>]) -> Raw {
        let members: Vec<u8> = members.iter().flat_map(|each| attribute(7, each)).collect();
        let mut bytes = message(LIST, Some(name), 0).bytes;
        put(&mut bytes, ATTR_MEMBERS, &members);
        Raw { message_type: LIST, bytes }
    }

    fn ip(value: &[u8]) -> Vec<u8> {
        attribute(ATTR_IP, &attribute(if value.len() == 4 { ATTR_IPV4 } else { ATTR_IPV6 }, value))
    }

    #[test]
    fn names_of_ipv6_are_cut_where_the_kernel_cuts_them() {
        assert!(NAMES.iter().all(|name| is_ours(name) && is_ours(&ipv6_name(name))));
        assert!(is_ours("KUBE-6-LOAD-BALANCER-SOURCE-CID"));
        assert!(!is_ours("KUBE-SRC-VALID") && !is_ours("KUBE-") && !is_ours("cali40s"));
    }

    #[test]
    fn members_name_addresses_virtual_servers_and_node_ports() {
        let port = |port: u16| attribute(ATTR_PORT, &port.to_be_bytes());
        let tcp = attribute(ATTR_TRANSPORT, &[6]);
        let mut estate = Estate::default();
        let member = [ip(&[10, 96, 0, 10]), port(80), tcp.clone()].concat();
        take(&mut estate, &listing("KUBE-CLUSTER-IP", std::slice::from_ref(&member)));
        take(&mut estate, &listing("KUBE-LOOP-BACK", std::slice::from_ref(&member)));
        take(&mut estate, &listing("OTHERS", &[[ip(&[9; 4]), port(9), tcp].concat()]));
        take(&mut estate, &listing("KUBE-NODE-PORT-UDP", &[port(30053)]));
        take(&mut estate, &listing("KUBE-6-IPVS-IPS", &[ip(&[0xfd; 16])]));
        let web = Frontend { addr: [10, 96, 0, 10].into(), port: 80, protocol: Protocol::Tcp };
        assert_eq!(estate.frontends, [web].into());
        assert_eq!(estate.node_ports, [(Protocol::Udp, 30053)].into());
        assert_eq!(estate.addrs, [IpAddr::from([0xfd_u8; 16])].into());
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(
            bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200),
        ) {
            let mut whole = message(LIST, Some("KUBE-CLUSTER-IP"), 0).bytes;
            whole.extend_from_slice(&bytes);
            take(&mut Estate::default(), &Raw { message_type: LIST, bytes: whole });
        }
    }
}
