//! Loads, decides, plans and applies, step by step.
//!
//! Section `node`, one line each; settings last until they are changed:
//!
//! ```text
//! node-port-addrs ADDR...        addresses that answer NodePorts; 192.168.1.10 at first
//! scheduler NAME                 the agent's default; rr at first
//! fast-path on|off               the BPF maps exist; on at first
//! limits FRONTENDS BACKENDS      capacities of the BPF maps; 1000 1000 at first
//! ```

use std::{fmt::Write, fs, net::Ipv4Addr};

use anyhow::{Context, Result, bail, ensure};
use proxy_userspace::{
    model::{Notice, Snapshot},
    plan::{Defaults, Limits, NodeFacts, Observed, desired, plan},
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
    node: NodeFacts,
    defaults: Defaults,
    limits: Limits,
    observed: Observed,
}

/// Runs a case and replaces what its file says is printed.
pub(crate) fn run(case: &mut Case) -> Result<()> {
    let mut world = World {
        manifests: tempfile::tempdir()?,
        node: NodeFacts { node_port_addrs: [Ipv4Addr::new(192, 168, 1, 10)].into() },
        defaults: Defaults::default(),
        limits: Limits { frontends: 1000, backends: 1000 },
        observed: Observed { fast_path: true, ..Observed::default() },
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
            Ok((snapshot, notices)) => self.decide(step, &snapshot, notices),
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
            "observed" => {
                body.lines().try_for_each(|line| observed::take(&mut self.observed, line))
            }
            name => match name.strip_prefix("gone ") {
                Some(gone) => Ok(fs::remove_file(self.manifests.path().join(gone))?),
                None => Ok(fs::write(self.manifests.path().join(name), body)?),
            },
        }
    }

    fn take_node(&mut self, line: &str) -> Result<()> {
        match *line.split(' ').collect::<Vec<_>>() {
            ["node-port-addrs", ref addrs @ ..] => {
                let addrs = addrs.iter().map(|addr| addr.parse());
                self.node.node_port_addrs = addrs.collect::<Result<_, _>>()?;
            }
            ["scheduler", name] => self.defaults.scheduler = name.parse()?,
            ["fast-path", value @ ("on" | "off")] => self.observed.fast_path = value == "on",
            ["limits", frontends, backends] => {
                self.limits = Limits { frontends: frontends.parse()?, backends: backends.parse()? };
            }
            _ => bail!("unknown line {line:?}"),
        }
        Ok(())
    }

    fn decide(
        &mut self,
        step: &mut Step,
        snapshot: &Snapshot,
        mut notices: Vec<Notice>,
    ) -> Result<()> {
        let desired = desired(snapshot, &self.node, &self.defaults);
        let plan = plan(&desired, &self.observed, &self.limits);
        if step.shows_desired {
            step.print("desired", &desired);
        }
        if plan.actions.is_empty() {
            step.print("plan", "nothing\n");
        } else {
            step.print("plan", &plan);
        }
        notices.extend(desired.notices.iter().chain(&plan.conflicts).cloned());
        let mut text = String::new();
        notices.iter().try_for_each(|notice| writeln!(text, "{notice}"))?;
        if !text.is_empty() {
            step.print("notices", text);
        }
        plan.actions.iter().for_each(|action| self.observed.apply(action));
        let rest = self::plan(&desired, &self.observed, &self.limits);
        // In a full map, ids that this plan freed are given out by the next one.
        ensure!(rest.actions.is_empty() || !plan.conflicts.is_empty(), "not settled:\n{rest}");
        Ok(())
    }
}
