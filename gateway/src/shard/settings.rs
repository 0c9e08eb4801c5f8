//! What a shard is told when it starts: the resolved configuration, as plain data.

use std::sync::Arc;

use halley_protocol::forwarded::ForwardedBy;

use crate::ids::ShardIndex;
use crate::limits;
use crate::networks::{Cidr, Networks};
use crate::sabotage::{Bug, planted};
use crate::upstream::Rules;

use super::bucket::AcceptRate;
use super::pace::ClientRates;

/// How clients of a listener speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Packets on a TCP stream.
    Tcp,
    /// Packets in WebSocket messages.
    WebSocket,
}

/// What is spoken on a listener, or on a path of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// goim v2.
    GoimV2,
    /// goim v1.
    GoimV1,
    /// Every message comes back as it was.
    Echo,
}

/// Where the address of a client comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientAddress {
    /// It is that of the connection.
    Connection,
    /// A header of the PROXY protocol begins the connection.
    ProxyProtocol,
    /// A header of the upgrade.
    Forwarded(ForwardedBy),
}

/// What happens to a push for a connection whose outbox is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SlowPolicy {
    /// The push is dropped.
    DropNewest,
    /// Waiting pushes are dropped, the oldest first, until the new one fits.
    DropOldest,
    /// The connection is closed.
    Close,
}

/// One listening socket. Times in milliseconds.
#[derive(Clone, Debug)]
pub struct ListenerSettings {
    /// How its clients speak.
    pub transport: Transport,
    /// What is spoken over TCP; over WebSocket the path says it.
    pub dialect: Dialect,
    /// The paths of the WebSocket handshake, and what is spoken there.
    pub paths: Vec<(String, Dialect)>,
    /// Origins that may connect by WebSocket; empty: all.
    pub origins: Vec<String>,
    /// Bytes that wait for one connection beyond the kernel's send buffer; one message always may.
    pub outbox_bytes_max: u32,
    /// A connection with waiting bytes that takes none for so long is closed.
    pub stall_ms_max: u32,
    /// What happens beyond `outbox_bytes_max`.
    pub slow_policy: SlowPolicy,
    /// From accept to login.
    pub login_ms_max: u32,
    /// Between two heartbeats.
    pub heartbeat_ms_max: u32,
    /// How long a closing connection may take to end its side.
    pub linger_ms_max: u32,
    /// Compression is agreed to over WebSocket, where goim v2 is spoken. A reload does not change it.
    pub compression: bool,
    /// How much one client may say.
    pub client_rates: ClientRates,
    /// Where the address of a client comes from.
    pub client_address: ClientAddress,
    /// Whose word for it is taken.
    pub trusted_proxies: Vec<Cidr>,
    /// TLS, and what its connections begin with.
    pub tls: Option<Arc<rustls::ServerConfig>>,
}

/// One shard.
#[derive(Clone, Debug)]
pub struct ShardSettings {
    /// Which.
    pub index: ShardIndex,
    /// Its part of the process' connections.
    pub connections_max: u32,
    /// The listeners, in the order of the ring's.
    pub listeners: Arc<[ListenerSettings]>,
    /// Accepts kept in flight on each listener.
    pub accepts_armed_max: u16,
    /// How many connections it takes in a time.
    pub accept_rate: AcceptRate,
    /// Bytes of a joined run; a single message may be longer.
    pub run_bytes_max: u32,
    /// Messages of a run.
    pub run_messages_max: u32,
    /// Bytes that wait in one room while a run passes through it.
    pub room_pending_bytes_max: u32,
    /// Bytes of runs held for blocked connections.
    pub pinned_bytes_max: u32,
    /// Places in all outboxes together.
    pub outbox_entries_max: u32,
    /// Connections with an unfinished packet.
    pub partials_max: u32,
    /// Sends of one turn.
    pub sends_per_turn_max: u32,
    /// Rooms with members in this shard.
    pub rooms_max: u32,
    /// What is passed on, if anything is.
    pub upstream: Option<Arc<Rules>>,
    /// Rooms of one connection, [`limits::ROOMS_PER_CONNECTION_MAX`] at most.
    pub rooms_per_connection_max: u8,
    /// Connections of one source network, all shards together. 0: any, and they are not counted.
    pub network_connections_max: u32,
    /// Where they are counted; all shards have the same.
    pub networks: Arc<Networks>,
}

/// What a running shard takes over from a configuration read anew, all of it between two packets.
#[derive(Clone, Debug)]
pub struct Reloadable {
    /// As many as before, of the same transports and paths.
    pub listeners: Arc<[ListenerSettings]>,
    /// As in [`ShardSettings`].
    pub accept_rate: AcceptRate,
    /// As in [`ShardSettings`].
    pub run_bytes_max: u32,
    /// As in [`ShardSettings`].
    pub run_messages_max: u32,
    /// As in [`ShardSettings`].
    pub room_pending_bytes_max: u32,
    /// As in [`ShardSettings`].
    pub sends_per_turn_max: u32,
    /// As in [`ShardSettings`]; there if it was at the start.
    pub upstream: Option<Arc<Rules>>,
    /// As in [`ShardSettings`]. Who is in more rooms stays in them.
    pub rooms_per_connection_max: u8,
    /// As in [`ShardSettings`]. Who came while none were counted does not count.
    pub network_connections_max: u32,
}

#[allow(clippy::cast_possible_truncation, reason = "asserted")]
const ROOMS_PER_CONNECTION: u8 = {
    assert!(limits::ROOMS_PER_CONNECTION_MAX <= u8::MAX as usize);
    limits::ROOMS_PER_CONNECTION_MAX as u8
};

