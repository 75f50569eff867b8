//! Which plane, and what the entries of both directions are good for.

use proxy_common::reason::Reason;

use super::{super::Plane, *};

const FAST: &str = "fast, rewritten and redirected into the pod behind v-web-a; slow are SYN, FIN and RST, fragments, packets above 1500 bytes or of TTL 1";

struct Row {
    name: &'static str,
    change: Change,
    reason: Option<Reason>,
    words: &'static str,
}

fn check(rows: &[Row]) {
    for Row { name, change, reason, words } in rows {
        let trace = ask(*change, &packet(CLIENT, VIP));
        assert_eq!(says(&trace, "Path"), *words, "{name}");
        assert_eq!(trace.reason, reason.map(Reason::name), "{name}");
        let plane = if *reason == Some(Reason::Hit) { Plane::Fast } else { Plane::Slow };
        assert_eq!(trace.plane, Some(plane), "{name}");
    }
}

fn first(dump: &mut Dump) -> &mut Flow {
    &mut maps(dump).flows[0]
}

#[test]
fn entries_are_judged_as_the_datapath_judges_them() {
    check(&[
        Row { name: "good", change: as_it_is, reason: Some(Reason::Hit), words: FAST },
        Row {
            name: "out by an uplink",
            change: |dump| {
                first(dump).peer = false;
                first(dump).out_interface = UPLINK;
            },
            reason: Some(Reason::Hit),
            words: "fast, rewritten and redirected out by eth0; slow are SYN, FIN and RST, fragments, packets above 1500 bytes or of TTL 1",
        },
        Row {
            name: "past the soft lease",
            change: |dump| first(dump).renewed_at = 10_000 - 900,
            reason: Some(Reason::Hit),
            words: "fast, rewritten and redirected into the pod behind v-web-a; slow are SYN, FIN and RST, fragments, packets above 1500 bytes or of TTL 1; one packet a moment takes the kernel's path to renew the lease",
        },
        Row {
            name: "past the hard lease",
            change: |dump| first(dump).renewed_at = 10_000 - 1250,
            reason: Some(Reason::LeaseEnded),
            words: "slow, by the kernel: no packet was seen on the kernel's path for a whole lease; the next one renews it",
        },
        Row {
            name: "learning",
            change: |dump| first(dump).state = FlowState::Learning,
            reason: Some(Reason::Learning),
            words: "slow, by the kernel: the other direction is not known yet",
        },
        Row {
            name: "a state of another version",
            change: |dump| first(dump).state = FlowState::Unknown,
            reason: Some(Reason::Learning),
            words: "slow, by the kernel: the other direction is not known yet",
        },
        Row {
            name: "closing",
            change: |dump| first(dump).state = FlowState::Closing,
            reason: Some(Reason::Closing),
            words: "slow, by the kernel: a FIN or RST was seen; nothing is learned before the next SYN",
        },
        Row {
            name: "of another epoch",
            change: |dump| maps(dump).epoch = 8,
            reason: Some(Reason::StaleEpoch),
            words: "slow, by the kernel: a link, route, address or neighbour changed since it was learned",
        },
        Row {
            name: "of another generation",
            change: |dump| maps(dump).backends[0].generation = 4,
            reason: Some(Reason::StaleGeneration),
            words: "slow, by the kernel: the backend changed or went since it was learned",
        },
        Row {
            name: "of a backend that is gone",
            change: |dump| maps(dump).backends.clear(),
            reason: Some(Reason::StaleGeneration),
            words: "slow, by the kernel: the backend changed or went since it was learned",
        },
        Row {
            name: "none",
            change: |dump| maps(dump).flows.clear(),
            reason: Some(Reason::NoFlow),
            words: "slow, by the kernel: no flow entry yet: the first three packets of each direction teach it",
        },
    ]);
}

#[test]
fn what_keeps_packets_from_the_datapath_goes_before_entries() {
    check(&[
        Row {
            name: "off",
            change: |dump| {
                dump.fast_path.mode = "off".to_owned();
                dump.fast_path.reason = "--fast-path off".to_owned();
            },
            reason: None,
            words: "slow, by the kernel: the fast path is off (--fast-path off)",
        },
        Row {
            name: "no maps",
            change: |dump| dump.maps = None,
            reason: None,
            words: "slow, by the kernel: this node has no fast path: its maps are not there",
        },
        Row {
            name: "observe",
            change: |dump| {
                dump.fast_path.mode = "observe".to_owned();
                dump.fast_path.reason = "--fast-path observe".to_owned();
            },
            reason: Some(Reason::Observed),
            words: "slow, by the kernel: it would be fast, but the fast path only observes (--fast-path observe)",
        },
        Row {
            name: "a flow that is only observed",
            change: |dump| maps(dump).flows.iter_mut().for_each(|flow| flow.observed = true),
            reason: Some(Reason::Observed),
            words: "slow, by the kernel: it would be fast, but an interface of its way or its Service is in mode observe",
        },
        Row {
            name: "interface off",
            change: |dump| {
                dump.interfaces[1].mode = Some("off".to_owned());
                dump.interfaces[1].reason = "foreign XDP program (id 7)".to_owned();
            },
            reason: None,
            words: "slow, by the kernel: the fast path is off on v-client (foreign XDP program (id 7))",
        },
        Row {
            name: "unknown frontend",
            change: |dump| maps(dump).frontends.clear(),
            reason: Some(Reason::NotService),
            words: "slow, by the kernel: the datapath does not know the frontend: its map is full, or it is somebody else's",
        },
        Row {
            name: "not learned",
            change: |dump| maps(dump).frontends[0].learn = false,
            reason: Some(Reason::NoFlow),
            words: "slow, by the kernel: flows of this frontend are not learned: SCTP, a forwarding method other than masq, or annotation passlane.io/fast-path",
        },
    ]);
}

