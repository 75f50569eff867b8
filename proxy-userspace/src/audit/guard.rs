//! Finds what a redirect would skip: BPF, filters and XDP programs of others on an interface, and
//! flowtables; and rules that expect to see every packet.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use crate::{
    chain::chain,
    kernel::{
        bpf,
        node::Node,
        tc::{self, Filter},
    },
    model::interface::Interface,
    plan::interfaces::Foreign,
};

/// Between two looks through all rules of nft: there may be a hundred thousand.
const RULES_PERIOD: Duration = Duration::from_secs(30);

/// What others have that the fast path must know of.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Found {
    /// What a redirect would skip.
    pub foreign: Foreign,
    /// What loses sight of most packets, a sentence each: no reason to do without the fast path.
    pub losing: Vec<String>,
}

/// Looks again and again, and no closer than something may have changed.
#[derive(Debug, Default)]
pub struct Guard {
    ruleset: Option<RulesetSeen>,
}

/// The nft ruleset, as it was seen last.
#[derive(Debug)]
struct RulesetSeen {
    generation: u32,
    flowtables: Vec<String>,
    queueing: Vec<String>,
    /// The generation and the time of the last look through the rules.
    rules: (u32, Instant),
}

impl Guard {
    /// Returns what others have. Everything on an interface that cannot be read counts: a doubt is
    /// a reason for the slow path.
    pub async fn look(&mut self, node: &Node, interfaces: &[Interface]) -> Found {
        let mut foreign =
            Foreign { on: on_interfaces(node, interfaces).await, ..Foreign::default() };
        let mut losing = Vec::new();
        match self.ruleset(node).await {
            Ok(seen) => {
                foreign.everywhere.extend(seen.flowtables.iter().map(|name| {
                    format!("nft flowtable {name} takes established packets past IPVS")
                }));
                losing.extend(seen.queueing.iter().map(|chain| {
                    format!(
                        "nft chain {chain} queues packets to a process: it does not see those on \
                         the fast path; annotate Services whose packets it must see with \
                         passlane.io/fast-path: off"
                    )
                }));
            }
            Err(error) => {
                foreign
                    .everywhere
                    .push(format!("the nft ruleset cannot be read: {}", chain(&error)));
            }
        }
        Found { foreign, losing }
    }

    /// Reads as much of the ruleset as its generation says may have changed.
    async fn ruleset(&mut self, node: &Node) -> Result<&RulesetSeen, crate::kernel::nft::Error> {
        let generation = node.ruleset.generation().await?;
        let now = Instant::now();
        let rules_are_known = |seen: &RulesetSeen| {
            seen.rules.0 == generation || now.duration_since(seen.rules.1) < RULES_PERIOD
        };
        let seen = match self.ruleset.take() {
            Some(seen) if seen.generation == generation && rules_are_known(&seen) => seen,
            Some(seen) if rules_are_known(&seen) => {
                let flowtables = node.ruleset.flowtables().await?;
                RulesetSeen { generation, flowtables, ..seen }
            }
            _ => RulesetSeen {
                generation,
                flowtables: node.ruleset.flowtables().await?,
                queueing: node.ruleset.queueing_chains().await?,
                rules: (generation, now),
            },
        };
        Ok(self.ruleset.insert(seen))
    }
}

async fn on_interfaces(node: &Node, interfaces: &[Interface]) -> BTreeMap<u32, Vec<String>> {
    // Without a fast path nothing is skipped.
    let Some(datapath) = &node.datapath else { return BTreeMap::new() };
    let mut filters = filters(node, interfaces).await;
    let mut found = BTreeMap::new();
    for interface in interfaces {
        let mut here = Vec::new();
        if let Some(id) = interface.xdp_program
            && !datapath.is_our_xdp(interface.index, id)
            && node.hash_program != Some(id)
        {
            here.push(format!("foreign XDP program (id {id})"));
        }
        let tcx = datapath.foreign_programs(interface.index);
        here.extend(tcx.iter().map(|program| format!("foreign {program}")));
        match filters.remove(&interface.index).unwrap_or_else(|| Ok(Vec::new())) {
            Ok(filters) => {
                let others = filters.iter().filter(|filter| !bpf::is_our_filter(filter));
                here.extend(others.map(describe));
            }
            Err(error) => here.push(format!("filters cannot be read: {error}")),
        }
        if !here.is_empty() {
            found.insert(interface.index, here);
        }
    }
    found
}

type FiltersOf = BTreeMap<u32, Result<Vec<Filter>, String>>;

/// Returns the filters of each interface that can have any.
async fn filters(node: &Node, interfaces: &[Interface]) -> FiltersOf {
    let indexes: BTreeSet<u32> = interfaces.iter().map(|interface| interface.index).collect();
    let qdiscs = match node.traffic.all_qdiscs().await {
        Ok(qdiscs) => qdiscs,
        Err(error) => {
            let error = chain(&error);
            return indexes.into_iter().map(|index| (index, Err(error.clone()))).collect();
        }
    };
    let mut filters = FiltersOf::new();
    let filtered = qdiscs.iter().filter(|qdisc| qdisc.has_filters()).map(|qdisc| qdisc.index);
    for index in filtered.filter(|index| indexes.contains(index)) {
        let found = node.traffic.filters_of(index, &qdiscs).await;
        filters.insert(index, found.map_err(|error| chain(&error)));
    }
    filters
}

fn describe(filter: &Filter) -> String {
    let tc::Filter { direction, kind, priority, bpf_name, bpf_id, .. } = filter;
    match (bpf_name, bpf_id) {
        (Some(name), Some(id)) => {
            format!("foreign tc {direction} program {name} (id {id}, priority {priority})")
        }
        _ => format!("foreign tc {direction} filter {kind} (priority {priority})"),
    }
}
