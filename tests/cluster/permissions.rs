//! What the API server refuses, and how it is mended without a restart of the agent.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use proxy_tests::wait;
use proxy_userspace::source::kubernetes::State;

use crate::{
    PATIENCE,
    cluster::Cluster,
    follower::{Follower, options, with_kubeconfig},
    manifests::{namespace, service},
};

crate::tests![
    an_expired_token_is_told_and_a_renewed_one_is_taken_up,
    a_missing_verb_is_told_with_its_resource_and_mended_by_the_role_alone,
    a_role_without_service_cidrs_is_enough,
    each_verb_that_the_role_of_a_proxy_lacks_is_told,
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

/// What an agent cannot serve without.
const NEEDED: &[(&str, &str)] =
    &[("", "services"), ("discovery.k8s.io", "endpointslices"), ("", "nodes")];
const VERBS: &[&str] = &["list", "watch"];

/// A role that has it all, but for one verb of one resource.
fn role_without(resource: &str, verb: &str) -> String {
    let rules = NEEDED.iter().map(|&(group, each)| {
        let verbs = VERBS.iter().filter(|&&other| (each, other) != (resource, verb));
        let verbs = verbs.copied().collect::<Vec<_>>().join(", ");
        format!("- {{apiGroups: [\"{group}\"], resources: [{each}], verbs: [{verbs}]}}\n")
    });
    format!(
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\n\
         metadata: {{name: lacking}}\nrules:\n{}",
        rules.collect::<String>()
    )
}

fn each_verb_that_the_role_of_a_proxy_lacks_is_told(cluster: &Cluster) -> Result<()> {
    cluster.apply(&role_without("nothing", "at all"))?;
    cluster.kubectl(&["create", "serviceaccount", "lacking", "-n", "kube-system"])?;
    let holder = "--serviceaccount=kube-system:lacking";
    cluster.kubectl(&[
        "create",
        "clusterrolebinding",
        "lacking",
        "--clusterrole=lacking",
        holder,
    ])?;
    let relay = cluster.relay()?;
    let (kubeconfig, _) = cluster.login("lacking", relay.port(), &cluster.token("lacking")?)?;
    for &(group, resource) in NEEDED {
        for verb in VERBS {
            cluster.apply(&role_without(resource, verb))?;
            let name = [resource, group].join(".");
            let name = name.trim_end_matches('.');
            // It ends with an error where the answer is no.
            let ask =
                ["auth", "can-i", verb, name, "--as=system:serviceaccount:kube-system:lacking"];
            wait::until_true("the role is in force", PATIENCE, || {
                Ok(cluster.kubectl(&ask).is_err())
            })?;
            let told = format!("{verb} {name}");
            let mut follower = Follower::start(with_kubeconfig(kubeconfig.clone()))?;
            follower
                .until("the refusal is told", |now| {
                    let error = now.last.error.as_deref().unwrap_or_default();
                    error.contains("no permission") && error.contains(&told)
                })
                .with_context(|| told.clone())?;
        }
    }
    Ok(())
}
