//! The hash plane: the section `passlane.hashPlane`.

use proxy_common::abi::hash_capacity;

use super::{
    Field,
    Shape::{List, Number, Text},
    USED, shown, used,
};
use crate::{
    config::{
        problem::Fault,
        tree::Value,
        values::{choice, interface, is_pattern, texts, whole},
    },
    model::HashMode,
};

pub(super) const FIELDS: &[Field] = &[
    used(
        ("passlane.hashPlane.interfaces", "hash-plane-interfaces"),
        List,
        "Interfaces on which XDP or tc sends packets of Services with scheduler mh and forwarding route \
         or tunnel straight to their backends, past all rules of netfilter: names with at most one \
         *; none means that IPVS does it [default: none]",
        |draft, value| {
            draft.settings.hash_plane.interfaces = patterns(value)?;
            USED
        },
        |settings| Value::texts(&settings.hash_plane.interfaces),
    ),
    used(
        ("passlane.hashPlane.mode", "hash-plane-mode"),
        Text,
        "How the program runs there: native, as XDP in the driver; tc, with any driver; or generic, as \
         XDP with any driver, slower than tc and for tests [default: native]",
        |draft, value| {
            draft.settings.hash_plane.mode =
                choice(value, &HashMode::WORDS, "native, tc or generic")?;
            USED
        },
        |settings| shown(settings.hash_plane.mode.word()),
    ),
    used(
        ("passlane.hashPlane.flowEntries", "hash-plane-flow-entries"),
        Number,
        "Flows of each family that keep their backend whatever changes, rounded up to a power of two; \
         66 bytes each over IPv4 and 114 over IPv6; 0 is 262144 [default: 0]",
        |draft, value| {
            draft.settings.hash_plane.flow_entries = match value {
                Value::Whole(0) => None,
                value => {
                    Some(whole(value, hash_capacity::LEAST_FLOWS..=hash_capacity::MOST_FLOWS)?)
                }
            };
            USED
        },
        |settings| Value::Whole(settings.hash_plane.flow_entries.unwrap_or(0).into()),
    ),
    used(
        ("passlane.hashPlane.syncInterface", "hash-plane-sync-interface"),
        Text,
        "Interface by which other gateways are told, as IPVS tells them, of flows that live \
         elsewhere than their hash says; lo tells this node's IPVS only [default: lo]",
        |draft, value| {
            draft.settings.hash_plane.sync_interface = interface(value)?;
            USED
        },
        |settings| shown(&settings.hash_plane.sync_interface),
    ),
    used(
        ("passlane.hashPlane.syncId", "hash-plane-sync-id"),
        Number,
        "The id of those messages, 1 to 255, the same on all gateways of the same clients [default: \
         112]",
        |draft, value| {
            draft.settings.hash_plane.sync_id = whole(value, 1..=u8::MAX)?;
            USED
        },
        |settings| Value::Whole(settings.hash_plane.sync_id.into()),
    ),
];

fn patterns(value: &Value) -> Result<Vec<String>, Fault> {
    let patterns = texts(value)?;
    match patterns.iter().find(|name| !is_pattern(name)) {
        Some(wrong) => Err(Fault::UnknownValue {
            found: (*wrong).to_owned(),
            expected: "names with at most one *",
        }),
        None => Ok(patterns.into_iter().map(str::to_owned).collect()),
    }
}
