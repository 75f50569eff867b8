//! What is ours: a log of every object we are about to make, written before it is made.
//!
//! The file is one JSON record a line, appended; the last record of an object counts. A line that
//! a crash cut short is the last one, names an object that was not made yet, and is ignored. The
//! file is on a tmpfs (`/run`): it lives as long as the kernel state it speaks of.
//!
//! A line that says something else is kept: after a rollback it is a newer version's, which may come
//! back and then needs it.
//!
//! VIP routes need no record: their route protocol marks them. VIPs that are addresses have one, and
//! one line may name many of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Write},
    net::IpAddr,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{kernel::ipvs::Timeouts, model::Frontend};

/// A log longer than this, and longer than four times what it says, is written anew.
const COMPACT_ABOVE: usize = 4096;

/// An object that is ours, or is so no more.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(tag = "object", rename_all = "snake_case")]
pub enum Record {
    /// A virtual server with its destinations.
    VirtualServer {
        /// Its key.
        frontend: Frontend,
        /// The Service port it serves; `None` when it is ours no more.
        service: Option<String>,
    },
    /// The device that carries the VIPs, when we made it.
    Device {
        /// Its name.
        name: String,
        /// It is ours.
        owned: bool,
    },
    /// Addresses that we put on a device.
    Addresses {
        /// Name of the device.
        device: String,
        /// They.
        addrs: Vec<IpAddr>,
        /// They are ours.
        owned: bool,
    },
    /// Our nft table.
    NatTable {
        /// It is ours.
        owned: bool,
    },
    /// A sysctl that we changed.
    Sysctl {
        /// Its dotted name.
        key: String,
        /// The values; `None` when it is ours no more.
        change: Option<SysctlChange>,
    },
    /// The timeouts of IPVS.
    IpvsTimeouts {
        /// The values; `None` when they are ours no more.
        change: Option<TimeoutsChange>,
    },
    /// A sync daemon of IPVS in state backup.
    SyncDaemon {
        /// The interface whose multicast group it belongs to.
        interface: String,
        /// The id whose messages it takes.
        id: u8,
        /// It is ours.
        owned: bool,
    },
    /// A clsact qdisc that we made for our filters.
    Clsact {
        /// Interface name.
        interface: String,
        /// It is ours.
        owned: bool,
    },
    /// The pins of maps and links.
    Pins {
        /// The directory that the operator named.
        directory: PathBuf,
        /// They are ours.
        owned: bool,
    },
}

/// A change of a sysctl.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct SysctlChange {
    /// The value before.
    pub previous: String,
    /// The value that we wrote: another one by now is somebody else's.
    pub written: String,
}

/// A change of the timeouts of IPVS.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct TimeoutsChange {
    /// The values before.
    pub previous: Timeouts,
    /// The values that we wrote: others by now are somebody else's.
    pub written: Timeouts,
}

/// An error of the ledger: without it nothing may be made.
#[derive(Debug, thiserror::Error)]
#[error(
    "{operation} ledger {path}: --state-dir must be a writable directory that outlives the agent"
)]
pub struct Error {
    operation: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// Everything the ledger says.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Owned {
    /// Virtual servers and the Service port of each.
    pub virtual_servers: BTreeMap<Frontend, String>,
    /// Devices that we made.
    pub devices: BTreeSet<String>,
    /// Addresses that we put on devices, by name of the device.
    pub addresses: BTreeMap<String, BTreeSet<IpAddr>>,
    /// The nft table is ours.
    pub nat_table: bool,
    /// Sysctls that we changed.
    pub sysctls: BTreeMap<String, SysctlChange>,
    /// The timeouts of IPVS, when we changed them.
    pub ipvs_timeouts: Option<TimeoutsChange>,
    /// Sync daemons of IPVS that we started: interface and id.
    pub sync_daemons: BTreeSet<(String, u8)>,
    /// Interfaces whose clsact qdisc we made.
    pub clsacts: BTreeSet<String>,
    /// Directories of pins.
    pub pins: BTreeSet<PathBuf>,
}

impl Record {
    /// Returns how much of the log the record takes, in lines of one object.
    fn weight(&self) -> usize {
        match self {
            Self::Addresses { addrs, .. } => addrs.len().max(1),
            _ => 1,
        }
    }
}

/// The open ledger.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    file: File,
    lines: usize,
    owned: Owned,
    unknown: Vec<u8>,
}

