//! `/healthz`, `/livez` and `/readyz`: whether changes reach the kernel in time, whether the node
//! stays, and whether everything was done once.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime},
};

use axum::{Router, extract::State, response::Response, routing::any};
use serde::Serialize;

use super::{
    Problem,
    answer::answer,
    gate::{Budget, Gate},
    time::go_time,
};
use crate::tally::Counter;

/// A change must be in the kernel after this time.
const TIMEOUT: Duration = Duration::from_secs(120);

/// What the agent says about itself and its node, and what follows from it.
#[derive(Debug, Default)]
pub struct ProxyHealth {
    state: Mutex<Progress>,
    ready: AtomicBool,
    answers: Answers,
}

/// How often was asked, by what was answered: 200 or 503.
#[derive(Debug, Default)]
pub struct Answers {
    /// Answers of `/healthz`.
    pub healthz: [Counter; 2],
    /// Answers of `/livez`.
    pub livez: [Counter; 2],
}

#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    /// When the oldest change that is not in the kernel came.
    pending_since: Option<Instant>,
    /// When the kernel last held everything.
    synced_at: Option<SystemTime>,
    node_leaving: bool,
}

impl Progress {
    fn is_healthy(&self, now: Instant) -> bool {
        self.pending_since.is_none_or(|since| now.duration_since(since) < TIMEOUT)
    }

    /// What is said of the last sync: a healthy proxy holds everything at this moment.
    fn last_updated(&self, healthy: bool, now: SystemTime) -> Option<SystemTime> {
        if healthy { Some(now) } else { self.synced_at }
    }
}

impl ProxyHealth {
    /// A change came that is not in the kernel yet. Of several the oldest counts.
    pub fn changed(&self) {
        self.lock().pending_since.get_or_insert_with(Instant::now);
    }

    /// The kernel holds every change that [`Self::changed`] announced.
    pub fn synced(&self) {
        let mut state = self.lock();
        state.pending_since = None;
        state.synced_at = Some(SystemTime::now());
    }

    /// The node is going away, or is not: `Node::leaving` of the model.
    pub fn set_node_leaving(&self, leaving: bool) {
        self.lock().node_leaving = leaving;
    }

    /// Everything that is wanted was brought into the kernel once, or was not.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Relaxed);
    }

    /// Returns what was answered.
    pub fn answers(&self) -> &Answers {
        &self.answers
    }

    /// Returns true unless a change has waited for two minutes. The node plays no part.
    pub fn is_healthy(&self) -> bool {
        self.lock().is_healthy(Instant::now())
    }

    /// Lets a change have waited for too long.
    #[cfg(test)]
    pub(super) fn make_overdue(&self) {
        self.lock().pending_since = Instant::now().checked_sub(TIMEOUT);
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The server of `/healthz`, `/livez` and `/readyz`. It ends with this value.
#[derive(Debug)]
pub struct HealthServer {
    gate: Gate,
}

impl HealthServer {
    /// Opens the port, at once or as soon as it can be. Needs a tokio runtime. kube-proxy listens
    /// on `0.0.0.0:10256`; `[::]:10256` takes both families.
    pub fn open(addr: SocketAddr, health: Arc<ProxyHealth>) -> Self {
        let router = Router::new()
            .route("/healthz", any(healthz))
            .route("/livez", any(livez))
            .route("/readyz", any(readyz))
            .with_state(health);
        Self { gate: Gate::open(addr, "health checks of the node", router, Budget::new()) }
    }

    /// Returns why the port is not open; `None` while it is.
    pub fn problem(&self) -> Option<Problem> {
        self.gate.failure().map(|(addr, cause)| Problem::NodeNotListening { addr, cause })
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    last_updated: String,
    current_time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_eligible: Option<bool>,
}

#[derive(Serialize)]
struct Readiness {
    ready: bool,
}

async fn healthz(State(health): State<Arc<ProxyHealth>>) -> Response {
    let eligible = !health.lock().node_leaving;
    respond(&health, Some(eligible), &health.answers.healthz)
}

/// Neither an API server that is away nor a fast path that this node cannot have makes it fail:
/// forwarding goes on.
async fn readyz(State(health): State<Arc<ProxyHealth>>) -> Response {
    let ready = health.ready.load(Relaxed);
    answer(ready, &Readiness { ready })
}

async fn livez(State(health): State<Arc<ProxyHealth>>) -> Response {
    respond(&health, None, &health.answers.livez)
}

fn respond(
    health: &ProxyHealth,
    node_eligible: Option<bool>,
    [well, ill]: &[Counter; 2],
) -> Response {
    let state = *health.lock();
    let now = SystemTime::now();
    let healthy = state.is_healthy(Instant::now()) && node_eligible.unwrap_or(true);
    let body = Body {
        last_updated: go_time(state.last_updated(healthy, now)),
        current_time: go_time(Some(now)),
        node_eligible,
    };
    if healthy { well } else { ill }.add(1);
    answer(healthy, &body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_that_waits_for_two_minutes_is_unhealthy() {
        let start = Instant::now();
        let sync = Progress { pending_since: Some(start), ..Progress::default() };
        assert!(sync.is_healthy(start + Duration::from_millis(119_999)));
        assert!(!sync.is_healthy(start + Duration::from_secs(120)));
        assert!(Progress::default().is_healthy(start), "nothing waits");
    }

    #[test]
    fn the_oldest_change_counts_until_everything_is_synced() {
        let health = ProxyHealth::default();
        health.changed();
        let first = health.lock().pending_since;
        health.changed();
        assert_eq!(health.lock().pending_since, first);
        assert!(first.is_some() && health.is_healthy());
        health.synced();
        assert_eq!(health.lock().pending_since, None);
        assert!(health.lock().synced_at.is_some());
    }

    #[test]
    fn an_unhealthy_proxy_says_when_it_last_was_in_sync() {
        let (now, earlier) = (SystemTime::now(), SystemTime::UNIX_EPOCH);
        let sync = Progress { synced_at: Some(earlier), ..Progress::default() };
        assert_eq!(sync.last_updated(true, now), Some(now));
        assert_eq!(sync.last_updated(false, now), Some(earlier));
    }
}
