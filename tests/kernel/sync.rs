//! Connections by the sync protocol, and what IPVS does with packets of flows that it never saw begin.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use proxy_userspace::{
    apply::sync_daemon,
    kernel::ipvs::{
        connections::{self, Connection},
        sync::{
            Backup, Daemon, DaemonState, Removal, SyncSender, SyncState, SyncedConnection,
            message::{self, Message},
        },
    },
    ledger::Ledger,
    model::{DestinationKey, Forwarding, Frontend, Protocol, Tunnel},
};
use rustix::net::sockopt;

use crate::{
    Case,
    gateway::{Gateway, Net, Shape, backend_of, frame, hex, set, too_big},
    namespace::{Peer, sh, wait_for},
    needs::Need,
};

pub(crate) fn cases() -> Vec<Case> {
    crate::cases![
        &[Need::Root, Need::Ipvs, Need::Ipvsadm];
        a_sent_connection_carries_its_flow_against_the_table_of_mh,
        a_later_message_renews_a_connection_or_moves_it,
        connections_are_heard_by_the_own_node_on_any_interface,
        connections_are_heard_by_a_second_gateway,
        a_connection_to_an_absent_destination_goes_its_way_with_dr_alone_until_it_is_said_again,
        connections_are_described_as_a_master_describes_them,
        a_backup_of_somebody_else_is_neither_replaced_nor_removed,
        a_backup_of_ours_is_in_the_ledger_until_it_goes,
        a_backup_that_goes_before_it_ran_is_gone,
        sloppy_tcp_lets_mh_take_a_connection_in_mid_stream,
        schedule_icmp_sends_errors_about_unknown_connections_to_the_backend_of_mh,
    ]
}

const ID: u8 = 77;
const PORT: u16 = 53;

fn frontend(net: Net, protocol: Protocol) -> Frontend {
    Frontend { addr: net.vip(), port: PORT, protocol }
}

fn synced(
    client: SocketAddr,
    protocol: Protocol,
    forwarding: Forwarding,
    to: u8,
) -> SyncedConnection {
    let net = if client.is_ipv4() { Net::V4 } else { Net::V6 };
    let state = if protocol == Protocol::Tcp { SyncState::Established } else { SyncState::Udp };
    SyncedConnection {
        frontend: frontend(net, protocol),
        client,
        destination: DestinationKey { addr: net.backend(to), port: PORT },
        forwarding,
        state,
        timeout: Duration::from_secs(200),
    }
}

/// Returns the connection of a client, if there is one.
fn listed(of: &SyncedConnection) -> Result<Option<Connection>> {
    let ours = |each: &Connection| {
        SocketAddr::new(each.client_addr, each.client_port) == of.client
            && each.frontend == of.frontend
    };
    Ok(connections::read()?.into_iter().find(ours))
}

/// Returns how many connections a client has to a frontend.
fn count(client: SocketAddr, frontend: Frontend) -> Result<usize> {
    let ours = |each: &Connection| {
        SocketAddr::new(each.client_addr, each.client_port) == client && each.frontend == frontend
    };
    Ok(connections::read()?.iter().filter(|each| ours(each)).count())
}

/// Waits until a connection leads where it shall.
fn wait_until_listed(connection: &SyncedConnection) -> Result<Connection> {
    let leads = || {
        let found = listed(connection)?;
        Ok(found.is_some_and(|found| found.destination == connection.destination))
    };
    wait_for("the connection", leads)
        .with_context(|| format!("{connection:?}: {:?}", connections::read()))?;
    listed(connection)?.context("gone again")
}

