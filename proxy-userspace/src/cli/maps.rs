//! `passlane maps`: the pinned BPF maps, decoded. Needs no agent and no bpftool.

use std::net::{Ipv4Addr, Ipv6Addr};

use clap::Args;
use proxy_common::{
    abi::{FlowState, HashFlowState, HashMethod, Shown},
    hash_reason::HashReason,
    reason::Reason,
};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    Failure, FormatFlag,
    output::{self, Style, View},
};
use crate::{
    config::Paths,
    kernel::{
        bpf::{Entry, PinDirectory, PinnedMap, pinned_maps},
        link,
    },
    model::Protocol,
};

/// The flags of `passlane maps`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
With bpftool:
  bpftool map dump pinned /sys/fs/bpf/passlane/v5/flows4          # one map; -o wide has the line for each
  bpftool -j map dump pinned /sys/fs/bpf/passlane/v5/stats | jq '.[].formatted'
  bpftool prog show name tc_in                                    # the programs
  bpftool net show                                                # where they are attached")]
pub(super) struct Flags {
    /// Print the entries of this map; without it, all maps are listed
    #[arg(value_name = "MAP")]
    map: Option<String>,
    /// Entries of arrays that are all zero as well
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    paths: Paths,
    #[command(flatten)]
    format: FormatFlag,
}

#[derive(Clone, Debug, Serialize)]
struct Maps {
    items: Vec<Listed>,
}

#[derive(Clone, Debug, Serialize)]
struct Listed {
    name: &'static str,
    /// As bpftool names it.
    #[serde(rename = "type")]
    kind: &'static str,
    key_size: u32,
    value_size: u32,
    /// Elements; absent of an array, which has all of them always.
    entries: Option<usize>,
    max_entries: u32,
    id: u32,
    pin: String,
}

/// The entries of one map, by the names of `ABI.md`.
#[derive(Clone, Debug, Serialize)]
struct Entries {
    map: &'static str,
    items: Vec<Map<String, Value>>,
    /// Of each entry, its columns for people.
    #[serde(skip)]
    rows: Vec<Vec<(String, String)>>,
}

/// Prints the maps, or one.
pub(super) fn run(flags: &Flags) -> Result<(), Failure> {
    let Flags { map, all, paths, format } = flags;
    let pinned = pinned_maps(&PinDirectory::at(&paths.bpffs));
    let Some(name) = map else { return Ok(format.show(&list(&pinned)?)?) };
    let found = pinned.iter().find(|map| map.spec.name == name);
    let Some(map) = found else {
        let names: Vec<&str> = pinned.iter().map(|map| map.spec.name).collect();
        let cure = match names.is_empty() {
            true => {
                format!("no maps are pinned below {}: is there an agent?", paths.bpffs.display())
            }
            false => format!("no map {name}; there are {}", names.join(", ")),
        };
        return Err(Failure::Usage(cure));
    };
    Ok(format.show(&decode(map, *all)?)?)
}

/// Lists all, with the number of their entries.
fn list(pinned: &[PinnedMap]) -> Result<Maps, Failure> {
    let mut items = Vec::new();
    for map in pinned {
        let entries = match map.is_array() {
            true => None,
            false => Some(map.entries(false)?.len()),
        };
        items.push(Listed {
            name: map.spec.name,
            kind: kind(map.spec.kind),
            key_size: map.spec.key_size,
            value_size: map.spec.value_size,
            entries,
            max_entries: map.max_entries,
            id: map.id,
            pin: map.path.display().to_string(),
        });
    }
    Ok(Maps { items })
}

/// Maps that say how things are and stay small on a busy node.
const SMALL: &[&str] = &[
    "interfaces",
    "uplinks",
    "stats",
    "observed",
    "local_ports",
    "hash_stats",
    "hash_uplinks",
    "hash_vlans",
];

