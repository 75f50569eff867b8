//! Answers what the command line asks.

use std::{collections::BTreeSet, path::Path};

use serde::Serialize;
use serde_json::Value;
use tokio::sync::mpsc;
use tracing::warn;

use super::{Agent, pass::LIMITS};
use crate::{
    admin::{self, Comparison, Fixed, Foreign, Request, Verb},
    audit::offline::foreign,
    chain::chain,
    model::interface::Interface,
    plan::{
        Drains, plan,
        review::{State, rows},
    },
};

/// Opens the admin socket. Without it the agent serves all the same.
pub(super) fn open(state_dir: &Path) -> mpsc::Receiver<Request> {
    admin::open(state_dir).unwrap_or_else(|error| {
        warn!(event = "admin_off", error = chain(&error), "passlane diff --fix has nobody to ask");
        mpsc::channel(1).1
    })
}

fn value(answer: impl Serialize) -> Result<Value, String> {
    serde_json::to_value(answer).map_err(|error| error.to_string())
}

impl Agent {
    pub(super) async fn answer(&mut self, request: Request) {
        let question = request.question;
        let answer = match question.verb {
            Verb::Status => value(self.account()),
            Verb::Diff | Verb::Fix if !self.has_snapshot => {
                Err("nothing is known yet of what is wanted: the source has not spoken".into())
            }
            Verb::Diff => self.compare(question.all).await.and_then(value),
            Verb::Fix => self.fix().await.and_then(|drifts| {
                let drifts = drifts.iter().map(ToString::to_string).collect();
                value(Fixed { drifts, errors: self.pass.errors.clone() })
            }),
        };
        request.answer(answer);
    }

    async fn compare(&mut self, all: bool) -> Result<Comparison, String> {
        let (found, drifts) = self.look_now().await?;
        let desired = self.planner.desired();
        let plan = plan(desired, &found, &LIMITS, &Drains::OverFor(BTreeSet::new()));
        let mut rows = rows(desired, &found, &plan, &drifts);
        let same = rows.iter().filter(|row| row.state == State::Same).count();
        if !all {
            rows.retain(|row| row.state != State::Same);
        }
        let mut foreign = foreign(&found);
        let tables = self.node.ruleset.foreign_tables().await.map_err(|error| chain(&error))?;
        foreign
            .extend(tables.into_iter().map(|object| Foreign { kind: "nft table".into(), object }));
        foreign.extend(self.on_interfaces(&self.present));
        foreign.sort();
        Ok(Comparison { agent: true, rows, same, foreign, unknown: Vec::new() })
    }

    fn on_interfaces(&self, present: &[Interface]) -> impl Iterator<Item = Foreign> {
        let found = self.interfaces.foreign();
        let here = found.on.iter().flat_map(|(index, what)| {
            let interface = present.iter().find(|each| each.index == *index);
            let name = interface.map_or_else(|| index.to_string(), |each| each.name.clone());
            what.iter().map(move |what| Foreign {
                kind: "program or filter".into(),
                object: format!("{name}: {what}"),
            })
        });
        let everywhere = found.everywhere.iter();
        here.chain(everywhere.map(|what| Foreign { kind: "ruleset".into(), object: what.clone() }))
    }
}
