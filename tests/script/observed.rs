//! Section `observed`: what others did to the node since the last step, one line each.
//!
//! ```text
//! server FRONTEND SCHEDULER owned|foreign     a virtual server
//! destination FRONTEND ADDR:PORT WEIGHT       a destination of one that is there
//! frontend FRONTEND ID learn|quiet|MODE       an entry of the frontend map
//! backend ADDR:PORT/PROTOCOL ID               an entry of the backend map
//! vip ADDR                                    a VIP
//! foreign-vip ADDR                            an address that somebody else put on the device
//! outdated-vip ADDR                           a VIP in the way that was configured before
//! no server FRONTEND | no vips | no table | no device | no frontends | no backends
//! ```

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use proxy_userspace::{
    model::{
        Backend, Destination, DestinationKey, FastPath, Forwarding, Frontend, SchedulerFlags,
        VirtualServer,
    },
    plan::{Destinations, FrontendEntry, IdMap, Observed, ObservedServer},
};

/// Takes up one line.
pub(crate) fn take(observed: &mut Observed, line: &str) -> Result<()> {
    match *line.split(' ').collect::<Vec<_>>() {
        ["server", key, scheduler, owner @ ("owned" | "foreign")] => {
            let frontend = frontend(key)?;
            let virtual_server = VirtualServer {
                frontend,
                scheduler: scheduler.parse()?,
                flags: SchedulerFlags::default(),
                persistent_secs: 0,
            };
            let (destinations, owned) = (Destinations::default(), owner == "owned");
            let server = ObservedServer { virtual_server, destinations, owned, order: Vec::new() };
            observed.servers.insert(frontend, server);
        }
        ["destination", key, destination, weight] => {
            let server = observed.servers.get_mut(&frontend(key)?).context("no such server")?;
            let key = self::key(destination)?;
            let (weight, forwarding) = (weight.parse()?, Forwarding::Masq);
            server.destinations.insert(Destination {
                limits: Default::default(),
                key,
                weight,
                forwarding,
            });
            server.order.push(key);
        }
        ["frontend", key, id, mode] => {
            let fast_path = match mode {
                "learn" => FastPath::Auto,
                "quiet" => FastPath::Off,
                mode => FastPath::named(mode).context("no such mode")?,
            };
            let entry = FrontendEntry { id: id.parse()?, fast_path };
            observed.frontends.insert(frontend(key)?, entry);
        }
        ["backend", key, id] => {
            let Frontend { addr, port, protocol } = frontend(key)?;
            observed.backends.insert(Backend { addr, port, protocol }, id.parse()?);
        }
        ["vip", addr] => {
            observed.vips.insert(addr.parse()?);
        }
        ["foreign-vip", addr] => {
            observed.foreign_vips.insert(addr.parse()?);
        }
        ["outdated-vip", addr] => {
            observed.outdated_vips.insert(addr.parse()?);
        }
        ["no", "server", key] => {
            observed.servers.remove(&frontend(key)?);
        }
        ["no", "vips"] => observed.vips.clear(),
        ["no", "table"] => observed.table = None,
        ["no", "device"] => observed.device = false,
        ["no", "frontends"] => observed.frontends = IdMap::default(),
        ["no", "backends"] => observed.backends = IdMap::default(),
        _ => bail!("unknown line {line:?} in section observed"),
    }
    Ok(())
}

/// Reads `10.96.0.10:80/TCP`.
pub(crate) fn frontend(text: &str) -> Result<Frontend> {
    let (addr, protocol) = text.split_once('/').context("no /PROTOCOL")?;
    let addr: SocketAddr = addr.parse()?;
    Ok(Frontend { addr: addr.ip(), port: addr.port(), protocol: protocol.parse()? })
}

/// Reads `10.244.1.5:8080`.
pub(crate) fn key(text: &str) -> Result<DestinationKey> {
    let addr: SocketAddr = text.parse()?;
    Ok(DestinationKey { addr: addr.ip(), port: addr.port() })
}
