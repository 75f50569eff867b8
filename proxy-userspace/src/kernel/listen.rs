//! Listening sockets of the agent's own servers.

use std::net::{SocketAddr, TcpListener};

use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt},
};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 128;

/// Listens for TCP without blocking. `[::]` takes IPv4 as well, whatever the sysctl
/// `net.ipv6.bindv6only` says, and is `0.0.0.0` on a kernel without IPv6.
pub fn tcp(addr: SocketAddr) -> Result<TcpListener, Errno> {
    match try_tcp(addr) {
        Err(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL) if is_any6(addr) => {
            try_tcp(SocketAddr::new([0, 0, 0, 0].into(), addr.port()))
        }
        result => result,
    }
}

fn try_tcp(addr: SocketAddr) -> Result<TcpListener, Errno> {
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    // Connections of an agent that ended a moment ago may still linger.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if addr.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, !is_any6(addr))?;
    }
    bind(&socket, &addr)?;
    listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

fn is_any6(addr: SocketAddr) -> bool {
    addr.is_ipv6() && addr.ip().is_unspecified()
}
