//! Starts the shards' threads and waits until each serves.

use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::mpsc;

use halley_protocol::forwarded::ForwardedBy;
use halley_ring::RingSettings;

use super::start::StartError;
use crate::config::{ClientAddress, Config, Dialect, ECHO_PATH, SlowPolicy, Transport, Upstream};
use crate::directory::HashSecret;
use crate::ids::ShardIndex;
use crate::limits;
use crate::link::{ControlBell, ShardLink};
use crate::networks::{Networks, Prefixes};
use crate::shard::{self, AcceptRate, ListenerSettings, Reloadable, ShardSettings, ShardStart};
use crate::upstream::{Rules, UpstreamLink};

/// The body of a shard's thread; it returns after [`crate::order::Report::Drained`].
pub type RunShard = fn(ShardStart);

/// Queues and counters of every shard.
///
/// `upstream` is the bell of the upstream thread, where there is one.
pub fn links(config: &Config, upstream: Option<&Arc<ControlBell>>) -> Arc<[Arc<ShardLink>]> {
    let in_flight_max = config.settings.upstream.as_ref().map(|it| it.shard_in_flight_max(config.plan.shards));
    let link = || {
        let link = ShardLink::new(limits::SHARD_ROOMS_MAX);
        match (in_flight_max, upstream) {
            (Some(max), Some(bell)) => link.with_upstream(UpstreamLink::new(max, Arc::clone(bell))),
            _ => link,
        }
    };
    (0..config.plan.shards).map(|_| Arc::new(link())).collect()
}

/// Starts a thread for each shard on its CPU, and returns when all serve or one does not.
pub(super) fn start(
    config: &Config,
    tls: &[Option<Arc<rustls::ServerConfig>>],
    sockets: Vec<TcpListener>,
    links: &[Arc<ShardLink>],
    bell: &Arc<ControlBell>,
    run_shard: RunShard,
) -> Result<(), StartError> {
    let listeners: Arc<[ListenerSettings]> = listeners(config)
        .iter()
        .zip(tls)
        .map(|(it, tls)| ListenerSettings { tls: tls.clone(), ..it.clone() })
        .collect();
    // Rings name the sockets by number until the process ends.
    let fds: Vec<_> = Vec::leak(sockets).iter().map(AsRawFd::as_raw_fd).collect();
    let networks = networks(config);
    let (report, ready) = mpsc::channel();
    for (at, link) in links.iter().enumerate() {
        let report = report.clone();
        let settings = ShardSettings {
            networks: Arc::clone(&networks),
            ..shard(config, ShardIndex(u8::try_from(at).expect("few shards")), &listeners)
        };
        let start = ShardStart {
            ring: RingSettings {
                slots: settings.connections_max,
                listeners: fds.clone(),
                accepts: settings.accepts_armed_max * u16::try_from(fds.len()).expect("few listeners"),
                notify: Some(bell.file().as_raw_fd()),
            },
            settings,
            link: Arc::clone(link),
            bell: Arc::clone(bell),
            alone: config.plan.cpus.iter().filter(|cpu| **cpu == config.plan.cpus[at]).count() == 1,
            ready: Box::new(move |result| drop(report.send((at, result)))),
        };
        let cpu = config.plan.cpus[at];
        let thread = std::thread::Builder::new().name(format!("shard-{at}"));
        let spawned = thread.spawn(move || {
            let _abort = AbortOnPanic;
            pin(cpu);
            run_shard(start);
        });
        spawned.map_err(|cause| StartError::System { what: "starting a shard's thread", cause })?;
    }
    drop(report);
    for _ in links {
        let (shard, result) = ready.recv().unwrap_or((0, Err("a shard ended before it served".into())));
        result.map_err(|cause| StartError::Shard { shard, cause })?;
    }
    Ok(())
}

/// A panic of a shard is a bug; what is left of the process would be a gateway with a hole.
pub(crate) struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}

/// Keeps the thread on its CPU. Where that is not permitted it runs anywhere, as well as it can.
fn pin(cpu: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    if let Err(error) = rustix::thread::sched_setaffinity(None, &set) {
        tracing::warn!(cpu, %error, "a shard is not pinned");
    }
}

