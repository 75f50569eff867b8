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
