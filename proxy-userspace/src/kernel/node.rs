//! The handles of one node: everything the agent reads and writes it by.

use super::{
    bpf::{Datapath, Localhost},
    conntrack, ipvs,
    link::Links,
    nft,
    route::Routes,
    tc::TrafficControl,
};

/// One node, which is one network namespace: that of the thread that opened it.
pub struct Node {
    /// IPVS.
    pub ipvs: ipvs::Client,
    /// Conntrack.
    pub conntrack: conntrack::Client,
    /// Our nft table.
    pub nat: nft::Table,
    /// The whole nft ruleset.
    pub ruleset: nft::Ruleset,
    /// Links.
    pub links: Links,
    /// Routes of VIPs.
    pub routes: Routes,
    /// Queueing disciplines and filters.
    pub traffic: TrafficControl,
    /// The fast path, when it runs.
    pub datapath: Option<Datapath>,
    /// Id of the program of the hash plane, when it runs.
    pub hash_program: Option<u32>,
    /// Node ports at loopback addresses, where they are asked for.
    pub localhost: Option<Localhost>,
    /// Name of the device that carries the VIPs.
    pub device: String,
    /// The VIPs are addresses of the device instead of local routes to it.
    pub vips_are_addresses: bool,
}

/// A subsystem that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// IPVS.
    #[error(transparent)]
    Ipvs(#[from] ipvs::Error),
    /// Conntrack.
    #[error(transparent)]
    Conntrack(#[from] conntrack::Error),
    /// nft.
    #[error(transparent)]
    Nat(#[from] nft::Error),
    /// Links.
    #[error(transparent)]
    Link(#[from] super::link::Error),
    /// Routes.
    #[error(transparent)]
    Route(#[from] super::route::Error),
    /// Traffic control.
    #[error(transparent)]
    Traffic(#[from] super::tc::Error),
}

impl Node {
    /// Opens every subsystem but the fast path.
    ///
    /// # Errors
    ///
    /// The first subsystem that is not there, with its cure.
    pub async fn open(device: &str) -> Result<Self, Error> {
        Ok(Self {
            nat: nft::Table::open().await?,
            ruleset: nft::Ruleset::open()?,
            ipvs: ipvs::Client::open().await?,
            conntrack: conntrack::Client::open()?,
            links: Links::open()?,
            routes: Routes::open()?,
            traffic: TrafficControl::open()?,
            datapath: None,
            hash_program: None,
            localhost: None,
            device: device.to_owned(),
            vips_are_addresses: false,
        })
    }
}
