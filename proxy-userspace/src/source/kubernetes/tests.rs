//! Lists and changes become updates: what a real API server cannot show on demand.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::{
    merge::{Merge, Seen, Told},
    objects::KINDS,
};
use crate::{
    model::{Change, Snapshot, Update},
    source::{
        Trigger,
        convert::{Identity, Kind, Stored},
    },
};

fn seen(kind: Kind, object: Value) -> Seen {
    let stored: Stored = serde_json::from_value(object).unwrap();
    Seen::new(stored.convert(kind, None)).unwrap()
}

fn now(seen: Seen) -> Told {
    Told::Changed(Box::new(seen))
}

fn listed(seen: Seen) -> Told {
    Told::Listed(Box::new(seen))
}

fn service(name: &str, addr: &str) -> Seen {
    annotated(name, addr, json!({}))
}

fn annotated(name: &str, addr: &str, annotations: Value) -> Seen {
    let metadata = json!({"name": name, "namespace": "shop", "annotations": annotations});
    let spec = json!({"clusterIP": addr, "clusterIPs": [addr], "ports": [{"port": 80}]});
    seen(Kind::Service, json!({"metadata": metadata, "spec": spec}))
}

fn slice(addr: &str, ready: bool, trigger: &str) -> Seen {
    let annotations = json!({"endpoints.kubernetes.io/last-change-trigger-time": trigger});
    let labels = json!({"kubernetes.io/service-name": "web"});
    let kind = if addr.contains(':') { "IPv6" } else { "IPv4" };
    let metadata =
        json!({"name": kind, "namespace": "shop", "labels": labels, "annotations": annotations});
    let endpoints = json!([{"addresses": [addr], "conditions": {"ready": ready}}]);
    let ports = json!([{"name": "", "port": 8080, "protocol": "TCP"}]);
    let object =
        json!({"metadata": metadata, "addressType": kind, "endpoints": endpoints, "ports": ports});
    seen(Kind::EndpointSlice, object)
}

fn identity(name: &str) -> Identity {
    Identity { kind: Kind::Service, namespace: "shop".into(), name: name.into() }
}

fn list(merge: &mut Merge, kind: Kind, objects: Vec<Seen>) {
    merge.take(kind, Told::Listing);
    for object in objects {
        merge.take(kind, listed(object));
    }
    merge.take(kind, Told::Complete);
}

/// Everything is listed, with these Services, and the first update is taken.
fn connected(services: Vec<Seen>) -> Merge {
    let mut merge = Merge::default();
    for kind in KINDS.into_iter().filter(|kind| *kind != Kind::Service) {
        list(&mut merge, kind, Vec::new());
    }
    assert!(!merge.has_update());
    list(&mut merge, Kind::Service, services);
    assert!(matches!(merge.update(), Some(Update::Replace(_))));
    merge
}

fn names(snapshot: &Snapshot) -> Vec<&str> {
    snapshot.services.keys().map(|name| &*name.name).collect()
}

fn replaced(merge: &mut Merge) -> Snapshot {
    match merge.update() {
        Some(Update::Replace(snapshot)) => snapshot,
        other => panic!("{other:?} where everything anew belongs"),
    }
}

fn changed(merge: &mut Merge) -> Vec<(String, bool)> {
    let Some(Update::Change(changes)) = merge.update() else { panic!("no change") };
    let told = changes.into_iter().map(|change| match change {
        Change::Service(name, service) => (name.name.to_string(), service.is_some()),
        other => panic!("{other:?}"),
    });
    told.collect()
}

#[test]
fn what_brought_about_a_change_of_a_slice_is_told_with_it_and_once() {
    let mut merge = connected(Vec::new());
    let kind = Kind::EndpointSlice;
    list(&mut merge, kind, vec![slice("10.1.0.1", true, "2026-01-31T12:00:00Z")]);
    assert!(merge.update().is_some());
    assert_eq!(merge.take_triggers(), [], "a list may be old");
    merge.take(kind, now(slice("10.1.0.1", false, "2026-01-31T12:00:01.5Z")));
    merge.take(kind, now(slice("fd00::1", true, "2026-01-31T12:00:02Z")));
    // Nothing of it is of use here.
    merge.take(kind, now(slice("fd00::1", true, "2026-01-31T12:00:03Z")));
    merge.take(kind, now(slice("10.1.0.1", true, "yesterday")));
    assert!(merge.update().is_some());
    let at = |milliseconds: u64| {
        SystemTime::UNIX_EPOCH + Duration::from_millis(1_769_860_800_000 + milliseconds)
    };
    let expected = [(1500, false), (2000, true)].map(|(ms, ipv6)| Trigger { at: at(ms), ipv6 });
    assert_eq!(merge.take_triggers(), expected);
    assert_eq!(merge.take_triggers(), []);
}

#[test]
fn the_first_update_waits_for_every_kind_and_an_empty_cluster_is_one() {
    let mut merge = Merge::default();
    for kind in KINDS {
        assert!(merge.update().is_none(), "before {kind:?}");
        list(&mut merge, kind, Vec::new());
    }
    assert_eq!(replaced(&mut merge), Snapshot::default());
    assert!(merge.update().is_none(), "once");
}

#[test]
fn a_kind_that_is_not_to_be_had_holds_nothing_up() {
    let mut merge = Merge::default();
    for kind in [Kind::Service, Kind::EndpointSlice, Kind::Node] {
        list(&mut merge, kind, Vec::new());
    }
    assert!(!merge.has_update());
    merge.take(Kind::ServiceCidr, Told::Listing);
    merge.take(Kind::ServiceCidr, Told::Absent);
    assert!(merge.has_update());
}

