//! Conntrack entries of real flows: the stale ones go, all others stay. The command `conntrack` is
//! the second opinion.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Instant,
};

use anyhow::{Context, ensure};
use proxy_userspace::{
    kernel::conntrack::{Client, Stale},
    model::{DestinationKey, Frontend, Protocol},
};

use crate::{Case, ipvs::frontend, namespace::sh, needs::Need};

pub(crate) fn cases() -> Vec<Case> {
    crate::cases![
        &[Need::Root, Need::Nft, Need::Conntrack];
        entries_of_a_stale_frontend_go_and_all_others_stay,
        only_entries_that_lead_to_the_gone_endpoint_go,
        entries_in_conntrack_zones_go_too,
        entries_of_other_protocols_go_by_their_own_frontend,
        two_flushes_of_entries_at_once_both_succeed,
        a_flush_finds_few_entries_among_many,
    ]
}

/// What the table holds: client, original destination, and who answers.
type Flow = (SocketAddr, SocketAddr, SocketAddr);

/// Addresses of clients, VIPs and endpoints on lo, and translation of the VIPs 10.96.0.10 and
/// fd00:96::10 to two endpoints: ip_vs writes the same entries.
fn stage() -> anyhow::Result<()> {
    sh("ip link set lo up
        for addr in 192.0.2.9 10.96.0.10 10.96.0.11 10.96.0.99 10.1.0.5 10.1.0.6; do
            ip addr add $addr/32 dev lo
        done
        for addr in 2001:db8::9 fd00:96::10 fd00:96::11 fd00:1::5 fd00:1::6; do
            ip addr add $addr/128 dev lo nodad
        done
        nft add table inet other
        nft add chain inet other raw '{ type filter hook output priority raw; }'
        nft add chain inet other back '{ type filter hook prerouting priority raw; }'
        nft add chain inet other out '{ type nat hook output priority -100; }'
        nft add rule inet other out ip daddr 10.96.0.10 udp sport 40005 dnat ip to 10.1.0.5:5353
        nft add rule inet other out ip daddr 10.96.0.10 udp sport 40006 dnat ip to 10.1.0.6:5353
        nft add rule inet other out ip6 daddr fd00:96::10 udp sport 40005 dnat ip6 to '[fd00:1::5]:5353'
        nft add rule inet other out ip6 daddr fd00:96::10 udp sport 40006 dnat ip6 to '[fd00:1::6]:5353'
        nft add chain inet other in '{ type filter hook input priority 0; }'
        nft add rule inet other in udp dport != 1 drop")?;
    Ok(())
}

/// Sends a datagram from a port of the client.
fn send(port: u16, to: &str) -> anyhow::Result<()> {
    let to: SocketAddr = to.parse()?;
    let client = if to.is_ipv4() { "192.0.2.9" } else { "2001:db8::9" };
    let socket = UdpSocket::bind((client.parse::<IpAddr>()?, port))?;
    socket.send_to(b"x", to)?;
    Ok(())
}

/// Flows to frontends old and new, of both families.
fn send_all() -> anyhow::Result<()> {
    for port in [40005, 40006] {
        for to in ["10.96.0.10:53", "10.96.0.10:54", "10.96.0.11:53", "10.96.0.99:53"] {
            send(port, to)?;
        }
        for to in ["[fd00:96::10]:53", "[fd00:96::11]:53"] {
            send(port, to)?;
        }
    }
    Ok(())
}

/// Returns what the command `conntrack` lists.
fn listed() -> anyhow::Result<BTreeSet<Flow>> {
    let printed = sh("conntrack -L -f ipv4 2>/dev/null; conntrack -L -f ipv6 2>/dev/null")?;
    printed.lines().map(|line| flow(line).with_context(|| line.to_owned())).collect()
}

fn flow(line: &str) -> Option<Flow> {
    let values = |key: &'static str| {
        line.split(' ').filter_map(move |word| word.strip_prefix(key)?.strip_prefix('='))
    };
    let socket = |addr: &'static str, port: &'static str, nth: usize| {
        let addr: IpAddr = values(addr).nth(nth)?.parse().ok()?;
        Some(SocketAddr::new(addr, values(port).nth(nth)?.parse().ok()?))
    };
    Some((socket("src", "sport", 0)?, socket("dst", "dport", 0)?, socket("src", "sport", 1)?))
}

/// Returns the flows that the flush of `stale` deleted.
async fn flushed(stale: &Stale) -> anyhow::Result<Vec<String>> {
    let before = listed()?;
    let client = Client::open()?;
    let count = client.flush(stale).await?;
    let after = listed()?;
    ensure!(after.is_subset(&before), "new entries: {after:?}");
    let gone: Vec<_> = before
        .difference(&after)
        .map(|(client, to, answers)| format!("{} {to} {answers}", client.port()))
        .collect();
    ensure!(count == gone.len(), "said {count}: {gone:?}");
    ensure!(client.flush(stale).await? == 0, "deleting the absent");
    Ok(gone)
}

fn udp(addr: &str, port: u16) -> anyhow::Result<Frontend> {
    frontend(addr, port, Protocol::Udp)
}

fn endpoint(addr: &str) -> anyhow::Result<DestinationKey> {
    Ok(DestinationKey { addr: addr.parse()?, port: 5353 })
}

