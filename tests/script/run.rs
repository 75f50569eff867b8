//! Loads, decides, plans and applies, step by step.
//!
//! Section `node`, one line each; settings last until they are changed:
//!
//! ```text
//! name NAME                      the node's name; node-a at first
//! addrs ADDR...                  addresses of the node; 192.168.1.10 at first
//! node-port-addrs ADDR...        those that answer NodePorts; 192.168.1.10 at first
//! no-ipv6                        the kernel has none
//! scheduler NAME                 the agent's default; rr at first
//! masquerade needed|off-cluster|all
//! detect-local nothing|node-cidr|cluster-cidr CIDR...|bridge NAME|prefix NAME
//! external-ips any|off|within CIDR...
//! ranges-on-external-ips         loadBalancerSourceRanges hold for external IPs too
//! vips routes|none               somebody else makes VIPs local; routes at first
//! reject-unassigned              unassigned addresses of the service CIDRs are refused
//! fast-path on|off               the BPF maps exist; on at first
//! localhost on|off               node ports are served at loopback addresses; off at first
//! limits FRONTENDS BACKENDS      capacities of the BPF maps; 1000 1000 at first
//! drains over|wait               connections of leaving endpoints are not waited for; over at first
//! drained FRONTEND ADDR:PORT     the connections there have ended: once
//! restart                        the agent starts anew, and knows what it reads
//! ```
//!
//! Section `checks`, one line each: `down SERVICE BACKEND` or `up SERVICE BACKEND`, as
//! `down shop/web 10.1.0.1:8080/TCP`. All are up at first.
//!
//! Every step is planned as a change to the one before, and then a comparison of everything must
//! find nothing left to do.

use std::{collections::BTreeSet, error::Error, fmt::Write, fs, net::IpAddr, str::FromStr};

use anyhow::{Context, Result, bail, ensure};
use proxy_userspace::{
    model::{Backend, Frontend, Masquerade, Notice, ServiceName, Snapshot, Update},
    plan::{
        DetectLocal, Drains, ExternalIps, Failed, Limits, NodeFacts, Observed, Planner, Settings,
    },
    source,
};
use tempfile::TempDir;

use crate::{
    case::{Case, Section, Step},
    observed,
};

/// The node of a case, through all its steps.
struct World {
    manifests: TempDir,
    facts: NodeFacts,
    settings: Settings,
    limits: Limits,
    drains: Drains,
    observed: Observed,
    planner: Planner,
    failed: Failed,
    /// The next plan compares everything, since something happened behind the agent's back.
    whole: bool,
}

/// Runs a case and replaces what its file says is printed.
pub(crate) fn run(case: &mut Case) -> Result<()> {
    let addrs: BTreeSet<IpAddr> = [[192, 168, 1, 10].into()].into();
    let facts =
        NodeFacts { name: "node-a".into(), node_port_addrs: addrs.clone(), addrs, no_ipv6: false };
    let mut world = World {
        manifests: tempfile::tempdir()?,
        planner: Planner::new(Settings::default(), facts.clone()),
        facts,
        settings: Settings::default(),
        limits: Limits { frontends: 1000, backends: 1000 },
        drains: Drains::Over,
        observed: Observed { fast_path: true, ..Observed::default() },
        failed: Failed::new(),
        whole: true,
    };
    case.steps.iter_mut().try_for_each(|step| world.step(step))
}

impl World {
    fn step(&mut self, step: &mut Step) -> Result<()> {
        for Section { name, body } in &step.inputs {
            self.take(name, body).with_context(|| format!("section {name:?}"))?;
        }
        step.clear();
        match source::load(self.manifests.path()) {
            Ok((snapshot, notices)) => self.decide(step, snapshot, notices),
            Err(error) => {
                let directory = format!("{}/", self.manifests.path().display());
                step.print("error", format!("{error}\n").replace(&directory, ""));
                Ok(())
            }
        }
    }

    fn take(&mut self, name: &str, body: &str) -> Result<()> {
        match name {
            "node" => body.lines().try_for_each(|line| self.take_node(line)),
            "checks" => body.lines().try_for_each(|line| self.take_check(line)),
            "observed" => {
                self.whole = true;
                body.lines().try_for_each(|line| observed::take(&mut self.observed, line))
            }
            name => match name.strip_prefix("gone ") {
                Some(gone) => Ok(fs::remove_file(self.manifests.path().join(gone))?),
                None => Ok(fs::write(self.manifests.path().join(name), body)?),
            },
        }
    }

    fn take_check(&mut self, line: &str) -> Result<()> {
        let words: Vec<&str> = line.split(' ').collect();
        let [state @ ("up" | "down"), service, backend] = *words else {
            bail!("unknown line {line:?}");
        };
        let (namespace, name) = service.split_once('/').context("no NAMESPACE/NAME")?;
        let service = ServiceName { namespace: namespace.into(), name: name.into() };
        let Frontend { addr, port, protocol } = observed::frontend(backend)?;
        let backend = Backend { addr, port, protocol };
        let failed = self.failed.entry(service.clone()).or_default();
        let changes =
            if state == "down" { failed.insert(backend) } else { failed.remove(&backend) };
        ensure!(changes, "it is so already: {line:?}");
        self.planner.set_failed(&service, failed.clone());
        Ok(())
    }

