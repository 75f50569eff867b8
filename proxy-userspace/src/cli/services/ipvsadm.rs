//! The list that `ipvsadm -Ln` prints (ipvsadm 1.31), byte for byte.

use std::net::IpAddr;

use super::forwarding;
use crate::{
    kernel::ipvs::{DestinationState, Info, VirtualServerState},
    model::{Scheduler, SchedulerFlags},
};

/// `IP_VS_SVC_F_ONEPACKET` of `linux/ip_vs.h`.
const ONE_PACKET: u32 = 0x04;

/// Returns the list, sorted as ipvsadm sorts.
pub(super) fn list(
    info: &Info,
    servers: &mut [(VirtualServerState, Vec<DestinationState>)],
) -> String {
    servers.sort_by_key(|(server, _)| {
        let frontend = server.virtual_server.frontend;
        (frontend.addr.is_ipv6(), frontend.protocol.number(), frontend.addr, frontend.port)
    });
    let mut text = format!(
        "IP Virtual Server version {} (size={})\n\
         Prot LocalAddress:Port Scheduler Flags\n  \
         -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n",
        info.version, info.connection_table_size
    );
    for (server, destinations) in servers {
        text += &header(server);
        destinations.sort_by_key(|state| (state.destination.key.addr, state.destination.key.port));
        for state in destinations {
            let destination = &state.destination;
            text += &format!(
                "  -> {:<28} {:<7} {:<6} {:<10} {:<10}\n",
                address(destination.key.addr, destination.key.port),
                forwarding(destination.forwarding),
                destination.weight,
                state.active_connections,
                state.inactive_connections
            );
        }
    }
    text
}

fn header(state: &VirtualServerState) -> String {
    let server = &state.virtual_server;
    let mut line = format!(
        "{}  {} {}",
        server.frontend.protocol,
        address(server.frontend.addr, server.frontend.port),
        server.scheduler
    );
    if state.flags & ONE_PACKET != 0 {
        line += " ops";
    }
    let names = flag_names(server.scheduler, server.flags);
    if !names.is_empty() {
        line += &format!(" ({})", names.join(","));
    }
    if server.persistent_secs != 0 {
        line += &format!(" persistent {}", server.persistent_secs);
    }
    line + "\n"
}

fn flag_names(scheduler: Scheduler, flags: SchedulerFlags) -> Vec<&'static str> {
    let names = match scheduler {
        Scheduler::Sh => ["sh-fallback", "sh-port", "flag-3"],
        Scheduler::Mh => ["mh-fallback", "mh-port", "flag-3"],
        _ => ["flag-1", "flag-2", "flag-3"],
    };
    [0x08, 0x10, 0x20]
        .into_iter()
        .zip(names)
        .filter_map(|(bit, name)| (flags.0 & bit != 0).then_some(name))
        .collect()
}

fn address(addr: IpAddr, port: u16) -> String {
    std::net::SocketAddr::new(addr, port).to_string()
}
