//! The developer page, in `--dev` only.

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use serde_json::{Value, json};

use super::{Route, Shared, get};
use crate::config::{Scope, Transport};

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const MODULE: &str = "text/javascript; charset=utf-8";

pub(super) fn routes() -> Vec<Route> {
    vec![
        get(Scope::Read, "/", || async { file(HTML, include_str!("../../../page/index.html")) }),
        get(Scope::Read, "/page.css", || async { file(CSS, include_str!("../../../page/page.css")) }),
        get(Scope::Read, "/page.js", || async { file(MODULE, include_str!("../../../page/page.js")) }),
        get(Scope::Read, "/goim.js", || async { file(MODULE, include_str!("../../../page/goim.js")) }),
        get(Scope::Read, "/dev.json", addresses),
    ]
}

fn file(kind: &'static str, text: &'static str) -> impl IntoResponse {
    // A page open in a browser over a restart must not keep an older script.
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-cache")], text)
}

/// Where the page finds the gateway.
async fn addresses(State(app): State<Shared>) -> Json<Value> {
    let at = |transport| app.bound.listeners.iter().position(|(other, _)| *other == transport);
    let websocket = at(Transport::Ws).map(|at| {
        let path = &app.config.settings.listener[at].path;
        format!("ws://{}{path}", app.bound.listeners[at].1)
    });
    let tcp = at(Transport::Tcp).map(|at| app.bound.listeners[at].1.to_string());
    Json(json!({ "websocket": websocket, "tcp": tcp, "api": format!("http://{}", app.bound.api) }))
}
