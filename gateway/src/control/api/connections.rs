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
use crate::source::nodes::NodeCommand;

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

/// Ends every connection of the key, here and on other nodes; they are told 4005.
pub(super) async fn kick(State(app): State<Shared>, Name(key): Name, params: Params) -> Result<Response, Fault> {
    let reason = params.text("reason").unwrap_or("").to_owned();
    if reason.len() > REASON_BYTES_MAX {
        return Err(Fault::bad_request(format!("reason: at most {REASON_BYTES_MAX} bytes")));
    }
    let (answer, answered) = oneshot::channel();
    ask(&app, Command::Kick { key: key.clone(), answer })?;
    let closed = answered.await.map_err(|oneshot::Canceled| Fault::busy("the shards' queues are full; try again"))?;
    let told = match tell_others(&app, &key, &reason).await {
        Ok(told) => told,
        Err(fault) => return Ok(audited(fault, key, format!("closed {closed}, others not told: {reason}"))),
    };
    if closed + told == 0 {
        return Ok(audited(unknown_key(), key, "closed 0"));
    }
    let mut answer = json!({ "key": key, "closed": closed });
    let mut result = format!("closed {closed}: {reason}");
    if told > 0 {
        answer["told"] = told.into();
        result = format!("closed {closed}, told {told}: {reason}");
    }
    Ok(audited(Json(answer), key, result))
}

/// Other nodes that were told to do the same.
async fn tell_others(app: &App, key: &str, reason: &str) -> Result<usize, Fault> {
    let Some(kafka) = app.kafka.get() else { return Ok(0) };
    let others = kafka.stats().nodes.living();
    if others > 0 {
        let command = NodeCommand::Kick { key: key.into(), reason: reason.into() };
        kafka.broadcast(&command, 0).await?;
    }
    Ok(others)
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
        "transport": app.bound.listeners.get(usize::from(found.listener)).map(|(transport, _)| transport),
        "age_ms": found.age_ms,
        "rooms": rooms.map(|name| name.to_string()).collect::<Vec<_>>(),
        "accepts": found.accepts,
        "queued_bytes": found.queued_bytes,
        "queued_messages": found.queued_messages,
    })
}
