//! The API server goes away, comes back, and has forgotten what happened.

use std::time::Duration;

use anyhow::{Result, ensure};
use proxy_userspace::source::kubernetes::{Limits, Options, State};

use crate::{
    cluster::Cluster,
    follower::{Follower, options},
    manifests::{namespace, service, slice},
};

crate::tests![
    an_api_server_that_restarts_is_watched_again_and_nothing_is_lost_meanwhile,
    an_api_server_that_hangs_is_told_and_followed_when_it_goes_on,
    what_was_missed_and_compacted_comes_by_one_list_that_is_never_seen_in_part,
];

fn an_api_server_that_restarts_is_watched_again_and_nothing_is_lost_meanwhile(
    cluster: &Cluster,
) -> Result<()> {
    cluster.apply(&[namespace("restart"), service("restart", "web", "")].concat())?;
    let relay = cluster.relay()?;
    let mut follower = Follower::connect(options(cluster, "restart", &relay)?)?;
    let services = follower.services().len();
    cluster.stop_api();
    follower.until("the outage is told", |now| now.last.error.is_some())?;
    ensure!(matches!(follower.status()?.state, State::Away { .. }), "{:?}", follower.status()?);
    follower.listen(Duration::from_secs(2))?;
    ensure!(follower.services().len() == services && follower.replaced == 1, "all stays");
    cluster.restart_api()?;
    cluster.apply(&service("restart", "later", ""))?;
    follower
        .until("a change arrives again", |now| now.services_in("restart") == ["later", "web"])?;
    follower.until("all is well again", |now| now.last.error.is_none())?;
    ensure!(follower.status()?.state == State::Connected, "{:?}", follower.status()?);
    ensure!(follower.services().len() == services + 1, "nothing else changed");
    Ok(())
}

/// It takes connections and never says hello, as a process that hangs does.
fn an_api_server_that_hangs_is_told_and_followed_when_it_goes_on(cluster: &Cluster) -> Result<()> {
    const LIMIT: Duration = Duration::from_secs(2);
    cluster.apply(&[namespace("hang"), service("hang", "web", "")].concat())?;
    let relay = cluster.relay()?;
    relay.hang();
    let limits = Limits { connect: LIMIT, ..Limits::default() };
    let options = Options { limits, ..options(cluster, "hang", &relay)? };
    let mut follower = Follower::start(options)?;
    follower.until("the silence is told", |now| now.last.error.is_some())?;
    let status = follower.status()?;
    ensure!(matches!(status.state, State::Away { .. }), "{status:?}");
    let why = status.last_error.map(|(_, text)| text).unwrap_or_default();
    ensure!(why.contains("no connection within 2 seconds"), "{why}");
    ensure!(follower.known.is_none(), "nothing is known, and something was told");
    relay.mend();
    follower.until("everything is known", |now| now.services_in("hang") == ["web"])?;
    follower.until("all is well again", |now| now.last.error.is_none())?;
    ensure!(follower.status()?.state == State::Connected, "{:?}", follower.status()?);
    Ok(())
}

fn what_was_missed_and_compacted_comes_by_one_list_that_is_never_seen_in_part(
    cluster: &Cluster,
) -> Result<()> {
    let web = |addr: &str| slice("compacted", "web", &[addr]);
    let start =
        [namespace("compacted"), service("compacted", "gone", ""), service("compacted", "web", "")];
    cluster.apply(&[start.concat(), web("10.244.1.1")].concat())?;
    let relay = cluster.relay()?;
    let mut follower = Follower::connect(options(cluster, "compacted", &relay)?)?;
    relay.cut();
    follower.until("the break is told", |now| now.last.error.is_some())?;
    // Missed: one goes, one comes, endpoints move. Then nobody remembers how it came to that.
    cluster.kubectl(&["delete", "service", "-n", "compacted", "gone"])?;
    cluster.apply(&[service("compacted", "new", ""), web("10.244.1.2")].concat())?;
    cluster.compact()?;
    cluster.restart_api()?;
    let relists = follower.status()?.relists;
    relay.mend();
    follower.until("all is as it is now", |now| {
        now.services_in("compacted") == ["new", "web"]
            && now.endpoints("compacted", "web-1") == ["10.244.1.2"]
    })?;
    follower.until("all is well again", |now| now.last.error.is_none())?;
    let status = follower.status()?;
    ensure!(status.relists > relists, "{status:?}");
    let forgotten = |(_, text): &(_, String)| text.contains("too old resource version");
    ensure!(status.last_error.as_ref().is_some_and(forgotten), "{status:?}");
    // One list a kind: at no time had the Services gone that were still there.
    ensure!(follower.replaced <= 1 + 2, "{} times all was told anew", follower.replaced);
    Ok(())
}
