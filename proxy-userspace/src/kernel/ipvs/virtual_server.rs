//! Virtual servers as nests of `IPVS_SVC_ATTR_*`.

use bytes::BytesMut;

use super::{
    attribute::{
        Attributes, DecodeError, family, put, put_addr, put_nest, put_port, put_u16, put_u32, svc,
        top,
    },
    stats::{self, Stats},
};
use crate::model::{Frontend, Protocol, Scheduler, SchedulerFlags, VirtualServer};

/// `IP_VS_SVC_F_PERSISTENT`: the virtual server keeps clients on one destination.
pub const FLAG_PERSISTENT: u32 = 0x01;
/// `IP_VS_SVC_F_HASHED`: the kernel's own, always set on what it lists.
pub const FLAG_HASHED: u32 = 0x02;
/// `IP_VS_SVC_F_ONEPACKET`: each UDP packet is scheduled on its own.
pub const FLAG_ONE_PACKET: u32 = 0x04;

/// A virtual server as the kernel holds it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VirtualServerState {
    /// The virtual server. When `unknown_scheduler` is set, its scheduler is a stand-in.
    pub virtual_server: VirtualServer,
    /// `IP_VS_SVC_F_*` as the kernel gave them; the model knows only the scheduler's.
    pub flags: u32,
    /// Name of a scheduler that is not in the model: out of tree, or `none` while the kernel
    /// exchanges schedulers. A put replaces it.
    pub unknown_scheduler: Option<String>,
    /// Counters.
    pub stats: Stats,
}

/// Appends the nest that names a virtual server: all that GET, DEL and the commands on
/// destinations need (`ip_vs_genl_parse_service`).
pub fn encode_key(buffer: &mut BytesMut, frontend: &Frontend) {
    put_nest(buffer, top::SERVICE, |nest| put_key(nest, frontend));
}

/// Appends the nest that NEW and SET need.
///
/// The flag mask is all ones: flags that the model does not know, such as one-packet scheduling,
/// are cleared.
pub fn encode(buffer: &mut BytesMut, virtual_server: &VirtualServer) {
    let frontend = &virtual_server.frontend;
    let persistent = if virtual_server.persistent_secs > 0 { FLAG_PERSISTENT } else { 0 };
    let flags = (virtual_server.flags.0 & SchedulerFlags::MASK) | persistent;
    put_nest(buffer, top::SERVICE, |nest| {
        put_key(nest, frontend);
        let mut name = BytesMut::from(virtual_server.scheduler.name());
        name.extend_from_slice(&[0]);
        put(nest, svc::SCHED_NAME, &name);
        let mut pair = [0; 8];
        pair[..4].copy_from_slice(&flags.to_ne_bytes());
        pair[4..].copy_from_slice(&u32::MAX.to_ne_bytes());
        put(nest, svc::FLAGS, &pair);
        put_u32(nest, svc::TIMEOUT, virtual_server.persistent_secs);
        // Single clients persist: a full IPv4 mask, or an IPv6 prefix of all bits.
        put_u32(nest, svc::NETMASK, if frontend.addr.is_ipv4() { u32::MAX } else { 128 });
    });
}

fn put_key(nest: &mut BytesMut, frontend: &Frontend) {
    put_u16(nest, svc::AF, family(frontend.addr));
    put_u16(nest, svc::PROTOCOL, frontend.protocol.number().into());
    put_addr(nest, svc::ADDR, frontend.addr);
    put_port(nest, svc::PORT, frontend.port);
}

/// Reads a GET_SERVICE reply without its headers. `None`: it is a virtual server by firewall
/// mark, which has no frontend.
pub fn decode(message: &[u8]) -> Result<Option<VirtualServerState>, DecodeError> {
    let message = Attributes::parse("virtual server message", message)?;
    let nest = Attributes::parse("virtual server", message.bytes(top::SERVICE)?)?;
    if nest.optional(svc::FWMARK).is_some() {
        return Ok(None);
    }
    let number = nest.u16(svc::PROTOCOL)?;
    let protocol = u8::try_from(number)
        .ok()
        .and_then(Protocol::from_number)
        .ok_or(DecodeError::Protocol { number })?;
    let frontend = Frontend {
        addr: nest.addr(svc::ADDR, nest.u16(svc::AF)?)?,
        port: nest.port(svc::PORT)?,
        protocol,
    };
    let scheduler_name = nest.string(svc::SCHED_NAME)?;
    let scheduler = scheduler_name.parse::<Scheduler>();
    let (flags, _mask) = nest.u32_pair(svc::FLAGS)?;
    // The kernel keeps a timeout even without the persistent flag.
    let persistent_secs = match flags & FLAG_PERSISTENT {
        0 => 0,
        _ => nest.u32(svc::TIMEOUT)?,
    };
    Ok(Some(VirtualServerState {
        virtual_server: VirtualServer {
            frontend,
            scheduler: scheduler.clone().unwrap_or_default(),
            flags: SchedulerFlags(flags & SchedulerFlags::MASK),
            persistent_secs,
        },
        flags,
        unknown_scheduler: scheduler.is_err().then_some(scheduler_name),
        stats: stats::decode(&nest, svc::STATS64, svc::STATS)?,
    }))
}

#[cfg(test)]
pub(super) mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;

    /// Any frontend.
    pub(in super::super) fn frontends() -> impl Strategy<Value = Frontend> {
        let protocol = prop::sample::select(vec![Protocol::Tcp, Protocol::Udp, Protocol::Sctp]);
        (any::<IpAddr>(), any::<u16>(), protocol).prop_map(|(addr, port, protocol)| Frontend {
            addr,
            port,
            protocol,
        })
    }

    fn virtual_servers() -> impl Strategy<Value = VirtualServer> {
        let scheduler = prop::sample::select(Scheduler::NAMES.to_vec());
        (frontends(), scheduler, 0..8u32, prop_oneof![Just(0), any::<u32>()]).prop_map(
            |(frontend, scheduler, flags, persistent_secs)| VirtualServer {
                frontend,
                scheduler: scheduler.parse().unwrap(),
                flags: SchedulerFlags(flags << 3),
                persistent_secs,
            },
        )
    }

    #[test]
    fn a_firewall_mark_virtual_server_is_skipped() {
        let mut message = BytesMut::new();
        put_nest(&mut message, top::SERVICE, |nest| {
            put_u16(nest, svc::AF, 2);
            put_u32(nest, svc::FWMARK, 7);
        });
        assert_eq!(decode(&message), Ok(None));
    }

    #[test]
    fn an_unknown_scheduler_is_kept_by_name() {
        let mut message = BytesMut::new();
        put_nest(&mut message, top::SERVICE, |nest| {
            put_key(
                nest,
                &Frontend { addr: [10, 0, 0, 1].into(), port: 80, protocol: Protocol::Tcp },
            );
            put(nest, svc::SCHED_NAME, b"none\0");
            put(nest, svc::FLAGS, &[0; 8]);
        });
        let state = decode(&message).unwrap().unwrap();
        assert_eq!(state.unknown_scheduler.as_deref(), Some("none"));
    }

    proptest! {
        #[test]
        fn a_virtual_server_survives_encode_and_decode(virtual_server in virtual_servers()) {
            let mut message = BytesMut::new();
            encode(&mut message, &virtual_server);
            let state = decode(&message).unwrap().unwrap();
            prop_assert_eq!(state.virtual_server, virtual_server);
            prop_assert_eq!(state.unknown_scheduler, None);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&bytes);
            let mut message = BytesMut::new();
            put(&mut message, top::SERVICE, &bytes);
            let _ = decode(&message);
        }
    }
}
