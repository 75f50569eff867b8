//! What the hash plane did with packets.

use comfy_table::Table;
use proxy_common::hash_reason::HashClass;
use serde::Serialize;

use crate::{audit::hashed::Hashed, cli::output};

/// A reason of the hash plane.
#[derive(Clone, Debug, Serialize)]
pub(super) struct OfHashReason {
    reason: &'static str,
    /// `carried`, `kernel` or `other`.
    class: &'static str,
    packets: u64,
    bytes: u64,
    /// Of the packets to frontends of the hash plane; absent for others.
    share: Option<f64>,
}

/// Every reason, also those that nothing was counted under.
pub(super) fn rows(hashed: Hashed) -> Vec<OfHashReason> {
    let of_it = |class| matches!(class, HashClass::Carried | HashClass::Kernel);
    let counted = hashed.reasons.iter().filter(|(reason, _)| of_it(reason.class()));
    let all: u64 = counted.map(|(_, counter)| counter.packets).sum();
    let row = |(reason, counter): &(proxy_common::hash_reason::HashReason, _)| {
        let proxy_common::abi::Counter { packets, bytes } = *counter;
        let class = reason.class();
        OfHashReason {
            reason: reason.name(),
            class: Hashed::class(class),
            packets,
            bytes,
            share: super::share(packets, all).filter(|_| of_it(class)),
        }
    };
    hashed.reasons.iter().map(row).collect()
}

/// Narrow, only what was counted.
pub(super) fn table(reasons: &[OfHashReason], wide: bool) -> Table {
    let mut table = output::table(["HASH-PLANE", "CLASS", "PACKETS", "BYTES", "SHARE"]);
    for OfHashReason { reason, class, packets, bytes, share } in reasons {
        if wide || *packets > 0 {
            let numbers = [packets.to_string(), bytes.to_string(), super::percent(*share)];
            let [packets, bytes, share] = numbers;
            table.add_row([*reason, *class, &packets, &bytes, &share]);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use proxy_common::{abi::Counter, hash_reason::HashReason};

    use super::*;

    #[test]
    fn shares_are_of_packets_to_frontends_of_the_hash_plane() {
        let counter = |packets| Counter { packets, bytes: packets * 60 };
        let hashed = Hashed {
            destinations: Vec::new(),
            reasons: vec![
                (HashReason::Cached, counter(3)),
                (HashReason::Asked, counter(1)),
                (HashReason::NoFrontend, counter(96)),
            ],
        };
        let rows = rows(hashed);
        let shares: Vec<_> = rows.iter().map(|row| (row.class, row.share)).collect();
        assert_eq!(shares, [("carried", Some(0.75)), ("kernel", Some(0.25)), ("other", None)]);
    }
}