async fn entries_of_a_stale_frontend_go_and_all_others_stay() -> anyhow::Result<()> {
    stage()?;
    send_all()?;
    let stale = Stale { frontends: [udp("10.96.0.99", 53)?].into(), ..Stale::default() };
    let gone = flushed(&stale).await?;
    ensure!(
        gone == ["40005 10.96.0.99:53 10.96.0.99:53", "40006 10.96.0.99:53 10.96.0.99:53"],
        "{gone:?}"
    );
    let frontends = [udp("10.96.0.10", 53)?, udp("fd00:96::10", 53)?, udp("10.96.0.11", 99)?];
    let gone = flushed(&Stale { frontends: frontends.into(), ..Stale::default() }).await?;
    ensure!(
        gone == [
            "40005 10.96.0.10:53 10.1.0.5:5353",
            "40006 10.96.0.10:53 10.1.0.6:5353",
            "40005 [fd00:96::10]:53 [fd00:1::5]:5353",
            "40006 [fd00:96::10]:53 [fd00:1::6]:5353"
        ],
        "{gone:?}"
    );
    ensure!(Client::open()?.flush(&Stale::default()).await? == 0);
    Ok(())
}

async fn only_entries_that_lead_to_the_gone_endpoint_go() -> anyhow::Result<()> {
    stage()?;
    send_all()?;
    let pairs = [
        (udp("10.96.0.10", 53)?, endpoint("10.1.0.5")?),
        (udp("fd00:96::10", 53)?, endpoint("fd00:1::6")?),
        // Nothing leads from here to there.
        (udp("10.96.0.11", 53)?, endpoint("10.1.0.5")?),
    ];
    let gone = flushed(&Stale { pairs: pairs.into(), ..Stale::default() }).await?;
    ensure!(
        gone == ["40005 10.96.0.10:53 10.1.0.5:5353", "40006 [fd00:96::10]:53 [fd00:1::6]:5353"],
        "{gone:?}"
    );
    Ok(())
}

async fn entries_in_conntrack_zones_go_too() -> anyhow::Result<()> {
    stage()?;
    sh("nft add rule inet other raw udp sport 40005 ct original zone set 7
        nft add rule inet other raw udp sport 40006 ct zone set 9
        nft add rule inet other back udp sport 40006 ct zone set 9")?;
    send_all()?;
    let stale = Stale { frontends: [udp("10.96.0.99", 53)?].into(), ..Stale::default() };
    let gone = flushed(&stale).await?;
    ensure!(gone.len() == 2, "{gone:?}");
    Ok(())
}

async fn entries_of_other_protocols_go_by_their_own_frontend() -> anyhow::Result<()> {
    stage()?;
    for protocol in ["tcp", "sctp --orig-vtag 1 --reply-vtag 2"] {
        sh(&format!(
            "conntrack -I -p {protocol} -s 192.0.2.9 -d 10.96.0.99 -r 10.1.0.5 -q 192.0.2.9 \
             --sport 40005 --dport 53 --reply-port-src 5353 --reply-port-dst 40005 \
             --state ESTABLISHED --timeout 100"
        ))?;
    }
    send(40005, "10.96.0.99:53")?;
    let protocols = || -> anyhow::Result<BTreeSet<String>> {
        let printed = sh("conntrack -L 2>/dev/null")?;
        Ok(printed.lines().filter_map(|line| Some(line.split_once(' ')?.0.to_owned())).collect())
    };
    ensure!(protocols()? == ["sctp", "tcp", "udp"].map(str::to_owned).into());
    let client = Client::open()?;
    let sctp = frontend("10.96.0.99", 53, Protocol::Sctp)?;
    ensure!(client.flush(&Stale { frontends: [sctp].into(), ..Stale::default() }).await? == 1);
    ensure!(protocols()? == ["tcp", "udp"].map(str::to_owned).into());
    let pair = (udp("10.96.0.99", 53)?, endpoint("10.1.0.5")?);
    ensure!(client.flush(&Stale { pairs: [pair].into(), ..Stale::default() }).await? == 0);
    Ok(())
}

async fn two_flushes_of_entries_at_once_both_succeed() -> anyhow::Result<()> {
    stage()?;
    send_all()?;
    let client = Client::open()?;
    let four = Stale { frontends: [udp("10.96.0.10", 53)?].into(), ..Stale::default() };
    let six = Stale { frontends: [udp("fd00:96::10", 53)?].into(), ..Stale::default() };
    let (four, six) = tokio::join!(client.flush(&four), client.flush(&six));
    ensure!((four?, six?) == (2, 2));
    Ok(())
}

async fn a_flush_finds_few_entries_among_many() -> anyhow::Result<()> {
    /// Below the limit of a guest with 2 GiB.
    const MANY: u32 = 50_000;
    const FEW: u32 = 500;
    stage()?;
    sh("ip route add local 10.128.0.0/16 dev lo")?;
    let socket = UdpSocket::bind("192.0.2.9:40000")?;
    for n in 0..MANY {
        // The same port, so that the kernel's filter leaves nothing out.
        socket.send_to(b"x", (std::net::Ipv4Addr::from(0x0a80_0000 + n), 53))?;
    }
    for n in 0..FEW {
        let port = u16::try_from(10_000 + n)?;
        UdpSocket::bind(("192.0.2.9", port))?.send_to(b"x", ("10.96.0.99", 53))?;
    }
    let held: u32 = sh("conntrack -C")?.trim().parse()?;
    let client = Client::open()?;
    let mut times = Vec::new();
    for (port, expected) in [(54, 0), (53, FEW)] {
        let stale = Stale { frontends: [udp("10.96.0.99", port)?].into(), ..Stale::default() };
        let start = Instant::now();
        ensure!(client.flush(&stale).await? == expected as usize);
        times.push(start.elapsed());
    }
    let left: u32 = sh("conntrack -C")?.trim().parse()?;
    ensure!(left + FEW == held, "{held} before, {left} after");
    println!("{held} entries: other port {:.1?}, same port {:.1?}", times[0], times[1]);
    Ok(())
}
