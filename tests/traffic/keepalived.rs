//! keepalived owns the VIP and moves it between two gateways; what it is told is in the documents.

use anyhow::{Context as _, Result, ensure};
use proxy_tests::agent::Agent;
use proxy_tests::gateways::{Crowd, Gateways, VIP};
use proxy_tests::keepalived::Keepalived;
use proxy_tests::netns::Namespace;
use proxy_tests::wait;
use serde_json::Value;

use crate::gateways::{NEEDS as OF_GATEWAYS, OPTIONS, keeps, wait_destinations, wait_plane};
use crate::scenario::{Need, Scenario};

pub(crate) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "two_gateways_keep_every_connection_while_keepalived_moves_their_vip",
    needs: &NEEDS,
    run: two_gateways_keep_every_connection_while_keepalived_moves_their_vip,
}];

const NEEDS: [Need; OF_GATEWAYS.len() + 1] = {
    let mut needs = [Need::Program("keepalived"); OF_GATEWAYS.len() + 1];
    needs.split_at_mut(OF_GATEWAYS.len()).0.copy_from_slice(OF_GATEWAYS);
    needs
};
/// As the example of the documents says it of the first gateway, and of the second.
const PRIORITIES: [u8; 2] = [150, 100];
/// Connections that are open all the time.
const CONNECTIONS: usize = 150;

fn two_gateways_keep_every_connection_while_keepalived_moves_their_vip() -> Result<()> {
    let mut gateways = Gateways::build(3)?;
    gateways.serve("route", ",mh-port", &["b1", "b2", "b3"])?;
    gateways.route_on_link()?;
    let mut pair = Pair::start(&gateways)?;
    pair.wait_owner(&gateways, 0)?;
    let mut crowd = gateways.connect_many(CONNECTIONS)?;
    // Some of them live where their hash does not say from now on.
    gateways.add_backend(4)?;
    gateways.serve("route", ",mh-port", &["b1", "b2", "b3", "b4"])?;
    for host in &pair.hosts {
        wait_destinations(host, gateways.frontend(), 4)?;
    }
    crowd.join(gateways.connect_many(CONNECTIONS)?);
    ensure!(crowd.spread().len() == 4, "{:?}", crowd.spread());
    pair.keep(&mut crowd, 0, "the first gateway has the VIP")?;

    pair.keepalived[0].stop()?;
    pair.wait_owner(&gateways, 1)?;
    pair.keep(&mut crowd, 1, "keepalived of the first was stopped")?;
    pair.keepalived[0].spawn()?;
    pair.wait_owner(&gateways, 0)?;
    pair.keep(&mut crowd, 0, "keepalived of the first is back")?;

    // It leaves its address behind; who comes later is heard.
    pair.keepalived[0].kill()?;
    pair.wait_address(1, true)?;
    pair.wait_asked(&gateways, 1)?;
    ensure!(pair.has_address(0)?, "who took the VIP off the first gateway?");
    pair.keep(&mut crowd, 1, "keepalived of the first was killed")?;
    pair.keepalived[0].spawn()?;
    pair.wait_owner(&gateways, 0)?;
    pair.wait_asked(&gateways, 0)?;
    pair.keep(&mut crowd, 0, "and is back again")?;

    // What goes is the agent's, and what stays keepalived's.
    pair.agents[0].terminate()?;
    pair.agents[0].text(&["cleanup"])?;
    ensure!(pair.has_address(0)?, "the agent took the VIP off the first gateway");
    pair.keepalived[0].stop()?;
    pair.wait_owner(&gateways, 1)?;
    pair.keep(&mut crowd, 1, "the agent of the first is gone")?;
    eprintln!("keepalived: {} connections over 5 moves of the VIP, 0 lost", crowd.len());
    Ok(())
}

/// Counts ARP replies with the VIP; what keepalived sends unasked goes past netfilter.
fn counting() -> String {
    format!(
        "table arp seen {{ counter answers {{}}; chain out {{ type filter hook output priority 0; \
         arp saddr ip {VIP} counter name answers; }}; }}"
    )
}

/// Both gateways.
struct Pair {
    hosts: [Namespace; 2],
    agents: [Agent; 2],
    keepalived: [Keepalived; 2],
}

