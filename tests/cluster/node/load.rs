//! Clients that ask on and on, each request on a connection of its own, and count.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Result, anyhow};
use proxy_tests::{http::get_once, netns::Namespace, process, wait};

/// Between two requests of one client.
const PACE: Duration = Duration::from_millis(100);

/// What one client saw.
#[derive(Debug, Default)]
pub(crate) struct Count {
    pub(crate) asked: u64,
    /// What became of each request that failed.
    pub(crate) failed: Vec<String>,
    /// Answers by the version of who answered.
    pub(crate) by_version: BTreeMap<String, u64>,
}

/// Running clients.
pub(crate) struct Load {
    over: Arc<AtomicBool>,
    clients: Vec<(String, JoinHandle<Count>)>,
}

impl Load {
    /// Starts one client for each of these ways to a Service.
    pub(crate) fn start(ways: &[(&str, &Namespace, SocketAddr)]) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let start = |&(name, from, to): &(&str, &Namespace, SocketAddr)| {
            let (over, from) = (Arc::clone(&over), from.clone());
            (name.to_owned(), thread::spawn(move || ask_on(&over, &from, to)))
        };
        let clients = ways.iter().map(start).collect();
        Self { over, clients }
    }

    /// Ends the clients and returns what each saw.
    pub(crate) fn end(self) -> Result<BTreeMap<String, Count>> {
        self.over.store(true, Ordering::Relaxed);
        let join = |(name, client): (String, JoinHandle<Count>)| {
            Ok((name, client.join().map_err(|_| anyhow!("a client panicked"))?))
        };
        self.clients.into_iter().map(join).collect()
    }
}

fn ask_on(over: &AtomicBool, from: &Namespace, to: SocketAddr) -> Count {
    process::give_way();
    let mut count = Count::default();
    while !over.load(Ordering::Relaxed) {
        count.asked += 1;
        match get_once(from, to, "/") {
            Ok(text) => {
                let version = text.split_whitespace().next().unwrap_or("nothing");
                *count.by_version.entry(version.to_owned()).or_default() += 1;
            }
            Err(error) => count.failed.push(format!("request {}: {error:#}", count.asked)),
        }
        wait::pause(PACE);
    }
    count
}
