//! Answers of health checks: JSON, never guessed to be anything else.

use axum::{
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use crate::kernel::kube_proxy::live::SERVER;

/// Makes an answer of status 200 or 503.
pub(super) fn answer(healthy: bool, body: &impl Serialize) -> Response {
    let status = if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    // Bodies are structs of strings and numbers, which always have a JSON form.
    let body = serde_json::to_string(body).unwrap_or_default();
    let headers: [(HeaderName, HeaderValue); 3] = [
        // Who looks for a kube-proxy at this port knows by it that there is none.
        (header::SERVER, HeaderValue::from_static(SERVER)),
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    (status, headers, body).into_response()
}
