//! A link whose other end is this process: frames go in and come out as they are, with what NICs leave
//! to each other (checksums to be filled in, segments to be cut) beside them.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;

use anyhow::{Context as _, Result, ensure};
use rustix::fs::OFlags;
use rustix::ioctl::{Opcode, Setter, ioctl};

use crate::netns::Namespace;

/// `TUNSETIFF` of `linux/if_tun.h`.
const SET_INTERFACE: Opcode = 0x4004_54ca;
/// `IFF_TAP | IFF_NO_PI | IFF_VNET_HDR`.
const FLAGS: u16 = 0x0002 | 0x1000 | 0x4000;
/// Bytes of `struct ifreq`, and of the name at its beginning.
const REQUEST: usize = 40;
const NAME: usize = 16;
/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`.
const NEEDS_CHECKSUM: u8 = 1;
/// Bytes of `struct virtio_net_hdr`.
const OFFLOAD: usize = 10;

/// A TAP device. Dropping it removes the device.
#[derive(Debug)]
pub struct Tap {
    file: File,
}

/// What the sender of a frame leaves to the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offload {
    /// Nothing.
    None,
    /// The checksum of what begins at the first offset, to be put so many bytes behind it. Its place holds
    /// the sum of the pseudo header.
    Checksum(u16, u16),
    /// The same, and to cut TCP, over IPv6 or IPv4, into segments: bytes of all headers, and of payload
    /// each.
    Segments(bool, u16, u16, [u16; 2]),
}

impl Offload {
    /// As `linux/virtio_net.h` has it.
    fn header(self) -> [u8; OFFLOAD] {
        const TCP_OVER_IPV4: u8 = 1;
        const TCP_OVER_IPV6: u8 = 4;
        let (kind, fields) = match self {
            Self::None => ([0, 0], [0; 4]),
            Self::Checksum(start, offset) => ([NEEDS_CHECKSUM, 0], [0, 0, start, offset]),
            Self::Segments(ipv6, start, offset, [headers, size]) => {
                let kind = if ipv6 { TCP_OVER_IPV6 } else { TCP_OVER_IPV4 };
                ([NEEDS_CHECKSUM, kind], [headers, size, start, offset])
            }
        };
        let mut bytes = [0; OFFLOAD];
        bytes[..2].copy_from_slice(&kind);
        for (place, field) in bytes[2..].chunks_exact_mut(2).zip(fields) {
            place.copy_from_slice(&field.to_ne_bytes());
        }
        bytes
    }
}

impl Tap {
    /// Makes a device of this name in a namespace. It is down.
    pub fn open(namespace: &Namespace, name: &str) -> Result<Self> {
        namespace.enter(|| Self::open_here(name))
    }

    /// The same in the namespace of the calling thread.
    pub fn open_here(name: &str) -> Result<Self> {
        ensure!(name.len() < NAME, "{name} is too long for an interface");
        let mut request = [0; REQUEST];
        request[..name.len()].copy_from_slice(name.as_bytes());
        request[NAME..NAME + 2].copy_from_slice(&FLAGS.to_ne_bytes());
        let make = || {
            let flags = OFlags::NONBLOCK.bits().cast_signed();
            let mut options = File::options();
            let file = options.read(true).write(true).custom_flags(flags).open("/dev/net/tun")?;
            // SAFETY: this request reads a `struct ifreq` of that size, and writes its name only,
            // which is why nobody needs it afterwards.
            unsafe { ioctl(&file, Setter::<SET_INTERFACE, [u8; REQUEST]>::new(request))? };
            anyhow::Ok(file)
        };
        Ok(Self { file: make().with_context(|| format!("TAP device {name}"))? })
    }

    /// Puts a frame in. When this returns, the node has done with it all that waits for nothing.
    pub fn send(&mut self, frame: &[u8], offload: Offload) -> Result<()> {
        let bytes = [&offload.header()[..], frame].concat();
        let sent = self.file.write(&bytes).context("send a frame")?;
        ensure!(sent == bytes.len(), "{sent} of {} bytes were taken", bytes.len());
        Ok(())
    }

    /// Takes out a frame, if there is one.
    pub fn receive(&mut self) -> Result<Option<Vec<u8>>> {
        let mut bytes = vec![0; 70_000];
        match self.file.read(&mut bytes) {
            Ok(length) => {
                bytes.truncate(length);
                ensure!(length > OFFLOAD, "a frame of {length} bytes");
                // That a checksum was looked at may be said.
                let left = [bytes[0] & NEEDS_CHECKSUM, bytes[1]];
                ensure!(left == [0, 0], "nobody said that this end could do that");
                Ok(Some(bytes.split_off(OFFLOAD)))
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error).context("receive a frame"),
        }
    }
}
