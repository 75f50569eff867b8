//! A TCP relay that can be cut, or hang: the network between a node and the API server, or an API server
//! whose process hangs while its kernel goes on.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::Result;

/// Between two looks whether it still hangs.
const HUNG: Duration = Duration::from_millis(20);

/// Passes connections on to another port, until it is cut.
pub(crate) struct Relay {
    port: u16,
    state: Arc<State>,
}

struct State {
    cut: AtomicBool,
    hung: AtomicBool,
    streams: Mutex<Vec<TcpStream>>,
}

impl State {
    fn streams(&self) -> MutexGuard<'_, Vec<TcpStream>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Relay {
    pub(crate) fn to(target: u16) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let state =
            Arc::new(State { cut: false.into(), hung: false.into(), streams: Mutex::default() });
        let seen = Arc::clone(&state);
        // Ends with the process: it holds nothing but a port.
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if !seen.cut.load(Ordering::SeqCst) {
                    let _ = pass(client, target, &seen);
                }
            }
        });
        Ok(Self { port, state })
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Ends all connections, and takes no more.
    pub(crate) fn cut(&self) {
        self.state.cut.store(true, Ordering::SeqCst);
        for stream in self.state.streams().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Takes connections and what is sent on them, and passes nothing on.
    pub(crate) fn hang(&self) {
        self.state.hung.store(true, Ordering::SeqCst);
    }

    /// Passes everything on again, also what came meanwhile.
    pub(crate) fn mend(&self) {
        self.state.cut.store(false, Ordering::SeqCst);
        self.state.hung.store(false, Ordering::SeqCst);
    }
}

fn pass(client: TcpStream, target: u16, state: &Arc<State>) -> Result<()> {
    let server = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, target)))?;
    state.streams().extend([client.try_clone()?, server.try_clone()?]);
    for (from, to) in [(client.try_clone()?, server.try_clone()?), (server, client)] {
        let state = Arc::clone(state);
        thread::spawn(move || copy(from, to, &state));
    }
    Ok(())
}

fn copy(mut from: TcpStream, mut to: TcpStream, state: &State) {
    let mut bytes = vec![0; 65536];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        while state.hung.load(Ordering::SeqCst) {
            thread::sleep(HUNG);
        }
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
