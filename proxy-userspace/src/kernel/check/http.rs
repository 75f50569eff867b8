//! A GET, of which only the status is read.

use std::{error::Error as _, net::SocketAddr};

use hyper::{Request, body::Incoming, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use super::{Failure, tls};
use crate::model::Get;

/// Bytes of a status line and its headers; the least that hyper takes.
const HEAD_BYTES: usize = 8192;

/// Asks, and returns what there is to say of a status that is well.
pub(super) async fn get(get: &Get, addr: SocketAddr) -> Result<String, Failure> {
    let stream = TcpStream::connect(addr).await.map_err(Failure::Connect)?;
    let host = get.host.clone().unwrap_or_else(|| addr.to_string());
    let answer = if get.tls {
        ask(tls::connect(stream, &host, addr).await?, &get.path, &host).await?
    } else {
        ask(stream, &get.path, &host).await?
    };
    let found = answer.status().as_u16();
    match get.accepts(found) {
        true => Ok(format!("status {found}")),
        false => Err(Failure::Status { found, wanted: get.accepted() }),
    }
}

async fn ask<S>(stream: S, path: &str, host: &str) -> Result<hyper::Response<Incoming>, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let failed = |error: hyper::Error| match error.source() {
        Some(cause) => Failure::Http(format!("{error}: {cause}")),
        None => Failure::Http(error.to_string()),
    };
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEAD_BYTES);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let request = Request::get(path)
        .header(header::HOST, host)
        .header(header::USER_AGENT, concat!("passlane/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close")
        .body(String::new())
        .map_err(|error| Failure::Http(error.to_string()))?;
    let answer = sender.send_request(request);
    tokio::pin!(answer, connection);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        // What it has read it has handed over.
        ended = &mut connection => match ended {
            Ok(()) => answer.await,
            Err(error) => Err(error),
        },
    }
    .map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::TcpListener,
        thread::{self, JoinHandle},
        time::Duration,
    };

    use super::super::{Subject, once};
    use super::*;
    use crate::model::Probe;

    /// Answers once with these bytes, and returns what was asked.
    fn server(answer: &'static [u8]) -> (SocketAddr, JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let asked = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = vec![0; 4096];
            let read = stream.read(&mut request).unwrap();
            stream.write_all(answer).unwrap();
            request.truncate(read);
            String::from_utf8_lossy(&request).into_owned()
        });
        (addr, asked)
    }

    async fn ask(tls: bool, host: Option<&str>, answer: &'static [u8]) -> (String, String) {
        let (addr, asked) = server(answer);
        let (path, statuses) = ("/healthz?a=b".to_owned(), vec![(200, 204)]);
        let get = Get { tls, path, host: host.map(str::to_owned), statuses };
        let subject = Subject { addr, service: String::new() };
        let result = once(&Probe::Http(get), &subject, Duration::from_secs(20)).await;
        let asked = asked.join().unwrap().replace(&addr.to_string(), "ADDR");
        (result.unwrap_or_else(|failure| failure.to_string()), asked)
    }

    #[tokio::test]
    async fn a_status_that_is_asked_for_is_well_and_another_is_not() {
        let (said, asked) = ask(false, None, b"HTTP/1.1 204 none\r\n\r\n").await;
        assert_eq!(said, "status 204");
        assert!(asked.starts_with("GET /healthz?a=b HTTP/1.1\r\nhost: ADDR\r\n"), "{asked}");
        assert!(asked.contains("connection: close\r\n"), "{asked}");
        let (said, asked) = ask(false, Some("a.example"), b"HTTP/1.0 503 no\r\n\r\n").await;
        assert_eq!(said, "status 503, not 200-204");
        assert!(asked.contains("host: a.example\r\n"), "{asked}");
    }

    #[tokio::test]
    async fn what_is_no_http_and_no_tls_is_told() {
        let (said, _) = ask(false, None, b"SSH-2.0-OpenSSH\r\n\r\n").await;
        assert!(said.starts_with("HTTP: "), "{said}");
        let (said, _) = ask(false, None, b"").await;
        assert!(said.starts_with("HTTP: "), "{said}");
        let (said, asked) = ask(true, Some("a.example:8443"), b"HTTP/1.1 200 so\r\n\r\n").await;
        assert!(said.starts_with("TLS: "), "{said}");
        assert!(asked.contains("a.example") && !asked.contains("a.example:8443"), "{asked}");
    }

    #[tokio::test]
    async fn who_does_not_answer_in_time_is_late() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (path, statuses) = ("/".to_owned(), vec![(200, 200)]);
        let get = Get { tls: false, path, host: None, statuses };
        let subject = Subject { addr: listener.local_addr().unwrap(), service: String::new() };
        let result = once(&Probe::Http(get), &subject, Duration::from_millis(50)).await;
        assert_eq!(result.unwrap_err().to_string(), "no answer within 50 ms");
    }
}
