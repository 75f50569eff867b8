//! Who is served, by whom, and as whom.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use proxy_tests::dns::{Resolver, ask_over_tcp};
use proxy_tests::http::{Connection, HttpServer, get_once};
use proxy_tests::objects::{DNS_FRONTEND, WEB_FRONTEND, WEB_NODE_PORT};
use proxy_tests::spread;
use proxy_tests::stage::Stage;
use proxy_tests::topology::NODE;

use crate::scenario::{AGENT, scenarios};

scenarios! { AGENT =>
    rr_spread_is_exact,
    udp_and_tcp_of_one_port_are_both_served,
    pod_keeps_its_address,
    nodeport_from_outside_is_masqueraded_and_fast,
    hairpin_reaches_the_pod_itself,
    host_process_reaches_a_vip,
    vip_port_without_service_is_refused_and_never_reaches_a_host_process,
}

const WEB_PODS: [&str; 3] = ["web-a", "web-b", "web-c"];

fn rr_spread_is_exact() -> Result<()> {
    let stage = Stage::start(&[])?;
    let spread = spread::of(stage.short_requests(WEB_FRONTEND, 30)?);
    ensure!(spread::is_even(&spread, &WEB_PODS, 10), "{spread:?}");
    Ok(())
}

fn udp_and_tcp_of_one_port_are_both_served() -> Result<()> {
    let stage = Stage::start(&[])?;
    let client = stage.client()?;
    let mut udp = Vec::new();
    let mut tcp = Vec::new();
    for _ in 0..20 {
        udp.push(Resolver::open(&client, DNS_FRONTEND)?.ask()?);
        tcp.push(ask_over_tcp(&client, DNS_FRONTEND)?);
    }
    for (protocol, answers) in [("UDP", udp), ("TCP", tcp)] {
        let spread = spread::of(answers);
        ensure!(spread::is_even(&spread, &["dns-a", "dns-b"], 10), "{protocol}: {spread:?}");
    }
    Ok(())
}

fn pod_keeps_its_address() -> Result<()> {
    let stage = Stage::start(&[])?;
    let mut connection = Connection::open(&stage.client()?, WEB_FRONTEND)?;
    let seen = connection.get("/source")?;
    ensure!(seen == connection.local()?.to_string(), "the backend saw {seen}");
    Ok(())
}

fn nodeport_from_outside_is_masqueraded_and_fast() -> Result<()> {
    let stage = Stage::start(&[])?;
    let frontend = SocketAddr::from((NODE, WEB_NODE_PORT));
    let mut connection = Connection::open(&stage.topology.outside, frontend)?;
    let seen: SocketAddr = connection.get("/source")?.parse()?;
    ensure!(seen.ip() == NODE, "the backend saw {seen}");
    let local = connection.local()?;
    let flow = stage.drive_to_fast_path(local, frontend, || connection.get("/").map(drop))?;
    ensure!(flow.interface == "eth0", "{flow:?}");
    ensure!(flow.new_source == seen, "the fast path says another source than {seen}: {flow:?}");
    ensure!(connection.get("/source")? == seen.to_string(), "the source changed on the fast path");
    Ok(())
}

fn hairpin_reaches_the_pod_itself() -> Result<()> {
    let stage = Stage::start(&[])?;
    let pod = stage.topology.pod("web-a")?;
    let mut to_itself = 0;
    for _ in 0..6 {
        let mut connection = Connection::open(&pod.namespace, WEB_FRONTEND)?;
        let backend = connection.get("/")?;
        let seen: SocketAddr = connection.get("/source")?.parse()?;
        if backend == pod.name {
            to_itself += 1;
            ensure!(seen.ip() != pod.address, "a pod cannot answer its own address");
            let local = connection.local()?;
            stage.drive_to_fast_path(local, WEB_FRONTEND, || connection.get("/").map(drop))?;
        } else {
            ensure!(seen == connection.local()?, "{backend} saw {seen}");
        }
    }
    ensure!(to_itself == 2, "{to_itself} of 6 connections came back");
    Ok(())
}

fn host_process_reaches_a_vip() -> Result<()> {
    let stage = Stage::start(&[])?;
    let node = &stage.topology.node;
    let mut answers = Vec::new();
    for _ in 0..6 {
        answers.push(get_once(node, WEB_FRONTEND, "/")?);
    }
    let spread = spread::of(answers);
    ensure!(spread::is_even(&spread, &WEB_PODS, 2), "{spread:?}");
    let seen: SocketAddr = get_once(node, WEB_FRONTEND, "/source")?.parse()?;
    ensure!(seen.ip() != WEB_FRONTEND.ip(), "the backend saw the VIP as source: it cannot answer");
    Ok(())
}

fn vip_port_without_service_is_refused_and_never_reaches_a_host_process() -> Result<()> {
    const PORT: u16 = 8081;
    let stage = Stage::start(&[])?;
    let any = SocketAddr::from(([0, 0, 0, 0], PORT));
    let host = HttpServer::start(&stage.topology.node, any, "host process")?;
    let client = stage.client()?;
    let on_node = SocketAddr::from((NODE, PORT));
    ensure!(get_once(&client, on_node, "/")? == "host process", "it listens, but not on the VIP");

    let vip = SocketAddr::new(WEB_FRONTEND.ip(), PORT);
    let error =
        client.enter(|| match TcpStream::connect_timeout(&vip, Duration::from_secs(5)) {
            Ok(_) => bail!("{vip} accepted a connection"),
            Err(error) => Ok(error),
        })?;
    ensure!(error.kind() == ErrorKind::ConnectionRefused, "{vip}: {error}");
    ensure!(host.accepted() == 1, "a host process was reached through a VIP");
    ensure!(udp_is_refused(&stage, vip)?, "UDP to {vip} is neither answered nor refused");
    Ok(())
}

/// Whether a datagram to `address` comes back as ICMP port unreachable.
fn udp_is_refused(stage: &Stage, address: SocketAddr) -> Result<bool> {
    let socket = stage.client()?.enter(|| {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect(address)?;
        Ok(socket)
    })?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    socket.send(b"anybody?").context("send")?;
    let answer = socket.recv(&mut [0; 16]);
    Ok(answer.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused))
}
