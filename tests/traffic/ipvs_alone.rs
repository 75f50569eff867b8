//! IPVS configured by hand on the same stage: what the agent's scenarios are compared with.

use anyhow::{Result, ensure};
use proxy_tests::http::get_once;
use proxy_tests::ipvs;
use proxy_tests::objects::{WEB_FRONTEND, WEB_TARGET_PORT};
use proxy_tests::topology::Topology;
use proxy_tests::workload::Workload;

use crate::scenario::{Need, scenarios};

scenarios! { &[Need::Root, Need::Ipvs, Need::Program("ipvsadm")] =>
    plain_ipvs_serves_the_stage,
}

fn plain_ipvs_serves_the_stage() -> Result<()> {
    let topology = Topology::example()?;
    let _workload = Workload::start(&topology)?;
    let node = &topology.node;
    node.set_sysctl("net/ipv4/vs/conntrack", "1")?;
    node.feed(
        "ip",
        &["-batch", "-"],
        &format!(
            "link add vips type dummy\nlink set vips up\n\
             route add local {}/32 dev vips table local\n",
            WEB_FRONTEND.ip()
        ),
    )?;
    let mut rules = format!("-A -t {WEB_FRONTEND} -s rr\n");
    for name in ["web-a", "web-b", "web-c"] {
        let destination = topology.pod(name)?.at(WEB_TARGET_PORT);
        rules.push_str(&format!("-a -t {WEB_FRONTEND} -r {destination} -m\n"));
    }
    node.feed("ipvsadm", &["-R"], &rules)?;

    let client = topology.pod("client")?;
    let mut answers = Vec::new();
    for _ in 0..6 {
        answers.push(get_once(&client.namespace, WEB_FRONTEND, "/")?);
    }
    answers.sort();
    ensure!(answers == ["web-a", "web-a", "web-b", "web-b", "web-c", "web-c"], "{answers:?}");
    ensure!(ipvs::destinations(node, WEB_FRONTEND)?.is_some_and(|found| found.len() == 3));
    ensure!(ipvs::entries(node)?.len() == 6, "one connection a request");
    Ok(())
}