#[test]
fn processes_of_the_node_are_never_fast() {
    let trace = ask(as_it_is, &packet("172.20.0.1:50000", VIP));
    let words = "slow, by the kernel: packets of the node's own processes come in by no interface";
    assert_eq!(says(&trace, "Path"), words);
    assert_eq!((trace.plane, trace.directions.len()), (Some(Plane::Slow), 0));
    // The same address by an interface is somebody who pretends, or a test.
    let by_interface =
        Packet { interface: Some("eth0".to_owned()), ..packet("172.20.0.1:50000", VIP) };
    assert_eq!(ask(as_it_is, &by_interface).reason, Some("no_flow"));
}

#[test]
fn an_entry_counts_for_its_own_interface_only() {
    let through = |name: &str| Packet { interface: Some(name.to_owned()), ..packet(CLIENT, VIP) };
    assert_eq!(ask(as_it_is, &through("v-client")).reason, Some("hit"));
    assert_eq!(ask(as_it_is, &through("eth0")).reason, Some("no_flow"));
}

#[test]
fn both_directions_say_what_they_are_good_for() {
    let there = "active, lease 4.0 s of 5.0 s left, epoch current, generation current; 40 packets, 2080 bytes on the fast path; 10.1.1.31:40000 to 10.96.0.10:80 becomes 10.1.1.31:40000 to 10.1.1.11:8080 by v-web-a";
    let back = "active, lease 4.0 s of 5.0 s left, epoch current, generation current; 40 packets, 2080 bytes on the fast path; 10.1.1.11:8080 to 10.1.1.31:40000 becomes 10.96.0.10:80 to 10.1.1.31:40000 by v-client";
    let request = ask(as_it_is, &packet(CLIENT, VIP));
    assert_eq!((says(&request, "Way there"), says(&request, "Way back")), (there, back));
    let reply = ask(as_it_is, &packet(WEB_A, CLIENT));
    assert_eq!((says(&reply, "Way there"), says(&reply, "Way back")), (there, back));
    let directions: Vec<_> = reply.directions.iter().map(|each| each.direction).collect();
    assert_eq!(directions, ["request", "reply"]);
}

#[test]
fn a_direction_says_what_is_stale_and_what_is_not_known() {
    let there = |change: Change| {
        let trace = ask(change, &packet(CLIENT, VIP));
        let (words, _) =
            says(&trace, "Way there").split_once("; ").unwrap_or((says(&trace, "Way there"), ""));
        words.to_owned()
    };
    let change: [(Change, &str); 7] = [
        (
            |dump| first(dump).renewed_at = 10_000 - 1500,
            "active, lease ended 1.0 s ago, epoch current, generation current",
        ),
        (
            |dump| maps(dump).epoch = 8,
            "active, lease 4.0 s of 5.0 s left, epoch stale, generation current",
        ),
        (
            |dump| maps(dump).backends[0].generation = 9,
            "active, lease 4.0 s of 5.0 s left, epoch current, generation stale",
        ),
        (
            |dump| maps(dump).backends.clear(),
            "active, lease 4.0 s of 5.0 s left, epoch current, generation gone",
        ),
        (
            |dump| maps(dump).clock = None,
            "active, lease unknown, the kernel's time could not be read, epoch current, generation current",
        ),
        (
            |dump| dump.fast_path.lease = None,
            "active, the kernel saw a packet 1.0 s ago, epoch current, generation current",
        ),
        // Renewed after the clock was read.
        (
            |dump| first(dump).renewed_at = 10_002,
            "active, lease 5.0 s of 5.0 s left, epoch current, generation current",
        ),
    ];
    for (change, words) in change {
        assert_eq!(there(change), words);
    }
    let half = ask(|dump| maps(dump).flows.truncate(1), &packet(CLIENT, VIP));
    assert_eq!(says(&half, "Way back"), "no flow entry");
}
