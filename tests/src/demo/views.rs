//! What the demo shows of the node, each the way an operator would look at it.

use anyhow::Result;

use super::report::Report;
use crate::process;
use crate::stage::Stage;

/// Flows that fit a screen.
const FLOWS: usize = 8;

/// The virtual servers, as `ipvsadm -Ln` shows them.
pub(super) fn services(stage: &Stage, report: &Report) -> Result<()> {
    let ours = stage.agent.text(&["services", "-o", "ipvsadm"])?;
    let kernels = stage.topology.node.run("ipvsadm", &["-Ln"])?;
    let same = servers(&ours) == servers(&kernels);
    let verdict = if same {
        "ipvsadm -Ln prints the same virtual servers, in the order of the kernel's hash table"
    } else {
        "ipvsadm -Ln prints something else; it follows"
    };
    report.heading("passlane services -o ipvsadm", verdict);
    report.data(&ours);
    if !same {
        report.data(&kernels);
    }
    Ok(())
}

/// The virtual servers of a table, each with its destinations, in an order of our own.
fn servers(table: &str) -> Vec<String> {
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut servers: Vec<String> = Vec::new();
    for line in table.lines().filter(|line| !line.starts_with("IP Virtual Server")) {
        match servers.last_mut() {
            Some(server) if line.starts_with("  ") => {
                server.push('\n');
                server.push_str(&words(line));
            }
            _ => servers.push(words(line)),
        }
    }
    servers.sort();
    servers
}

/// The flows that are on the fast path.
pub(super) fn flows(stage: &Stage, report: &Report) -> Result<()> {
    report.heading(
        "passlane flows",
        "each direction of a connection is one entry, learned from packets that crossed the kernel",
    );
    report.data(&active_flows(&stage.agent.text(&["flows"])?));
    Ok(())
}

fn active_flows(table: &str) -> String {
    let (head, rows): (Vec<_>, Vec<_>) =
        table.trim_end().lines().enumerate().partition(|(number, _)| *number == 0);
    let active = rows.iter().filter(|(_, row)| row.split_whitespace().any(|word| word == "active"));
    let shown: Vec<&str> =
        head.iter().chain(active).take(FLOWS + 1).map(|(_, row)| row.trim_end()).collect();
    let rest = rows.len() + head.len() - shown.len();
    format!("{}\n… and {rest} more, of short connections", shown.join("\n"))
}

/// One entry of a map, as bpftool sees it: the flow with the most packets.
pub(super) fn map(stage: &Stage, report: &Report) -> Result<()> {
    let pin = stage.agent.pins().join("flows4");
    report.heading(
        &format!("bpftool map dump pinned {}", pin.display()),
        "every map is typed: addresses are readable, ports are in host order; this is one entry",
    );
    let dump = process::run("bpftool", &["map", "dump", "pinned", &pin.to_string_lossy()])?;
    report.data(&busiest_entry(&dump));
    Ok(())
}

/// Returns the entry of a dump with the largest `packets`, short lists on one line.
fn busiest_entry(dump: &str) -> String {
    let entries = dump.trim().trim_start_matches('[').trim_end_matches(']').split("},{");
    let entry = entries.max_by_key(|entry| packets(entry)).unwrap_or_default();
    let mut text = String::new();
    for line in entry.trim_matches(['{', '}', '\n']).trim_end().lines() {
        // bpftool breaks the line before the end of a list.
        let joins = line.trim_start().starts_with(']');
        text.push_str(if joins || text.is_empty() { "" } else { "\n" });
        let dedented = line.strip_prefix("        ").unwrap_or(line);
        text.push_str(if joins { line.trim_start() } else { dedented });
    }
    text
}

fn packets(entry: &str) -> u64 {
    let after = entry.rsplit_once("\"packets\":").map_or("", |(_, after)| after).trim_start();
    let digits = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
    after[..digits].parse().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_two_tools_are_compared_by_their_virtual_servers() {
        let ours = "IP Virtual Server version 1.2.1\nTCP  1:80 rr\n  -> 2:80  Masq\nUDP 1:53 rr\n";
        let theirs = "IP Virtual Server version 1.3\nUDP  1:53 rr \nTCP 1:80 rr\n  ->  2:80 Masq\n";
        assert_eq!(servers(ours), servers(theirs));
        assert_ne!(servers(ours), servers("UDP 1:53 rr\nTCP 1:80 rr\n  -> 3:80 Masq\n"));
    }

    #[test]
    fn only_active_flows_are_shown_and_the_rest_is_counted() {
        let table = "SOURCE STATE\na active\nb closing\nc active\n";
        assert_eq!(
            active_flows(table),
            "SOURCE STATE\na active\nc active\n… and 1 more, of short connections"
        );
    }

    #[test]
    fn the_busiest_entry_is_cut_out_of_a_dump() {
        let entry = |port: u16, packets: u16| {
            format!(
                "{{\n        \"key\": {{\n            \"a\": [1,2\n            ],\n            \
                 \"p\": {port}\n        }},\n        \"value\": {{\n            \
                 \"packets\": {packets}\n        }}\n    }}"
            )
        };
        let dump = format!("[{},{},{}\n]\n", entry(1, 5), entry(2, 70), entry(3, 9));
        let expected = "\"key\": {\n    \"a\": [1,2],\n    \"p\": 2\n},\n\
                        \"value\": {\n    \"packets\": 70\n}";
        assert_eq!(busiest_entry(&dump), expected);
    }
}
