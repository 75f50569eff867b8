//! What the demo shows of the node, each the way an operator would look at it.

use anyhow::Result;

use super::report::Report;
use crate::process;
use crate::stage::Stage;

/// Lines of a map dump that one entry takes, and a little of the next.
const DUMP_LINES: usize = 48;
/// Flows that fit a screen.
const FLOW_LINES: usize = 12;

/// The virtual servers, as `ipvsadm -Ln` shows them.
pub(super) fn services(stage: &Stage, report: &Report) -> Result<()> {
    let ours = stage.agent.text(&["services", "-o", "ipvsadm"])?;
    let kernels = stage.topology.node.run("ipvsadm", &["-Ln"])?;
    let same = if comparable(&ours) == comparable(&kernels) {
        "ipvsadm -Ln itself prints the same"
    } else {
        "ipvsadm -Ln itself prints something else:"
    };
    report.heading("passlane services -o ipvsadm", same);
    report.data(&ours);
    if comparable(&ours) != comparable(&kernels) {
        report.data(&kernels);
    }
    Ok(())
}

/// The table without its version line and blanks, which differ between tools.
fn comparable(table: &str) -> Vec<String> {
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    table.lines().filter(|line| !line.starts_with("IP Virtual Server")).map(words).collect()
}

/// The flow table.
pub(super) fn flows(stage: &Stage, report: &Report) -> Result<()> {
    report.heading(
        "passlane flows",
        "each direction of a connection is one entry, learned from packets that crossed the kernel",
    );
    report.data(&first_lines(&stage.agent.text(&["flows"])?, FLOW_LINES));
    Ok(())
}

/// One map, as bpftool sees it.
pub(super) fn map(stage: &Stage, report: &Report) -> Result<()> {
    let pin = stage.agent.pins().join("flows4");
    report.heading(
        &format!("bpftool map dump pinned {}", pin.display()),
        "every map is typed: addresses are readable, ports are in host order",
    );
    let dump = process::run("bpftool", &["map", "dump", "pinned", &pin.to_string_lossy()])?;
    report.data(&first_lines(&dump, DUMP_LINES));
    Ok(())
}

fn first_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let mut shown = lines[..lines.len().min(count)].join("\n");
    if lines.len() > count {
        shown.push_str(&format!("\n… {} more lines", lines.len() - count));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_two_tools_are_compared_by_their_words() {
        let ours = "IP Virtual Server version 1.2.1 (size=4096)\nTCP  10.96.0.10:80 rr\n";
        let theirs = "IP Virtual Server version 1.3.0\nTCP 10.96.0.10:80  rr \n";
        assert_eq!(comparable(ours), comparable(theirs));
        assert_ne!(comparable(ours), comparable("TCP 10.96.0.10:80 wrr"));
    }

    #[test]
    fn a_long_text_is_cut_and_says_so() {
        assert_eq!(first_lines("a\nb\nc", 2), "a\nb\n… 1 more lines");
        assert_eq!(first_lines("a\n", 2), "a");
    }
}
