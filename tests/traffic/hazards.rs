//! What could go wrong on the fast path because of what others do to interfaces and rules.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use proxy_tests::dns::Resolver;
use proxy_tests::netns::Namespace;
use proxy_tests::objects::{DNS_FRONTEND, WEB_FRONTEND};
use proxy_tests::stage::Stage;
use proxy_tests::{flows, foreign, slow_path, wait};

use crate::interfaces::{interface, wait_mode, wait_reason};
use crate::scenario::{AGENT, scenarios};

scenarios! { AGENT =>
    programs_filters_and_masters_that_come_later_turn_the_fast_path_off_and_on_again,
    flowtable_that_comes_later_turns_the_fast_path_off_and_a_queue_rule_is_told,
    bandwidth_limit_on_a_veth_is_kept_on_the_fast_path,
    packets_that_are_sent_through_another_device_at_ingress_all_go_there,
    vanished_veth_gives_no_packet_to_the_next_one_of_its_index,
    route_that_moves_is_followed_at_once,
}

fn programs_filters_and_masters_that_come_later_turn_the_fast_path_off_and_on_again() -> Result<()>
{
    let stage = Stage::start(&[])?;
    let node = &stage.topology.node;
    let mut connection = stage.fast_connection(WEB_FRONTEND)?;
    let answers = |connection: &mut proxy_tests::http::Connection| {
        (0..20).try_for_each(|_| connection.get("/").map(drop))
    };

    let classifier = foreign::classifier(node, "v-client")?;
    let xdp = foreign::xdp(node, "v-web-a")?;
    wait_reason(&stage, "v-client", "foreign tc")?;
    wait_reason(&stage, "v-web-a", "foreign XDP program")?;
    answers(&mut connection)?;
    drop((classifier, xdp));
    wait_mode(&stage, "v-client", "fast")?;
    wait_mode(&stage, "v-web-a", "fast")?;

    let _exists = node.output("tc", &["qdisc", "add", "dev", "v-web-b", "clsact"])?;
    let filter = ["filter", "add", "dev", "v-web-b", "egress", "bpf", "da"];
    node.run("tc", &[&filter[..], &["bytecode", "1,6 0 0 4294967295,"]].concat())?;
    node.run("ip", &["link", "add", "other", "type", "bridge"])?;
    node.run("ip", &["link", "set", "v-web-c", "master", "other"])?;
    node.run("ip", &["link", "add", "link", "eth0", "name", "above", "type", "macvlan"])?;
    wait_reason(&stage, "v-web-b", "tc egress filter bpf")?;
    wait_reason(&stage, "v-web-c", "port of bridge other")?;
    wait_reason(&stage, "eth0", "above takes its packets")?;
    node.run("tc", &["filter", "del", "dev", "v-web-b", "egress"])?;
    node.run("ip", &["link", "set", "v-web-c", "nomaster"])?;
    node.run("ip", &["link", "del", "above"])?;
    for name in ["v-web-b", "v-web-c", "eth0"] {
        wait_mode(&stage, name, "fast")?;
    }
    let local = connection.local()?;
    stage.drive_to_fast_path(local, WEB_FRONTEND, || answers(&mut connection)).map(drop)
}

fn flowtable_that_comes_later_turns_the_fast_path_off_and_a_queue_rule_is_told() -> Result<()> {
    let stage = Stage::start(&[])?;
    let node = &stage.topology.node;
    node.nft(
        "table inet inspected {\n\
         chain forward { type filter hook forward priority 0;\n\
         udp dport 9 queue flags bypass to 7\n}\n}\n",
    )?;
    node.nft(
        "table ip accelerated { flowtable f { hook ingress priority 0; devices = { lo }; }; }",
    )?;
    wait_reason(&stage, "v-client", "nft flowtable ip accelerated f")?;
    wait_reason(&stage, "eth0", "nft flowtable ip accelerated f")?;
    node.run("nft", &["delete", "table", "ip", "accelerated"])?;
    wait_mode(&stage, "v-client", "fast")?;
    let mut notices = serde_json::Value::Null;
    wait::until_true("the queue rule is told", wait::PATIENCE, || {
        notices = stage.agent.status()?["notices"].clone();
        let told = |text: &str| text.contains("inet inspected forward queues packets");
        Ok(notices.as_array().into_iter().flatten().filter_map(|n| n.as_str()).any(told))
    })
    .with_context(|| notices.to_string())?;
    ensure!(stage.agent.log().contains("packets_unseen"), "it is not in the log");
    stage.fast_connection(WEB_FRONTEND).map(drop)
}

