//! `passlane plan`: what a pass would change now. Changes nothing.

use clap::Args;
use serde::Serialize;

use super::{
    Failure, FormatFlag,
    output::{Style, View},
    repeat::interval,
};
use crate::{
    agent::{self, Rehearsal},
    config::{RunFlags, Settings, duration::GoDuration},
};

/// The flags of `passlane plan`.
#[derive(Args, Clone, Debug)]
pub(super) struct Flags {
    /// How long to wait for the source
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = interval)]
    patience: GoDuration,
    #[command(flatten)]
    format: FormatFlag,
    #[command(flatten)]
    run: RunFlags,
}

/// Everything `plan` says.
#[derive(Clone, Debug, Serialize)]
struct Dry {
    source: String,
    services: usize,
    frontends: usize,
    /// Changes, in the order in which they would be made.
    items: Vec<Change>,
    /// Destinations that get nothing new and stay until their connections have ended.
    draining: Vec<String>,
    /// What was asked for and would not be done, a sentence each.
    notices: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
struct Change {
    /// What is done: `put-vip`, `remove-destination` and so on.
    action: String,
    /// The whole change in words.
    change: String,
}

/// Prints the plan.
pub(super) fn run(flags: &Flags) -> Result<(), Failure> {
    let (settings, _) = Settings::load(&flags.run)?;
    let rehearsal =
        super::block_on(async { Ok(agent::rehearse(&settings, flags.patience.0).await?) })?;
    Ok(flags.format.show(&Dry::from(rehearsal))?)
}

impl From<Rehearsal> for Dry {
    fn from(rehearsal: Rehearsal) -> Self {
        let Rehearsal { source, services, frontends, plan, notices } = rehearsal;
        let change = |action: &crate::plan::Action| {
            let change = action.to_string();
            let action = change.split_whitespace().next().unwrap_or_default().to_owned();
            Change { action, change }
        };
        let staying = plan.draining.iter().chain(&plan.lingering);
        Self {
            source,
            services,
            frontends,
            items: plan.actions.iter().map(change).collect(),
            draining: staying.map(|(frontend, key)| format!("{frontend} {key}")).collect(),
            notices: notices.iter().map(ToString::to_string).collect(),
        }
    }
}

impl View for Dry {
    const KIND: &'static str = "Plan";

    fn text(&self, _: Style) -> String {
        let mut text = String::new();
        for change in &self.items {
            text += &format!("{}\n", change.change);
        }
        for each in &self.draining {
            text += &format!("(drains {each})\n");
        }
        for notice in &self.notices {
            text += &format!("(notice: {notice})\n");
        }
        if text.is_empty() { "nothing to change\n".to_owned() } else { text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Action, Plan};

    fn dry(actions: Vec<Action>) -> Dry {
        Dry::from(Rehearsal {
            source: "file:/etc/passlane".into(),
            services: 1,
            frontends: 1,
            plan: Plan { actions, ..Plan::default() },
            notices: Default::default(),
        })
    }

    #[test]
    fn changes_are_printed_one_a_line_in_their_order() {
        let dry = dry(vec![Action::PutDevice, Action::PutVip([10, 96, 0, 10].into())]);
        assert_eq!(dry.text(Style::NARROW), "put-device\nput-vip 10.96.0.10\n");
        assert_eq!(dry.items[1].action, "put-vip");
        crate::cli::snapshot::check("plan", &dry);
    }

    #[test]
    fn no_change_is_said() {
        assert_eq!(dry(Vec::new()).text(Style::NARROW), "nothing to change\n");
    }
}
