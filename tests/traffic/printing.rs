//! What the command line prints is what there is, as the tools print it that people know.

use std::fmt::Write as _;

use anyhow::{Context as _, Result, ensure};
use proxy_tests::netns::Namespace;
use proxy_tests::node_state::NodeState;
use proxy_tests::objects::{ServiceObject, WEB_FRONTEND};
use proxy_tests::stage::Stage;
use proxy_tests::{process, wait};
use serde_json::Value;

use crate::scenario::{AGENT, scenarios};

scenarios! { AGENT =>
    every_list_of_ipvsadm_is_printed_byte_for_byte_also_of_what_is_not_ours,
    a_plan_says_what_the_agent_does_next_and_changes_nothing,
    verbs_print_documents_names_and_sequences_also_without_an_agent,
}

/// Everything that IPVS can hold, by the words of ipvsadm.
const RULES: &str = "\
-A -t 10.9.0.1:80 -s rr -p 100
-a -t 10.9.0.1:80 -r 10.9.1.1:8080 -m -w 3
-a -t 10.9.0.1:80 -r 10.9.1.2:80 -i -w 0
-a -t 10.9.0.1:80 -r 10.9.1.3:80 -g -x 10 -y 5
-a -t 10.9.0.1:80 -r 10.9.1.4:80 -i --tun-type gue --tun-port 6080
-a -t 10.9.0.1:80 -r 10.9.1.5:80 -i --tun-type gre --tun-csum
-a -t 10.9.0.1:80 -r 10.9.1.6:80 -i --tun-type gue --tun-port 6081 --tun-remcsum
-A -t 10.9.0.2:81 -s sh -b sh-port,sh-fallback -p 300 -M 255.255.255.0
-A -t 10.9.0.2:82 -s mh -b mh-port
-A -t 10.9.0.2:83 -s rr -b flag-1,flag-3
-A -u 10.9.0.1:53 -s rr -o
-a -u 10.9.0.1:53 -r 10.9.1.1:53 -m
-A -u 10.9.0.1:5060 -s rr --pe sip -p 60
-A -u 10.9.0.3:5060 -s wlc -o --pe sip -p 60 -M 255.255.0.0
-A --sctp-service 10.9.0.1:99 -s lc
-A -t [fd00:9::1]:80 -s wrr -p 50 -M 64
-a -t [fd00:9::1]:80 -r [fd00:9::11]:8080 -m -w 65535
-a -t [fd00:9::1]:80 -r [fd00:9::12]:80 -i
-A -t [fd00:9:1111:2222:3333:4444:5555:6666]:65000 -s wrr
-a -t [fd00:9:1111:2222:3333:4444:5555:6666]:65000 -r [fd00:9:1111:2222:3333:4444:5555:7777]:65000 -m
-A -t 192.0.2.1:1 -s rr
-A -t 172.20.0.9:1 -s rr
-A -f 7 -s rr -p 30
-a -f 7 -r 10.9.1.1:0 -m
-A -f 3 -6 -s lc -b flag-2
-a -f 3 -6 -r [fd00:9::11]:0 -g
-A -f 4000000000 -s rr
-a -f 4000000000 -r 10.9.1.1 -g
";

/// How many virtual servers there are beside those, in some order of addresses and ports.
const MANY: u32 = 3000;

