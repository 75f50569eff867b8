//! The sums of the maps of frontends and backends: what the kernel says of them is what is there.

use anyhow::ensure;
use proxy_common::abi::{Backend, Frontend, FrontendFlags};
use proxy_userspace::{
    kernel::bpf::{
        MapNumbers, Maps,
        fingerprint::{of_backend, of_frontend},
    },
    model::{self, Protocol},
};

use crate::{stage::Stage, table::Case};

/// More than are read one by one where there are no sums.
const FRONTENDS: u32 = 3000;
const BACKENDS: u32 = 9000;

/// Returns every case of the file.
pub(crate) fn cases() -> Vec<(String, Case)> {
    let all: [(&str, Case); 3] = [
        ("the_kernel_sums_up_what_the_maps_hold", Box::new(sums)),
        ("one_bit_of_one_value_changes_a_sum", Box::new(one_bit)),
        ("maps_that_are_empty_or_full_are_summed_up", Box::new(extremes)),
    ];
    all.into_iter().map(|(name, case)| (name.to_owned(), case)).collect()
}

/// Numbers that look random and are the same in each run (xorshift).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn addr(&mut self) -> std::net::IpAddr {
        let (high, low) = (self.next(), self.next());
        match high % 2 {
            0 => (low as u32).to_be_bytes().into(),
            _ => (u128::from(high) << 64 | u128::from(low)).to_be_bytes().into(),
        }
    }

    fn protocol(&mut self) -> Protocol {
        [Protocol::Tcp, Protocol::Udp, Protocol::Sctp][(self.next() % 3) as usize]
    }
}

/// What was put, and its numbers.
struct Filled {
    frontends: Vec<(model::Frontend, Frontend)>,
    backends: Vec<(model::Backend, Backend)>,
}

impl Filled {
    fn expected(&self) -> (u64, u64) {
        let frontends = self.frontends.iter();
        let frontends = frontends.map(|(key, value)| of_frontend(key, value.id, value.flags));
        let backends = self.backends.iter().map(|(key, value)| of_backend(key, value.id));
        let sum = |sum: u64, number| sum.wrapping_add(number);
        (frontends.fold(0, sum), backends.fold(0, sum))
    }
}

/// Fills the maps in place of what the stage put there.
fn fill(maps: &mut Maps) -> anyhow::Result<Filled> {
    empty(maps)?;
    let mut random = Random(0x5eed_5eed_5eed_5eed);
    let mut filled = Filled { frontends: Vec::new(), backends: Vec::new() };
    for id in 1..=FRONTENDS {
        let (addr, protocol) = (random.addr(), random.protocol());
        let key = model::Frontend { addr, port: random.next() as u16, protocol };
        let flags = [0, FrontendFlags::LEARN, FrontendFlags::LEARN | FrontendFlags::FORCE];
        let value = Frontend { id, flags: flags[(random.next() % 3) as usize] };
        maps.put_frontend(&key, value)?;
        filled.frontends.push((key, value));
    }
    for id in 2..BACKENDS + 2 {
        let (addr, protocol) = (random.addr(), random.protocol());
        let key = model::Backend { addr, port: random.next() as u16, protocol };
        maps.put_backend(&key, Backend { id })?;
        filled.backends.push((key, Backend { id }));
    }
    Ok(filled)
}

fn empty(maps: &mut Maps) -> anyhow::Result<()> {
    for (frontend, _) in maps.frontends()? {
        maps.remove_frontend(&frontend)?;
    }
    for (backend, _) in maps.backends()? {
        maps.remove_backend(&backend)?;
    }
    Ok(())
}

fn entries(numbers: &MapNumbers) -> (u64, u64) {
    (numbers.frontends, numbers.backends)
}

fn sums() -> anyhow::Result<()> {
    let mut stage = Stage::new()?;
    let filled = fill(&mut stage.datapath.maps)?;
    let reader = stage.datapath.reader()?;
    ensure!(reader.refusal().is_none(), "{:?}", reader.refusal());
    let expected = filled.expected();
    let summed = reader.numbers((FRONTENDS + BACKENDS) as usize)?;
    ensure!(entries(&summed) == expected, "summed {summed:?}, put {expected:?}");
    let read = reader.read((FRONTENDS + BACKENDS) as usize)?;
    ensure!(read == summed, "read in batches {read:?}, summed {summed:?}");
    let read = reader.read(1)?;
    ensure!(read == summed, "read one by one {read:?}, summed {summed:?}");
    Ok(())
}

fn one_bit() -> anyhow::Result<()> {
    let mut stage = Stage::new()?;
    let filled = fill(&mut stage.datapath.maps)?;
    let reader = stage.datapath.reader()?;
    let before = reader.numbers(0)?;
    for bit in [0, 7, 31] {
        let (key, value) = filled.backends[(bit * 100) as usize];
        stage.datapath.maps.put_backend(&key, Backend { id: value.id ^ 1 << bit })?;
        let changed = reader.numbers(0)?;
        ensure!(changed.backends != before.backends, "bit {bit} of a backend's id");
        ensure!(changed.frontends == before.frontends, "nobody changed a frontend");
        stage.datapath.maps.put_backend(&key, value)?;
        let (key, value) = filled.frontends[(bit * 50) as usize];
        let other = Frontend { id: value.id ^ 1 << bit, ..value };
        stage.datapath.maps.put_frontend(&key, other)?;
        let changed = reader.numbers(0)?;
        ensure!(changed.frontends != before.frontends, "bit {bit} of a frontend's id");
        ensure!(changed.backends == before.backends, "the backend was put back");
        let other = Frontend { flags: value.flags ^ FrontendFlags::LEARN, ..value };
        stage.datapath.maps.put_frontend(&key, other)?;
        ensure!(reader.numbers(0)?.frontends != before.frontends, "a frontend's mode");
        stage.datapath.maps.put_frontend(&key, value)?;
        ensure!(entries(&reader.numbers(0)?) == entries(&before), "all was put back");
    }
    Ok(())
}

fn extremes() -> anyhow::Result<()> {
    let mut stage = Stage::new()?;
    let reader = stage.datapath.reader()?;
    empty(&mut stage.datapath.maps)?;
    ensure!(entries(&reader.numbers(0)?) == (0, 0), "{:?} of empty maps", reader.numbers(0)?);
    let mut sum = 0_u64;
    for id in 0..proxy_common::abi::capacity::BACKENDS {
        let addr = (0x0a00_0000 | id).to_be_bytes().into();
        let key = model::Backend { addr, port: 8080, protocol: Protocol::Tcp };
        stage.datapath.maps.put_backend(&key, Backend { id })?;
        sum = sum.wrapping_add(of_backend(&key, id));
    }
    ensure!(entries(&reader.numbers(0)?) == (0, sum), "not the sum of a full map");
    Ok(())
}
