//! The shard on the simulated ring.
