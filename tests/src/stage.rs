//! Everything a scenario needs at once: topology, servers, manifests and a ready agent.

use std::net::SocketAddr;

use anyhow::Result;

use crate::agent::Agent;
use crate::dns::Resolver;
use crate::flows::{self, Flow};
use crate::http::{Connection, get_once};
use crate::netns::Namespace;
use crate::objects::Manifests;
use crate::topology::Topology;
use crate::workload::Workload;

/// The examples, served. Fields are dropped in this order: the agent first, the namespaces last.
#[derive(Debug)]
pub struct Stage {
    /// The agent in the node.
    pub agent: Agent,
    /// The servers in the pods.
    pub workload: Workload,
    /// What the agent reads.
    pub manifests: Manifests,
    /// The namespaces.
    pub topology: Topology,
}

impl Stage {
    /// The examples with an agent that is ready.
    pub fn start(options: &[&str]) -> Result<Self> {
        Self::without_agent(options)?.started()
    }

    /// The same with its agent started and ready.
    pub fn started(mut self) -> Result<Self> {
        self.agent.spawn()?;
        self.agent.wait_ready()?;
        Ok(self)
    }

    /// The examples with an agent that was not started.
    pub fn without_agent(options: &[&str]) -> Result<Self> {
        Self::with_agent(|topology, manifests| Agent::new(topology, manifests, options))
    }

    /// The examples with an agent of the caller's making.
    pub fn with_agent(make: impl FnOnce(&Topology, &Manifests) -> Agent) -> Result<Self> {
        let topology = Topology::example()?;
        let workload = Workload::start(&topology)?;
        let manifests = Manifests::examples_in(topology.directory())?;
        let agent = make(&topology, &manifests);
        Ok(Self { agent, workload, manifests, topology })
    }

    /// The namespace of the pod that asks.
    pub fn client(&self) -> Result<Namespace> {
        Ok(self.topology.pod("client")?.namespace.clone())
    }

    /// Requests `/` on `count` connections of their own, one after another, and returns who
    /// answered.
    pub fn short_requests(&self, to: SocketAddr, count: usize) -> Result<Vec<String>> {
        let client = self.client()?;
        (0..count).map(|_| get_once(&client, to, "/")).collect()
    }

    /// Opens a connection from the client pod and asks until it is on the fast path both ways.
    pub fn fast_connection(&self, to: SocketAddr) -> Result<Connection> {
        let mut connection = Connection::open(&self.client()?, to)?;
        self.drive_to_fast_path(connection.local()?, to, || connection.get("/").map(drop))?;
        Ok(connection)
    }

    /// Opens a UDP socket in the client pod and asks until its flow is on the fast path both ways.
    pub fn fast_resolver(&self, to: SocketAddr) -> Result<Resolver> {
        let mut resolver = Resolver::open(&self.client()?, to)?;
        self.drive_to_fast_path(resolver.local()?, to, || resolver.ask().map(drop))?;
        Ok(resolver)
    }

    /// Repeats `exchange` until the flow `source` → `to` and its answers are active.
    pub fn drive_to_fast_path(
        &self,
        source: SocketAddr,
        to: SocketAddr,
        exchange: impl FnMut() -> Result<()>,
    ) -> Result<Flow> {
        flows::drive(&self.agent, source, to, exchange)
    }
}
