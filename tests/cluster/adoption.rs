//! From the real kube-proxy to the agent and back, with connections held all the way.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use proxy_tests::{
    agent::Agent,
    echo::{Dial, EchoServer},
    netns::Namespace,
    objects::Manifests,
    process,
    topology::{NODE as NODE_ADDR, Topology},
    wait,
};
use proxy_userspace::{config::Vips, model::Protocol};

use crate::{
    cluster::{Cluster, NODE},
    held::Held,
    kube_proxy::KubeProxy,
    manifests::{namespace, node},
    on_a_node::{PATIENCE, Test},
};

pub(crate) const TESTS: &[Test] = &[(
    "connections_outlive_the_way_from_kube_proxy_to_the_agent_and_back",
    connections_outlive_the_way_from_kube_proxy_to_the_agent_and_back,
)];

const PODS: &[(&str, u8)] = &[("web-a", 11), ("web-b", 12), ("client", 31)];
/// Where the pods answer.
const TARGET: u16 = 9000;
const PORT: u16 = 7;
const NODE_PORT: u16 = 30007;
const CLUSTER_IP: SocketAddr = at([10, 96, 0, 10], PORT);
/// A Service that goes while nobody looks.
const GONE: SocketAddr = at([10, 96, 0, 20], PORT);
const GONE_NODE_PORT: u16 = 30020;
/// A virtual server of the operator's own.
const OPERATORS: &str = "10.250.0.9:99";
const ENOUGH: u64 = 20;
const AS_ROUTES: &[&str] = &["--adopt"];
const AS_ADDRESSES: &[&str] = &["--adopt", "--vips", "addresses"];
/// Milliseconds after which an agent has carried most of a pass out, in an emulated guest.
const LAST: u64 = 1200;

const fn at(addr: [u8; 4], port: u16) -> SocketAddr {
    let [a, b, c, d] = addr;
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(a, b, c, d)), port)
}

fn connections_outlive_the_way_from_kube_proxy_to_the_agent_and_back() -> Result<()> {
    let topology = Topology::with_pods(PODS)?;
    let serve = |name: &str| {
        let pod = &topology.pod(name)?.namespace;
        EchoServer::start(pod, TARGET, name, &[Protocol::Tcp, Protocol::Udp])
    };
    let _servers = [serve("web-a")?, serve("web-b")?];
    // Processes end with the thread that started them: everything happens in this one.
    topology.node.enter(|| Scene::set(&topology)?.play())
}

/// The cluster, the agent and who asks.
struct Scene<'a> {
    topology: &'a Topology,
    cluster: Cluster,
    agent: Agent,
    options: Vec<String>,
    client: Namespace,
}

impl<'a> Scene<'a> {
    fn set(topology: &'a Topology) -> Result<Self> {
        let cluster = Cluster::start()?;
        let objects = [
            namespace("shop"),
            node(NODE, &NODE_ADDR.to_string()),
            echo("echo", CLUSTER_IP, NODE_PORT),
            echo("gone", GONE, GONE_NODE_PORT),
        ];
        cluster.apply(&objects.concat())?;
        let (kubeconfig, _) = cluster.direct_login("agent")?;
        let options = [
            format!("--kubeconfig={}", kubeconfig.display()),
            format!("--hostname-override={NODE}"),
            format!("--snapshot-dir={}", topology.directory().join("snapshots").display()),
            "--cluster-cidr=10.1.0.0/16".to_owned(),
            "--detect-local-mode=ClusterCIDR".to_owned(),
        ]
        .to_vec();
        let manifests = Manifests::empty_in(topology.directory())?;
        let agent = Agent::new(topology, &manifests, &[]).following("kubernetes");
        let client = topology.pod("client")?.namespace.clone();
        Ok(Self { topology, cluster, agent, options, client })
    }

