//! Brings the hash plane up, or says why IPVS does all by itself; and ends one that nobody wants any
//! more, after IPVS was told of all its flows.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use proxy_common::hash::mh::Size;
use tracing::{info, warn};

use super::{HashPlane, State};
use crate::{
    agent::{datapath, facts, sysctls},
    apply::sync_daemon,
    audit::hashed::LAYOUT,
    chain::chain,
    config::{self, Settings},
    kernel::{
        bpf::{self, HashPlaneOptions, PinDirectory},
        ipvs::{
            self, Timeouts,
            sync::{self, Backup, Daemon, SyncSender},
        },
        next_hop::{self, NextHops},
        node::Node,
    },
    ledger::{self, Ledger, Record},
    plan::{Observed, hash_plane::Layout},
    status::Report,
};

/// So long the kernel may take until it has taken up what it was told.
const TAKEN_UP: Duration = Duration::from_millis(200);
/// IPVS's own, where it does not say.
const TIMEOUTS: Timeouts = Timeouts { tcp_secs: 900, tcp_fin_secs: 120, udp_secs: 300 };
/// No router passes messages on.
const TTL: u8 = 1;
/// The entries that a CPU makes in a second, as a part of the flow map.
const NEW_FLOWS_SHARE: u32 = 8;

/// Why there is no hash plane.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0}")]
    Lacking(String),
    #[error(
        "how large this kernel's tables of scheduler mh are is not known: give the agent \
         CAP_SYS_ADMIN at its start, or a kernel whose configuration is in /boot"
    )]
    NoSize,
    #[error(transparent)]
    Sysctl(#[from] sysctls::Failure),
    #[error(transparent)]
    Bpf(#[from] bpf::Error),
    #[error(transparent)]
    NextHop(#[from] next_hop::Error),
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
    #[error(transparent)]
    Daemon(#[from] sync_daemon::Failure),
    #[error(transparent)]
    Sync(#[from] sync::Error),
    #[error("{0} is somebody else's, and a node has one")]
    Foreign(Daemon),
    #[error("read {path}")]
    Layout { path: PathBuf, source: std::io::Error },
}

/// Opens the hash plane, if it is wanted and can be. `size` is that of the kernel's tables.
pub(in crate::agent) async fn open(
    settings: &Settings,
    node: &Node,
    ledger: &mut Ledger,
    observed: &Observed,
    size: Option<Size>,
) -> State {
    let wanted = settings.hash_plane.is_wanted();
    if !wanted && !PinDirectory::at(&settings.paths.bpffs).hash().exists() {
        return State::Unwanted;
    }
    match load(settings, node, ledger, observed, size).await {
        Ok(plane) if wanted => State::On(Box::new(plane)),
        Ok(plane) => {
            retire(plane, settings, node, ledger).await;
            State::Unwanted
        }
        Err(error) => {
            let reason = chain(&error);
            warn!(event = "hash_plane_failed", error = reason, "IPVS does all by itself");
            // What an earlier agent left would go on by what nobody keeps up to date.
            remove_pins(&settings.paths.bpffs);
            if wanted { State::Off(reason) } else { State::Unwanted }
        }
    }
}

async fn load(
    settings: &Settings,
    node: &Node,
    ledger: &mut Ledger,
    observed: &Observed,
    size: Option<Size>,
) -> Result<HashPlane, Error> {
    if let Some(why) = datapath::lacking() {
        return Err(Error::Lacking(why));
    }
    let size = size.ok_or(Error::NoSize)?;
    sysctls::apply(ledger, sysctls::Need::HashPlane)?;
    let timeouts = node.ipvs.timeouts().await.unwrap_or(TIMEOUTS);
    let flow_entries =
        settings.hash_plane.flow_entries.unwrap_or(proxy_common::abi::hash_capacity::FLOWS);
    let options = HashPlaneOptions {
        bpffs: settings.paths.bpffs.clone(),
        mode: settings.hash_plane.mode,
        flow_entries,
        ipv6: !facts::no_ipv6(),
        size,
        tcp_timeout: Duration::from_secs(timeouts.tcp_secs.into()),
        closing_timeout: Duration::from_secs(timeouts.tcp_fin_secs.into()),
        udp_timeout: Duration::from_secs(timeouts.udp_secs.into()),
        new_flows: flow_entries / NEW_FLOWS_SHARE,
    };
    let directory = settings.paths.bpffs.clone();
    ledger.record([Record::Pins { directory: directory.clone(), owned: true }])?;
    let path = settings.paths.state_dir.join(LAYOUT);
    let mut layout = read_layout(&path)?;
    if layout.carried().is_empty() {
        // Nobody could say what such maps hold.
        remove_pins(&directory);
    }
    let plane = match bpf::HashPlane::load(&options) {
        Err(bpf::Error::PinMismatch(mismatch)) => {
            info!(event = "pins_replaced", %mismatch, "the maps of the hash plane are made anew");
            remove_pins(&directory);
            layout = Layout::default();
            bpf::HashPlane::load(&options)
        }
        result => result,
    }?;
    Ok(HashPlane {
        plane,
        size,
        next_hops: NextHops::open()?,
        sender: sender(&settings.hash_plane, &node.ipvs, ledger).await,
        timeouts,
        path,
        layout,
        slots: BTreeMap::new(),
        marked_at: BTreeMap::new(),
        found: observed.servers.keys().copied().collect(),
        ways: BTreeMap::new(),
        look: (Instant::now(), super::LOOK),
        refused: BTreeMap::new(),
        running: BTreeMap::new(),
        failed: BTreeMap::new(),
        modes_before: modes_before(&settings.paths.state_dir),
        interfaces: Vec::new(),
        told_at: Instant::now(),
        listed: None,
        used: None,
    })
}

/// Returns how an earlier agent attached the program, by interface name.
fn modes_before(state_dir: &Path) -> BTreeMap<String, String> {
    let report = Report::read(state_dir).ok().flatten().and_then(|report| report.hash_plane);
    let interfaces = report.map(|report| report.interfaces).unwrap_or_default();
    interfaces.into_iter().map(|each| (each.name, each.mode)).collect()
}

fn read_layout(path: &Path) -> Result<Layout, Error> {
    let failed = |source| Error::Layout { path: path.to_owned(), source };
    match fs::read(path) {
        Ok(text) => Ok(serde_json::from_slice(&text).unwrap_or_else(|error| {
            warn!(event = "hash_layout_lost", %error, "the maps of the hash plane are made anew");
            Layout::default()
        })),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Layout::default()),
        Err(error) => Err(failed(error)),
    }
}

/// Starts what takes up messages in this kernel, and opens the way to it.
async fn sender(
    wanted: &config::HashPlane,
    client: &ipvs::Client,
    ledger: &mut Ledger,
) -> Result<SyncSender, String> {
    open_sender(wanted, client, ledger).await.map_err(|error| {
        let why = chain(&error);
        warn!(
            event = "flows_untold",
            error = why,
            "flows that IPVS would send elsewhere end with XDP"
        );
        why
    })
}

async fn open_sender(
    wanted: &config::HashPlane,
    client: &ipvs::Client,
    ledger: &mut Ledger,
) -> Result<SyncSender, Error> {
    let config::HashPlane { sync_interface: interface, sync_id: id, .. } = wanted;
    match sync_daemon::put(ledger, client, interface, *id).await? {
        Backup::Started | Backup::Present => {}
        Backup::Foreign(other) => return Err(Error::Foreign(other)),
    }
    Ok(SyncSender::open(interface, *id, TTL)?)
}

/// Ends the hash plane. Its flows go on by IPVS.
async fn retire(mut plane: HashPlane, settings: &Settings, node: &Node, ledger: &mut Ledger) {
    let frontends: Vec<_> = plane.layout.carried().keys().copied().collect();
    for frontend in &frontends {
        plane.hand_over_all(frontend);
    }
    tokio::time::sleep(TAKEN_UP).await;
    remove_pins(&settings.paths.bpffs);
    if let Err(error) = fs::remove_file(&plane.path) {
        warn!(event = "hash_layout_stays", %error, "an old layout stays");
    }
    if let Err(error) = sync_daemon::remove(ledger, &node.ipvs).await {
        warn!(event = "sync_stays", error = chain(&error), "IPVS still listens to messages");
    }
    info!(event = "hash_plane_ended", frontends = frontends.len(), "IPVS does all by itself");
}

fn remove_pins(directory: &Path) {
    if let Err(error) = PinDirectory::at(directory).remove_hash() {
        warn!(event = "end_failed", %error, "XDP of an earlier agent goes on");
    }
}
