//! What decides about an interface, one thing at a time.

use super::*;

const POLICY: Policy<'static> = Policy {
    selection: &Selection::Auto,
    mode: FastPath::Auto,
    rules: &[],
    only_observe: false,
    forced_services: false,
    device: "kube-ipvs0",
};
const FAST: Decision = Decision::On { peer: true, manner: Manner::Fast };

fn veth() -> Interface {
    Interface {
        index: 7,
        name: "veth-a".into(),
        kind: InterfaceKind::Veth,
        up: true,
        mtu: 1500,
        ethernet: true,
        mac: [2, 0, 0, 0, 0, 1],
        master: None,
        lower: None,
        peer_elsewhere: true,
        qdisc: "noqueue".into(),
        xdp_program: None,
        vlan: None,
        addrs: Vec::new(),
    }
}

fn other(kind: &str) -> Interface {
    let kind = InterfaceKind::Other(kind.into());
    Interface { index: 3, name: format!("{kind:?}"), kind, ..veth() }
}

fn decision(interface: Interface, policy: &Policy<'_>) -> Decision {
    decide(&interface, &[], policy, &Foreign::default())
}

fn rule(pattern: &str, mode: FastPath) -> InterfaceMode {
    InterfaceMode { pattern: pattern.into(), mode }
}

fn foreign() -> Foreign {
    let on = BTreeMap::from([(7, vec!["tcx ingress program cil (id 3)".to_owned()])]);
    Foreign { on, ..Foreign::default() }
}

fn manner(decision: &Decision) -> Option<&Manner> {
    match decision {
        Decision::On { manner, .. } => Some(manner),
        Decision::Off(_) => None,
    }
}

#[test]
fn a_pods_veth_runs_with_redirects_to_its_peer() {
    assert_eq!(decision(veth(), &POLICY), FAST);
}

#[test]
fn a_bandwidth_limit_on_a_veth_is_never_skipped() {
    for qdisc in ["tbf", "htb", "fq_codel"] {
        let limited = Interface { qdisc: qdisc.into(), ..veth() };
        let wanted = Decision::On { peer: false, manner: Manner::Fast };
        assert_eq!(decision(limited, &POLICY), wanted, "{qdisc}");
    }
}

#[test]
fn foreign_programs_turn_an_interface_off_by_name() {
    let decision = decide(&veth(), &[], &POLICY, &foreign());
    assert_eq!(decision, Decision::Off("tcx ingress program cil (id 3)".into()));
}

#[test]
fn what_is_everywhere_turns_every_interface_off() {
    let foreign = Foreign { everywhere: vec!["nft flowtable ip a f".into()], ..Foreign::default() };
    let present = [veth(), Interface { index: 8, ..veth() }];
    let decisions = interfaces(&present, &POLICY, &foreign);
    let off = Decision::Off("nft flowtable ip a f".into());
    assert_eq!(decisions, BTreeMap::from([(7, off.clone()), (8, off)]));
}

#[test]
fn a_forced_interface_runs_and_says_what_it_skips() {
    let rules = [rule("veth*", FastPath::Force)];
    let policy = Policy { rules: &rules, ..POLICY };
    let decision = decide(&veth(), &[], &policy, &foreign());
    let skipped = Manner::Forced("tcx ingress program cil (id 3)".into());
    assert_eq!(manner(&decision), Some(&skipped));
    assert_eq!(decide(&veth(), &[], &policy, &Foreign::default()), FAST, "nothing is skipped");
}

#[test]
fn a_forced_service_opens_an_interface_to_forced_services_only() {
    let policy = Policy { forced_services: true, ..POLICY };
    let decision = decide(&veth(), &[], &policy, &foreign());
    let skipped = Manner::ForcedServices("tcx ingress program cil (id 3)".into());
    assert_eq!(manner(&decision), Some(&skipped));
    assert_eq!(decide(&veth(), &[], &policy, &Foreign::default()), FAST);
}

#[test]
fn no_service_forces_what_the_operator_observes_or_turned_off() {
    for (mode, foreign, wanted) in [
        (FastPath::Off, Foreign::default(), None),
        (FastPath::Off, foreign(), None),
        (FastPath::Observe, foreign(), None),
        (FastPath::Observe, Foreign::default(), Some(&Manner::Observe)),
    ] {
        let policy = Policy { forced_services: true, mode, ..POLICY };
        assert_eq!(manner(&decide(&veth(), &[], &policy, &foreign)), wanted, "{mode:?}");
    }
}

