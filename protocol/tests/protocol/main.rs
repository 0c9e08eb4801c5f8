//! What clients may send and what they are answered, shown on bytes.

mod any_cut;
mod deflate;
mod document;
mod extensions;
mod forwarded;
mod frames;
mod goim_bytes;
mod halley;
mod handshake;
mod jobs;
mod login;
mod nodes;
mod operations;
mod packets;
mod pieces;
mod proxy;
mod pushes;
mod support;
mod tungstenite_agrees;
mod v1;
