//! How many new connections our rules refused.

use serde_json::Value;

use super::{
    Table,
    error::{Error, Operation},
    ruleset,
};

/// Packets of new connections that our rules refused since the table was made.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Refused {
    /// Dropped: from elsewhere than a Service's source ranges, or without a local endpoint.
    pub dropped: u64,
    /// Answered with a reset or an error: no endpoint, or no such port.
    pub rejected: u64,
}

impl Table {
    /// Reads the counters; `None` when there is no table.
    ///
    /// # Errors
    ///
    /// nft refused.
    pub async fn refused(&self) -> Result<Option<Refused>, Error> {
        let operation = Operation::Observe;
        // Terse: the elements of the sets are many and not asked for.
        let arguments = ["-t", "list", "table", "inet", ruleset::TABLE];
        match super::table::list(operation, arguments).await {
            Ok(json) => serde_json::from_str(&json)
                .map(|listing| Some(add_up(&listing)))
                .map_err(|cause| Error::Unreadable { operation, cause }),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn add_up(listing: &Value) -> Refused {
    let objects = listing["nftables"].as_array().into_iter().flatten();
    let mut refused = Refused::default();
    for rule in objects.filter_map(|object| object.get("rule")) {
        let statements = || rule["expr"].as_array().into_iter().flatten();
        let packets: u64 =
            statements().filter_map(|each| each["counter"]["packets"].as_u64()).sum();
        let has = |name: &str| statements().any(|each| each.get(name).is_some());
        if has("drop") {
            refused.dropped += packets;
        } else if has("reject") {
            refused.rejected += packets;
        }
    }
    refused
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rules_that_drop_and_rules_that_reject_are_added_up_and_no_others() {
        let rule = |packets: u64, verdict: Value| json!({"rule": {"expr": [{"counter": {"packets": packets, "bytes": 9}}, verdict]}});
        let listing = json!({"nftables": [
            {"table": {"name": "passlane"}},
            rule(1, json!({"drop": null})),
            rule(2, json!({"drop": null})),
            rule(10, json!({"reject": {"type": "tcp reset"}})),
            rule(100, json!({"masquerade": {}})),
            {"rule": {"expr": [{"drop": null}]}},
        ]});
        assert_eq!(add_up(&listing), Refused { dropped: 3, rejected: 10 });
    }
}
