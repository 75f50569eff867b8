//! What the rules of our table dropped or rejected, by netlink: `nft` would read all sets for it.

use std::collections::BTreeMap;

use bytes::{BufMut, BytesMut};

use super::{error::Error, ruleset, survey};
use crate::kernel::raw::{Raw, attributes, find, text};

/// `NFPROTO_INET`.
const INET: u8 = 1;
/// `NFTA_RULE_USERDATA`.
const USERDATA: u16 = 7;
/// `NFTNL_UDATA_RULE_COMMENT`.
const COMMENT: u8 = 0;
/// `NFTA_COUNTER_PACKETS`.
const PACKETS: u16 = 2;
/// `NFTA_IMMEDIATE_DATA`.
const IMMEDIATE_DATA: u16 = 2;
/// `NFTA_DATA_VERDICT`.
const VERDICT: u16 = 2;
/// `NFTA_VERDICT_CODE`.
const CODE: u16 = 1;
/// `NF_DROP`.
const DROP: u32 = 0;

impl survey::Ruleset {
    /// Returns the packets that rules of our table dropped or rejected, by the purpose of the rule.
    /// They begin anew when the table is installed anew. Reads the rules of our table only.
    ///
    /// # Errors
    ///
    /// The kernel did not say.
    pub async fn drops(&self) -> Result<BTreeMap<String, u64>, Error> {
        let mut drops = BTreeMap::new();
        self.rules_of(request(), |rule| {
            if let Some((purpose, packets)) = dropped(&rule) {
                *drops.entry(purpose).or_default() += packets;
            }
        })
        .await?;
        Ok(drops)
    }
}

/// The rules of our table, as the kernel filters them.
fn request() -> Raw {
    let mut bytes = BytesMut::new();
    bytes.put_slice(&[INET, 0, 0, 0]);
    let name = format!("{}\0", ruleset::TABLE);
    bytes.put_u16_ne(4 + name.len() as u16);
    bytes.put_u16_ne(survey::TABLE);
    bytes.put_slice(name.as_bytes());
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    Raw { message_type: survey::GET_RULE, bytes }
}

/// Returns purpose and packets of a rule that drops or rejects.
fn dropped(rule: &Raw) -> Option<(String, u64)> {
    if rule.attribute(survey::HEADER, survey::TABLE).map(text)? != ruleset::TABLE {
        return None;
    }
    let expressions = rule.attribute(survey::HEADER, survey::EXPRESSIONS)?;
    let (mut packets, mut drops) = (None, false);
    for (_, expression) in attributes(expressions) {
        let data = find(expression, survey::EXPRESSION_DATA).unwrap_or_default();
        match find(expression, survey::EXPRESSION_NAME).map(text).as_deref() {
            Some("counter") => {
                let count = find(data, PACKETS).and_then(|count| count.try_into().ok());
                packets = count.map(u64::from_be_bytes);
            }
            Some("reject") => drops = true,
            Some("immediate") => drops |= verdict(data) == Some(DROP),
            _ => {}
        }
    }
    let purpose = purpose(&comment(rule.attribute(survey::HEADER, USERDATA)?)?)?;
    packets.filter(|_| drops).map(|packets| (purpose, packets))
}

fn verdict(immediate: &[u8]) -> Option<u32> {
    let verdict = find(find(immediate, IMMEDIATE_DATA)?, VERDICT)?;
    Some(u32::from_be_bytes(find(verdict, CODE)?.try_into().ok()?))
}

/// nft's own records: kind, length and value.
fn comment(mut userdata: &[u8]) -> Option<String> {
    while let [kind, length, rest @ ..] = userdata {
        let value = rest.get(..usize::from(*length))?;
        if *kind == COMMENT {
            return Some(text(value));
        }
        userdata = rest.get(usize::from(*length)..)?;
    }
    None
}

/// Takes the version and the protocol off: there is a rule for each protocol.
fn purpose(comment: &str) -> Option<String> {
    let (_, name) = comment.split_once(": ")?;
    let name = ["tcp", "udp", "sctp"]
        .into_iter()
        .find_map(|protocol| name.strip_suffix(protocol)?.strip_suffix(' '))
        .unwrap_or(name);
    Some(name.replace(' ', "_"))
}

#[cfg(test)]
mod tests {
    use super::{survey::tests::attribute, *};

    fn expression(name: &str, data: &[u8]) -> Vec<u8> {
        let name = attribute(survey::EXPRESSION_NAME, format!("{name}\0").as_bytes());
        [name, attribute(survey::EXPRESSION_DATA, data)].concat()
    }

    fn rule(table: &str, comment: &str, last: Vec<u8>) -> Raw {
        let counter = [attribute(1, &[0; 8]), attribute(PACKETS, &7u64.to_be_bytes())].concat();
        let expressions = [expression("counter", &counter), last];
        let list: Vec<u8> = expressions.iter().flat_map(|each| attribute(1, each)).collect();
        let mut bytes = BytesMut::from([INET, 0, 0, 0].as_slice());
        bytes.extend(attribute(survey::TABLE, format!("{table}\0").as_bytes()));
        bytes.extend(attribute(survey::EXPRESSIONS, &list));
        let comment = format!("passlane v9: {comment}\0");
        let header = [1, 1, 9, COMMENT, comment.len() as u8];
        bytes.extend(attribute(USERDATA, &[&header, comment.as_bytes()].concat()));
        Raw { message_type: survey::GET_RULE, bytes }
    }

    fn immediate(code: u32) -> Vec<u8> {
        let code = attribute(VERDICT, &attribute(CODE, &code.to_be_bytes()));
        expression("immediate", &attribute(IMMEDIATE_DATA, &code))
    }

    #[test]
    fn rules_that_drop_or_reject_are_counted_by_their_purpose() {
        let reject = || expression("reject", &[]);
        let found = |purpose: &str| Some((purpose.to_owned(), 7));
        assert_eq!(dropped(&rule("passlane", "no endpoint udp", reject())), found("no_endpoint"));
        assert_eq!(
            dropped(&rule("passlane", "source ranges", immediate(DROP))),
            found("source_ranges")
        );
        assert_eq!(dropped(&rule("passlane", "sent inside", immediate(1))), None, "accepted");
        assert_eq!(dropped(&rule("filter", "no endpoint udp", reject())), None, "not ours");
    }
}