/// Packets that a queueing discipline of the node has let through.
fn queued(node: &Namespace, interface: &str) -> Result<u64> {
    let text = node.run("tc", &["-s", "qdisc", "show", "dev", interface, "root"])?;
    let packets = text.split_whitespace().skip_while(|word| *word != "Sent").nth(3);
    packets.context("tc says Sent")?.parse().with_context(|| text.clone())
}

fn bandwidth_limit_on_a_veth_is_kept_on_the_fast_path() -> Result<()> {
    const REQUESTS: u64 = 100;
    let stage = Stage::start(&[])?;
    let node = &stage.topology.node;
    let mut connection = stage.fast_connection(WEB_FRONTEND)?;
    let limit = ["tbf", "rate", "100mbit", "burst", "1mb", "latency", "50ms"];
    node.run("tc", &[&["qdisc", "add", "dev", "v-client", "root"][..], &limit].concat())?;
    let local = connection.local()?;
    // The event is as good as at once; the pass after it takes a moment.
    wait::until_true("answers pass the limit", Duration::from_secs(4), || {
        let before = queued(node, "v-client")?;
        (0..20).try_for_each(|_| connection.get("/").map(drop))?;
        Ok(queued(node, "v-client")? >= before + 20)
    })?;
    stage.drive_to_fast_path(local, WEB_FRONTEND, || connection.get("/").map(drop))?;
    let before = (queued(node, "v-client")?, packets(&stage, local)?);
    for _ in 0..REQUESTS {
        connection.get("/")?;
    }
    let after = (queued(node, "v-client")?, packets(&stage, local)?);
    ensure!(after.1 >= before.1 + REQUESTS * 8 / 10, "not fast: {before:?}, {after:?}");
    ensure!(after.0 >= before.0 + REQUESTS, "past the limit: {before:?}, {after:?}");
    shy_flow_gets_no_entry(&stage)
}

/// As the bandwidth plugin of the CNI limits what a pod sends: its packets go through an `ifb`.
fn packets_that_are_sent_through_another_device_at_ingress_all_go_there() -> Result<()> {
    const REQUESTS: u64 = 50;
    let stage = Stage::start(&[])?;
    let node = &stage.topology.node;
    let mut connection = stage.fast_connection(WEB_FRONTEND)?;
    node.run("ip", &["link", "add", "limiter", "type", "ifb"])?;
    node.run("ip", &["link", "set", "limiter", "up"])?;
    let limit = ["tbf", "rate", "100mbit", "burst", "1mb", "latency", "50ms"];
    node.run("tc", &[&["qdisc", "add", "dev", "limiter", "root"][..], &limit].concat())?;
    // The agent may have made the qdisc already.
    let _exists = node.output("tc", &["qdisc", "add", "dev", "v-client", "clsact"])?;
    let filter = ["filter", "add", "dev", "v-client", "ingress", "matchall"];
    let action = ["action", "mirred", "egress", "redirect", "dev", "limiter"];
    node.run("tc", &[&filter[..], &action].concat())?;
    wait_reason(&stage, "v-client", "tc ingress filter matchall")?;
    let before = (queued(node, "limiter")?, slow_path::sent_by(&stage.client()?, "eth0")?);
    for _ in 0..REQUESTS {
        connection.get("/")?;
    }
    let after = (queued(node, "limiter")?, slow_path::sent_by(&stage.client()?, "eth0")?);
    let (limited, sent) = (after.0 - before.0, after.1 - before.1);
    ensure!(sent >= REQUESTS && limited >= REQUESTS, "{limited} of {sent} packets are limited");
    // Some that were sent before are counted after, or the other way round.
    ensure!(limited.abs_diff(sent) <= 5, "{limited} of {sent} packets are limited");
    node.run("tc", &["filter", "del", "dev", "v-client", "ingress"])?;
    wait_mode(&stage, "v-client", "fast")?;
    let local = connection.local()?;
    stage.drive_to_fast_path(local, WEB_FRONTEND, || connection.get("/").map(drop)).map(drop)
}

