//! What would have been fast, where the fast path only observes.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    cli::output,
    kernel::{bpf::Maps, link},
    ledger::Owned,
};

/// Packets of a frontend that came in by an interface.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub(super) struct Observed {
    service: String,
    frontend: String,
    interface: String,
    packets: u64,
    bytes: u64,
}

/// Returns what was counted; what belongs to no frontend any more is left out.
pub(super) fn gather(maps: &Maps, owned: &Owned) -> Vec<Observed> {
    let frontends = maps.frontends().unwrap_or_default();
    let frontends: BTreeMap<u32, _> =
        frontends.into_iter().map(|(frontend, value)| (value.id, frontend)).collect();
    let counted = maps.observed().unwrap_or_default().into_iter();
    let mut observed: Vec<Observed> = counted
        .filter_map(|(key, counter)| {
            let frontend = frontends.get(&key.frontend)?;
            let service = owned.virtual_servers.get(frontend);
            let interface = link::name(key.interface).unwrap_or_else(|| key.interface.to_string());
            Some(Observed {
                service: service.map(ToString::to_string).unwrap_or_default(),
                frontend: frontend.to_string(),
                interface,
                packets: counter.packets,
                bytes: counter.bytes,
            })
        })
        .collect();
    observed.sort();
    observed
}

/// Returns the table for people; nothing when nothing was counted.
pub(super) fn describe(observed: &[Observed], headers: bool) -> String {
    if observed.is_empty() {
        return String::new();
    }
    let mut table = output::table(["WOULD BE FAST", "FRONTEND", "INTERFACE", "PACKETS", "BYTES"]);
    for row in observed {
        let (packets, bytes) = (row.packets.to_string(), row.bytes.to_string());
        table.add_row([&row.service, &row.frontend, &row.interface, &packets, &bytes]);
    }
    format!("\n{}", output::render(&table, headers))
}
