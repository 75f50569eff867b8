//! `passlane diff`: three columns, and what others have.

use clap::Args;

use super::{
    Failure, FormatFlag, dump,
    output::{self, Style, View},
};
use crate::{
    admin::{Comparison, Fixed, Verb, client},
    audit::offline,
    config::Paths,
    ledger::Owned,
    plan::review::State,
};

/// The flags of `passlane diff`.
#[derive(Args, Clone, Debug)]
pub(super) struct Flags {
    #[command(flatten)]
    paths: Paths,
    #[command(flatten)]
    format: FormatFlag,
    /// Put back what others changed, now; needs the agent
    #[arg(long)]
    fix: bool,
}

/// Prints what differs, or has it put back. Fails when something drifted, or still does.
pub(super) fn run(flags: &Flags) -> Result<(), Failure> {
    if flags.fix {
        return fix(flags);
    }
    // Wide also has what agrees.
    let comparison = gather(&flags.paths, flags.format.output == output::Format::Wide)?;
    flags.format.show(&comparison)?;
    let drifted = comparison.rows.iter().any(|row| row.state == State::Drift);
    if drifted { Err(Failure::Degraded) } else { Ok(()) }
}

/// Returns what differs, and with `all` what agrees as well: from the agent, or without one.
pub(super) fn gather(paths: &Paths, all: bool) -> Result<Comparison, Failure> {
    match client::ask(&paths.state_dir, Verb::Diff, all) {
        Err(client::Error::NoAgent) => without_agent(paths, all),
        comparison => Ok(comparison?),
    }
}

fn without_agent(paths: &Paths, all: bool) -> Result<Comparison, Failure> {
    let owned = Owned::read(&paths.state_dir)?;
    let maps = dump::maps(paths)?;
    super::block_on(async { Ok(offline::compare(&owned, maps.as_ref(), all).await?) })
}

fn fix(flags: &Flags) -> Result<(), Failure> {
    let fixed: Fixed = client::ask(&flags.paths.state_dir, Verb::Fix, false)?;
    flags.format.show(&fixed)?;
    if fixed.errors.is_empty() { Ok(()) } else { Err(Failure::Degraded) }
}

impl View for Comparison {
    const KIND: &'static str = "Diff";

    fn text(&self, style: Style) -> String {
        describe(self, style)
    }

    fn names(&self) -> Option<Vec<String>> {
        let drifted = self.rows.iter().filter(|row| row.state == State::Drift);
        Some(drifted.map(|row| row.object.clone()).collect())
    }
}

impl View for Fixed {
    const KIND: &'static str = "Fix";

    fn text(&self, _: Style) -> String {
        describe_fixed(self)
    }
}

fn describe_fixed(fixed: &Fixed) -> String {
    let back = fixed.drifts.iter().map(|drift| format!("put back: {drift}\n"));
    let errors = fixed.errors.iter().map(|error| format!("failed: {error}\n"));
    let text: String = back.chain(errors).collect();
    if text.is_empty() { "nothing had changed\n".into() } else { text }
}

fn describe(comparison: &Comparison, style: Style) -> String {
    let mut text = String::new();
    if !comparison.agent {
        text += "No agent runs: the node is compared with itself and with the ledger. Not known:\n";
        comparison.unknown.iter().for_each(|what| text += &format!("  {what}\n"));
        text += "\n";
    }
    if !comparison.rows.is_empty() {
        let mut table = output::table(["STATE", "OBJECT", "SERVICE", "WANTED", "KERNEL", "BPF"]);
        for row in &comparison.rows {
            let service = row.service.as_deref().unwrap_or("-");
            let (wanted, kernel) = (row.wanted.as_str(), row.kernel.as_str());
            table.add_row([word(row.state), &row.object, service, wanted, kernel, &row.bpf]);
        }
        text += &output::render(&table, style.headers);
        text += "\n";
    }
    text += &format!("{} virtual servers and destinations agree\n", comparison.same);
    if !comparison.foreign.is_empty() {
        text += "\nOf others, never touched:\n";
        let mut table = output::table(["KIND", "OBJECT"]);
        comparison.foreign.iter().for_each(|foreign| {
            table.add_row([&foreign.kind, &foreign.object]);
        });
        text += &output::render(&table, style.headers);
    }
    text
}

fn word(state: State) -> &'static str {
    match state {
        State::Drift => "drift",
        State::Pending => "pending",
        State::Draining => "draining",
        State::Foreign => "foreign",
        State::Same => "same",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{admin::Foreign, plan::review::Row};

    #[test]
    fn what_differs_has_three_columns_and_foreign_things_a_list_of_their_own() {
        let row = Row {
            object: "destination 10.96.0.10:80/TCP to 10.1.1.11:8080".into(),
            service: Some("default/web:http".into()),
            wanted: "masq, weight 1".into(),
            kernel: "masq, weight 5".into(),
            bpf: "id 2".into(),
            state: State::Drift,
        };
        let foreign = Foreign { kind: "nft table".into(), object: "ip filter".into() };
        let comparison = Comparison {
            agent: true,
            rows: vec![row],
            same: 7,
            foreign: vec![foreign],
            unknown: Vec::new(),
        };
        let text = describe(&comparison, Style::NARROW);
        let mut lines = text.lines();
        let header: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
        assert_eq!(header, ["STATE", "OBJECT", "SERVICE", "WANTED", "KERNEL", "BPF"]);
        let row = lines.next().unwrap();
        assert!(row.starts_with("drift"), "{row}");
        assert!(row.contains("masq, weight 1") && row.contains("masq, weight 5"), "{row}");
        assert!(text.contains("7 virtual servers and destinations agree"), "{text}");
        assert!(text.ends_with("nft table   ip filter\n"), "{text}");
    }

    #[test]
    fn without_an_agent_what_is_unknown_is_said_first() {
        let comparison = Comparison { unknown: vec!["the weather".into()], ..Default::default() };
        let text = describe(&comparison, Style::NARROW);
        assert!(text.starts_with("No agent runs"), "{text}");
        assert!(text.contains("  the weather\n"), "{text}");
    }
}
