//! The rules that settings keep, alone and with each other.

use std::net::SocketAddr;

use halley_protocol::websocket::deflate::LEVELS;

use super::error::{ConfigError, Place};
use super::layers::Sources;
use super::proxies::ClientAddress;
use super::settings::{Auth, Dialect, Listener, Login, Settings, Shards, Transport};
use super::tls::Tls;
use super::tokens::Token;
use super::upstream::{Operations, Upstream};
use crate::networks::Cidr;
use crate::shard::RATE_MAX;
use crate::tls::{Problem, Speaks};
use crate::{identity, limits};

/// Listeners of a process: a listener's number is one byte in a question to control, few are useful.
pub(super) const LISTENERS_MAX: usize = 16;

/// Shortest token that is accepted, bytes.
pub(super) const TOKEN_BYTES_MIN: usize = 16;

/// Keys of tokens: a login looks its own up among them.
pub(super) const JWT_KEYS_MAX: usize = 64;

/// Tokens of the API: each call is compared with all of them.
pub(super) const TOKENS_MAX: usize = 256;

/// Entries of `upstream.operations`: every packet that is none of goim's is compared with them.
pub(super) const UPSTREAM_OPERATIONS_MAX: usize = 64;
/// Networks of trusted proxies: the address of a connection is compared with all of them.
pub(super) const TRUSTED_PROXIES_MAX: usize = 64;

/// Checks every rule; the first one broken is the error.
pub(super) fn check(settings: &Settings, sources: &Sources) -> Result<(), ConfigError> {
    let check = Check { settings, sources };
    check.ranges()?;
    check.api()?;
    check.kafka()?;
    check.upstream()?;
    check.listeners()?;
    check.jwt()?;
    check.hooks()?;
    if sources.is_dev() { check.loopback_only() } else { Ok(()) }
}

struct Check<'a> {
    settings: &'a Settings,
    sources: &'a Sources,
}