/// Returns the list of all and the entries of small ones; flows, frontends and backends are in a
/// dump.
pub(super) fn whole(paths: &Paths) -> Result<String, Failure> {
    let pinned = pinned_maps(&PinDirectory::at(&paths.bpffs));
    let mut text = list(&pinned)?.text(Style { wide: true, headers: true });
    for map in pinned.iter().filter(|map| SMALL.contains(&map.spec.name)) {
        let entries = decode(map, false)?.text(Style::NARROW);
        text += &format!("\n{}\n{entries}", map.spec.name);
    }
    Ok(text)
}

fn decode(map: &PinnedMap, all: bool) -> Result<Entries, Failure> {
    let entries = map.entries(all)?;
    let name = map.spec.name;
    Ok(Entries {
        map: name,
        items: entries.iter().map(document).collect(),
        rows: entries.iter().map(|entry| columns(name, entry)).collect(),
    })
}

fn kind(kind: u32) -> &'static str {
    match kind {
        1 => "hash",
        2 => "array",
        6 => "percpu_array",
        9 => "lru_hash",
        10 => "lru_percpu_hash",
        12 => "array_of_maps",
        _ => "other",
    }
}

fn document(entry: &Entry) -> Map<String, Value> {
    let mut document = Map::new();
    document.insert("key".to_owned(), json(&entry.key));
    if let Some(cpu) = entry.cpu {
        document.insert("cpu".to_owned(), cpu.into());
    }
    document.insert("value".to_owned(), json(&entry.value));
    document
}

fn json(value: &Shown) -> Value {
    match value {
        Shown::Number(number) => (*number).into(),
        Shown::Bytes(bytes) => text(bytes).into(),
        Shown::Fields(fields) => {
            let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), json(value)));
            Value::Object(fields.collect())
        }
    }
}

/// Writes addresses as addresses, and all else in hexadecimal.
fn text(bytes: &[u8]) -> String {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Ipv4Addr::from(octets).to_string();
    }
    if let Ok(octets) = <[u8; 16]>::try_from(bytes) {
        return Ipv6Addr::from(octets).to_canonical().to_string();
    }
    let separator = if bytes.len() == 6 { ":" } else { "" };
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(separator)
}

/// Returns the columns of an entry: those of the key, the CPU, and those of the value.
fn columns(map: &str, entry: &Entry) -> Vec<(String, String)> {
    let mut columns = Vec::new();
    let (key, value) = match map {
        "stats" | "hash_stats" => ("reason", "value"),
        "hash_tables" => ("table", "map_id"),
        "interfaces" => ("interface", "value"),
        _ => ("key", "value"),
    };
    add(&mut columns, map, "", key, &entry.key);
    if let Some(cpu) = entry.cpu {
        columns.push(("CPU".to_owned(), cpu.to_string()));
    }
    add(&mut columns, map, "", value, &entry.value);
    columns
}

/// Columns of the same name get that of what they are in before theirs.
fn add(columns: &mut Vec<(String, String)>, map: &str, within: &str, name: &str, value: &Shown) {
    let title = name.replace('_', "-").to_uppercase();
    match value {
        Shown::Fields(fields) => {
            for (field, value) in fields {
                add(columns, map, name, field, value);
            }
        }
        value => {
            let taken = columns.iter().any(|(column, _)| *column == title);
            let title = match taken {
                true => format!("{}-{title}", within.to_uppercase()),
                false => title,
            };
            columns.push((title, cell(map, name, value)));
        }
    }
}

