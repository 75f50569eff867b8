//! Notices as Kubernetes Events, where the owner of a Service looks: `kubectl describe service`.
//!
//! An Event has a name that follows from what it says. So all agents of a cluster, and one agent
//! after a restart, mean the same Event, and the API server keeps one of them.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::{
    api::{
        core::v1::{ObjectReference, Service},
        events::v1::{Event, EventSeries},
    },
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::{
    select,
    sync::watch,
    time::{Instant, sleep_until},
};
use tracing::{debug, warn};

use super::pace::Pace;
use crate::{
    chain::chain,
    model::{Notice, ServiceName, SliceName},
};

/// Who reports, as every Event says.
const CONTROLLER: &str = "passlane.io/agent";
/// A notice that lasts is told again: API servers forget Events after an hour.
const REPEAT: Duration = Duration::from_secs(30 * 60);
/// After an error.
const RETRY: Duration = Duration::from_secs(30);
/// Without the permission, which nobody gives within seconds.
const RETRY_PERMISSION: Duration = Duration::from_secs(300);
/// Events a second after the first [`BURST`].
const RATE: f32 = 0.2;
/// Events that may be sent at once.
const BURST: u32 = 25;
/// Bytes of a note; the API server refuses more.
const MAX_NOTE: usize = 1024;

/// Takes notices; what they say appears as Events some time later, until it is dropped.
#[derive(Clone, Debug)]
pub struct Publisher {
    notices: Arc<watch::Sender<Arc<[Notice]>>>,
}

impl Publisher {
    /// Says which notices there are now. Never waits.
    pub fn publish(&self, notices: impl IntoIterator<Item = Notice>) {
        let mut notices: Vec<_> = notices.into_iter().collect();
        notices.sort();
        self.notices.send_replace(notices.into());
    }
}

/// What was told of a notice.
#[derive(Debug)]
struct Told {
    times: i32,
    /// When it is told again.
    again: Instant,
}

struct Telling {
    client: Client,
    node: String,
    pace: Pace,
    told: BTreeMap<Notice, Told>,
    refused: bool,
}

/// Returns a publisher and what must run for it.
pub(super) fn start(client: Client, node: &str) -> (Publisher, impl Future<Output = ()> + use<>) {
    let (sender, receiver) = watch::channel(Arc::default());
    let telling = Telling {
        client,
        node: node.to_owned(),
        pace: Pace::new(RATE, BURST),
        told: BTreeMap::new(),
        refused: false,
    };
    (Publisher { notices: Arc::new(sender) }, telling.run(receiver))
}

impl Telling {
    async fn run(mut self, mut notices: watch::Receiver<Arc<[Notice]>>) {
        loop {
            let current = Arc::clone(&notices.borrow_and_update());
            let wake = match self.due(&current) {
                Some(notice) => {
                    select! {
                        // The list may be another one when it is our turn.
                        changed = notices.changed() => match changed {
                            Ok(()) => continue,
                            Err(_) => return,
                        },
                        () = self.pace.wait() => {}
                    }
                    match self.tell(&notice).await {
                        Ok(()) => continue,
                        Err(error) => Instant::now() + self.failed(&notice, &error),
                    }
                }
                None => self.next_repeat(),
            };
            select! {
                changed = notices.changed() => if changed.is_err() { return },
                () = sleep_until(wake) => {}
            }
        }
    }

    /// Returns a notice that is to be told now.
    fn due(&mut self, current: &[Notice]) -> Option<Notice> {
        // What comes and goes is told no more often than what lasts.
        let now = Instant::now();
        self.told.retain(|notice, told| told.again > now || current.binary_search(notice).is_ok());
        let due = |notice: &&Notice| self.told.get(notice).is_none_or(|told| told.again <= now);
        current.iter().find(due).cloned()
    }

    fn next_repeat(&self) -> Instant {
        let first = self.told.values().map(|told| told.again).min();
        first.unwrap_or_else(|| Instant::now() + REPEAT)
    }

    async fn tell(&mut self, notice: &Notice) -> Result<(), kube::Error> {
        let times = self.told.get(notice).map_or(0, |told| told.times) + 1;
        if let Some(event) = self.event(notice).await? {
            let namespace = event.metadata.namespace.clone().unwrap_or_default();
            let events: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
            match events.create(&PostParams::default(), &event).await {
                // Of a Service's Event, one agent of the cluster counts: the one that made it.
                Err(kube::Error::Api(status)) if status.is_already_exists() => {
                    if times > 1 {
                        count(&events, &event, times).await?;
                    }
                }
                result => drop(result?),
            }
        }
        self.refused = false;
        self.told.insert(notice.clone(), Told { times, again: Instant::now() + REPEAT });
        Ok(())
    }

    fn failed(&mut self, notice: &Notice, error: &kube::Error) -> Duration {
        let forbidden = matches!(error, kube::Error::Api(status) if status.is_forbidden() && status.code == 403);
        let gone = matches!(error, kube::Error::Api(status) if status.is_not_found());
        if gone || matches!(error, kube::Error::Api(status) if matches!(status.code, 400 | 422)) {
            // Its namespace is going away, or this Event is never taken: the others may be.
            debug!(event = "event_not_taken", %notice, error = %chain(error), "no Event for it");
            self.put_off(notice, REPEAT);
            return Duration::ZERO;
        }
        if !std::mem::replace(&mut self.refused, true) {
            let cure = match forbidden {
                true => {
                    "; give the verbs create and patch on events.events.k8s.io in the ClusterRole \
                     of our account; system:node-proxier has them"
                }
                false => "",
            };
            warn!(event = "event_not_sent", "no Events are sent: {}{cure}", chain(error));
        }
        let wait = if forbidden { RETRY_PERMISSION } else { RETRY };
        // The next try is another one: what is wrong may be wrong with this one only.
        self.put_off(notice, wait * 2);
        wait
    }

