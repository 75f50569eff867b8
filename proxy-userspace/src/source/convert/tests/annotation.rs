//! Annotations: what is understood, and what is told when it is not.

use super::{read, service_of, service_text};
use crate::model::{FastPath, Forwarding, Scheduler, Service, Thresholds, Tunnel};

fn annotated(name: &str, value: &str) -> String {
    let rest = format!(", annotations: {{passlane.io/{name}: \"{value}\"}}");
    service_text("ClusterIP", "", &rest)
}

fn service(name: &str, value: &str) -> Service {
    let text = annotated(name, value);
    assert_eq!(read(&text).notices, [], "{value}");
    service_of(&text)
}

/// Returns the only notice of a Service that is like one without the annotation.
fn notice(name: &str, value: &str) -> String {
    let text = annotated(name, value);
    assert_eq!(service_of(&text), service_of(&service_text("ClusterIP", "", "")), "{value}");
    let notices = read(&text).notices;
    let [notice] = &notices[..] else { panic!("{value}: {notices:?}") };
    assert_eq!(notice.service().map(ToString::to_string).as_deref(), Some("shop/web"));
    notice.to_string()
}

#[test]
fn a_scheduler_is_read_with_its_flags() {
    for (value, scheduler, flags) in [
        ("mh", Scheduler::Mh, 0),
        ("mh,mh-port", Scheduler::Mh, 0x10),
        ("mh, mh-port, mh-fallback", Scheduler::Mh, 0x18),
        ("sh,sh-port,sh-fallback", Scheduler::Sh, 0x18),
        ("sh,sh-fallback", Scheduler::Sh, 0x08),
        ("wlc,flag-3", Scheduler::Wlc, 0x20),
    ] {
        let read = service("scheduler", value).scheduler;
        assert_eq!(read.map(|(scheduler, flags)| (scheduler, flags.0)), Some((scheduler, flags)));
    }
}

#[test]
fn a_scheduler_with_a_flag_of_another_one_is_the_default() {
    for value in ["mh,sh-port", "mh,", "mh,mh-port,x", "mh mh-port"] {
        let notice = notice("scheduler", value);
        assert!(notice.contains("the default is used; write"), "{notice}");
    }
    assert_eq!(
        notice("scheduler", "mh,sh-port"),
        "service shop/web: annotation passlane.io/scheduler: unknown flag in \"mh,sh-port\": the \
         default is used; write mh, mh,mh-port or mh,mh-fallback"
    );
    assert!(notice("scheduler", "maglev,mh-port").contains("unknown scheduler \"maglev,mh-port\""));
}

#[test]
fn weights_are_read_by_address_and_by_node() {
    let weights =
        service("weights", "10.244.1.5=3, node-b = 0,fd00::5=65535,,10a.example=2").weights;
    let by_addr: Vec<_> = weights.by_addr.iter().map(|(key, of)| format!("{key}={of}")).collect();
    let by_node: Vec<_> = weights.by_node.iter().map(|(key, of)| format!("{key}={of}")).collect();
    assert_eq!(by_addr, ["10.244.1.5=3", "fd00::5=65535"]);
    assert_eq!(by_node, ["10a.example=2", "node-b=0"]);
    assert_eq!(service("weights", ""), service_of(&service_text("ClusterIP", "", "")));
}

#[test]
fn one_weight_that_is_not_understood_makes_them_all_one() {
    for entry in [
        "10.244.1.5",
        "10.244.1.5=",
        "10.244.1.5=-1",
        "10.244.1.5=65536",
        "10.244.1.5=+1",
        "10.244.1.5=1.5",
        "10.244.1=1",
        "10.244.1.500=1",
        "010.244.1.5=1",
        "Node=1",
        "=1",
        "a..b=1",
        "node-b=2",
        "a:b=1",
        "node_c=1",
        "-a=1",
        "node-c=1=2",
    ] {
        let notice = notice("weights", &format!("node-b=2,{entry}"));
        let start = format!("service shop/web: annotation passlane.io/weights: {entry:?} is not ");
        assert!(notice.starts_with(&start), "{entry}: {notice}");
    }
}

#[test]
fn forwarding_is_read() {
    for (value, forwarding) in [
        ("masq", Forwarding::Masq),
        ("route", Forwarding::Route),
        ("tunnel", Forwarding::Tunnel(Tunnel::Ipip)),
        ("tunnel,ipip", Forwarding::Tunnel(Tunnel::Ipip)),
        ("tunnel, gre", Forwarding::Tunnel(Tunnel::Gre)),
        ("tunnel,gue:6080", Forwarding::Tunnel(Tunnel::Gue { port: 6080 })),
    ] {
        assert_eq!(service("forwarding", value).forwarding, forwarding, "{value}");
        assert_eq!(service("forwarding", &forwarding.to_string()).forwarding, forwarding);
    }
    assert_eq!(
        notice("forwarding", "local"),
        "service shop/web: annotation passlane.io/forwarding: unknown value \"local\": masq is \
         used; write masq, route, tunnel, tunnel,gre or tunnel,gue:PORT"
    );
}

#[test]
fn a_tunnel_that_the_kernel_would_refuse_is_a_notice() {
    for value in
        ["tunnel,gue", "tunnel,gue:0", "tunnel,gue:65536", "tunnel,gue:+1", "route,gre", "tunnel,"]
    {
        assert!(notice("forwarding", value).contains("masq is used"), "{value}");
    }
}

#[test]
fn limits_of_connections_are_read() {
    for (value, upper, lower) in [("1000", 1000, 0), ("1000, 800", 1000, 800), ("5,5", 5, 5)] {
        let limits = service("connection-limits", value).limits;
        assert_eq!(limits, Thresholds { upper, lower }, "{value}");
        assert_eq!(service("connection-limits", &limits.to_string()).limits, limits);
    }
    for value in ["", "0", "-1", "+1", "10,20", "10,0", "10,", "1,2,3", "many", "4294967296"] {
        let told = notice("connection-limits", value);
        assert!(
            told.contains("there are no limits; write UPPER or UPPER,LOWER"),
            "{value}: {told}"
        );
    }
}

#[test]
fn the_fast_path_is_read() {
    for (word, mode) in FastPath::WORDS {
        assert_eq!(service("fast-path", word).fast_path, mode);
    }
    assert_eq!(service("fast-path", "on").fast_path, FastPath::Auto);
    let told = notice("fast-path", "forced");
    assert!(told.contains("auto is used; write off, observe, auto or force"), "{told}");
}
