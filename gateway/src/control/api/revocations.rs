//! `POST /v1/revocations`: ends the connections of a token, member or key, and refuses their tokens.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use futures_channel::oneshot;
use serde::Deserialize;
use serde_json::json;

use super::access::audited;
use super::push::is_json;
use super::{Fault, Shared};
use crate::control::app::Command;
use crate::control::decide::Revoked;
use crate::source::nodes::NodeCommand;

/// How long a revocation is remembered that does not say.
const DEFAULT_S: u64 = 24 * 60 * 60;

/// Bytes of what is revoked.
const NAME_BYTES_MAX: usize = 256;

/// Exactly one of the first three.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    token: Option<String>,
    member: Option<i64>,
    key: Option<String>,
    /// Seconds since 1970.
    until: Option<u64>,
}

/// Answers when every connection concerned has been told to end here, and Kafka has it for other nodes: those that run,
/// and those that start before it ends.
pub(super) async fn revoke(State(app): State<Shared>, headers: HeaderMap, body: Bytes) -> Result<Response, Fault> {
    if !is_json(&headers) {
        return Err(Fault::not_json());
    }
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (what, until_s) = read(&body, now_s)?;
    let subject = match &what {
        Revoked::Token(id) => format!("token {id}"),
        Revoked::Member(member) => format!("member {member}"),
        Revoked::Key(key) => format!("key {key}"),
    };
    let (answer, answered) = oneshot::channel();
    app.commands
        .unbounded_send(Command::Revoke { what: what.clone(), until_s, answer })
        .map_err(|_| Fault::draining())?;
    match answered.await {
        Ok(Some(closed)) => match tell_others(&app, what, until_s).await {
            Ok(told) => {
                let mut answer = json!({ "closed": closed, "until": until_s });
                if told > 0 {
                    answer["told"] = told.into();
                }
                Ok(audited(Json(answer), subject, format!("closed {closed}, told {told}, until {until_s}")))
            }
            Err(fault) => Ok(audited(fault, subject, format!("closed {closed}, others not told, until {until_s}"))),
        },
        Ok(None) => Ok(audited(Fault::busy("as many are revoked as can be remembered"), subject, "too many")),
        Err(oneshot::Canceled) => Err(Fault::busy("the shards' queues are full; try again")),
    }
}

/// Other nodes that were told to do the same.
async fn tell_others(app: &Shared, what: Revoked, until_s: u64) -> Result<usize, Fault> {
    let Some(kafka) = app.kafka.get() else { return Ok(0) };
    let end_ms = i64::try_from(until_s.saturating_mul(1000)).unwrap_or(i64::MAX);
    kafka.broadcast(&NodeCommand::Revoke { what, until_s }, end_ms).await?;
    Ok(kafka.stats().nodes.living())
}

fn read(body: &[u8], now_s: u64) -> Result<(Revoked, u64), Fault> {
    let request: Request = serde_json::from_slice(body)
        .map_err(|error| Fault::bad_request(format!("the body is no revocation: {error}")))?;
    let what = match (request.token, request.member, request.key) {
        (Some(id), None, None) => Revoked::Token(id),
        (None, Some(member), None) => Revoked::Member(member),
        (None, None, Some(key)) => Revoked::Key(key),
        _ => return Err(Fault::bad_request("name exactly one of token, member and key")),
    };
    match &what {
        Revoked::Token(name) | Revoked::Key(name) if !(1..=NAME_BYTES_MAX).contains(&name.len()) => {
            return Err(Fault::bad_request(format!("a token's id and a key have 1 to {NAME_BYTES_MAX} bytes")));
        }
        Revoked::Member(member) if *member <= 0 => {
            return Err(Fault::bad_request("a member is above 0: 0 is none"));
        }
        _ => {}
    }
    let until_s = request.until.unwrap_or(now_s + DEFAULT_S);
    if until_s <= now_s {
        return Err(Fault::bad_request("until: has passed; it is in seconds since 1970"));
    }
    Ok((what, until_s))
}