    fn put_off(&mut self, notice: &Notice, wait: Duration) {
        let again = Instant::now() + wait;
        self.told.entry(notice.clone()).or_insert(Told { times: 0, again }).again = again;
    }

    /// Returns the Event of a notice; `None` when what it is about is gone.
    async fn event(&self, notice: &Notice) -> Result<Option<Event>, kube::Error> {
        let regarding = match (notice.service(), slice_of(notice)) {
            (Some(service), _) => match self.service(service).await? {
                Some(reference) => reference,
                None => return Ok(None),
            },
            (None, Some(slice)) => {
                reference("discovery.k8s.io/v1", "EndpointSlice", &slice.namespace, &slice.name)
            }
            // `kubectl describe node` looks for the name in place of the identity.
            (None, None) => ObjectReference {
                uid: Some(self.node.clone()),
                namespace: None,
                ..reference("v1", "Node", "", &self.node)
            },
        };
        Ok(Some(event(notice, regarding, &self.node)))
    }

    /// Returns a reference with the identity of the Service, which `kubectl describe` asks for.
    async fn service(&self, name: &ServiceName) -> Result<Option<ObjectReference>, kube::Error> {
        let services: Api<Service> = Api::namespaced(self.client.clone(), &name.namespace);
        let params = ListParams::default().fields(&format!("metadata.name={}", name.name));
        let found = services.list_metadata(&params).await?.items.into_iter().next();
        Ok(found.map(|service| ObjectReference {
            uid: service.metadata.uid,
            ..reference("v1", "Service", &name.namespace, &name.name)
        }))
    }
}

/// Says that an Event has been seen again.
async fn count(events: &Api<Event>, event: &Event, times: i32) -> Result<(), kube::Error> {
    let series = EventSeries { count: times, last_observed_time: MicroTime(Timestamp::now()) };
    let name = event.metadata.name.as_deref().unwrap_or_default();
    let patch = Patch::Merge(json!({ "series": series }));
    match events.patch(name, &PatchParams::default(), &patch).await {
        // It expired just now; the next time makes it anew.
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        result => result.map(drop),
    }
}

fn event(notice: &Notice, regarding: ObjectReference, node: &str) -> Event {
    let mut hasher = DefaultHasher::new();
    notice.to_string().hash(&mut hasher);
    if is_of_node(notice) {
        node.hash(&mut hasher);
    }
    let object = regarding.name.clone().unwrap_or_default();
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{object}.passlane-{:016x}", hasher.finish())),
            namespace: Some(regarding.namespace.clone().unwrap_or_else(|| "default".to_owned())),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(Timestamp::now())),
        type_: Some("Warning".to_owned()),
        reason: Some(notice.reason().to_owned()),
        action: Some("Serve".to_owned()),
        note: Some(cut(notice.to_string())),
        regarding: Some(regarding),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(node.to_owned()),
        ..Event::default()
    }
}

/// Whether a notice holds on one node only; the others are the same on all nodes.
fn is_of_node(notice: &Notice) -> bool {
    match notice {
        Notice::ForeignVirtualServer { .. }
        | Notice::ApiServerIsVip { .. }
        | Notice::Ipv6NotServed { .. }
        | Notice::Drift { .. } => true,
        other => other.service().is_none() && slice_of(other).is_none(),
    }
}

fn slice_of(notice: &Notice) -> Option<&SliceName> {
    match notice {
        Notice::SliceWithoutService { slice } | Notice::SliceOfNames { slice } => Some(slice),
        _ => None,
    }
}

fn reference(api_version: &str, kind: &str, namespace: &str, name: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some(api_version.to_owned()),
        kind: Some(kind.to_owned()),
        namespace: Some(namespace.to_owned()),
        name: Some(name.to_owned()),
        ..ObjectReference::default()
    }
}

fn cut(mut text: String) -> String {
    if text.len() > MAX_NOTE {
        let end = (0..=MAX_NOTE - '…'.len_utf8()).rev().find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or_default());
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(value: &str) -> Notice {
        let service = ServiceName { namespace: "shop".into(), name: "web".into() };
        Notice::UnknownScheduler { service, value: value.into() }
    }

    fn name(notice: &Notice, node: &str) -> String {
        event(notice, reference("v1", "Service", "shop", "web"), node).metadata.name.unwrap()
    }

    #[test]
    fn what_holds_on_all_nodes_is_one_event_and_what_holds_on_one_is_its_own() {
        assert_eq!(name(&notice("a"), "node-a"), name(&notice("a"), "node-b"));
        assert_ne!(name(&notice("a"), "node-a"), name(&notice("b"), "node-a"));
        let full = Notice::FrontendsFull {
            limit: 1,
            left_out: 1,
            first: crate::model::ServicePortName {
                service: ServiceName { namespace: "shop".into(), name: "web".into() },
                port: String::new(),
            },
        };
        assert_ne!(name(&full, "node-a"), name(&full, "node-b"));
    }

    #[test]
    fn a_note_is_cut_between_characters() {
        let text = cut("é".repeat(MAX_NOTE));
        assert!(text.len() <= MAX_NOTE && text.ends_with("é…"), "{}", text.len());
        assert_eq!(cut("short".into()), "short");
    }
}
