//! A second opinion on the fast path: an nft counter that sees what the kernel's own path carries.
//!
//! A packet on the fast path leaves the kernel at tc ingress, before netfilter. Whatever this
//! counts took the slow path, whatever the agent's own counters say.

use anyhow::{Context as _, Result, anyhow};
use serde_json::Value;

use crate::netns::Namespace;

/// Packets and bytes that netfilter saw in the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Packets; a GSO packet is one.
    pub packets: u64,
    /// Bytes from the IP header on.
    pub bytes: u64,
}

/// Counts packets that come to the prerouting hook of `node` and match, e.g. `ip saddr 10.1.1.31`.
pub fn watch(node: &Namespace, name: &str, matching: &str) -> Result<()> {
    node.nft(&format!(
        "table inet watch {{\n\
         counter {name} {{}}\n\
         chain {name} {{\n\
         type filter hook prerouting priority -400; policy accept;\n\
         {matching} counter name {name}\n\
         }}\n}}\n"
    ))?;
    Ok(())
}

/// What a watch counted so far.
pub fn seen(node: &Namespace, name: &str) -> Result<Seen> {
    let text = node.run("nft", &["-j", "list", "counter", "inet", "watch", name])?;
    let json: Value = serde_json::from_str(&text).context("nft -j")?;
    let objects = json["nftables"].as_array().ok_or_else(|| anyhow!("nft -j: {text}"))?;
    let counter = objects.iter().find_map(|object| object.get("counter"));
    let counter = counter.ok_or_else(|| anyhow!("no counter {name}: {text}"))?;
    let number = |key: &str| counter[key].as_u64().unwrap_or_default();
    Ok(Seen { packets: number("packets"), bytes: number("bytes") })
}

/// Packets a device of `namespace` has sent: everything, whatever path it takes in the node.
pub fn sent_by(namespace: &Namespace, device: &str) -> Result<u64> {
    let text = namespace.run("ip", &["-j", "-s", "link", "show", "dev", device])?;
    let json: Value = serde_json::from_str(&text).context("ip -j")?;
    let packets = json[0]["stats64"]["tx"]["packets"].as_u64();
    packets.ok_or_else(|| anyhow!("no counter of {device}: {text}"))
}
