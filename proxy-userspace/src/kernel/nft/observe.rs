//! Reading the table back.

use std::collections::BTreeSet;

use nftables::schema::{Chain, NfListObject, NfObject, Nftables, Rule, SetTypeValue};

use super::{
    elements, ruleset,
    sets::{self, Kind},
};
use crate::model::{Element, RuleOptions};

/// The table as the kernel holds it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Observed {
    /// The elements of the sets.
    pub elements: BTreeSet<Element>,
    /// Sets, chains and rules are those of this version. When not, the elements may be
    /// incomplete: install the table anew.
    pub current: bool,
}

/// The table with whatever rules it has.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Reading {
    /// Which of the fixed rules it has.
    pub rules: RuleOptions,
    /// The elements of the sets.
    pub elements: BTreeSet<Element>,
    /// Everything could be read; when not, somebody or another version wrote to the table.
    pub whole: bool,
}

/// Reads a listing of the table. Which rules it has is told by their comments.
pub(super) fn read(listing: &Nftables<'_>) -> Reading {
    let mut reading = elements::Reading::default();
    let mut comments = Vec::new();
    let mut whole = true;
    for object in listing.objects.iter() {
        let NfObject::ListObject(object) = object else { continue };
        let (name, listed) = match object {
            NfListObject::Set(set) => (&set.name, &set.elem),
            NfListObject::Map(map) => (&map.name, &map.elem),
            NfListObject::Rule(rule) => {
                comments.extend(rule.comment.as_deref());
                continue;
            }
            _ => continue,
        };
        whole &= reading.take(name, listed.as_deref().unwrap_or_default()).is_some();
    }
    let elements = reading.finish();
    whole &= elements.is_some();
    let elements = elements.unwrap_or_default();
    Reading { rules: ruleset::options(&comments), elements, whole }
}

/// Judges a listing of the table.
pub(super) fn observe(listing: &Nftables<'_>, options: &RuleOptions) -> Observed {
    let (mut reading, mut sets) = (elements::Reading::default(), 0);
    let (mut chains, mut rules) = (Vec::new(), Vec::new());
    let mut current = true;
    for object in listing.objects.iter() {
        let NfObject::ListObject(object) = object else { continue };
        match object {
            NfListObject::Set(set) => {
                let listed = set.elem.as_deref().unwrap_or_default();
                let read = reading.take(&set.name, listed);
                current &= is_expected(&set.name, &set.set_type) && read.is_some();
                sets += 1;
            }
            NfListObject::Map(map) => {
                let listed = map.elem.as_deref().unwrap_or_default();
                let read = reading.take(&map.name, listed);
                current &= is_expected(&map.name, &map.set_type) && read.is_some();
                sets += 1;
            }
            NfListObject::Chain(chain) => chains.push(chain_identity(chain)),
            NfListObject::Rule(rule) => rules.push(rule_identity(rule)),
            NfListObject::Table(_) | NfListObject::MetainfoObject(_) => {}
            // Nothing else is ever put into the table.
            _ => current = false,
        }
    }
    let (expected_chains, mut expected_rules) = (ruleset::chains(options), ruleset::rules(options));
    // The kernel lists rules chain by chain.
    let position =
        |rule: &Rule<'_>| expected_chains.iter().position(|chain| chain.name == rule.chain);
    expected_rules.sort_by_key(position);
    current &= sets == sets::all().len()
        && chains == expected_chains.iter().map(chain_identity).collect::<Vec<_>>()
        && rules == expected_rules.iter().map(rule_identity).collect::<Vec<_>>();
    let elements = reading.finish();
    current &= elements.is_some();
    Observed { elements: elements.unwrap_or_default(), current }
}

fn is_expected(name: &str, keys: &SetTypeValue<'_>) -> bool {
    Kind::named(name).is_some_and(|(kind, ipv6)| kind.keys(ipv6) == *keys)
}

fn chain_identity(chain: &Chain<'_>) -> impl PartialEq + use<> {
    (chain.name.to_string(), chain._type, chain.hook, chain.prio, chain.policy)
}

/// A rule is known by its place and its comment, which carries the version. Its statements are not
/// compared: each version of nft lists them a little differently.
fn rule_identity(rule: &Rule<'_>) -> (String, Option<String>) {
    (rule.chain.to_string(), rule.comment.as_ref().map(ToString::to_string))
}
