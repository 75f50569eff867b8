//! The other end of a veth on which XDP transmits.
//!
//! What it transmits waits there until something else comes, unless a program is there, too
//! (`veth_xdp_flush`, `drivers/net/veth.c`): NICs do not do that.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use proxy_userspace::kernel::bpf::{Datapath, LoadOptions, PinDirectory};
use serde_json::Value;

use crate::netns::Namespace;

/// A program at the `eth0` of a host that passes everything on: our own, without an uplink.
#[derive(Debug)]
pub struct Polling {
    pins: PinDirectory,
}

impl Polling {
    /// Puts the program there, pinned in a directory of its own.
    pub fn at(host: &Namespace, bpffs: PathBuf) -> Result<Self> {
        let polling = Self { pins: PinDirectory::at(&bpffs) };
        let text = host.run("ip", &["-j", "link", "show", "eth0"])?;
        let links: Value = serde_json::from_str(&text)?;
        let index = links[0]["ifindex"].as_u64().context("no ifindex")?;
        host.enter(|| {
            let mut datapath = Datapath::load(&LoadOptions {
                bpffs,
                flow_entries: 1024,
                ipv6: true,
                install_rate: u32::MAX,
                soft_lease: Duration::from_secs(3),
                hard_lease: Duration::from_secs(5),
                log: false,
            })?;
            Ok(datapath.attach_transit("eth0", index as u32)?)
        })?;
        Ok(polling)
    }
}

impl Drop for Polling {
    fn drop(&mut self) {
        if let Err(error) = self.pins.remove_pins() {
            eprintln!("pins of a host: {error}");
        }
    }
}