impl Owned {
    /// Reads a ledger without opening it for writing; an absent one says that nothing is ours.
    ///
    /// # Errors
    ///
    /// [`Error`] when the file is there and cannot be read.
    pub fn read(state_dir: &Path) -> Result<Self, Error> {
        let path = path_in(state_dir);
        match File::open(&path) {
            Ok(file) => {
                let replayed = replay(file).map_err(|source| failed("read", &path, source))?;
                Ok(replayed.owned)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(failed("read", &path, source)),
        }
    }

    /// Says whether nothing is ours.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns how many objects are on the log as often as they come and go.
    fn moving(&self) -> usize {
        self.virtual_servers.len() + self.addresses.values().map(BTreeSet::len).sum::<usize>()
    }

    /// Takes a record up; says whether it changed anything.
    fn take(&mut self, record: Record) -> bool {
        match record {
            Record::VirtualServer { frontend, service: Some(service) } => {
                self.virtual_servers.insert(frontend, service.clone()) != Some(service)
            }
            Record::VirtualServer { frontend, service: None } => {
                self.virtual_servers.remove(&frontend).is_some()
            }
            Record::Device { name, owned } => set(&mut self.devices, name, owned),
            Record::Addresses { device, addrs, owned } => {
                let held = self.addresses.entry(device.clone()).or_default();
                let before = held.len();
                if owned {
                    held.extend(addrs);
                } else {
                    addrs.iter().for_each(|addr| {
                        held.remove(addr);
                    });
                }
                let (after, changed) = (held.len(), held.len() != before);
                if after == 0 {
                    self.addresses.remove(&device);
                }
                changed
            }
            Record::NatTable { owned } => std::mem::replace(&mut self.nat_table, owned) != owned,
            Record::Sysctl { key, change: Some(change) } => {
                // The first value before is the operator's; a later one would be our own.
                let before = self.sysctls.get(&key).map(|known| known.previous.clone());
                let previous = before.unwrap_or(change.previous);
                let change = SysctlChange { previous, ..change };
                self.sysctls.insert(key, change.clone()) != Some(change)
            }
            Record::Sysctl { key, change: None } => self.sysctls.remove(&key).is_some(),
            Record::IpvsTimeouts { change } => {
                let before = self.ipvs_timeouts;
                self.ipvs_timeouts = change.map(|change| TimeoutsChange {
                    previous: before.map_or(change.previous, |before| before.previous),
                    ..change
                });
                self.ipvs_timeouts != before
            }
            Record::SyncDaemon { interface, id, owned } => {
                set(&mut self.sync_daemons, (interface, id), owned)
            }
            Record::Clsact { interface, owned } => set(&mut self.clsacts, interface, owned),
            Record::Pins { directory, owned } => set(&mut self.pins, directory, owned),
        }
    }

    fn records(&self) -> Vec<Record> {
        let owned = true;
        let servers = self.virtual_servers.iter().map(|(frontend, service)| {
            Record::VirtualServer { frontend: *frontend, service: Some(service.clone()) }
        });
        let devices = self.devices.iter().map(|name| Record::Device { name: name.clone(), owned });
        let addresses = self.addresses.iter().map(|(device, addrs)| Record::Addresses {
            device: device.clone(),
            addrs: addrs.iter().copied().collect(),
            owned,
        });
        let table = self.nat_table.then_some(Record::NatTable { owned });
        let sysctls = self
            .sysctls
            .iter()
            .map(|(key, change)| Record::Sysctl { key: key.clone(), change: Some(change.clone()) });
        let timeouts =
            self.ipvs_timeouts.map(|change| Record::IpvsTimeouts { change: Some(change) });
        let daemons = self.sync_daemons.iter().map(|(interface, id)| Record::SyncDaemon {
            interface: interface.clone(),
            id: *id,
            owned,
        });
        let clsacts = self
            .clsacts
            .iter()
            .map(|interface| Record::Clsact { interface: interface.clone(), owned });
        let pins =
            self.pins.iter().map(|directory| Record::Pins { directory: directory.clone(), owned });
        servers
            .chain(devices)
            .chain(addresses)
            .chain(table)
            .chain(sysctls)
            .chain(timeouts)
            .chain(daemons)
            .chain(clsacts)
            .chain(pins)
            .collect()
    }
}

/// Puts or removes an object; says whether that changed anything.
fn set<T: Ord>(objects: &mut BTreeSet<T>, object: T, owned: bool) -> bool {
    if owned { objects.insert(object) } else { objects.remove(&object) }
}

impl Ledger {
    /// Opens the ledger in a directory, making both when they are missing.
    ///
    /// # Errors
    ///
    /// [`Error`] naming the file.
    pub fn open(state_dir: &Path) -> Result<Self, Error> {
        let path = path_in(state_dir);
        fs::create_dir_all(state_dir).map_err(|source| failed("make", &path, source))?;
        let open = || OpenOptions::new().read(true).append(true).create(true).open(&path);
        let file = open().map_err(|source| failed("open", &path, source))?;
        let readable = file.try_clone().map_err(|source| failed("open", &path, source))?;
        let replayed = replay(readable).map_err(|source| failed("read", &path, source))?;
        let Replayed { owned, lines, unknown } = replayed;
        let mut ledger = Self { path, file, lines, owned, unknown };
        // A log that ends in the middle of a line must not swallow the next record.
        ledger.rewrite()?;
        Ok(ledger)
    }

