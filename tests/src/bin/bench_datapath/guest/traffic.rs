//! The traffic, sent and received by one thread that never sleeps.

use std::{
    fs,
    io::{ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use proxy_tests::flows::Counters;
use rustix::net::sockopt;

use super::{
    modes::Mode,
    now,
    scene::{Ends, Path, Scene, TARGET_PORT},
};

/// Kinds of traffic.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// Datagrams of one socket, that nobody answers.
    Datagrams,
    /// Segments of one connection, with their acknowledgements.
    Stream,
    /// Connections that carry a byte each way.
    Connections,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Datagrams, Self::Stream, Self::Connections];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Datagrams => "UDP datagram",
            Self::Stream => "TCP segment",
            Self::Connections => "short connection",
        }
    }

    /// Units of traffic in one count.
    fn units(self) -> i64 {
        match self {
            Self::Datagrams => 4000,
            Self::Stream => 2048,
            Self::Connections => 100,
        }
    }
}

/// How often the same is counted.
const COUNTS: usize = 5;
/// Units that come first: more than the datapath waits for before it learns.
const WARM_UP: usize = 24;
const PATIENCE: Duration = Duration::from_secs(5);
const DATAGRAM: [u8; 64] = [7; 64];
/// A full segment of a 1,500-byte packet with time stamps.
const SEGMENT: [u8; 1448] = [7; 1448];
/// Segments between two looks of the receiver.
const BURST: usize = 16;
/// Everything that is sent in one count fits, at the 768 bytes that a small packet takes and more.
const BUFFER: usize = 64 << 20;

/// Returns the instructions of each unit, as often as they were counted.
pub(crate) fn count(scene: &Scene, path: Path, kind: Kind) -> Result<Vec<f64>> {
    let ends = scene.ends(path)?;
    let mut run: Run = match kind {
        Kind::Datagrams => datagrams(scene.mode, &ends)?,
        Kind::Stream => stream(&ends)?,
        Kind::Connections => connections(ends)?,
    };
    let before = counters(scene)?;
    let mut counts = Vec::new();
    for _ in 0..COUNTS {
        counts.push(run()? as f64 / kind.units() as f64);
    }
    if let Some((before, after)) = before.zip(counters(scene)?) {
        check(scene.mode, kind, &after.since(&before))?;
    }
    Ok(counts)
}

/// Returns what counts datagrams of one flow, as often as it is asked.
pub(crate) fn datagrams_of(
    scene: &Scene,
    path: Path,
) -> Result<impl FnMut() -> Result<Vec<f64>> + use<>> {
    let mut run = datagrams(scene.mode, &scene.ends(path)?)?;
    let units = Kind::Datagrams.units() as f64;
    Ok(move || (0..COUNTS).map(|_| Ok(run()? as f64 / units)).collect())
}

fn counters(scene: &Scene) -> Result<Option<Counters>> {
    scene.agent.as_ref().map(Counters::read).transpose()
}

/// Errs when the packets did not go the way that the mode is about.
fn check(mode: Mode, kind: Kind, counters: &Counters) -> Result<()> {
    let sent = COUNTS as u64 * kind.units() as u64;
    let right = match (mode, kind) {
        (_, Kind::Connections) => true,
        // A lease may be renewed now and then.
        (Mode::Fast, _) => counters.hits() >= sent - sent / 100,
        (Mode::Learning, _) => counters.hits() == 0 && counters.of("renewed") >= sent - sent / 100,
        _ => counters.hits() == 0,
    };
    ensure!(right, "of {sent}: {counters:?}");
    Ok(())
}