    fn play(mut self) -> Result<()> {
        let proxy = KubeProxy::start(&self.cluster, self.topology.directory())?;
        self.answered().context("kube-proxy serves").with_context(|| proxy.log())?;
        self.others_come()?;
        let held = self.hold()?;
        go_on(&held)?;
        self.refused_beside_a_live_one()?;

        self.begin_beside_a_live_one()?;
        go_on(&held).context("both run")?;
        proxy.kill()?;
        self.agent.wait_log(&["adoption_done"])?;
        go_on(&held).context("the agent has taken over")?;
        self.cluster.kubectl(&["delete", "service", "gone", "-n", "shop"])?;
        wait::until_true("only the agent is left", PATIENCE, || {
            Ok(self.only_the_agent_is_left(Vips::Routes).is_ok())
        })?;
        self.only_the_agent_is_left(Vips::Routes)?;
        self.answered().context("the agent serves")?;

        self.agent.terminate()?;
        self.agent.text(&["cleanup", "--leave-forwarding"])?;
        go_on(&held).context("nobody is there")?;
        self.only_forwarding_is_left()?;
        self.answered().context("nobody is there, and new connections come")?;
        let proxy = KubeProxy::start(&self.cluster, self.topology.directory())?;
        self.agent.text(&["cleanup"])?;
        ensure!(!tables()?.contains("passlane"), "our table is left: {}", tables()?);
        go_on(&held).context("kube-proxy is back")?;
        self.answered().context("kube-proxy serves again").with_context(|| proxy.log())?;
        proxy.kill()?;

        self.killed_at_many_moments(&held).context("an agent is killed while it takes over")?;
        go_on(&held).context("the agent took over in the end")?;
        self.only_the_agent_is_left(Vips::Routes)?;
        self.answered().context("the agent serves in the end")?;
        for held in held {
            held.end().with_context(|| self.agent.log())?;
        }
        Ok(())
    }

    /// What the kubelet and an operator have on the node.
    fn others_come(&self) -> Result<()> {
        process::feed(
            "iptables-restore",
            &["--noflush"],
            "*filter\n:KUBE-FIREWALL - [0:0]\n-A OUTPUT -j KUBE-FIREWALL\n\
             -A KUBE-FIREWALL -d 127.0.0.0/8 -s 192.0.2.0/24 -j DROP\nCOMMIT\n\
             *mangle\n:KUBE-KUBELET-CANARY - [0:0]\nCOMMIT\n",
        )?;
        process::run("ipvsadm", &["-A", "-t", OPERATORS, "-s", "rr"])?;
        process::run("ipset", &["create", "operators", "hash:ip"]).map(drop)
    }

    fn hold(&self) -> Result<Vec<Held>> {
        let (client, outside, node) = (&self.client, &self.topology.outside, &self.topology.node);
        let node_port = SocketAddr::from((NODE_ADDR, NODE_PORT));
        Ok(vec![
            Held::open("pod to cluster IP, TCP", client, Protocol::Tcp, CLUSTER_IP)?,
            Held::open("pod to cluster IP, UDP", client, Protocol::Udp, CLUSTER_IP)?,
            Held::open("outside to node port, TCP", outside, Protocol::Tcp, node_port)?,
            Held::open("outside to node port, UDP", outside, Protocol::Udp, node_port)?,
            Held::open("process of the node, TCP", node, Protocol::Tcp, CLUSTER_IP)?,
        ])
    }

    fn refused_beside_a_live_one(&mut self) -> Result<()> {
        self.start(&[])?;
        let status = self.agent.wait_ended()?;
        ensure!(status.code() == Some(3), "{status}: {}", self.agent.log());
        let log = self.agent.log();
        ensure!(log.contains("kube-proxy runs on this node (mode ipvs"), "{log}");
        ensure!(log.contains("passlane run --adopt"), "{log}");
        let doctor = self.agent.json("doctor")?.to_string();
        ensure!(doctor.contains("kube-proxy") && doctor.contains("mode ipvs"), "{doctor}");
        Ok(())
    }

    fn start(&mut self, more: &[&str]) -> Result<()> {
        let options = self.options.iter().map(String::as_str).chain(more.iter().copied());
        self.agent.set_options(&options.collect::<Vec<_>>());
        self.agent.spawn()
    }

    fn begin_beside_a_live_one(&mut self) -> Result<()> {
        self.start(AS_ROUTES)?;
        self.agent.wait_ready()?;
        self.agent.wait_log(&["beside_kube_proxy", "process"])?;
        let rules = rules()?;
        ensure!(rules.contains("-A KUBE-POSTROUTING"), "kube-proxy's rules are gone: {rules}");
        Ok(())
    }

