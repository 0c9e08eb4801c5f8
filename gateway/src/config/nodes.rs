//! `[nodes]`: what clients and other nodes are told of this one.

use serde::{Deserialize, Serialize};

/// `[nodes]`: what `/goim/nodes/…` tells clients.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Nodes {
    /// What other nodes know this one by. Empty: this machine's host name.
    pub name: String,
    /// Domain that clients connect to. Empty: this machine's host name.
    pub domain: String,
    /// Appended to the host name for `platform=web`.
    pub host_domain: String,
    /// Public addresses of this node.
    pub addresses: Vec<String>,
    /// TCP port told to clients. 0: that of the first TCP listener without TLS.
    pub tcp_port: u16,
    /// WebSocket port told to clients. 0: that of the first WebSocket listener without TLS.
    pub ws_port: u16,
    /// Port of WebSocket over TLS told to clients. 0: that of the first WebSocket listener with TLS.
    pub wss_port: u16,
    /// Heartbeat told to clients, seconds.
    pub heartbeat_s: u32,
    /// Missed heartbeats after which a client should connect anew.
    pub heartbeat_missed_max: u32,
    /// Region of this instance.
    pub region: String,
    /// Zone of this instance.
    pub zone: String,
    /// Deployment environment of this instance.
    pub env: String,
    /// Weight of this instance.
    pub weight: u32,
    /// `[nodes.backoff]`.
    pub backoff: Backoff,
}

impl Default for Nodes {
    fn default() -> Self {
        Self {
            name: String::new(),
            domain: String::new(),
            host_domain: String::new(),
            addresses: Vec::new(),
            tcp_port: 0,
            ws_port: 0,
            wss_port: 0,
            heartbeat_s: 240,
            heartbeat_missed_max: 2,
            region: String::new(),
            zone: String::new(),
            env: String::new(),
            weight: 10,
            backoff: Backoff::default(),
        }
    }
}

/// `[nodes.backoff]`: how clients should space their attempts to reconnect.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Backoff {
    /// Longest delay, seconds.
    #[serde(rename = "max_delay")]
    pub delay_max: u32,
    /// First delay, seconds.
    pub base_delay: u32,
    /// Growth per attempt.
    pub factor: f64,
    /// Random part of a delay.
    pub jitter: f64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { delay_max: 300, base_delay: 3, factor: 1.8, jitter: 0.3 }
    }
}
