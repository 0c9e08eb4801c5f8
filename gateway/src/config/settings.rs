//! The keys of `halley.toml` and their defaults, one struct per table.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::bind::Bind;
use super::compression::Compression;
use super::hooks::Hooks;
use super::jwt::Jwt;
use super::kafka::Kafka;
use super::limited::Limited;
use super::log::Log;
use super::nodes::Nodes;
use super::proxies::{ClientAddress, TrustedProxies};
use super::tls::Tls;
use super::tokens::Token;
use super::upstream::Upstream;

/// The whole file. `None` in a field means that the machine or another key decides.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Connections of the process. `None`: what limits and memory allow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections_max: Option<u32>,
    /// Shards of the process.
    pub shards: Shards,
    /// Connections that one key may have. `None`: 1, or 16 where they share the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_connections_max: Option<u32>,
    /// What happens to a login when its key has as many connections as it may.
    pub key_policy: KeyPolicy,
    /// Connections accepted a second on average. 0: as many as come.
    pub accepts_per_second_max: u32,
    /// Connections accepted at once after a pause. 0: as many as in a second.
    pub accepts_burst_max: u32,
    /// Bytes of the process in memory above which no more connections are accepted. 0: any.
    pub memory_bytes_max: u64,
    /// From the beginning of a drain, which `/readyz` tells at once, to the end of accepting, milliseconds.
    pub drain_grace_ms: u32,
    /// Over which a drain's clients come back, milliseconds.
    pub drain_window_ms: u32,
    /// How long a drain may take, milliseconds.
    pub drain_ms_max: u32,
    /// `[shard]`.
    pub shard: Shard,
    /// `[compression]`.
    pub compression: Compression,
    /// `[limits]`.
    pub limits: Limited,
    /// `[api]`.
    pub api: Api,
    /// `[api_v1]`. `None`: goim v1's calls are not served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_v1: Option<ApiV1>,
    /// `[jwt]`.
    pub jwt: Jwt,
    /// `[hooks]`.
    pub hooks: Hooks,
    /// `[nodes]`.
    pub nodes: Nodes,
    /// `[log]`.
    pub log: Log,
    /// `[[listener]]`.
    pub listener: Vec<Listener>,
    /// `[kafka]`. `None`: the API dispatches directly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kafka: Option<Kafka>,
    /// `[upstream]`. `None`: messages of clients get goim's empty reply.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<Upstream>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connections_max: None,
            shards: Shards::Auto,
            key_connections_max: None,
            key_policy: KeyPolicy::Replace,
            accepts_per_second_max: 0,
            accepts_burst_max: 0,
            memory_bytes_max: 0,
            drain_grace_ms: 0,
            drain_window_ms: 20_000,
            drain_ms_max: 30_000,
            shard: Shard::default(),
            compression: Compression::default(),
            limits: Limited::default(),
            api: Api::default(),
            api_v1: None,
            jwt: Jwt::default(),
            hooks: Hooks::default(),
            nodes: Nodes::default(),
            log: Log::default(),
            listener: Vec::new(),
            kafka: None,
            upstream: None,
        }
    }
}

impl Settings {
    /// Connections accepted at once.
    pub fn accepts_burst(&self) -> u32 {
        if self.accepts_burst_max == 0 { self.accepts_per_second_max } else { self.accepts_burst_max }
    }

    /// Connections that one key may have.
    pub fn key_connections(&self) -> u32 {
        self.key_connections_max.unwrap_or(if self.key_policy == KeyPolicy::Share { 16 } else { 1 })
    }
}

/// `shards`: a number, or `"auto"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shards {
    /// One per CPU of the inherited affinity mask, and more if the connections need them.
    Auto,
    /// Exactly this many.
    Count(u32),
}

impl Serialize for Shards {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Count(count) => serializer.serialize_u32(*count),
        }
    }
}

impl<'de> Deserialize<'de> for Shards {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Shards;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"auto\" or a number")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Shards, E> {
                if text == "auto" { Ok(Shards::Auto) } else { Err(E::invalid_value(de::Unexpected::Str(text), &self)) }
            }
            fn visit_i64<E: de::Error>(self, n: i64) -> Result<Shards, E> {
                u32::try_from(n).map(Shards::Count).map_err(|_| E::invalid_value(de::Unexpected::Signed(n), &self))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// `key_policy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyPolicy {
    /// The oldest connection of the key is closed.
    Replace,
    /// The new login is refused.
    Refuse,
    /// Several connections have the key; a push to it reaches all of them.
    Share,
}

/// `[shard]`: limits of each shard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Shard {
    /// Bytes of a joined run.
    pub run_bytes_max: u32,
    /// Messages of a joined run.
    pub run_messages_max: u32,
    /// Bytes that wait in a room while a pass over it is under way.
    pub room_pending_bytes_max: u32,
    /// Bytes of runs held for blocked connections.
    pub pinned_bytes_max: u32,
    /// Entries in all outboxes together, 16 bytes each.
    pub outbox_entries_max: u32,
    /// Buffers for unfinished packets.
    pub partials_max: u32,
    /// Sends of one turn.
    pub sends_per_turn_max: u32,
    /// Accepts kept armed on each listener.
    pub accepts_armed_max: u16,
}

impl Default for Shard {
    fn default() -> Self {
        Self {
            run_bytes_max: 16_384,
            run_messages_max: 256,
            room_pending_bytes_max: 4 << 20,
            pinned_bytes_max: 64 << 20,
            outbox_entries_max: 1 << 18,
            partials_max: 1024,
            sends_per_turn_max: 4096,
            accepts_armed_max: 16,
        }
    }
}

