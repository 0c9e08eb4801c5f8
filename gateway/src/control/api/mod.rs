//! The HTTP API: one table of routes, and what every call passes before its handler.

mod access;
mod aside;
mod body;
mod connections;
mod fault;
mod goim;
mod health;
mod ids;
mod life;
mod members;
mod nodes;
mod page;
mod params;
mod push;
mod revocations;
mod rooms;
mod stats;
pub mod v1;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::handler::Handler;
use axum::http::Method;
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::{self, MethodRouter};

use super::app::App;
use crate::config::{Auth, Scope, Settings};

pub use access::{Access, Tokens};
pub(super) use fault::Fault;
pub use ids::PushIds;
pub(super) use nodes::this_node;
pub use push::read_push;

use access::Gate;

/// What handlers share.
type Shared = Arc<App>;

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

fn get<H: Handler<T, Shared>, T: 'static>(scope: Scope, path: &'static str, handler: H) -> Route {
    Route { method: Method::GET, path, access: Access::Scope(scope), handler: routing::get(handler) }
}

fn post<H: Handler<T, Shared>, T: 'static>(scope: Scope, path: &'static str, handler: H) -> Route {
    Route { method: Method::POST, path, access: Access::Scope(scope), handler: routing::post(handler) }
}

fn delete<H: Handler<T, Shared>, T: 'static>(scope: Scope, path: &'static str, handler: H) -> Route {
    Route { method: Method::DELETE, path, access: Access::Scope(scope), handler: routing::delete(handler) }
}

/// A call of anybody: probes, and browsers that load a page, have no token.
fn public<H: Handler<T, Shared>, T: 'static>(path: &'static str, handler: H) -> Route {
    Route { method: Method::GET, path, access: Access::Anybody, handler: routing::get(handler) }
}

impl Route {
    /// The handler behind what every call to it passes: its token, then its body.
    fn guarded(self, app: &Shared, auth: fn(&Settings) -> Auth) -> MethodRouter<Shared> {
        let Access::Scope(scope) = self.access else { return self.handler };
        let gate = Gate { app: Arc::clone(app), auth, scope, call: format!("{} {}", self.method, self.path) };
        self.handler
            .route_layer(from_fn_with_state(Arc::clone(app), body::read))
            .route_layer(from_fn_with_state(gate, access::authorize))
    }
}

/// The API, as `docs/api/openapi.yaml` describes it.
pub fn routes() -> Vec<Route> {
    vec![
        post(Scope::Push, "/goim/push/keys", goim::push_keys),
        post(Scope::Push, "/goim/push/mids", goim::push_mids),
        post(Scope::Push, "/goim/push/room", goim::push_room),
        post(Scope::Push, "/goim/push/all", goim::push_all),
        get(Scope::Read, "/goim/online/top", goim::online_top),
        get(Scope::Read, "/goim/online/room", goim::online_room),
        get(Scope::Read, "/goim/online/total", goim::online_total),
        get(Scope::Read, "/goim/nodes/weighted", nodes::weighted),
        get(Scope::Read, "/goim/nodes/instances", nodes::instances),
        post(Scope::Push, "/v1/push", push::push),
        get(Scope::Read, "/v1/rooms", rooms::list),
        get(Scope::Read, "/v1/rooms/{room}", rooms::one),
        get(Scope::Read, "/v1/members/{member}", members::one),
        get(Scope::Read, "/v1/connections/{key}", connections::inspect),
        delete(Scope::Admin, "/v1/connections/{key}", connections::kick),
        get(Scope::Read, "/v1/nodes", nodes::list),
        post(Scope::Admin, "/v1/revocations", revocations::revoke),
        get(Scope::Read, "/v1/stats", stats::stats),
        post(Scope::Admin, "/v1/drain", life::drain),
        post(Scope::Admin, "/v1/reload", life::reload),
        get(Scope::Read, "/metrics", health::metrics),
        public("/healthz", health::alive),
        public("/readyz", health::ready),
    ]
}

/// The API as a service, with the console, and the developer page if this is `--dev`.
pub fn router(app: &Shared) -> Router {
    let config = app.config();
    let developer = if config.dev { page::developer() } else { Vec::new() };
    let add = |router: Router<Shared>, route: Route| {
        router.route(route.path, route.guarded(app, |settings| settings.api.auth))
    };
    routes()
        .into_iter()
        .chain(page::console())
        .chain(developer)
        .fold(Router::new(), add)
        .fallback(|| async { Fault::not_found("there is nothing at this path") })
        .method_not_allowed_fallback(|| async { Fault::method_not_allowed() })
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn(fault::shape))
        .layer(from_fn_with_state(Arc::clone(app), count))
        .with_state(Arc::clone(app))
}

/// Counts every answer, and how long it took.
async fn count(State(app): State<Shared>, request: Request, next: Next) -> Response {
    let begin_us = halley_ring::now_us();
    let response = next.run(request).await;
    app.tallies.count_answer(response.status().as_u16(), halley_ring::now_us() - begin_us);
    response
}