impl Check<'_> {
    fn wrong<T>(&self, key: &str, problem: impl Into<String>) -> Result<T, ConfigError> {
        Err(ConfigError { place: self.sources.place(key), key: key.into(), problem: problem.into() })
    }

    fn range(&self, key: &str, value: u64, min: u64, max: u64) -> Result<(), ConfigError> {
        if (min..=max).contains(&value) {
            return Ok(());
        }
        self.wrong(key, format!("{value} is out of range: use {min} to {max}"))
    }

    fn at_least(&self, key: &str, value: u64, other: &str, min: u64) -> Result<(), ConfigError> {
        if value >= min {
            return Ok(());
        }
        // The other one may be the one that is wrong.
        let other_key = other.split(' ').next().unwrap_or_default();
        let by = match self.sources.place(other_key) {
            Place::Environment(variable) => format!(" by {variable}"),
            Place::File { .. } | Place::Defaults => String::new(),
        };
        self.wrong(key, format!("{value} is less than {other}, which is {min}{by}: raise the one or lower the other"))
    }

    fn ranges(&self) -> Result<(), ConfigError> {
        let Settings { shard, compression, nodes, .. } = self.settings;
        let payload = limits::PAYLOAD_BYTES_MAX as u64;
        self.limited()?;
        if let Some(connections_max) = self.settings.connections_max {
            self.range(
                "connections_max",
                connections_max.into(),
                1,
                (limits::SHARDS_MAX * limits::SHARD_CONNECTIONS_MAX) as u64,
            )?;
        }
        if let Shards::Count(count) = self.settings.shards {
            self.range("shards", count.into(), 1, limits::SHARDS_MAX as u64)?;
        }
        self.range("key_connections_max", self.settings.key_connections().into(), 1, 1024)?;
        self.range("accepts_per_second_max", self.settings.accepts_per_second_max.into(), 0, 10_000_000)?;
        self.range("accepts_burst_max", self.settings.accepts_burst_max.into(), 0, 10_000_000)?;
        if self.settings.memory_bytes_max > 0 {
            self.range("memory_bytes_max", self.settings.memory_bytes_max, 1 << 20, 1 << 50)?;
        }
        self.drain()?;
        self.range("shard.run_bytes_max", shard.run_bytes_max.into(), 1024, 1 << 24)?;
        self.range("shard.run_messages_max", shard.run_messages_max.into(), 1, 4096)?;
        self.range("shard.room_pending_bytes_max", shard.room_pending_bytes_max.into(), 2 * payload, 1 << 30)?;
        self.range("shard.pinned_bytes_max", shard.pinned_bytes_max.into(), 2 * payload, u32::MAX.into())?;
        self.range("shard.outbox_entries_max", shard.outbox_entries_max.into(), 1024, 1 << 28)?;
        self.range("shard.partials_max", shard.partials_max.into(), 1, 1 << 20)?;
        self.range("shard.sends_per_turn_max", shard.sends_per_turn_max.into(), 256, 1 << 20)?;
        self.range("shard.accepts_armed_max", shard.accepts_armed_max.into(), 1, 256)?;
        self.at_least(
            "shard.pinned_bytes_max",
            shard.pinned_bytes_max.into(),
            "shard.run_bytes_max",
            shard.run_bytes_max.into(),
        )?;
        self.range("compression.level", compression.level.into(), (*LEVELS.start()).into(), (*LEVELS.end()).into())?;
        self.range("compression.bytes_min", compression.bytes_min.into(), 0, payload)?;
        if nodes.name.len() > 256 || nodes.name.contains('/') {
            return self.wrong("nodes.name", "is no name of a node: use at most 256 bytes and no slash");
        }
        self.range("nodes.heartbeat_s", nodes.heartbeat_s.into(), 1, 86_400)?;
        if !self.settings.log.has_level() {
            return self.wrong(
                "log.level",
                format!("\"{}\" is no level: use error, warn, info, debug or trace", self.settings.log.level),
            );
        }
        Ok(())
    }

    fn limited(&self) -> Result<(), ConfigError> {
        let limited = &self.settings.limits;
        let rooms = limited.rooms_per_connection_max;
        self.range("limits.rooms_per_connection_max", rooms.into(), 1, limits::ROOMS_PER_CONNECTION_MAX as u64)?;
        self.range("limits.network_v4_bits", limited.network_v4_bits.into(), 8, 32)?;
        self.range("limits.network_v6_bits", limited.network_v6_bits.into(), 16, 128)?;
        for (key, value) in [
            ("limits.client_packets_per_second_max", limited.client_packets_per_second_max),
            ("limits.client_packets_burst_max", limited.client_packets_burst_max),
            ("limits.client_bytes_per_second_max", limited.client_bytes_per_second_max),
            ("limits.client_bytes_burst_max", limited.client_bytes_burst_max),
        ] {
            self.range(key, value.into(), 0, RATE_MAX.into())?;
        }
        Ok(())
    }

    fn drain(&self) -> Result<(), ConfigError> {
        let Settings { drain_grace_ms, drain_window_ms, drain_ms_max, .. } = *self.settings;
        self.range("drain_ms_max", drain_ms_max.into(), 1, 3_600_000)?;
        self.range("drain_window_ms", drain_window_ms.into(), 0, 3_600_000)?;
        self.range("drain_grace_ms", drain_grace_ms.into(), 0, 3_600_000)?;
        self.at_least("drain_ms_max", drain_ms_max.into(), "drain_grace_ms and one more", u64::from(drain_grace_ms) + 1)
    }

    fn api(&self) -> Result<(), ConfigError> {
        let api = &self.settings.api;
        self.range("api.body_bytes_max", api.body_bytes_max.into(), 1024, 1 << 28)?;
        self.range("api.connections_max", api.connections_max.into(), 1, 4096)?;
        self.range("api.request_ms_max", api.request_ms_max.into(), 100, 600_000)?;
        self.tls("api.tls", api.tls.as_ref(), Speaks::Api)?;
        self.client_address("api", api.client_address, &api.trusted_proxies)?;
        if api.client_address == ClientAddress::ProxyProtocol {
            return self.wrong(
                "api.client_address",
                "the API reads no header of the PROXY protocol: use \"x-forwarded-for\" or \"forwarded\"",
            );
        }
        let auth_v1 = self.settings.api_v1.as_ref().map_or(Auth::None, |api_v1| api_v1.auth);
        if api.auth == Auth::None && auth_v1 == Auth::None {
            return Ok(());
        }
        if api.tokens.is_empty() && api.auth == Auth::None {
            return self.wrong(
                "api_v1.auth",
                "is \"token\", and api.tokens has none: set some, or \"none\" to let in whoever reaches the address, as goim v1 does",
            );
        }
        self.tokens()
    }

    fn tokens(&self) -> Result<(), ConfigError> {
        let tokens = &self.settings.api.tokens;
        let wrong = |problem: String| self.wrong("api.tokens", problem);
        if tokens.is_empty() {
            return wrong(
                "auth = \"token\" needs at least one token: make one with `head -c 32 /dev/urandom | base64` and set it here \
                 or as HALLEY__API__TOKENS='[\"…\"]'"
                    .into(),
            );
        }
        if tokens.len() > TOKENS_MAX {
            return wrong(format!("{} tokens: at most {TOKENS_MAX} are possible", tokens.len()));
        }
        let visible = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        for (at, token) in tokens.iter().enumerate() {
            match token {
                Token::Plain(token) if token.len() < TOKEN_BYTES_MIN || !visible(token) => {
                    return wrong(format!(
                        "a token has at least {TOKEN_BYTES_MIN} visible ASCII characters: make one with `head -c 32 /dev/urandom | base64`"
                    ));
                }
                Token::Plain(_) => {}
                Token::Hashed(token) => {
                    token.check().or_else(wrong)?;
                    let same = |other: &Token| matches!(other, Token::Hashed(other) if other.name == token.name);
                    if tokens[..at].iter().any(same) {
                        return wrong(format!(
                            "two tokens are named \"{}\": the log could not tell them apart",
                            token.name
                        ));
                    }
                }
            }
            if let Some(first) = tokens[..at].iter().position(|other| other.hash() == token.hash()) {
                return wrong(format!("tokens {} and {} are the same: make one for each", first + 1, at + 1));
            }
        }
        Ok(())
    }

    /// All that a `tls` table names is read, as at start.
    fn tls(&self, at: &str, tls: Option<&Tls>, speaks: Speaks) -> Result<(), ConfigError> {
        let Some(tls) = tls else { return Ok(()) };
        match crate::tls::load(tls, speaks, None) {
            Ok(_) => Ok(()),
            Err(Problem { key, problem }) => self.wrong(&format!("{at}.{key}"), problem),
        }
    }

    fn jwt(&self) -> Result<(), ConfigError> {
        let jwt = &self.settings.jwt;
        self.range("jwt.leeway_s", jwt.leeway_s.into(), 0, 3600)?;
        if jwt.keys.len() > JWT_KEYS_MAX {
            return self.wrong("jwt.keys", format!("{} keys: at most {JWT_KEYS_MAX} are possible", jwt.keys.len()));
        }
        for (at, key) in jwt.keys.iter().enumerate() {
            let name = format!("jwt.keys[{at}].kid");
            if key.kid.is_empty() {
                return self.wrong(&name, "is empty: give the key the name that is in the tokens' headers");
            }
            if jwt.keys[..at].iter().any(|other| other.kid == key.kid) {
                return self
                    .wrong(&name, format!("\"{}\" is also the name of another key: give each its own", key.kid));
            }
        }
        identity::load(jwt).map(drop).or_else(|(key, problem)| self.wrong(&key, problem))
    }

    fn hooks(&self) -> Result<(), ConfigError> {
        let hooks = &self.settings.hooks;
        self.range("hooks.call_ms_max", hooks.call_ms_max.into(), 10, 600_000)?;
        self.range("hooks.calls_max", hooks.calls_max.into(), 1, 4096)?;
        self.range("hooks.pending_max", hooks.pending_max.into(), 1, 1 << 20)?;
        self.range("hooks.answer_bytes_max", hooks.answer_bytes_max.into(), 256, 1 << 24)?;
        self.range("hooks.gone_batch_max", hooks.gone_batch_max.into(), 1, 10_000)?;
        self.range("hooks.gone_queue_max", hooks.gone_queue_max.into(), 1, 1 << 24)?;
        self.range("hooks.gone_tries_max", hooks.gone_tries_max.into(), 1, 1000)?;
        crate::control::hooks::rules(hooks).map(drop).or_else(|(key, problem)| self.wrong(&key, problem))
    }

    /// Who waits for an answer must not be late by that.
    fn waits_for_hooks(&self, at: &str, listener: &Listener) -> Result<(), ConfigError> {
        let hooks = &self.settings.hooks;
        let (other, call_ms_max) = ("hooks.call_ms_max", hooks.call_ms_max.into());
        if listener.login == Login::Hook || !hooks.join_url.is_empty() {
            self.at_least(&format!("{at}.login_ms_max"), listener.login_ms_max.into(), other, call_ms_max)?;
            self.at_least(&format!("{at}.heartbeat_ms_max"), listener.heartbeat_ms().into(), other, call_ms_max)?;
        }
        Ok(())
    }

    fn kafka(&self) -> Result<(), ConfigError> {
        let Some(kafka) = &self.settings.kafka else { return Ok(()) };
        if kafka.brokers.is_empty() {
            return self.wrong("kafka.brokers", "is empty: name at least one broker, such as [\"127.0.0.1:9092\"]");
        }
        if kafka.topic.is_empty() {
            return self.wrong("kafka.topic", "is empty: name the topic with the jobs");
        }
        if kafka.dead_letter_topic == kafka.topic {
            return self.wrong("kafka.dead_letter_topic", "is kafka.topic, which would read it again: name another");
        }
        for (key, other) in [("kafka.topic", &kafka.topic), ("kafka.dead_letter_topic", &kafka.dead_letter_topic)] {
            if !kafka.nodes_topic.is_empty() && kafka.nodes_topic == *other {
                return self.wrong("kafka.nodes_topic", format!("is {key}, whose records are others: name another"));
            }
        }
        self.range("kafka.node_ms_max", kafka.node_ms_max.into(), 1000, 600_000)?;
        self.range("kafka.node_rooms_max", kafka.node_rooms_max.into(), 1, 1 << 18)?;
        self.range("kafka.produce_ms_max", kafka.produce_ms_max.into(), 100, 600_000)?;
        self.range("kafka.fetched_bytes_max", kafka.fetched_bytes_max.into(), 1 << 14, 1 << 30)?;
        match kafka.properties() {
            Err(name) => self.wrong("kafka.client", format!("{name} has no plain value: write \"{name}\" = \"…\"")),
            Ok(_) => crate::source::kafka::check(kafka).or_else(|(key, problem)| self.wrong(key, problem)),
        }
    }

    fn upstream(&self) -> Result<(), ConfigError> {
        let Some(upstream) = &self.settings.upstream else { return Ok(()) };
        self.upstream_place(upstream)?;
        let operations = &upstream.operations;
        if operations.is_empty() || operations.len() > UPSTREAM_OPERATIONS_MAX {
            let problem = format!("{} entries: use 1 to {UPSTREAM_OPERATIONS_MAX}, such as [4]", operations.len());
            return self.wrong("upstream.operations", problem);
        }
        let own = |range: &&Operations| range.first < 18 && (range.first, range.last) != (4, 4);
        if let Some(range) = operations.iter().find(own) {
            let problem = format!("{} has a meaning of its own in goim: use 4, and 18 and above", range.first);
            return self.wrong("upstream.operations", problem);
        }
        let bytes = halley_protocol::packet::BODY_BYTES_MAX as u64;
        self.range("upstream.message_bytes_max", upstream.message_bytes_max.into(), 1, bytes)?;
        self.range("upstream.messages_per_second_max", upstream.messages_per_second_max.into(), 0, 1_000_000)?;
        self.range("upstream.messages_burst_max", upstream.messages_burst_max.into(), 1, 1_000_000)?;
        self.range("upstream.connection_in_flight_max", upstream.connection_in_flight_max.into(), 1, 1024)?;
        self.range("upstream.in_flight_max", upstream.in_flight_max.into(), 64, 1 << 20)?;
        self.range("upstream.answer_ms_max", upstream.answer_ms_max.into(), 100, 600_000)?;
        self.range("upstream.requests_max", upstream.requests_max.into(), 1, 256)?;
        self.range("upstream.batch_messages_max", upstream.batch_messages_max.into(), 1, 1024)
    }

    fn upstream_place(&self, upstream: &Upstream) -> Result<(), ConfigError> {
        let Upstream { kafka_topic: topic, url, .. } = upstream;
        match (topic.is_empty(), url.is_empty()) {
            (true, true) => {
                return self.wrong("upstream", "says not where messages go: set kafka_topic or url");
            }
            (false, false) => {
                return self.wrong("upstream.url", "kafka_topic is set too, and messages go to one place: remove one");
            }
            _ => {}
        }
        if topic.is_empty() {
            return crate::upstream::endpoint_rules(upstream)
                .map(drop)
                .or_else(|(key, problem)| self.wrong(key, problem));
        }
        let Some(kafka) = &self.settings.kafka else {
            return self.wrong("upstream.kafka_topic", "needs a broker: add a table [kafka] with brokers");
        };
        let taken = [&kafka.topic, &kafka.dead_letter_topic, &kafka.nodes_topic];
        if taken.contains(&topic) {
            return self.wrong("upstream.kafka_topic", "is a topic of [kafka] with other records: name another");
        }
        Ok(())
    }

    fn listeners(&self) -> Result<(), ConfigError> {
        let listeners = &self.settings.listener;
        if listeners.len() > LISTENERS_MAX {
            return self
                .wrong("listener", format!("{} listeners: at most {LISTENERS_MAX} are possible", listeners.len()));
        }
        for (at, listener) in listeners.iter().enumerate() {
            self.listener(&format!("listener[{at}]"), listener)?;
        }
        if !listeners.iter().any(|listener| {
            matches!(listener.login, Login::Open | Login::Jwt | Login::Hook) || listener.dialect == Dialect::Echo
        }) {
            return self.wrong(
                "listener",
                "no listener lets anybody in: add a [[listener]] with bind, transport and login = \"open\", or try `halley --dev`",
            );
        }
        self.addresses()
    }

    // long: the rules of a listener, one after another
    fn listener(&self, at: &str, listener: &Listener) -> Result<(), ConfigError> {
        let key = |name: &str| format!("{at}.{name}");
        if listener.bind.address.is_none() {
            return self
                .wrong(&key("bind"), "is missing: add an address to listen on, such as bind = \"0.0.0.0:3101\"");
        }
        match listener.dialect {
            Dialect::GoimV2 | Dialect::GoimV1 => {}
            Dialect::Echo if listener.transport == Transport::Ws => {}
            Dialect::Echo => {
                return self.wrong(&key("dialect"), "WebSocket messages are echoed: use transport = \"ws\"");
            }
        }
        match listener.login {
            Login::Refuse | Login::Open => {}
            Login::Jwt if listener.dialect == Dialect::GoimV1 => {
                return self
                    .wrong(&key("login"), "a login of goim v1 has no place for a token: use dialect = \"goim-v2\"");
            }
            Login::Jwt if !self.settings.jwt.keys.is_empty() => {}
            Login::Jwt => {
                return self.wrong(&key("login"), "needs a key that tokens are signed with: add a table [[jwt.keys]]");
            }
            Login::Hook if listener.dialect == Dialect::GoimV1 => {
                return self.wrong(&key("login"), "goim v1's clients know no other login: use dialect = \"goim-v2\"");
            }
            Login::Hook if !self.settings.hooks.login_url.is_empty() => {}
            Login::Hook => return self.wrong(&key("login"), "needs somebody to ask: set hooks.login_url"),
        }
        self.waits_for_hooks(at, listener)?;
        let speaks = if listener.transport == Transport::Ws { Speaks::Http } else { Speaks::Packets };
        self.tls(&key("tls"), listener.tls.as_ref(), speaks)?;
        self.client_address(at, listener.client_address, &listener.trusted_proxies)?;
        let by_header = matches!(listener.client_address, ClientAddress::XForwardedFor | ClientAddress::Forwarded);
        if by_header && listener.transport == Transport::Tcp {
            return self.wrong(&key("client_address"), "headers come only over transport = \"ws\"");
        }
        if !listener.path.starts_with('/') {
            return self.wrong(
                &key("path"),
                format!("\"{}\" is no path: it starts with a slash, such as \"/sub\"", listener.path),
            );
        }
        if listener.transport == Transport::Tcp && !listener.origins.is_empty() {
            return self
                .wrong(&key("origins"), "browsers send an origin only over transport = \"ws\": remove the key here");
        }
        if listener.compression && (listener.transport, listener.dialect) != (Transport::Ws, Dialect::GoimV2) {
            return self.wrong(
                &key("compression"),
                "is agreed to over transport = \"ws\" with dialect = \"goim-v2\": remove the key here",
            );
        }
        self.range(&key("send_buffer_bytes"), listener.send_buffer_bytes.into(), 4096, 1 << 26)?;
        self.range(&key("stall_ms_max"), listener.stall_ms_max.into(), 100, 86_400_000)?;
        self.range(&key("login_ms_max"), listener.login_ms_max.into(), 100, 86_400_000)?;
        self.range(&key("heartbeat_ms_max"), listener.heartbeat_ms().into(), 1000, 86_400_000)?;
        self.range(&key("linger_ms_max"), listener.linger_ms_max.into(), 1, 60_000)?;
        self.range(&key("tcp_user_timeout_ms"), listener.tcp_user_timeout_ms.into(), 0, 86_400_000)?;
        self.range(&key("keepalive_ms"), listener.keepalive_ms.into(), 0, 86_400_000)?;
        let outbox = u64::from(listener.outbox_bytes_max);
        self.range(&key("outbox_bytes_max"), outbox, 1024, 1 << 30)?;
        self.at_least(
            &key("outbox_bytes_max"),
            outbox,
            "shard.run_bytes_max",
            self.settings.shard.run_bytes_max.into(),
        )?;
        self.at_least(
            "shard.pinned_bytes_max",
            self.settings.shard.pinned_bytes_max.into(),
            &key("outbox_bytes_max"),
            outbox,
        )
    }

    /// Whose word is taken is said exactly where one is.
    fn client_address(&self, at: &str, address: ClientAddress, trusted: &[Cidr]) -> Result<(), ConfigError> {
        let key = format!("{at}.trusted_proxies");
        match address {
            ClientAddress::Connection if trusted.is_empty() => Ok(()),
            ClientAddress::Connection => {
                self.wrong(&key, "says whose word is taken for what nobody asks: set client_address, or remove the key")
            }
            _ if trusted.is_empty() => self.wrong(
                &key,
                "is empty: name the networks of the proxies, such as [\"10.0.0.0/8\"], or nobody's word would be taken",
            ),
            _ if trusted.len() > TRUSTED_PROXIES_MAX => {
                self.wrong(&key, format!("{} networks: at most {TRUSTED_PROXIES_MAX} are possible", trusted.len()))
            }
            _ => Ok(()),
        }
    }

    fn addresses(&self) -> Result<(), ConfigError> {
        let mut taken: Vec<(SocketAddr, String)> = Vec::new();
        for (key, address) in self.every_address() {
            if let Some((_, other)) = taken.iter().find(|(other, _)| *other == address && address.port() != 0) {
                return self.wrong(&key, format!("{address} is also the address of {other}: give each its own port"));
            }
            taken.push((address, key));
        }
        Ok(())
    }

    fn loopback_only(&self) -> Result<(), ConfigError> {
        match self.every_address().find(|(_, address)| !address.ip().is_loopback()) {
            Some((key, address)) => self.wrong(
                &key,
                format!("--dev lets anybody in and stays on loopback: {address} needs a configuration file (--config)"),
            ),
            None => Ok(()),
        }
    }

    fn every_address(&self) -> impl Iterator<Item = (String, SocketAddr)> {
        let listeners = self
            .settings
            .listener
            .iter()
            .enumerate()
            .map(|(at, listener)| (format!("listener[{at}].bind"), &listener.bind));
        let api_v1 = self.settings.api_v1.iter().map(|api_v1| ("api_v1.bind".into(), &api_v1.bind));
        std::iter::once(("api.bind".into(), &self.settings.api.bind))
            .chain(listeners)
            .chain(api_v1)
            .filter_map(|(key, bind)| Some((key, bind.address?)))
    }
}
