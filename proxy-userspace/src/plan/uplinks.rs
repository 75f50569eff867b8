//! On which uplinks transit runs at the driver.

use std::collections::{BTreeMap, BTreeSet};

use proxy_common::abi::Uplink;

use super::interfaces::{Decision, Manner, Selection, matches};
use crate::model::interface::{Interface, InterfaceKind};

/// Whether XDP takes transit: `--xdp`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum XdpMode {
    /// Nowhere.
    #[default]
    Off,
    /// On uplinks whose drivers are known to do it well.
    Auto,
    /// On every uplink whose driver can.
    Force,
}

/// Whether transit runs at the driver of an uplink.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Transit {
    /// It may.
    On {
        /// The driver sends frames that came in by another device.
        sends: bool,
    },
    /// It does not, for this reason.
    Off(String),
}

/// Drivers with native XDP that neither costs other traffic of the NIC anything but an interrupted
/// link at the moment of attaching, nor drops frames of other devices (`ndo_xdp_xmit`). `virtio_net`
/// is not among them: with XDP it gives up checksum and segmentation offloads for all its traffic,
/// wants a queue pair more for each CPU, and before Linux 6.12 shows frames whose checksum is not
/// filled in.
const PROVEN: [&str; 5] = ["bnxt_en", "i40e", "ice", "ixgbe", "mlx5_core"];
/// More drivers that send frames of other devices.
const SENDERS: [&str; 2] = ["veth", "virtio_net"];
/// The largest MTU whose frames are in one piece: a page, less headroom and what the kernel keeps
/// behind it.
const MAX_MTU: u32 = 3506;
/// Queueing disciplines that nobody made for a purpose that a frame from XDP would miss.
const PLAIN_QDISCS: [&str; 5] = ["noqueue", "mq", "fq_codel", "fq", "pfifo_fast"];

/// Decides for every uplink, by index; what is no uplink is not in the answer. `drivers` are those
/// that could be told, by index.
pub fn uplinks(
    present: &[Interface],
    decisions: &BTreeMap<u32, Decision>,
    drivers: &BTreeMap<u32, String>,
    mode: XdpMode,
    selection: &Selection,
) -> BTreeMap<u32, Transit> {
    if mode == XdpMode::Off {
        return BTreeMap::new();
    }
    let mut taken = BTreeSet::new();
    let uplinks = present.iter().filter(|interface| is_uplink(interface, selection));
    uplinks
        .map(|interface| {
            let driver = drivers.get(&interface.index).map(String::as_str);
            let fast = matches!(
                decisions.get(&interface.index),
                Some(Decision::On { manner: Manner::Fast, .. })
            );
            let refused = (!fast)
                .then(|| "no fast path here".to_owned())
                .or_else(|| unfit(interface, present))
                .or_else(|| (mode == XdpMode::Auto).then(|| unproven(interface, driver))?)
                .or_else(|| {
                    (!taken.insert(Uplink::slot(interface.index)))
                        .then(|| "its index collides with that of another uplink".to_owned())
                });
            let sends =
                driver.is_some_and(|name| PROVEN.contains(&name) || SENDERS.contains(&name));
            (interface.index, refused.map_or(Transit::On { sends }, Transit::Off))
        })
        .collect()
}

fn is_uplink(interface: &Interface, selection: &Selection) -> bool {
    match selection {
        Selection::Auto => interface.kind == InterfaceKind::Physical,
        Selection::Patterns(patterns) => {
            patterns.iter().any(|pattern| matches(pattern, &interface.name))
        }
    }
}

/// Says what a frame from XDP would miss.
fn unfit(interface: &Interface, present: &[Interface]) -> Option<String> {
    // VLANs: some NICs take the tag off before XDP sees the frame.
    let above = present.iter().find(|other| {
        other.lower == Some(interface.index) && matches!(other.kind, InterfaceKind::Other(_))
    });
    if let Some(above) = above {
        return Some(format!("frames of {} come in here, too", above.name));
    }
    (!PLAIN_QDISCS.contains(&interface.qdisc.as_str()))
        .then(|| format!("queueing discipline {} would be skipped", interface.qdisc))
}

fn unproven(interface: &Interface, driver: Option<&str>) -> Option<String> {
    match driver {
        None => return Some("its driver cannot be told; --xdp force does not ask".into()),
        Some(name) if !PROVEN.contains(&name) => {
            return Some(format!("driver {name}: only with --xdp force"));
        }
        Some(_) => {}
    }
    (interface.mtu > MAX_MTU)
        .then(|| format!("MTU {} is above {MAX_MTU}: frames in several pieces", interface.mtu))
}

#[cfg(test)]
mod tests;