fn every_list_of_ipvsadm_is_printed_byte_for_byte_also_of_what_is_not_ours() -> Result<()> {
    let stage = Stage::without_agent(&[])?;
    let node = &stage.topology.node;
    prepare(node)?;
    node.feed("ipvsadm", &["-R"], RULES)?;
    same_lists(&stage, &["-Ln", "--stats", "--rate", "-Sn"])?;
    // Connections and templates, of a mark, of both families and of datagrams.
    let ends = [
        ("10.9.0.1", "10.9.0.1:80"),
        ("fd00:9::1", "[fd00:9::1]:80"),
        ("fd00:9::1", "[fd00:9:1111:2222:3333:4444:5555:6666]:65000"),
        ("10.9.0.1", "10.9.0.77:8080"),
    ];
    for (_, to) in ends {
        let _ = connect(node, to.parse()?);
    }
    let table = || node.run("ipvsadm", &["-Lnc"]);
    wait::until_true("IPVS has connections", wait::PATIENCE, || {
        let table = table()?;
        Ok(["TCP", "IP ", "[fd00:9::"].iter().all(|word| table.contains(word)))
    })
    .with_context(|| table().unwrap_or_default())?;
    same_lists(&stage, &["-Lnc", "-Ln"])?;
    let mut many = String::new();
    for number in 0..MANY {
        let mixed = number.wrapping_mul(2_654_435_761);
        let (third, last) = (mixed >> 24 & 0xff, mixed >> 16 & 0xff);
        let port = 1000 + number;
        writeln!(many, "-A -t 10.{}.{third}.{last}:{port} -s rr", 10 + number % 200)?;
        let backend = format!("10.9.{}.{}:{port}", 2 + number % 100, 1 + last % 200);
        writeln!(many, "-a -t 10.{}.{third}.{last}:{port} -r {backend} -m", 10 + number % 200)?;
    }
    // Without connections: the lists take long, and what they count would change meanwhile.
    node.run("ipvsadm", &["-C"])?;
    node.feed("ipvsadm", &["-R"], &many)?;
    same_lists(&stage, &["-Ln", "-Sn"])?;
    let lines = stage.agent.text(&["services", "-o", "ipvsadm"])?.lines().count();
    ensure!(lines as u32 > 2 * MANY, "{lines} lines of {MANY} virtual servers");
    node.run("ipvsadm", &["-C"])?;
    same_lists(&stage, &["-Ln", "-Sn"])
}

/// Addresses to serve at and routes to send by, and a mark on packets to one address.
fn prepare(node: &Namespace) -> Result<()> {
    node.feed(
        "ip",
        &["-batch", "-"],
        "link add d0 type dummy\nlink set d0 up\naddr add 10.9.0.1/16 dev d0\n\
         addr add 10.9.0.77/16 dev d0\naddr add fd00:9::1/32 dev d0 nodad\n\
         addr add fd00:9:1111:2222:3333:4444:5555:6666/128 dev d0 nodad\n",
    )?;
    node.nft(
        "table inet marks {\nchain out {\ntype filter hook output priority mangle;\n\
         ip daddr 10.9.0.77 meta mark set 7\n}\n}\n",
    )?;
    Ok(())
}

/// Nobody answers: the attempt makes an entry.
fn connect(node: &Namespace, to: std::net::SocketAddr) -> Result<()> {
    node.enter(|| {
        let wait = std::time::Duration::from_millis(200);
        std::net::TcpStream::connect_timeout(&to, wait).map(drop).map_err(Into::into)
    })
}

fn same_lists(stage: &Stage, lists: &[&str]) -> Result<()> {
    for list in lists {
        let theirs: &[&str] = match *list {
            "--stats" => &["-Ln", "--stats"],
            "--rate" => &["-Ln", "--rate"],
            list => &[list],
        };
        let more: &[&str] = match *list {
            "-Ln" => &[],
            "-Sn" => &["-S"],
            "-Lnc" => &["-c"],
            list => &[list],
        };
        let mut shown = (String::new(), String::new());
        // Connections come to an end between two looks, and seconds pass.
        let same = wait::until_true(&format!("{list} is the same"), wait::PATIENCE / 3, || {
            shown.0 = stage.topology.node.run("ipvsadm", theirs)?;
            shown.1 = stage.agent.text(&[&["services", "-o", "ipvsadm"], more].concat())?;
            if *list != "-Lnc" {
                return Ok(shown.0 == shown.1);
            }
            let later = stage.topology.node.run("ipvsadm", theirs)?;
            let [before, ours, after] = [&shown.0, &shown.1, &later].map(|text| timeless(text));
            let times = before.1.iter().zip(&ours.1).zip(&after.1);
            let between =
                |((before, ours), after): ((&u32, &u32), &u32)| after <= ours && ours <= before;
            Ok(before.0 == ours.0 && ours.0 == after.0 && times.into_iter().all(between))
        });
        same.with_context(|| difference(&shown.0, &shown.1))?;
    }
    Ok(())
}