async fn a_sent_connection_carries_its_flow_against_the_table_of_mh() -> Result<()> {
    let mut gateway = Gateway::open().await?;
    ensure!(gateway.ipvs.put_backup("lo", ID).await? == Backup::Started);
    let sender = SyncSender::open("lo", ID, 1)?;
    for forwarding in [Forwarding::Route, Forwarding::Tunnel(Tunnel::Ipip)] {
        for (net, protocol) in flows() {
            let frontend = frontend(net, protocol);
            let backends = [net.backend(5), net.backend(6)];
            gateway.serve(frontend, forwarding, &backends).await?;
            // A table by addresses alone: another port of the client tells what it says.
            let other = gateway.client(net)?;
            let named = backend_of(&gateway.pass(&frame(other, frontend, Shape::PLAIN)?)?)?;
            let connection = synced(gateway.client(net)?, protocol, forwarding, 11 - named);
            sender.send(&[connection])?;
            let found = wait_until_listed(&connection)?;
            let state = if protocol == Protocol::Tcp { "ESTABLISHED" } else { "UDP" };
            ensure!(found.state == state && (190..=200).contains(&found.expires_secs), "{found:?}");
            let out = gateway.pass(&frame(connection.client, frontend, Shape::PLAIN)?)?;
            ensure!(
                backend_of(&out)? == 11 - named,
                "{forwarding:?} {connection:?}: {}",
                hex(&out)
            );
            let carried = listed(&connection)?.context("gone")?;
            ensure!(carried.state == state && carried.expires_secs > 200, "{carried:?}");
            gateway.ipvs.remove_virtual_server(&frontend).await?;
        }
    }
    Ok(())
}

fn flows() -> impl Iterator<Item = (Net, Protocol)> {
    let of = |net| [Protocol::Tcp, Protocol::Udp].map(|protocol| (net, protocol));
    Net::ALL.into_iter().flat_map(of)
}

async fn a_later_message_renews_a_connection_or_moves_it() -> Result<()> {
    let mut gateway = Gateway::open().await?;
    gateway.ipvs.put_backup("lo", ID).await?;
    let sender = SyncSender::open("lo", ID, 1)?;
    let forwarding = Forwarding::Route;
    for (net, protocol) in flows() {
        let backends = [net.backend(5), net.backend(6)];
        gateway.serve(frontend(net, protocol), forwarding, &backends).await?;
        let client = gateway.client(net)?;
        let first = synced(client, protocol, forwarding, 5);
        let brief = SyncedConnection { timeout: Duration::from_secs(60), ..first };
        sender.send(&[brief])?;
        ensure!(wait_until_listed(&brief)?.expires_secs <= 60);
        sender.send(&[first])?;
        let renewed = || Ok(listed(&first)?.is_some_and(|found| found.expires_secs > 100));
        wait_for("the renewed connection", renewed)?;
        sender.send(&[synced(client, protocol, forwarding, 6)])?;
        wait_until_listed(&synced(client, protocol, forwarding, 6))?;
        wait_for("the end of the old one", || Ok(count(client, frontend(net, protocol))? == 1))?;
        let mut counts = BTreeMap::new();
        for state in gateway.ipvs.destinations(&frontend(net, protocol)).await? {
            let count = (state.active_connections, state.inactive_connections);
            counts.insert(state.destination.key.addr, count);
        }
        let active = u32::from(protocol == Protocol::Tcp);
        let expected = [(net.backend(5), (0, 0)), (net.backend(6), (active, 1 - active))];
        ensure!(counts == expected.into(), "{net:?} {protocol:?}: {counts:?}");
    }
    Ok(())
}

