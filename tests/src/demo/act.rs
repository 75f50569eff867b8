//! What happens in the demo, in this order.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};

use super::options::Options;
use super::report::{Report, percent};
use super::summary::Summary;
use super::views;
use crate::agent::Agent;
use crate::dns::{Resolver, ask_over_tcp};
use crate::flows::Counters;
use crate::http::{Connection, get_once};
use crate::objects::{DNS_FRONTEND, Manifests, WEB_FRONTEND, WEB_NODE_PORT};
use crate::spread::{self, Spread};
use crate::stage::Stage;
use crate::topology::{NODE, Topology};
use crate::transfer::{Blob, SIXTY_FOUR_MIB};
use crate::workload::Workload;

const MIB: u64 = 1 << 20;

/// Makes the namespaces, starts the servers and the agent.
pub(super) fn raise(options: &Options, report: &Report) -> Result<Stage> {
    report.step("making the node, its pods, a client and an outside host in namespaces");
    let topology = Topology::example()?;
    let workload = Workload::start(&topology)?;
    let manifests = Manifests::at(
        &options
            .examples
            .canonicalize()
            .with_context(|| format!("{}: pass --examples DIR", options.examples.display()))?,
    );
    let agent = Agent::new(&topology, &manifests, &[]);
    let mut stage = Stage { agent, workload, manifests, topology };
    report.step(&format!("starting the agent on {}", stage.manifests.directory().display()));
    stage.agent.spawn()?;
    stage.agent.wait_ready()?;
    report.step("the agent is ready");
    Ok(stage)
}

/// Plays all scenes.
pub(super) fn play(stage: &mut Stage, report: &Report) -> Result<Summary> {
    let mut summary = Summary { kernel: kernel(), ..Summary::default() };
    views::services(stage, report)?;
    short_connections(stage, report, &mut summary)?;
    questions(stage, report, &mut summary)?;
    from_outside(stage, report, &mut summary)?;
    let mut lasting = Connection::open(&stage.client()?, WEB_FRONTEND)?;
    long_transfer(stage, report, &mut summary, &mut lasting)?;
    views::flows(stage, report)?;
    views::map(stage, report)?;
    without_agent(stage, report, &mut summary, &mut lasting)?;
    Ok(summary)
}

fn short_connections(stage: &Stage, report: &Report, summary: &mut Summary) -> Result<()> {
    const COUNT: u64 = 30;
    report.step(&format!("{COUNT} HTTP requests, each on a connection of its own"));
    let client = stage.client()?;
    summary.spread = tally(summary, COUNT, || get_once(&client, WEB_FRONTEND, "/"));
    report.heading(
        "Short HTTP connections, pod to ClusterIP",
        "IPVS schedules every connection: round robin over three endpoints is exact",
    );
    report.data(&shown(&summary.spread));
    Ok(())
}

fn questions(stage: &Stage, report: &Report, summary: &mut Summary) -> Result<()> {
    const COUNT: u64 = 20;
    report.step(&format!("{COUNT} DNS questions over UDP from new ports, {COUNT} from one, 4 TCP"));
    let client = stage.client()?;
    let fresh = tally(summary, COUNT, || Resolver::open(&client, DNS_FRONTEND)?.ask());
    let mut resolver = Resolver::open(&client, DNS_FRONTEND)?;
    let one_port = tally(summary, COUNT, || resolver.ask());
    let tcp = tally(summary, 4, || ask_over_tcp(&client, DNS_FRONTEND));
    report.heading(
        "DNS questions, pod to ClusterIP",
        "a UDP flow stays with its backend; every new one is scheduled",
    );
    report.data(&format!(
        "UDP, a new port each:  {}\nUDP, one port:         {}\nTCP, same port number: {}",
        shown(&fresh),
        shown(&one_port),
        shown(&tcp)
    ));
    Ok(())
}

fn from_outside(stage: &Stage, report: &Report, summary: &mut Summary) -> Result<()> {
    const COUNT: u64 = 9;
    report.step(&format!("{COUNT} requests from outside to the NodePort"));
    let frontend = SocketAddr::from((NODE, WEB_NODE_PORT));
    let outside = &stage.topology.outside;
    let answers = tally(summary, COUNT, || get_once(outside, frontend, "/"));
    let source = get_once(outside, frontend, "/source")?;
    report.heading(
        &format!("From outside to the NodePort, {frontend}"),
        "the outside host knows no pod: its connections are masqueraded, so that answers come back",
    );
    report.data(&format!("{}\nthe backend saw the client as {source}", shown(&answers)));
    Ok(())
}

