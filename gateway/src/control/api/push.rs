//! `POST /v1/push`: one push or an array of them.

use std::pin::Pin;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::{Extension, Json};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures_channel::oneshot;
use halley_protocol::job;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::access::Caller;
use super::ids::{Answer, Claim, Turn};
use super::{Fault, Shared};
use crate::dispatch::{DispatchError, Target};
use crate::limits;
use crate::payload::Note;
use crate::source;
use crate::source::kafka::ProduceError;

/// Pushes of one call.
const PUSHES_MAX: usize = 1000;

/// A push as callers write it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PushRequest<'a> {
    target: TargetRequest,
    operation: i32,
    #[serde(borrow)]
    payload: PayloadRequest<'a>,
    /// Given back in the result. Said again, it pushes nothing.
    id: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TargetRequest {
    room: Option<String>,
    keys: Option<Vec<String>>,
    members: Option<Vec<i64>>,
    all: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PayloadRequest<'a> {
    text: Option<String>,
    /// Sent byte for byte as written.
    #[serde(borrow)]
    json: Option<&'a RawValue>,
    base64: Option<String>,
}

/// A push that passed every check.
struct Push {
    target: Target,
    operation: i32,
    body: Vec<u8>,
    id: Option<String>,
}

/// Where a record came to lie, as soon as that is known.
type Producing = Pin<Box<dyn Future<Output = Result<(i32, i64), ProduceError>> + Send>>;

/// A push on its way.
enum Begun {
    Over(Result<Answer, Fault>),
    /// Kafka has it, and says where it came to lie.
    Produced(Producing, Option<Turn>),
    /// Its id is that of one on its way.
    Follows(oneshot::Receiver<Answer>),
}

/// Dispatches in order, or produces in order and answers when Kafka has acknowledged or given up on each. 503 means
/// that none was taken; otherwise those that were not say so in their results.
pub(super) async fn push(
    State(app): State<Shared>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, Fault> {
    if !is_json(&headers) {
        return Err(Fault::not_json());
    }
    let begun: Vec<_> = parse(&body)?.into_iter().map(|push| (push.id.clone(), begin(&app, &caller, push))).collect();
    let (mut results, mut refused, mut took) = (Vec::with_capacity(begun.len()), None, 0);
    for (id, begun) in begun {
        let result = match end(begun).await {
            Ok(answer) => {
                took += 1;
                answer.to_json()
            }
            Err(fault) => json!({ "error": refused.insert(fault).to_json() }),
        };
        results.push(with_id(result, id.as_deref()));
    }
    match refused {
        Some(fault) if took == 0 => Err(fault),
        _ => Ok(Json(json!({ "results": results }))),
    }
}

fn begin(app: &Shared, caller: &Caller, push: Push) -> Begun {
    // An id is its caller's own: others may use the same.
    let id = push.id.as_ref().map(|id| format!("{}/{id}", caller.0));
    let turn = match id.clone().map(|id| app.push_ids.claim(id)) {
        None => None,
        Some(Claim::New(turn)) => Some(turn),
        Some(Claim::Repeat(answer)) => return Begun::Over(Ok(answer)),
        Some(Claim::Follows(first)) => return Begun::Follows(first),
    };
    if let Some(kafka) = app.kafka.get() {
        // What comes back from the log is counted again, by when it was written.
        if let Err(error) = app.dispatch.admit(&push.target, push.body.len(), halley_ring::now_us()) {
            return Begun::Over(Err(error.into()));
        }
        let job = source::job(push.target, push.operation, &push.body);
        // What every node would skip is not written.
        if let Err(reject) = job::check(&job, &source::JOB_LIMITS) {
            return Begun::Over(Err(reject.into()));
        }
        return Begun::Produced(Box::pin(kafka.produce(&job, id.as_deref())), turn);
    }
    let pushed = app.dispatch.push(&push.target, push.operation, &push.body, Note::new(halley_ring::now_us(), None));
    Begun::Over(pushed.map(|to| taken(Answer::Dispatched(to), turn)).map_err(Into::into))
}

async fn end(begun: Begun) -> Result<Answer, Fault> {
    match begun {
        Begun::Over(result) => result,
        Begun::Produced(outcome, turn) => {
            let (partition, offset) = outcome.await?;
            Ok(taken(Answer::Produced(partition, offset), turn))
        }
        Begun::Follows(first) => first.await.map_err(|oneshot::Canceled| ProduceError::Away.into()),
    }
}

fn taken(answer: Answer, turn: Option<Turn>) -> Answer {
    if let Some(turn) = turn {
        turn.done(answer);
    }
    answer
}

fn with_id(mut result: Value, id: Option<&str>) -> Value {
    if let Some(id) = id {
        result["id"] = id.into();
    }
    result
}

/// A form on a foreign web page can post to the loopback address, but not with this type.
pub(super) fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let essence = value.split(';').next().unwrap_or("").trim();
    essence.eq_ignore_ascii_case("application/json")
}

