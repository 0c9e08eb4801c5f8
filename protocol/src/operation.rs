//! Operation codes: goim v2's, and Halley's own where a login asked for them.

/// Unused by goim v2; answered like any unknown operation.
pub const HANDSHAKE: i32 = 0;
/// Unused by goim v2.
pub const HANDSHAKE_REPLY: i32 = 1;
/// Heartbeat; the only packet that moves the heartbeat deadline. The body is discarded.
pub const HEARTBEAT: i32 = 2;
/// Reply to a heartbeat; body: int32, members of the connection's room.
pub const HEARTBEAT_REPLY: i32 = 3;
/// Upstream message.
pub const SEND_MESSAGE: i32 = 4;
/// Never sent by goim v2.
pub const SEND_MESSAGE_REPLY: i32 = 5;
/// Never sent by goim v2; its JavaScript client shows it as a message.
pub const DISCONNECT_REPLY: i32 = 6;
/// Login; body: the JSON of [`crate::login`].
pub const AUTH: i32 = 7;
/// Login accepted; empty body.
pub const AUTH_REPLY: i32 = 8;
/// Server to WebSocket client: the body is one or more complete packets.
pub const RAW: i32 = 9;
/// Internal to goim, never on the wire.
pub const PROTO_READY: i32 = 10;
/// Internal to goim, never on the wire.
pub const PROTO_FINISH: i32 = 11;
/// Change the login room; body: the new room, empty to leave.
pub const CHANGE_ROOM: i32 = 12;
/// Reply to a change of room; body: echoed.
pub const CHANGE_ROOM_REPLY: i32 = 13;
/// Accept further operations; body: a list for [`parse_operations`].
pub const SUBSCRIBE: i32 = 14;
/// Reply to subscribe; body: echoed.
pub const SUBSCRIBE_REPLY: i32 = 15;
/// Accept operations no longer; body: a list for [`parse_operations`].
pub const UNSUBSCRIBE: i32 = 16;
/// Reply to unsubscribe; body: echoed.
pub const UNSUBSCRIBE_REPLY: i32 = 17;

/// Base of Halley's operations. Negative, because goim reserves no code and passes on every one from 18 up.
pub const HALLEY_BASE: i32 = -0x4841_0000;
/// Join a further room; body: its name.
pub const JOIN: i32 = HALLEY_BASE - 1;
/// Reply to join; body: [`crate::halley::JoinReply`].
pub const JOIN_REPLY: i32 = HALLEY_BASE - 2;
/// Leave a room that was joined; body: its name.
pub const LEAVE: i32 = HALLEY_BASE - 3;
/// Reply to leave; body: [`crate::halley::LeaveStatus`].
pub const LEAVE_REPLY: i32 = HALLEY_BASE - 4;
/// Server to client: why the connection is about to be closed; body: [`crate::halley::Kick`].
pub const KICK: i32 = HALLEY_BASE - 5;
/// A new token for this connection; body: the token.
pub const REFRESH: i32 = HALLEY_BASE - 7;
/// Reply to refresh; body: [`crate::halley::RefreshReply`].
pub const REFRESH_REPLY: i32 = HALLEY_BASE - 8;

/// Calls `each` for every number of a decimal int32 list joined by `,`, in order, and returns true;
/// one bad number (a blank is one) makes the whole list void: false, and `each` is never called.
///
/// goim parses each part with Go's `strconv.ParseInt(part, 10, 32)`, which takes exactly what Rust's
/// `i32::from_str` takes. An empty body is an empty list.
pub fn parse_operations(body: &[u8], mut each: impl FnMut(i32)) -> bool {
    let Ok(list) = core::str::from_utf8(body) else {
        return false;
    };
    if list.is_empty() {
        return true;
    }
    if !list.split(',').all(|part| part.parse::<i32>().is_ok()) {
        return false;
    }
    list.split(',').filter_map(|part| part.parse().ok()).for_each(&mut each);
    true
}