#[test]
fn nothing_is_fast_where_the_fast_path_may_only_observe() {
    for mode in [FastPath::Auto, FastPath::Observe, FastPath::Force] {
        let policy = Policy { only_observe: true, mode, ..POLICY };
        assert_eq!(manner(&decision(veth(), &policy)), Some(&Manner::Observe), "{mode:?}");
    }
}

#[test]
fn the_first_rule_that_names_an_interface_counts() {
    let rules = [rule("veth-b", FastPath::Off), rule("veth-*", FastPath::Observe)];
    let rules = [rules.as_slice(), &[rule("*", FastPath::Off)]].concat();
    let policy = Policy { rules: &rules, ..POLICY };
    assert_eq!(manner(&decision(veth(), &policy)), Some(&Manner::Observe));
    let named = Interface { name: "veth-b".into(), ..veth() };
    assert_eq!(decision(named, &policy), Decision::Off("off by configuration".into()));
}

#[test]
fn devices_above_others_run_when_headers_alone_say_where_packets_go() {
    let wanted = Decision::On { peer: false, manner: Manner::Fast };
    for kind in ["bond", "bridge", "team", "vlan", "vxlan"] {
        assert_eq!(decision(other(kind), &POLICY), wanted, "{kind}");
    }
}

#[test]
fn auto_leaves_other_tunnels_and_the_vip_device_alone() {
    for kind in ["metadata vxlan", "geneve", "openvswitch", "dummy", "wireguard"] {
        assert!(matches!(decision(other(kind), &POLICY), Decision::Off(_)), "{kind}");
    }
    let device = Interface { name: "kube-ipvs0".into(), ..veth() };
    let everything = Selection::Patterns(vec!["*".into()]);
    let policy = Policy { selection: &everything, mode: FastPath::Force, ..POLICY };
    assert!(matches!(decision(device, &policy), Decision::Off(_)), "forced as well");
}

#[test]
fn a_port_is_left_to_its_master_unless_it_is_forced() {
    let everything = Selection::Patterns(vec!["*".into()]);
    let port = Interface { master: Some(3), ..veth() };
    for kind in ["bridge", "openvswitch", "bond"] {
        let master = Interface { name: "above".into(), ..other(kind) };
        let present = [port.clone(), master];
        for selection in [&Selection::Auto, &everything] {
            let policy = Policy { selection, ..POLICY };
            let off = Decision::Off(format!("port of {kind} above"));
            assert_eq!(decide(&port, &present, &policy, &Foreign::default()), off);
        }
        let forced = Policy { mode: FastPath::Force, ..POLICY };
        let forced = decide(&port, &present, &forced, &Foreign::default());
        assert!(matches!(manner(&forced), Some(Manner::Forced(_))), "{forced:?}");
    }
}

#[test]
fn a_device_above_that_takes_packets_turns_the_one_below_off() {
    for (kind, takes) in [("macvlan", true), ("ipvlan", true), ("vlan", false)] {
        let above = Interface { lower: Some(7), name: "above".into(), ..other(kind) };
        let decision = decide(&veth(), &[veth(), above], &POLICY, &Foreign::default());
        assert_eq!(decision == Decision::Off("above takes its packets".into()), takes, "{kind}");
    }
}

#[test]
fn a_netkit_device_is_left_to_its_programs() {
    let off = Decision::Off("netkit device: its own programs decide".into());
    assert_eq!(decision(other("netkit"), &POLICY), off);
    let everything = Selection::Patterns(vec!["*".into()]);
    assert_eq!(decision(other("netkit"), &Policy { selection: &everything, ..POLICY }), off);
}

#[test]
fn patterns_select_by_name() {
    for (pattern, wanted) in
        [("veth-a", true), ("veth*", true), ("*-a", true), ("*", true), ("eth*", false)]
    {
        let selection = Selection::Patterns(vec![pattern.into()]);
        let on = decision(veth(), &Policy { selection: &selection, ..POLICY });
        assert_eq!(matches!(on, Decision::On { .. }), wanted, "{pattern}");
    }
}