fn shard(config: &Config, index: ShardIndex, listeners: &Arc<[ListenerSettings]>) -> ShardSettings {
    let shard = &config.settings.shard;
    ShardSettings {
        accepts_armed_max: shard.accepts_armed_max,
        accept_rate: accept_rate(config),
        run_bytes_max: shard.run_bytes_max,
        run_messages_max: shard.run_messages_max,
        room_pending_bytes_max: shard.room_pending_bytes_max,
        pinned_bytes_max: shard.pinned_bytes_max,
        outbox_entries_max: shard.outbox_entries_max,
        partials_max: shard.partials_max,
        sends_per_turn_max: shard.sends_per_turn_max,
        upstream: config.settings.upstream.as_ref().map(|it| Arc::new(rules(it))),
        rooms_per_connection_max: u8::try_from(config.settings.limits.rooms_per_connection_max).unwrap_or(u8::MAX),
        network_connections_max: config.settings.limits.network_connections_max,
        ..ShardSettings::new(index, config.plan.connections_of(index.0.into()), Arc::clone(listeners))
    }
}

/// What is passed on, and how much of it.
fn rules(upstream: &Upstream) -> Rules {
    Rules {
        operations: upstream.operations.iter().map(|range| (range.first, range.last)).collect(),
        message_bytes_max: upstream.message_bytes_max,
        per_second: upstream.messages_per_second_max,
        burst: upstream.messages_burst_max,
        connection_in_flight_max: upstream.connection_in_flight_max,
    }
}

/// What the running shards take over of a configuration.
pub(super) fn reloadable(config: &Config) -> Arc<Reloadable> {
    Arc::new(shard(config, ShardIndex(0), &listeners(config)).reloadable())
}

fn listeners(config: &Config) -> Arc<[ListenerSettings]> {
    let client_rates = config.settings.limits.client_rates();
    let with_rates = |it| ListenerSettings { client_rates, ..listener(it, config.dev) };
    config.settings.listener.iter().map(with_rates).collect()
}

/// Where the connections of source networks are counted; a reload may ask for it.
fn networks(config: &Config) -> Arc<Networks> {
    let limited = &config.settings.limits;
    let prefixes = Prefixes { v4_bits: limited.network_v4_bits, v6_bits: limited.network_v6_bits };
    Arc::new(Networks::new(config.plan.connections_max, prefixes, &HashSecret::random()))
}

/// A shard's part of the rate at which the process accepts.
fn accept_rate(config: &Config) -> AcceptRate {
    let settings = &config.settings;
    AcceptRate::share(settings.accepts_per_second_max, settings.accepts_burst(), config.plan.shards)
}

fn client_address(address: ClientAddress) -> shard::ClientAddress {
    match address {
        ClientAddress::Connection => shard::ClientAddress::Connection,
        ClientAddress::ProxyProtocol => shard::ClientAddress::ProxyProtocol,
        ClientAddress::XForwardedFor => shard::ClientAddress::Forwarded(ForwardedBy::XForwardedFor),
        ClientAddress::Forwarded => shard::ClientAddress::Forwarded(ForwardedBy::Forwarded),
    }
}

fn listener(listener: &crate::config::Listener, dev: bool) -> ListenerSettings {
    let transport = match listener.transport {
        Transport::Tcp => shard::Transport::Tcp,
        Transport::Ws => shard::Transport::WebSocket,
    };
    let dialect = match listener.dialect {
        Dialect::Echo => shard::Dialect::Echo,
        Dialect::GoimV2 => shard::Dialect::GoimV2,
        Dialect::GoimV1 => shard::Dialect::GoimV1,
    };
    let mut paths = vec![(listener.path.clone(), dialect)];
    if dev && transport == shard::Transport::WebSocket {
        paths.push((ECHO_PATH.into(), shard::Dialect::Echo));
    }
    ListenerSettings {
        dialect,
        paths,
        origins: listener.origins.clone(),
        outbox_bytes_max: listener.outbox_bytes_max,
        stall_ms_max: listener.stall_ms_max,
        slow_policy: match listener.slow_policy {
            SlowPolicy::DropNewest => shard::SlowPolicy::DropNewest,
            SlowPolicy::DropOldest => shard::SlowPolicy::DropOldest,
            SlowPolicy::Close => shard::SlowPolicy::Close,
        },
        login_ms_max: listener.login_ms_max,
        heartbeat_ms_max: listener.heartbeat_ms(),
        linger_ms_max: listener.linger_ms_max,
        compression: listener.compression,
        client_address: client_address(listener.client_address),
        trusted_proxies: listener.trusted_proxies.clone(),
        ..ListenerSettings::new(transport)
    }
}
