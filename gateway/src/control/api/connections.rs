//! `/v1/connections/{key}`: what is known of a key's connections, and ending them.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use futures_channel::oneshot;
use serde_json::{Value, json};

use super::access::audited;
use super::params::{Name, Params};
use super::{Fault, Shared};
use crate::control::app::{App, Command};
use crate::ids::ConnWord;
use crate::order::Inspection;

/// Bytes of the reason that an operator gives, for the log.
const REASON_BYTES_MAX: usize = 256;

/// Asks the shard of each connection, one after the other.
pub(super) async fn inspect(State(app): State<Shared>, Name(key): Name) -> Result<Json<Value>, Fault> {
    let mut connections = Vec::new();
    for conn in app.directory.key_connections(&key) {
        let (answer, answered) = oneshot::channel();
        ask(&app, Command::Inspect { conn, answer })?;
        match answered.await {
            Ok(Some(found)) => connections.push(show(&app, conn, &found)),
            Ok(None) => {}
            Err(oneshot::Canceled) => return Err(Fault::busy("a shard did not answer in time; try again")),
        }
    }
    if connections.is_empty() {
        return Err(unknown_key());
    }
    Ok(Json(json!({ "key": key, "connections": connections })))
}

/// Ends every connection of the key; they are told 4005.
pub(super) async fn kick(State(app): State<Shared>, Name(key): Name, params: Params) -> Result<Response, Fault> {
    let reason = params.text("reason").unwrap_or("").to_owned();
    if reason.len() > REASON_BYTES_MAX {
        return Err(Fault::bad_request(format!("reason: at most {REASON_BYTES_MAX} bytes")));
    }
    let (answer, answered) = oneshot::channel();
    ask(&app, Command::Kick { key: key.clone(), answer })?;
    match answered.await {
        Ok(0) => Ok(audited(unknown_key(), key, "closed 0")),
        Ok(closed) => {
            let result = format!("closed {closed}: {reason}");
            Ok(audited(Json(json!({ "key": key, "closed": closed })), key, result))
        }
        Err(oneshot::Canceled) => Err(Fault::busy("the shards' queues are full; try again")),
    }
}

fn unknown_key() -> Fault {
    Fault::not_found("the key has no connection")
}

fn ask(app: &App, command: Command) -> Result<(), Fault> {
    app.commands.unbounded_send(command).map_err(|_| Fault::draining())
}

fn show(app: &App, conn: ConnWord, found: &Inspection) -> Value {
    let rooms = found.rooms.iter().filter_map(|room| app.directory.room_name(conn.shard(), *room));
    json!({
        "connection": format!("{conn:?}"),
        "shard": conn.shard().0,
        "peer": found.peer.to_string(),
        "listener": found.listener,
        "age_ms": found.age_ms,
        "rooms": rooms.map(|name| name.to_string()).collect::<Vec<_>>(),
        "accepts": found.accepts,
        "queued_bytes": found.queued_bytes,
        "queued_messages": found.queued_messages,
    })
}
