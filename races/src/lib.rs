//! Nothing but tests: `tests/waking.rs` runs the gateway's waking under loom.
