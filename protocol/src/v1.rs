//! goim v1: what differs from v2 in what its clients say and hear (`libs/define/operation.go`, `comet/operation.go`,
//! `logic/auth.go`).
//!
//! The packet is the same. A client may say less, a login is a bare token, and a push has no outer header:
//!
//! ```text
//!  0        start     10
//! ┌────────┬─────────┬──────────────────────┐
//! │ unused │ frame   │ inner packets, each  │
//! │        │ header  │ ver 0, op 5, seq 0   │
//! └────────┴─────────┴──────────────────────┘
//!          │         └── TCP sends from here
//!          └── WebSocket sends from here
//! ```
//!
//! An inner packet has as many bytes as v2's of the same message, and differs from it in `ver` and `op` alone.

use crate::packet::HEADER_BYTES;
use crate::websocket::Opcode;
use crate::websocket::encode::{FRAME_HEADER_BYTES_MAX, frame_header};

/// Most body bytes a client may send in one packet.
pub const BODY_BYTES_MAX: usize = 1024;
/// Most bytes of a packet from a client.
pub const PACKET_BYTES_MAX: usize = 16 + BODY_BYTES_MAX;
const _: () = assert!(PACKET_BYTES_MAX == HEADER_BYTES + BODY_BYTES_MAX, "a header and a body");

/// Message of a client; its body comes back in a packet of [`PUSH`].
pub const SEND: i32 = 4;
/// Every push, and the reply to [`SEND`].
pub const PUSH: i32 = 5;
/// Asks for [`TEST_BODY`].
pub const TEST: i32 = 254;
/// Reply to a test.
pub const TEST_REPLY: i32 = 255;
/// What a test is answered.
pub const TEST_BODY: &[u8] = br#"{"test":"come on"}"#;

/// `ver` of every push.
pub const VERSION: i16 = 0;
/// Bytes kept free for the frame header; the first inner packet begins behind them.
pub const HEADROOM: usize = FRAME_HEADER_BYTES_MAX;

/// The room of everybody who has a user's number, by the rule of the auther that goim v1 comes with.
pub const ROOM: &str = "1";

/// The user whom a token names by that auther's rule: the token is the number, in decimal digits as Go's
/// `strconv.ParseInt` reads them, which is how Rust does. `None`: goim calls these user 0 and puts them into no room.
pub fn user(token: &[u8]) -> Option<i64> {
    core::str::from_utf8(token).ok()?.parse().ok()
}

/// Makes v1's packets of the v2 packets that lie in `buffer[HEADROOM..]`, writes a frame header in front of them, and
/// returns where WebSocket sends from. `buffer` holds at least [`HEADROOM`] bytes.
pub fn seal(buffer: &mut [u8]) -> u8 {
    let mut frame = [0; FRAME_HEADER_BYTES_MAX];
    let frame_bytes = frame_header(&mut frame, Opcode::Binary, buffer.len() - HEADROOM);
    let start = HEADROOM - frame_bytes;
    buffer[start..HEADROOM].copy_from_slice(&frame[..frame_bytes]);
    let [v0, v1] = VERSION.to_be_bytes();
    let [o0, o1, o2, o3] = PUSH.to_be_bytes();
    let mut rest = &mut buffer[HEADROOM..];
    while let Some(head) = rest.first_chunk_mut::<HEADER_BYTES>() {
        head[6..12].copy_from_slice(&[v0, v1, o0, o1, o2, o3]);
        let bytes = usize::try_from(i32::from_be_bytes([head[0], head[1], head[2], head[3]])).unwrap_or(0);
        // The next packet; what is not one stays as it is.
        let Some((_, behind)) = core::mem::take(&mut rest).split_at_mut_checked(bytes.max(HEADER_BYTES)) else { break };
        rest = behind;
    }
    u8::try_from(start).unwrap_or(0) // at most HEADROOM
}
