//! Loaded programs with the maps of one small Service, for one case.

use std::{
    fs,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::Context;
use proxy_common::{
    abi::{
        Backend, FIRST_BACKEND_ID, Flow, FlowKey, FlowState, Frontend, FrontendFlags, Transform,
    },
    packet::checksum,
    reason::Reason,
};
use proxy_userspace::{
    kernel::bpf::{Datapath, LoadOptions, PinDirectory},
    model::{self, Protocol},
};

use crate::packets::{L4, Net, Plain};

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
    pub(crate) options: LoadOptions,
    _pins: Pins,
}

/// The pins of a stage, also of one that could not be set up.
pub(crate) struct Pins(PathBuf);

impl Pins {
    /// Returns a directory that no other case has.
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(PathBuf::from(format!("{BPFFS}/{PREFIX}{}-{number}", process::id())))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

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
        let pins = Pins::new();
        let mut options = LoadOptions {
            bpffs: pins.0.clone(),
            flow_entries: 4096,
            ipv6: true,
            install_rate: u32::MAX,
            soft_lease: SOFT,
            hard_lease: HARD,
            log: false,
        };
        change(&mut options);
        let mut datapath = Datapath::load(&options).context("load the datapath")?;
        put_service::<[u8; 4]>(&mut datapath)?;
        put_service::<[u8; 16]>(&mut datapath)?;
        Ok(Self { datapath, options, _pins: pins })
    }

    /// Returns how many packets were counted under a reason.
    pub(crate) fn count(&self, reason: Reason) -> u64 {
        self.datapath.maps.counter(reason).map_or(u64::MAX, |counter| counter.packets)
    }

    /// Returns the entry of a flow.
    pub(crate) fn flow<A: Net>(&self, key: &FlowKey<A>) -> Option<Flow<A>> {
        let flows = A::maps(&self.datapath.maps).flows().ok()?;
        flows.into_iter().find_map(|(found, flow)| (found == *key).then_some(flow))
    }

    /// Puts the entry of a flow, whose packets go to something that may be a Service.
    pub(crate) fn put<A: Net>(&mut self, key: FlowKey<A>, flow: Flow<A>) -> anyhow::Result<()> {
        let protocol = Protocol::from_number(key.protocol).context("a protocol of Services")?;
        self.datapath.maps.filter.add((key.destination.into(), key.destination_port, protocol))?;
        Ok(A::maps_mut(&mut self.datapath.maps).put_flow(key, flow)?)
    }
}

fn put_service<A: Net>(datapath: &mut Datapath) -> anyhow::Result<()> {
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let frontend = model::Frontend { addr: A::VIP.into(), port: 80, protocol };
        let learned = Frontend { id: 1, flags: FrontendFlags::LEARN };
        datapath.maps.put_frontend(&frontend, learned)?;
        let backend = model::Backend { addr: A::POD.into(), port: 8080, protocol };
        datapath.maps.put_backend(&backend, Backend { id: BACKEND })?;
    }
    Ok(())
}

/// Returns the low word of the kernel's jiffies. They are no multiple of any clock that user space
/// can read, so the kernel is asked.
pub(crate) fn jiffies_now() -> u32 {
    let list = std::fs::read_to_string("/proc/timer_list").expect("root reads the timer list");
    let jiffies = list.lines().find_map(|line| line.strip_prefix("jiffies: ")?.parse::<u64>().ok());
    jiffies.expect("the timer list says jiffies") as u32
}

pub(crate) fn key<A: Net>(packet: &Plain<A>) -> FlowKey<A> {
    FlowKey {
        source: packet.source.0,
        destination: packet.destination.0,
        source_port: packet.source.1,
        destination_port: packet.destination.1,
        interface: 1,
        protocol: if packet.l4 == L4::Udp { 17 } else { 6 },
        _pad: [0; 3],
    }
}

/// Returns what the fast path shall make of a packet: to port 8080 of the
/// pod, by way of [`OUT`].
pub(crate) fn translated<A: Net>(packet: &Plain<A>) -> Plain<A> {
    Plain {
        ethernet: ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 9]),
        destination: (A::POD, 8080),
        ttl: packet.ttl - 1,
        ..packet.clone()
    }
}

/// Returns an active entry that turns `from` into `to`.
pub(crate) fn entry<A: Net>(from: &Plain<A>, to: &Plain<A>) -> Flow<A> {
    let address_delta = checksum::add(
        replace(&from.source.0, &to.source.0),
        replace(&from.destination.0, &to.destination.0),
    );
    let ports = |packet: &Plain<A>| {
        checksum::add(packet.source.1.to_be().into(), packet.destination.1.to_be().into())
    };
    let mut ethernet = [0; 14];
    ethernet[..6].copy_from_slice(&to.ethernet.1);
    ethernet[6..12].copy_from_slice(&to.ethernet.0);
    ethernet[12..].copy_from_slice(&A::ETHER_TYPE);
    Flow {
        state: FlowState::ACTIVE,
        renewed_at: jiffies_now(),
        elected_at: jiffies_now(),
        backend: BACKEND,
        frontend: 1,
        transform: Transform {
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
            ..Transform::default()
        },
        ..Flow::default()
    }
}

/// Returns the difference that another address makes to a sum.
fn replace<A: Net>(from: &A, to: &A) -> u32 {
    let words = |addr: &A| {
        let words = addr.as_ref().chunks_exact(4);
        let word = |bytes: &[u8]| bytes.try_into().map_or(0, u32::from_ne_bytes);
        words.map(word).collect::<Vec<_>>()
    };
    let pairs = words(from).into_iter().zip(words(to));
    pairs.fold(0, |sum, (from, to)| checksum::add(sum, checksum::replace(from, to)))
}