/// Returns a list of connections with a mark in the place of each time that is left, `MM:SS`, and the
/// times in seconds.
fn timeless(text: &str) -> (String, Vec<u32>) {
    let mut times = Vec::new();
    let mut without = String::new();
    for line in text.split_inclusive('\n') {
        let (before, rest) = line.split_at_checked(4).unwrap_or((line, ""));
        let (time, after) = rest.split_at_checked(5).unwrap_or((rest, ""));
        let seconds = time.split_once(':').and_then(|(minutes, seconds)| {
            Some(minutes.parse::<u32>().ok()? * 60 + seconds.parse::<u32>().ok()?)
        });
        times.extend(seconds);
        without += before;
        without += if seconds.is_some() { "MM:SS" } else { time };
        without += after;
    }
    (without, times)
}

fn difference(theirs: &str, ours: &str) -> String {
    let pairs = theirs.lines().zip(ours.lines()).filter(|(theirs, ours)| theirs != ours);
    let first: Vec<String> =
        pairs.take(5).map(|(theirs, ours)| format!("theirs {theirs}\nours   {ours}")).collect();
    let count = (theirs.lines().count(), ours.lines().count());
    format!("{} lines and {}\n{}", count.0, count.1, first.join("\n"))
}

fn a_plan_says_what_the_agent_does_next_and_changes_nothing() -> Result<()> {
    let mut stage = Stage::without_agent(&["--drain-timeout", "1s"])?;
    let source = format!("file:{}", stage.manifests.directory().display());
    let directories = [stage.topology.state_dir(), stage.topology.bpffs()];
    let directories: Vec<_> = directories.iter().map(std::path::PathBuf::as_path).collect();
    let plan = |stage: &Stage| stage.agent.text(&["plan", "--source", &source]);
    let node = |stage: &Stage| NodeState::of(&stage.topology.node, &directories);
    let before = node(&stage)?;
    let fresh = plan(&stage)?;
    for line in ["put-device", "put-vip 10.96.0.10", "install-table"] {
        let has = fresh.lines().any(|known| known.starts_with(line));
        ensure!(has, "no {line} in the plan of a fresh node:\n{fresh}");
    }
    let server = "put-virtual-server 10.96.0.10:80/TCP rr";
    ensure!(fresh.lines().any(|line| line.starts_with(server)), "{fresh}");
    let after = node(&stage)?;
    ensure!(after == before, "the plan left {:?}", after.without(&before));

    stage = stage.started()?;
    ensure!(plan(&stage)? == "nothing to change\n", "{}", plan(&stage)?);
    // What comes while no agent runs is what the next one does first.
    stage.agent.terminate()?;
    stage.manifests.write("web.yaml", &ServiceObject::web(&[11, 12, 31]).yaml())?;
    let text = stage.agent.text(&["plan", "--source", &source, "-o", "json"])?;
    let document: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
    ensure!(document["kind"] == "Plan" && document["apiVersion"] == "cli.passlane.io/v1", "{text}");
    let changes: Vec<&str> = document["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|each| each["change"].as_str())
        .collect();
    ensure!(
        changes
            .iter()
            .any(|change| change.starts_with("put-destination 10.96.0.10:80/TCP 10.1.1.31:8080")),
        "{text}"
    );
    ensure!(
        changes.iter().all(|change| !change.contains("10.96.0.53")),
        "nothing of other Services: {text}"
    );
    stage.agent.spawn()?;
    stage.agent.wait_ready()?;
    wait::until_true("the agent did it", wait::PATIENCE, || {
        Ok(plan(&stage)?.lines().all(|line| line == "nothing to change" || line.starts_with('(')))
    })
    .with_context(|| plan(&stage).unwrap_or_default())
}

fn verbs_print_documents_names_and_sequences_also_without_an_agent() -> Result<()> {
    let mut stage = Stage::start(&[])?;
    let mut connection = stage.fast_connection(WEB_FRONTEND)?;
    connection.get("/")?;
    stage.agent.kill()?;
    for (verb, kind) in [
        ("services", "ServiceList"),
        ("backends", "BackendList"),
        ("flows", "FlowList"),
        ("maps", "MapList"),
        ("stats", "Stats"),
        ("status", "Status"),
        ("doctor", "CheckList"),
        ("dump", "Dump"),
    ] {
        let words: &[&str] = if verb == "dump" { &[verb] } else { &[verb, "-o", "json"] };
        let output = stage.agent.verb(words)?;
        let document: Value = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("{verb}: {}", process::complaint(&output)))?;
        ensure!(document["kind"] == kind, "{verb}: {}", document["kind"]);
        ensure!(document["apiVersion"] == "cli.passlane.io/v1", "{verb}");
    }
    let lines = |words: &[&str]| -> Result<Vec<String>> {
        Ok(stage.agent.text(words)?.lines().map(str::to_owned).collect())
    };
    let has = |lines: &[String], line: &str| ensure_has(lines, line);
    has(&lines(&["services", "-o", "name"])?, "service/default/web:http")?;
    has(&lines(&["backends", "-o", "name"])?, "backend/10.1.1.11:8080/TCP")?;
    has(&lines(&["maps", "-o", "name"])?, "map/flows4")?;
    let code = stage.agent.verb(&["status", "-o", "name"])?.status.code();
    ensure!(code == Some(2), "a status has no names: {code:?}");
    let code = stage.agent.verb(&["status"])?.status.code();
    ensure!(code == Some(1), "no agent is degraded: {code:?}");

    decoded_maps(&stage, connection.local()?)?;
    sequence(&stage)
}

