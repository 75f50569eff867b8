//! Notices become Events that kubectl shows.

use anyhow::{Result, ensure};
use proxy_tests::wait;
use proxy_userspace::model::{Notice, ServiceName, ServicePortName};

use crate::{
    PATIENCE,
    cluster::{Cluster, NODE},
    follower::{Follower, options},
    manifests::{namespace, node, service},
};

crate::tests![a_notice_is_one_event_on_its_service_however_many_agents_tell_it];

fn a_notice_is_one_event_on_its_service_however_many_agents_tell_it(
    cluster: &Cluster,
) -> Result<()> {
    let annotation = "annotations: {passlane.io/scheduler: rocket}";
    let objects =
        [namespace("events"), node(NODE, "192.0.2.10"), service("events", "web", annotation)];
    cluster.apply(&objects.concat())?;
    let relay = cluster.relay()?;
    let mut first = Follower::connect(options(cluster, "events", &relay)?)?;
    let mut options = options(cluster, "events-b", &relay)?;
    options.node = "node-b".to_owned();
    let mut second = Follower::connect(options)?;
    first.until("the annotation is noticed", |now| {
        now.notices().iter().any(|notice| notice.reason() == "UnknownScheduler")
    })?;
    // One of the plan, about the node itself.
    let full = Notice::FrontendsFull {
        limit: 4,
        left_out: 1,
        first: ServicePortName {
            service: ServiceName { namespace: "events".into(), name: "web".into() },
            port: String::new(),
        },
    };
    let mut notices = first.notices().to_vec();
    notices.push(full);
    let mut publishers = Vec::new();
    for follower in [&mut first, &mut second] {
        let publisher = follower.publisher()?;
        for _ in 0..3 {
            publisher.publish(notices.clone());
        }
        publishers.push(publisher);
    }
    let reasons = |namespace: &str| {
        let path = "jsonpath={range .items[*]}{.reason} {.reportingInstance}{\"\\n\"}{end}";
        cluster.kubectl(&["get", "events.events.k8s.io", "-n", namespace, "-o", path])
    };
    wait::until_true("both nodes have told", PATIENCE, || {
        let text = reasons("default")?;
        Ok(text.contains(&format!("FrontendsFull {NODE}")) && text.contains("FrontendsFull node-b"))
    })?;
    wait::until_true("the service has its event", PATIENCE, || {
        Ok(reasons("events")?.contains("UnknownScheduler"))
    })?;
    let of_service = reasons("events")?;
    ensure!(of_service.lines().count() == 1, "told once by one of two agents:\n{of_service}");
    let described = cluster.kubectl(&["describe", "service", "-n", "events", "web"])?;
    ensure!(
        described.contains("Warning") && described.contains("unknown scheduler \"rocket\""),
        "kubectl describe shows:\n{described}"
    );
    let described = cluster.kubectl(&["describe", "node", NODE])?;
    ensure!(described.contains("FrontendsFull"), "kubectl describe shows:\n{described}");
    cluster.kubectl(&["delete", "node", NODE])?;
    Ok(())
}
