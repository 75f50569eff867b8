//! Who has which frontend: first come, first served, in order of seniority.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use super::DesiredServer;
use crate::model::{Frontend, Notice, Protocol, ServicePortName};

/// The frontends and node ports that are taken so far.
#[derive(Default)]
pub(super) struct Claims {
    pub(super) servers: BTreeMap<Frontend, DesiredServer>,
    pub(super) node_ports: BTreeMap<(Protocol, u16), ServicePortName>,
    pub(super) notices: BTreeSet<Notice>,
}

impl Claims {
    /// Takes the frontend of the server, or notes who has it.
    pub(super) fn claim(&mut self, server: DesiredServer) {
        let frontend = server.virtual_server.frontend;
        match self.servers.entry(frontend) {
            Entry::Vacant(entry) => {
                entry.insert(server);
            }
            Entry::Occupied(entry) if entry.get().service == server.service => {}
            Entry::Occupied(entry) => {
                let winner = entry.get().service.clone();
                let loser = server.service;
                self.notices.insert(Notice::FrontendTaken { frontend, winner, loser });
            }
        }
    }

    /// Takes a node port on all addresses of the node; returns whether the Service port has it.
    pub(super) fn claim_node_port(
        &mut self,
        protocol: Protocol,
        port: u16,
        service: &ServicePortName,
    ) -> bool {
        let winner = self.node_ports.entry((protocol, port)).or_insert_with(|| service.clone());
        if winner == service {
            return true;
        }
        let (winner, loser) = (winner.clone(), service.clone());
        self.notices.insert(Notice::NodePortTaken { protocol, port, winner, loser });
        false
    }
}
