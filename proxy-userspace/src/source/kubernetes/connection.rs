//! The connection to the API server: several addresses, one in use, credentials that are renewed.
//!
//! kube's client has one address and one way to log in. Here each request goes to the client of
//! the address in use; an address that does not answer, or answers that it cannot serve, is left
//! for the next one, and credentials that are refused are read anew.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderValue, Request, Response, StatusCode, Uri, header::AUTHORIZATION};
use hyper_util::{
    client::legacy::{Client as HttpClient, connect::HttpConnector},
    rt::TokioExecutor,
};
use kube::{
    Client,
    client::{Body, ConfigExt},
};
use tokio::{
    sync::{Mutex, mpsc},
    time::timeout,
};
use tower::{BoxError, ServiceBuilder, ServiceExt as _, service_fn};
use tracing::{info, warn};

use super::{
    follow::Report,
    login::{self, Login, LoginError},
    merge::Told,
    pace::Pace,
    requests::{Asked, Requests},
    silence::{Heard, Limits},
};
use crate::{chain::chain, source::convert::Kind};

/// An address that does not take a TCP connection in this time is left for the next one.
const CONNECT: Duration = Duration::from_secs(5);
/// A peer that acknowledges nothing for this long is gone: a watch that hears nothing would wait
/// for minutes.
const SILENCE: Duration = Duration::from_secs(30);
/// The token file is read anew after this long; it is renewed long before it expires.
const TOKEN_AGE: Duration = Duration::from_secs(30);

/// A connection that all watches share.
#[derive(Debug)]
pub(super) struct Connection {
    login: Login,
    addresses: Vec<Uri>,
    pace: Pace,
    limits: Limits,
    used: Mutex<Used>,
    requests: Arc<Requests>,
}

/// What is in use.
#[derive(Debug, Default)]
struct Used {
    /// Index of the address.
    address: usize,
    /// Its client, made when it is first needed.
    client: Option<Made>,
    /// Counts clients, so that only the first of several failed requests acts.
    generation: u64,
    /// Says once what happens with refused credentials.
    refused: bool,
}

#[derive(Clone)]
struct Made {
    client: Client,
    address: Uri,
    token: Option<Token>,
}

impl std::fmt::Debug for Made {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Made").finish_non_exhaustive()
    }
}

#[derive(Clone)]
struct Token {
    file: PathBuf,
    header: HeaderValue,
    read_at: Instant,
}

impl Connection {
    /// Reads where the API servers are; connects when first used.
    pub(super) async fn new(
        login: Login,
        pace: Pace,
        limits: Limits,
    ) -> Result<Arc<Self>, LoginError> {
        let addresses = login.addresses().await?;
        let (used, requests) = Default::default();
        Ok(Arc::new(Self { login, addresses, pace, limits, used, requests }))
    }

    /// Returns all addresses, in the order they are tried.
    pub(super) fn addresses(&self) -> &[Uri] {
        &self.addresses
    }

    /// Returns what is counted of requests.
    pub(super) fn requests(&self) -> Arc<Requests> {
        Arc::clone(&self.requests)
    }

    /// Returns the address in use.
    pub(super) async fn address(&self) -> String {
        let used = self.used.lock().await;
        self.address_of(&used).to_string()
    }

    /// Returns a client whose requests go to the address in use. Every good answer is told to
    /// `answered`, as one to the watch of that kind.
    pub(super) fn client(
        self: &Arc<Self>,
        answered: Option<(mpsc::Sender<Report>, Kind)>,
    ) -> Client {
        let connection = Arc::clone(self);
        let service = service_fn(move |request: Request<Body>| {
            let connection = Arc::clone(&connection);
            let answered = answered.clone();
            async move {
                let response = connection.send(request).await?;
                if let Some((tell, kind)) = answered
                    && response.status().is_success()
                {
                    // Nobody listens any more when the source ends.
                    let _ = tell.send((kind, Ok(Told::Answered))).await;
                }
                Ok::<_, BoxError>(response)
            }
        });
        Client::new(service, "default")
    }

    async fn send(
        self: &Arc<Self>,
        mut request: Request<Body>,
    ) -> Result<Response<Heard<Body>>, BoxError> {
        // The later pages of a list belong to its first request.
        if !request.uri().query().is_some_and(|query| query.contains("continue=")) {
            self.pace.wait().await;
        }
        let (made, generation) = self.made().await?;
        if let Some(token) = &made.token {
            request.headers_mut().insert(AUTHORIZATION, token.header.clone());
        }
        let (asked, started) = (Asked::of(&request, &made.address), Instant::now());
        let is_watch = request.uri().query().is_some_and(|query| query.contains("watch="));
        let Limits { answer: limit, list, watch, .. } = self.limits;
        let answer = timeout(limit, made.client.send(request)).await;
        let answer = answer.unwrap_or_else(|_| Err(no_answer("answer", limit)));
        let status = answer.as_ref().ok().map(Response::status);
        self.requests.count(&asked, status, started.elapsed());
        match answer {
            Ok(response) => {
                if response.status() == StatusCode::UNAUTHORIZED {
                    self.renew_credentials(generation).await;
                } else if response.status().is_server_error() {
                    self.leave(generation, &response.status().to_string()).await;
                } else if response.status().is_success() {
                    self.used.lock().await.refused = false;
                }
                Ok(self.heard(response, if is_watch { watch } else { list }, generation))
            }
            Err(error) => {
                self.leave(generation, &chain(&error)).await;
                Err(error.into())
            }
        }
    }

