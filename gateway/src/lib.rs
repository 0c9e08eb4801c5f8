//! Halley, the connection gateway: holds clients on shards and pushes messages to them.

pub mod alloc;
pub mod compression;
pub mod config;
pub mod control;
pub mod directory;
pub mod dispatch;
pub mod endpoint;
pub mod identity;
pub mod ids;
pub mod limits;
pub mod link;
pub mod networks;
pub mod order;
pub mod payload;
pub mod reason;
pub mod remembered;
mod sabotage;
pub mod shard;
pub mod source;
pub mod stats;
pub mod tls;
pub mod upstream;
