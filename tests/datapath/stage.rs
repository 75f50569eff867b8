//! Loaded programs with the maps of one small Service, for one case.

use std::{
    fs,
    path::PathBuf,
    process,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::Context;
use proxy_common::{
    abi::{
        Backend, FIRST_BACKEND_ID, Flow4, FlowKey4, FlowState, Frontend, FrontendFlags,
        ServiceKey4, Transform4,
    },
    packet::checksum,
    reason::Reason,
};
use proxy_userspace::kernel::bpf::{Datapath, LoadOptions, PinDirectory};

use crate::packets::{L4, Plain};

pub(crate) const BACKEND: u32 = FIRST_BACKEND_ID;
/// The way out in the stage's entries. No such interface needs to exist: a redirect is decided,
/// not carried out.
pub(crate) const OUT: u32 = 77;
const BPFFS: &str = "/sys/fs/bpf";
const PREFIX: &str = "passlane-test-";
const SOFT: Duration = Duration::from_secs(60);
const HARD: Duration = Duration::from_secs(100);

/// Says why this machine cannot run the programs.
pub(crate) fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("not root".into());
    }
    None
}

/// Programs, maps and their pins; the pins go with it.
pub(crate) struct Stage {
    pub(crate) datapath: Datapath,
    _pins: Pins,
}

/// The pins of a stage, also of one that could not be set up.
struct Pins(PathBuf);

impl Drop for Pins {
    fn drop(&mut self) {
        // A leftover only wastes memory until the next run sweeps it.
        let _ = PinDirectory::at(&self.0).remove_pins();
    }
}

/// Removes the pins of runs that were killed.
pub(crate) fn sweep() {
    let Ok(entries) = fs::read_dir(BPFFS) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let process = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if process.is_some_and(|process| !fs::exists(format!("/proc/{process}")).unwrap_or(true)) {
            drop(Pins(entry.path()));
        }
    }
}

impl Stage {
    pub(crate) fn new() -> anyhow::Result<Self> {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut LoadOptions)) -> anyhow::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let pins = Pins(PathBuf::from(format!("{BPFFS}/{PREFIX}{}-{number}", process::id())));
        let mut options = LoadOptions {
            bpffs: pins.0.clone(),
            flow_entries: 4096,
            soft_lease: SOFT,
            hard_lease: HARD,
            observe: false,
            log: false,
        };
        change(&mut options);
        let mut datapath = Datapath::load(&options).context("load the datapath")?;
        let key = |addr, port, protocol| ServiceKey4 { addr, port, protocol, _pad: 0 };
        for protocol in [6, 17] {
            datapath.maps.put_frontend(
                key([10, 96, 0, 10], 80, protocol),
                Frontend { id: 1, flags: FrontendFlags::LEARN },
            )?;
            datapath
                .maps
                .put_backend(key([10, 2, 0, 9], 8080, protocol), Backend { id: BACKEND })?;
        }
        Ok(Self { datapath, _pins: pins })
    }

    /// Returns how many packets were counted under a reason.
    pub(crate) fn count(&self, reason: Reason) -> u64 {
        self.datapath.maps.counter(reason).map_or(u64::MAX, |counter| counter.packets)
    }

    /// Returns the entry of a flow.
    pub(crate) fn flow(&self, key: &FlowKey4) -> Option<Flow4> {
        let flows = self.datapath.maps.flows().ok()?;
        flows.into_iter().find_map(|(found, flow)| (found == *key).then_some(flow))
    }
}

/// Returns the low word of the kernel's jiffies. They are no multiple of any clock that user space
/// can read, so the kernel is asked.
pub(crate) fn jiffies_now() -> u32 {
    let list = std::fs::read_to_string("/proc/timer_list").expect("root reads the timer list");
    let jiffies = list.lines().find_map(|line| line.strip_prefix("jiffies: ")?.parse::<u64>().ok());
    jiffies.expect("the timer list says jiffies") as u32
}

pub(crate) fn key(packet: &Plain) -> FlowKey4 {
    FlowKey4 {
        source: packet.source.0,
        destination: packet.destination.0,
        source_port: packet.source.1,
        destination_port: packet.destination.1,
        interface: 1,
        protocol: if packet.l4 == L4::Udp { 17 } else { 6 },
        _pad: [0; 3],
    }
}

/// Returns what the fast path shall make of a packet: to 10.2.0.9:8080, by way of [`OUT`].
pub(crate) fn translated(packet: &Plain) -> Plain {
    Plain {
        ethernet: ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 9]),
        destination: ([10, 2, 0, 9], 8080),
        ttl: packet.ttl - 1,
        ..packet.clone()
    }
}

/// Returns an active entry that turns `from` into `to`.
pub(crate) fn entry(from: &Plain, to: &Plain) -> Flow4 {
    let word = u32::from_ne_bytes;
    let address_delta = checksum::add(
        checksum::replace(word(from.source.0), word(to.source.0)),
        checksum::replace(word(from.destination.0), word(to.destination.0)),
    );
    let ports = |packet: &Plain| {
        checksum::add(packet.source.1.to_be().into(), packet.destination.1.to_be().into())
    };
    let mut ethernet = [0; 14];
    ethernet[..6].copy_from_slice(&to.ethernet.1);
    ethernet[6..12].copy_from_slice(&to.ethernet.0);
    ethernet[12..].copy_from_slice(&[8, 0]);
    Flow4 {
        state: FlowState::ACTIVE,
        renewed_at: jiffies_now(),
        elected_at: jiffies_now(),
        backend: BACKEND,
        frontend: 1,
        transform: Transform4 {
            source: to.source.0,
            destination: to.destination.0,
            source_port: to.source.1,
            destination_port: to.destination.1,
            interface: OUT,
            mtu: 1500,
            ip_delta: checksum::add(address_delta, checksum::lower_ttl(from.ttl - to.ttl)),
            address_delta,
            port_delta: checksum::add(!ports(from), ports(to)),
            ethernet,
            ttl_delta: from.ttl - to.ttl,
            ..Transform4::default()
        },
        ..Flow4::default()
    }
}