    /// Returns the answer so that it ends when it goes silent for so long. The address is left then.
    fn heard(
        self: &Arc<Self>,
        response: Response<Body>,
        limit: Duration,
        generation: u64,
    ) -> Response<Heard<Body>> {
        let connection = Arc::clone(self);
        let given_up = move || {
            let left = async move { connection.leave(generation, "it went silent").await };
            drop(tokio::spawn(left));
        };
        response.map(|body| Heard::new(body, limit, given_up))
    }

    /// Returns the client of the address in use, with a token that is fresh enough.
    async fn made(&self) -> Result<(Made, u64), LoginError> {
        let mut used = self.used.lock().await;
        let mut made = match used.client.take() {
            Some(made) => made,
            None => {
                used.generation += 1;
                self.make(self.address_of(&used).clone()).await?
            }
        };
        if let Some(token) = &mut made.token
            && token.read_at.elapsed() > TOKEN_AGE
        {
            // A token that cannot be read now may still be good.
            if let Ok(header) = login::bearer(&token.file).await {
                token.header = header;
            }
            token.read_at = Instant::now();
        }
        used.client = Some(made.clone());
        Ok((made, used.generation))
    }

    async fn make(&self, address: Uri) -> Result<Made, LoginError> {
        let mut config = self.login.config().await?;
        let text = address.to_string();
        config.cluster_url = address.clone();
        let token = match config.auth_info.token_file.take() {
            // As in every client of Kubernetes, a token goes before a token file.
            Some(file) if config.auth_info.token.is_none() => {
                let file = PathBuf::from(file);
                let header = login::bearer(&file).await?;
                Some(Token { file, header, read_at: Instant::now() })
            }
            _ => None,
        };
        let client = client_of(&config, self.limits.connect)
            .map_err(|source| LoginError::Client { address: text, source: Box::new(source) })?;
        Ok(Made { client, address, token })
    }

    /// Goes on to the next address, once for all requests of one client that failed.
    async fn leave(&self, generation: u64, why: &str) {
        let mut used = self.used.lock().await;
        if used.generation != generation || used.client.take().is_none() {
            return;
        }
        let left = self.address_of(&used).clone();
        used.address = (used.address + 1) % self.addresses.len();
        if self.addresses.len() > 1 {
            let next = self.address_of(&used);
            warn!(event = "api_server_left", %left, %next, "the API server failed: {why}");
        }
    }

    /// Forgets the client, so that the next request reads token and certificates anew.
    async fn renew_credentials(&self, generation: u64) {
        let mut used = self.used.lock().await;
        if used.generation != generation {
            return;
        }
        used.client = None;
        if !used.refused {
            used.refused = true;
            info!(event = "credentials_refused", "token and certificates are read anew");
        }
    }

    fn address_of(&self, used: &Used) -> &Uri {
        &self.addresses[used.address]
    }
}

/// Makes a client as kube does, with a connection that notices a dead peer, and without its own
/// retries and logs: the watches have theirs.
fn client_of(config: &kube::Config, limit: Duration) -> Result<Client, kube::Error> {
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(CONNECT));
    http.set_keepalive(Some(SILENCE / 2));
    http.set_keepalive_interval(Some(SILENCE / 6));
    http.set_keepalive_retries(Some(3));
    http.set_tcp_user_timeout(Some(SILENCE));
    let https = config.rustls_https_connector_with_connector(http)?;
    // A server that hangs takes TCP connections all the same, and never says hello.
    let connector = service_fn(move |address: Uri| {
        let connecting = https.clone().oneshot(address);
        Box::pin(async move {
            let connected = timeout(limit, connecting).await;
            connected.unwrap_or_else(|_| Err(no_answer("connection", limit).into()))
        })
    });
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(HttpClient::builder(TokioExecutor::new()).build::<_, Body>(connector));
    Ok(Client::new(service, "default"))
}

fn no_answer(what: &str, limit: Duration) -> kube::Error {
    kube::Error::Service(format!("no {what} within {} seconds", limit.as_secs_f32()).into())
}

#[cfg(test)]
mod tests;
