//! A server of one pod: it answers with its name, with the client's address, or with bytes.
//!
//! | request             | answer                                         |
//! |---------------------|------------------------------------------------|
//! | `GET /`             | the name of the server                         |
//! | `GET /source`       | the client's address as the server sees it     |
//! | `GET /blob?size=N`  | N bytes of [`crate::transfer`]'s blob          |
//! | `POST /`            | SHA-256 of the body, in hexadecimal            |

use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use super::message::{Head, is_timeout, read_head};
use crate::netns::Namespace;
use crate::transfer::{Blob, Digest};

/// How often an idle thread looks whether the server was stopped.
const LOOK: Duration = Duration::from_millis(200);

/// A running server. Dropping it closes its port and ends its threads.
#[derive(Debug)]
pub struct HttpServer {
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    name: String,
    stop: AtomicBool,
    accepted: AtomicU64,
}

impl HttpServer {
    /// Listens on `address` inside `namespace`.
    pub fn start(namespace: &Namespace, address: SocketAddr, name: &str) -> Result<Self> {
        let listener = namespace
            .enter(|| TcpListener::bind(address).with_context(|| format!("listen on {address}")))?;
        set_socket_timeout(&listener, Timeout::Recv, Some(LOOK))?;
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            stop: AtomicBool::new(false),
            accepted: AtomicU64::new(0),
        });
        let for_thread = Arc::clone(&shared);
        let acceptor = std::thread::spawn(move || accept(&listener, &for_thread));
        Ok(Self { shared, acceptor: Some(acceptor) })
    }

    /// Connections accepted so far.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(acceptor) = self.acceptor.take()
            && acceptor.join().is_err()
        {
            eprintln!("server {} panicked", self.shared.name);
        }
    }
}

impl Shared {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Accepts until the server is stopped, then waits for the connections to end.
fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut connections: Vec<JoinHandle<()>> = Vec::new();
    while !shared.stopped() {
        let Ok((stream, client)) = listener.accept() else { continue };
        shared.accepted.fetch_add(1, Ordering::Relaxed);
        let shared = Arc::clone(shared);
        connections.retain(|connection| !connection.is_finished());
        connections.push(std::thread::spawn(move || {
            // A client that went away in the middle is the test's business, not the server's.
            let _gone = serve(&stream, client, &shared);
        }));
    }
    for connection in connections {
        let _panicked = connection.join();
    }
}

fn serve(stream: &TcpStream, client: SocketAddr, shared: &Shared) -> io::Result<()> {
    stream.set_read_timeout(Some(LOOK))?;
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    while let Some(head) = read_head(&mut reader, || shared.stopped())? {
        answer(&head, &mut reader, stream, client, shared)?;
        if head.close {
            break;
        }
    }
    Ok(())
}

fn answer(
    head: &Head,
    body: &mut impl Read,
    mut stream: &TcpStream,
    client: SocketAddr,
    shared: &Shared,
) -> io::Result<()> {
    let mut words = head.start.split(' ');
    let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or("/"));
    match (method, path.split_once("?size=")) {
        ("POST", _) => {
            let digest = sink(body, head.content_length, shared)?;
            respond(stream, "200 OK", digest.as_bytes())
        }
        ("GET", Some(("/blob", size))) => {
            let size = size.parse().map_err(|_| ErrorKind::InvalidData)?;
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n")?;
            Blob::of(size).write_to(&mut stream)
        }
        ("GET", None) if path == "/" => respond(stream, "200 OK", shared.name.as_bytes()),
        ("GET", None) if path == "/source" => {
            respond(stream, "200 OK", client.to_string().as_bytes())
        }
        _ => respond(stream, "404 Not Found", b""),
    }
}

fn respond(mut stream: &TcpStream, status: &str, body: &[u8]) -> io::Result<()> {
    let mut message =
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    message.extend_from_slice(body);
    stream.write_all(&message)
}

/// Reads `length` bytes and returns their digest.
fn sink(body: &mut impl Read, length: u64, shared: &Shared) -> io::Result<String> {
    let mut digest = Digest::default();
    let mut left = length;
    let mut buffer = vec![0; 64 * 1024];
    while left > 0 {
        let want = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        match body.read(&mut buffer[..want]) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                digest.update(&buffer[..count]);
                left -= count as u64;
            }
            Err(error) if is_timeout(&error) && !shared.stopped() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(digest.hex())
}
