//! How much the verifier has to do: `tests/complexity.toml` says how much it may be.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::{Context, ensure};
use proxy_common::hash::mh::Size;
use proxy_userspace::{
    kernel::{
        bpf::{
            Datapath, HashPlane, HashPlaneOptions, LoadOptions, Localhost, PinDirectory, Witness,
        },
        cgroup, namespace,
    },
    model::HashMode,
};

use crate::{Case, needs::Need};

pub(crate) fn cases() -> Vec<Case> {
    crate::cases![&[Need::Root]; the_verifier_has_no_more_to_do_than_is_recorded]
}

const RECORD: &str = include_str!("../complexity.toml");
/// A record that is much above what is needed hides a jump.
const SLACK_PERCENT: u32 = 10;

type Counts = BTreeMap<String, u32>;

/// The pins of the programs under test; they go with it.
struct Pins<'a>(&'a Path);

impl Drop for Pins<'_> {
    fn drop(&mut self) {
        // The guest ends, and with it what could not be removed.
        let _ = PinDirectory::at(self.0).remove_pins();
    }
}

async fn the_verifier_has_no_more_to_do_than_is_recorded() -> anyhow::Result<()> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let series: String = release.split('.').take(2).collect::<Vec<_>>().join(".");
    let record: BTreeMap<String, Counts> = toml::from_str(RECORD)?;
    let measured = measure()?;
    let lines: String =
        measured.iter().map(|(name, count)| format!("{name} = {count}\n")).collect();
    let found = format!("measured on {release}:\n[\"{series}\"]\n{lines}");
    let record = record.get(&series).with_context(|| format!("no record; {found}"))?;
    ensure!(record.keys().eq(measured.keys()), "the record has other programs; {found}");
    for (name, &count) in &measured {
        let recorded = record[name];
        ensure!(count <= recorded, "{name} takes {count}, recorded are {recorded}; {found}");
        let least = recorded - recorded / 100 * SLACK_PERCENT;
        ensure!(count >= least, "{name} takes {count} only, lower its record; {found}");
    }
    Ok(())
}

fn measure() -> anyhow::Result<Counts> {
    let root = Path::new("/sys/fs/bpf/passlane-verifier");
    let _pins = Pins(root);
    let options = LoadOptions {
        bpffs: root.to_owned(),
        flow_entries: 4096,
        ipv6: true,
        install_rate: u32::MAX,
        soft_lease: Duration::from_secs(3),
        hard_lease: Duration::from_secs(5),
        log: false,
    };
    let datapath = Datapath::load(&options)?;
    let mut counts: Counts = datapath.verified_instructions().into_iter().collect();
    let reader = datapath.reader()?;
    ensure!(reader.refusal().is_none(), "{:?}", reader.refusal());
    counts.extend(reader.verified_instructions());
    let localhost = Localhost::attach(root, &cgroup::open_root()?, namespace::cookie()?)?;
    counts.extend(localhost.verified_instructions());
    let witness = Witness::attach()?;
    ensure!(witness.parts().len() == 4, "probes for {:?} only", witness.parts());
    counts.extend(witness.verified_instructions());
    for mode in [HashMode::Native, HashMode::Tc] {
        counts.extend(hash_plane(root, mode)?.verified_instructions());
    }
    Ok(counts)
}

fn hash_plane(root: &Path, mode: HashMode) -> anyhow::Result<HashPlane> {
    let plane = HashPlane::load(&HashPlaneOptions {
        bpffs: root.to_owned(),
        mode,
        flow_entries: 4096,
        ipv6: true,
        size: Size::DEFAULT,
        tcp_timeout: Duration::from_secs(900),
        closing_timeout: Duration::from_secs(120),
        udp_timeout: Duration::from_secs(300),
        new_flows: u32::MAX,
    });
    Ok(plane?)
}