    /// Returns what is ours.
    pub fn owned(&self) -> &Owned {
        &self.owned
    }

    /// Records objects that are about to be made, or are gone. On disk before it returns.
    ///
    /// # Errors
    ///
    /// [`Error`]; then nothing may be made.
    pub fn record(&mut self, records: impl IntoIterator<Item = Record>) -> Result<(), Error> {
        let mut text = Vec::new();
        for record in records {
            if self.owned.take(record.clone()) {
                write_line(&mut text, &record).map_err(|source| self.failed("write", source))?;
                self.lines += record.weight();
            }
        }
        self.file.write_all(&text).map_err(|source| self.failed("write", source))?;
        let live = self.owned.moving();
        if self.lines > COMPACT_ABOVE.max(4 * live) {
            self.rewrite()?;
        }
        Ok(())
    }

    /// Writes the log anew, as short as it can be, and puts it in place at once.
    fn rewrite(&mut self) -> Result<(), Error> {
        let beside = self.path.with_extension("new");
        let mut text = self.unknown.clone();
        let records = self.owned.records();
        self.lines = records.iter().map(Record::weight).sum();
        let written = records
            .iter()
            .try_for_each(|record| write_line(&mut text, record))
            .and_then(|()| fs::write(&beside, text))
            .and_then(|()| fs::rename(&beside, &self.path))
            .and_then(|()| OpenOptions::new().append(true).open(&self.path));
        self.file = written.map_err(|source| self.failed("write", source))?;
        Ok(())
    }

    fn failed(&self, operation: &'static str, source: io::Error) -> Error {
        failed(operation, &self.path, source)
    }
}

fn path_in(state_dir: &Path) -> PathBuf {
    state_dir.join("ledger.jsonl")
}

fn failed(operation: &'static str, path: &Path, source: io::Error) -> Error {
    Error { operation, path: path.to_owned(), source }
}

fn write_line(text: &mut Vec<u8>, record: &Record) -> io::Result<()> {
    serde_json::to_writer(&mut *text, record)?;
    text.push(b'\n');
    Ok(())
}

/// What a log says.
#[derive(Default)]
struct Replayed {
    owned: Owned,
    lines: usize,
    /// Lines of another version, as they are.
    unknown: Vec<u8>,
}

fn replay(file: File) -> io::Result<Replayed> {
    let mut replayed = Replayed::default();
    for line in BufReader::new(file).split(b'\n') {
        let line = line?;
        replayed.lines += 1;
        match serde_json::from_slice(&line) {
            Ok(record) => drop(replayed.owned.take(record)),
            // One that a crash cut short is no object.
            Err(_) if serde_json::from_slice::<serde_json::Map<_, _>>(&line).is_ok() => {
                replayed.unknown.extend(line);
                replayed.unknown.push(b'\n');
            }
            Err(_) => {}
        }
    }
    Ok(replayed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Protocol;

    fn server(port: u16, service: Option<&str>) -> Record {
        Record::VirtualServer {
            frontend: Frontend { addr: [10, 96, 0, 1].into(), port, protocol: Protocol::Tcp },
            service: service.map(str::to_owned),
        }
    }

    #[test]
    fn what_was_recorded_is_there_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(directory.path()).unwrap();
        ledger.record([server(80, Some("a")), server(81, Some("b"))]).unwrap();
        ledger.record([server(80, None), Record::NatTable { owned: true }]).unwrap();
        let before = ledger.owned().clone();
        drop(ledger);
        assert_eq!(Owned::read(directory.path()).unwrap(), before);
        assert_eq!(Ledger::open(directory.path()).unwrap().owned(), &before);
        assert_eq!(before.virtual_servers.len(), 1);
    }

    #[test]
    fn addresses_are_remembered_by_device_in_few_lines() {
        let directory = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(directory.path()).unwrap();
        let addrs = |range: std::ops::Range<u32>| -> Vec<IpAddr> {
            range.map(|last| std::net::Ipv4Addr::from(0x0a60_0000 + last).into()).collect()
        };
        let record = |range, owned| Record::Addresses {
            device: "kube-ipvs0".into(),
            addrs: addrs(range),
            owned,
        };
        ledger.record([record(0..50_000, true)]).unwrap();
        for _ in 0..100 {
            ledger.record([record(10..20, false), record(10..15, true)]).unwrap();
        }
        let text = fs::read_to_string(path_in(directory.path())).unwrap();
        assert!(text.lines().count() <= 201, "{} lines", text.lines().count());
        drop(ledger);
        let mut ledger = Ledger::open(directory.path()).unwrap();
        assert_eq!(ledger.owned().addresses["kube-ipvs0"].len(), 50_000 - 5);
        ledger.record([record(0..50_000, false)]).unwrap();
        assert!(Owned::read(directory.path()).unwrap().is_empty());
    }

    #[test]
    fn a_line_cut_short_is_ignored_and_swallows_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(directory.path()).unwrap();
        ledger.record([server(80, Some("a")), server(81, Some("b"))]).unwrap();
        drop(ledger);
        let path = path_in(directory.path());
        let text = fs::read(&path).unwrap();
        fs::write(&path, &text[..text.len() - 9]).unwrap();
        let mut ledger = Ledger::open(directory.path()).unwrap();
        assert_eq!(ledger.owned().virtual_servers.len(), 1);
        ledger.record([server(82, Some("c"))]).unwrap();
        drop(ledger);
        assert_eq!(Owned::read(directory.path()).unwrap().virtual_servers.len(), 2);
    }

