//! `/metrics`, `/proxyMode`, `/healthz` and `/configz`, on a thread of its own.

use std::{io, net::SocketAddr, sync::Arc, time::Instant};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::any,
};
use tokio::runtime::Runtime;

use super::{
    collect::collect,
    kernel::{Kernel, Places},
    names,
    reader::{Read, Reader},
    recorder::Recorder,
    scrape::{Format, Samples},
};
use crate::{
    config::Settings,
    health::{
        Problem,
        gate::{Budget, Gate},
    },
    kernel::kube_proxy::live::SERVER,
};

/// The server. It ends with this value.
#[derive(Debug)]
pub struct MetricsServer {
    gate: Gate,
    /// Runs the gate's connections, apart from the loop.
    runtime: Option<Runtime>,
}

/// What the routes answer from.
#[derive(Debug)]
struct Exporter {
    recorder: Arc<Recorder>,
    reader: Reader,
    config: String,
}

impl MetricsServer {
    /// Opens the port, at once or as soon as it can be, in the network namespace of the calling
    /// thread.
    ///
    /// # Errors
    ///
    /// There are no threads to be had.
    pub fn open(
        addr: SocketAddr,
        recorder: Arc<Recorder>,
        settings: &Settings,
    ) -> io::Result<Self> {
        let places = Places::from(settings);
        let reader = Reader::start(move || Kernel::new(places))?;
        let exporter = Arc::new(Exporter { recorder, reader, config: config(settings) });
        Self::serve(addr, exporter)
    }

    fn serve(addr: SocketAddr, exporter: Arc<Exporter>) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("metrics")
            .enable_all()
            .build()?;
        let router = Router::new()
            .route("/metrics", any(metrics))
            .route("/proxyMode", any(|| async { ([(header::SERVER, SERVER)], "ipvs") }))
            .route("/healthz", any(|| async { "ok" }))
            .route("/configz", any(configz))
            .with_state(exporter);
        let within = runtime.enter();
        let gate = Gate::open(addr, "/metrics", router, Budget::new());
        drop(within);
        Ok(Self { gate, runtime: Some(runtime) })
    }

    /// Returns why the port is not open; `None` while it is.
    pub fn problem(&self) -> Option<Problem> {
        self.gate.failure().map(|(addr, cause)| Problem::MetricsNotListening { addr, cause })
    }
}

impl Drop for MetricsServer {
    fn drop(&mut self) {
        // To wait for its threads is not allowed within another runtime.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Read for Kernel {
    async fn read(&mut self) -> (Samples, bool) {
        self.read().await
    }
}

/// The configuration in force, as a file for `--config`, under kube-proxy's name.
fn config(settings: &Settings) -> String {
    let shown = settings.without_secrets().to_value();
    serde_json::json!({ "kubeproxy.config.k8s.io": shown }).to_string()
}

async fn metrics(State(exporter): State<Arc<Exporter>>, headers: HeaderMap) -> Response {
    let accept: Vec<&str> =
        headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let format = Format::accepted(Some(&accept.join(",")));
    match exporter.samples().await.encode(format) {
        Ok(text) => ([(header::CONTENT_TYPE, format.content_type())], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn configz(State(exporter): State<Arc<Exporter>>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], exporter.config.clone()).into_response()
}

impl Exporter {
    async fn samples(&self) -> Samples {
        let reading = self.reader.reading().await;
        let mut samples = Samples::default();
        collect(&self.recorder, &mut samples);
        let whole = reading.as_ref().is_some_and(|reading| reading.whole);
        samples.put(&names::READY, ["metrics"], whole);
        if let Some(reading) = reading {
            samples.extend(&reading.samples);
            samples.put(&names::READING_DURATION, [], reading.took.as_secs_f64());
            let age = Instant::now().saturating_duration_since(reading.at);
            samples.put(&names::READING_AGE, [], age.as_secs_f64());
        }
        for (outcome, count) in self.reader.readings.entries().iter() {
            samples.put(&names::READINGS, [outcome], count.value());
        }
        for (what, count) in self.reader.scrapes.entries().iter() {
            samples.put(&names::SCRAPES, [what], count.value());
        }
        samples
    }
}

#[cfg(test)]
mod tests;
