//! Lets transit run at the drivers of uplinks, and ends it there.
//!
//! It begins with a self-test and ends with a new epoch: no entry may send to a driver that has lost
//! its program. What fails once is left alone until the interface is another one, because attaching
//! interrupts some links, and that would be the next reason to look again.

use std::collections::BTreeMap;

use proxy_common::abi::{InterfaceFlags, Uplink};
use tracing::{info, warn};

use crate::{
    chain::chain,
    kernel::{
        bpf::{Datapath, Error},
        link,
    },
    model::interface::Interface,
    plan::{
        interfaces::{Decision, Selection},
        uplinks::{Transit, XdpMode, uplinks},
    },
};

/// Where transit runs at the driver, and why it does not elsewhere.
#[derive(Debug, Default)]
pub(super) struct Uplinks {
    running: BTreeMap<u32, Running>,
    /// What was tried and failed.
    demoted: BTreeMap<u32, (Tried, String)>,
    /// `on`, or why not, by interface index.
    reports: BTreeMap<u32, String>,
    /// What an earlier agent left was looked through.
    swept: bool,
}

#[derive(Clone, Debug, Eq, PartialEq)]
struct Running {
    tried: Tried,
    sends: bool,
}

/// What another attempt may depend on.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Tried {
    name: String,
    mac: [u8; 6],
    mtu: u32,
}

impl Tried {
    fn of(interface: &Interface) -> Self {
        Self { name: interface.name.clone(), mac: interface.mac, mtu: interface.mtu }
    }
}

impl Uplinks {
    /// Returns what the datapath must know of an interface for the sake of transit.
    pub(super) fn flags(&self, index: u32) -> u32 {
        match self.running.get(&index) {
            Some(Running { sends: true, .. }) => InterfaceFlags::XDP | InterfaceFlags::XDP_SEND,
            Some(_) => InterfaceFlags::XDP,
            None => 0,
        }
    }

    /// Says whether transit runs at a driver.
    pub(super) fn any(&self) -> bool {
        !self.running.is_empty()
    }

    /// Says whether transit runs at the driver of an interface.
    pub(super) fn runs_on(&self, index: u32) -> bool {
        self.running.contains_key(&index)
    }

    /// Returns `on`, or why transit does not run there; empty where nobody asked for it.
    pub(super) fn report(&self, index: u32) -> &str {
        self.reports.get(&index).map_or("", String::as_str)
    }

    /// Begins and ends transit where the decisions say so.
    pub(super) fn settle(
        &mut self,
        datapath: &mut Datapath,
        present: &[Interface],
        decisions: &BTreeMap<u32, Decision>,
        (mode, selection): (XdpMode, &Selection),
    ) {
        let drivers = match mode {
            XdpMode::Off => BTreeMap::new(),
            _ => {
                present.iter().filter_map(|each| Some((each.index, link::driver(each)?))).collect()
            }
        };
        let wanted = uplinks(present, decisions, &drivers, mode, selection);
        self.end_unwanted(datapath, &wanted);
        let mut reports = BTreeMap::new();
        for interface in present {
            let report = match wanted.get(&interface.index) {
                Some(Transit::On { sends }) => self.begin(datapath, interface, *sends),
                Some(Transit::Off(reason)) => Err(reason.clone()),
                None => continue,
            };
            reports.insert(interface.index, report.map_or_else(|why| why, |()| "on".into()));
        }
        log_changes(present, &self.reports, &reports);
        self.reports = reports;
    }

    /// Ends transit on an interface that is gone, before another one comes by its index.
    pub(super) fn forget(&mut self, datapath: &mut Datapath, index: u32) {
        if self.running.contains_key(&index) {
            self.end(datapath, &[index]);
        }
        self.demoted.remove(&index);
    }

    fn end_unwanted(&mut self, datapath: &mut Datapath, wanted: &BTreeMap<u32, Transit>) {
        let is_wanted = |index: &u32| matches!(wanted.get(index), Some(Transit::On { .. }));
        let mut ended: Vec<u32> =
            self.running.keys().filter(|index| !is_wanted(index)).copied().collect();
        if !self.swept {
            self.swept = true;
            let left = datapath.transit_pins().unwrap_or_default();
            let marked = datapath.maps.uplinks().unwrap_or_default();
            let left = left.into_iter().chain(marked.iter().map(|uplink| uplink.interface));
            ended.extend(left.filter(|index| !is_wanted(index)));
            ended.sort_unstable();
            ended.dedup();
        }
        self.end(datapath, &ended);
    }

    /// Ends transit on interfaces: none takes packets, then nothing learned is sent there any more,
    /// and then their programs go.
    fn end(&mut self, datapath: &mut Datapath, ended: &[u32]) {
        if ended.is_empty() {
            return;
        }
        let failed = |error: Error| {
            warn!(event = "transit_stays", error = chain(&error), "XDP stays on an uplink");
        };
        for index in ended {
            self.running.remove(index);
            if let Err(error) = datapath.maps.remove_uplink(*index) {
                failed(error);
            }
        }
        if let Err(error) = datapath.maps.generations.raise_epoch() {
            failed(error);
        }
        for index in ended {
            if let Err(error) = datapath.detach_transit(*index) {
                failed(error);
            }
        }
    }

    /// Begins transit on an uplink, unless it runs there or failed before.
    fn begin(
        &mut self,
        datapath: &mut Datapath,
        interface: &Interface,
        sends: bool,
    ) -> Result<(), String> {
        let wanted = Running { tried: Tried::of(interface), sends };
        if self.running.get(&interface.index) == Some(&wanted) {
            return Ok(());
        }
        if let Some((tried, why)) = self.demoted.get(&interface.index)
            && *tried == wanted.tried
        {
            return Err(why.clone());
        }
        match prove_and_attach(datapath, interface) {
            Ok(()) => {
                self.running.insert(interface.index, wanted);
                Ok(())
            }
            Err(why) => {
                self.end(datapath, &[interface.index]);
                self.demoted.insert(interface.index, (wanted.tried, why.clone()));
                Err(why)
            }
        }
    }
}

/// Proves the program with probes and attaches it. Flows are learned for it only afterwards.
fn prove_and_attach(datapath: &mut Datapath, interface: &Interface) -> Result<(), String> {
    let Interface { index, mac, .. } = *interface;
    let uplink = Uplink { interface: index, mac, _pad: [0; 2] };
    datapath.maps.put_uplink(uplink).map_err(|error| chain(&error))?;
    datapath.test_transit(index, mac).map_err(|error| chain(&error))?;
    datapath.attach_transit(&interface.name, index).map_err(|error| chain(&error))
}

fn log_changes(
    present: &[Interface],
    before: &BTreeMap<u32, String>,
    after: &BTreeMap<u32, String>,
) {
    for interface in present {
        let (index, name) = (&interface.index, interface.name.as_str());
        match (before.get(index), after.get(index)) {
            (was, now) if was == now => {}
            (_, Some(now)) if now == "on" => {
                info!(event = "transit_on", interface = name, "XDP takes transit");
            }
            (_, Some(why)) => {
                warn!(event = "transit_off", interface = name, why, "XDP takes no transit here");
            }
            (_, None) => {
                info!(event = "transit_off", interface = name, "XDP takes no transit here");
            }
        }
    }
}