    fn take_node(&mut self, line: &str) -> Result<()> {
        match *line.split(' ').collect::<Vec<_>>() {
            ["name", name] => self.facts.name = name.to_owned(),
            ["addrs", ref addrs @ ..] => self.facts.addrs = parse_all(addrs)?,
            ["node-port-addrs", ref addrs @ ..] => self.facts.node_port_addrs = parse_all(addrs)?,
            ["no-ipv6"] => self.facts.no_ipv6 = true,
            ["fast-path", value @ ("on" | "off")] => {
                self.observed.fast_path = value == "on";
                self.whole = true;
            }
            ["localhost", value @ ("on" | "off")] => {
                self.observed.local_ports = (value == "on").then(Default::default);
                self.whole = true;
            }
            ["limits", frontends, backends] => {
                self.limits = Limits { frontends: frontends.parse()?, backends: backends.parse()? };
                self.whole = true;
            }
            ["drains", "over"] => self.drains = Drains::Over,
            ["drains", "wait"] => self.drains = Drains::OverFor(BTreeSet::new()),
            ["drained", frontend, destination] => {
                let over = (observed::frontend(frontend)?, observed::key(destination)?);
                self.drains = Drains::OverFor([over].into());
                self.whole = true;
            }
            ["restart"] => self.restart(),
            ref words => {
                self.take_setting(words).with_context(|| format!("line {line:?}"))?;
                self.restart();
            }
        }
        Ok(())
    }

    /// Settings change with a restart only.
    fn take_setting(&mut self, words: &[&str]) -> Result<()> {
        let settings = &mut self.settings;
        match *words {
            ["scheduler", name] => settings.scheduler = name.parse()?,
            ["masquerade", "needed"] => settings.masquerade = Masquerade::Needed,
            ["masquerade", "off-cluster"] => settings.masquerade = Masquerade::OffCluster,
            ["masquerade", "all"] => settings.masquerade = Masquerade::All,
            ["detect-local", "nothing"] => settings.detect_local = DetectLocal::Nothing,
            ["detect-local", "node-cidr"] => settings.detect_local = DetectLocal::NodeCidr,
            ["detect-local", "cluster-cidr", ref cidrs @ ..] => {
                settings.detect_local = DetectLocal::ClusterCidr(parse_all(cidrs)?);
            }
            ["detect-local", "bridge", name] => {
                settings.detect_local = DetectLocal::BridgeInterface(name.to_owned());
            }
            ["detect-local", "prefix", name] => {
                settings.detect_local = DetectLocal::InterfacePrefix(name.to_owned());
            }
            ["external-ips", "any"] => settings.external_ips = ExternalIps::Any,
            ["external-ips", "off"] => settings.external_ips = ExternalIps::Off,
            ["external-ips", "within", ref cidrs @ ..] => {
                settings.external_ips = ExternalIps::Within(parse_all(cidrs)?);
            }
            ["exclude-cidrs", ref cidrs @ ..] => settings.exclude_cidrs = parse_all(cidrs)?,
            ["ranges-on-external-ips"] => settings.ranges_on_external_ips = true,
            ["reject-unassigned"] => settings.reject_unassigned = true,
            ["vips", "none"] => settings.leave_vips = true,
            ["vips", "routes"] => settings.leave_vips = false,
            _ => bail!("unknown"),
        }
        Ok(())
    }

    fn restart(&mut self) {
        self.planner = Planner::new(self.settings.clone(), self.facts.clone());
        for (service, failed) in &self.failed {
            self.planner.set_failed(service, failed.clone());
        }
        self.whole = true;
    }

    fn decide(&mut self, step: &mut Step, snapshot: Snapshot, notices: Vec<Notice>) -> Result<()> {
        self.planner.take(Update::Replace(snapshot));
        self.planner.set_facts(self.facts.clone());
        let whole = std::mem::take(&mut self.whole);
        let plan = if whole {
            self.planner.plan_all(&self.observed, &self.limits, &self.drains)
        } else {
            self.planner.plan_changes(&self.observed, &self.limits, &self.drains)
        };
        if let Drains::OverFor(over) = &mut self.drains {
            over.clear();
        }
        // What could not be done is looked at again with everything else.
        self.whole = !plan.conflicts.is_empty();
        if step.shows_desired {
            step.print("desired", self.planner.desired());
        }
        if plan.actions.is_empty() {
            step.print("plan", "nothing\n");
        } else {
            step.print("plan", &plan);
        }
        let mut all = self.planner.desired().notices();
        all.extend(plan.conflicts.iter().cloned());
        let mut text = String::new();
        let all = notices.iter().chain(&all);
        all.into_iter().try_for_each(|notice| writeln!(text, "{notice}"))?;
        if !text.is_empty() {
            step.print("notices", text);
        }
        plan.actions.iter().for_each(|action| self.observed.apply(action));
        let rest = self.planner.plan_all(&self.observed, &self.limits, &self.drains);
        // In a full map, ids that this plan freed are given out by the next one.
        ensure!(rest.actions.is_empty() || !plan.conflicts.is_empty(), "not settled:\n{rest}");
        Ok(())
    }
}

fn parse_all<T, C>(words: &[&str]) -> Result<C>
where
    T: FromStr<Err: Error + Send + Sync + 'static>,
    C: FromIterator<T>,
{
    Ok(words.iter().map(|word| word.parse()).collect::<Result<_, T::Err>>()?)
}
