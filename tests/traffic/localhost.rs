//! Node ports at the loopback addresses of the node.

use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use proxy_tests::dns::Resolver;
use proxy_tests::http::{Connection, get_once};
use proxy_tests::netns::Namespace;
use proxy_tests::stage::Stage;
use proxy_tests::wait;

use crate::scenario::{AGENT, scenarios};

scenarios! { AGENT =>
    node_ports_on_localhost_reach_every_endpoint_without_the_agent_and_end_with_it,
}

/// Both policies Local: processes of the node get all endpoints all the same.
const SERVICE: &str = "\
apiVersion: v1
kind: Service
metadata: {name: both, namespace: default}
spec:
  type: NodePort
  clusterIPs: [10.96.0.80, 'fd00:96::80']
  internalTrafficPolicy: Local
  externalTrafficPolicy: Local
  ports:
    - {name: http, port: 80, nodePort: 30800}
    - {name: dns, port: 53, nodePort: 30853, protocol: UDP}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: both-4, namespace: default, labels: {kubernetes.io/service-name: both}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints:
  - {addresses: [10.1.1.11], nodeName: elsewhere}
  - {addresses: [10.1.1.12], nodeName: elsewhere}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: both-dns-4, namespace: default, labels: {kubernetes.io/service-name: both}}
addressType: IPv4
ports: [{name: dns, port: 5353, protocol: UDP}]
endpoints:
  - {addresses: [10.1.1.21], nodeName: elsewhere}
  - {addresses: [10.1.1.22], nodeName: elsewhere}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: both-6, namespace: default, labels: {kubernetes.io/service-name: both}}
addressType: IPv6
ports: [{name: http, port: 8080}]
endpoints:
  - {addresses: ['fd00:10:1:1::11'], nodeName: elsewhere}
  - {addresses: ['fd00:10:1:1::12'], nodeName: elsewhere}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: both-dns-6, namespace: default, labels: {kubernetes.io/service-name: both}}
addressType: IPv6
ports: [{name: dns, port: 5353, protocol: UDP}]
endpoints:
  - {addresses: ['fd00:10:1:1::21'], nodeName: elsewhere}
";

const ASKED_FOR: &[&str] = &["--nodeport-addresses", "localhost"];

/// Over TCP; the last one is what a socket of IPv6 calls an address of IPv4.
const TCP: [&str; 4] =
    ["127.0.0.1:30800", "127.1.2.3:30800", "[::1]:30800", "[::ffff:127.0.0.1]:30800"];
const UDP: [&str; 3] = ["127.0.0.1:30853", "[::1]:30853", "[::ffff:127.0.0.1]:30853"];

fn node_ports_on_localhost_reach_every_endpoint_without_the_agent_and_end_with_it() -> Result<()> {
    let mut stage = Stage::without_agent(ASKED_FOR)?;
    stage.manifests.write("both.yaml", SERVICE)?;
    stage.agent.spawn()?;
    stage.agent.wait_ready()?;
    let node = stage.topology.node.clone();
    serves(&node)?;
    refuses(&stage.client()?).context("a pod's own loopback addresses are its own")?;

    let pins = stage.agent.pins().join("localhost");
    let ipvs = node.run("ipvsadm", &["-Ln"])?;
    ensure!(!ipvs.contains("30800"), "no virtual server has the node port:\n{ipvs}");
    stage.agent.kill()?;
    serves(&node).context("without the agent")?;
    stage.agent.spawn()?;
    stage.agent.wait_ready()?;
    serves(&node).context("after a restart")?;

    stage.manifests.remove("both.yaml")?;
    wait::until_true("the node ports are gone", wait::PATIENCE, || Ok(refuses(&node).is_ok()))?;
    stage.manifests.write("both.yaml", SERVICE)?;
    wait::until_true("they are back", wait::PATIENCE, || Ok(serves(&node).is_ok()))?;
    stage.agent.terminate()?;
    stage.agent.set_options(&[]);
    stage.agent.spawn()?;
    stage.agent.wait_ready()?;
    refuses(&node).context("no longer asked for")?;
    ensure!(!pins.exists(), "{} stays", pins.display());

    stage.agent.terminate()?;
    stage.agent.set_options(ASKED_FOR);
    stage.agent.spawn()?;
    stage.agent.wait_ready()?;
    serves(&node)?;
    stage.agent.terminate()?;
    stage.agent.text(&["cleanup"])?;
    refuses(&node).context("after cleanup")?;
    ensure!(!pins.exists(), "{} stays", pins.display());
    Ok(())
}

fn serves(node: &Namespace) -> Result<()> {
    for to in TCP {
        let to: SocketAddr = to.parse()?;
        let names: Result<BTreeSet<String>> = (0..4).map(|_| get_once(node, to, "/")).collect();
        let names = names.with_context(|| format!("GET {to}"))?;
        let expected = ["web-a", "web-b"].map(str::to_owned).into();
        ensure!(names == expected, "{to} is answered by {names:?}");
    }
    for to in UDP {
        let to: SocketAddr = to.parse()?;
        let name = Resolver::open(node, to)?.ask().with_context(|| format!("ask {to}"))?;
        ensure!(name.starts_with("dns-"), "{to} is answered by {name}");
        answered_by_whom_it_asked(node, to)?;
    }
    Ok(())
}

/// A socket that is not connected, as a resolver has it: it drops what comes from elsewhere.
fn answered_by_whom_it_asked(node: &Namespace, to: SocketAddr) -> Result<()> {
    let any: SocketAddr = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse()?;
    let socket = node.enter(|| Ok(UdpSocket::bind(any)?))?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut answer = [0; 64];
    for id in 0..3_u8 {
        socket.send_to(&[0, id, b'?'], to).with_context(|| format!("send to {to}"))?;
        let (length, from) = socket.recv_from(&mut answer).with_context(|| format!("ask {to}"))?;
        ensure!(from == to, "{to} was asked and {from} answers");
        ensure!(length > 2 && answer[1] == id, "another answer");
    }
    Ok(())
}

fn refuses(namespace: &Namespace) -> Result<()> {
    for to in TCP {
        let to: SocketAddr = to.parse()?;
        ensure!(Connection::open(namespace, to).is_err(), "{to} is served");
    }
    for to in UDP {
        let asked = Resolver::open(namespace, to.parse()?).and_then(|mut one| one.ask());
        ensure!(asked.is_err(), "{to} is served");
    }
    Ok(())
}
