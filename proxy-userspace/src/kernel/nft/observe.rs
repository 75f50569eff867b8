//! Reading the table back.

use nftables::schema::{Chain, NfListObject, NfObject, Nftables, Rule};
use serde::Deserialize;

use super::{elements, ruleset};
use crate::model::nat::NatElements;

/// The table as the kernel holds it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Observed {
    /// The elements of the sets.
    pub elements: NatElements,
    /// Sets, chains and rules are those of this version. When not, the elements may be
    /// incomplete: install the table anew.
    pub current: bool,
}

/// Judges a listing of the table.
pub(super) fn observe(listing: &Nftables<'_>) -> Observed {
    let (mut elements, mut sets) = (NatElements::default(), 0);
    let (mut chains, mut rules) = (Vec::new(), Vec::new());
    let mut current = true;
    for object in listing.objects.iter() {
        let NfObject::ListObject(object) = object else { continue };
        match object {
            NfListObject::Set(set) => {
                let expected = ruleset::sets()
                    .into_iter()
                    .any(|expected| expected.name == set.name && expected.set_type == set.set_type);
                let listed = set.elem.as_deref().unwrap_or_default();
                let read = elements::from_nft(&set.name, listed, &mut elements);
                current &= expected && read.is_some();
                sets += 1;
            }
            NfListObject::Chain(chain) => chains.push(chain_identity(chain)),
            NfListObject::Rule(rule) => rules.push(rule_identity(rule)),
            NfListObject::Table(_) | NfListObject::MetainfoObject(_) => {}
            // Nothing else is ever put into the table.
            _ => current = false,
        }
    }
    let (expected_chains, expected_rules) = (ruleset::chains(), ruleset::rules());
    current &= sets == ruleset::sets().len()
        && chains == expected_chains.iter().map(chain_identity).collect::<Vec<_>>()
        && rules == expected_rules.iter().map(rule_identity).collect::<Vec<_>>();
    Observed { elements, current }
}

fn chain_identity(chain: &Chain<'_>) -> impl PartialEq + use<> {
    (chain.name.to_string(), chain._type, chain.hook, chain.prio, chain.policy)
}

/// A rule is known by its place and its comment, which carries the version. Its statements are not
/// compared: each version of nft lists them a little differently.
fn rule_identity(rule: &Rule<'_>) -> (String, Option<String>) {
    (rule.chain.to_string(), rule.comment.as_ref().map(ToString::to_string))
}

/// `nft -j list flowtables`, reduced: the crate's type does not accept negative priorities.
#[derive(Deserialize)]
struct FlowtableListing {
    nftables: Vec<FlowtableObject>,
}

#[derive(Deserialize)]
struct FlowtableObject {
    flowtable: Option<Flowtable>,
}

#[derive(Deserialize)]
struct Flowtable {
    family: String,
    table: String,
    name: String,
}

/// Reads a listing of flowtables: `family table name` each.
pub(super) fn flowtables(json: &str) -> Result<Vec<String>, serde_json::Error> {
    let listing: FlowtableListing = serde_json::from_str(json)?;
    let flowtables = listing.nftables.into_iter().filter_map(|object| object.flowtable);
    Ok(flowtables
        .map(|Flowtable { family, table, name }| format!("{family} {table} {name}"))
        .collect())
}
