//! Control: everything that is not per-message, on one thread.

pub mod api;
pub mod app;
pub mod bell;
pub mod certificates;
pub mod decide;
pub mod hooks;
pub mod http;
pub mod listen;
pub mod machine;
mod memory;
pub mod metrics;
mod notify;
mod passed;
mod ready;
pub mod reload;
pub mod shards;
pub mod signals;
pub mod start;
