//! What host and guest say to each other over one virtio port: type, length, bytes.
//!
//! One ordered channel instead of a port for each stream: the exit status cannot overtake output.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

/// Name of the virtio port.
pub(crate) const PORT: &str = "passlane";

/// Most bytes in one frame: what the virtio port takes in one write.
pub(crate) const MAX: usize = 32 * 1024 - HEADER;
const HEADER: usize = 5;

/// The kind of a frame; the value is its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Guest: init runs.
    Hello = b'H',
    /// Host: what to run, [`Start`] as JSON.
    Start = b'S',
    /// Host: bytes for the command's stdin.
    Input = b'I',
    /// Host: end of stdin.
    InputEnd = b'E',
    /// Guest: bytes of stdout.
    Stdout = b'O',
    /// Guest: bytes of stderr.
    Stderr = b'R',
    /// Guest: still alive.
    Alive = b'A',
    /// Guest: exit status in decimal; the last frame.
    Exit = b'X',
    /// Guest: init itself failed, with the reason; the last frame.
    Failed = b'F',
}

const KINDS: [Kind; 9] = [
    Kind::Hello,
    Kind::Start,
    Kind::Input,
    Kind::InputEnd,
    Kind::Stdout,
    Kind::Stderr,
    Kind::Alive,
    Kind::Exit,
    Kind::Failed,
];

/// What the guest shall run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Start {
    pub(crate) command: Vec<String>,
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) directory: String,
    /// The unpacked modules, to appear below /lib/modules.
    pub(crate) modules: String,
    pub(crate) terminal: Option<Size>,
}

/// Size of a terminal in characters.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Size {
    pub(crate) rows: u16,
    pub(crate) columns: u16,
}

/// Writes one frame, `bytes` at most [`MAX`] long, in one write.
pub(crate) fn write(to: &mut impl Write, kind: Kind, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    let mut frame = Vec::with_capacity(HEADER + bytes.len());
    frame.push(kind as u8);
    frame.extend(length.to_le_bytes());
    frame.extend(bytes);
    to.write_all(&frame)?;
    to.flush()
}

/// Reads one frame; none at the end of the stream.
pub(crate) fn read(from: &mut impl Read) -> io::Result<Option<(Kind, Vec<u8>)>> {
    let mut kind = [0];
    if from.read(&mut kind)? == 0 {
        return Ok(None);
    }
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    let kind = KINDS
        .into_iter()
        .find(|known| [*known as u8] == kind)
        .filter(|_| length <= 1 << 20)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not a frame"))?;
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes)?;
    Ok(Some((kind, bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_comes_back_as_written() {
        let mut wire = Vec::new();
        write(&mut wire, Kind::Stdout, b"\0\xff\n").unwrap();
        write(&mut wire, Kind::Exit, b"7").unwrap();
        let mut wire = wire.as_slice();
        assert_eq!(read(&mut wire).unwrap(), Some((Kind::Stdout, b"\0\xff\n".to_vec())));
        assert_eq!(read(&mut wire).unwrap(), Some((Kind::Exit, b"7".to_vec())));
        assert_eq!(read(&mut wire).unwrap(), None);
    }

    #[test]
    fn noise_is_an_error() {
        assert!(read(&mut b"?\0\0\0\0".as_slice()).is_err());
        assert!(read(&mut b"O\xff\xff\xff\xff".as_slice()).is_err());
    }
}
