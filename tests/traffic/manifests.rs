//! Bad input: what is wrong is said, and the last good state stays.

use std::os::unix::fs::symlink;

use anyhow::{Context as _, Result, ensure};
use proxy_tests::objects::{ServiceObject, WEB, WEB_FRONTEND};
use proxy_tests::stage::Stage;
use proxy_tests::{ipvs, spread, wait};

use crate::scenario::{AGENT, scenarios};

scenarios! { AGENT =>
    changed_endpoints_are_served_without_a_restart,
    malformed_manifest_keeps_last_good_state,
    unreadable_manifest_keeps_last_good_state,
    unknown_kind_is_named_and_the_rest_is_served,
    second_claim_to_a_frontend_is_refused_and_named,
}

const WEB_PODS: [&str; 3] = ["web-a", "web-b", "web-c"];

fn changed_endpoints_are_served_without_a_restart() -> Result<()> {
    let stage = Stage::start(&[])?;
    stage.manifests.write("web.yaml", &ServiceObject::web(&[11, 13]).yaml())?;
    wait_destinations(&stage, 2)?;
    let spread = spread::of(stage.short_requests(WEB_FRONTEND, 8)?);
    ensure!(spread::is_even(&spread, &["web-a", "web-c"], 4), "{spread:?}");
    Ok(())
}

fn malformed_manifest_keeps_last_good_state() -> Result<()> {
    let stage = Stage::start(&[])?;
    // Line 4 opens a list that nothing closes.
    stage
        .manifests
        .write("web.yaml", "apiVersion: v1\nkind: Service\nmetadata:\n  name: [web\n")?;
    let line = stage.agent.wait_log(&["web.yaml:"])?;
    ensure!(names_a_position(&line, "web.yaml"), "no file:line:column in {line:?}");
    all_served(&stage)?;
    wait_complaint(&stage, "web.yaml")?;
    stage.manifests.write("web.yaml", &ServiceObject::web(&[11, 13]).yaml())?;
    wait_destinations(&stage, 2)?;
    wait_no_complaint(&stage, "web.yaml")
}

fn unreadable_manifest_keeps_last_good_state() -> Result<()> {
    let stage = Stage::start(&[])?;
    let link = stage.manifests.directory().join("broken.yaml");
    symlink("nowhere.yaml", &link).context("a link to nothing")?;
    wait_complaint(&stage, "broken.yaml")?;
    all_served(&stage)?;
    stage.manifests.remove("broken.yaml")?;
    wait_no_complaint(&stage, "broken.yaml")
}

fn unknown_kind_is_named_and_the_rest_is_served() -> Result<()> {
    let stage = Stage::start(&[])?;
    let gizmo = "apiVersion: v1\nkind: Gizmo\nmetadata: {name: one, namespace: default}\n";
    stage.manifests.write("gizmo.yaml", gizmo)?;
    let line = stage.agent.wait_log(&["gizmo.yaml", "Gizmo"])?;
    ensure!(!line.contains("panicked"), "{line}");
    all_served(&stage)
}

fn second_claim_to_a_frontend_is_refused_and_named() -> Result<()> {
    let stage = Stage::start(&[])?;
    let mut imposter = ServiceObject::web(&[11]);
    "web-imposter".clone_into(&mut imposter.name);
    imposter.node_port = None;
    stage.manifests.write("web-imposter.yaml", &imposter.yaml())?;
    stage.agent.wait_log(&["default/web", "default/web-imposter", "10.96.0.10:80"])?;
    all_served(&stage)?;
    // The claim is free again when its first owner goes.
    stage.manifests.remove("web.yaml")?;
    wait_destinations(&stage, 1)?;
    stage.manifests.write("web.yaml", WEB)?;
    stage.manifests.remove("web-imposter.yaml")?;
    wait_destinations(&stage, 3)
}

fn all_served(stage: &Stage) -> Result<()> {
    let spread = spread::of(stage.short_requests(WEB_FRONTEND, 9)?);
    ensure!(spread::is_even(&spread, &WEB_PODS, 3), "the last good state is gone: {spread:?}");
    Ok(())
}

/// Waits until so many destinations get new connections; others may still drain.
fn wait_destinations(stage: &Stage, count: usize) -> Result<()> {
    let mut last = None;
    wait::until_true(&format!("web is served by {count} destinations"), wait::PATIENCE, || {
        last = ipvs::destinations(&stage.topology.node, WEB_FRONTEND)?;
        let served = |(_, weight): &&(_, u32)| *weight > 0;
        Ok(last.as_ref().is_some_and(|found| found.iter().filter(served).count() == count))
    })
    .with_context(|| format!("{last:?}\n{}", stage.agent.log()))
}

/// Waits until the status complains about `subject`.
fn wait_complaint(stage: &Stage, subject: &str) -> Result<()> {
    wait::until_true(&format!("the status complains about {subject}"), wait::PATIENCE, || {
        Ok(complaints(stage)?.contains(subject))
    })
    .with_context(|| stage.agent.log())
}

fn wait_no_complaint(stage: &Stage, subject: &str) -> Result<()> {
    wait::until_true(&format!("the status is silent about {subject}"), wait::PATIENCE, || {
        Ok(!complaints(stage)?.contains(subject))
    })
    .with_context(|| stage.agent.log())
}

/// All that the status has to complain about.
fn complaints(stage: &Stage) -> Result<String> {
    let status = stage.agent.status()?;
    let errors = &status["last_reconcile"]["errors"];
    Ok(format!("{errors}\n{}\n{}", status["source_error"], status["notices"]))
}

/// Whether `line` has `file:<number>:<number>`.
fn names_a_position(line: &str, file: &str) -> bool {
    let Some((_, after)) = line.split_once(&format!("{file}:")) else { return false };
    let mut numbers = after.splitn(3, ':');
    let is_number = |text: Option<&str>| {
        text.is_some_and(|text| text.starts_with(|first: char| first.is_ascii_digit()))
    };
    is_number(numbers.next()) && is_number(numbers.next())
}
