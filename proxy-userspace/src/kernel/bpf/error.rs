//! What can go wrong with BPF, said with the object and the cure.

use std::{io, path::PathBuf};

use super::pins::PinMismatch;

/// An error of the BPF side. None of them touches forwarding: without the fast path the slow path
/// does everything.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory for pins cannot be made or is on no bpffs.
    #[error("prepare pin directory {path}: mount a bpffs there (mount -t bpf bpf /sys/fs/bpf)")]
    PinDirectory {
        /// The directory.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// A pinned map has another layout and is not in the ledger.
    #[error("reuse pinned map {}: {}; remove the pin, or start with another --bpffs", .0.path.display(), .0)]
    PinMismatch(Box<PinMismatch>),
    /// The kernel refused the object.
    #[error("load the BPF object: run `passlane doctor` for what this kernel lacks")]
    Load(#[source] Box<aya::EbpfError>),
    /// The object lacks a program or map that this build expects.
    #[error("the BPF object has no {kind} {name}: rebuild with `cargo xtask build-ebpf`")]
    Missing {
        /// `program` or `map`.
        kind: &'static str,
        /// Its name.
        name: &'static str,
    },
    /// A program was refused.
    #[error("{operation} program {program} on {interface}")]
    Program {
        /// `load`, `attach`, `replace` or `query`.
        operation: &'static str,
        /// Program name.
        program: &'static str,
        /// Interface name, or `-`.
        interface: String,
        /// Cause.
        source: Box<aya::programs::ProgramError>,
    },
    /// A link or its pin was refused.
    #[error("{operation} link {path}")]
    Link {
        /// `pin`, `open` or `unpin`.
        operation: &'static str,
        /// The pin.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// A map operation was refused.
    #[error("{operation} map {map}")]
    Map {
        /// `open`, `read`, `put` or `remove`.
        operation: &'static str,
        /// Map name.
        map: &'static str,
        /// Cause.
        source: Box<aya::maps::MapError>,
    },
    /// The kernel did not walk through a map.
    #[error("walk through the maps of frontends and backends: {maps} refused")]
    Unwalked {
        /// So many of them.
        maps: u64,
    },
    /// The tick of the kernel's clock cannot be read.
    #[error("read the resolution of CLOCK_MONOTONIC_COARSE: it is {nanoseconds} ns, no tick")]
    Tick {
        /// What the kernel answered.
        nanoseconds: i64,
    },
}
