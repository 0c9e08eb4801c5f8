//! The HTTP API in process, with shards played by the test: what is asked, what shards are ordered, what is answered.

mod access;
mod control;
mod goim;
mod harness;
mod program;
mod push;
mod server;
mod v1;
mod views;
