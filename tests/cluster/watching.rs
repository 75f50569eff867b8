//! What is made with kubectl arrives, as it is now and nothing else.

use anyhow::{Result, ensure};

use crate::{
    cluster::{Cluster, NODE},
    follower::{Follower, options},
    manifests::{namespace, node, service, slice},
};

crate::tests![
    objects_made_with_kubectl_arrive_and_their_changes_follow,
    a_proxy_with_a_name_of_its_own_sees_its_services_only,
    the_next_api_server_is_used_when_one_is_away,
];

const HEADLESS: &str = "\
apiVersion: v1
kind: Service
metadata: {name: headless, namespace: watching}
spec: {clusterIP: None, selector: {app: web}, ports: [{port: 80}]}
---
";

fn objects_made_with_kubectl_arrive_and_their_changes_follow(cluster: &Cluster) -> Result<()> {
    let other_proxy = "labels: {service.kubernetes.io/service-proxy-name: other}";
    cluster.apply(
        &[
            namespace("watching"),
            node(NODE, "192.0.2.10"),
            node("node-b", "192.0.2.11"),
            service("watching", "web", ""),
            slice("watching", "web", &["10.244.1.5", "10.244.2.6"]),
            service("watching", "others", other_proxy),
            HEADLESS.to_owned(),
        ]
        .concat(),
    )?;
    let relay = cluster.relay()?;
    let mut follower = Follower::connect(options(cluster, "watching", &relay)?)?;
    ensure!(follower.replaced == 1, "{} updates told everything", follower.replaced);
    let known = follower.known.clone().unwrap_or_default();
    ensure!(follower.services_in("watching") == ["web"], "{:?}", known.services);
    ensure!(follower.services_in("default") == ["kubernetes"], "{:?}", known.services);
    ensure!(follower.endpoints("watching", "web-1") == ["10.244.1.5", "10.244.2.6"]);
    let nodes: Vec<_> = known.nodes.values().collect();
    ensure!(nodes.len() == 1 && nodes[0].name == NODE, "{nodes:?}");
    ensure!(nodes[0].zone.as_deref() == Some("zone-1") && !nodes[0].pod_cidrs.is_empty());
    let cidrs: Vec<_> = known.service_cidrs.iter().map(ToString::to_string).collect();
    ensure!(cidrs == ["10.96.0.0/16"], "the API server's own range is {cidrs:?}");
    ensure!(follower.last.error.is_none() && follower.notices().is_empty());

    cluster.apply(&slice("watching", "web", &["10.244.2.6", "10.244.3.7"]))?;
    let moved = ["10.244.2.6", "10.244.3.7"];
    follower.until("the endpoints moved", |now| now.endpoints("watching", "web-1") == moved)?;
    cluster.apply(&service("watching", "later", ""))?;
    follower
        .until("a later service is there", |now| now.services_in("watching") == ["later", "web"])?;
    cluster.kubectl(&[
        "label",
        "service",
        "-n",
        "watching",
        "others",
        "service.kubernetes.io/service-proxy-name-",
    ])?;
    follower.until("a service that became ours is there", |now| {
        now.services_in("watching") == ["later", "others", "web"]
    })?;
    cluster.kubectl(&["delete", "service", "-n", "watching", "web", "later", "--wait=false"])?;
    follower.until("deleted services are gone", |now| now.services_in("watching") == ["others"])?;
    cluster.kubectl(&["taint", "node", NODE, "ToBeDeletedByClusterAutoscaler=1:NoSchedule"])?;
    follower.until("the node is leaving", |now| {
        now.known.iter().flat_map(|known| known.nodes.values()).any(|node| node.leaving)
    })?;
    ensure!(follower.replaced == 1 && follower.changed >= 5, "changes came as changes");
    cluster.kubectl(&["delete", "node", NODE, "node-b"])?;
    Ok(())
}

fn a_proxy_with_a_name_of_its_own_sees_its_services_only(cluster: &Cluster) -> Result<()> {
    let ours = "labels: {service.kubernetes.io/service-proxy-name: passlane}";
    cluster.apply(
        &[namespace("named"), service("named", "ours", ours), service("named", "theirs", "")]
            .concat(),
    )?;
    let relay = cluster.relay()?;
    let mut options = options(cluster, "named", &relay)?;
    options.proxy_name = Some("passlane".to_owned());
    let follower = Follower::connect(options)?;
    let names = follower.services();
    ensure!(names.len() == 1 && *names[0].name == *"ours", "{names:?}");
    Ok(())
}

fn the_next_api_server_is_used_when_one_is_away(cluster: &Cluster) -> Result<()> {
    let (first, second) = (cluster.relay()?, cluster.relay()?);
    first.cut();
    let mut options = options(cluster, "failover", &first)?;
    options.login.api_servers =
        vec![format!("https://127.0.0.1:{}", first.port()), format!("127.0.0.1:{}", second.port())];
    let mut follower = Follower::connect(options)?;
    let uses = |port: u16| move |address: &str| address.contains(&format!(":{port}"));
    ensure!(uses(second.port())(&follower.status()?.address), "{:?}", follower.status()?);
    first.mend();
    second.cut();
    cluster.apply(&[namespace("failover"), service("failover", "web", "")].concat())?;
    follower.until("a change arrives by the first again", |now| {
        now.services_in("failover") == ["web"]
    })?;
    ensure!(uses(first.port())(&follower.status()?.address), "{:?}", follower.status()?);
    Ok(())
}
