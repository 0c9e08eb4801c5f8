//! The gateway behind a real Kafka broker: every format, and everything a broker does to those who depend on it.

mod api;
mod crashes;
mod formats;
#[allow(dead_code, unused_imports, reason = "other tests use the rest of it")]
#[path = "../api/harness.rs"]
mod harness;
mod hot;
mod java;
mod load;
mod nodes;
mod odd;
mod poison;
mod pressure;
mod refused;
mod seen;
mod shell;
mod states;
#[allow(dead_code, unused_imports, reason = "other tests use the rest of it")]
#[path = "../support/mod.rs"]
mod support;
mod upstream;
mod world;
