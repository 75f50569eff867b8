//! The one `match action`. What is about to be made is in the ledger first; what succeeded is
//! taken up into the observation, so that the next plan starts from the truth.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Instant,
};

use proxy_common::abi;

use super::{
    batch::{Batch, batches},
    tally::{Search, Tally},
};
use crate::{
    kernel::{
        bpf::{self, Maps},
        conntrack,
        ipvs::{self, Command},
        link, nft,
        node::Node,
        route,
        sysctl::{self, Key},
    },
    ledger::{self, Ledger, Record},
    model::{Destination, Frontend},
    plan::{Action, DesiredServer, FrontendEntry, Observed, Plan},
};

/// Every network namespace has it.
const LOOPBACK: &str = "lo";

/// Why an action failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// IPVS refused.
    #[error(transparent)]
    Ipvs(#[from] ipvs::Error),
    /// A setting could not be changed.
    #[error(transparent)]
    Sysctl(#[from] sysctl::Error),
    /// Conntrack refused.
    #[error(transparent)]
    Conntrack(#[from] conntrack::Error),
    /// nft refused.
    #[error(transparent)]
    Nat(#[from] nft::Error),
    /// The device could not be made.
    #[error(transparent)]
    Link(#[from] link::Error),
    /// A route could not be changed.
    #[error(transparent)]
    Route(#[from] route::Error),
    /// A BPF map could not be changed.
    #[error(transparent)]
    Bpf(#[from] bpf::Error),
    /// The ledger could not be written: nothing may be made.
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
    /// The device that carries the VIPs is gone.
    #[error("device {0} is gone: it is made again by the next pass")]
    NoDevice(String),
    /// An earlier action of the plan failed that this one stands on.
    #[error("not tried: {0} failed, and no VIP may be live without it")]
    Skipped(String),
}

/// An action that failed.
#[derive(Debug)]
pub struct Outcome {
    /// The action, as plans print it.
    pub action: String,
    /// Why it failed.
    pub failure: Failure,
    foundation: bool,
}

impl Outcome {
    /// Says whether no VIP may go live without the action.
    pub fn is_foundation(&self) -> bool {
        self.foundation
    }
}

/// Carries out plans on one node.
pub struct Executor<'a> {
    /// The node.
    pub node: &'a mut Node,
    /// What is ours.
    pub ledger: &'a mut Ledger,
    /// The virtual servers that should be: the ledger says whose each is.
    pub servers: &'a BTreeMap<Frontend, DesiredServer>,
}

impl Executor<'_> {
    /// Carries out a plan, and takes up into `observed` what succeeded. Returns what failed:
    /// everything else was done, unless the guard failed, which everything stands on.
    pub async fn apply(&mut self, plan: &Plan, observed: &mut Observed) -> Vec<Outcome> {
        self.apply_counted(plan, observed, &mut Tally::default()).await
    }

    /// The same, and counts it.
    pub async fn apply_counted(
        &mut self,
        plan: &Plan,
        observed: &mut Observed,
        tally: &mut Tally,
    ) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        let mut broken: Option<String> = None;
        let mut vips_lack = false;
        for batch in batches(&plan.actions) {
            if vips_lack && matches!(batch, Batch::RetireVips(..)) {
                // They may be the only thing that makes a VIP local: the next pass retires them.
                continue;
            }
            let results = self.run(&batch, broken.as_deref(), &observed.vips, tally).await;
            count(tally, &batch, &results);
            for (action, result) in results {
                match result {
                    Ok(()) => observed.apply(action),
                    Err(failure) => {
                        vips_lack |= matches!(batch, Batch::PutVips(..));
                        let foundation = is_foundation(action);
                        if foundation {
                            broken.get_or_insert_with(|| action.to_string());
                        }
                        let action = action.to_string();
                        outcomes.push(Outcome { action, failure, foundation });
                    }
                }
            }
        }
        if plan.actions.iter().any(gives_an_id_back) {
            forget_counts(self.node, observed);
        }
        outcomes
    }

    async fn run<'b>(
        &mut self,
        batch: &Batch<'b>,
        broken: Option<&str>,
        vips: &BTreeSet<IpAddr>,
        tally: &mut Tally,
    ) -> Vec<(&'b Action, Result<(), Failure>)> {
        match batch {
            Batch::PutVips(addrs, actions) => {
                let result = match broken {
                    Some(action) => Err(Failure::Skipped(action.to_owned())),
                    None => self.put_vips(addrs).await,
                };
                all_alike(actions, result)
            }
            Batch::RemoveVips(addrs, actions) => {
                let result = self.remove_vips(addrs, self.node.vips_are_addresses).await;
                all_alike(actions, result)
            }
            Batch::RetireVips(addrs, actions) => {
                all_alike(actions, self.retire_vips(addrs, vips).await)
            }
            Batch::Ipvs(commands) => self.change_ipvs(commands, tally).await,
            Batch::Flush(stale, actions) => all_alike(actions, self.flush(stale, tally).await),
            Batch::Single(action) => vec![(*action, self.single(action, tally).await)],
        }
    }

    async fn flush(&self, stale: &conntrack::Stale, tally: &mut Tally) -> Result<(), Failure> {
        for ipv6 in [false, true].into_iter().filter(|ipv6| stale.has_family(*ipv6)) {
            let started = Instant::now();
            let deleted = self.node.conntrack.flush_of(stale, ipv6).await? as u64;
            tally.searches.push(Search { ipv6, took: started.elapsed(), deleted });
        }
        Ok(())
    }

    async fn single(&mut self, action: &Action, tally: &mut Tally) -> Result<(), Failure> {
        match action {
            Action::PutDevice => self.put_device().await,
            Action::InstallTable { rules, elements } => {
                self.ledger.record([Record::NatTable { owned: true }])?;
                let result = self.node.nat.install(rules, elements).await;
                tally.count_transaction(result.is_ok());
                Ok(result?)
            }
            Action::ChangeElements { added, removed } => {
                let result = self.node.nat.change(added, removed).await;
                tally.count_transaction(result.is_ok());
                Ok(result?)
            }
            Action::OrderDestinations { frontend, destinations } => {
                self.order_destinations(*frontend, destinations, tally).await
            }
            Action::PutLocalPort { .. } | Action::RemoveLocalPort(_) => {
                Ok(self.node.localhost.as_mut().map_or(Ok(()), |ports| match action {
                    Action::PutLocalPort { frontend, to } => ports.put(frontend, to),
                    Action::RemoveLocalPort(frontend) => ports.remove(frontend),
                    _ => Ok(()),
                })?)
            }
            action => match &mut self.node.datapath {
                Some(datapath) => change_maps(&mut datapath.maps, action),
                None => Ok(()),
            },
        }
    }

    /// A destination that is made again right after it was deleted takes its connections back
    /// (`ip_vs_trash_get_dest`), unless the kernel was told to expire them at once: it is not, for
    /// that moment.
    async fn order_destinations(
        &self,
        frontend: Frontend,
        destinations: &[Destination],
        tally: &mut Tally,
    ) -> Result<(), Failure> {
        let expire = Key::dotted("net.ipv4.vs.expire_nodest_conn");
        let before = sysctl::read(&expire)?;
        sysctl::write(&expire, "0")?;
        let commands = destinations.iter().flat_map(|destination| {
            [
                Command::RemoveDestination(frontend, destination.key),
                Command::PutDestination(frontend, *destination),
            ]
        });
        let commands: Vec<Command> = commands.collect();
        let results = self.node.ipvs.batch(commands.clone()).await;
        for (command, result) in commands.iter().zip(&results) {
            tally.count_command(command.name(), result.is_ok());
        }
        sysctl::write(&expire, &before)?;
        Ok(results.into_iter().collect::<Result<(), _>>()?)
    }

    /// The device is recorded as ours before it is made, and struck out again when it was there:
    /// a crash in between errs towards a record of a device that cleanup finds not to be a dummy
    /// without foreign routes.
    async fn put_device(&mut self) -> Result<(), Failure> {
        let name = self.node.device.clone();
        let there = self.node.links.index_of(&name).await?.is_some();
        if !there {
            self.ledger.record([Record::Device { name: name.clone(), owned: true }])?;
        }
        self.node.links.put_dummy(&name).await?;
        Ok(())
    }

    async fn device(&self) -> Result<u32, Failure> {
        let name = &self.node.device;
        self.node.links.index_of(name).await?.ok_or_else(|| Failure::NoDevice(name.clone()))
    }

    async fn put_vips(&mut self, addrs: &[IpAddr]) -> Result<(), Failure> {
        let device = self.device().await?;
        if !self.node.vips_are_addresses {
            return Ok(self.node.routes.put_vips(device, addrs).await?);
        }
        let ours: BTreeSet<IpAddr> = self.our_addresses(addrs).into_iter().collect();
        self.record_addresses(addrs.to_vec(), true)?;
        // What somebody put since the node was read is theirs.
        let mut theirs = self.node.links.put_addresses(device, addrs).await?;
        theirs.retain(|addr| !ours.contains(addr));
        self.record_addresses(theirs, false)
    }

    async fn remove_vips(&mut self, addrs: &[IpAddr], as_addresses: bool) -> Result<(), Failure> {
        let device = self.device().await?;
        if !as_addresses {
            return Ok(self.node.routes.remove_vips(device, addrs).await?);
        }
        let ours = self.our_addresses(addrs);
        self.node.links.remove_addresses(device, &ours).await?;
        self.record_addresses(ours, false)
    }

    /// With the last IPv4 address of a device the kernel takes all IPv4 routes of it away
    /// (`fib_disable_ip`), so those of the VIPs are put again at once. Meanwhile routes of the
    /// loopback device stand in for them.
    async fn retire_vips(
        &mut self,
        addrs: &[IpAddr],
        vips: &BTreeSet<IpAddr>,
    ) -> Result<(), Failure> {
        if self.node.vips_are_addresses {
            return self.remove_vips(addrs, false).await;
        }
        let loopback = self.node.links.index_of(LOOPBACK).await?;
        let spared: Vec<IpAddr> = vips.iter().filter(|addr| addr.is_ipv4()).copied().collect();
        if let Some(loopback) = loopback {
            self.node.routes.put_spares(loopback, &spared).await?;
        }
        self.remove_vips(addrs, true).await?;
        let vips: Vec<IpAddr> = vips.iter().copied().collect();
        self.put_vips(&vips).await?;
        if let Some(loopback) = loopback {
            self.node.routes.remove_spares(loopback).await?;
        }
        Ok(())
    }

    /// Returns those of the addresses that the ledger says we put on the device.
    fn our_addresses(&self, addrs: &[IpAddr]) -> Vec<IpAddr> {
        let ours = self.ledger.owned().addresses.get(&self.node.device);
        let ours = ours.map(|ours| addrs.iter().filter(|addr| ours.contains(addr)).copied());
        ours.into_iter().flatten().collect()
    }

    fn record_addresses(&mut self, addrs: Vec<IpAddr>, owned: bool) -> Result<(), Failure> {
        if addrs.is_empty() {
            return Ok(());
        }
        let device = self.node.device.clone();
        Ok(self.ledger.record([Record::Addresses { device, addrs, owned }])?)
    }

    async fn change_ipvs<'b>(
        &mut self,
        commands: &[(&'b Action, Command)],
        tally: &mut Tally,
    ) -> Vec<(&'b Action, Result<(), Failure>)> {
        let records = commands.iter().filter_map(|(_, command)| match command {
            Command::PutVirtualServer(server) => Some(Record::VirtualServer {
                frontend: server.frontend,
                service: Some(
                    self.servers
                        .get(&server.frontend)
                        .map_or_else(String::new, |server| server.service.to_string()),
                ),
            }),
            _ => None,
        });
        let records: Vec<Record> = records.collect();
        if let Err(error) = self.ledger.record(records) {
            let first = commands.first().map(|(action, _)| (*action, Err(error.into())));
            return first.into_iter().collect();
        }
        let results =
            self.node.ipvs.batch(commands.iter().map(|(_, command)| *command).collect()).await;
        for ((_, command), result) in commands.iter().zip(&results) {
            tally.count_command(command.name(), result.is_ok());
        }
        let removed = commands.iter().zip(&results).filter_map(|((_, command), result)| {
            match (command, result) {
                (Command::RemoveVirtualServer(frontend), Ok(())) => {
                    Some(Record::VirtualServer { frontend: *frontend, service: None })
                }
                _ => None,
            }
        });
        // A removal that is not recorded is found out by the next observation.
        if let Err(error) = self.ledger.record(removed.collect::<Vec<_>>()) {
            tracing::warn!(event = "ledger_failed", %error, "the ledger still names virtual servers that are gone");
        }
        commands
            .iter()
            .zip(results)
            .map(|((action, _), result)| (*action, result.map_err(Failure::from)))
            .collect()
    }
}

/// Counts a batch. Of one whose actions share a fate only the first tells of a failure.
fn count(tally: &mut Tally, batch: &Batch<'_>, results: &[(&Action, Result<(), Failure>)]) {
    if let Some((action, Err(_))) = results.first()
        && results.len() == 1
    {
        tally.count_action(action.name(), 0, batch.len() as u64);
        return;
    }
    for (action, result) in results {
        let (done, failed) = if result.is_ok() { (1, 0) } else { (0, 1) };
        tally.count_action(action.name(), done, failed);
    }
}

/// Ends the counts of frontends and backends that are gone: whoever gets an id next begins with
/// nothing. Their flows are dead, or die with the first plan.
pub fn forget_counts(node: &mut Node, observed: &Observed) {
    let Some(datapath) = &mut node.datapath else { return };
    let frontends: BTreeSet<u32> = observed.frontends.values().map(|entry| entry.id).collect();
    let backends: BTreeSet<u32> = observed.backends.values().copied().collect();
    let forgotten =
        datapath.maps.carried.forget(|id| frontends.contains(&id), |id| backends.contains(&id));
    if let Err(error) = forgotten {
        tracing::warn!(event = "counts_mixed", %error, "counters of what is gone may be added to others");
    }
}

/// No plan gives an id out again that it frees.
fn gives_an_id_back(action: &Action) -> bool {
    matches!(action, Action::RemoveFrontend(_) | Action::RemoveBackend { .. })
}

/// Without these no VIP may go live.
fn is_foundation(action: &Action) -> bool {
    matches!(
        action,
        Action::PutDevice | Action::InstallTable { .. } | Action::ChangeElements { .. }
    )
}

/// Gives every action of a batch the outcome of the batch; an error is told once.
fn all_alike<'b>(
    actions: &[&'b Action],
    result: Result<(), Failure>,
) -> Vec<(&'b Action, Result<(), Failure>)> {
    match result {
        Ok(()) => actions.iter().map(|action| (*action, Ok(()))).collect(),
        Err(failure) => actions.first().map(|action| (*action, Err(failure))).into_iter().collect(),
    }
}

fn change_maps(maps: &mut Maps, action: &Action) -> Result<(), Failure> {
    match action {
        Action::PutBackend { backend, id } => {
            Ok(maps.put_backend(backend, abi::Backend { id: *id })?)
        }
        Action::RemoveBackend { backend, .. } => Ok(maps.remove_backend(backend)?),
        Action::PutFrontend { frontend, entry } => {
            Ok(maps.put_frontend(frontend, frontend_value(*entry))?)
        }
        Action::RemoveFrontend(frontend) => Ok(maps.remove_frontend(frontend)?),
        Action::Invalidate { backends } => {
            // The edit counter first: a learner reads the generation first.
            maps.generations.raise_edits()?;
            for id in backends {
                maps.generations.raise_backend(*id)?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn frontend_value(entry: FrontendEntry) -> abi::Frontend {
    abi::Frontend { id: entry.id, flags: bpf::flags(entry.fast_path) }
}
