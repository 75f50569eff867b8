//! The head of an HTTP message: the part client and server share.

use std::io::{self, BufRead, ErrorKind};

/// Start line and the headers this harness looks at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) start: String,
    pub(super) content_length: u64,
    pub(super) close: bool,
}

/// Reads one head. `None` is a connection closed between messages.
///
/// `give_up` is asked whenever the stream's read timeout passes.
pub(super) fn read_head(
    stream: &mut impl BufRead,
    mut give_up: impl FnMut() -> bool,
) -> io::Result<Option<Head>> {
    let mut head = Head::default();
    loop {
        let line = read_line(stream, &mut give_up)?;
        let Some(line) = line else {
            let clean = head.start.is_empty();
            return if clean { Ok(None) } else { Err(ErrorKind::UnexpectedEof.into()) };
        };
        if head.start.is_empty() {
            head.start = line;
        } else if line.is_empty() {
            return Ok(Some(head));
        } else if let Some((name, value)) = line.split_once(':') {
            head.note(name, value.trim())?;
        }
    }
}

impl Head {
    fn note(&mut self, name: &str, value: &str) -> io::Result<()> {
        if name.eq_ignore_ascii_case("content-length") {
            self.content_length = value.parse().map_err(|_| ErrorKind::InvalidData)?;
        } else if name.eq_ignore_ascii_case("connection") {
            self.close = value.eq_ignore_ascii_case("close");
        }
        Ok(())
    }
}

fn read_line(
    stream: &mut impl BufRead,
    give_up: &mut impl FnMut() -> bool,
) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    loop {
        match stream.read_until(b'\n', &mut line) {
            Ok(0) if line.is_empty() => return Ok(None),
            Ok(_) if line.ends_with(b"\n") => break,
            Ok(_) => return Err(ErrorKind::UnexpectedEof.into()),
            Err(error) if is_timeout(&error) && !give_up() => {}
            Err(error) => return Err(error),
        }
    }
    let line = String::from_utf8_lossy(&line);
    Ok(Some(line.trim_end_matches(['\r', '\n']).to_owned()))
}

/// Whether a read ended because the stream's timeout passed.
pub(super) fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_says_how_long_the_body_is_and_whether_more_follows() {
        let mut text =
            &b"POST / HTTP/1.1\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"[..];
        let head = read_head(&mut text, || true).unwrap().unwrap();
        assert_eq!(head.start, "POST / HTTP/1.1");
        assert_eq!((head.content_length, head.close), (5, true));
        assert_eq!(text, b"hello");
    }

    #[test]
    fn a_connection_closed_between_messages_is_no_error() {
        assert_eq!(read_head(&mut &b""[..], || true).unwrap(), None);
        assert!(read_head(&mut &b"GET / HTTP/1.1\r\n"[..], || true).is_err());
    }
}
