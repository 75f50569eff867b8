//! What a configuration of kube-proxy asks for is in the kernel, and gone after cleanup.

use std::fs;

use anyhow::{Result, ensure};
use proxy_tests::agent;
use proxy_tests::http::get_once;
use proxy_tests::node_state::NodeState;
use proxy_tests::objects::WEB_FRONTEND;
use proxy_tests::process;
use proxy_tests::stage::Stage;

use crate::scenario::{AGENT, scenarios};

scenarios! { AGENT =>
    kube_proxys_configuration_is_in_force_and_cleanup_takes_it_back,
    configuration_with_an_unknown_field_starts_nothing,
}

const CONFIG_MAP: &str = "\
apiVersion: v1
kind: ConfigMap
metadata: {name: kube-proxy, namespace: kube-system}
data:
  config.conf: |-
    apiVersion: kubeproxy.config.k8s.io/v1alpha1
    kind: KubeProxyConfiguration
    mode: iptables
    oomScoreAdj: -500
    ipvs:
      scheduler: wlc
      strictARP: true
      tcpTimeout: 2h
      udpTimeout: 77s
    conntrack:
      tcpEstablishedTimeout: 13h
      udpTimeout: 44s
";

/// The settings that the configuration asks for; the last one follows from `ipvs.tcpTimeout`.
const EXPECTED: &[(&str, &str)] = &[
    ("net/ipv4/conf/all/arp_ignore", "1"),
    ("net/ipv4/conf/all/arp_announce", "2"),
    ("net/netfilter/nf_conntrack_tcp_timeout_established", "46800"),
    ("net/netfilter/nf_conntrack_tcp_timeout_close_wait", "3600"),
    ("net/netfilter/nf_conntrack_udp_timeout", "44"),
    ("net/netfilter/nf_conntrack_tcp_timeout_unacknowledged", "7300"),
];

fn timeouts(stage: &Stage) -> Result<String> {
    let text = stage.topology.node.run("ipvsadm", &["-l", "--timeout"])?;
    Ok(text.trim().to_owned())
}

fn kube_proxys_configuration_is_in_force_and_cleanup_takes_it_back() -> Result<()> {
    let mut stage = Stage::without_agent(&[])?;
    let config = stage.topology.directory().join("kube-proxy.yaml");
    fs::write(&config, CONFIG_MAP)?;
    let (state_dir, bpffs) = (stage.topology.state_dir(), stage.topology.bpffs());
    let photograph = |stage: &Stage| NodeState::of(&stage.topology.node, &[&state_dir, &bpffs]);
    let (before, timeouts_before) = (photograph(&stage)?, timeouts(&stage)?);

    stage.agent.set_options(&["--config", &config.to_string_lossy()]);
    stage.agent.spawn()?;
    stage.agent.wait_ready()?;
    for (key, value) in EXPECTED {
        let found = stage.topology.node.sysctl(key)?;
        ensure!(found.trim() == *value, "{key} is {found}, not {value}");
    }
    let found = timeouts(&stage)?;
    ensure!(found == "Timeout (tcp tcpfin udp): 7200 120 77", "{found}");
    let score = fs::read_to_string(format!("/proc/{}/oom_score_adj", stage.agent.pid()?))?;
    ensure!(score.trim() == "-500", "oom_score_adj is {score}");
    let services = stage.topology.node.run("ipvsadm", &["-Ln"])?;
    ensure!(services.contains(&format!("{WEB_FRONTEND} wlc")), "{services}");
    let name = get_once(&stage.client()?, WEB_FRONTEND, "/")?;
    ensure!(name.starts_with("web-"), "{name}");
    let line = stage.agent.wait_log(&["field_ignored", "iptables"])?;
    ensure!(line.contains("IPVS schedules"), "{line}");

    stage.agent.terminate()?;
    stage.agent.text(&["cleanup"])?;
    let (after, found) = (photograph(&stage)?, timeouts(&stage)?);
    let (left, lost) = (after.without(&before), before.without(&after));
    ensure!(left.is_empty() && lost.is_empty(), "left: {left:#?}\nlost: {lost:#?}");
    ensure!(found == timeouts_before, "{found}, not {timeouts_before}");
    Ok(())
}

fn configuration_with_an_unknown_field_starts_nothing() -> Result<()> {
    let mut stage = Stage::without_agent(&[])?;
    let config = stage.topology.directory().join("kube-proxy.yaml");
    fs::write(&config, CONFIG_MAP.replace("strictARP", "strictArp"))?;
    stage.agent.set_options(&["--config", &config.to_string_lossy()]);
    stage.agent.spawn()?;
    let status = stage.agent.wait_ended()?;
    ensure!(status.code() == Some(2), "{status}");
    let log = stage.agent.log();
    ensure!(log.contains("ipvs.strictArp: unknown field; did you mean ipvs.strictARP?"), "{log}");
    let binary = agent::binary()?;
    let words = ["config", "convert", &*config.to_string_lossy()];
    let output = stage.topology.node.output(&binary.to_string_lossy(), &words)?;
    let complaint = process::complaint(&output);
    ensure!(output.status.code() == Some(2), "{}: {complaint}", output.status);
    ensure!(complaint.contains("did you mean ipvs.strictARP?"), "{complaint}");
    Ok(())
}