/// Returns how many requests the fast path carried.
fn packets(stage: &Stage, local: std::net::SocketAddr) -> Result<u64> {
    Ok(flows::flow(&stage.agent, local, WEB_FRONTEND)?.map_or(0, |flow| flow.packets))
}

/// A flow of two packets, as of a scan, takes no room in the flow map.
fn shy_flow_gets_no_entry(stage: &Stage) -> Result<()> {
    let mut resolver = Resolver::open(&stage.client()?, DNS_FRONTEND)?;
    let local = resolver.local()?;
    for _ in 0..2 {
        resolver.ask()?;
    }
    let flows = flows::flows(&stage.agent)?;
    let found = flows.iter().find(|flow| flow.source == local || flow.new_destination == local);
    ensure!(found.is_none(), "{found:?}");
    Ok(())
}

fn vanished_veth_gives_no_packet_to_the_next_one_of_its_index() -> Result<()> {
    let mut stage = Stage::without_agent(&[])?;
    let taker = stage.topology.add_pod("taker", 77)?;
    let stage = stage.started()?;
    let mut resolver = stage.fast_resolver(DNS_FRONTEND)?;
    let (local, backend) = (resolver.local()?, resolver.ask()?);
    let gone = stage.topology.pod(&backend)?.interface();
    let status = stage.agent.status()?;
    let index = interface(&status, &gone).context("no such interface")?["index"].to_string();
    slow_path::watch(&taker.namespace, "strays", &format!("udp sport {}", local.port()))?;
    resolver.set_timeout(Duration::from_millis(5))?;
    let node = &stage.topology.node;
    let (name, taken) = (taker.interface(), taker.namespace.name());
    node.feed(
        "ip",
        &["-batch", "-"],
        &format!(
            "link del {gone}\n\
             link del {name}\n\
             link add {name} index {index} type veth peer name eth0 netns {taken}\n\
             link set {name} up\n"
        ),
    )?;
    taker.namespace.run("ip", &["link", "set", "eth0", "up"])?;
    for _ in 0..400 {
        // Nobody may answer; but nobody else may be asked.
        let _lost = resolver.ask();
    }
    let strays = slow_path::seen(&taker.namespace, "strays")?.packets;
    ensure!(strays == 0, "{strays} packets of another pod's flow came to {name}");
    wait_mode(&stage, &name, "fast")
}

fn route_that_moves_is_followed_at_once() -> Result<()> {
    /// Much less than the soft lease of 3 s.
    const AT_ONCE: Duration = Duration::from_secs(1);
    let stage = Stage::start(&[])?;
    for change in
        [&["rule", "add", "pref", "7", "blackhole", "to"][..], &["route", "replace", "blackhole"]]
    {
        let mut connection = stage.fast_connection(WEB_FRONTEND)?;
        connection.set_timeout(Duration::from_millis(200))?;
        let backend = connection.get("/")?;
        let address = format!("{}/32", stage.topology.pod(&backend)?.address);
        let change = [change, &[address.as_str()]].concat();
        stage.topology.node.run("ip", &change)?;
        let asked =
            wait::paced(AT_ONCE, Duration::from_millis(20), || connection.get("/").map(drop));
        ensure!(asked.is_err(), "answered for {AT_ONCE:?} in spite of `ip {}`", change.join(" "));
    }
    Ok(())
}
