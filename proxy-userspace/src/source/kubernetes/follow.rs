//! One task a kind: kube's watcher, until the source ends.

use std::{pin::pin, sync::Arc, time::Duration};

use futures::StreamExt;
use kube::{
    Api, Client,
    runtime::watcher::{self, Event, watcher},
};
use tokio::{sync::mpsc, time::sleep};
use tracing::warn;

use super::{
    backoff::Backoff,
    failure::Failure,
    merge::{Seen, Told},
    objects::{Object, Wanted, Watched},
};
use crate::source::convert::{Identity, Kind};

/// Between looks for a kind that the API server does not know, or must not show us, while the
/// rest does without it.
const SELDOM: Duration = Duration::from_secs(300);
/// After this many refusals in a row, they are not those of an API server that has just started.
const REFUSALS: u32 = 5;

/// What a watch reports: of which kind, and what.
pub(super) type Report = (Kind, Result<Told, Failure>);

/// Watches all objects of a kind that are `wanted`, and tells what it sees. Ends when nobody
/// listens.
pub(super) async fn follow<W: Watched>(
    client: Client,
    wanted: Arc<Wanted>,
    tell: mpsc::Sender<Report>,
) {
    let api: Api<Object<W>> = Api::all(client);
    let mut backoff = Backoff::default();
    let mut refusals = 0;
    // Each turn starts with a list.
    loop {
        let mut events = pin!(watcher(api.clone(), wanted.selector(W::KIND)));
        while let Some(event) = events.next().await {
            let error = match event {
                Ok(event) => {
                    // That a list begins does not say that somebody answered.
                    if !matches!(event, Event::Init) {
                        backoff.reset();
                        refusals = 0;
                    }
                    let Some(told) = told::<W>(event, &wanted) else { continue };
                    if tell.send((W::KIND, Ok(told))).await.is_err() {
                        return;
                    }
                    continue;
                }
                Err(error) => error,
            };
            let started = matches!(error, watcher::Error::WatchStartFailed(_));
            let failure = Failure::of(&error);
            let (wants_list, lasting) = (failure.wants_list(), failure.is_lasting());
            refusals += u32::from(lasting);
            if tell.send((W::KIND, report(W::KIND, failure, refusals))).await.is_err() {
                return;
            }
            let rarely = is_optional(W::KIND) && lasting && refusals >= REFUSALS;
            sleep(if rarely { SELDOM } else { backoff.after_error() }).await;
            // kube itself lists anew only when the watch was begun.
            if started && (wants_list || (lasting && refusals.is_multiple_of(REFUSALS))) {
                break;
            }
        }
    }
}

/// ServiceCIDRs came with Kubernetes 1.33, and older roles do not have them: the rest works
/// without.
fn is_optional(kind: Kind) -> bool {
    kind == Kind::ServiceCidr
}

fn report(kind: Kind, failure: Failure, refusals: u32) -> Result<Told, Failure> {
    let lacking = matches!(failure, Failure::Absent | Failure::Forbidden { .. });
    if !is_optional(kind) || !lacking {
        return Err(failure);
    }
    // An API server that has just started refuses everything for a moment.
    if failure != Failure::Absent && refusals == REFUSALS {
        let text = failure.describe(kind, "");
        warn!(event = "service_cidrs_unknown", "{text}");
    }
    Ok(Told::Absent)
}

fn told<W: Watched>(event: Event<Object<W>>, wanted: &Wanted) -> Option<Told> {
    let seen = |object: Object<W>| {
        let outcome = object.stored.convert(W::KIND, wanted.proxy_name.as_deref());
        Seen::new(outcome).map(Box::new)
    };
    Some(match event {
        Event::Init => Told::Listing,
        Event::InitApply(object) => Told::Listed(seen(object)?),
        Event::InitDone => Told::Complete,
        Event::Apply(object) => Told::Changed(seen(object)?),
        Event::Delete(object) => Told::Deleted(identity::<W>(&object)?),
    })
}

fn identity<W: Watched>(object: &Object<W>) -> Option<Identity> {
    let namespace = object.stored.namespace().unwrap_or_default().into();
    Some(Identity { kind: W::KIND, namespace, name: object.stored.name()?.into() })
}
