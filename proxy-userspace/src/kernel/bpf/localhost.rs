//! The programs that send sockets to where a node port at a loopback address leads.
//!
//! They are attached to the root cgroup by pinned links, so they go on without the agent.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv6Addr},
    path::Path,
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{HashMap, Map, MapData},
    programs::{CgroupAttachMode, CgroupSockAddr, ProgramError, links::FdLink},
};
use proxy_common::abi::{LOCAL_PORTS, LOCALHOST_MAPS, LocalAddress, LocalPort, NAMESPACE_SETTING};

use super::{
    Error, PinDirectory,
    load::verified_instructions,
    maps::{Abi, absent_is_fine, failed},
    pins::ignore_missing,
};
use crate::model::{Frontend, Protocol};

/// The object that `cargo xtask build-ebpf` made.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/localhost.bpf.o"));

/// A program for each system call that names an address.
pub const PROGRAMS: [&str; 6] =
    ["recvmsg4", "recvmsg6", "sendmsg4", "sendmsg6", "connect4", "connect6"];

/// The programs, attached, and where the node ports lead.
pub struct Localhost {
    programs: Ebpf,
    ports: Ports,
}

impl Localhost {
    /// Loads the programs, for the sockets of one network namespace, and attaches them to a
    /// cgroup. What an earlier agent attached is replaced without a gap; its map is kept.
    ///
    /// # Errors
    ///
    /// [`Error::PinMismatch`] when a pin holds another map; everything the kernel refuses.
    pub fn attach(root: &Path, cgroup: &fs::File, namespace: u64) -> Result<Self, Error> {
        let pins = PinDirectory::prepare(root)?;
        let directory = pins.localhost();
        fs::create_dir_all(&directory)
            .map_err(|source| Error::PinDirectory { path: directory.clone(), source })?;
        if let Some(mismatch) = pins.localhost_mismatches().into_iter().next() {
            return Err(Error::PinMismatch(Box::new(mismatch)));
        }
        let mut loader = EbpfLoader::new();
        loader.btf(None).override_global(NAMESPACE_SETTING, &namespace, true);
        for spec in &LOCALHOST_MAPS {
            loader.map_pin_path(spec.name, directory.join(spec.name));
        }
        let mut programs = loader.load(OBJECT).map_err(|source| Error::Load(Box::new(source)))?;
        for name in PROGRAMS {
            attach(&mut programs, name, cgroup, &directory)?;
        }
        let ports = open_ports(&directory.join(LOCAL_PORTS.name))?;
        Ok(Self { programs, ports })
    }

    /// Returns how many instructions the verifier went through, by program (Linux 5.16).
    pub fn verified_instructions(&self) -> Vec<(String, u32)> {
        verified_instructions(&self.programs)
    }

    /// Returns where each node port leads.
    ///
    /// # Errors
    ///
    /// [`Error::Map`] when the map cannot be read.
    pub fn ports(&self) -> Result<BTreeMap<Frontend, Frontend>, Error> {
        read_ports(&self.ports)
    }

    /// The same from the pinned map, without programs of our own; `None` when there is none.
    ///
    /// # Errors
    ///
    /// As of [`Self::ports`].
    pub fn pinned_ports(
        pins: &PinDirectory,
    ) -> Result<Option<BTreeMap<Frontend, Frontend>>, Error> {
        let pin = pins.localhost().join(LOCAL_PORTS.name);
        match pin.exists() {
            true => read_ports(&open_ports(&pin)?).map(Some),
            false => Ok(None),
        }
    }

    /// Sends who dials a node port elsewhere.
    ///
    /// # Errors
    ///
    /// [`Error::Map`], also when the map is full.
    pub fn put(&mut self, frontend: &Frontend, to: &Frontend) -> Result<(), Error> {
        let value = LocalAddress { addr: mapped(to.addr), port: to.port, _pad: [0; 2] };
        let put = self.ports.insert(Abi(key(frontend)), Abi(value), 0);
        put.map_err(failed("put", LOCAL_PORTS.name))
    }

    /// Leaves who dials a node port alone; one that is absent is removed already.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn remove(&mut self, frontend: &Frontend) -> Result<(), Error> {
        let removed = absent_is_fine(self.ports.remove(&Abi(key(frontend))));
        removed.map_err(failed("remove", LOCAL_PORTS.name))
    }
}

/// Where node ports lead, by port, protocol and family.
type Ports = HashMap<MapData, Abi<LocalPort>, Abi<LocalAddress>>;

fn open_ports(pin: &Path) -> Result<Ports, Error> {
    let data = MapData::from_pin(pin).map_err(failed("open", LOCAL_PORTS.name))?;
    Map::HashMap(data).try_into().map_err(failed("open", LOCAL_PORTS.name))
}

fn read_ports(map: &Ports) -> Result<BTreeMap<Frontend, Frontend>, Error> {
    let mut ports = BTreeMap::new();
    for entry in map.iter() {
        let (Abi(port), Abi(to)) = entry.map_err(failed("read", LOCAL_PORTS.name))?;
        if let Some(protocol) = Protocol::from_number(port.protocol) {
            let addr = loopback(port.family == 6);
            let to = Frontend { addr: unmapped(to.addr), port: to.port, protocol };
            ports.insert(Frontend { addr, port: port.port, protocol }, to);
        }
    }
    Ok(ports)
}

/// Attaches a program beside the one of an earlier agent, and then takes its pin, which ends that
/// one: the second of two finds nothing to change.
fn attach(
    programs: &mut Ebpf,
    name: &'static str,
    cgroup: &fs::File,
    directory: &Path,
) -> Result<(), Error> {
    let refused = |operation, source| Error::Program {
        operation,
        program: name,
        interface: "-".into(),
        source: Box::new(source),
    };
    let program = match programs.program_mut(name).map(TryInto::try_into) {
        Some(Ok(program)) => program,
        _ => return Err(Error::Missing { kind: "program", name }),
    };
    let program: &mut CgroupSockAddr = program;
    program.load().map_err(|source| refused("load", source))?;
    let attached = program.attach(cgroup, CgroupAttachMode::Single);
    let id = attached.map_err(|source| refused("attach", source))?;
    let link = program.take_link(id).map_err(|source| refused("attach", source))?;
    let link: FdLink = link.try_into().map_err(|_| refused("attach", ProgramError::NotAttached))?;
    let (path, fresh) = (directory.join(name), directory.join(format!("{name}-new")));
    let failed = |source| Error::Link { operation: "pin", path: path.clone(), source };
    // One that a crash left.
    ignore_missing(fs::remove_file(&fresh)).map_err(failed)?;
    link.pin(&fresh).map_err(|source| failed(std::io::Error::other(source)))?;
    fs::rename(&fresh, &path).map_err(failed)
}

fn key(frontend: &Frontend) -> LocalPort {
    let family = if frontend.addr.is_ipv6() { 6 } else { 4 };
    LocalPort { port: frontend.port, protocol: frontend.protocol.number(), family }
}

fn loopback(ipv6: bool) -> IpAddr {
    if ipv6 { Ipv6Addr::LOCALHOST.into() } else { std::net::Ipv4Addr::LOCALHOST.into() }
}

fn mapped(addr: IpAddr) -> [u8; 16] {
    match addr {
        IpAddr::V4(addr) => addr.to_ipv6_mapped().octets(),
        IpAddr::V6(addr) => addr.octets(),
    }
}

fn unmapped(octets: [u8; 16]) -> IpAddr {
    let addr = Ipv6Addr::from(octets);
    addr.to_ipv4_mapped().map_or(addr.into(), IpAddr::from)
}
