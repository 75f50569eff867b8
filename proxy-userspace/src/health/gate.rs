//! A port that answers HTTP to whoever comes, and can be neither exhausted nor leaked.
//!
//! A connection gets one answer. It ends when the request's headers take too long, and after some
//! seconds in any case; of all ports together only so many are open at a time, and of one port
//! only so many, so that one that is flooded leaves the others alone. Who comes to a port that is
//! full takes the place of the oldest connection that has not asked anything, or else of the oldest
//! one: who holds connections keeps nobody out.

use std::{
    collections::VecDeque,
    net::{SocketAddr, TcpListener},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use rustix::io::Errno;
use tokio::{
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};
use tower::ServiceExt;
use tracing::{debug, info, warn};

use super::problem::Cause;
use crate::kernel::listen;

/// For the request's headers to come.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// For a connection as a whole.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections at a time.
const CONNECTIONS_PER_PORT: usize = 32;
/// Connections at a time of all ports that share a [`Budget`].
const CONNECTIONS: usize = 256;
/// The largest request, which is also the smallest that hyper allows.
const REQUEST_BYTES: usize = 8192;
/// Between the first attempts to open a port, doubled up to the last.
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(30);
/// A port that was given up a moment ago may still be open, so one failure says nothing.
const SILENT_FAILURES: u32 = 1;

/// The family that a client asks in; each request carries it as an extension.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OverIpv6(pub(crate) bool);

/// Connections that several ports share.
#[derive(Clone, Debug)]
pub(crate) struct Budget(Arc<Semaphore>);

impl Budget {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(CONNECTIONS)))
    }
}

/// An address and port that is open, or is tried again and again. It ends with this value, and so
/// does every connection to it.
#[derive(Debug)]
pub(crate) struct Gate {
    addr: SocketAddr,
    failure: Arc<Mutex<Option<Cause>>>,
    /// The one task; dropping the set ends it.
    _task: JoinSet<()>,
}

impl Gate {
    /// Opens the port, at once or later. Needs a tokio runtime. `purpose` names it in logs.
    pub(crate) fn open(addr: SocketAddr, purpose: &str, router: Router, budget: Budget) -> Self {
        let failure = Arc::default();
        let mut task = JoinSet::new();
        let keeper = Keeper { addr, purpose: purpose.to_owned(), failure: Arc::clone(&failure) };
        task.spawn(keeper.run(router, budget));
        Self { addr, failure, _task: task }
    }

    /// Returns where, and why it is not open; `None` while it is, or was not tried enough.
    pub(crate) fn failure(&self) -> Option<(SocketAddr, Cause)> {
        let failure = *self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.map(|cause| (self.addr, cause))
    }
}

struct Keeper {
    addr: SocketAddr,
    purpose: String,
    failure: Arc<Mutex<Option<Cause>>>,
}

impl Keeper {
    async fn run(self, router: Router, budget: Budget) {
        let listener = self.opened().await;
        let mut connections = JoinSet::new();
        let mut open = Open::default();
        loop {
            let stream = accept(&listener).await;
            open.make_room();
            // A semaphore that nobody closes always gives in the end.
            let Ok(shared) = Arc::clone(&budget.0).acquire_owned().await else { return };
            let asked = Arc::<AtomicBool>::default();
            let serving = serve(stream, router.clone(), Arc::clone(&asked), shared);
            open.0.push_back((connections.spawn(serving), asked));
            while connections.try_join_next().is_some() {}
        }
    }

    async fn opened(&self) -> tokio::net::TcpListener {
        let (mut failures, mut wait) = (0, FIRST_RETRY);
        loop {
            match listen::tcp(self.addr).and_then(registered) {
                Ok(listener) => {
                    if self.say(None).is_some() {
                        info!(event = "port_open", addr = %self.addr, "{} answered again", self.purpose);
                    }
                    return listener;
                }
                Err(errno) if failures >= SILENT_FAILURES => {
                    if self.say(Some(Cause(errno))) != Some(Cause(errno)) {
                        warn!(event = "port_closed", addr = %self.addr, error = %errno, "{} not answered", self.purpose);
                    }
                }
                Err(_) => {}
            }
            failures += 1;
            sleep(wait).await;
            wait = (wait * 2).min(LAST_RETRY);
        }
    }

    /// Sets the failure and returns the one before.
    fn say(&self, failure: Option<Cause>) -> Option<Cause> {
        std::mem::replace(
            &mut *self.failure.lock().unwrap_or_else(PoisonError::into_inner),
            failure,
        )
    }
}

/// The connections of a port, the oldest first, and whether each has sent its request.
#[derive(Debug, Default)]
struct Open(VecDeque<(AbortHandle, Arc<AtomicBool>)>);

impl Open {
    /// Forgets those that ended, and ends as many as there are too many for one more.
    fn make_room(&mut self) {
        self.0.retain(|(connection, _)| !connection.is_finished());
        while self.0.len() >= CONNECTIONS_PER_PORT {
            let silent = self.0.iter().position(|(_, asked)| !asked.load(Relaxed));
            let Some((connection, _)) = self.0.remove(silent.unwrap_or(0)) else { return };
            connection.abort();
        }
    }
}

fn registered(listener: TcpListener) -> Result<tokio::net::TcpListener, Errno> {
    tokio::net::TcpListener::from_std(listener)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

async fn accept(listener: &tokio::net::TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => {
                // The client went, or the process has no file descriptor to spare: it may later.
                debug!(event = "accept_failed", %error, "accept a connection");
                sleep(FIRST_RETRY).await;
            }
        }
    }
}

async fn serve(
    stream: TcpStream,
    router: Router,
    asked: Arc<AtomicBool>,
    _permit: OwnedSemaphorePermit,
) {
    // An unknown address is that of a client that has gone.
    let over_ipv6 = stream.local_addr().is_ok_and(|addr| addr.ip().to_canonical().is_ipv6());
    let router = router.layer(axum::Extension(OverIpv6(over_ipv6)));
    let service = router.map_request(move |request: http::Request<hyper::body::Incoming>| {
        asked.store(true, Relaxed);
        request
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(REQUEST_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    match timeout(CONNECTION_TIMEOUT, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(event = "answer_failed", %error, "answer a connection"),
        Err(_) => debug!(event = "answer_late", "a connection took too long"),
    }
}