fn long_transfer(
    stage: &Stage,
    report: &Report,
    summary: &mut Summary,
    connection: &mut Connection,
) -> Result<()> {
    report.step("64 MiB from a pod to the client pod, through the ClusterIP");
    let expected = std::thread::spawn(|| Blob::of(SIXTY_FOUR_MIB).digest());
    let before = Counters::read(&stage.agent)?;
    let mut shown_at = 0;
    let start = std::time::Instant::now();
    let digest = connection.download(SIXTY_FOUR_MIB, |done| {
        if done >= shown_at + 16 * MIB {
            shown_at = done;
            report.step(&format!("  {} of 64 MiB", done / MIB));
        }
    });
    let took = start.elapsed();
    let counters = Counters::read(&stage.agent)?.since(&before);
    let expected = expected.join().unwrap_or_default();
    summary.requests += 1;
    summary.errors += u64::from(digest.is_err());
    summary.digest_ok = digest.as_ref().is_ok_and(|digest| *digest == expected);
    summary.fast_path_share = counters.share();
    report.heading(
        "One long transfer: 64 MiB, pod to ClusterIP",
        "the fast path repeats what the kernel did to the first packets; the digest shows that \
         nothing was lost or changed",
    );
    let (fast, slow) = (counters.hits(), counters.slow());
    let rate = 64.0 / took.as_secs_f64();
    report.data(&format!(
        "sha256 sent      {expected}\n\
         sha256 received  {}\n\
         packets          {fast} on the fast path, {slow} on the slow path: {} fast\n\
         time             {:.1} s, {rate:.0} MiB/s (both ends compute digests)",
        digest.unwrap_or_else(|error| format!("{error:#}")),
        percent(counters.share()),
        took.as_secs_f64(),
    ));
    Ok(())
}

fn without_agent(
    stage: &mut Stage,
    report: &Report,
    summary: &mut Summary,
    lasting: &mut Connection,
) -> Result<()> {
    const COUNT: u64 = 30;
    let pid = stage.agent.pid()?;
    report.step(&format!("kill -9 {pid}: the agent is gone"));
    stage.agent.kill()?;
    let client = stage.client()?;
    let before = Counters::read(&stage.agent)?;
    let mut after = Summary::default();
    let old = tally(&mut after, 200, || lasting.get("/"));
    let counters = Counters::read(&stage.agent)?.since(&before);
    let new = tally(&mut after, COUNT, || get_once(&client, WEB_FRONTEND, "/"));
    let dns = tally(&mut after, 10, || Resolver::open(&client, DNS_FRONTEND)?.ask());
    summary.errors_after_kill = after.errors;
    report.heading(
        &format!("After kill -9 of the agent (process {pid})"),
        "no agent is in the packet path: connections go on, new ones are scheduled, flows stay fast",
    );
    report.data(&format!(
        "200 requests on the connection from before: {} ({} of the packets on the fast path)\n\
         {COUNT} new connections:                         {}\n\
         10 new DNS questions:                       {}\n\
         errors:                                     {}",
        shown(&old),
        percent(counters.share()),
        shown(&new),
        shown(&dns),
        after.errors
    ));
    Ok(())
}

/// Repeats an exchange, counts it and its failure, and returns who answered.
fn tally(
    summary: &mut Summary,
    count: u64,
    mut exchange: impl FnMut() -> Result<String>,
) -> Spread {
    let mut answers = Vec::new();
    for _ in 0..count {
        summary.requests += 1;
        match exchange() {
            Ok(answer) => answers.push(answer),
            Err(error) => {
                summary.errors += 1;
                eprintln!("  {error:#}");
            }
        }
    }
    spread::of(answers)
}

fn shown(spread: &Spread) -> String {
    let parts: Vec<String> = spread.iter().map(|(name, count)| format!("{name} {count}")).collect();
    if parts.is_empty() { "nobody answered".to_owned() } else { parts.join("  ") }
}

fn kernel() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}
