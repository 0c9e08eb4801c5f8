//! `GET /v1/rooms` and `/v1/rooms/{room}`.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::aside::aside;
use super::params::{Name, Params};
use super::{Fault, Shared};
use crate::directory::RoomCount;

/// Rooms of one answer.
pub(super) const PAGE_MAX: u32 = 1000;

const PAGE_DEFAULT: u32 = 100;

/// Rooms by name; `next` is the `after` of the following page.
pub(super) async fn list(State(app): State<Shared>, params: Params) -> Result<Json<Value>, Fault> {
    let limit = match params.number::<u32>("limit")? {
        0 => PAGE_DEFAULT,
        limit if limit <= PAGE_MAX => limit,
        limit => return Err(Fault::bad_request(format!("limit: {limit} is more than {PAGE_MAX}"))),
    } as usize;
    let text = |name| params.text(name).unwrap_or("").to_owned();
    let (prefix, after) = (text("prefix"), text("after"));
    let rooms = aside(&app.directory, move |directory| directory.rooms_page(&prefix, &after, limit)).await?;
    let next = rooms.last().filter(|_| rooms.len() == limit).map(|room| room.name.to_string());
    let rooms = rooms.iter().map(show).collect::<Vec<_>>();
    Ok(Json(json!({ "rooms": rooms, "next": next })))
}

/// One room.
pub(super) async fn one(State(app): State<Shared>, Name(name): Name) -> Result<Json<Value>, Fault> {
    let members = app.directory.room_size(&name);
    if members == 0 {
        return Err(Fault::not_found("the room has no members, so there is no such room"));
    }
    let here = app.directory.room_size_here(&name);
    Ok(Json(json!({ "room": name, "members": members, "here": here })))
}

fn show(room: &RoomCount) -> Value {
    json!({ "room": &*room.name, "members": room.members })
}
