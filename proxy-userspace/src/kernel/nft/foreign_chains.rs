//! Chains of others, and the rules that lead to them: those of iptables, which keeps its tables in
//! nf_tables nowadays.

use std::fmt;

use nftables::{
    schema::{Chain, FlushObject, NfCmd, NfListObject, Rule},
    types::NfFamily,
};

use super::{
    error::{Error, Operation},
    survey::{
        EXPRESSION_DATA, EXPRESSION_NAME, EXPRESSIONS, GET_RULE, HEADER, NAME, Ruleset, TABLE,
        request,
    },
    table::apply,
};
use crate::kernel::{
    netlink,
    raw::{Raw, attributes, find, text},
};

/// `NFT_MSG_GETCHAIN`.
const GET_CHAIN: u16 = (GET_RULE & 0xff00) | 4;
/// `NFTA_CHAIN_NAME`.
const CHAIN_NAME: u16 = 3;
/// `NFTA_CHAIN_POLICY`, big-endian.
const CHAIN_POLICY: u16 = 5;
/// `NF_DROP`.
const POLICY_DROP: u32 = 0;
/// `NFTA_RULE_HANDLE`, big-endian.
const RULE_HANDLE: u16 = 3;
/// `NFTA_IMMEDIATE_DATA`.
const IMMEDIATE_DATA: u16 = 2;
/// `NFTA_DATA_VERDICT`.
const DATA_VERDICT: u16 = 2;
/// `NFTA_VERDICT_CHAIN`: only jumps have one.
const VERDICT_CHAIN: u16 = 2;
/// `NFPROTO_IPV4`.
const IPV4: u8 = 2;
/// `NFPROTO_IPV6`.
const IPV6: u8 = 10;

/// A chain in a table of family `ip` or `ip6`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FoundChain {
    /// Of family `ip6`.
    pub ipv6: bool,
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// It drops what no rule of it takes.
    pub drops: bool,
}

impl fmt::Display for FoundChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = if self.ipv6 { "ip6" } else { "ip" };
        write!(f, "{family} {} {}", self.table, self.name)
    }
}

/// A rule that leads to another chain.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FoundJump {
    /// Of family `ip6`.
    pub ipv6: bool,
    /// Its table.
    pub table: String,
    /// Its chain.
    pub from: String,
    /// Names the rule in its table.
    pub handle: u64,
    /// Where it leads.
    pub to: String,
}

impl Ruleset {
    /// Returns the chains of all tables of families `ip` and `ip6`.
    ///
    /// # Errors
    ///
    /// The kernel did not say.
    pub async fn chains(&self) -> Result<Vec<FoundChain>, Error> {
        let mut found = Vec::new();
        let request = netlink::dump(request(GET_CHAIN));
        self.scan(Operation::ListChains, request, |reply| found.extend(chain(&reply))).await?;
        Ok(found)
    }

    /// Returns the rules of these families that lead to chains whose names begin so. Reads every
    /// rule: the cost grows with the ruleset.
    ///
    /// # Errors
    ///
    /// The kernel did not say.
    pub async fn jumps(&self, prefix: &str) -> Result<Vec<FoundJump>, Error> {
        let mut found = Vec::new();
        self.rules_of(request(GET_RULE), |reply| {
            found.extend(jump(&reply).filter(|jump| jump.to.starts_with(prefix)));
        })
        .await?;
        Ok(found)
    }
}

/// Removes rules, and then chains with all their rules, in one transaction: packets see all of them
/// or none.
///
/// # Errors
///
/// nft refused: nothing was removed.
pub async fn remove_chains(rules: &[FoundJump], chains: &[FoundChain]) -> Result<(), Error> {
    let rules = rules.iter().map(|rule| {
        NfCmd::Delete(NfListObject::Rule(Rule {
            family: family(rule.ipv6),
            table: rule.table.as_str().into(),
            chain: rule.from.as_str().into(),
            // nft has no larger one either.
            handle: u32::try_from(rule.handle).ok(),
            ..Rule::default()
        }))
    });
    // They lead to each other: all are empty before the first goes.
    let flushes = chains.iter().map(|chain| NfCmd::Flush(FlushObject::Chain(named(chain))));
    let removals = chains.iter().map(|chain| NfCmd::Delete(NfListObject::Chain(named(chain))));
    let commands: Vec<_> = rules.chain(flushes).chain(removals).collect();
    if commands.is_empty() {
        return Ok(());
    }
    apply(Operation::RemoveChains, commands).await
}

