//! Many Services at once.

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::Service;
use kube::{Api, api::PostParams};

use crate::{
    cluster::Cluster,
    follower::{Follower, options},
    manifests::namespace,
};

crate::tests![five_thousand_services_arrive_by_the_watch_and_by_a_list];

const COUNT: usize = 5_000;

fn five_thousand_services_arrive_by_the_watch_and_by_a_list(cluster: &Cluster) -> Result<()> {
    cluster.apply(&namespace("many"))?;
    let relay = cluster.relay()?;
    let mut follower = Follower::connect(options(cluster, "many", &relay)?)?;
    let before = follower.services().len();
    // kubectl would take two minutes by its own limit.
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let services: Api<Service> = Api::namespaced(cluster.client().await?, "many");
        let make = |number: usize| {
            let services = services.clone();
            async move {
                let spec = serde_json::json!({
                    "metadata": {"name": format!("s{number}")},
                    "spec": {"ports": [{"port": 80}], "selector": {"app": "many"}},
                });
                let service = serde_json::from_value(spec)?;
                services.create(&PostParams::default(), &service).await.context("create")?;
                anyhow::Ok(())
            }
        };
        stream::iter(0..COUNT).map(make).buffer_unordered(32).try_collect::<Vec<()>>().await
    })?;
    let all = |now: &Follower| now.services().len() == before + COUNT;
    follower.until("all services have arrived", all)?;
    ensure!(follower.replaced == 1, "by changes");
    let by_list = Follower::connect(options(cluster, "many-list", &relay)?)?;
    ensure!(by_list.replaced == 1 && by_list.changed == 0, "by one list");
    ensure!(by_list.known == follower.known, "a list and the changes tell the same");
    Ok(())
}
