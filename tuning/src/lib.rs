//! What a host allows, and how many connections fit: read once, then plain arithmetic.
mod capacity;
mod host;

pub use capacity::{
    Bound, CONNECTION_BYTES, Capacity, FILE_TABLE_MAX, SHARDS_MAX, bounds, capacity, notes, shards_for,
};
pub use host::{Host, HostError, Limit};
