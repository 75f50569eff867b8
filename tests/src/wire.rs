//! What clients and backends sent and got, counted in their own namespaces: the truth that counters
//! of the node are held against.

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::netns::Namespace;
use crate::slow_path::Seen;

const TABLE: &str = "wire";

/// Both ways of one peer, as a client sees them: `inwards` goes to the Service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wire {
    /// From clients.
    pub inwards: Seen,
    /// To clients.
    pub outwards: Seen,
}

impl Wire {
    /// What both peers counted together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let sum = |one: Seen, two: Seen| Seen {
            packets: one.packets + two.packets,
            bytes: one.bytes + two.bytes,
        };
        Self {
            inwards: sum(self.inwards, other.inwards),
            outwards: sum(self.outwards, other.outwards),
        }
    }
}

/// Counts, in the namespace of a client, what goes to a frontend and comes back, under a name.
/// `to` matches the way there and `back` the other, e.g. `ip daddr 10.96.0.10 tcp dport 80`.
pub fn watch_client(namespace: &Namespace, name: &str, to: &str, back: &str) -> Result<()> {
    watch(namespace, name, ("output", to), ("input", back))
}

/// Counts, in the namespace of a backend, what comes to its port and goes back.
pub fn watch_backend(namespace: &Namespace, name: &str, to: &str, back: &str) -> Result<()> {
    watch(namespace, name, ("input", to), ("output", back))
}

fn watch(namespace: &Namespace, name: &str, to: (&str, &str), back: (&str, &str)) -> Result<()> {
    let chain = |way: &str, (hook, matching): (&str, &str)| {
        format!(
            "counter {name}_{way} {{}}\n\
             chain {name}_{way} {{\n\
             type filter hook {hook} priority 0; policy accept;\n\
             {matching} counter name {name}_{way}\n}}\n"
        )
    };
    let rules = format!("table inet {TABLE} {{\n{}{}}}\n", chain("in", to), chain("out", back));
    namespace.nft(&rules)?;
    Ok(())
}

/// What was counted under a name so far.
pub fn counted(namespace: &Namespace, name: &str) -> Result<Wire> {
    let text = namespace.run("nft", &["-j", "list", "counters", "table", "inet", TABLE])?;
    let json: Value = serde_json::from_str(&text).context("nft -j")?;
    let way = |way: &str| {
        let wanted = format!("{name}_{way}");
        let objects = json["nftables"].as_array().into_iter().flatten();
        let mut counters = objects.filter_map(|object| object.get("counter"));
        let counter = counters.find(|counter| counter["name"] == wanted.as_str());
        let counter = counter.with_context(|| format!("no counter {wanted}: {text}"))?;
        let number = |key: &str| counter[key].as_u64().unwrap_or_default();
        anyhow::Ok(Seen { packets: number("packets"), bytes: number("bytes") })
    };
    Ok(Wire { inwards: way("in")?, outwards: way("out")? })
}
