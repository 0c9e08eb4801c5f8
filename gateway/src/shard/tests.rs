//! The shard on the simulated ring: stories of clients, and a random simulation with everything checked.

#![allow(clippy::needless_for_each, reason = "what everybody does, in one line")]

mod accepting;
mod asking;
mod client;
mod deflate;
mod drain;
mod echo;
mod input;
mod latency;
mod pools;
mod proxied;
mod reasons;
mod rooms;
mod session;
mod sim;
mod slow;
mod steady;
mod targets;
pub(super) mod tls;
mod tls_endings;
mod upstream;
mod v1;
mod world;