#[test]
fn half_of_a_list_is_never_seen() {
    let mut merge = connected(vec![service("a", "10.96.0.1"), service("b", "10.96.0.2")]);
    merge.take(Kind::Service, Told::Listing);
    merge.take(Kind::Service, listed(service("b", "10.96.0.9")));
    assert!(!merge.has_update() && merge.is_relisting());
    assert_eq!(names(merge.snapshot()), ["a", "b"]);
    // The connection breaks, and the list begins again.
    merge.take(Kind::Service, Told::Listing);
    merge.take(Kind::Service, listed(service("c", "10.96.0.3")));
    assert!(!merge.has_update());
    merge.take(Kind::Service, Told::Complete);
    assert_eq!(names(&replaced(&mut merge)), ["c"]);
    assert_eq!(merge.relists(), 1);
}

#[test]
fn a_list_of_what_is_known_is_no_news() {
    let mut merge = connected(vec![service("a", "10.96.0.1")]);
    list(&mut merge, Kind::Service, vec![service("a", "10.96.0.1")]);
    assert!(!merge.has_update());
    assert_eq!(merge.relists(), 1);
}

#[test]
fn changes_are_told_once_an_object_in_the_order_they_came_as_they_are_now() {
    let mut merge = connected(vec![service("a", "10.96.0.1")]);
    merge.take(Kind::Service, now(service("b", "10.96.0.2")));
    merge.take(Kind::Service, Told::Deleted(identity("a")));
    merge.take(Kind::Service, now(service("b", "10.96.0.3")));
    merge.take(Kind::Service, now(service("c", "10.96.0.4")));
    let told = changed(&mut merge);
    assert_eq!(told, [("b".into(), true), ("a".into(), false), ("c".into(), true)]);
    merge.take(Kind::Service, now(service("c", "10.96.0.4")));
    assert!(merge.update().is_none(), "nothing changed");
    merge.take(Kind::Service, Told::Deleted(identity("never there")));
    assert!(merge.update().is_none(), "nothing went");
}

#[test]
fn a_service_that_loses_its_forwarding_state_is_gone() {
    let mut merge = connected(vec![service("a", "10.96.0.1")]);
    merge.take(Kind::Service, now(service("a", "None")));
    assert_eq!(changed(&mut merge), [("a".into(), false)]);
}

#[test]
fn notices_come_and_go_with_their_object() {
    let scheduler = |name| json!({"passlane.io/scheduler": name});
    let mut merge = connected(vec![annotated("a", "10.96.0.1", scheduler("rocket"))]);
    let told = |merge: &Merge| merge.notices().map(|notice| notice.reason()).collect::<Vec<_>>();
    assert!(merge.take_notices_changed());
    assert_eq!(told(&merge), ["UnknownScheduler"]);
    merge.take(Kind::Service, now(annotated("a", "10.96.0.1", scheduler("plane"))));
    assert!(!merge.has_update(), "the default is used, before and after");
    assert!(merge.take_notices_changed(), "the text is another");
    merge.take(Kind::Service, now(service("a", "10.96.0.1")));
    assert!(merge.take_notices_changed() && told(&merge).is_empty());
    merge.take(Kind::Service, now(annotated("a", "10.96.0.1", scheduler("rocket"))));
    assert!(merge.take_notices_changed());
    list(&mut merge, Kind::Service, Vec::new());
    assert!(merge.take_notices_changed() && told(&merge).is_empty(), "gone by a list");
}

#[test]
fn what_cannot_be_read_of_a_stored_object_is_a_notice_on_it() {
    let merge = connected(vec![seen(
        Kind::Service,
        json!({
            "metadata": {"name": "a", "namespace": "shop"},
            "spec": {"clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"],
                     "externalIPs": ["nonsense"], "ports": [{"port": 80}]},
        }),
    )]);
    assert_eq!(names(merge.snapshot()), ["a"]);
    let notice = merge.notices().next().unwrap();
    assert_eq!(&*notice.service().unwrap().name, "a");
    let text = notice.to_string();
    assert!(text.starts_with("service shop/a: spec.externalIPs[0]: "), "{text}");
}

#[test]
fn the_ranges_of_all_service_cidrs_are_together() {
    let mut merge = connected(Vec::new());
    let cidr = |name: &str, cidrs: &[&str]| {
        seen(Kind::ServiceCidr, json!({"metadata": {"name": name}, "spec": {"cidrs": cidrs}}))
    };
    let told = |merge: &mut Merge| {
        let Some(Update::Change(changes)) = merge.update() else { panic!("no change") };
        let Some(Change::ServiceCidrs(cidrs)) = changes.into_iter().next() else { panic!() };
        cidrs.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    merge.take(Kind::ServiceCidr, now(cidr("a", &["10.96.0.0/16"])));
    merge.take(Kind::ServiceCidr, now(cidr("b", &["10.97.0.0/16", "10.98.0.0/16"])));
    assert_eq!(told(&mut merge), ["10.96.0.0/16", "10.97.0.0/16", "10.98.0.0/16"]);
    let identity = Identity { kind: Kind::ServiceCidr, namespace: "".into(), name: "b".into() };
    merge.take(Kind::ServiceCidr, Told::Deleted(identity));
    assert_eq!(told(&mut merge), ["10.96.0.0/16"]);
}
