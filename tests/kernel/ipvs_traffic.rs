//! IPVS under traffic: connections and counters, and edits that must not disturb.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, ensure};
use proxy_userspace::{
    kernel::{
        ipvs::{Client, connections},
        link::Links,
        nft::Table,
        route::Routes,
        sysctl::{self, Key},
    },
    model::{Element, Protocol, RuleOptions, Scheduler},
};

use crate::{
    Case,
    actor::{Actor, dial},
    ipvs::{destination, frontend, virtual_server},
    namespace::{Peer, Program, sh, start},
    needs::Need,
};

pub(crate) fn cases() -> Vec<Case> {
    crate::cases![
        &[Need::Root, Need::Ipvs, Need::Ipvsadm, Need::Nft];
        a_connection_is_listed_and_counted,
        a_host_process_reaches_a_vip_and_its_other_ports_are_refused,
        putting_an_unchanged_virtual_server_refuses_no_connection,
        a_node_port_is_masqueraded_by_its_original_tuple,
    ]
}

const VIP: [u8; 4] = [10, 96, 0, 1];

struct Stage {
    client: Client,
    backend: Peer,
    _server: Program,
}

/// A backend 10.1.0.5:8080 behind a veth, and 10.96.0.1:80/TCP that leads to it.
async fn stage() -> anyhow::Result<Stage> {
    sh("ip link set lo up; echo 1 > /proc/sys/net/ipv4/ip_forward")?;
    let backend = Peer::join("pod1", "10.1.0.1", "10.1.0.5")?;
    let server = backend.start(Actor::Mirror(8080))?;
    let client = Client::open().await?;
    sysctl::write(&Key::dotted("net.ipv4.vs.conntrack"), "1")?;
    let dummy = Links::open()?.put_dummy("kube-ipvs0").await?;
    Routes::open()?.put_vips(dummy.index, &[VIP.into()]).await?;
    let node_port = frontend("172.18.0.2", 30080, Protocol::Tcp)?;
    let elements = [
        Element::Vip(VIP.into()),
        Element::Masquerade(node_port),
        Element::Hairpin([10, 1, 0, 5].into()),
    ];
    Table::open().await?.install(&RuleOptions::default(), &elements.into()).await?;
    for (addr, port) in [("10.96.0.1", 80), ("172.18.0.2", 30080)] {
        let web = frontend(addr, port, Protocol::Tcp)?;
        client.put_virtual_server(&virtual_server(web, Scheduler::Rr)).await?;
        client.put_destination(&web, &destination("10.1.0.5", 8080, 1)?).await?;
    }
    Ok(Stage { client, backend, _server: server })
}

async fn a_connection_is_listed_and_counted() -> anyhow::Result<()> {
    let stage = stage().await?;
    dial((VIP.into(), 80))?;
    let web = frontend("10.96.0.1", 80, Protocol::Tcp)?;
    let connections = connections::read()?;
    let [connection] = connections.as_slice() else { anyhow::bail!("{connections:?}") };
    ensure!(connection.frontend == web && connection.client_addr == IpAddr::from(VIP));
    ensure!(connection.destination.to_string() == "10.1.0.5:8080");
    ensure!(connection.expires_secs <= 120, "{connection:?}");
    let printed = sh("ipvsadm -Lcn")?;
    let line = printed.lines().find(|line| line.starts_with("TCP")).context("nothing listed")?;
    ensure!(line.contains(&connection.state), "{line}: {connection:?}");
    // The estimator writes the counters every 2 s.
    let mut seen = 0;
    for _ in 0..50 {
        let states = stage.client.destinations(&web).await?;
        seen = states[0].stats.connections;
        if seen == 1 && states[0].stats.in_bytes > 0 {
            ensure!(states[0].active_connections + states[0].inactive_connections == 1);
            ensure!(
                stage.client.virtual_server(&web).await?.context("none")?.stats.connections == 1
            );
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    anyhow::bail!("{seen} connections counted")
}

async fn a_host_process_reaches_a_vip_and_its_other_ports_are_refused() -> anyhow::Result<()> {
    let stage = stage().await?;
    let _host = start(Actor::Mirror(22))?;
    let seen = dial((VIP.into(), 80))?;
    ensure!(seen == "10.1.0.1", "the backend saw {seen}");
    let refused = stage.backend.play(Actor::Dial(VIP.into(), 22))?;
    ensure!(refused == "refused");
    // A pod that dials the VIP and is sent to itself.
    let seen = stage.backend.play(Actor::Dial(VIP.into(), 80))?;
    ensure!(seen == "10.1.0.1", "hairpin: the backend saw {seen}");
    Ok(())
}

async fn putting_an_unchanged_virtual_server_refuses_no_connection() -> anyhow::Result<()> {
    let stage = stage().await?;
    let (stop, dialled) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let dialler = {
        let (stop, dialled) = (stop.clone(), dialled.clone());
        std::thread::spawn(move || -> std::io::Result<()> {
            while !stop.load(Ordering::Relaxed) {
                dial((VIP.into(), 80))?;
                dialled.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        })
    };
    let web = frontend("10.96.0.1", 80, Protocol::Tcp)?;
    let mut puts = 0;
    while dialled.load(Ordering::Relaxed) < 100 && !dialler.is_finished() {
        stage.client.put_virtual_server(&virtual_server(web, Scheduler::Rr)).await?;
        stage.client.put_destination(&web, &destination("10.1.0.5", 8080, 1)?).await?;
        puts += 1;
    }
    stop.store(true, Ordering::Relaxed);
    let outcome = dialler.join().map_err(|_| anyhow::anyhow!("the dialler panicked"))?;
    outcome.with_context(|| format!("refused after {puts} puts"))?;
    println!("{} connections during {puts} puts", dialled.load(Ordering::Relaxed));
    Ok(())
}

async fn a_node_port_is_masqueraded_by_its_original_tuple() -> anyhow::Result<()> {
    let _stage = stage().await?;
    let client = Peer::join("client", "172.18.0.2", "172.18.0.9")?;
    let seen = client.play(Actor::Dial([172, 18, 0, 2].into(), 30080))?;
    ensure!(seen == "10.1.0.1", "the backend saw {seen}");
    // The VIP from the same client is not a NodePort: its source stays.
    let seen = client.play(Actor::Dial(VIP.into(), 80))?;
    ensure!(seen == "172.18.0.9", "the backend saw {seen}");
    Ok(())
}
