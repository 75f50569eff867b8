//! One reading of the kernel: maps, IPVS, nft, this process.

use std::{collections::BTreeMap, path::PathBuf, time::SystemTime};

use proxy_common::{
    abi,
    reason::{Class, Reason},
};
use tracing::debug;

use super::{names, recorder::seconds, scrape::Samples};
use crate::{
    audit::{
        hashed::Hashed,
        traffic::{FastTraffic, Traffic},
    },
    chain::chain,
    config::Settings,
    kernel::{
        bpf::{self, Maps, PinDirectory},
        ipvs::{self, Totals},
        nft,
        process::Usage,
    },
    ledger::{self, Owned},
};

/// What a reading needs to know.
#[derive(Clone, Debug)]
pub(super) struct Places {
    bpffs: PathBuf,
    state_dir: PathBuf,
    services: usize,
}

impl From<&Settings> for Places {
    fn from(settings: &Settings) -> Self {
        Self {
            bpffs: settings.paths.bpffs.clone(),
            state_dir: settings.paths.state_dir.clone(),
            services: settings.metrics_per_service as usize,
        }
    }
}

/// A part of the kernel that could not be read.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("read the BPF maps")]
    Bpf(#[from] bpf::Error),
    #[error("read IPVS")]
    Ipvs(#[from] ipvs::Error),
    #[error("read the sums of IPVS, or what this process uses")]
    Proc(#[from] std::io::Error),
    #[error("read the nft table")]
    Nft(#[from] nft::Error),
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
}

/// Reads the kernel, from the network namespace of the thread it is made in.
pub(super) struct Kernel {
    places: Places,
    started_at: Option<SystemTime>,
    ruleset: Option<nft::Ruleset>,
    ipvs: Option<ipvs::Client>,
}

impl Kernel {
    pub(super) fn new(places: Places) -> Self {
        Self { places, started_at: None, ruleset: None, ipvs: None }
    }

    /// Reads as much as can be; says whether it was everything.
    pub(super) async fn read(&mut self) -> (Samples, bool) {
        let mut samples = Samples::default();
        let results = [
            self.process(&mut samples),
            totals(&mut samples),
            self.datapath(&mut samples),
            self.hash_plane(&mut samples),
            self.drops(&mut samples).await,
            self.services(&mut samples).await,
        ];
        let mut whole = true;
        for error in results.into_iter().filter_map(Result::err) {
            whole = false;
            debug!(
                event = "reading_failed",
                error = chain(&error),
                "a part of /metrics is missing"
            );
        }
        (samples, whole)
    }

    fn process(&mut self, samples: &mut Samples) -> Result<(), Error> {
        let usage = Usage::read()?;
        // Read again it would be a little off.
        let started_at = *self.started_at.get_or_insert(usage.started_at);
        samples.put(&names::PROCESS_CPU, [], usage.cpu.as_secs_f64());
        samples.put(&names::PROCESS_MEMORY, [], usage.resident_bytes);
        samples.put(&names::PROCESS_FILES, [], usage.open_files);
        samples.put(&names::PROCESS_START, [], seconds(started_at));
        Ok(())
    }

    /// Returns the maps, if the fast path left any.
    fn maps(&self) -> Result<Option<(PinDirectory, Maps)>, Error> {
        let pins = PinDirectory::at(&self.places.bpffs);
        if !pins.map(abi::STATS.name).exists() {
            return Ok(None);
        }
        let maps = Maps::open(&pins)?;
        Ok(Some((pins, maps)))
    }

    fn datapath(&self, samples: &mut Samples) -> Result<(), Error> {
        let Some((pins, maps)) = self.maps()? else { return Ok(()) };
        let (mut fast, mut slow) = (0, 0);
        for reason in Reason::ALL {
            let counter = maps.counter(*reason)?;
            let class = match reason.class() {
                Class::Fast => {
                    fast += counter.packets;
                    "fast"
                }
                Class::Slow => {
                    slow += counter.packets;
                    "slow"
                }
                Class::Other => "other",
                Class::Learn => "learn",
            };
            samples.put(&names::DATAPATH_PACKETS, [class, reason.name()], counter.packets);
            samples.put(&names::DATAPATH_BYTES, [class, reason.name()], counter.bytes);
        }
        if fast + slow > 0 {
            samples.put(&names::FAST_RATIO, [], fast as f64 / (fast + slow) as f64);
        }
        for map in maps.occupancy(&pins)? {
            samples.put(&names::MAP_ENTRIES, [map.map], map.entries);
            samples.put(&names::MAP_MAX_ENTRIES, [map.map], map.max_entries);
        }
        Ok(())
    }

    fn hash_plane(&self, samples: &mut Samples) -> Result<(), Error> {
        let Some(hashed) = self.hashed()? else { return Ok(()) };
        for (reason, counter) in &hashed.reasons {
            let labels = [Hashed::class(reason.class()), reason.name()];
            samples.put(&names::HASH_PLANE_PACKETS, labels, counter.packets);
            samples.put(&names::HASH_PLANE_BYTES, labels, counter.bytes);
        }
        Ok(())
    }

    fn hashed(&self) -> Result<Option<Hashed>, Error> {
        Ok(Hashed::read(&self.places.state_dir, &self.places.bpffs)?)
    }

    async fn drops(&mut self, samples: &mut Samples) -> Result<(), Error> {
        if self.ruleset.is_none() {
            self.ruleset = Some(nft::Ruleset::open()?);
        }
        let Some(ruleset) = &self.ruleset else { return Ok(()) };
        let drops = ruleset.drops().await.inspect_err(|_| self.ruleset = None)?;
        for (purpose, packets) in drops {
            samples.put(&names::DROPS, [&purpose], packets);
        }
        Ok(())
    }

    /// Reads what Services carried, when that is asked for.
    async fn services(&mut self, samples: &mut Samples) -> Result<(), Error> {
        if self.places.services == 0 {
            samples.put(&names::SERVICES_DROPPED, [], 0u64);
            return Ok(());
        }
        let fast = self.maps()?.map(|(_, maps)| FastTraffic::read(&maps)).transpose()?;
        let mut fast = fast.unwrap_or_default();
        if let Some(hashed) = self.hashed()? {
            fast = fast.with(&hashed);
        }
        let owned = Owned::read(&self.places.state_dir)?;
        if self.ipvs.is_none() {
            self.ipvs = Some(ipvs::Client::open().await?);
        }
        let Some(client) = &self.ipvs else { return Ok(()) };
        let servers = client.virtual_servers().await.inspect_err(|_| self.ipvs = None)?;
        let mut carried = BTreeMap::<&str, Carried>::new();
        for server in &servers {
            let frontend = server.virtual_server.frontend;
            let Some(name) = owned.virtual_servers.get(&frontend) else { continue };
            let service = carried.entry(name).or_default();
            service.connections += server.stats.connections;
            service.slow = service.slow + Traffic::from(&server.stats);
            service.fast = service.fast + fast.frontend(&frontend);
        }
        let dropped = carried.len().saturating_sub(self.places.services);
        samples.put(&names::SERVICES_DROPPED, [], dropped as u64);
        for (name, service) in carried.iter().take(self.places.services) {
            service.put(name, samples);
        }
        Ok(())
    }
}

/// What a Service port carried.
#[derive(Clone, Copy, Debug, Default)]
struct Carried {
    connections: u64,
    slow: Traffic,
    fast: Traffic,
}

impl Carried {
    fn put(&self, name: &str, samples: &mut Samples) {
        samples.put(&names::SERVICE_CONNECTIONS, [name], self.connections);
        for (plane, traffic) in [("slow", self.slow), ("fast", self.fast)] {
            for (direction, packets, bytes) in [
                ("in", traffic.in_packets, traffic.in_bytes),
                ("out", traffic.out_packets, traffic.out_bytes),
            ] {
                samples.put(&names::SERVICE_PACKETS, [name, plane, direction], packets);
                samples.put(&names::SERVICE_BYTES, [name, plane, direction], bytes);
            }
        }
    }
}

fn totals(samples: &mut Samples) -> Result<(), Error> {
    let totals = Totals::read()?;
    samples.put(&names::IPVS_CONNECTIONS, [], totals.connections);
    samples.put(&names::IPVS_PACKETS, ["in"], totals.in_packets);
    samples.put(&names::IPVS_PACKETS, ["out"], totals.out_packets);
    samples.put(&names::IPVS_BYTES, ["in"], totals.in_bytes);
    samples.put(&names::IPVS_BYTES, ["out"], totals.out_bytes);
    Ok(())
}
