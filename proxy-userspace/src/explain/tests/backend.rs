//! Which backend, and why.

use super::{
    super::{Chosen, Verdict},
    *,
};

/// Of an address whose connection is not there yet.
const NEW: &str = "10.1.1.32:50000";

struct Row {
    name: &'static str,
    change: Change,
    backend: Option<&'static str>,
    by: Chosen,
    words: &'static str,
}

fn check(rows: &[Row]) {
    for Row { name, change, backend, by, words } in rows {
        let trace = ask(*change, &packet(NEW, VIP));
        assert_eq!(says(&trace, "Backend"), *words, "{name}");
        assert_eq!(trace.backend, backend.map(socket), "{name}");
        assert_eq!(trace.chosen_by, Some(*by), "{name}");
        let refused = *by == Chosen::Nobody;
        let verdict = if refused { Verdict::Refused } else { Verdict::Forwarded };
        assert_eq!(trace.verdict, verdict, "{name}");
    }
}

fn scheduled(dump: &mut Dump, scheduler: Scheduler) {
    dump.servers[0].virtual_server.scheduler = scheduler;
}

fn targets(dump: &mut Dump) -> &mut Vec<Target> {
    &mut dump.servers[0].destinations
}

fn affinity(dump: &mut Dump) {
    dump.servers[0].virtual_server.persistent_secs = 10_800;
    let template = Connection { expires_secs: 77, ..connection("10.1.1.32:0", VIP, WEB_B) };
    dump.connections.push(template);
}

#[test]
fn the_connection_that_ipvs_has_goes_before_everything() {
    let trace = ask(|dump| scheduled(dump, Scheduler::Lc), &packet(CLIENT, VIP));
    let words = "10.1.1.11:8080, because IPVS has this connection (ESTABLISHED, expires in 899 s \
                 without a packet on its path)";
    assert_eq!(says(&trace, "Backend"), words);
    assert_eq!((trace.backend, trace.chosen_by), (Some(socket(WEB_A)), Some(Chosen::Connection)));
}

#[test]
fn session_affinity_sends_a_client_where_it_was_sent_before() {
    check(&[
        Row {
            name: "template",
            change: affinity,
            backend: Some(WEB_B),
            by: Chosen::Affinity,
            words: "10.1.1.12:8080, because the client was sent there before (session affinity of 10800 s, 77 s left)",
        },
        Row {
            name: "template of a destination that takes nothing new",
            change: |dump| {
                affinity(dump);
                targets(dump)[0].destination.weight = 0;
            },
            backend: Some(WEB_A),
            by: Chosen::Scheduler,
            words: "10.1.1.11:8080, the only destination with a weight above 0 (weight 1, 2 active, 1 inactive)",
        },
    ]);
}

#[test]
fn without_a_destination_that_takes_connections_ipvs_refuses() {
    check(&[
        Row {
            name: "no destination",
            change: |dump| targets(dump).clear(),
            backend: None,
            by: Chosen::Nobody,
            words: "none: the virtual server has no destination, so IPVS refuses",
        },
        Row {
            name: "all of weight 0",
            change: |dump| targets(dump).iter_mut().for_each(|each| each.destination.weight = 0),
            backend: None,
            by: Chosen::Nobody,
            words: "none: no destination has a weight above 0, so IPVS refuses; of 10.1.1.12:8080 (weight 0, 4 active, 0 inactive), 10.1.1.11:8080 (weight 0, 2 active, 1 inactive)",
        },
    ]);
}

#[test]
fn nothing_is_scheduled_from_the_port_of_ftp_data() {
    let trace = ask(as_it_is, &packet("10.1.1.32:20", VIP));
    assert_eq!((trace.backend, trace.chosen_by), (None, Some(Chosen::Nobody)));
    let words = "none: IPVS schedules nothing from port 20, that of FTP's data";
    assert_eq!(says(&trace, "Backend"), words);
}

/// web-b has 4 active connections, web-a 2 and one other.
#[test]
fn schedulers_that_go_by_load_are_foreseen() {
    const BOTH: &str = "of 10.1.1.12:8080 (weight 1, 4 active, 0 inactive), 10.1.1.11:8080 (weight 1, 2 active, 1 inactive)";
    let least =
        |scheduler: Scheduler, why: &str| format!("10.1.1.11:8080: {scheduler} {why}; {BOTH}");
    for (change, words) in [
        (
            (|dump| scheduled(dump, Scheduler::Lc)) as Change,
            least(Scheduler::Lc, "takes the least loaded one now"),
        ),
        (
            |dump| scheduled(dump, Scheduler::Wlc),
            least(Scheduler::Wlc, "takes the one with the least load for its weight now"),
        ),
        (
            |dump| scheduled(dump, Scheduler::Sed),
            least(Scheduler::Sed, "takes the one that would answer soonest now"),
        ),
        (
            |dump| scheduled(dump, Scheduler::Nq),
            least(Scheduler::Nq, "takes an idle one, else the one that would answer soonest, now"),
        ),
    ] {
        let trace = ask(change, &packet(NEW, VIP));
        assert_eq!(says(&trace, "Backend"), words);
        assert_eq!(trace.backend, Some(socket(WEB_A)));
    }
}