    /// An agent that is killed leaves what the next one goes on from: it is killed after it has
    /// begun to take over, each time a little later, and each time from the beginning.
    fn killed_at_many_moments(&mut self, held: &[Held]) -> Result<()> {
        let left = Recording::take()?;
        let ledger = self.topology.state_dir().join("ledger.jsonl");
        for (millis, vips, options) in [
            (0, Vips::Routes, AS_ROUTES),
            (20, Vips::Addresses, AS_ADDRESSES),
            (100, Vips::Routes, AS_ROUTES),
            (300, Vips::Routes, AS_ROUTES),
            (600, Vips::Addresses, AS_ADDRESSES),
            (LAST, Vips::Routes, AS_ROUTES),
        ] {
            let begun = self.begun();
            self.start(options)?;
            wait::until_true(
                "the agent begins to take over",
                PATIENCE,
                || Ok(self.begun() > begun),
            )
            .with_context(|| self.agent.log())?;
            wait::pause(Duration::from_millis(millis));
            self.agent.kill()?;
            let answered: Vec<u64> = held.iter().map(Held::answered).collect();
            let stand = Recording::take()?.summary();
            eprintln!("killed {millis} ms later, with {answered:?} answers: {stand}");
            self.start(options)?;
            self.agent.wait_ready()?;
            wait::until_true("nothing of kube-proxy is left", PATIENCE, || {
                Ok(self.only_the_agent_is_left(vips).is_ok())
            })
            .with_context(|| format!("{:?}", self.only_the_agent_is_left(vips)))?;
            go_on(held).with_context(|| format!("killed {millis} ms later"))?;
            self.agent.kill()?;
            if millis < LAST {
                std::fs::remove_file(&ledger)?;
                left.put_back()?;
            }
        }
        self.start(AS_ROUTES)?;
        self.agent.wait_ready()
    }

    /// How often an agent has begun to take over.
    fn begun(&self) -> usize {
        self.agent.log().matches("what kube-proxy has left is taken over").count()
    }

    fn only_the_agent_is_left(&self, vips: Vips) -> Result<()> {
        let rules = rules()?;
        let ours = rules.lines().filter(|line| line.contains("KUBE-"));
        let strange: Vec<&str> = ours
            .filter(|line| !line.contains("KUBE-FIREWALL") && !line.contains("KUBE-KUBELET-CANARY"))
            .collect();
        ensure!(strange.is_empty(), "rules of kube-proxy: {strange:#?}");
        ensure!(rules.contains("-A OUTPUT -j KUBE-FIREWALL"), "the kubelet's are gone: {rules}");
        ensure!(rules.contains(":KUBE-KUBELET-CANARY"), "the kubelet's are gone: {rules}");
        let sets = process::run("ipset", &["list", "-n"])?;
        ensure!(sets.trim() == "operators", "ip sets: {sets}");
        let servers = process::run("ipvsadm", &["-Sn"])?;
        for gone in [GONE.to_string(), format!("{NODE_ADDR}:{GONE_NODE_PORT}")] {
            ensure!(!servers.contains(&gone), "{gone} is there: {servers}");
        }
        ensure!(servers.contains(OPERATORS), "the operator's is gone: {servers}");
        let addrs = process::run("ip", &["-o", "-4", "addr", "show", "dev", "kube-ipvs0"])?;
        let routes = process::run("ip", &["route", "show", "table", "local", "proto", "112"])?;
        let vip = CLUSTER_IP.ip();
        ensure!(!addrs.contains(&GONE.ip().to_string()), "{} is there: {addrs}", GONE.ip());
        match vips {
            Vips::Routes => {
                ensure!(addrs.is_empty(), "addresses: {addrs}");
                ensure!(routes.contains(&format!("local {vip} dev kube-ipvs0")), "{routes}");
                ensure!(!routes.contains(" lo "), "spare routes: {routes}");
            }
            Vips::Addresses => {
                ensure!(addrs.contains(&format!("inet {vip}/32")), "addresses: {addrs}");
                ensure!(routes.is_empty(), "routes: {routes}");
            }
            Vips::None => ensure!(addrs.is_empty() && routes.is_empty(), "{addrs}{routes}"),
        }
        Ok(())
    }

    fn only_forwarding_is_left(&self) -> Result<()> {
        ensure!(!self.agent.pins().exists(), "pins are left");
        let addrs = process::run("ip", &["-o", "-4", "addr", "show", "dev", "kube-ipvs0"])?;
        ensure!(addrs.contains(&format!("inet {}/32", CLUSTER_IP.ip())), "addresses: {addrs}");
        let routes = process::run("ip", &["route", "show", "table", "local", "proto", "112"])?;
        ensure!(routes.is_empty(), "routes: {routes}");
        let servers = process::run("ipvsadm", &["-Sn"])?;
        ensure!(
            servers.contains(&format!("-a -t {CLUSTER_IP} -r 10.1.1.11:{TARGET}")),
            "{servers}"
        );
        Ok(())
    }

    /// Waits until new connections are answered by both pods, by every way.
    fn answered(&self) -> Result<()> {
        let node_port = SocketAddr::from((NODE_ADDR, NODE_PORT));
        let ways = [
            (&self.client, CLUSTER_IP),
            (&self.topology.outside, node_port),
            (&self.topology.node, CLUSTER_IP),
        ];
        for (namespace, to) in ways {
            wait::until_true(
                &format!("both answer {} at {to}", namespace.name()),
                PATIENCE,
                || {
                    let dial = Dial::new(namespace, Protocol::Tcp, to);
                    let answers = (0..4).map(|_| Ok(dial.answer()?.by));
                    let answers: Result<Vec<String>> = answers.collect();
                    Ok(["web-a", "web-b"].iter().all(|pod| {
                        answers.as_ref().is_ok_and(|names| names.iter().any(|name| name == pod))
                    }))
                },
            )?;
        }
        Ok(())
    }
}

