//! `GET /v1/members/{member}`: the keys of a member.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::params::Name;
use super::{Fault, Shared};

/// Keys of one answer.
const KEYS_MAX: usize = 1000;

/// Keys in order, each with how many connections it has; `more` if there are further ones.
pub(super) async fn one(State(app): State<Shared>, Name(member): Name) -> Result<Json<Value>, Fault> {
    let member: i64 = member.parse().map_err(|_| Fault::bad_request(format!("{member:?} is no member's number")))?;
    let mut keys = BTreeMap::<_, u32>::new();
    for (_, key) in app.directory.member_connections(member) {
        *keys.entry(key.to_string()).or_default() += 1;
    }
    if keys.is_empty() {
        return Err(Fault::not_found("the member has no connection"));
    }
    let more = keys.len() > KEYS_MAX;
    let keys: Vec<_> =
        keys.into_iter().take(KEYS_MAX).map(|(key, n)| json!({ "key": key, "connections": n })).collect();
    Ok(Json(json!({ "member": member, "keys": keys, "more": more })))
}
