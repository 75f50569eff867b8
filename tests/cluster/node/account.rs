//! The role of the agent's account.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::cluster::Cluster;

const ROLE: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:node-proxier";

/// The role of every Service proxy, without a verb. Dropping it leaves it so.
pub(crate) struct Poor<'a> {
    cluster: &'a Cluster,
    whole: Value,
}

impl<'a> Poor<'a> {
    /// Takes a verb of one resource from it.
    pub(crate) fn without(cluster: &'a Cluster, verb: &str, resource: &str) -> Result<Self> {
        let mut whole = cluster.object(ROLE)?;
        let mut poor = whole.clone();
        let rules = poor["rules"].as_array_mut().context("a role has rules")?;
        let mut taken = 0;
        for rule in rules {
            let has = |field: &str, word: &str| {
                rule[field].as_array().is_some_and(|words| words.iter().any(|each| each == word))
            };
            if has("resources", resource) && has("verbs", verb) {
                let verbs = rule["verbs"].as_array_mut().context("a rule has verbs")?;
                verbs.retain(|each| each != verb);
                taken += 1;
            }
        }
        ensure!(taken > 0, "the role has no {verb} of {resource}: {whole}");
        // Written over whatever it is by then.
        if let Some(metadata) = whole["metadata"].as_object_mut() {
            metadata.remove("resourceVersion");
        }
        poor["metadata"] = whole["metadata"].clone();
        cluster.replace(&poor.to_string())?;
        Ok(Self { cluster, whole })
    }

    /// Gives the verb back.
    pub(crate) fn mend(self) -> Result<()> {
        self.cluster.replace(&self.whole.to_string())
    }
}
