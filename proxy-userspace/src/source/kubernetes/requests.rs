//! Requests to the API server, counted as client-go counts them.

use std::time::Duration;

use http::{Request, StatusCode};

use crate::tally::{Counter, Histogram, Table};

/// client-go's upper ends of the seconds until an answer begins.
pub const BUCKETS: &[f64] = &[0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0];

/// What is counted of requests. There is a handful of methods, codes and hosts.
#[derive(Debug)]
pub struct Requests {
    /// By code, method and host. The code is `<error>` when there was no answer.
    pub answers: Table<(String, String, String), Counter>,
    /// By method and host.
    pub durations: Table<(String, String), Histogram>,
}

impl Default for Requests {
    fn default() -> Self {
        Self {
            answers: Table::new(Counter::default),
            durations: Table::new(|| Histogram::new(BUCKETS)),
        }
    }
}

impl Requests {
    /// Counts a request that was answered with a status, or not at all.
    pub(super) fn count(&self, asked: &Asked, status: Option<StatusCode>, took: Duration) {
        let Asked { method, host } = asked;
        let code = status.map_or_else(|| "<error>".to_owned(), |status| status.as_str().to_owned());
        self.answers.add(&(code, method.clone(), host.clone()), 1);
        self.durations.of(&(method.clone(), host.clone())).observe(took);
    }
}

/// What a request is counted under.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    method: String,
    host: String,
}

impl Asked {
    /// Reads it off a request to the API server of this address.
    pub(super) fn of<B>(request: &Request<B>, address: &http::Uri) -> Self {
        let port = address.port_u16().map(|port| format!(":{port}")).unwrap_or_default();
        let host = format!("{}{port}", address.host().unwrap_or_default());
        Self { method: request.method().to_string(), host }
    }
}
