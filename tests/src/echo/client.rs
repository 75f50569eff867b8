//! The client: one question on a socket of its own, or a socket that is kept.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use proxy_userspace::model::Protocol;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketType, bind, connect, ipproto, socket};

use super::{Answer, Outcome, read_answer};
use crate::netns::Namespace;

const MAX_MESSAGE: usize = 256;

/// Where a question goes, from where, and how long it waits.
#[derive(Clone, Debug)]
pub struct Dial<'a> {
    /// Where the socket is made.
    pub namespace: &'a Namespace,
    /// The address it is bound to, if not the kernel's choice.
    pub source: Option<IpAddr>,
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// Whom it dials.
    pub to: SocketAddr,
    /// How long a connection or an answer may take.
    pub patience: Duration,
}

impl<'a> Dial<'a> {
    /// A dial that is answered sooner or later.
    #[must_use]
    pub fn new(namespace: &'a Namespace, protocol: Protocol, to: SocketAddr) -> Self {
        Self { namespace, source: None, protocol, to, patience: Duration::from_secs(10) }
    }

    /// From this address.
    #[must_use]
    pub fn from(self, source: IpAddr) -> Self {
        Self { source: Some(source), ..self }
    }

    /// With this patience.
    #[must_use]
    pub fn within(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Asks one question on a socket of its own.
    pub fn ask(&self) -> Result<Outcome> {
        match self.open()? {
            Ok(mut caller) => caller.ask(),
            Err(outcome) => Ok(outcome),
        }
    }

    /// Asks one question that has to be answered.
    pub fn answer(&self) -> Result<Answer> {
        self.caller()?.answer()
    }

    /// Opens a socket that is kept.
    pub fn caller(&self) -> Result<Caller> {
        let opened = self.open()?;
        opened.map_err(|outcome| anyhow!("{} {}: {outcome}", self.protocol, self.to))
    }

    fn open(&self) -> Result<Result<Caller, Outcome>> {
        let socket = match self.namespace.enter(|| Ok(self.connect()))? {
            Ok(socket) => socket,
            Err(error) => {
                let outcome = Outcome::of_error(&error);
                let what = || format!("connect to {} {}", self.protocol, self.to);
                return outcome.map(Err).ok_or(error).with_context(what);
            }
        };
        Ok(Ok(Caller { socket, next: 1, patience: self.patience }))
    }

    fn connect(&self) -> io::Result<Socket> {
        let any = match self.to {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let source = SocketAddr::from((self.source.unwrap_or(any), 0));
        if self.protocol == Protocol::Udp {
            let socket = UdpSocket::bind(source)?;
            socket.connect(self.to)?;
            return Ok(Socket::Datagrams(socket));
        }
        let number = if self.protocol == Protocol::Sctp { ipproto::SCTP } else { ipproto::TCP };
        let family = if self.to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket = socket(family, SocketType::STREAM, Some(number))?;
        set_socket_timeout(&socket, Timeout::Send, Some(self.patience))?;
        if self.source.is_some() {
            bind(&socket, &source)?;
        }
        connect(&socket, &self.to)?;
        Ok(Socket::Stream(TcpStream::from(socket)))
    }
}

/// A socket that asks as often as a test wants.
#[derive(Debug)]
pub struct Caller {
    socket: Socket,
    next: u32,
    patience: Duration,
}

#[derive(Debug)]
enum Socket {
    Stream(TcpStream),
    Datagrams(UdpSocket),
}

impl Caller {
    /// The local address: with the frontend it names the flow.
    pub fn local(&self) -> Result<SocketAddr> {
        Ok(match &self.socket {
            Socket::Stream(stream) => stream.local_addr()?,
            Socket::Datagrams(socket) => socket.local_addr()?,
        })
    }

    /// Sets how long a question waits for its answer.
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Asks once.
    pub fn ask(&mut self) -> Result<Outcome> {
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        match self.exchange(number) {
            Ok(text) => read_answer(&text, number)?
                .map(Outcome::Answered)
                .with_context(|| format!("answer to another question than {number}: {text:?}")),
            Err(error) => Outcome::of_error(&error).ok_or(error).context("ask"),
        }
    }

    /// Asks a question that has to be answered.
    pub fn answer(&mut self) -> Result<Answer> {
        match self.ask()? {
            Outcome::Answered(answer) => Ok(answer),
            outcome => Err(anyhow!("no answer: {outcome}")),
        }
    }

    fn exchange(&mut self, number: u32) -> io::Result<String> {
        let question = format!("{number}\n");
        match &mut self.socket {
            Socket::Stream(stream) => {
                stream.write_all(question.as_bytes())?;
                read_line(stream, Instant::now() + self.patience)
            }
            Socket::Datagrams(socket) => {
                match socket.send(question.as_bytes()) {
                    // What netfilter does with a packet of this host is told to the sender at
                    // once; what comes back for it is still to be read.
                    Err(error) if error.kind() == ErrorKind::PermissionDenied => {}
                    sent => drop(sent?),
                }
                read_datagram(socket, number, Instant::now() + self.patience)
            }
        }
    }
}

fn read_line(stream: &mut TcpStream, deadline: Instant) -> io::Result<String> {
    let mut line = Vec::new();
    let mut part = [0; MAX_MESSAGE];
    while !line.ends_with(b"\n") {
        set_socket_timeout(&*stream, Timeout::Recv, Some(left(deadline)?))?;
        match stream.read(&mut part)? {
            0 => return Err(ErrorKind::ConnectionReset.into()),
            count => line.extend_from_slice(&part[..count]),
        }
    }
    Ok(String::from_utf8_lossy(&line).into_owned())
}

/// Reads the answer to `number` past late ones to earlier questions.
fn read_datagram(socket: &UdpSocket, number: u32, deadline: Instant) -> io::Result<String> {
    let mut message = [0; MAX_MESSAGE];
    loop {
        socket.set_read_timeout(Some(left(deadline)?))?;
        let count = socket.recv(&mut message)?;
        let text = String::from_utf8_lossy(&message[..count]).into_owned();
        if text.starts_with(&format!("{number} ")) {
            return Ok(text);
        }
    }
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// Whether a read ended because the socket's timeout passed.
pub(super) fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}