#[test]
fn weights_count_where_the_scheduler_counts_them() {
    let chosen = |change: Change| ask(change, &packet(NEW, VIP)).backend;
    let heavy_b = |dump: &mut Dump, scheduler| {
        scheduled(dump, scheduler);
        targets(dump)[0].destination.weight = 3;
    };
    // 4 active at weight 3 against 2 active and 1 other at weight 1.
    assert_eq!(chosen(|dump| scheduled(dump, Scheduler::Wlc)), Some(socket(WEB_A)));
    let mut dump = node();
    for (scheduler, expected) in [
        (Scheduler::Lc, WEB_A),
        (Scheduler::Wlc, WEB_B),
        (Scheduler::Sed, WEB_B),
        (Scheduler::Fo, WEB_B),
        // Its 4 active connections are more than its weight.
        (Scheduler::Ovf, ""),
    ] {
        heavy_b(&mut dump, scheduler);
        let backend = trace(&dump, &packet(NEW, VIP)).backend;
        assert_eq!(backend, (!expected.is_empty()).then(|| socket(expected)), "{scheduler}");
    }
    // Of two alike the first of the kernel's list.
    assert_eq!(
        chosen(|dump| {
            scheduled(dump, Scheduler::Lc);
            *targets(dump) = vec![target(WEB_B, 1, 2, 1), target(WEB_A, 1, 2, 1)];
        }),
        Some(socket(WEB_B))
    );
    // An idle one, whatever the weights.
    assert_eq!(
        chosen(|dump| {
            scheduled(dump, Scheduler::Nq);
            *targets(dump) = vec![target(WEB_B, 9, 1, 0), target(WEB_A, 1, 0, 5)];
        }),
        Some(socket(WEB_A))
    );
}

#[test]
fn schedulers_that_cannot_be_foreseen_name_their_rule_and_all_destinations() {
    const BOTH: &str = "of 10.1.1.12:8080 (weight 1, 4 active, 0 inactive), 10.1.1.11:8080 (weight 1, 2 active, 1 inactive)";
    for (scheduler, rule) in [
        (Scheduler::Rr, "takes the next one in turn"),
        (Scheduler::Wrr, "takes the next one in turn"),
        (
            Scheduler::Mh,
            "takes the one that the client's hash names, always the same; how large this kernel's tables are is not known",
        ),
        (
            Scheduler::Lblc,
            "takes the one that served the dialled address last, unless that is overloaded",
        ),
        (
            Scheduler::Lblcr,
            "takes the one that served the dialled address last, unless that is overloaded",
        ),
        (Scheduler::Twos, "takes the less loaded of two random ones"),
        (
            Scheduler::Ovf,
            "takes the one of the highest weight whose active connections are no more than that",
        ),
    ] {
        let mut dump = node();
        scheduled(&mut dump, scheduler);
        let trace = trace(&dump, &packet(NEW, VIP));
        assert_eq!(says(&trace, "Backend"), format!("{scheduler} {rule}: {BOTH}"));
        assert_eq!((trace.backend, trace.candidates.len()), (None, 2), "{scheduler}");
    }
}

#[test]
fn source_hashing_names_the_destination_of_the_client() {
    // Bucket 101 of 256, seen on real kernels: with two of weight 1 the odd buckets are the second's.
    let client = packet("100.71.1.74:19864", VIP);
    let hashed = |dump: &mut Dump, flags| {
        scheduled(dump, Scheduler::Sh);
        dump.servers[0].virtual_server.flags = SchedulerFlags(flags);
    };
    let mut dump = node();
    hashed(&mut dump, 0x10);
    assert_eq!(trace(&dump, &client).backend, Some(socket(WEB_A)));
    // Weights 3 and 1: every fourth bucket is the second's, and 101 is not one of them.
    targets(&mut dump)[0].destination.weight = 3;
    assert_eq!(trace(&dump, &client).backend, Some(socket(WEB_B)));
    // A destination of weight 0 keeps a bucket, and whoever hashes there is refused.
    targets(&mut dump)[0].destination.weight = 1;
    targets(&mut dump)[1].destination.weight = 0;
    let refused = trace(&dump, &client);
    assert_eq!((refused.verdict, refused.chosen_by), (Verdict::Refused, Some(Chosen::Nobody)));
    let words = says(&refused, "Backend");
    assert!(
        words.starts_with(
            "none: sh takes the one that the client's hash names (slot 101 of 256); of 10.1"
        ),
        "{words}"
    );
    hashed(&mut dump, 0x18);
    assert_eq!(trace(&dump, &client).backend, Some(socket(WEB_B)), "sh-fallback looks further");
}

