use proxy_common::abi::UPLINK_SLOTS as SLOTS;

use super::*;

fn nic(index: u32) -> Interface {
    Interface {
        index,
        name: format!("eth{index}"),
        kind: InterfaceKind::Physical,
        up: true,
        mtu: 1500,
        ethernet: true,
        mac: [2, 0, 0, 0, 0, 1],
        master: None,
        lower: None,
        peer_elsewhere: false,
        qdisc: "mq".into(),
        xdp_program: None,
        vlan: None,
        addrs: Vec::new(),
    }
}

fn veth(index: u32) -> Interface {
    Interface { kind: InterfaceKind::Veth, qdisc: "noqueue".into(), ..nic(index) }
}

/// Decides about interfaces with this driver, the fast path on all of them.
fn decide(
    present: &[Interface],
    driver: &str,
    mode: XdpMode,
    selection: &Selection,
) -> BTreeMap<u32, Transit> {
    let decisions =
        present.iter().map(|each| (each.index, Decision::On { peer: false, manner: Manner::Fast }));
    let drivers = present.iter().map(|each| (each.index, driver.to_owned()));
    uplinks(present, &decisions.collect(), &drivers.collect(), mode, selection)
}

fn reason(transit: Option<&Transit>) -> &str {
    match transit {
        Some(Transit::Off(reason)) => reason,
        _ => "",
    }
}

#[test]
fn auto_runs_on_nics_with_proven_drivers_only() {
    for driver in PROVEN {
        let decided = decide(&[nic(2)], driver, XdpMode::Auto, &Selection::Auto);
        assert_eq!(decided.get(&2), Some(&Transit::On { sends: true }), "{driver}");
    }
    for driver in ["virtio_net", "veth", "r8169"] {
        let decided = decide(&[nic(2)], driver, XdpMode::Auto, &Selection::Auto);
        assert!(reason(decided.get(&2)).contains(driver), "{decided:?}");
    }
    let untold = uplinks(
        &[nic(2)],
        &BTreeMap::from([(2, Decision::On { peer: false, manner: Manner::Fast })]),
        &BTreeMap::new(),
        XdpMode::Auto,
        &Selection::Auto,
    );
    assert!(reason(untold.get(&2)).contains("cannot be told"), "{untold:?}");
}

#[test]
fn what_is_no_uplink_is_not_asked_about() {
    let present = [nic(2), veth(3)];
    let decided = decide(&present, "ixgbe", XdpMode::Force, &Selection::Auto);
    assert_eq!(decided.keys().collect::<Vec<_>>(), [&2]);
    let off = decide(&present, "ixgbe", XdpMode::Off, &Selection::Auto);
    assert!(off.is_empty());
}

#[test]
fn a_veth_is_an_uplink_where_it_is_named_and_runs_where_it_is_forced() {
    let named = Selection::Patterns(vec!["eth3".into()]);
    let forced = decide(&[nic(2), veth(3)], "veth", XdpMode::Force, &named);
    assert_eq!(forced, BTreeMap::from([(3, Transit::On { sends: true })]));
    let auto = decide(&[nic(2), veth(3)], "veth", XdpMode::Auto, &named);
    assert!(reason(auto.get(&3)).contains("--xdp force"), "{auto:?}");
}

#[test]
fn a_driver_that_nobody_knows_sends_only_what_came_in_by_it() {
    let decided = decide(&[nic(2)], "mystery", XdpMode::Force, &Selection::Auto);
    assert_eq!(decided.get(&2), Some(&Transit::On { sends: false }));
}

#[test]
fn jumbo_frames_keep_auto_away() {
    let jumbo = Interface { mtu: 3507, ..nic(2) };
    let decided = decide(&[jumbo], "ice", XdpMode::Auto, &Selection::Auto);
    assert!(reason(decided.get(&2)).contains("3507"), "{decided:?}");
    let largest = Interface { mtu: 3506, ..nic(2) };
    let decided = decide(&[largest], "ice", XdpMode::Auto, &Selection::Auto);
    assert_eq!(reason(decided.get(&2)), "");
}

#[test]
fn what_xdp_would_skip_keeps_it_away_even_when_forced() {
    let shaped = Interface { qdisc: "htb".into(), ..nic(2) };
    let decided = decide(&[shaped], "ice", XdpMode::Force, &Selection::Auto);
    assert!(reason(decided.get(&2)).contains("htb"), "{decided:?}");
    let vlan = Interface {
        name: "vlan7".into(),
        kind: InterfaceKind::Other("vlan".into()),
        lower: Some(2),
        ..nic(9)
    };
    let decided = decide(&[nic(2), vlan], "ice", XdpMode::Force, &Selection::Auto);
    assert!(reason(decided.get(&2)).contains("vlan7"), "{decided:?}");
}

#[test]
fn without_the_fast_path_there_is_no_transit() {
    let decisions = BTreeMap::from([(2, Decision::Off("down".into()))]);
    let drivers = BTreeMap::from([(2, "ice".to_owned())]);
    let decided = uplinks(&[nic(2)], &decisions, &drivers, XdpMode::Force, &Selection::Auto);
    assert_eq!(reason(decided.get(&2)), "no fast path here");
}

#[test]
fn of_two_uplinks_whose_indexes_collide_the_first_runs() {
    let decided = decide(&[nic(2), nic(2 + SLOTS)], "ice", XdpMode::Auto, &Selection::Auto);
    assert_eq!(reason(decided.get(&2)), "");
    assert!(reason(decided.get(&(2 + SLOTS))).contains("collides"), "{decided:?}");
}
