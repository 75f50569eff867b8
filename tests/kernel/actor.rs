//! Small clients and servers, run in a peer's namespace as processes of this same binary: an
//! interpreter takes many seconds to start in an emulated guest.

use std::{
    io::{Read, Write},
    net::{IpAddr, TcpListener, TcpStream, UdpSocket},
    process::Command,
    time::Duration,
};

use anyhow::{Context, bail};

/// Environment variable that makes this process an actor: the words of an [`Actor`].
pub(crate) const ACTOR: &str = "PASSLANE_KERNEL_ACTOR";

const PATIENCE: Duration = Duration::from_secs(5);

/// What to do.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Actor {
    /// Answer every TCP connection to the port with the client's address.
    Mirror(u16),
    /// Connect by TCP and print what the server says, or `refused`.
    Dial(IpAddr, u16),
    /// Send a UDP datagram and print what comes back, or `refused`.
    Send(IpAddr, u16),
}

impl Actor {
    /// Makes `command`, which must start this binary, start it as this actor.
    pub(crate) fn direct(self, command: &mut Command) {
        command.env(
            ACTOR,
            match self {
                Self::Mirror(port) => format!("mirror 0.0.0.0 {port}"),
                Self::Dial(addr, port) => format!("dial {addr} {port}"),
                Self::Send(addr, port) => format!("send {addr} {port}"),
            },
        );
    }
}

/// Plays the actor that the words name.
pub(crate) fn play(words: &str) -> anyhow::Result<()> {
    let words: Vec<_> = words.split(' ').collect();
    let [verb, addr, port] = words.as_slice() else { bail!("unknown actor {words:?}") };
    let place = (addr.parse::<IpAddr>()?, port.parse::<u16>()?);
    let answer = match *verb {
        "mirror" => return mirror(place),
        "dial" => dial(place),
        "send" => send(place),
        _ => bail!("unknown actor {verb}"),
    };
    match answer {
        Ok(text) => println!("{text}"),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => println!("refused"),
        Err(error) => return Err(error).context(words.join(" ")),
    }
    Ok(())
}

fn mirror(place: (IpAddr, u16)) -> anyhow::Result<()> {
    let listener = TcpListener::bind(place)?;
    println!("ready");
    loop {
        let (mut stream, client) = listener.accept()?;
        // A client that is gone already is its own affair.
        let _ = stream.write_all(client.ip().to_string().as_bytes());
    }
}

/// Connects by TCP and returns what the server says.
pub(crate) fn dial(place: (IpAddr, u16)) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&place.into(), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

fn send(place: (IpAddr, u16)) -> std::io::Result<String> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(place)?;
    socket.send(b"x")?;
    let mut buffer = [0; 64];
    let len = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..len]).into_owned())
}