/// How often this thread has given up the CPU by itself.
fn switches() -> Result<u64> {
    let status = fs::read_to_string("/proc/thread-self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    Ok(line.context("no count of context switches")?.trim().parse()?)
}

type Run = Box<dyn FnMut() -> Result<i64>>;

/// Returns the instructions of some work of this thread, which must not sleep.
fn instructions(work: impl FnOnce() -> Result<()>) -> Result<i64> {
    let slept = switches()?;
    let start = now();
    work()?;
    let end = now();
    ensure!(switches()? == slept, "the thread slept: that time is no instructions");
    Ok(end - start)
}

fn datagrams(mode: Mode, ends: &Ends) -> Result<Run> {
    let server =
        ends.server.enter(|| Ok(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, TARGET_PORT))?))?;
    let dialled = ends.dialled;
    let client = ends.client.enter(|| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(dialled)?;
        Ok(socket)
    })?;
    sockopt::set_socket_recv_buffer_size_force(&server, BUFFER)?;
    for socket in [&client, &server] {
        socket.set_read_timeout(Some(PATIENCE))?;
    }
    let mut buffer = [0; 64];
    for number in 0..WARM_UP {
        client.send(&DATAGRAM)?;
        let (_, from) = server.recv_from(&mut buffer).context("warm up")?;
        // One answer shows the flow to conntrack, and is not enough to be learned.
        if mode != Mode::Learning || number == 0 {
            server.send_to(&DATAGRAM, from)?;
            client.recv(&mut buffer).context("warm up")?;
        }
    }
    server.set_nonblocking(true)?;
    Ok(Box::new(move || {
        let sent = Kind::Datagrams.units();
        let count = instructions(|| {
            for _ in 0..sent {
                client.send(&DATAGRAM)?;
            }
            Ok(())
        })?;
        let mut arrived = 0;
        while server.recv(&mut buffer).is_ok() {
            arrived += 1;
        }
        ensure!(arrived == sent, "{arrived} of {sent} datagrams arrived");
        Ok(count)
    }))
}

fn listen(ends: &Ends) -> Result<TcpListener> {
    let at = SocketAddr::from((Ipv4Addr::UNSPECIFIED, TARGET_PORT));
    ends.server.enter(|| Ok(TcpListener::bind(at)?)).with_context(|| format!("listen on {at}"))
}

/// Connects, from the namespace that this thread is in. The connection is there when this returns,
/// as nothing waits on the way.
fn connect(listener: &TcpListener, dialled: SocketAddr) -> Result<[TcpStream; 2]> {
    let client = TcpStream::connect(dialled)?;
    let (server, _) = listener.accept()?;
    for socket in [&client, &server] {
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
    }
    Ok([client, server])
}

fn stream(ends: &Ends) -> Result<Run> {
    let listener = listen(ends)?;
    let [mut client, mut server] = ends.client.enter(|| connect(&listener, ends.dialled))?;
    for _ in 0..WARM_UP {
        exchange(&mut client, &mut server)?;
    }
    client.set_nonblocking(true)?;
    server.set_nonblocking(true)?;
    let mut send = move |segments: usize| -> Result<i64> {
        let mut buffer = vec![0; SEGMENT.len() * BURST];
        let mut arrived = 0;
        let count = instructions(|| {
            for _ in 0..segments / BURST {
                for _ in 0..BURST {
                    let written = client.write(&SEGMENT).context("the window is full")?;
                    ensure!(written == SEGMENT.len(), "the window is full");
                }
                arrived += drain(&mut server, &mut buffer)?;
            }
            Ok(())
        })?;
        arrived += drain(&mut server, &mut buffer)?;
        let sent = segments * SEGMENT.len();
        ensure!(arrived == sent, "{arrived} of {sent} bytes arrived");
        Ok(count)
    };
    // The congestion window opens.
    send(256)?;
    Ok(Box::new(move || send(Kind::Stream.units() as usize)))
}

/// Reads what has arrived; returns how many bytes.
fn drain(from: &mut TcpStream, buffer: &mut [u8]) -> Result<usize> {
    let mut arrived = 0;
    loop {
        match from.read(buffer) {
            Ok(0) => bail!("the connection ended"),
            Ok(bytes) => arrived += bytes,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(arrived),
            Err(error) => return Err(error.into()),
        }
    }
}

/// A byte there, and a byte back.
fn exchange(client: &mut TcpStream, server: &mut TcpStream) -> Result<()> {
    let mut byte = [0];
    client.write_all(&[1])?;
    server.read_exact(&mut byte)?;
    server.write_all(&[2])?;
    client.read_exact(&mut byte)?;
    Ok(())
}

/// The thread that connects is in the client's namespace.
fn connections(ends: Ends) -> Result<Run> {
    let listener = listen(&ends)?;
    let Ends { client, dialled, .. } = ends;
    let one = move || -> Result<()> {
        let [mut client, mut server] = connect(&listener, dialled)?;
        exchange(&mut client, &mut server)
    };
    Ok(Box::new(move || {
        client.enter(|| {
            one()?;
            instructions(|| (0..Kind::Connections.units()).try_for_each(|_| one()))
        })
    }))
}
