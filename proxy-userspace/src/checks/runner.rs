//! Runs the checks: a task each, none of which waits for another one longer than it must.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval_at},
};

use tracing::warn;

use super::{State, Target};
use crate::{
    kernel::check::{self, Subject},
    model::Probe,
};

/// Tries over the network at once: sockets of the agent. What waits begins later.
const CONNECTIONS: usize = 256;
/// Commands at once: processes of the node.
const COMMANDS: usize = 32;
/// Changes that wait for the agent.
const WAITING: usize = 1024;

/// A check changed its mind.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Changed {
    /// Its number in the book.
    pub number: u64,
    /// What holds now.
    pub state: State,
}

/// The checks that run. They end with it, and with them the commands that they wait for.
#[derive(Debug)]
pub struct Runner {
    running: BTreeMap<u64, Running>,
    connections: Arc<Semaphore>,
    commands: Arc<Semaphore>,
    changes: mpsc::Sender<Changed>,
}

#[derive(Debug)]
struct Running(JoinHandle<()>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Runner {
    /// Returns a runner of nothing, and what its checks will say.
    pub fn open() -> (Self, mpsc::Receiver<Changed>) {
        let (changes, found) = mpsc::channel(WAITING);
        let runner = Self {
            running: BTreeMap::new(),
            connections: Arc::new(Semaphore::new(CONNECTIONS)),
            commands: Arc::new(Semaphore::new(COMMANDS)),
            changes,
        };
        (runner, found)
    }

    /// Begins a check. Its first try is within its interval.
    pub fn start(&mut self, number: u64, target: Target, state: State) {
        let turns = match target.check.probe {
            Probe::Command(_) => Arc::clone(&self.commands),
            Probe::Tcp | Probe::Http(_) => Arc::clone(&self.connections),
        };
        let changes = self.changes.clone();
        let task = tokio::spawn(run(number, target, state, turns, changes));
        self.running.insert(number, Running(task));
    }

    /// Ends a check.
    pub fn stop(&mut self, number: u64) {
        self.running.remove(&number);
    }
}

/// Tries again and again. A try that takes longer than the interval, since it waits for its turn, takes
/// the place of those that would have begun meanwhile.
async fn run(
    number: u64,
    target: Target,
    mut state: State,
    turns: Arc<Semaphore>,
    changes: mpsc::Sender<Changed>,
) {
    let Target { addr, check, service } = &target;
    let service = service.as_ref().map(ToString::to_string).unwrap_or_default();
    let subject = Subject { addr: *addr, service };
    let interval = Duration::from_millis(check.interval_ms.into());
    let within = Duration::from_millis(check.timeout_ms.into());
    let mut timer = interval_at(Instant::now() + offset(&target, interval), interval);
    timer.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        timer.tick().await;
        let Ok(turn) = turns.acquire().await else { return };
        let result = check::once(&check.probe, &subject, within).await;
        drop(turn);
        let (well, why) = match result {
            Ok(why) => (true, why),
            Err(failure) if failure.is_local() => {
                let error = failure.to_string();
                warn!(event = "check_not_tried", backend = %addr, error, "a check was left out");
                continue;
            }
            Err(failure) => (false, failure.to_string()),
        };
        if state.take(check, well, &why, seconds()) {
            let state = state.clone();
            if changes.send(Changed { number, state }).await.is_err() {
                return;
            }
        }
    }
}

/// Where in its interval a check begins: by what it is about, so that thousands that begin together
/// do not try together, and each agent keeps to the same moments.
fn offset(target: &Target, interval: Duration) -> Duration {
    let text = format!("{} {}", target.addr, target.check);
    // FNV-1a.
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    interval.mul_f64((hash >> 32) as f64 / 4_294_967_296.0)
}

/// Returns the seconds since 1970.
pub(super) fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Check;

    fn target(host: u32) -> Target {
        let addr = (std::net::Ipv4Addr::from_bits(0x0a01_0000 + host), 80).into();
        Target { addr, check: Check::of(Probe::Tcp), service: None }
    }

    #[test]
    fn a_thousand_checks_are_spread_over_their_interval_and_each_keeps_its_moment() {
        let interval = Duration::from_secs(5);
        let mut tenths = [0; 10];
        for host in 0..1000 {
            let offset = offset(&target(host), interval);
            assert!(offset < interval);
            assert_eq!(offset, super::offset(&target(host), interval));
            tenths[(offset.as_millis() / 500) as usize] += 1;
        }
        assert!(tenths.iter().all(|count| (60..=140).contains(count)), "{tenths:?}");
    }

    #[tokio::test]
    async fn who_listens_is_up_and_who_does_not_falls_and_rises() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let check = Check { interval_ms: 20, timeout_ms: 20, ..Check::of(Probe::Tcp) };
        let target = Target { addr, check: check.clone(), service: None };
        let (mut runner, mut found) = Runner::open();
        drop(listener);
        runner.start(7, target, State::new(&check, 0));
        let down = found.recv().await.unwrap();
        assert_eq!((down.number, down.state.up), (7, false));
        assert!(down.state.why.starts_with("connect: "), "{}", down.state.why);
        let listener = std::net::TcpListener::bind(addr).unwrap();
        let up = found.recv().await.unwrap();
        assert!(up.state.up && up.state.why == "connected" && up.state.changes == 2);
        runner.stop(7);
        drop((runner, listener));
        assert_eq!(found.recv().await, None, "nobody is left to say anything");
    }
}