impl Pair {
    fn start(gateways: &Gateways) -> Result<Self> {
        let hosts = [gateways.topology.node.clone(), gateways.second.clone()];
        for host in &hosts {
            host.nft(&counting())?;
        }
        let options: Vec<&str> = OPTIONS.iter().copied().chain(["--vips", "none"]).collect();
        let first = Agent::start(&gateways.topology, &gateways.manifests, &options)?;
        let mut second = gateways.second_agent(&options)?;
        second.spawn()?;
        second.wait_ready()?;
        for agent in [&first, &second] {
            wait_plane(agent, "hash")?;
        }
        let start = |number: usize| {
            let directory = gateways.topology.directory().join(format!("keepalived-{number}"));
            Keepalived::start(&hosts[number], &directory, PRIORITIES[number])
        };
        let keepalived = [start(0)?, start(1)?];
        Ok(Self { hosts, agents: [first, second], keepalived })
    }

    /// Waits until one gateway has the VIP and the other one has not, and a router that asks is
    /// answered by the one alone.
    fn wait_owner(&self, gateways: &Gateways, owner: usize) -> Result<()> {
        self.wait_address(owner, true)?;
        self.wait_address(1 - owner, false)?;
        let before = self.answers()?;
        let vip = VIP.to_string();
        gateways.topology.outside.run("ip", &["neigh", "flush", "to", &vip, "dev", "segment"])?;
        ensure!(gateways.is_answered()?, "nobody serves");
        let after = self.answers()?;
        ensure!(after[owner] > before[owner], "gateway {owner} said nothing: {after:?}");
        let other = 1 - owner;
        ensure!(after[other] == before[other], "gateway {other} answers ARP for the VIP as well");
        Ok(())
    }

    /// How often the kernel of each gateway has answered ARP for the VIP.
    fn answers(&self) -> Result<[u64; 2]> {
        let of = |host: &Namespace| -> Result<u64> {
            let text = host.run("nft", &["list", "counter", "arp", "seen", "answers"])?;
            let mut words = text.split_whitespace().skip_while(|word| *word != "packets");
            Ok(words.nth(1).context("no packets")?.parse()?)
        };
        Ok([of(&self.hosts[0])?, of(&self.hosts[1])?])
    }

    fn wait_address(&self, gateway: usize, there: bool) -> Result<()> {
        let what = format!("the VIP on gateway {gateway}: {there}");
        wait::until_true(&what, wait::PATIENCE, || Ok(self.has_address(gateway)? == there))
            .with_context(|| self.keepalived[gateway].log())
    }

    /// Says whether keepalived's address is there. Whatever else makes the VIP local is an error.
    fn has_address(&self, gateway: usize) -> Result<bool> {
        let host = &self.hosts[gateway];
        let local = host.run("ip", &["route", "show", "table", "local", &VIP.to_string()])?;
        ensure!(!local.contains("kube-ipvs0"), "gateway {gateway} has a route of its own: {local}");
        let text = host.run("ip", &["-j", "addr", "show", "to", &VIP.to_string()])?;
        let links: Vec<Value> = serde_json::from_str(&text)?;
        let names: Vec<_> = links.iter().filter_map(|link| link["ifname"].as_str()).collect();
        ensure!(names.iter().all(|name| *name == "eth0"), "gateway {gateway} has it on {names:?}");
        Ok(!names.is_empty())
    }

    /// Waits until the router has the MAC address of this gateway for the VIP.
    fn wait_asked(&self, gateways: &Gateways, gateway: usize) -> Result<()> {
        let text = self.hosts[gateway].run("ip", &["-j", "link", "show", "eth0"])?;
        let links: Value = serde_json::from_str(&text)?;
        let mac = links[0]["address"].as_str().context("no MAC address")?.to_owned();
        wait::until_true(&format!("the router sends to gateway {gateway}"), wait::PATIENCE, || {
            let words = ["neigh", "show", &VIP.to_string(), "dev", "segment"];
            Ok(gateways.topology.outside.run("ip", &words)?.contains(&mac))
        })
    }

    /// Asks on all connections: none may be lost, and this gateway has to carry them, by XDP.
    fn keep(&self, crowd: &mut Crowd, gateway: usize, when: &str) -> Result<()> {
        let before = self.carried(gateway)?;
        keeps(crowd, when)?;
        let packets = self.carried(gateway)?.saturating_sub(before);
        let least = crowd.len() as u64 * 2;
        ensure!(packets >= least, "{when}: gateway {gateway} carried {packets} of {least} packets");
        Ok(())
    }

    fn carried(&self, gateway: usize) -> Result<u64> {
        Ok(crate::gateways::carried(&self.agents[gateway])?.all)
    }
}
