//! `passlane run`.

use std::collections::BTreeMap;

use tracing::{info, warn};

use super::{Failure, logging};
use crate::{
    agent,
    config::{FieldReport, RunFlags, Settings, Verdict},
};

/// Runs the agent until it is stopped.
pub(super) fn run(flags: RunFlags) -> Result<(), Failure> {
    let (settings, reports) = Settings::load(&flags)?;
    logging::start(settings.logging);
    info!(event = "configured", changed = changed(&settings), "what differs from the defaults");
    report(&reports);
    if settings.init_only {
        return Ok(agent::privileges::initialize(&settings)?);
    }
    agent::privileges::load_modules()?;
    let witnesses = agent::Witnesses::open();
    // While there is no other thread that lasts: the others have what this one has.
    let mh_size = agent::privileges::settle(&settings)?;
    // One thread does the work: sockets of a network namespace belong to the thread that made
    // them, and so does the order of changes.
    // The loop holds a whole agent, too much for the stack.
    super::block_on(async { Ok(Box::pin(agent::run(settings, witnesses, mh_size)).await?) })
}

/// Returns the fields that are not as by default, without secrets, in one line.
fn changed(settings: &Settings) -> String {
    let (shown, default) = (settings.without_secrets(), Settings::default());
    let defaults: BTreeMap<_, _> =
        default.fields().map(|(field, value, _)| (field, value)).collect();
    let changed = shown.fields().filter(|(field, value, _)| defaults.get(field) != Some(value));
    changed.map(|(field, value, _)| format!("{field}: {value}")).collect::<Vec<_>>().join(", ")
}

/// Names once what cannot be honoured.
fn report(reports: &[FieldReport]) {
    for FieldReport { field, value, verdict, .. } in reports {
        match verdict {
            Verdict::Used | Verdict::Unset => {}
            Verdict::Ignored(_) => info!(event = "field_ignored", field, value, "{verdict}"),
            Verdict::Unsupported(_) => {
                warn!(event = "field_unsupported", field, value, "{verdict}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_from_the_defaults_is_one_line_without_secrets() {
        assert_eq!(changed(&Settings::default()), "");
        let settings = Settings {
            qps: 50.0,
            api_servers: vec!["https://admin:hunter2@192.0.2.1:6443".into()],
            ..Settings::default()
        };
        assert_eq!(
            changed(&settings),
            "passlane.apiServers: [https://192.0.2.1:6443], clientConnection.qps: 50"
        );
    }
}
