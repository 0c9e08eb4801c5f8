//! The wire protocol of Halley: goim's packets, RFC 6455 frames, logins and pushes; bytes in, events out.
//!
//! Nothing here reads a socket or a clock. What a peer sends is decoded where it lies, without
//! allocation, and for any cut of the byte stream into reads the events are the same. A peer's mistake is a
//! value of a closed enum ([`PacketReject`], [`websocket::frame::FrameReject`],
//! [`websocket::handshake::HandshakeReject`], [`login::LoginReject`]), never a panic.
//!
//! Functions that write into a slice panic when the slice is shorter than stated: that is the caller's bug and
//! no peer can cause it.
#![forbid(unsafe_code)]

pub mod client;
pub mod close;
pub mod deflated;
pub mod forwarded;
pub mod halley;
pub mod job;
pub mod login;
pub mod node;
pub mod operation;
pub mod packet;
pub mod proxy;
pub mod push;
pub mod reply;
pub mod v1;
pub mod websocket;

pub use packet::{Packet, PacketReject};
