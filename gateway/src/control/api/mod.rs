//! The HTTP API: one table of routes, and what every call passes before its handler.

mod aside;
mod body;
mod connections;
mod fault;
mod goim;
mod health;
mod nodes;
mod page;
mod params;
mod push;
mod rooms;
mod stats;

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::handler::Handler;
use axum::http::{Method, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{self, MethodRouter};
use axum::{Router, http::HeaderMap};

use super::app::App;
use crate::config::Auth;

pub(super) use fault::Fault;
pub use push::read_push;

/// What handlers share.
type Shared = Arc<App>;

/// Who may call a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Whoever has a token, or anybody if the configuration asks for none.
    Token,
    /// Anybody: probes have no token.
    Anybody,
}

/// One line of the table.
pub struct Route {
    /// The method.
    pub method: Method,
    /// The path, in axum's notation.
    pub path: &'static str,
    /// Who may call.
    pub access: Access,
    handler: MethodRouter<Shared>,
}

fn get<H: Handler<T, Shared>, T: 'static>(path: &'static str, handler: H) -> Route {
    Route { method: Method::GET, path, access: Access::Token, handler: routing::get(handler) }
}

fn post<H: Handler<T, Shared>, T: 'static>(path: &'static str, handler: H) -> Route {
    Route { method: Method::POST, path, access: Access::Token, handler: routing::post(handler) }
}

fn delete<H: Handler<T, Shared>, T: 'static>(path: &'static str, handler: H) -> Route {
    Route { method: Method::DELETE, path, access: Access::Token, handler: routing::delete(handler) }
}

impl Route {
    fn for_anybody(mut self) -> Self {
        self.access = Access::Anybody;
        self
    }
}

/// The API, as `docs/api/openapi.yaml` describes it.
pub fn routes() -> Vec<Route> {
    vec![
        post("/goim/push/keys", goim::push_keys),
        post("/goim/push/mids", goim::push_mids),
        post("/goim/push/room", goim::push_room),
        post("/goim/push/all", goim::push_all),
        get("/goim/online/top", goim::online_top),
        get("/goim/online/room", goim::online_room),
        get("/goim/online/total", goim::online_total),
        get("/goim/nodes/weighted", nodes::weighted),
        get("/goim/nodes/instances", nodes::instances),
        post("/v1/push", push::push),
        get("/v1/rooms", rooms::list),
        get("/v1/rooms/{room}", rooms::one),
        get("/v1/connections/{key}", connections::inspect),
        delete("/v1/connections/{key}", connections::kick),
        get("/v1/stats", stats::stats),
        get("/metrics", health::metrics),
        get("/healthz", health::alive).for_anybody(),
        get("/readyz", health::ready).for_anybody(),
    ]
}

/// The API as a service, with the page if this is `--dev`.
pub fn router(app: Shared) -> Router {
    let mut guarded = Router::new();
    let mut open = Router::new();
    let page = if app.config.dev { page::routes() } else { Vec::new() };
    for route in routes().into_iter().chain(page) {
        let to = if route.access == Access::Token { &mut guarded } else { &mut open };
        *to = std::mem::take(to).route(route.path, route.handler);
    }
    guarded
        .route_layer(from_fn_with_state(Arc::clone(&app), body::read))
        .route_layer(from_fn_with_state(Arc::clone(&app), authorize))
        .merge(open)
        .fallback(|| async { Fault::not_found("there is nothing at this path") })
        .method_not_allowed_fallback(|| async { Fault::method_not_allowed() })
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn(fault::shape))
        .with_state(app)
}

/// Lets in who has a token.
async fn authorize(State(app): State<Shared>, request: Request, next: Next) -> Response {
    let api = &app.config.settings.api;
    if api.auth == Auth::None || bearer(request.headers()).is_some_and(|token| is_known(token, &api.tokens)) {
        return next.run(request).await;
    }
    Fault::unauthorized().into_response()
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
}

/// Compares with every token, and every byte, so that time tells nothing but lengths.
fn is_known(token: &[u8], known: &[String]) -> bool {
    known.iter().fold(false, |found, known| {
        let known = known.as_bytes();
        let differing = known.iter().zip(token).fold(0, |differing, (a, b)| differing | (a ^ b));
        found | (known.len() == token.len() && std::hint::black_box(differing) == 0)
    })
}
