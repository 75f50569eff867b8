//! A node that starts while the API server is away.

use std::{
    fs,
    time::{Duration, SystemTime},
};

use anyhow::{Result, ensure};
use proxy_tests::wait;

use crate::{
    PATIENCE,
    cluster::Cluster,
    follower::{Follower, options},
    manifests::{namespace, service, slice},
};

crate::tests![
    without_the_api_server_the_saved_snapshot_is_served_and_said_to_be_old,
    a_broken_snapshot_is_waited_out,
];

fn without_the_api_server_the_saved_snapshot_is_served_and_said_to_be_old(
    cluster: &Cluster,
) -> Result<()> {
    let objects =
        [namespace("cold"), service("cold", "web", ""), slice("cold", "web", &["10.244.1.5"])];
    cluster.apply(&objects.concat())?;
    let state = tempfile::tempdir()?;
    let relay = cluster.relay()?;
    let mut options = options(cluster, "cold", &relay)?;
    options.state_dir = Some(state.path().to_owned());
    options.patience = Duration::from_millis(500);
    let follower = Follower::connect(options.clone())?;
    ensure!(follower.last.stale_since.is_none());
    let file = state.path().join("snapshot.json");
    wait::until_true("the snapshot is saved", PATIENCE, || Ok(file.exists()))?;
    let before = follower.known.clone();
    drop(follower);

    relay.cut();
    let mut follower = Follower::connect(options)?;
    ensure!(follower.known == before, "what was saved is what was known");
    let stale = follower.last.stale_since;
    ensure!(stale.is_some_and(|saved| saved <= SystemTime::now()), "{stale:?}");
    ensure!(follower.status()?.stale_since == stale, "{:?}", follower.status()?);
    cluster.apply(&service("cold", "later", ""))?;
    relay.mend();
    follower
        .until("the API server has told all", |now| now.services_in("cold") == ["later", "web"])?;
    ensure!(follower.last.stale_since.is_none() && follower.replaced == 2);
    ensure!(follower.status()?.stale_since.is_none());
    Ok(())
}

fn a_broken_snapshot_is_waited_out(cluster: &Cluster) -> Result<()> {
    let state = tempfile::tempdir()?;
    fs::write(state.path().join("snapshot.json"), "{\"version\": 1, \"origin\"")?;
    let relay = cluster.relay()?;
    let mut options = options(cluster, "broken", &relay)?;
    options.state_dir = Some(state.path().to_owned());
    options.patience = Duration::from_millis(200);
    relay.cut();
    let mut follower = Follower::start(options)?;
    follower.listen(Duration::from_secs(2))?;
    ensure!(follower.known.is_none() && follower.last.error.is_some(), "nothing is made up");
    relay.mend();
    follower.until("everything is known", |now| now.known.is_some())?;
    Ok(())
}
