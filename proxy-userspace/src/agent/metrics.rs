//! What the loop tells the metrics, and the server of `/metrics`.

use std::sync::Arc;

use tracing::error;

use super::Agent;
use crate::{
    config::Settings,
    metrics::{MetricsServer, Passed, Recorder, State},
    model::Update,
    source::Trigger,
    status::Report,
};

/// The server, what it tells of, and what is still to be told.
pub(super) struct Metrics {
    recorder: Arc<Recorder>,
    server: Option<MetricsServer>,
    /// Of changes that are not in the kernel yet.
    triggers: Vec<Trigger>,
    /// How often the source listed a kind anew.
    pub(super) relists: u64,
}

impl Metrics {
    /// Opens the server, where one is asked for.
    pub(super) fn open(settings: &Settings, recorder: Recorder) -> Self {
        let recorder = Arc::new(recorder);
        let server = settings.metrics_bind_address.and_then(|addr| {
            MetricsServer::open(addr, Arc::clone(&recorder), settings)
                .inspect_err(|error| {
                    error!(event = "metrics_off", %error, "there are no threads for /metrics");
                })
                .ok()
        });
        Self { recorder, server, triggers: Vec::new(), relists: 0 }
    }

    /// Returns what the loop counts with.
    pub(super) fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// Takes up that the source told of a change, and why it came about.
    pub(super) fn heard(&mut self, update: &Update, triggers: Vec<Trigger>) {
        self.recorder.queued(update);
        self.triggers.extend(triggers);
    }

    /// Takes up a pass.
    pub(super) fn passed(&mut self, passed: Passed) {
        self.recorder.passed(passed);
        if passed.complete {
            self.recorder.programmed(self.triggers.drain(..));
        }
    }

    /// Returns why `/metrics` is not served.
    pub(super) fn problem(&self) -> Option<String> {
        Some(self.server.as_ref()?.problem()?.to_string())
    }
}

impl Agent {
    /// Lets scrapes see what the agent says of itself.
    pub(super) fn show_metrics(&mut self, report: Report) {
        let unserved = &self.planner.desired().unserved;
        let services = |ipv6| [false, true].map(|external| unserved.services(ipv6, external));
        self.metrics.recorder().publish(State {
            report,
            notices: self.notices.iter().map(|notice| notice.reason()).collect(),
            has_snapshot: self.has_snapshot,
            relists: self.metrics.relists,
            no_local_endpoints: [false, true].map(services),
            has_ipv6: self.has_ipv6,
            checks: self.checks.report(),
        });
    }
}
