//! IPVS, with ipvsadm as the second opinion.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Instant,
};

use anyhow::{Context, ensure};
use proxy_userspace::{
    kernel::ipvs::{Client, Command, Error, Hint, Timeouts},
    model::{
        Destination, DestinationKey, Forwarding, Frontend, Protocol, Scheduler, SchedulerFlags,
        Thresholds, Tunnel, VirtualServer,
    },
};

use crate::{Case, namespace::sh, needs::Need};

pub(crate) fn cases() -> Vec<Case> {
    crate::cases![
        &[Need::Root, Need::Ipvs, Need::Ipvsadm];
        what_is_put_is_what_ipvsadm_prints,
        what_ipvsadm_makes_is_what_is_read,
        ipv6_is_put_and_read,
        forwarding_methods_are_put_and_read,
        putting_and_removing_twice_succeeds,
        a_put_edits_what_is_there,
        firewall_mark_virtual_servers_are_skipped,
        destinations_come_newest_first,
        an_unroutable_destination_is_explained,
        a_destination_without_its_virtual_server_is_explained,
        a_batch_keeps_its_order_and_reports_each_failure,
        thousands_of_commands_take_few_round_trips,
        timeouts_are_set_and_read,
        version_and_table_size_are_those_of_ipvsadm,
        namespaces_do_not_see_each_other,
    ]
}

/// ip_vs refuses destinations that have no route.
const ROUTES: &str = "ip link set lo up
    ip link add v0 type veth peer name v1
    ip link set v0 up
    ip link set v1 up
    ip addr add 10.1.0.1/16 dev v0
    ip addr add fd00:1::1/64 dev v0 nodad
    ip route add default dev v0";

pub(crate) fn frontend(addr: &str, port: u16, protocol: Protocol) -> anyhow::Result<Frontend> {
    Ok(Frontend { addr: addr.parse()?, port, protocol })
}

pub(crate) fn virtual_server(frontend: Frontend, scheduler: Scheduler) -> VirtualServer {
    VirtualServer { frontend, scheduler, flags: SchedulerFlags(0), persistent_secs: 0 }
}

pub(crate) fn destination(addr: &str, port: u16, weight: u32) -> anyhow::Result<Destination> {
    let key = DestinationKey { addr: addr.parse()?, port };
    Ok(Destination { limits: Default::default(), key, weight, forwarding: Forwarding::Masq })
}

fn saved() -> anyhow::Result<String> {
    sh("ipvsadm -Sn")
}

async fn what_is_put_is_what_ipvsadm_prints() -> anyhow::Result<()> {
    sh(ROUTES)?;
    let client = Client::open().await?;
    let web = frontend("10.96.0.1", 443, Protocol::Tcp)?;
    client
        .put_virtual_server(&VirtualServer {
            scheduler: Scheduler::Mh,
            flags: SchedulerFlags(0x18),
            persistent_secs: 10800,
            ..virtual_server(web, Scheduler::Mh)
        })
        .await?;
    client.put_destination(&web, &destination("10.1.0.5", 6443, 1)?).await?;
    client.put_destination(&web, &destination("10.1.0.6", 6443, 0)?).await?;
    let dns = frontend("10.96.0.10", 53, Protocol::Udp)?;
    client.put_virtual_server(&virtual_server(dns, Scheduler::Wrr)).await?;
    let route = Destination { forwarding: Forwarding::Route, ..destination("10.1.0.7", 53, 7)? };
    client.put_destination(&dns, &route).await?;
    let saved = saved()?;
    ensure!(
        saved
            == "-A -t 10.96.0.1:443 -s mh -p 10800 -b mh-fallback,mh-port\n\
                -a -t 10.96.0.1:443 -r 10.1.0.5:6443 -m -w 1\n\
                -a -t 10.96.0.1:443 -r 10.1.0.6:6443 -m -w 0\n\
                -A -u 10.96.0.10:53 -s wrr\n\
                -a -u 10.96.0.10:53 -r 10.1.0.7:53 -g -w 7\n",
        "{saved}"
    );
    Ok(())
}

