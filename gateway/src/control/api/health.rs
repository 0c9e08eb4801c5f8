//! What probes and scrapers ask.

use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::{Fault, Shared};

/// `GET /healthz`: control answers.
pub(super) async fn alive() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

/// `GET /readyz`: the gateway takes connections.
pub(super) async fn ready(State(app): State<Shared>) -> Result<Json<Value>, Fault> {
    if app.draining.load(Ordering::Relaxed) { Err(Fault::draining()) } else { Ok(Json(json!({ "status": "ready" }))) }
}

/// `GET /metrics`
pub(super) async fn metrics(State(app): State<Shared>) -> Response {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, OPEN_METRICS)], crate::control::metrics::render(&app)).into_response()
}