async fn connections_are_heard_by_the_own_node_on_any_interface() -> Result<()> {
    let mut gateway = Gateway::open().await?;
    sh("ip link add vips type dummy
        ip link set vips addrgenmode none
        ip link set vips up")?;
    let (net, protocol, forwarding) = (Net::V4, Protocol::Udp, Forwarding::Route);
    gateway.serve(frontend(net, protocol), forwarding, &[net.backend(5)]).await?;
    for interface in ["lo", "vips", "front"] {
        gateway.ipvs.put_backup(interface, ID).await?;
        let connection = synced(gateway.client(net)?, protocol, forwarding, 5);
        SyncSender::open(interface, ID, 1)?.send(&[connection])?;
        wait_until_listed(&connection).with_context(|| interface.to_owned())?;
        // What has another id is for others.
        let foreign = synced(gateway.client(net)?, protocol, forwarding, 5);
        SyncSender::open(interface, ID + 1, 1)?.send(&[foreign])?;
        let last = synced(gateway.client(net)?, protocol, forwarding, 5);
        SyncSender::open(interface, ID, 1)?.send(&[last])?;
        wait_until_listed(&last)?;
        ensure!(listed(&foreign)?.is_none(), "{interface}: a message with another id was taken");
        ensure!(gateway.ipvs.remove_backup(interface, ID).await? == Removal::Gone);
    }
    Ok(())
}

async fn connections_are_heard_by_a_second_gateway() -> Result<()> {
    let peer = Peer::join("router", "172.18.0.1", "172.18.0.2")?;
    peer.sh(&format!(
        "ipvsadm -A -u 203.0.113.1:{PORT} -s mh
         ipvsadm -a -u 203.0.113.1:{PORT} -r 172.18.0.7:{PORT} -g
         ipvsadm --start-daemon backup --mcast-interface eth0 --syncid {ID}"
    ))?;
    sh("ip link set lo up")?;
    let connection = SyncedConnection {
        destination: DestinationKey { addr: [172, 18, 0, 7].into(), port: PORT },
        ..synced("198.51.100.9:40000".parse()?, Protocol::Udp, Forwarding::Route, 5)
    };
    SyncSender::open("router", ID, 1)?.send(&[connection])?;
    wait_for("the connection on the other gateway", || {
        let found = connections::parse(&peer.sh("cat /proc/net/ip_vs_conn")?)?;
        Ok(found.iter().any(|each| {
            each.frontend == connection.frontend && each.destination == connection.destination
        }))
    })
}

async fn a_connection_to_an_absent_destination_goes_its_way_with_dr_alone_until_it_is_said_again()
-> Result<()> {
    let mut gateway = Gateway::open().await?;
    gateway.ipvs.put_backup("lo", ID).await?;
    let sender = SyncSender::open("lo", ID, 1)?;
    for (net, protocol) in flows() {
        let frontend = frontend(net, protocol);
        gateway.serve(frontend, Forwarding::Route, &[net.backend(5)]).await?;
        let mut pending = Vec::new();
        for forwarding in [Forwarding::Route, Forwarding::Tunnel(Tunnel::Ipip)] {
            let client = gateway.client(net)?;
            let connection = synced(client, protocol, forwarding, 6);
            sender.send(&[connection])?;
            wait_until_listed(&connection)?;
            gateway.send(&frame(client, frontend, Shape::PLAIN)?)?;
            let out = gateway.at_backend()?.map(|out| backend_of(&out)).transpose()?;
            let expected = (forwarding == Forwarding::Route).then_some(6);
            ensure!(out == expected, "{connection:?}: {out:?}");
            pending.push(connection);
        }
        // Said again when the destination is there, it is as if it had been there before.
        gateway.serve(frontend, Forwarding::Route, &[net.backend(6)]).await?;
        sender.send(&pending)?;
        let last = synced(gateway.client(net)?, protocol, Forwarding::Route, 6);
        sender.send(&[last])?;
        wait_until_listed(&last)?;
        for connection in pending {
            let out = gateway.pass(&frame(connection.client, frontend, Shape::PLAIN)?)?;
            ensure!(backend_of(&out)? == 6, "{connection:?}: {}", hex(&out));
        }
    }
    Ok(())
}

async fn connections_are_described_as_a_master_describes_them() -> Result<()> {
    let mut gateway = Gateway::open().await?;
    // Every packet of a connection is told.
    sh("sysctl -qw 'net.ipv4.vs.sync_threshold=0 1' net.ipv4.vs.sync_refresh_period=0
        ipvsadm --start-daemon master --mcast-interface lo --syncid 77")?;
    let daemon = Daemon { state: DaemonState::Master, interface: "lo".into(), id: ID.into() };
    ensure!(gateway.ipvs.daemons().await? == [daemon]);
    let ear = UdpSocket::bind(("224.0.0.81", 8848))?;
    let group = "224.0.0.81".parse()?;
    sockopt::set_ip_add_membership_with_ifindex(&ear, &group, &[0, 0, 0, 0].into(), 1)?;
    ear.set_read_timeout(Some(Duration::from_secs(10)))?;
    let methods =
        [Forwarding::Route, Forwarding::Tunnel(Tunnel::Ipip), Forwarding::Tunnel(Tunnel::Gre)];
    for forwarding in methods {
        for (net, protocol) in flows() {
            let frontend = frontend(net, protocol);
            gateway.serve(frontend, forwarding, &[net.backend(5)]).await?;
            let sent = synced(gateway.client(net)?, protocol, forwarding, 5);
            gateway.pass(&frame(sent.client, frontend, Shape::PLAIN)?)?;
            gateway.pass(&frame(sent.client, frontend, Shape::PLAIN)?)?;
            let mut bytes = [0; 2000];
            let length = ear.recv(&mut bytes).context("the master said nothing")?;
            let bytes = &bytes[..length];
            println!("{forwarding:?} {net:?} {protocol:?}: {}", hex(bytes));
            let message = Message::decode(bytes)?;
            ensure!(message::encode(message.id, &message.entries)? == [bytes], "{message:?}");
            let entry = message.entries.first().context("no entry")?;
            let timeout = Duration::from_secs(entry.timeout_secs.into());
            let ours = SyncSender::describe(ID, &[SyncedConnection { timeout, ..sent }])?;
            let ours = Message::decode(ours.first().context("no message")?)?;
            ensure!(ours.entries.last() == Some(entry), "{ours:?}, not {message:?}");
            gateway.ipvs.remove_virtual_server(&frontend).await?;
        }
    }
    Ok(())
}

async fn a_backup_of_somebody_else_is_neither_replaced_nor_removed() -> Result<()> {
    let gateway = Gateway::open().await?;
    let foreign = Daemon { state: DaemonState::Backup, interface: "front".into(), id: 3 };
    sh("ipvsadm --start-daemon backup --mcast-interface front --syncid 3")?;
    let before = gateway.ipvs.daemons().await?;
    ensure!(before == [foreign.clone()], "{before:?}");
    for (interface, id) in [("lo", 3), ("front", 4)] {
        let put = gateway.ipvs.put_backup(interface, id).await?;
        ensure!(put == Backup::Foreign(foreign.clone()), "{put:?}");
        let removal = gateway.ipvs.remove_backup(interface, id).await?;
        ensure!(removal == Removal::Foreign(foreign.clone()), "{removal:?}");
    }
    ensure!(gateway.ipvs.daemons().await? == before);
    ensure!(sh("ipvsadm -L --daemon")?.contains("backup sync daemon (mcast=front, syncid=3"));
    Ok(())
}

async fn a_backup_of_ours_is_in_the_ledger_until_it_goes() -> Result<()> {
    let gateway = Gateway::open().await?;
    let directory = tempfile::tempdir()?;
    let mut ledger = Ledger::open(directory.path())?;
    let ipvs = &gateway.ipvs;
    ensure!(sync_daemon::put(&mut ledger, ipvs, "lo", ID).await? == Backup::Started);
    ensure!(sync_daemon::put(&mut ledger, ipvs, "lo", ID).await? == Backup::Present);
    ensure!(ledger.owned().sync_daemons == [("lo".to_owned(), ID)].into());
    // Another interface: ours makes room.
    ensure!(sync_daemon::put(&mut ledger, ipvs, "front", ID).await? == Backup::Started);
    ensure!(ledger.owned().sync_daemons == [("front".to_owned(), ID)].into());
    ensure!(sync_daemon::remove(&mut ledger, ipvs).await? == [Removal::Gone]);
    ensure!(ledger.owned().is_empty() && ipvs.daemons().await?.is_empty());
    let Err(error) = sync_daemon::put(&mut ledger, ipvs, "none", ID).await else {
        anyhow::bail!("started on no interface")
    };
    ensure!(error.to_string().contains("there is no such interface"), "{error}");
    ensure!(ledger.owned().is_empty());
    // One that fits serves, and is somebody else's.
    sh("ipvsadm --start-daemon backup --mcast-interface lo --syncid 77")?;
    ensure!(sync_daemon::put(&mut ledger, ipvs, "lo", ID).await? == Backup::Present);
    ensure!(sync_daemon::remove(&mut ledger, ipvs).await?.is_empty());
    ensure!(ledger.owned().is_empty() && ipvs.daemons().await?.len() == 1);
    Ok(())
}

/// The kernel answers nothing then.
async fn a_backup_that_goes_before_it_ran_is_gone() -> Result<()> {
    let gateway = Gateway::open().await?;
    for _ in 0..100 {
        ensure!(gateway.ipvs.put_backup("lo", ID).await? == Backup::Started);
        ensure!(gateway.ipvs.remove_backup("lo", ID).await? == Removal::Gone);
        ensure!(gateway.ipvs.remove_backup("lo", ID).await? == Removal::Absent);
    }
    ensure!(gateway.ipvs.daemons().await?.is_empty());
    Ok(())
}

async fn sloppy_tcp_lets_mh_take_a_connection_in_mid_stream() -> Result<()> {
    const RST: u8 = 4;
    let mut gateway = Gateway::open().await?;
    for net in Net::ALL {
        let frontend = frontend(net, Protocol::Tcp);
        let backends = [net.backend(5), net.backend(6)];
        gateway.serve(frontend, Forwarding::Route, &backends).await?;
        let client = |port| SocketAddr::new(net.client(), port);
        let named = backend_of(&gateway.pass(&frame(client(1000), frontend, Shape::PLAIN)?)?)?;
        for port in 1001..1020 {
            let out = gateway.pass(&frame(client(port), frontend, Shape::PLAIN)?)?;
            ensure!(backend_of(&out)? == named, "port {port}");
        }
        ensure!(gateway.at_client()?.is_none(), "a client was answered");
        set("sloppy_tcp", 0)?;
        gateway.send(&frame(client(2000), frontend, Shape::PLAIN)?)?;
        ensure!(gateway.at_backend()?.is_none(), "scheduled without sloppy_tcp");
        let answer = gateway.at_client()?.context("no answer")?;
        let flags = answer[if net == Net::V4 { 14 + 20 } else { 14 + 40 } + 13];
        ensure!(flags & RST != 0, "{}", hex(&answer));
        // What is known goes on.
        let out = gateway.pass(&frame(client(1000), frontend, Shape::PLAIN)?)?;
        ensure!(backend_of(&out)? == named);
        set("sloppy_tcp", 1)?;
    }
    Ok(())
}

async fn schedule_icmp_sends_errors_about_unknown_connections_to_the_backend_of_mh() -> Result<()> {
    let mut gateway = Gateway::open().await?;
    let methods = [Forwarding::Route, Forwarding::Tunnel(Tunnel::Ipip)];
    for forwarding in methods {
        for (net, protocol) in flows() {
            let served = frontend(net, protocol);
            gateway.serve(served, forwarding, &[net.backend(5), net.backend(6)]).await?;
            let client = gateway.client(net)?;
            let named = backend_of(&gateway.pass(&frame(client, served, Shape::PLAIN)?)?)?;
            // About an answer of the backend, which went from the VIP to the client.
            let to = Frontend { addr: client.ip(), port: gateway.client(net)?.port(), protocol };
            let from = SocketAddr::new(served.addr, served.port);
            let answer = frame(from, to, Shape { payload: 20, ..Shape::PLAIN })?;
            let error = too_big(served.addr, &answer[14..])?;
            let out = gateway.pass(&error)?;
            ensure!(backend_of(&out)? == named, "{forwarding:?} {net:?} {protocol:?}");
            set("schedule_icmp", 0)?;
            let to = Frontend { port: gateway.client(net)?.port(), ..to };
            let answer = frame(from, to, Shape { payload: 20, ..Shape::PLAIN })?;
            gateway.send(&too_big(served.addr, &answer[14..])?)?;
            ensure!(gateway.at_backend()?.is_none(), "scheduled without schedule_icmp");
            set("schedule_icmp", 1)?;
            gateway.ipvs.remove_virtual_server(&served).await?;
        }
    }
    Ok(())
}
