//! What the API server refuses, and how it is mended without a restart of the agent.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use proxy_userspace::source::kubernetes::State;

use crate::{
    cluster::Cluster,
    follower::{Follower, options, with_kubeconfig},
    manifests::{namespace, service},
};

crate::tests![
    an_expired_token_is_told_and_a_renewed_one_is_taken_up,
    a_missing_verb_is_told_with_its_resource_and_mended_by_the_role_alone,
    a_role_without_service_cidrs_is_enough,
];

fn an_expired_token_is_told_and_a_renewed_one_is_taken_up(cluster: &Cluster) -> Result<()> {
    let good = cluster.token("passlane")?;
    let relay = cluster.relay()?;
    let (kubeconfig, file) = cluster.login("expired", relay.port(), &good)?;
    let mut follower = Follower::connect(with_kubeconfig(kubeconfig))?;
    let services = follower.services().len();
    // What the kubelet is to renew is not renewed, and the connection breaks.
    fs::write(&file, cluster.credentials().expired(&good)?)?;
    relay.cut();
    follower.until("the break is told", |now| now.last.error.is_some())?;
    relay.mend();
    let refused = |now: &Follower| {
        now.last.error.as_deref().is_some_and(|text| text.contains("refuses our credentials (401)"))
    };
    follower.until("the refused token is told", refused)?;
    ensure!(matches!(follower.status()?.state, State::Away { .. }), "{:?}", follower.status()?);
    ensure!(follower.services().len() == services, "what was known stays");
    fs::write(&file, cluster.token("passlane")?)?;
    cluster.apply(&[namespace("expired"), service("expired", "web", "")].concat())?;
    follower.until("a change arrives with the new token", |now| {
        now.services_in("expired") == ["web"]
    })?;
    follower.until("all is well again", |now| now.last.error.is_none())?;
    ensure!(follower.status()?.state == State::Connected, "{:?}", follower.status()?);
    Ok(())
}

/// A role that lacks one verb and one resource that is optional.
fn role(slices: &str) -> String {
    format!(
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {{name: poor}}\n\
         rules:\n\
         - {{apiGroups: [\"\"], resources: [services, nodes], verbs: [list, watch]}}\n\
         - {{apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [{slices}]}}\n"
    )
}

fn poor_account(cluster: &Cluster, name: &str, slices: &str) -> Result<Follower> {
    cluster.apply(&role(slices))?;
    cluster.kubectl(&["create", "serviceaccount", name, "-n", "kube-system"])?;
    cluster.kubectl(&[
        "create",
        "clusterrolebinding",
        name,
        "--clusterrole=poor",
        &format!("--serviceaccount=kube-system:{name}"),
    ])?;
    let relay = cluster.relay()?;
    let (kubeconfig, _) = cluster.login(name, relay.port(), &cluster.token(name)?)?;
    Follower::start(with_kubeconfig(kubeconfig))
}

fn a_missing_verb_is_told_with_its_resource_and_mended_by_the_role_alone(
    cluster: &Cluster,
) -> Result<()> {
    let mut follower = poor_account(cluster, "poor", "list")?;
    follower.until("the refusal is told", |now| {
        now.last.error.as_deref().is_some_and(|text| text.contains("no permission"))
    })?;
    let error = follower.last.error.clone().context("an error")?;
    for word in ["watch", "endpointslices.discovery.k8s.io", "ClusterRole"] {
        ensure!(error.contains(word), "{error}");
    }
    cluster.apply(&role("list, watch"))?;
    follower
        .until("the permission is used", |now| now.known.is_some() && now.last.error.is_none())?;
    ensure!(follower.services_in("default") == ["kubernetes"]);
    Ok(())
}

fn a_role_without_service_cidrs_is_enough(cluster: &Cluster) -> Result<()> {
    let mut follower = poor_account(cluster, "old", "list, watch")?;
    follower.until("the rest is known", |now| now.known.is_some())?;
    ensure!(follower.known.as_ref().is_some_and(|known| known.service_cidrs.is_empty()));
    ensure!(follower.last.error.is_none(), "{:?}", follower.last.error);
    // The account of the other tests sees them at the same API server.
    let relay = cluster.relay()?;
    let full = Follower::connect(options(cluster, "new", &relay)?)?;
    ensure!(full.known.as_ref().is_some_and(|known| !known.service_cidrs.is_empty()));
    Ok(())
}
