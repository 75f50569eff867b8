//! The server: one port, every protocol, both families.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use proxy_userspace::model::Protocol;
use rustix::net::sockopt::{Timeout, set_socket_reuseaddr, set_socket_timeout};
use rustix::net::{AddressFamily, SocketType, bind, ipproto, listen, socket};

use super::write_answer;
use crate::netns::Namespace;

/// How often an idle thread looks whether the server was stopped.
const LOOK: Duration = Duration::from_millis(200);
const BACKLOG: i32 = 128;
const MAX_MESSAGE: usize = 128;

/// A running server. Dropping it closes its ports and ends its threads.
#[derive(Debug)]
pub struct EchoServer {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl EchoServer {
    /// Listens on `port` of every address in `namespace`, for these protocols.
    pub fn start(
        namespace: &Namespace,
        port: u16,
        name: &str,
        protocols: &[Protocol],
    ) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        let at = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        for &protocol in protocols {
            let what = || format!("{name}: listen on {protocol} {at}");
            let (name, stop) = (name.to_owned(), Arc::clone(&stop));
            threads.push(if protocol == Protocol::Udp {
                let socket = namespace.enter(|| Ok(UdpSocket::bind(at)?)).with_context(what)?;
                socket.set_read_timeout(Some(LOOK))?;
                std::thread::spawn(move || serve_datagrams(&socket, &name, &stop))
            } else {
                let listener = namespace.enter(|| listen_on(at, protocol)).with_context(what)?;
                std::thread::spawn(move || serve_streams(&listener, &name, &stop))
            });
        }
        Ok(Self { stop, threads })
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                eprintln!("an echo server panicked");
            }
        }
    }
}

/// SCTP's one-to-one sockets behave as TCP's do.
fn listen_on(at: SocketAddr, protocol: Protocol) -> Result<TcpListener> {
    let number = if protocol == Protocol::Sctp { ipproto::SCTP } else { ipproto::TCP };
    let socket = socket(AddressFamily::INET6, SocketType::STREAM, Some(number))?;
    set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &at)?;
    listen(&socket, BACKLOG)?;
    set_socket_timeout(&socket, Timeout::Recv, Some(LOOK))?;
    Ok(TcpListener::from(socket))
}

fn serve_datagrams(socket: &UdpSocket, name: &str, stop: &AtomicBool) {
    let mut question = [0; MAX_MESSAGE];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((length, client)) = socket.recv_from(&mut question) {
            let number = String::from_utf8_lossy(&question[..length]);
            let answer = write_answer(number.trim(), name, client.ip());
            // A client that went away is the test's business.
            let _gone = socket.send_to(answer.as_bytes(), client);
        }
    }
}

/// Accepts until the server is stopped, then waits for the connections to end.
fn serve_streams(listener: &TcpListener, name: &str, stop: &Arc<AtomicBool>) {
    let mut connections: Vec<JoinHandle<()>> = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let Ok((stream, client)) = listener.accept() else { continue };
        let (name, stop) = (name.to_owned(), Arc::clone(stop));
        connections.retain(|connection| !connection.is_finished());
        connections.push(std::thread::spawn(move || {
            // A client that went away in the middle is the test's business, not the server's.
            let _gone = serve_stream(&stream, client.ip(), &name, &stop);
        }));
    }
    for connection in connections {
        let _panicked = connection.join();
    }
}

fn serve_stream(
    mut stream: &TcpStream,
    client: IpAddr,
    name: &str,
    stop: &AtomicBool,
) -> Result<()> {
    set_socket_timeout(stream, Timeout::Recv, Some(LOOK))?;
    let mut questions = BufReader::new(stream);
    let mut line = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        match questions.read_until(b'\n', &mut line) {
            Ok(0) => break,
            Ok(_) => {
                let number = String::from_utf8_lossy(&line);
                stream.write_all(write_answer(number.trim(), name, client).as_bytes())?;
                line.clear();
            }
            Err(error) if super::client::is_timeout(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