/// What a body would dispatch, as operations and payloads, or the status that refuses it. For fuzzing.
pub fn read_push(body: &[u8]) -> Result<Vec<(i32, Vec<u8>)>, u16> {
    match parse(body) {
        Ok(pushes) => Ok(pushes.into_iter().map(|push| (push.operation, push.body)).collect()),
        Err(fault) => Err(fault.status()),
    }
}

/// Reads and checks all of it before any of it is dispatched.
fn parse(body: &[u8]) -> Result<Vec<Push>, Fault> {
    let is_array = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    let wrong = |error: serde_json::Error| Fault::bad_request(format!("the body is no push: {error}"));
    if !is_array {
        return Ok(vec![check(serde_json::from_slice(body).map_err(wrong)?)?]);
    }
    let requests: Vec<PushRequest<'_>> = serde_json::from_slice(body).map_err(wrong)?;
    if requests.len() > PUSHES_MAX {
        return Err(Fault::too_large(format!("{} pushes in one call: at most {PUSHES_MAX}", requests.len())));
    }
    requests.into_iter().enumerate().map(|(at, request)| check(request).map_err(|fault| fault.at(at))).collect()
}

fn check(request: PushRequest<'_>) -> Result<Push, Fault> {
    let body = payload(request.payload)?;
    if body.len() > limits::PAYLOAD_BYTES_MAX {
        return Err(DispatchError::PayloadTooBig.into());
    }
    if let Some(id) = &request.id
        && !(1..=limits::PUSH_ID_BYTES_MAX).contains(&id.len())
    {
        return Err(Fault::bad_request(format!("id: has 1 to {} bytes", limits::PUSH_ID_BYTES_MAX)));
    }
    Ok(Push { target: target(request.target)?, operation: request.operation, body, id: request.id })
}

fn target(request: TargetRequest) -> Result<Target, Fault> {
    let TargetRequest { room, keys, members, all } = request;
    let target = match (room, keys, members, all) {
        (Some(room), None, None, None) => Target::Room(room),
        (None, Some(keys), None, None) => Target::Keys(keys),
        (None, None, Some(members), None) => Target::Members(members),
        (None, None, None, Some(true)) => Target::All,
        _ => return Err(Fault::bad_request("target: name exactly one of room, keys, members, or \"all\":true")),
    };
    let too_long = |what: &str, bytes: usize| Fault::bad_request(format!("target: a {what} has at most {bytes} bytes"));
    match &target {
        Target::Room(room) if room.is_empty() => Err(Fault::bad_request("target: the room has no name")),
        Target::Room(room) if room.len() > limits::ROOM_NAME_BYTES_MAX => {
            Err(too_long("room's name", limits::ROOM_NAME_BYTES_MAX))
        }
        Target::Keys(keys) if keys.is_empty() => Err(Fault::bad_request("target: keys is empty")),
        Target::Keys(keys) if keys.iter().any(|key| key.len() > limits::KEY_BYTES_MAX) => {
            Err(too_long("key", limits::KEY_BYTES_MAX))
        }
        Target::Members(members) if members.is_empty() => Err(Fault::bad_request("target: members is empty")),
        Target::Keys(keys) if keys.len() > limits::PUSH_TARGETS_MAX => Err(DispatchError::TooManyTargets.into()),
        Target::Members(members) if members.len() > limits::PUSH_TARGETS_MAX => {
            Err(DispatchError::TooManyTargets.into())
        }
        _ => Ok(target),
    }
}

fn payload(request: PayloadRequest<'_>) -> Result<Vec<u8>, Fault> {
    match (request.text, request.json, request.base64) {
        (Some(text), None, None) => Ok(text.into_bytes()),
        (None, Some(json), None) => Ok(json.get().as_bytes().to_vec()),
        (None, None, Some(text)) => {
            BASE64_STANDARD.decode(text).map_err(|error| Fault::bad_request(format!("payload: base64: {error}")))
        }
        _ => Err(Fault::bad_request("payload: give exactly one of text, json, base64")),
    }
}
