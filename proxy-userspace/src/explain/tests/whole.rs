//! Replies, doubts, and a whole trace.

use super::{
    super::{Chosen, Plane, Verdict},
    *,
};

#[test]
fn a_trace_says_everything_in_order() {
    let trace = ask(as_it_is, &packet(CLIENT, VIP));
    let topics: Vec<_> = trace.steps.iter().map(|step| step.topic).collect();
    let expected = [
        "Packet",
        "Frontend",
        "Admission",
        "Backend",
        "Masquerade",
        "Path",
        "Way there",
        "Way back",
    ];
    assert_eq!(topics, expected);
    assert_eq!(says(&trace, "Packet"), "TCP 10.1.1.31:40000 to 10.96.0.10:80");
    assert_eq!(says(&trace, "Frontend"), "10.96.0.10:80/TCP of Service default/web:http");
    assert_eq!(trace.service.as_deref(), Some("default/web:http"));
    assert_eq!(trace.frontend.as_deref(), Some("10.96.0.10:80/TCP"));
    assert_eq!((trace.verdict, trace.plane), (Verdict::Forwarded, Some(Plane::Fast)));
}

#[test]
fn an_interface_that_is_said_is_repeated() {
    let asked = Packet { interface: Some("v-client".to_owned()), ..packet(CLIENT, VIP) };
    let trace = ask(as_it_is, &asked);
    let words = "TCP 10.1.1.31:40000 to 10.96.0.10:80, coming in by v-client";
    assert_eq!(says(&trace, "Packet"), words);
}

#[test]
fn a_reply_is_told_by_the_connection_it_belongs_to() {
    let trace = ask(as_it_is, &packet(WEB_A, CLIENT));
    let words = "from backend 10.1.1.11:8080 to client 10.1.1.31:40000, as IPVS has the connection; \
                 the client sees 10.96.0.10:80 as sender";
    assert_eq!(says(&trace, "Reply"), words);
    assert_eq!((trace.verdict, trace.plane), (Verdict::Forwarded, Some(Plane::Fast)));
    assert_eq!((trace.backend, trace.chosen_by), (Some(socket(WEB_A)), Some(Chosen::Connection)));
    assert_eq!(trace.service.as_deref(), Some("default/web:http"));
}

/// Behind a masquerade the backend answers the node.
#[test]
fn a_reply_to_a_masqueraded_client_is_told_by_its_flow_entry() {
    fn masqueraded(dump: &mut Dump) {
        let flows = &mut maps(dump).flows;
        flows[0].new_source = socket("172.20.0.1:61000");
        flows[1].destination = socket("172.20.0.1:61000");
    }
    let trace = ask(masqueraded, &packet(WEB_A, "172.20.0.1:61000"));
    let words = "from backend 10.1.1.11:8080 to client 10.1.1.31:40000, as the flow entry says so; \
                 the client sees 10.96.0.10:80 as sender";
    assert_eq!(says(&trace, "Reply"), words);
    assert_eq!((trace.chosen_by, trace.plane), (Some(Chosen::Flow), Some(Plane::Fast)));
}

#[test]
fn a_backend_that_answers_nobody_is_said_to_be_one() {
    let trace = ask(as_it_is, &packet(WEB_A, "10.1.1.99:5"));
    let words = "none: the sender is a backend of default/web:http, and IPVS has no connection of \
                 it with 10.1.1.99:5";
    assert_eq!(says(&trace, "Frontend"), words);
    assert_eq!(trace.verdict, Verdict::NotService);
}

#[test]
fn a_table_that_others_wrote_to_is_a_doubt() {
    let trace = ask(|dump| dump.table.as_mut().unwrap().whole = false, &packet(CLIENT, VIP));
    let words = "table inet passlane holds what another hand or version wrote";
    assert_eq!(says(&trace, "Doubt"), words);
}

#[test]
fn a_node_without_anything_has_no_services() {
    let trace = trace(&Dump::default(), &packet(CLIENT, VIP));
    assert_eq!(trace.verdict, Verdict::NotService);
    assert_eq!(says(&trace, "Frontend"), "none: 10.96.0.10:80/TCP is no frontend of a Service");
}

#[test]
fn packets_are_read_as_people_write_them() {
    let read = Packet::parse("UDP", "[fd00::5]:4000", "[fd00::10]:53").unwrap();
    assert_eq!(read.protocol, Protocol::Udp);
    assert_eq!(
        (read.source, read.destination),
        (socket("[fd00::5]:4000"), socket("[fd00::10]:53"))
    );
    assert_eq!(read.to_string(), "UDP [fd00::5]:4000 to [fd00::10]:53");
    assert_eq!(Packet::parse("sctp", CLIENT, VIP).unwrap().protocol, Protocol::Sctp);
    for ((protocol, source, destination), expected) in [
        (("icmp", CLIENT, VIP), "protocol \"icmp\": use tcp, udp or sctp"),
        (
            ("tcp", "10.1.1.31", VIP),
            "source \"10.1.1.31\": write ADDRESS:PORT, such as 10.96.0.10:53 or [fd00::10]:53",
        ),
        (
            ("tcp", CLIENT, "fd00::10:53"),
            "destination \"fd00::10:53\": write ADDRESS:PORT, such as 10.96.0.10:53 or [fd00::10]:53",
        ),
        (
            ("tcp", CLIENT, "10.96.0.10:70000"),
            "destination \"10.96.0.10:70000\": write ADDRESS:PORT, such as 10.96.0.10:53 or [fd00::10]:53",
        ),
        (
            ("tcp", CLIENT, "[fd00::10]:53"),
            "source 10.1.1.31:40000 and destination [fd00::10]:53 are of different address families",
        ),
    ] {
        assert_eq!(Packet::parse(protocol, source, destination).unwrap_err().to_string(), expected);
    }
}
