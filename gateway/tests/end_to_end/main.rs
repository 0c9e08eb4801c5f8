//! The real binary from outside: what clients, callers and operators of a running gateway see.

mod bad_input;
mod bounds;
mod calls;
mod compression;
mod delivery;
mod echo;
mod endings;
mod endpoint;
mod handshakes;
mod hooks;
mod identity;
mod limits;
mod page;
mod proxies;
mod reload;
mod restart;
mod slots;
mod slow;
mod start;
#[path = "../support/mod.rs"]
mod support;
mod systemd;
mod tls;
mod tokens;
mod upstream;