async fn what_ipvsadm_makes_is_what_is_read() -> anyhow::Result<()> {
    sh(ROUTES)?;
    sh("ipvsadm -A -t 10.96.0.1:80 -s sh -b sh-port -p 360
        ipvsadm -a -t 10.96.0.1:80 -r 10.1.0.5:8080 -m -w 3 -x 100 -y 50
        ipvsadm -a -t 10.96.0.1:80 -r 10.1.0.6:8080 -i
        ipvsadm -A -u 10.96.0.1:80 -s rr -o
        ipvsadm -A --sctp-service 10.96.0.1:80 -s lblcr")?;
    let client = Client::open().await?;
    let mut states = client.virtual_servers().await?;
    states.sort_by_key(|state| state.virtual_server.frontend);
    let web = frontend("10.96.0.1", 80, Protocol::Tcp)?;
    ensure!(
        states[0].virtual_server
            == VirtualServer {
                flags: SchedulerFlags(0x10),
                persistent_secs: 360,
                ..virtual_server(web, Scheduler::Sh)
            },
        "{states:?}"
    );
    ensure!(states[1].virtual_server.scheduler == Scheduler::Rr && states[1].flags & 4 == 4);
    ensure!(states[2].virtual_server.scheduler == Scheduler::Lblcr && states.len() == 3);
    let destinations = client.destinations(&web).await?;
    ensure!(destinations.len() == 2, "{destinations:?}");
    ensure!(
        destinations[0].destination.forwarding == Forwarding::Tunnel(Tunnel::Ipip),
        "{destinations:?}"
    );
    let limits = Thresholds { upper: 100, lower: 50 };
    let limited = Destination { limits, ..destination("10.1.0.5", 8080, 3)? };
    ensure!(destinations[1].destination == limited, "{destinations:?}");
    ensure!(client.virtual_server(&web).await?.as_ref() == Some(&states[0]));
    Ok(())
}

async fn ipv6_is_put_and_read() -> anyhow::Result<()> {
    sh(ROUTES)?;
    let client = Client::open().await?;
    let web = frontend("fd00:96::1", 443, Protocol::Tcp)?;
    let vs = VirtualServer { persistent_secs: 60, ..virtual_server(web, Scheduler::Rr) };
    client.put_virtual_server(&vs).await?;
    client.put_destination(&web, &destination("fd00:1::5", 6443, 1)?).await?;
    let saved = saved()?;
    ensure!(
        saved
            == "-A -t [fd00:96::1]:443 -s rr -p 60\n\
                -a -t [fd00:96::1]:443 -r [fd00:1::5]:6443 -m -w 1\n",
        "{saved}"
    );
    ensure!(client.virtual_servers().await?[0].virtual_server == vs);
    ensure!(client.destinations(&web).await?[0].destination == destination("fd00:1::5", 6443, 1)?);
    client.remove_destination(&web, &destination("fd00:1::5", 6443, 1)?.key).await?;
    client.remove_virtual_server(&web).await?;
    ensure!(client.virtual_servers().await?.is_empty());
    Ok(())
}

/// `ipvsadm -Ln` says `Tunnel` of every kind: that is read back from the kernel.
async fn forwarding_methods_are_put_and_read() -> anyhow::Result<()> {
    sh(ROUTES)?;
    let client = Client::open().await?;
    let web = frontend("10.96.0.1", 80, Protocol::Tcp)?;
    client.put_virtual_server(&virtual_server(web, Scheduler::Rr)).await?;
    let ways = [
        Forwarding::Masq,
        Forwarding::Route,
        Forwarding::Tunnel(Tunnel::Ipip),
        Forwarding::Tunnel(Tunnel::Gue { port: 6080 }),
        Forwarding::Tunnel(Tunnel::Gre),
    ];
    let put = async |shift: usize| -> anyhow::Result<()> {
        for (index, forwarding) in ways.iter().cycle().skip(shift).take(ways.len()).enumerate() {
            let last = index + 5;
            let key = destination(&format!("10.1.0.{last}"), 80, 1)?;
            let wanted = Destination { forwarding: *forwarding, ..key };
            client.put_destination(&web, &wanted).await?;
            let held = client.destinations(&web).await?;
            ensure!(held.iter().any(|state| state.destination == wanted), "{wanted:?}: {held:?}");
        }
        Ok(())
    };
    put(0).await?;
    let list = sh("ipvsadm -Ln")?;
    let mut words: Vec<_> = list.lines().skip(4).map(|line| line.split_whitespace()).collect();
    let words: Vec<_> = words.iter_mut().filter_map(|line| line.nth(2)).collect();
    ensure!(words == ["Masq", "Route", "Tunnel", "Tunnel", "Tunnel"], "{list}");
    // Each way can be changed into the next one.
    put(1).await
}

async fn putting_and_removing_twice_succeeds() -> anyhow::Result<()> {
    sh(ROUTES)?;
    let client = Client::open().await?;
    let web = frontend("10.96.0.1", 80, Protocol::Tcp)?;
    let backend = destination("10.1.0.5", 8080, 1)?;
    for _ in 0..2 {
        client.put_virtual_server(&virtual_server(web, Scheduler::Rr)).await?;
        client.put_destination(&web, &backend).await?;
    }
    ensure!(client.destinations(&web).await?.len() == 1);
    for _ in 0..2 {
        client.remove_destination(&web, &backend.key).await?;
    }
    for _ in 0..2 {
        client.remove_virtual_server(&web).await?;
    }
    client.remove_destination(&web, &backend.key).await?;
    ensure!(client.virtual_server(&web).await?.is_none());
    ensure!(client.destinations(&web).await?.is_empty());
    Ok(())
}

async fn a_put_edits_what_is_there() -> anyhow::Result<()> {
    sh(ROUTES)?;
    sh("ipvsadm -A -u 10.96.0.1:80 -s rr -o -p 60
        ipvsadm -a -u 10.96.0.1:80 -r 10.1.0.5:8080 -m -w 3 -x 100 -y 50")?;
    let client = Client::open().await?;
    let web = frontend("10.96.0.1", 80, Protocol::Udp)?;
    client.put_virtual_server(&virtual_server(web, Scheduler::Lc)).await?;
    client.put_destination(&web, &destination("10.1.0.5", 8080, 9)?).await?;
    let saved = saved()?;
    ensure!(
        saved
            == "-A -u 10.96.0.1:80 -s lc\n\
                -a -u 10.96.0.1:80 -r 10.1.0.5:8080 -m -w 9\n",
        "{saved}"
    );
    ensure!(client.destinations(&web).await?[0].destination.limits == Thresholds::default());
    Ok(())
}

async fn firewall_mark_virtual_servers_are_skipped() -> anyhow::Result<()> {
    sh("ipvsadm -A -f 7 -s rr; ipvsadm -A -t 10.96.0.1:80 -s rr")?;
    let states = Client::open().await?.virtual_servers().await?;
    ensure!(states.len() == 1 && states[0].unknown_scheduler.is_none(), "{states:?}");
    Ok(())
}

async fn destinations_come_newest_first() -> anyhow::Result<()> {
    sh(ROUTES)?;
    let client = Client::open().await?;
    let web = frontend("10.96.0.1", 80, Protocol::Tcp)?;
    client.put_virtual_server(&virtual_server(web, Scheduler::Rr)).await?;
    for last in [5, 3, 9] {
        client.put_destination(&web, &destination(&format!("10.1.0.{last}"), 80, 1)?).await?;
    }
    // An edit does not move a destination.
    client.put_destination(&web, &destination("10.1.0.3", 80, 2)?).await?;
    let order = client.destinations(&web).await?;
    let order = order.iter().map(|state| state.destination.key.addr.to_string());
    ensure!(order.eq(["10.1.0.9", "10.1.0.3", "10.1.0.5"]));
    Ok(())
}

async fn an_unroutable_destination_is_explained() -> anyhow::Result<()> {
    let client = Client::open().await?;
    let web = frontend("10.96.0.1", 80, Protocol::Tcp)?;
    client.put_virtual_server(&virtual_server(web, Scheduler::Rr)).await?;
    let result = client.put_destination(&web, &destination("10.1.0.5", 80, 1)?).await;
    ensure!(matches!(result, Err(Error::Refused { hint: Some(Hint::NoRoute), .. })), "{result:?}");
    Ok(())
}

async fn a_destination_without_its_virtual_server_is_explained() -> anyhow::Result<()> {
    sh(ROUTES)?;
    let client = Client::open().await?;
    let web = frontend("10.96.0.1", 80, Protocol::Tcp)?;
    let result = client.put_destination(&web, &destination("10.1.0.5", 80, 1)?).await;
    ensure!(
        matches!(result, Err(Error::Refused { hint: Some(Hint::NoVirtualServer), .. })),
        "{result:?}"
    );
    Ok(())
}

async fn a_batch_keeps_its_order_and_reports_each_failure() -> anyhow::Result<()> {
    sh(ROUTES)?;
    let client = Client::open().await?;
    let web = frontend("10.96.0.1", 80, Protocol::Tcp)?;
    let gone = frontend("10.96.0.2", 80, Protocol::Tcp)?;
    let backend = destination("10.1.0.5", 80, 1)?;
    let results = client
        .batch(vec![
            Command::PutVirtualServer(virtual_server(web, Scheduler::Rr)),
            Command::PutVirtualServer(virtual_server(gone, Scheduler::Rr)),
            Command::PutDestination(gone, backend),
            Command::PutDestination(web, backend),
            Command::RemoveVirtualServer(gone),
            Command::PutDestination(gone, backend),
            Command::PutDestination(web, Destination { weight: u32::MAX, ..backend }),
            Command::PutDestination(web, Destination { weight: 5, ..backend }),
            Command::RemoveDestination(gone, backend.key),
        ])
        .await;
    let failed: Vec<_> = results.iter().map(Result::is_err).collect();
    let wanted = [false, false, false, false, false, true, true, false, false];
    ensure!(failed == wanted, "{results:?}");
    ensure!(
        results[5].as_ref().is_err_and(|error| error.to_string().contains("of 10.96.0.2:80/TCP")),
        "{results:?}"
    );
    let saved = saved()?;
    ensure!(
        saved == "-A -t 10.96.0.1:80 -s rr\n-a -t 10.96.0.1:80 -r 10.1.0.5:80 -m -w 5\n",
        "{saved}"
    );
    Ok(())
}

async fn thousands_of_commands_take_few_round_trips() -> anyhow::Result<()> {
    sh(ROUTES)?;
    let client = Client::open().await?;
    let (services, backends) = (2_000u32, 3u8);
    let mut commands = Vec::new();
    for n in 0..services {
        let addr: IpAddr = Ipv4Addr::from(0x0a60_0000 + n).into();
        let web = Frontend { addr, port: 80, protocol: Protocol::Tcp };
        commands.push(Command::PutVirtualServer(virtual_server(web, Scheduler::Rr)));
        for last in 1..=backends {
            let backend = destination(&format!("10.1.1.{last}"), 8080, 1)?;
            commands.push(Command::PutDestination(web, backend));
        }
    }
    let start = Instant::now();
    for result in client.batch(commands.clone()).await {
        result?;
    }
    let created = start.elapsed();
    for result in client.batch(commands.clone()).await {
        result?;
    }
    let repeated = start.elapsed() - created;
    let listing = Instant::now();
    let states = client.virtual_servers().await?;
    ensure!(states.len() == services as usize);
    for state in &states {
        let destinations = client.destinations(&state.virtual_server.frontend).await?;
        ensure!(destinations.len() == usize::from(backends));
    }
    let listed = listing.elapsed();
    println!(
        "{} commands: created {created:.2?}, repeated {repeated:.2?}, all listed {listed:.2?}",
        commands.len()
    );
    let counted = sh("ipvsadm -Sn | wc -l")?;
    ensure!(counted.trim() == commands.len().to_string(), "{counted}");
    Ok(())
}

async fn timeouts_are_set_and_read() -> anyhow::Result<()> {
    let client = Client::open().await?;
    client.set_timeouts(&Timeouts { tcp_secs: 1000, tcp_fin_secs: 0, udp_secs: 77 }).await?;
    let timeouts = client.timeouts().await?;
    ensure!(timeouts == Timeouts { tcp_secs: 1000, tcp_fin_secs: 120, udp_secs: 77 });
    let printed = sh("ipvsadm -L --timeout")?;
    ensure!(printed.trim() == "Timeout (tcp tcpfin udp): 1000 120 77", "{printed}");
    Ok(())
}

async fn version_and_table_size_are_those_of_ipvsadm() -> anyhow::Result<()> {
    let info = Client::open().await?.info().await?;
    let printed = sh("ipvsadm -Ln")?;
    let first = printed.lines().next().context("nothing printed")?;
    let ours =
        format!("IP Virtual Server version {} (size={})", info.version, info.connection_table_size);
    ensure!(first == ours, "{first} and {ours}");
    Ok(())
}

async fn namespaces_do_not_see_each_other() -> anyhow::Result<()> {
    let client = Client::open().await?;
    let web = frontend("10.96.0.1", 80, Protocol::Tcp)?;
    client.put_virtual_server(&virtual_server(web, Scheduler::Rr)).await?;
    ensure!(sh("unshare --net ipvsadm -Sn")?.is_empty());
    ensure!(client.virtual_servers().await?.len() == 1);
    Ok(())
}