impl ShardSettings {
    /// What of these a reload brings.
    pub fn reloadable(&self) -> Reloadable {
        Reloadable {
            listeners: Arc::clone(&self.listeners),
            accept_rate: self.accept_rate,
            run_bytes_max: self.run_bytes_max,
            run_messages_max: self.run_messages_max,
            room_pending_bytes_max: self.room_pending_bytes_max,
            sends_per_turn_max: self.sends_per_turn_max,
            upstream: self.upstream.clone(),
            rooms_per_connection_max: self.rooms_per_connection_max,
            network_connections_max: self.network_connections_max,
        }
    }

    pub(super) fn take_over(&mut self, new: &Reloadable) {
        debug_assert_eq!(self.listeners.len(), new.listeners.len());
        self.listeners = Arc::clone(&new.listeners);
        if planted(Bug::HalfReload) {
            return;
        }
        self.accept_rate = new.accept_rate;
        self.run_bytes_max = new.run_bytes_max;
        self.run_messages_max = new.run_messages_max;
        self.room_pending_bytes_max = new.room_pending_bytes_max;
        self.sends_per_turn_max = new.sends_per_turn_max;
        self.upstream.clone_from(&new.upstream);
        self.rooms_per_connection_max = new.rooms_per_connection_max;
        self.network_connections_max = new.network_connections_max;
    }

    /// The defaults for a shard of so many connections.
    pub fn new(index: ShardIndex, connections_max: u32, listeners: Arc<[ListenerSettings]>) -> Self {
        Self {
            index,
            connections_max,
            listeners,
            accepts_armed_max: 16,
            accept_rate: AcceptRate::default(),
            run_bytes_max: 16 * 1024,
            run_messages_max: 256,
            room_pending_bytes_max: 4 << 20,
            pinned_bytes_max: 64 << 20,
            outbox_entries_max: 1 << 18,
            partials_max: 1024,
            sends_per_turn_max: 4096,
            rooms_max: u32::try_from(limits::SHARD_ROOMS_MAX).unwrap_or(u32::MAX),
            upstream: None,
            rooms_per_connection_max: ROOMS_PER_CONNECTION,
            network_connections_max: 0,
            networks: Arc::new(Networks::none()),
        }
    }

    /// Bytes that slow clients can make this shard hold at most: pinned runs, outbox entries, and what is echoed.
    pub fn slow_bytes_max(&self) -> u64 {
        u64::from(self.pinned_bytes_max) + 16 * u64::from(self.outbox_entries_max) + u64::from(self.echo_bytes_max())
    }

    /// Bytes of messages that echo connections may make this shard hold.
    pub(super) fn echo_bytes_max(&self) -> u32 {
        let mut paths = self.listeners.iter().flat_map(|listener| &listener.paths);
        if paths.any(|(_, dialect)| *dialect == Dialect::Echo) { limits::ECHO_HELD_BYTES_MAX } else { 0 }
    }
}

impl ListenerSettings {
    /// The defaults for a transport, with goim v2.
    pub fn new(transport: Transport) -> Self {
        Self {
            transport,
            dialect: Dialect::GoimV2,
            paths: vec![("/sub".into(), Dialect::GoimV2)],
            origins: Vec::new(),
            outbox_bytes_max: 64 * 1024,
            stall_ms_max: 30_000,
            slow_policy: SlowPolicy::DropNewest,
            login_ms_max: 5000,
            heartbeat_ms_max: 480_000,
            linger_ms_max: 2000,
            compression: false,
            client_rates: ClientRates::default(),
            client_address: ClientAddress::Connection,
            trusted_proxies: Vec::new(),
            tls: None,
        }
    }

    /// The same in another dialect.
    #[must_use]
    pub fn speaking(self, dialect: Dialect) -> Self {
        let paths = self.paths.into_iter().map(|(path, _)| (path, dialect)).collect();
        Self { dialect, paths, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn what_slow_clients_can_hold_is_the_sum_of_its_maxima() {
        let of = |dialects: &[Dialect]| {
            let listeners =
                dialects.iter().map(|dialect| ListenerSettings::new(Transport::WebSocket).speaking(*dialect));
            let settings = ShardSettings::new(ShardIndex(0), 10, listeners.collect());
            ShardSettings { pinned_bytes_max: 7 << 20, outbox_entries_max: 1000, ..settings }.slow_bytes_max()
        };
        let pushes = (7 << 20) + 16_000;
        assert_eq!(of(&[Dialect::GoimV2, Dialect::GoimV1]), pushes);
        assert_eq!(of(&[Dialect::GoimV2, Dialect::Echo]), pushes + u64::from(limits::ECHO_HELD_BYTES_MAX));
    }

    #[test]
    fn the_defaults_are_those_of_the_configuration() {
        let (ours, theirs) = (ShardSettings::new(ShardIndex(0), 10, Arc::new([])), config::Shard::default());
        assert_eq!(ours.run_bytes_max, theirs.run_bytes_max);
        assert_eq!(ours.run_messages_max, theirs.run_messages_max);
        assert_eq!(ours.room_pending_bytes_max, theirs.room_pending_bytes_max);
        assert_eq!(ours.pinned_bytes_max, theirs.pinned_bytes_max);
        assert_eq!(ours.outbox_entries_max, theirs.outbox_entries_max);
        assert_eq!(ours.partials_max, theirs.partials_max);
        assert_eq!(ours.sends_per_turn_max, theirs.sends_per_turn_max);
        assert_eq!(ours.accepts_armed_max, theirs.accepts_armed_max);
        let outbox_bytes_max = ListenerSettings::new(Transport::Tcp).outbox_bytes_max;
        assert_eq!(outbox_bytes_max, config::Listener::default().outbox_bytes_max);
    }
}