fn ensure_has(lines: &[String], line: &str) -> Result<()> {
    ensure!(lines.iter().any(|known| known == line), "no {line} in {lines:#?}");
    Ok(())
}

/// Every map of the list can be decoded, and the flow is in its own.
fn decoded_maps(stage: &Stage, client: std::net::SocketAddr) -> Result<()> {
    let maps = stage.agent.json("maps")?;
    let names: Vec<&str> =
        maps["items"].as_array().into_iter().flatten().filter_map(|m| m["name"].as_str()).collect();
    ensure!(names.len() == proxy_common::abi::MAPS.len(), "{names:?}");
    for name in names {
        let text = stage.agent.text(&["maps", name, "-o", "json"])?;
        let document: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
        ensure!(document["map"] == name, "{text}");
    }
    let text = stage.agent.text(&["maps", "flows4", "-o", "json"])?;
    let document: Value = serde_json::from_str(&text)?;
    let found = document["items"].as_array().into_iter().flatten().any(|entry| {
        let key = &entry["key"];
        key["source"] == client.ip().to_string()
            && key["source_port"] == client.port()
            && key["destination"] == "10.96.0.10"
            && key["destination_port"] == 80
    });
    ensure!(found, "{text}");
    let text = stage.agent.text(&["maps", "stats"])?;
    ensure!(text.lines().any(|line| line.starts_with("hit ")), "{text}");
    let code = stage.agent.verb(&["maps", "nonsense"])?.status.code();
    ensure!(code == Some(2), "{code:?}");
    Ok(())
}

/// `--watch` goes on until it is ended, a document a line.
fn sequence(stage: &Stage) -> Result<()> {
    let binary = proxy_tests::agent::binary()?;
    let state_dir = stage.topology.state_dir();
    let output = stage.topology.node.output(
        "timeout",
        &[
            "4",
            &binary.to_string_lossy(),
            "services",
            "--watch",
            "--interval",
            "300ms",
            "-o",
            "json",
            "--state-dir",
            &state_dir.to_string_lossy(),
        ],
    )?;
    ensure!(output.status.code() == Some(124), "{}", process::complaint(&output));
    let text = String::from_utf8_lossy(&output.stdout);
    let documents: Vec<Value> =
        text.lines().map(serde_json::from_str).collect::<Result<_, _>>().context("JSON lines")?;
    ensure!(documents.len() >= 2, "{text}");
    ensure!(documents.iter().all(|each| each["kind"] == "ServiceList"), "{text}");
    Ok(())
}