/// Gives numbers their names where they have some.
fn cell(map: &str, name: &str, value: &Shown) -> String {
    let number = match value {
        Shown::Number(number) => *number,
        Shown::Bytes(bytes) => return text(bytes),
        Shown::Fields(_) => return String::new(),
    };
    let named = match name {
        "protocol" => u8::try_from(number).ok().and_then(Protocol::from_number).map(Protocol::name),
        "state" if map.starts_with("hash_") => match u32::try_from(number) {
            Ok(HashFlowState::OPEN) => Some("open"),
            Ok(HashFlowState::CLOSING) => Some("closing"),
            _ => None,
        },
        "method" => match u8::try_from(number) {
            Ok(HashMethod::ROUTE) => Some("route"),
            Ok(HashMethod::IPIP) => Some("ipip"),
            Ok(HashMethod::GUE) => Some("gue"),
            Ok(HashMethod::GRE) => Some("gre"),
            _ => None,
        },
        "state" => match u32::try_from(number) {
            Ok(FlowState::LEARNING) => Some("learning"),
            Ok(FlowState::ACTIVE) => Some("active"),
            Ok(FlowState::CLOSING) => Some("closing"),
            _ => None,
        },
        "reason" if map == "hash_stats" => {
            let reason = HashReason::ALL.iter().find(|reason| **reason as u64 == number);
            reason.map(|reason| reason.name())
        }
        "reason" => {
            Reason::ALL.iter().find(|reason| **reason as u64 == number).map(|reason| reason.name())
        }
        "interface" => {
            let known = u32::try_from(number).ok().and_then(link::name);
            return known.unwrap_or_else(|| number.to_string());
        }
        "flags" | "mark" => return format!("{number:#x}"),
        _ => None,
    };
    named.map_or_else(|| number.to_string(), str::to_owned)
}

impl View for Maps {
    const KIND: &'static str = "MapList";

    fn text(&self, style: Style) -> String {
        let mut header = vec!["NAME", "TYPE", "ENTRIES", "MAX", "KEY", "VALUE"];
        if style.wide {
            header.extend(["ID", "BPFTOOL"]);
        }
        let mut table = output::columns(&header);
        for map in &self.items {
            let mut row = vec![
                map.name.to_owned(),
                map.kind.to_owned(),
                map.entries.map_or("<all>".to_owned(), |entries| entries.to_string()),
                map.max_entries.to_string(),
                format!("{} B", map.key_size),
                format!("{} B", map.value_size),
            ];
            if style.wide {
                let recipe = format!("bpftool map dump pinned {}", map.pin);
                row.extend([map.id.to_string(), recipe]);
            }
            table.add_row(row);
        }
        output::render(&table, style.headers)
    }

    fn names(&self) -> Option<Vec<String>> {
        Some(self.items.iter().map(|map| format!("map/{}", map.name)).collect())
    }
}

impl View for Entries {
    const KIND: &'static str = "MapEntryList";

    fn text(&self, style: Style) -> String {
        let Some(first) = self.rows.first() else { return "no entries\n".to_owned() };
        let header: Vec<&str> = first.iter().map(|(name, _)| name.as_str()).collect();
        let mut table = output::columns(&header);
        for row in &self.rows {
            table.add_row(row.iter().map(|(_, cell)| cell));
        }
        output::render(&table, style.headers)
    }
}

#[cfg(test)]
mod tests {
    use proxy_common::abi::{
        Counter, Flow, FlowKey, HashBackend, HashFlow, HashFlowKey, Show, Transform,
    };

    use super::*;

    fn entries(map: &'static str, entries: &[Entry]) -> Entries {
        Entries {
            map,
            items: entries.iter().map(document).collect(),
            rows: entries.iter().map(|entry| columns(map, entry)).collect(),
        }
    }

