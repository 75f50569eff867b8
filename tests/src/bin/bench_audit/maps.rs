//! What reading the BPF maps costs in a look, on this machine's own kernel.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use proxy_common::abi;
use proxy_tests::size::Size;
use proxy_userspace::kernel::bpf::{Datapath, LoadOptions, MapNumbers, MapReader, PinDirectory};
use proxy_userspace::model::{Backend, Frontend, Protocol};
use rustix::time::{ClockId, clock_gettime};

use super::cluster::{cluster_ip, endpoint};

const TIMES: usize = 21;

/// The pins of the bench, removed in the end.
struct Pins(PathBuf);

impl Drop for Pins {
    fn drop(&mut self) {
        if let Err(error) = PinDirectory::at(&self.0).remove_pins() {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}

/// Processor time of one reading.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    pub(crate) least: Duration,
    pub(crate) median: Duration,
}

/// Fills maps of its own and looks at them again and again: what a look costs that has the kernel sum
/// them up, and what one costs that reads them.
pub(crate) fn measure(size: Size) -> Result<[Cost; 2]> {
    let pins = Pins(PathBuf::from(format!("/sys/fs/bpf/passlane-bench-{}", std::process::id())));
    let mut datapath = Datapath::load(&LoadOptions {
        bpffs: pins.0.clone(),
        flow_entries: 4096,
        ipv6: true,
        install_rate: 1,
        soft_lease: Duration::from_secs(3),
        hard_lease: Duration::from_secs(5),
        log: false,
    })
    .context("load the datapath")?;
    fill(&mut datapath, size)?;
    let reader = datapath.reader()?;
    anyhow::ensure!(reader.refusal().is_none(), "{:?}", reader.refusal());
    let count = (size.services * (1 + size.endpoints)) as usize;
    let mut costs = [Vec::new(), Vec::new()];
    let mut seen: Option<MapNumbers> = None;
    for _ in 0..TIMES {
        let looks = [MapReader::numbers, MapReader::read];
        for (look, costs) in looks.into_iter().zip(&mut costs) {
            let before = processor_time();
            let numbers = look(&reader, count)?;
            costs.push(processor_time() - before);
            let first = *seen.get_or_insert(numbers);
            anyhow::ensure!(first == numbers, "nobody changed them: {first:?}, then {numbers:?}");
        }
    }
    Ok(costs.map(Cost::of))
}

impl Cost {
    fn of(mut costs: Vec<Duration>) -> Self {
        costs.sort_unstable();
        let at = |index: usize| costs.get(index).copied().unwrap_or_default();
        Self { least: at(0), median: at(TIMES / 2) }
    }
}

fn fill(datapath: &mut Datapath, size: Size) -> Result<()> {
    let protocol = Protocol::Tcp;
    let mut id = 0;
    let mut next = || {
        id += 1;
        id
    };
    for service in 0..size.services {
        let frontend = Frontend { addr: cluster_ip(service).into(), port: 80, protocol };
        let value = abi::Frontend { id: next(), ..abi::Frontend::default() };
        datapath.maps.put_frontend(&frontend, value)?;
        for number in 0..size.endpoints {
            let backend = Backend { addr: endpoint(service, number).into(), port: 8080, protocol };
            let value = abi::Backend { id: next() };
            datapath.maps.put_backend(&backend, value)?;
        }
    }
    Ok(())
}

fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}
