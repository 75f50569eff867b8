//! A frontend that IPVS has served until now: its connections that the table does not explain are
//! taken over, so that XDP sends them where they live.

use std::net::IpAddr;

use proxy_common::abi::{HashFlow, HashFlowKey, HashFlowState};
use tracing::{info, warn};

use super::HashPlane;
use crate::{
    chain::chain,
    kernel::{
        bpf,
        ipvs::connections::{self, Connection},
    },
    plan::hash_plane::{Carried, Member, Slots},
};

/// With more connections than these the kernel takes too long to list them (before Linux 7.1).
const MOST: u32 = 20_000;

impl HashPlane {
    /// Takes over the connections of a frontend; says whether all are known now.
    pub(super) fn adopt(&mut self, carried: &Carried, slots: &Slots, connections: u32) -> bool {
        if connections == 0 {
            return true;
        }
        if connections > MOST {
            info!(
                event = "connections_left",
                frontend = %carried.frontend,
                connections,
                "IPVS goes on with what it has; XDP begins with new flows"
            );
            return false;
        }
        // Once for all frontends of a pass: the kernel lists the connections of all.
        let listed = match self.listed.take().map_or_else(connections::read, Ok) {
            Ok(listed) => listed,
            Err(error) => {
                warn!(event = "connections_left", error = chain(&error), "IPVS goes on with them");
                return false;
            }
        };
        let adopted = self.adopt_of(&listed, carried, slots);
        self.listed = Some(listed);
        match adopted {
            Ok(adopted) => {
                info!(event = "connections_adopted", frontend = %carried.frontend, adopted, "from IPVS");
                true
            }
            Err(error) => {
                warn!(event = "connections_left", error = chain(&error), "IPVS goes on with them");
                false
            }
        }
    }

    /// Takes over those that the table would send elsewhere; returns how many.
    fn adopt_of(
        &mut self,
        listed: &[Connection],
        carried: &Carried,
        slots: &Slots,
    ) -> Result<usize, bpf::Error> {
        let mut adopted = 0;
        for connection in listed.iter().filter(|each| each.frontend == carried.frontend) {
            let client = (connection.client_addr, connection.client_port);
            let chosen = slots.choice(carried, client);
            if chosen.is_some_and(|chosen| chosen.destination.key == connection.destination) {
                continue;
            }
            if let Some(member) = carried.member(&connection.destination) {
                self.put_flow(connection, member)?;
                adopted += 1;
            }
        }
        Ok(adopted)
    }

    fn put_flow(&mut self, connection: &Connection, member: &Member) -> Result<(), bpf::Error> {
        let flow = HashFlow {
            backend: member.index,
            generation: member.generation,
            seen: self.plane.jiffies()?,
            state: HashFlowState::OPEN,
        };
        match (connection.client_addr, connection.frontend.addr) {
            (IpAddr::V4(client), IpAddr::V4(dialled)) => {
                let key = key(client.octets(), dialled.octets(), connection);
                self.plane.put_flow4(key, flow)
            }
            (IpAddr::V6(client), IpAddr::V6(dialled)) => {
                let key = key(client.octets(), dialled.octets(), connection);
                self.plane.put_flow6(key, flow)
            }
            // IPVS has no such connection.
            _ => Ok(()),
        }
    }
}

fn key<A>(source: A, destination: A, connection: &Connection) -> HashFlowKey<A> {
    HashFlowKey {
        source,
        destination,
        source_port: connection.client_port,
        destination_port: connection.frontend.port,
        protocol: connection.frontend.protocol.number(),
        _pad: [0; 3],
    }
}
