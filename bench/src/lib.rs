//! halley-bench: a load generator for push gateways that doubts itself.
//!
//! A run holds many client connections ([`fleet`]), lets messages out on a schedule fixed before
//! ([`schedule`]) through a source ([`push`] or the bare server of [`floor`]), and compares what
//! every client received with what was let out ([`tally`]). What the server and the machine spent
//! meanwhile is read from `/proc` ([`cost`]); whether the numbers mean anything is judged in
//! [`doubt`]. [`idle`] lets clients do nothing and reads what the server holds for them ([`memory`],
//! [`kernel`]). In [`churn`], [`storm`] and [`million`] clients come, leave and come back ([`moves`]), or
//! are very many ([`space`]). In [`upstream`] it is the clients who speak.
#![forbid(unsafe_code)]

pub mod broadcast;
pub mod churn;
pub mod cli;
pub mod clients;
pub mod clock;
pub mod cost;
pub mod curve;
pub mod decode;
pub mod doubt;
pub mod enough;
pub mod fault;
pub mod fleet;
pub mod floor;
pub mod floor_server;
pub mod hello;
pub mod http;
pub mod idle;
pub mod interrupt;
pub mod json;
pub mod kernel;
pub mod limit;
pub mod machine;
pub mod measure;
pub mod memory;
pub mod million;
pub mod moves;
pub mod offered;
pub mod page;
pub mod plan;
pub mod preflight;
pub mod push;
pub mod raw;
pub mod raw_decode;
pub mod report;
pub mod report_files;
pub mod rooms;
pub mod sampler;
pub mod scene;
pub mod schedule;
pub mod secure;
pub mod series;
pub mod slow;
pub mod space;
pub mod stand;
pub mod stats;
pub mod storm;
pub mod suite;
pub mod tally;
pub mod target;
pub mod upstream;