    #[test]
    fn a_flow_entry_shows_every_field_once_under_its_own_name() {
        let key = FlowKey {
            source: [10, 1, 1, 31],
            destination: [10, 96, 0, 10],
            source_port: 40_000,
            destination_port: 80,
            interface: 4_000_000,
            protocol: 6,
            _pad: [0; 3],
        };
        let transform = Transform { source: [10, 1, 1, 31], ttl_delta: 1, ..Transform::default() };
        let flow = Flow { state: FlowState::ACTIVE, transform, packets: 7, ..Flow::default() };
        let view = entries("flows4", &[Entry { key: key.show(), cpu: None, value: flow.show() }]);
        let text = view.text(Style::NARROW);
        let words = |line: usize| text.lines().nth(line).unwrap().split_whitespace();
        let cells: Vec<(&str, &str)> = words(0).zip(words(1)).collect();
        for expected in [
            ("SOURCE", "10.1.1.31"),
            ("DESTINATION", "10.96.0.10"),
            ("TRANSFORM-DESTINATION", "0.0.0.0"),
            ("PROTOCOL", "TCP"),
            ("INTERFACE", "4000000"),
            ("STATE", "active"),
            ("PACKETS", "7"),
        ] {
            assert!(cells.contains(&expected), "{expected:?} in\n{text}");
        }
        assert!(!text.contains("PAD"), "{text}");
        let mut titles: Vec<&str> = words(0).collect();
        let count = titles.len();
        titles.sort_unstable();
        titles.dedup();
        assert_eq!(titles.len(), count, "{text}");
        assert_eq!(view.items[0]["value"]["transform"]["source"], "10.1.1.31");
        assert_eq!(view.items[0]["key"]["protocol"], 6);
    }

    #[test]
    fn counters_of_each_cpu_have_the_names_of_their_reasons() {
        let entry = |cpu, packets| Entry {
            key: (Reason::Hit as u32).show(),
            cpu: Some(cpu),
            value: Counter { packets, bytes: 100 }.show(),
        };
        let text = entries("stats", &[entry(0, 1), entry(1, 2)]).text(Style::NARROW);
        let expected = "\
REASON   CPU   PACKETS   BYTES
hit      0     1         100
hit      1     2         100
";
        assert_eq!(text, expected);
    }

    #[test]
    fn what_the_hash_plane_has_goes_by_its_own_names() {
        let reason = |map| {
            let entry = Entry {
                key: (HashReason::New as u32).show(),
                cpu: Some(0),
                value: Counter { packets: 1, bytes: 100 }.show(),
            };
            entries(map, &[entry]).text(Style::NARROW)
        };
        assert!(reason("hash_stats").contains("\nnew "), "{}", reason("hash_stats"));
        assert!(!reason("stats").contains("\nnew "), "{}", reason("stats"));
        let key = HashFlowKey { source: [192, 0, 2, 1], ..HashFlowKey::default() };
        let value = HashFlow { state: HashFlowState::CLOSING, ..HashFlow::default() };
        let flow = Entry { key: key.show(), cpu: None, value: value.show() };
        assert!(entries("hash_flows4", &[flow]).text(Style::NARROW).contains("closing"));
        let to = HashBackend { method: HashMethod::GUE, ..HashBackend::default() };
        let to = Entry { key: 7_u32.show(), cpu: None, value: to.show() };
        assert!(entries("hash_backends", &[to]).text(Style::NARROW).contains("gue"));
        let table = Entry { key: 5_u32.show(), cpu: None, value: 21_u32.show() };
        let text = entries("hash_tables", &[table]).text(Style::NARROW);
        assert_eq!(text, "TABLE   MAP-ID\n5       21\n");
    }

    #[test]
    fn bytes_are_addresses_where_they_can_be() {
        assert_eq!(text(&[10, 0, 0, 1]), "10.0.0.1");
        assert_eq!(text(&[2, 0, 0, 0, 0, 1]), "02:00:00:00:00:01");
        assert_eq!(text(&std::net::Ipv4Addr::LOCALHOST.to_ipv6_mapped().octets()), "127.0.0.1");
        assert_eq!(text(&[0xab; 3]), "ababab");
    }

    #[test]
    fn maps_are_listed_as_they_always_were() {
        let map = Listed {
            name: "flows4",
            kind: kind(9),
            key_size: 20,
            value_size: 104,
            entries: Some(4),
            max_entries: 262_144,
            id: 17,
            pin: "/sys/fs/bpf/passlane/v5/flows4".into(),
        };
        crate::cli::snapshot::check("maps", &Maps { items: vec![map] });
    }
}
