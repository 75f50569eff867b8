//! What must be there before the agent may start, each with its cure.

use std::io;

use tracing::warn;

use super::sysctls;
use crate::{
    audit::observe,
    chain::chain,
    config::{Settings, Vips},
    kernel::{
        capability::{self, Capability},
        ipvs, link, module,
        node::{self, Node},
        sysctl,
    },
    ledger::{self, Ledger, Record, TimeoutsChange},
    source::SourceError,
    status,
};

/// Why the agent cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    /// It may not do what everything here is about.
    #[error(
        "{capability} is missing: run as root (sudo), or give the container or the unit the \
         capabilities CAP_NET_ADMIN, CAP_BPF and CAP_PERFMON"
    )]
    Lacks {
        /// What is missing.
        capability: Capability,
    },
    /// Capabilities cannot be read, or not given up.
    #[error(transparent)]
    Capabilities(#[from] capability::Error),
    /// Two proxies would undo each other's work.
    #[error(
        "kube-proxy runs on this node ({live}): two proxies undo each other's work; stop it first, \
         or take its connections over with `passlane run --adopt`"
    )]
    KubeProxyRuns {
        /// How it was found.
        live: String,
    },
    /// A kube-proxy whose connections are not in IPVS.
    #[error(
        "kube-proxy runs on this node ({live}), and only its ipvs mode has what could be adopted: \
         stop it and run `kube-proxy --cleanup` first"
    )]
    NothingToAdopt {
        /// How it was found.
        live: String,
    },
    /// A flow table takes packets past IPVS.
    #[error(
        "nft flowtable {0} is present: it takes established packets past IPVS and breaks its \
         connections; remove it (`nft delete flowtable {0}`) first"
    )]
    Flowtable(String),
    /// A kernel module cannot be loaded.
    #[error(transparent)]
    Module(#[from] module::Error),
    /// A subsystem is not there.
    #[error(transparent)]
    Node(#[from] node::Error),
    /// The device that carries the VIPs cannot be used.
    #[error(transparent)]
    Link(#[from] link::Error),
    /// The node cannot be read.
    #[error(transparent)]
    Observe(#[from] observe::Error),
    /// A setting without which nothing works.
    #[error(transparent)]
    Sysctl(#[from] sysctl::Error),
    /// The state directory cannot be used.
    #[error(transparent)]
    Status(#[from] status::Error),
    /// The ledger cannot be used.
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
    /// The source cannot be used.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The source says nothing.
    #[error("{source_name} says nothing that could be planned: {why}")]
    NoAnswer {
        /// The source.
        source_name: String,
        /// What it said last.
        why: String,
    },
    /// Signals cannot be caught.
    #[error("catch signals")]
    Signal(#[source] io::Error),
}

/// Opens the node, and makes sure of what everything else stands on.
///
/// # Errors
///
/// The first thing that is missing.
pub(super) async fn open(settings: &Settings, ledger: &mut Ledger) -> Result<Node, Fatal> {
    for name in ["ip_vs", "nf_conntrack"] {
        module::load(name)?;
    }
    let mut node = Node::open(&settings.dummy_device).await?;
    node.vips_are_addresses = settings.vips == Vips::Addresses;
    if let Some(flowtable) =
        node.ruleset.flowtables().await.map_err(node::Error::from)?.into_iter().next()
    {
        return Err(Fatal::Flowtable(flowtable));
    }
    // Before anything else is made: a device of another kind is found out here.
    if node.links.index_of(&settings.dummy_device).await?.is_none() {
        ledger.record([Record::Device { name: settings.dummy_device.clone(), owned: true }])?;
    }
    node.links.put_dummy(&settings.dummy_device).await?;
    configure(settings, &node, ledger).await?;
    Ok(node)
}

/// Tells the kernel what the operator asks for beyond forwarding. What it refuses is logged, and
/// no reason not to forward; only the ledger must do.
async fn configure(settings: &Settings, node: &Node, ledger: &mut Ledger) -> Result<(), Fatal> {
    if let Some(set) = settings.ipvs_timeouts.request() {
        match node.ipvs.timeouts().await {
            Ok(previous) if previous.after(set) == previous => {}
            Ok(previous) => {
                let written = previous.after(set);
                let change = Some(TimeoutsChange { previous, written });
                ledger.record([Record::IpvsTimeouts { change }])?;
                warn_of_timeouts(node.ipvs.set_timeouts(&set).await);
            }
            Err(error) => warn_of_timeouts(Err(error)),
        }
    }
    Ok(sysctls::apply_configured(ledger, settings)?)
}

fn warn_of_timeouts(result: Result<(), ipvs::Error>) {
    if let Err(error) = result {
        warn!(event = "timeouts_failed", error = chain(&error), "ipvs timeouts stay as they were");
    }
}