    #[test]
    fn what_a_newer_version_wrote_is_kept_for_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = path_in(directory.path());
        let newer = "{\"object\":\"hologram\",\"name\":\"a\"}\n";
        fs::write(&path, newer).unwrap();
        for port in [80, 81] {
            let mut ledger = Ledger::open(directory.path()).unwrap();
            ledger.record([server(port, Some("a"))]).unwrap();
        }
        drop(Ledger::open(directory.path()).unwrap());
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.matches(newer).count(), 1, "{text}");
        assert_eq!(Owned::read(directory.path()).unwrap().virtual_servers.len(), 2);
    }

    #[test]
    fn the_first_value_of_a_sysctl_is_the_one_to_restore() {
        let directory = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(directory.path()).unwrap();
        let key = "net.netfilter.nf_conntrack_udp_timeout";
        for (previous, written) in [("30", "60"), ("60", "90")] {
            let change = SysctlChange { previous: previous.into(), written: written.into() };
            ledger.record([Record::Sysctl { key: key.into(), change: Some(change) }]).unwrap();
        }
        drop(ledger);
        // What a configuration asks for may change, so the value written last counts.
        let expected = SysctlChange { previous: "30".into(), written: "90".into() };
        let mut ledger = Ledger::open(directory.path()).unwrap();
        assert_eq!(ledger.owned().sysctls[key], expected);
        ledger.record([Record::Sysctl { key: key.into(), change: None }]).unwrap();
        assert!(Owned::read(directory.path()).unwrap().is_empty());
    }

    #[test]
    fn the_first_timeouts_of_ipvs_are_the_ones_to_restore() {
        let directory = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(directory.path()).unwrap();
        let timeouts = |tcp_secs| Timeouts { tcp_secs, tcp_fin_secs: 120, udp_secs: 300 };
        for (previous, written) in [(900, 1000), (1000, 1100)] {
            let change =
                TimeoutsChange { previous: timeouts(previous), written: timeouts(written) };
            ledger.record([Record::IpvsTimeouts { change: Some(change) }]).unwrap();
        }
        drop(ledger);
        let expected = TimeoutsChange { previous: timeouts(900), written: timeouts(1100) };
        let mut ledger = Ledger::open(directory.path()).unwrap();
        assert_eq!(ledger.owned().ipvs_timeouts, Some(expected));
        ledger.record([Record::IpvsTimeouts { change: None }]).unwrap();
        assert!(Owned::read(directory.path()).unwrap().is_empty());
    }

    #[test]
    fn a_sync_daemon_is_ours_until_it_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(directory.path()).unwrap();
        let record = |owned| Record::SyncDaemon { interface: "lo".into(), id: 7, owned };
        ledger.record([record(true)]).unwrap();
        drop(ledger);
        let mut ledger = Ledger::open(directory.path()).unwrap();
        assert_eq!(ledger.owned().sync_daemons, [("lo".to_owned(), 7)].into());
        ledger.record([record(false)]).unwrap();
        assert!(Owned::read(directory.path()).unwrap().is_empty());
    }

    #[test]
    fn the_log_stays_short_however_often_a_server_comes_and_goes() {
        let directory = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(directory.path()).unwrap();
        for _ in 0..10_000 {
            ledger.record([server(80, Some("a"))]).unwrap();
            ledger.record([server(80, None)]).unwrap();
        }
        let lines = fs::read_to_string(path_in(directory.path())).unwrap().lines().count();
        assert!(lines <= COMPACT_ABOVE + 1, "{lines} lines for no object");
    }
}
