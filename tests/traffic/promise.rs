//! What a Service promises to each class of traffic, and asking whether it is kept.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use anyhow::{Result, ensure};
use proxy_tests::cluster::{Client, Cluster};
use proxy_tests::echo::Outcome;
use proxy_tests::exposed::{Exposed, Family, Way};
use proxy_tests::topology::NODE_ADDRESSES;
use proxy_userspace::model::Protocol;

/// How long a client waits that should hear nothing: a served one hears within milliseconds.
const SILENCE: Duration = Duration::from_secs(2);

/// How long any other client waits.
const PATIENCE: Duration = Duration::from_secs(8);

/// Who dials what.
const CLASSES: [(Client, Way); 9] = [
    (Client::Pod, Way::ClusterIp),
    (Client::Host, Way::ClusterIp),
    (Client::Outside, Way::NodePort),
    (Client::Outside, Way::LoadBalancer),
    (Client::Outside, Way::ExternalIp),
    (Client::Pod, Way::NodePort),
    (Client::Pod, Way::LoadBalancer),
    (Client::Host, Way::NodePort),
    (Client::Host, Way::LoadBalancer),
];

/// What a client should get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// Each of these pods in turn, which sees the client's own address.
    Kept(&'static [&'static str]),
    /// Each of these pods in turn, which sees an address of the node.
    Masqueraded(&'static [&'static str]),
    /// TCP reset or ICMP port unreachable.
    Refused,
    /// Nothing.
    Silence,
}

/// What each class of traffic should get.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Promise {
    pub(crate) pod_to_cluster_ip: Expected,
    pub(crate) host_to_cluster_ip: Expected,
    pub(crate) outside: Expected,
    /// A pod that dials what outside clients dial.
    pub(crate) pod: Expected,
    /// A process of the node that dials what outside clients dial.
    pub(crate) host: Expected,
}

impl Promise {
    /// The same for every class.
    pub(crate) const fn all(expected: Expected) -> Self {
        Self {
            pod_to_cluster_ip: expected,
            host_to_cluster_ip: expected,
            outside: expected,
            pod: expected,
            host: expected,
        }
    }

    /// What one client should get on one way.
    pub(crate) fn to(&self, client: Client, way: Way) -> Expected {
        match (client, way) {
            (Client::Pod, Way::ClusterIp) => self.pod_to_cluster_ip,
            (Client::Host, Way::ClusterIp) => self.host_to_cluster_ip,
            (Client::Outside, _) => self.outside,
            (Client::Pod, _) => self.pod,
            (Client::Host, _) => self.host,
        }
    }
}

/// One question and the answer it should get.
#[derive(Clone, Copy)]
pub(crate) struct Row<'a> {
    pub(crate) service: &'a Exposed,
    pub(crate) client: Client,
    pub(crate) way: Way,
    pub(crate) protocol: Protocol,
    pub(crate) family: Family,
    pub(crate) expected: Expected,
}

impl fmt::Display for Row<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, client, way, protocol, family, expected } = self;
        let name = service.name;
        write!(f, "{name}: {client:?} to {way:?}, {protocol} over IP{family:?}: {expected:?}")
    }
}

/// Every class of traffic to a Service, with what it should get.
pub(crate) fn rows<'a>(
    service: &'a Exposed,
    promise: &Promise,
    protocols: &[Protocol],
) -> Vec<Row<'a>> {
    let mut rows = Vec::new();
    for (client, way) in CLASSES {
        for family in Family::BOTH {
            rows.extend(protocols.iter().map(|&protocol| {
                let expected = promise.to(client, way);
                Row { service, client, way, protocol, family, expected }
            }));
        }
    }
    rows
}

/// Asks every row and names all that got something else.
///
/// Rows of different Services, protocols or families share no virtual server, so that round robin
/// stays exact when they are asked side by side; those that should hear nothing disturb nobody.
pub(crate) fn check(cluster: &Cluster, rows: &[Row<'_>]) -> Result<()> {
    ensure!(!rows.is_empty(), "nothing to check");
    let mut groups: Vec<Vec<&Row<'_>>> = Vec::new();
    for row in rows {
        match groups.iter_mut().find(|group| group[0].shares_servers_with(row)) {
            Some(group) if !row.is_silent() => group.push(row),
            _ => groups.push(vec![row]),
        }
    }
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let asking: Vec<_> = groups
            .iter()
            .map(|group| {
                scope.spawn(|| group.iter().filter_map(|row| row.broken(cluster)).collect())
            })
            .collect();
        let panicked = |_| vec!["a client panicked".to_owned()];
        asking.into_iter().flat_map(|group| group.join().unwrap_or_else(panicked)).collect()
    });
    let count = wrong.len();
    ensure!(wrong.is_empty(), "{count} of {} rows are wrong:\n{}", rows.len(), wrong.join("\n"));
    Ok(())
}

impl Row<'_> {
    fn shares_servers_with(&self, other: &Self) -> bool {
        let of = |row: &Self| (row.service.number, row.protocol, row.family, row.is_silent());
        of(self) == of(other)
    }

    fn is_silent(&self) -> bool {
        self.expected == Expected::Silence
    }

    /// The row, and why the promise is not kept, if so.
    fn broken(&self, cluster: &Cluster) -> Option<String> {
        self.ask(cluster).err().map(|error| format!("{self}, but {error:#}"))
    }

    fn ask(&self, cluster: &Cluster) -> Result<()> {
        let Self { client, family, .. } = *self;
        match self.expected {
            Expected::Kept(pods) => {
                let source = family.of(cluster.addresses(client)?);
                self.ask_each(cluster, pods, |outcome| outcome == source)
            }
            Expected::Masqueraded(pods) => {
                self.ask_each(cluster, pods, |outcome| outcome == family.of(NODE_ADDRESSES))
            }
            Expected::Refused => self.outcome_is(cluster, &Outcome::Refused),
            Expected::Silence => self.outcome_is(cluster, &Outcome::Silence),
        }
    }

    /// IPVS's round robin gives as many connections one each.
    fn ask_each(
        &self,
        cluster: &Cluster,
        pods: &[&str],
        is_right: impl Fn(std::net::IpAddr) -> bool,
    ) -> Result<()> {
        let mut asked = BTreeSet::new();
        for _ in pods {
            let outcome = self.outcome(cluster)?;
            let Some(answer) = outcome.answer() else { anyhow::bail!("got {outcome}") };
            ensure!(is_right(answer.source), "got {outcome}");
            asked.insert(answer.by.clone());
        }
        ensure!(asked.iter().eq(pods.iter()), "{asked:?} answered");
        Ok(())
    }

    fn outcome_is(&self, cluster: &Cluster, expected: &Outcome) -> Result<()> {
        let outcome = self.outcome(cluster)?;
        ensure!(outcome == *expected, "got {outcome}");
        Ok(())
    }

    fn outcome(&self, cluster: &Cluster) -> Result<Outcome> {
        let to = self.service.frontend(self.way, self.family, NODE_ADDRESSES);
        let dial = cluster.dial(self.client, self.protocol, to)?;
        dial.within(if self.is_silent() { SILENCE } else { PATIENCE }).ask()
    }
}
