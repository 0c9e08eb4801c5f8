//! The fixed maxima that several modules share, and how they relate; `docs/limits.md` lists all.

/// Places for a shard's orders, those of control and pushes together.
pub const ORDERS_MAX: usize = 2048;

/// Places of these that are a queue of control's own, so that pushes cannot starve logins.
pub const ORDERS_CONTROL_SHARE: usize = 512;

/// What the pushes that wait for a shard may weigh: bytes of their payloads, and [`PUSH_TARGET_WEIGHT`] for
/// each connection they name. It bounds memory, and how long a push waits that is accepted. A single push
/// is taken whatever it weighs.
pub const PUSHES_WEIGHT_MAX: usize = 16 << 20;

/// What a named connection weighs: its word in the order, and the delivery it stands for.
pub const PUSH_TARGET_WEIGHT: usize = 64;

/// Places in a shard's report queue.
pub const REPORTS_MAX: usize = 1024;

/// Questions to control that one shard has open at a time; each owns a buffer of one packet.
pub const ASKS_MAX: usize = 32;

/// Shards of a process: the set of shards that hold a room is one word.
pub const SHARDS_MAX: usize = 64;

/// Connections of one shard: the slot has 24 bits in a connection's word.
pub const SHARD_CONNECTIONS_MAX: usize = 1 << 20;

/// Rooms that have members in one shard.
pub const SHARD_ROOMS_MAX: usize = 1 << 18;

/// Rooms of one connection.
pub const ROOMS_PER_CONNECTION_MAX: usize = 64;

/// Accepted operations of one connection.
pub const ACCEPTS_MAX: usize = 64;

/// Different sets of accepted operations in one shard.
pub const ACCEPT_SETS_MAX: usize = 1024;

/// Bytes of a room's name.
pub const ROOM_NAME_BYTES_MAX: usize = 256;

/// Bytes of a key.
pub const KEY_BYTES_MAX: usize = 256;

/// Bytes of a push's body.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;

/// Keys or members of one push.
pub const PUSH_TARGETS_MAX: usize = 10_000;

/// Ids of pushes that are remembered, so that one said again pushes nothing.
pub const PUSH_IDS_MAX: usize = 100_000;

/// How long an id is remembered, milliseconds.
pub const PUSH_ID_MS_MAX: u64 = 600_000;

/// Bytes of an id.
pub const PUSH_ID_BYTES_MAX: usize = 128;

/// Bytes of a message on an echo path.
pub const ECHO_MESSAGE_BYTES_MAX: u32 = 16 << 20;

/// Bytes of messages that one shard holds for its echo connections, whole or begun.
pub const ECHO_HELD_BYTES_MAX: u32 = 64 << 20;

/// Buffers of a shard for messages that the upstream thread has yet to take: more than a shard reads in one turn, in which the
/// thread may not have had its own.
pub const UPSTREAM_BUFFERS_MAX: usize = 2048;

const _: () = assert!(ECHO_MESSAGE_BYTES_MAX < ECHO_HELD_BYTES_MAX, "the longest message can be held");
const _: () =
    assert!(ASKS_MAX * 2 < ORDERS_CONTROL_SHARE, "a grant and an answer for every open question fit control's share");
const _: () = assert!(ASKS_MAX < REPORTS_MAX, "open questions alone never fill the report queue");
const _: () = assert!(SHARD_CONNECTIONS_MAX <= 1 << 24, "a slot fits its 24 bits");
const _: () = assert!(ACCEPT_SETS_MAX <= 1 << 16, "a set's number fits 16 bits");