/// `[api]`: the HTTP listener.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Api {
    /// Address of the HTTP listener.
    pub bind: Bind,
    /// Who may call.
    pub auth: Auth,
    /// Bearer tokens and their scopes.
    pub tokens: Vec<Token>,
    /// Bytes of a request's body.
    pub body_bytes_max: u32,
    /// HTTP connections at a time; further ones wait to be accepted.
    pub connections_max: u32,
    /// How long a request's head and then its body may take to arrive, milliseconds.
    pub request_ms_max: u32,
    /// Where the address of a caller comes from.
    pub client_address: ClientAddress,
    /// Whose word for it is taken.
    pub trusted_proxies: TrustedProxies,
    /// `api.tls`. `None`: in the clear.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
}

impl Default for Api {
    fn default() -> Self {
        Self {
            bind: Bind::loopback(3111),
            auth: Auth::Token,
            tokens: Vec::new(),
            body_bytes_max: 1 << 20,
            connections_max: 256,
            request_ms_max: 10_000,
            client_address: ClientAddress::Connection,
            trusted_proxies: Vec::new(),
            tls: None,
        }
    }
}

/// `[api_v1]`: the HTTP listener for goim v1's pushers. Its limits and tokens are those of `[api]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApiV1 {
    /// Address of the HTTP listener.
    pub bind: Bind,
    /// Who may call.
    pub auth: Auth,
}

impl Default for ApiV1 {
    fn default() -> Self {
        Self { bind: Bind::loopback(7172), auth: Auth::Token }
    }
}

/// `api.auth` and `api_v1.auth`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Auth {
    /// A bearer token of `api.tokens`.
    Token,
    /// Anybody who reaches the address.
    None,
}

/// `[[listener]]`: one address that clients connect to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Listener {
    /// Its address; port 0 lets the kernel pick.
    pub bind: Bind,
    /// What is spoken under the packets.
    pub transport: Transport,
    /// Which packets are spoken.
    pub dialect: Dialect,
    /// Who may log in.
    pub login: Login,
    /// WebSocket: origins let in. Empty: any.
    pub origins: Vec<String>,
    /// WebSocket: path of the upgrade request. Empty: the dialect's.
    pub path: String,
    /// Kernel send buffer of a connection.
    pub send_buffer_bytes: u32,
    /// Bytes that wait for a connection that takes none.
    pub outbox_bytes_max: u32,
    /// How long a connection may take nothing while something waits, milliseconds.
    pub stall_ms_max: u32,
    /// What gives way when the outbox is full.
    pub slow_policy: SlowPolicy,
    /// How long a connection may take to log in, milliseconds.
    pub login_ms_max: u32,
    /// How long a connection may be without a heartbeat, milliseconds. `None`: as long as its goim lets it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heartbeat_ms_max: Option<u32>,
    /// How long a closing connection may take to read its reason, milliseconds.
    pub linger_ms_max: u32,
    /// WebSocket: compression is agreed to.
    pub compression: bool,
    /// `TCP_USER_TIMEOUT`, milliseconds. 0: the kernel's.
    pub tcp_user_timeout_ms: u32,
    /// Silence after which the kernel probes the peer, milliseconds. 0: never.
    pub keepalive_ms: u32,
    /// Where the address of a client comes from.
    pub client_address: ClientAddress,
    /// Whose word for it is taken.
    pub trusted_proxies: TrustedProxies,
    /// `listener.tls`. `None`: in the clear.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
}

/// Path of the echo, unless the configuration says otherwise.
pub const ECHO_PATH: &str = "/echo";

impl Listener {
    /// Fills in what depends on other keys.
    pub(super) fn resolve(&mut self) {
        if self.path.is_empty() {
            self.path = if self.dialect == Dialect::Echo { ECHO_PATH } else { "/sub" }.into();
        }
        self.heartbeat_ms_max = Some(self.heartbeat_ms());
    }

    /// How long a connection may be without a heartbeat, milliseconds.
    pub fn heartbeat_ms(&self) -> u32 {
        self.heartbeat_ms_max.unwrap_or(if self.dialect == Dialect::GoimV1 { 300_000 } else { 480_000 })
    }
}

impl Default for Listener {
    fn default() -> Self {
        Self {
            bind: Bind::missing(),
            transport: Transport::Tcp,
            dialect: Dialect::GoimV2,
            login: Login::Refuse,
            origins: Vec::new(),
            path: String::new(),
            send_buffer_bytes: 16_384,
            outbox_bytes_max: 65_536,
            stall_ms_max: 30_000,
            slow_policy: SlowPolicy::DropNewest,
            login_ms_max: 5000,
            heartbeat_ms_max: None,
            linger_ms_max: 2000,
            compression: false,
            tcp_user_timeout_ms: 120_000,
            keepalive_ms: 60_000,
            client_address: ClientAddress::Connection,
            trusted_proxies: Vec::new(),
            tls: None,
        }
    }
}

/// `listener.transport`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// Packets on a TCP stream.
    Tcp,
    /// Packets in WebSocket messages.
    Ws,
}

/// `listener.dialect`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dialect {
    /// goim v2.
    GoimV2,
    /// goim v1.
    GoimV1,
    /// Every WebSocket message comes back as it was.
    Echo,
}

/// `listener.login`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Login {
    /// Nobody.
    Refuse,
    /// Anybody, as whoever they say.
    Open,
    /// Holders of a token, as whom it says.
    Jwt,
    /// Whom the platform's service lets in, as whom it says.
    Hook,
}

/// `listener.slow_policy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SlowPolicy {
    /// The message that finds no room.
    DropNewest,
    /// The oldest messages not yet begun.
    DropOldest,
    /// The connection.
    Close,
}