fn named(chain: &FoundChain) -> Chain<'_> {
    Chain {
        family: family(chain.ipv6),
        table: chain.table.as_str().into(),
        name: chain.name.as_str().into(),
        ..Chain::default()
    }
}

fn family(ipv6: bool) -> NfFamily {
    if ipv6 { NfFamily::IP6 } else { NfFamily::IP }
}

fn is_ipv6(reply: &Raw) -> Option<bool> {
    match *reply.bytes.first()? {
        IPV4 => Some(false),
        IPV6 => Some(true),
        _ => None,
    }
}

fn chain(reply: &Raw) -> Option<FoundChain> {
    let policy = reply.attribute(HEADER, CHAIN_POLICY).and_then(|value| value.try_into().ok());
    Some(FoundChain {
        ipv6: is_ipv6(reply)?,
        table: reply.attribute(HEADER, TABLE).map(text)?,
        name: reply.attribute(HEADER, CHAIN_NAME).map(text)?,
        drops: policy.map(u32::from_be_bytes) == Some(POLICY_DROP),
    })
}

fn jump(reply: &Raw) -> Option<FoundJump> {
    let expressions = reply.attribute(HEADER, EXPRESSIONS)?;
    let to = attributes(expressions).find_map(|(_, expression)| {
        let name = find(expression, EXPRESSION_NAME).map(text)?;
        let data = find(expression, EXPRESSION_DATA).filter(|_| name == "immediate")?;
        find(find(find(data, IMMEDIATE_DATA)?, DATA_VERDICT)?, VERDICT_CHAIN).map(text)
    })?;
    let handle = reply.attribute(HEADER, RULE_HANDLE)?.try_into().ok()?;
    Some(FoundJump {
        ipv6: is_ipv6(reply)?,
        table: reply.attribute(HEADER, TABLE).map(text)?,
        from: reply.attribute(HEADER, NAME).map(text)?,
        handle: u64::from_be_bytes(handle),
        to,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::survey::tests::attribute, *};

    fn raw(family: u8, parts: &[Vec<u8>]) -> Raw {
        let bytes: Vec<u8> = [vec![family, 0, 0, 0], parts.concat()].concat();
        Raw { message_type: GET_RULE, bytes: bytes.as_slice().into() }
    }

    fn named(kind: u16, name: &str) -> Vec<u8> {
        attribute(kind, format!("{name}\0").as_bytes())
    }

    #[test]
    fn a_rule_that_jumps_is_told_with_its_handle_and_others_are_not() {
        let rule = |verdict: &[u8]| {
            let data = attribute(IMMEDIATE_DATA, &attribute(DATA_VERDICT, verdict));
            let expression =
                [named(EXPRESSION_NAME, "immediate"), attribute(EXPRESSION_DATA, &data)].concat();
            let counter = attribute(1, &named(EXPRESSION_NAME, "counter"));
            let list = [counter, attribute(1, &expression)].concat();
            let parts = [
                named(TABLE, "nat"),
                named(NAME, "PREROUTING"),
                attribute(RULE_HANDLE, &42_u64.to_be_bytes()),
                attribute(EXPRESSIONS, &list),
            ];
            jump(&raw(IPV6, &parts))
        };
        let code = attribute(1, &(-3_i32).to_be_bytes());
        let expected = FoundJump {
            ipv6: true,
            table: "nat".into(),
            from: "PREROUTING".into(),
            handle: 42,
            to: "KUBE-SERVICES".into(),
        };
        let verdict = [code.clone(), named(VERDICT_CHAIN, "KUBE-SERVICES")].concat();
        assert_eq!(rule(&verdict), Some(expected));
        assert_eq!(rule(&code), None, "accept leads nowhere");
    }

    #[test]
    fn a_base_chain_that_drops_is_known() {
        let parts = [named(TABLE, "filter"), named(CHAIN_NAME, "FORWARD")];
        let policy = attribute(CHAIN_POLICY, &POLICY_DROP.to_be_bytes());
        let found = chain(&raw(IPV4, &[parts.concat(), policy])).unwrap();
        assert!(found.drops && found.to_string() == "ip filter FORWARD");
        assert!(!chain(&raw(IPV4, &parts)).unwrap().drops, "a chain without a policy");
        assert_eq!(chain(&raw(1, &parts)), None, "of family inet");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let raw = raw(IPV4, &[bytes]);
            let _ = (chain(&raw), jump(&raw));
        }
    }
}
