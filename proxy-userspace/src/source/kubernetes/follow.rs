//! One task a kind: kube's watcher, until the source ends.

use std::{pin::pin, sync::Arc, time::Duration};

use futures::StreamExt;
use kube::{
    Api, Client,
    runtime::watcher::{self, Event, watcher},
};
use tokio::{sync::mpsc, time::sleep};

use super::{
    backoff::Backoff,
    failure::{Cure, Failure},
    merge::{Seen, Told},
    objects::{Object, Wanted, Watched},
};
use crate::source::convert::{Identity, Kind};

/// Between looks for a kind that the API server does not know, or must not show us, while the
/// rest does without it.
const SELDOM: Duration = Duration::from_secs(300);
/// A watch that its server refuses this often in a row is given up, and its kind listed anew.
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
    // Each turn starts with a list.
    loop {
        let mut events = pin!(watcher(api.clone(), wanted.selector(W::KIND)));
        let mut refusals = 0;
        while let Some(event) = events.next().await {
            match event {
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
                }
                Err(error) => {
                    let started = matches!(error, watcher::Error::WatchStartFailed(_));
                    let failure = Failure::of(W::KIND, &error);
                    let cure = failure.cure;
                    if report(W::KIND, failure, &tell).await.is_err() {
                        return;
                    }
                    sleep(pause(W::KIND, cure, &mut backoff)).await;
                    refusals += u32::from(started && cure != Cure::Wait);
                    // kube itself lists anew only when the watch was begun.
                    if (started && cure == Cure::Relist) || refusals >= REFUSALS {
                        break;
                    }
                }
            }
        }
    }
}

/// ServiceCIDRs came with Kubernetes 1.33, and older roles do not have them: the rest works
/// without.
fn is_optional(kind: Kind) -> bool {
    kind == Kind::ServiceCidr
}

fn pause(kind: Kind, cure: Cure, backoff: &mut Backoff) -> Duration {
    match cure {
        Cure::Absent | Cure::Permission if is_optional(kind) => SELDOM,
        _ => backoff.after_error(),
    }
}

async fn report(kind: Kind, failure: Failure, tell: &mpsc::Sender<Report>) -> Result<(), ()> {
    if is_optional(kind) && matches!(failure.cure, Cure::Absent | Cure::Permission) {
        if failure.cure == Cure::Permission {
            tracing::warn!(event = "service_cidrs_unknown", "{}", failure.text);
        }
        return tell.send((kind, Ok(Told::Absent))).await.map_err(drop);
    }
    tell.send((kind, Err(failure))).await.map_err(drop)
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
    let namespace = object.stored.namespace().unwrap_or_default().to_owned();
    Some(Identity { kind: W::KIND, namespace, name: object.stored.name()?.to_owned() })
}
