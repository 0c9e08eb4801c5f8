//! `/v1/drain` and `/v1/reload`: what an operator wants of the whole process.

use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use futures_channel::oneshot;
use serde_json::{Value, json};

use super::access::audited;
use super::{Fault, Shared};
use crate::config::Change;
use crate::control::app::Wish;

/// Begins to drain, as SIGTERM does, and answers before it is over. A second call changes nothing.
pub(super) async fn drain(State(app): State<Shared>) -> Result<Response, Fault> {
    let begun = !app.draining.swap(true, Ordering::Relaxed);
    if begun && !app.wishes.put(Wish::Drain) {
        return Err(Fault::draining());
    }
    let settings = &app.config().settings;
    let answer = json!({
        "begun": begun,
        "connections": app.links.iter().map(|link| link.stats.connections.get()).sum::<u64>(),
        "grace_ms": settings.drain_grace_ms,
        "window_ms": settings.drain_window_ms,
        "ms_max": settings.drain_ms_max,
    });
    let result = format!("begun {begun}");
    Ok(audited((StatusCode::ACCEPTED, Json(answer)), "drain", result))
}

/// Reads the configuration anew, as SIGHUP does, and answers with what changed. A broken one changes nothing.
pub(super) async fn reload(State(app): State<Shared>) -> Result<Response, Fault> {
    let (answer, answered) = oneshot::channel();
    let draining = app.draining.load(Ordering::Relaxed);
    if draining || !app.wishes.put(Wish::Reload(Some(answer))) {
        return Err(Fault::no_reload());
    }
    // Whoever drains drops the wish.
    let reload = answered.await.map_err(|oneshot::Canceled| Fault::no_reload())?;
    let reload = reload.map_err(Fault::broken_configuration)?;
    let result = format!("applied {}, needs_restart {}", reload.applied.len(), reload.restart.len());
    let answer = json!({ "applied": changes(&reload.applied), "needs_restart": changes(&reload.restart) });
    Ok(audited(Json(answer), "reload", result))
}

fn changes(changes: &[Change]) -> Vec<Value> {
    changes.iter().map(|Change { key, old, new }| json!({ "key": key, "old": old, "new": new })).collect()
}