/// Three destinations as of the tables of real kernels, and a dump that knows their size.
fn maglev(dump: &mut Dump, flags: u32) {
    scheduled(dump, Scheduler::Mh);
    dump.servers[0].virtual_server.flags = SchedulerFlags(flags);
    dump.mh_index = Some(12);
    *targets(dump) = ["10.1.0.12:8080", "10.1.0.11:8080", "10.1.0.10:8080"]
        .map(|at| target(at, 1, 0, 0))
        .to_vec();
}

#[test]
fn maglev_hashing_names_the_destination_of_the_client() {
    let mut dump = node();
    maglev(&mut dump, 0x10);
    for (client, at, slot) in [
        ("100.81.75.80:15965", "10.1.0.10:8080", 1599),
        ("100.92.29.112:18314", "10.1.0.12:8080", 175),
        ("100.79.54.243:10455", "10.1.0.11:8080", 864),
    ] {
        let trace = trace(&dump, &packet(client, VIP));
        assert_eq!(trace.backend, Some(socket(at)), "{client}");
        let words = format!(
            "{at}: mh takes the one that the client's hash names (slot {slot} of 4093); of 10.1.0.12"
        );
        assert!(says(&trace, "Backend").starts_with(&words), "{}", says(&trace, "Backend"));
    }
    // Without mh-port all ports of a client are alike.
    maglev(&mut dump, 0);
    let whom = |port| trace(&dump, &packet(&format!("100.81.75.80:{port}"), VIP)).backend;
    assert!((100..300).all(|port| whom(port) == whom(15_965)));
}

#[test]
fn a_drained_destination_of_a_maglev_table_refuses_its_clients_but_for_the_fallback() {
    // 10.1.0.11 has the slot of this client by any weight, and lost it if it never had one.
    let client = packet("100.79.54.243:10455", VIP);
    let mut dump = node();
    maglev(&mut dump, 0x10);
    targets(&mut dump)[1].destination.weight = 0;
    let doubtful = trace(&dump, &client);
    assert_eq!((doubtful.backend, doubtful.chosen_by), (None, Some(Chosen::Scheduler)));
    let words = says(&doubtful, "Backend");
    assert!(
        words.contains("depends on the weights that drained destinations had before"),
        "{words}"
    );
    // Whose slot is another's is sent there all the same.
    let sure = trace(&dump, &packet("100.92.29.112:18314", VIP));
    assert_eq!(sure.backend, Some(socket("10.1.0.12:8080")));
    let words = says(&sure, "Backend");
    assert!(words.contains("whether drained destinations still have slots or not"), "{words}");
}

#[test]
fn a_maglev_table_that_is_too_small_is_said() {
    let mut dump = node();
    maglev(&mut dump, 0);
    dump.mh_index = Some(8);
    *targets(&mut dump) =
        (0..252).map(|host| target(&format!("10.1.0.{host}:80"), 1, 0, 0)).collect();
    let trace = trace(&dump, &packet(NEW, VIP));
    assert_eq!(trace.backend, None);
    let words = says(&trace, "Backend");
    assert!(
        words.starts_with("mh has 251 slots in this kernel and cannot take 252 destinations"),
        "{words}"
    );
}

#[test]
fn destination_hashing_names_one_destination_for_all_clients() {
    let mut dump = node();
    scheduled(&mut dump, Scheduler::Dh);
    let chosen = trace(&dump, &packet(NEW, VIP));
    let other = trace(&dump, &packet("10.1.1.77:1", VIP));
    let backend = chosen.backend.unwrap();
    assert_eq!(other.backend, Some(backend));
    let words = says(&chosen, "Backend");
    assert!(words.contains("dh takes the one that the dialled address names (slot "), "{words}");
    // The kernel asks nobody else in its place.
    for target in targets(&mut dump) {
        if socket_of(target) == backend {
            target.destination.weight = 0;
        }
    }
    let refused = trace(&dump, &packet(NEW, VIP));
    assert_eq!((refused.verdict, refused.chosen_by), (Verdict::Refused, Some(Chosen::Nobody)));
}

fn socket_of(target: &Target) -> SocketAddr {
    SocketAddr::new(target.destination.key.addr, target.destination.key.port)
}