fn go_on(held: &[Held]) -> Result<()> {
    eprintln!("{:?} answers", held.iter().map(Held::answered).collect::<Vec<_>>());
    held.iter().try_for_each(|held| held.go_on(ENOUGH))
}

fn rules() -> Result<String> {
    Ok(process::run("iptables-save", &[] as &[&str])?
        + &process::run("ip6tables-save", &[] as &[&str])?)
}

fn tables() -> Result<String> {
    process::run("nft", &["list", "tables"])
}

/// Returns a Service with a node port over TCP and UDP, which both web pods serve.
fn echo(name: &str, at: SocketAddr, node_port: u16) -> String {
    let port = |protocol: &str| {
        format!(
            "{{name: {}, protocol: {protocol}, port: {}, targetPort: {TARGET}, \
             nodePort: {node_port}}}",
            protocol.to_lowercase(),
            at.port()
        )
    };
    let target = |protocol: &str| {
        format!("{{name: {}, protocol: {protocol}, port: {TARGET}}}", protocol.to_lowercase())
    };
    let endpoint = |addr: &str| {
        format!("{{addresses: [{addr}], conditions: {{ready: true}}, nodeName: {NODE}}}")
    };
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{type: NodePort, clusterIP: {ip}, selector: {{app: {name}}}, \
         ports: [{tcp}, {udp}]}}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: {name}-1, namespace: shop, \
         labels: {{kubernetes.io/service-name: {name}}}}}\n\
         addressType: IPv4\nports: [{target_tcp}, {target_udp}]\n\
         endpoints: [{a}, {b}]\n---\n",
        ip = at.ip(),
        tcp = port("TCP"),
        udp = port("UDP"),
        target_tcp = target("TCP"),
        target_udp = target("UDP"),
        a = endpoint("10.1.1.11"),
        b = endpoint("10.1.1.12"),
    )
}

/// What the real kube-proxy has left beside IPVS, as the tools that it uses themselves save it.
struct Recording {
    rules: [String; 2],
    sets: String,
    addrs: Vec<String>,
}

impl Recording {
    fn take() -> Result<Self> {
        let save = |program| process::run(program, &[] as &[&str]);
        let shown = process::run("ip", &["-o", "-4", "addr", "show", "dev", "kube-ipvs0"])?;
        let addrs = shown.lines().filter_map(|line| line.split_whitespace().nth(3));
        Ok(Self {
            rules: [save("iptables-save")?, save("ip6tables-save")?],
            sets: process::run("ipset", &["save"])?,
            addrs: addrs.map(str::to_owned).collect(),
        })
    }

    fn put_back(&self) -> Result<()> {
        process::feed("ipset", &["restore", "-exist"], &self.sets)?;
        for (program, rules) in ["iptables-restore", "ip6tables-restore"].iter().zip(&self.rules) {
            process::feed(program, &[] as &[&str], rules)?;
        }
        for addr in &self.addrs {
            process::run("ip", &["addr", "replace", addr, "dev", "kube-ipvs0"])?;
        }
        // No more than kube-proxy had; the addresses keep the VIPs local.
        process::run("ip", &["route", "flush", "table", "local", "proto", "112"])?;
        // And a Service that has gone since.
        let (gone, port) = (GONE.ip().to_string(), GONE_NODE_PORT.to_string());
        process::run("ip", &["addr", "replace", &gone, "dev", "kube-ipvs0"])?;
        process::run("ipvsadm", &["-A", "-t", &GONE.to_string(), "-s", "rr"])?;
        process::run("ipset", &["add", "KUBE-NODE-PORT-TCP", &port, "-exist"])?;
        process::run("ipvsadm", &["-A", "-t", &format!("{NODE_ADDR}:{port}"), "-s", "rr"])?;
        Ok(())
    }

    fn summary(&self) -> String {
        let count =
            |text: &str, word: &str| text.lines().filter(|line| line.contains(word)).count();
        format!(
            "{} rules of chains of kube-proxy, {} sets, {} addresses",
            self.rules.iter().map(|rules| count(rules, "-A KUBE-")).sum::<usize>(),
            count(&self.sets, "create KUBE-"),
            self.addrs.len()
        )
    }
}
