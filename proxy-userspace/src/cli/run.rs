//! `passlane run`.

use tracing::{info, warn};

use super::{Failure, logging};
use crate::{
    agent,
    config::{FieldReport, RunFlags, Settings, Source, Verdict},
};

/// Runs the agent until it is stopped.
pub(super) fn run(mut flags: RunFlags) -> Result<(), Failure> {
    let (settings, reports) = Settings::load(&flags)?;
    if settings.source == Source::Kubernetes {
        return Err(Failure::Usage(
            "--source kubernetes: this build reads files only; write --source file:PATH".into(),
        ));
    }
    flags.adopt(&settings);
    logging::start(settings.logging);
    report(&reports);
    // One thread does the work: sockets of a network namespace belong to the thread that made
    // them, and so does the order of changes.
    super::block_on(async { Ok(agent::run(flags).await?) })
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
