//! goim's HTTP API as goim v2 answers it (`internal/logic/http`): envelope, codes, parameters.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use halley_protocol::job::{self, JobReject};
use serde_json::{Value, json};

use super::aside::aside;
use super::params::Params;
use super::{Fault, Shared};
use crate::directory::RoomCount;
use crate::dispatch::Target;
use crate::payload::Note;
use crate::source;

/// The call was understood and done.
const OK: i32 = 0;
/// The call is wrong.
pub(super) const REQUEST_ERROR: i32 = -400;
/// The gateway could not.
pub(super) const SERVER_ERROR: i32 = -500;

/// What an envelope is sent as.
const JSON_UTF8: &str = "application/json; charset=utf-8";

/// goim's answer; `data` is left out where there is none.
pub(super) fn envelope(code: i32, message: &str, data: Option<Value>) -> Response {
    let mut answer = json!({ "code": code, "message": message });
    if let Some(data) = data {
        answer["data"] = data;
    }
    ([(header::CONTENT_TYPE, JSON_UTF8)], answer.to_string()).into_response()
}

/// A call that was understood and done.
pub(super) fn answer(data: Value) -> Response {
    envelope(OK, "", Some(data))
}

type Answer = Result<Response, Fault>;

fn done() -> Response {
    envelope(OK, "", None)
}

async fn push(app: &Shared, target: Target, operation: i32, message: &[u8]) -> Answer {
    deliver(app, target, operation, message).await.map(|()| done())
}

/// Dispatches, or produces where Kafka is configured.
pub(super) async fn deliver(app: &Shared, target: Target, operation: i32, message: &[u8]) -> Result<(), Fault> {
    let Some(kafka) = app.kafka.get() else {
        app.dispatch.push(&target, operation, message, Note::new(halley_ring::now_us(), None))?;
        return Ok(());
    };
    app.dispatch.admit(&target, message.len(), halley_ring::now_us())?;
    let job = source::job(target, operation, message);
    match job::check(&job, &source::JOB_LIMITS) {
        Ok(()) => {}
        // Nobody is no mistake to goim.
        Err(JobReject::NoTarget) => return Ok(()),
        Err(reject) => return Err(reject.into()),
    }
    kafka.produce(&job, None).await?;
    Ok(())
}

/// `POST /goim/push/keys?operation&keys…`
pub(super) async fn push_keys(State(app): State<Shared>, params: Params, message: Bytes) -> Answer {
    let operation = params.number("operation")?;
    let keys: Vec<String> = params.all("keys").filter(|key| !key.is_empty()).map(Into::into).collect();
    if params.text("keys").is_none() {
        // What goim makes of its directory's complaint about a call without keys.
        return Ok(envelope(REQUEST_ERROR, "", None));
    }
    push(&app, Target::Keys(keys), operation, &message).await
}

/// `POST /goim/push/mids?operation&mids…`
pub(super) async fn push_mids(State(app): State<Shared>, params: Params, message: Bytes) -> Answer {
    let operation = params.number("operation")?;
    let members = params.numbers("mids")?;
    push(&app, Target::Members(members), operation, &message).await
}

/// `POST /goim/push/room?operation&type&room`
pub(super) async fn push_room(State(app): State<Shared>, params: Params, message: Bytes) -> Answer {
    let operation = params.required_number("operation")?;
    let room = room_key(params.required("type")?, params.required("room")?);
    push(&app, Target::Room(room), operation, &message).await
}

/// `POST /goim/push/all?operation&speed`. The speed is read and not applied: shards pace a broadcast themselves.
pub(super) async fn push_all(State(app): State<Shared>, params: Params, message: Bytes) -> Answer {
    let operation = params.required_number("operation")?;
    params.number::<i32>("speed")?;
    push(&app, Target::All, operation, &message).await
}

/// `GET /goim/online/top?type&limit`
pub(super) async fn online_top(State(app): State<Shared>, params: Params) -> Answer {
    let kind = params.required("type")?;
    let limit = params.required_number::<u32>("limit")?;
    let (kind, limit) = (kind.to_owned(), limit.min(super::rooms::PAGE_MAX) as usize);
    let rooms = aside(&app.directory, move |directory| directory.rooms_top(&kind, limit)).await?;
    let rooms = rooms.iter().map(|RoomCount { name, members }| json!({ "room_id": host_part(name), "count": members }));
    Ok(answer(rooms.collect()))
}

/// `GET /goim/online/room?type&rooms…`
pub(super) async fn online_room(State(app): State<Shared>, params: Params) -> Answer {
    let kind = params.required("type")?;
    params.required("rooms")?;
    let size = |room: &str| (room.to_owned(), Value::from(app.directory.room_size(&room_key(kind, room))));
    Ok(answer(Value::Object(params.all("rooms").map(size).collect())))
}

/// `GET /goim/online/total`
pub(super) async fn online_total(State(app): State<Shared>) -> Response {
    let (here, elsewhere) = (&app.directory, app.directory.elsewhere());
    answer(json!({
        "conn_count": here.connections() + elsewhere.connections(),
        "ip_count": here.addresses() + elsewhere.addresses(),
    }))
}

/// goim's name for a room: `type://room`.
fn room_key(kind: &str, room: &str) -> String {
    format!("{kind}://{room}")
}

/// The host part of a room's name read as a URL, as goim shows it; the whole name if it is none.
fn host_part(name: &str) -> &str {
    name.split_once("://").map_or(name, |(_, rest)| rest.split(['/', '?', '#']).next().unwrap_or(rest))
}
