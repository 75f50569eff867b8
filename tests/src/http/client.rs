//! One client connection, kept open for as many requests as a test wants.

use std::io::{BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::net::{AddressFamily, SocketType, bind, connect, ipproto, socket, sockopt};

use super::message::read_head;
use crate::netns::Namespace;
use crate::transfer::{Blob, Digest};

/// How long a client waits for anything: longer than a lost SYN's and a lost segment's first
/// retransmissions, shorter than a person's patience.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The local end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The kernel picks the port.
    Any,
    /// This port, although an earlier connection may still hold it in TIME_WAIT.
    Port(u16),
}

/// An open connection. Dropping it closes it in order (FIN).
#[derive(Debug)]
pub struct Connection {
    reader: BufReader<TcpStream>,
    destination: SocketAddr,
}

impl Connection {
    /// Connects from inside `namespace`.
    pub fn open(namespace: &Namespace, destination: SocketAddr) -> Result<Self> {
        Self::open_from(namespace, Source::Any, destination)
    }

    /// Connects from inside `namespace` and from a given port.
    pub fn open_from(
        namespace: &Namespace,
        source: Source,
        destination: SocketAddr,
    ) -> Result<Self> {
        let stream = namespace
            .enter(|| match source {
                Source::Any => Ok(TcpStream::connect_timeout(&destination, TIMEOUT)?),
                Source::Port(port) => connect_from(port, destination),
            })
            .with_context(|| format!("connect {} to {destination}", namespace.name()))?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        stream.set_nodelay(true)?;
        Ok(Self { reader: BufReader::with_capacity(256 * 1024, stream), destination })
    }

    /// Sets how long a request waits for an answer.
    pub fn set_timeout(&self, timeout: Duration) -> Result<()> {
        Ok(self.stream().set_read_timeout(Some(timeout))?)
    }

    /// The local address: with the destination it names the flow.
    pub fn local(&self) -> Result<SocketAddr> {
        Ok(self.stream().local_addr()?)
    }

    /// Requests `path` and returns the body.
    pub fn get(&mut self, path: &str) -> Result<String> {
        self.exchange(&format!("GET {path} HTTP/1.1\r\nHost: demo\r\n\r\n"))
    }

    /// Requests `path` and asks the server to close the connection, so that the server's end is
    /// the one in TIME_WAIT. Returns after the server's FIN.
    pub fn get_and_let_server_close(mut self, path: &str) -> Result<String> {
        let body = self.exchange(&format!("GET {path} HTTP/1.1\r\nConnection: close\r\n\r\n"))?;
        let after = self.reader.read(&mut [0; 1])?;
        if after == 0 { Ok(body) } else { bail!("more after the last answer") }
    }

    /// Downloads a blob of `size` bytes and returns its digest; `progress` hears the bytes so far.
    pub fn download(&mut self, size: u64, mut progress: impl FnMut(u64)) -> Result<String> {
        self.send(&format!("GET /blob?size={size} HTTP/1.1\r\nHost: demo\r\n\r\n"))?;
        let length = self.answer_length()?;
        let (mut digest, mut done) = (Digest::default(), 0);
        let mut buffer = vec![0; 256 * 1024];
        while done < length {
            let want = buffer.len().min(usize::try_from(length - done)?);
            let count = self.reader.read(&mut buffer[..want]).context("in the middle of a blob")?;
            if count == 0 {
                bail!("closed after {done} of {length} bytes");
            }
            digest.update(&buffer[..count]);
            done += count as u64;
            progress(done);
        }
        Ok(digest.hex())
    }

    /// Uploads a blob of `size` bytes and returns the digest the server computed.
    pub fn upload(&mut self, size: u64) -> Result<String> {
        self.send(&format!("POST / HTTP/1.1\r\nContent-Length: {size}\r\n\r\n"))?;
        Blob::of(size).write_to(self.reader.get_mut()).context("in the middle of a blob")?;
        self.answer_text()
    }

    /// Ends the connection with RST instead of FIN.
    pub fn abort(self) -> Result<()> {
        sockopt::set_socket_linger(self.stream(), Some(Duration::ZERO))?;
        Ok(())
    }

    fn stream(&self) -> &TcpStream {
        self.reader.get_ref()
    }

    fn exchange(&mut self, request: &str) -> Result<String> {
        self.send(request)?;
        self.answer_text()
    }

    fn send(&mut self, request: &str) -> Result<()> {
        let destination = self.destination;
        let stream = self.reader.get_mut();
        stream.write_all(request.as_bytes()).with_context(|| format!("ask {destination}"))
    }

    fn answer_text(&mut self) -> Result<String> {
        let length = self.answer_length()?;
        let mut body = vec![0; usize::try_from(length)?];
        self.reader.read_exact(&mut body).context("body of the answer")?;
        Ok(String::from_utf8(body)?)
    }

    fn answer_length(&mut self) -> Result<u64> {
        let head = read_head(&mut self.reader, || true)
            .with_context(|| format!("answer of {}", self.destination))?
            .ok_or_else(|| anyhow!("{} closed instead of answering", self.destination))?;
        if head.start != "HTTP/1.1 200 OK" {
            bail!("{} answered {}", self.destination, head.start);
        }
        Ok(head.content_length)
    }
}

/// One request on a connection of its own.
pub fn get_once(namespace: &Namespace, destination: SocketAddr, path: &str) -> Result<String> {
    Connection::open(namespace, destination)?.get(path)
}

fn connect_from(port: u16, destination: SocketAddr) -> Result<TcpStream> {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, Some(ipproto::TCP))?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(TIMEOUT))?;
    bind(&socket, &SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))?;
    connect(&socket, &destination)?;
    Ok(TcpStream::from(socket))
}
