//! The kernel of the machine the bench runs on, in a network namespace that is empty.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, ensure};
use proxy_tests::process;
use proxy_userspace::{
    apply::Executor,
    audit::{
        look::{Dear, Expected, Looker, Suspects},
        observe::observe,
    },
    kernel::{module, node::Node},
    ledger::Ledger,
    model::{Frontend, RuleOptions},
    plan::{DesiredServer, Observed, Plan, Settings},
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::{
    fake,
    kernel::{Kernel, Sent},
};

/// IPVS, nft and routes, written as the agent writes them. No fast path.
pub(crate) struct Real {
    runtime: Runtime,
    node: Node,
    ledger: Ledger,
    rules: RuleOptions,
    observed: Observed,
    _state: TempDir,
}

/// Loads what the kernel needs; a process in another namespace may not.
pub(crate) fn prepare() -> Result<()> {
    for name in ["ip_vs", "ip_vs_rr", "nf_conntrack"] {
        module::load(name)?;
    }
    Ok(())
}

/// The kernel takes destinations only where it has a route to them.
const LINKS: &str = "link set lo up\n\
    link add uplink type dummy\n\
    link set uplink up\n\
    addr add 172.18.0.2/16 dev uplink\n\
    route add default via 172.18.0.1\n";

impl Real {
    /// Opens the namespace that this process is in. Errs where somebody has virtual servers.
    pub(crate) fn open() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        process::feed("ip", &["-batch", "-"], LINKS)?;
        let state = tempfile::tempdir().context("a directory for the ledger")?;
        let ledger = Ledger::open(state.path())?;
        let rules = Settings::default().rules();
        let (node, observed) = runtime.block_on(async {
            let node = Node::open("kube-ipvs0").await?;
            let observed = observe(&node, ledger.owned(), &rules).await?;
            anyhow::Ok((node, observed))
        })?;
        ensure!(
            observed.servers.is_empty(),
            "IPVS has virtual servers: start this by `cargo xtask bench control`"
        );
        Ok(Self { runtime, node, ledger, rules, observed, _state: state })
    }
}

impl Kernel for Real {
    fn observed(&self) -> &Observed {
        &self.observed
    }

    fn apply(&mut self, plan: &Plan, servers: &BTreeMap<Frontend, DesiredServer>) -> Result<Sent> {
        let Self { node, ledger, observed, .. } = self;
        let mut executor = Executor { node, ledger, servers };
        let failed = self.runtime.block_on(executor.apply(plan, observed));
        if let Some(first) = failed.first() {
            return Err(anyhow::anyhow!("{}: {}", first.action, first.failure));
        }
        let requests = plan.actions.iter().filter_map(fake::command);
        let requests = requests.map(|command| command.requests().len()).sum();
        Ok(Sent { requests, bytes: 0 })
    }

    fn look(&mut self) -> Result<Option<Duration>> {
        let expected = Expected::of(&self.observed, None);
        let look = Looker::new(None, Vec::new())?.look(Dear { servers: true, entries: None });
        let suspects = expected.suspects(&look);
        ensure!(
            suspects == Suspects::default(),
            "a node as it was left has suspects: {suspects:?}"
        );
        Ok(Some(look.cost))
    }

    fn check(&mut self) -> Result<()> {
        let there = observe(&self.node, self.ledger.owned(), &self.rules);
        let there = self.runtime.block_on(there)?;
        ensure!(there.servers == self.observed.servers, "IPVS is not as it was made");
        ensure!(there.vips == self.observed.vips, "the routes are not as they were made");
        ensure!(there.table == self.observed.table, "the nft table is not as it was made");
        Ok(())
    }
}
