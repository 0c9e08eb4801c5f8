//! goim v1's HTTP API (`logic/http.go`), on an address of its own: `ret` is 1 for a call that was done, and 65535 for one
//! that was not; the status is 200 either way, except where the gateway is not asked at all, is busy, or has limits.

use std::sync::atomic::Ordering;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::middleware::from_fn;
use axum::response::{IntoResponse, Response};
use halley_protocol::v1::PUSH;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use super::aside::aside;
use super::goim::deliver;
use super::params::Params;
use super::{Fault, Route, Shared, fault, get, post, public};
use crate::config::{Auth, Scope, Settings};
use crate::dispatch::Target;

/// `InternalErr` of `logic/ret.go`.
pub(super) const INTERNAL_ERROR: u16 = 65535;

/// Rooms of one count, those with most members first.
pub const COUNTS_MAX: usize = 10_000;

/// This process, in counts by server.
const SERVER: i32 = 1;

type Answer = Result<Response, Fault>;

/// The calls, as `docs/api/openapi-v1.yaml` describes them.
pub fn routes() -> Vec<Route> {
    vec![
        post(Scope::Push, "/1/push", push),
        post(Scope::Push, "/1/pushs", push_several),
        post(Scope::Push, "/1/push/room", push_room),
        post(Scope::Push, "/1/push/all", push_all),
        post(Scope::Push, "/1/server/del", delete_server),
        get(Scope::Read, "/1/count", count),
        public("/monitor/ping", ping),
    ]
}

/// The calls as a service.
pub fn router(app: &Shared) -> Router {
    let auth = |settings: &Settings| settings.api_v1.as_ref().map_or(Auth::Token, |api_v1| api_v1.auth);
    let add = |router: Router<Shared>, route: Route| router.route(route.path, route.guarded(app, auth));
    routes()
        .into_iter()
        .fold(Router::new(), add)
        .fallback(|| async { (StatusCode::NOT_FOUND, "404 page not found\n") })
        .method_not_allowed_fallback(|| async { Fault::method_not_allowed() })
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn(fault::shape_v1))
        .with_state(Shared::clone(app))
}

fn done() -> Response {
    json!({ "ret": 1 }).to_string().into_response()
}

/// What goim v1 answers to a parameter or body that it cannot read.
fn refused() -> Response {
    json!({ "ret": INTERNAL_ERROR }).to_string().into_response()
}

/// A number as Go reads it. goim v1 takes no default for one that is missing.
fn number<T: std::str::FromStr>(params: &Params, name: &str) -> Option<T> {
    params.text(name)?.parse().ok()
}

/// `POST /1/push?uid`
async fn push(State(app): State<Shared>, params: Params, message: Bytes) -> Answer {
    let Some(user) = number(&params, "uid") else { return Ok(refused()) };
    deliver(&app, Target::Members(vec![user]), PUSH, &message).await?;
    Ok(done())
}

/// The body of `/1/pushs`. As Go reads it: what is missing is empty, what is unknown is ignored.
#[derive(Deserialize)]
struct Several<'a> {
    /// The message is this value as it is written.
    #[serde(borrow, default, deserialize_with = "as_written")]
    m: Option<&'a RawValue>,
    #[serde(default)]
    u: Option<Vec<i64>>,
}

fn as_written<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// `POST /1/pushs`
async fn push_several(State(app): State<Shared>, body: Bytes) -> Answer {
    let Ok(Several { m, u }) = serde_json::from_slice(&body) else { return Ok(refused()) };
    let message = m.map_or("", RawValue::get);
    deliver(&app, Target::Members(u.unwrap_or_default()), PUSH, message.as_bytes()).await?;
    Ok(done())
}

/// `POST /1/push/room?rid&ensure`. What `ensure` asks for, that a push neither overtakes nor is lost, is always so.
async fn push_room(State(app): State<Shared>, params: Params, message: Bytes) -> Answer {
    let Some(room) = number::<i32>(&params, "rid") else { return Ok(refused()) };
    deliver(&app, Target::Room(room.to_string()), PUSH, &message).await?;
    Ok(done())
}

/// `POST /1/push/all`
async fn push_all(State(app): State<Shared>, message: Bytes) -> Answer {
    deliver(&app, Target::All, PUSH, &message).await?;
    Ok(done())
}

/// `POST /1/server/del?server`: nothing is left to be cleaned up after a node that died.
async fn delete_server(params: Params) -> Response {
    if number::<i32>(&params, "server").is_some() { done() } else { ().into_response() }
}

/// Members of a room, as goim v1 writes them.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct RoomMembers {
    room_id: i32,
    count: u64,
}

/// Connections of a server.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ServerConnections {
    server: i32,
    count: u64,
}

/// A count; its fields in the order in which Go writes them.
#[derive(Serialize)]
struct Counts<T> {
    data: Vec<T>,
    ret: u16,
}

impl<T: Serialize> Counts<T> {
    fn answer(data: Vec<T>) -> Answer {
        let text = serde_json::to_string(&Self { data, ret: 1 });
        text.map(IntoResponse::into_response).map_err(|_| Fault::busy("the counts cannot be written"))
    }
}

/// `GET /1/count?type`
async fn count(State(app): State<Shared>, params: Params) -> Answer {
    match params.text("type") {
        Some("room") => {
            let rooms = aside(&app.directory, |directory| directory.rooms_numbered(COUNTS_MAX)).await?;
            Counts::answer(rooms.into_iter().map(|(room_id, count)| RoomMembers { room_id, count }).collect())
        }
        Some("server") => {
            Counts::answer(vec![ServerConnections { server: SERVER, count: app.directory.connections() }])
        }
        _ => Ok(done()),
    }
}

/// `GET /monitor/ping`
async fn ping(State(app): State<Shared>) -> Answer {
    if app.draining.load(Ordering::Relaxed) { Err(Fault::draining()) } else { Ok("ok".into_response()) }
}
