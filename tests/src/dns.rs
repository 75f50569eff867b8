//! A protocol in the shape of DNS: short questions and answers with an id, over UDP, and over TCP
//! with a length before each message. The answer names the backend.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use crate::netns::Namespace;

const LOOK: Duration = Duration::from_millis(200);
const TIMEOUT: Duration = Duration::from_secs(10);
const MAX_MESSAGE: usize = 512;

/// A server on one port, UDP and TCP. Dropping it closes both.
#[derive(Debug)]
pub struct DnsServer {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl DnsServer {
    /// Serves on `address` inside `namespace`, answering with `name`.
    pub fn start(namespace: &Namespace, address: SocketAddr, name: &str) -> Result<Self> {
        let (udp, tcp) = namespace
            .enter(|| Ok((UdpSocket::bind(address)?, TcpListener::bind(address)?)))
            .with_context(|| format!("serve DNS on {address}"))?;
        udp.set_read_timeout(Some(LOOK))?;
        set_socket_timeout(&tcp, Timeout::Recv, Some(LOOK))?;
        let stop = Arc::new(AtomicBool::new(false));
        let (name, for_tcp) = (name.to_owned(), name.to_owned());
        let (stop_udp, stop_tcp) = (Arc::clone(&stop), Arc::clone(&stop));
        let threads = vec![
            std::thread::spawn(move || serve_udp(&udp, &name, &stop_udp)),
            std::thread::spawn(move || serve_tcp(&tcp, &for_tcp, &stop_tcp)),
        ];
        Ok(Self { stop, threads })
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                eprintln!("a DNS server panicked");
            }
        }
    }
}

fn serve_udp(socket: &UdpSocket, name: &str, stop: &AtomicBool) {
    let mut question = [0; MAX_MESSAGE];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((length, client)) = socket.recv_from(&mut question)
            && let Some(id) = question[..length].first_chunk()
        {
            // A client that went away is the test's business.
            let _gone = socket.send_to(&answer(*id, name), client);
        }
    }
}

fn serve_tcp(listener: &TcpListener, name: &str, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        if let Ok((stream, _)) = listener.accept() {
            let _gone = answer_stream(stream, name);
        }
    }
}

fn answer_stream(mut stream: TcpStream, name: &str) -> io::Result<()> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    let question = read_framed(&mut stream)?;
    if let Some(id) = question.first_chunk() {
        write_framed(&mut stream, &answer(*id, name))?;
    }
    Ok(())
}

fn answer(id: [u8; 2], name: &str) -> Vec<u8> {
    [&id[..], name.as_bytes()].concat()
}

fn read_framed(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message)?;
    Ok(message)
}

fn write_framed(stream: &mut impl Write, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], message].concat())
}

/// A client with one socket: one UDP flow for as many questions as a test asks.
#[derive(Debug)]
pub struct Resolver {
    socket: UdpSocket,
    next_id: u16,
}

impl Resolver {
    /// A socket inside `namespace` that asks `server`.
    pub fn open(namespace: &Namespace, server: SocketAddr) -> Result<Self> {
        let socket = namespace.enter(|| {
            let any = match server {
                SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
                SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
            };
            let socket = UdpSocket::bind((any, 0))?;
            socket.connect(server).with_context(|| format!("UDP route to {server}"))?;
            Ok(socket)
        })?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        Ok(Self { socket, next_id: 1 })
    }

    /// Sets how long a question waits for its answer.
    pub fn set_timeout(&self, timeout: Duration) -> Result<()> {
        Ok(self.socket.set_read_timeout(Some(timeout))?)
    }

    /// Sets how many routers a question may pass, from one on, or as usual.
    pub fn set_ttl(&self, ttl: Option<u32>) -> Result<()> {
        Ok(self.socket.set_ttl(ttl.unwrap_or(64))?)
    }

    /// The local address: with the server it names the flow.
    pub fn local(&self) -> Result<SocketAddr> {
        Ok(self.socket.local_addr()?)
    }

    /// Asks once and returns the name of the backend that answered. Errs on a lost question, and
    /// on an answer to another question.
    pub fn ask(&mut self) -> Result<String> {
        let id = self.next_id.to_be_bytes();
        self.next_id = self.next_id.wrapping_add(1);
        self.socket.send(&[&id[..], b"who answers?"].concat()).context("ask")?;
        let mut message = [0; MAX_MESSAGE];
        let length = self.socket.recv(&mut message).context("no answer")?;
        match message[..length].split_first_chunk() {
            Some((found, name)) if *found == id => Ok(String::from_utf8_lossy(name).into_owned()),
            _ => bail!("answer to another question: {:?}", &message[..length]),
        }
    }
}

/// Asks once over TCP.
pub fn ask_over_tcp(namespace: &Namespace, server: SocketAddr) -> Result<String> {
    let mut stream = namespace
        .enter(|| Ok(TcpStream::connect_timeout(&server, TIMEOUT)?))
        .with_context(|| format!("connect to {server}"))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    write_framed(&mut stream, b"\0\x01who answers?")?;
    let message = read_framed(&mut stream).context("no answer over TCP")?;
    match message.split_first_chunk() {
        Some((b"\0\x01", name)) => Ok(String::from_utf8_lossy(name).into_owned()),
        _ => bail!("answer to another question: {message:?}"),
    }
}
