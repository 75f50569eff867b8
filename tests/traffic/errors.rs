//! ICMP errors about packets on the fast path: they come to the client, and are about what it sent.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use proxy_tests::dns::Resolver;
use proxy_tests::flows::{self, Counters};
use proxy_tests::http::Connection;
use proxy_tests::icmp::{IcmpError, Listener};
use proxy_tests::objects::{DNS_FRONTEND, ServiceObject, WEB_FRONTEND};
use proxy_tests::stage::Stage;
use proxy_tests::transfer::Blob;
use proxy_tests::wait;

use crate::scenario::{AGENT, scenarios};

scenarios! { AGENT =>
    port_unreachable_and_too_big_are_about_what_the_client_sent,
    router_behind_the_node_answers_the_client_about_what_it_sent,
}

const BLOB: u64 = 1 << 20;
/// Below what the links of the stage let through, above what IPv4 must.
const NARROW: u16 = 1300;

/// The frontend of [`FAR`].
const FAR_FRONTEND: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 96, 0, 99)), 53);
/// A Service whose endpoint is behind the router.
const FAR: &str = "\
apiVersion: v1
kind: Service
metadata: {name: far, namespace: default}
spec: {clusterIP: 10.96.0.99, ports: [{name: dns, port: 53, protocol: UDP}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: far-1, namespace: default, labels: {kubernetes.io/service-name: far}}
addressType: IPv4
ports: [{name: dns, port: 5353, protocol: UDP}]
endpoints:
  - addresses: [10.1.2.21]
";

/// Uploads much on a flow of the fast path that meets a narrower link, and returns the error.
fn upload_past_narrow_link(
    stage: &Stage,
    errors: &mut Listener,
    connection: &mut Connection,
) -> Result<IcmpError> {
    let local = connection.local()?;
    // What fits is learned first, so that what does not meets an entry.
    fast_again(stage, connection)?;
    ensure!(connection.upload(BLOB)? == Blob::of(BLOB).digest(), "changed on the way");
    let error = errors.next(IcmpError::TOO_BIG, local)?;
    ensure!(error.destination == WEB_FRONTEND && error.mtu == NARROW, "{error:?}");
    fast_again(stage, connection)?;
    let before = carried(stage, local)?;
    ensure!(connection.upload(BLOB)? == Blob::of(BLOB).digest(), "changed on the way");
    let after = carried(stage, local)?;
    ensure!(after > before + 10, "{before} packets on the fast path before, {after} after");
    Ok(error)
}

/// Asks until the fast path carries what is asked.
fn fast_again(stage: &Stage, connection: &mut Connection) -> Result<()> {
    let local = connection.local()?;
    wait::until_true("small requests are fast", wait::PATIENCE, || {
        let before = carried(stage, local)?;
        (0..10).try_for_each(|_| connection.get("/").map(drop))?;
        Ok(carried(stage, local)? >= before + 9)
    })
}

fn carried(stage: &Stage, local: SocketAddr) -> Result<u64> {
    Ok(flows::flow(&stage.agent, local, WEB_FRONTEND)?.map_or(0, |flow| flow.packets))
}

fn port_unreachable_and_too_big_are_about_what_the_client_sent() -> Result<()> {
    let stage = Stage::start(&[])?;
    let mut errors = Listener::open(&stage.client()?)?;

    let mut resolver = stage.fast_resolver(DNS_FRONTEND)?;
    let backend = resolver.ask()?;
    stage.topology.pod(&backend)?.namespace.nft(
        "table ip closed { chain input { type filter hook input priority 0;\n\
         udp dport 5353 reject with icmp type port-unreachable\n}\n}\n",
    )?;
    let refused = resolver.ask().err().context("it was answered")?;
    let kind = refused.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    ensure!(kind == Some(ErrorKind::ConnectionRefused), "{refused:#}");
    let error = errors.next(IcmpError::PORT_UNREACHABLE, resolver.local()?)?;
    ensure!(error.destination == DNS_FRONTEND, "{error:?}");

    let mut connection = stage.fast_connection(WEB_FRONTEND)?;
    ensure!(connection.upload(BLOB)? == Blob::of(BLOB).digest(), "changed on the way");
    let way_out = stage.topology.pod(&connection.get("/")?)?.interface();
    let mtu = NARROW.to_string();
    stage.topology.node.run("ip", &["link", "set", &way_out, "mtu", &mtu])?;
    upload_past_narrow_link(&stage, &mut errors, &mut connection).map(drop)
}

fn router_behind_the_node_answers_the_client_about_what_it_sent() -> Result<()> {
    let mut stage = Stage::without_agent(&[])?;
    for (name, octet) in [("web-far", 11), ("dns-far", 21)] {
        let pod = stage.topology.add_remote_pod(name, octet)?;
        stage.workload.serve(&pod)?;
    }
    let endpoints = vec![Ipv4Addr::new(10, 1, 2, 11)];
    let web = ServiceObject { endpoints, ..ServiceObject::web(&[]) };
    stage.manifests.write("web.yaml", &web.yaml())?;
    stage.manifests.write("far.yaml", FAR)?;
    let stage = stage.started()?;
    let mut errors = Listener::open(&stage.client()?)?;

    let mut resolver = stage.fast_resolver(FAR_FRONTEND)?;
    for (ttl, ended_here) in [(1, 1), (2, 0)] {
        let before = Counters::read(&stage.agent)?;
        let error = lost_on_the_way(&mut resolver, &mut errors, ttl)?;
        // Nobody tells who sent it: IPVS writes the frontend over the address of the router.
        ensure!(error.destination == FAR_FRONTEND, "TTL {ttl}: {error:?}");
        let counters = Counters::read(&stage.agent)?.since(&before);
        ensure!(counters.of("ttl_expired") == ended_here, "TTL {ttl}: {counters:?}");
        ensure!(counters.hits() > 0, "TTL {ttl}: nothing was fast: {counters:?}");
    }
    resolver.set_ttl(Some(3))?;
    ensure!(resolver.ask()? == "dns-far", "three are enough");

    let mut connection = stage.fast_connection(WEB_FRONTEND)?;
    ensure!(connection.upload(BLOB)? == Blob::of(BLOB).digest(), "changed on the way");
    let (router, mtu) = (stage.topology.pod("web-far")?.router(), NARROW.to_string());
    let link = stage.topology.pod("web-far")?.interface();
    router.run("ip", &["link", "set", &link, "mtu", &mtu])?;
    let error = upload_past_narrow_link(&stage, &mut errors, &mut connection)?;
    ensure!(WEB_FRONTEND.ip() == error.from, "not of the router: {error:?}");
    Ok(())
}

/// Asks with a TTL that does not suffice, on a flow that is fast before, and returns the error.
fn lost_on_the_way(resolver: &mut Resolver, errors: &mut Listener, ttl: u32) -> Result<IcmpError> {
    resolver.set_ttl(None)?;
    for _ in 0..5 {
        resolver.ask()?;
    }
    resolver.set_ttl(Some(ttl))?;
    resolver.set_timeout(std::time::Duration::from_millis(300))?;
    ensure!(resolver.ask().is_err(), "answered in spite of TTL {ttl}");
    resolver.set_timeout(std::time::Duration::from_secs(10))?;
    errors.next(IcmpError::TTL_EXPIRED, resolver.local()?)
}
