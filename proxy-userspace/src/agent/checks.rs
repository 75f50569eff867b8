//! Health checks in the loop: what is to be checked, what came out, and who is told.

use std::{
    path::Path,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use tokio::sync::mpsc;
use tracing::{error, info, warn};

use super::{Agent, pass::Scope};
use crate::{
    chain::chain,
    checks::{BackendCheck, Book, Changed, Runner, book::Moves, file},
};

/// The checks of one agent.
#[derive(Debug)]
pub(super) struct Checks {
    book: Book,
    runner: Runner,
    /// What there is to show.
    report: Arc<[BackendCheck]>,
}

impl Checks {
    /// Begins with what an earlier agent found. The second tells what the checks find.
    pub(super) fn open(state_dir: &Path) -> (Self, mpsc::Receiver<Changed>) {
        let found = file::read(state_dir).unwrap_or_else(|error| {
            warn!(event = "checks_forgotten", error = chain(&error), "all backends begin anew");
            Vec::new()
        });
        let (runner, changes) = Runner::open();
        (Self { book: Book::remembering(found), runner, report: Arc::new([]) }, changes)
    }

    /// Returns what is known, as it was at the last change.
    pub(super) fn report(&self) -> Arc<[BackendCheck]> {
        Arc::clone(&self.report)
    }

    fn show(&mut self, state_dir: &Path) {
        self.report = self.book.report().into();
        if let Err(error) = file::write(state_dir, &self.report) {
            error!(
                event = "report_failed",
                error = chain(&error),
                "what checks found is not shown"
            );
        }
    }
}

impl Agent {
    /// Begins and ends checks as Services and endpoints come and go.
    pub(super) fn follow_checks(&mut self) {
        let checked = &self.planner.desired().checked;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let Moves { start, stop, services } = self.checks.book.follow(checked, now);
        if services.is_empty() {
            return;
        }
        stop.into_iter().for_each(|number| self.checks.runner.stop(number));
        for (number, target, state) in start {
            self.checks.runner.start(number, target, state);
        }
        for service in &services {
            self.planner.set_failed(service, self.checks.book.failed(service));
        }
        self.checks.show(&self.settings.paths.state_dir);
    }

    /// Takes up that backends rose or fell, all that came together in one pass.
    pub(super) async fn checks_changed(
        &mut self,
        first: Changed,
        others: &mut mpsc::Receiver<Changed>,
    ) {
        let mut next = Some(first);
        while let Some(Changed { number, state }) = next {
            let (up, why) = (state.up, state.why.clone());
            for (service, backend) in self.checks.book.take(number, state) {
                match up {
                    true => info!(event = "backend_up", %service, %backend, why, "a backend is up"),
                    false => {
                        info!(event = "backend_down", %service, %backend, why, "a backend is down");
                    }
                }
                self.planner.set_failed(&service, self.checks.book.failed(&service));
            }
            next = others.try_recv().ok();
        }
        self.checks.show(&self.settings.paths.state_dir);
        self.reconcile(Scope::Changes).await;
    }
}
