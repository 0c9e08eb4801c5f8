//! Starts the gateway: sockets, shards, control; then runs control until a signal ends it.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_channel::mpsc::{UnboundedReceiver, unbounded};
use halley_ring::SetupError;
use monoio::blocking::DefaultThreadPool;
use monoio::time::TimeDriver;
use monoio::{IoUringDriver, Runtime, RuntimeBuilder};

use super::api;
use super::app::{App, Command, Live, Tallies, Wish, Wishes};
use super::bell::new_bell;
use super::decide::{self, Control, HookPolicy, LoginRule, Policy};
use super::hooks::{Hooks, ListenerShown};
use super::http::{self, HttpLimits};
use super::listen::{Bound, ListenError, Own, Sockets};
use super::machine::{self, Machine};
use super::reload::{self, Outside};
use super::shards::{self, RunShard};
use super::signals::{Signal, Signals};
use super::{notify, ready};
use crate::compression::Compression;
use crate::config::{self, Config, Dialect, Jwt, KeyPolicy, Listener, Login, Settings, Transport, WhenDown};
use crate::directory::{DirectoryWriter, HashSecret};
use crate::dispatch::{Dispatch, Rates};
use crate::identity::{self, Expected, Keys, TokenReject};
use crate::limits;
use crate::link::{ControlBell, ShardLink};
use crate::order::DrainPlan;
use crate::source::kafka::Kafka;
use crate::source::nodes::NodeCommand;
use crate::tls::{self, Everywhere, InForce};
use crate::upstream;

/// Entries of control's ring.
const RING_ENTRIES: u32 = 256;

/// How much longer than its deadline a drain may take before control gives up on a shard.
const DRAIN_GRACE: Duration = Duration::from_secs(1);

/// How much longer the platform is told of connections that are gone.
const GONE_TOLD: Duration = Duration::from_secs(3);

/// How long sockets listen on after the shards were told to accept no more.
const DOORS_OPEN: Duration = Duration::from_millis(50);

/// Why the gateway does not start. The text is one sentence for an operator.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A socket does not listen.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A shard does not start.
    #[error("shard {shard}: {cause}")]
    Shard {
        /// Which.
        shard: usize,
        /// Its own sentence.
        cause: String,
    },
    /// Control has no ring.
    #[error(transparent)]
    Ring(#[from] SetupError),
    /// Kafka does not start.
    #[error("{0}")]
    Kafka(String),
    /// Messages of clients cannot be passed on.
    #[error("{0}")]
    Upstream(String),
    /// A certificate or key has changed since the configuration was read.
    #[error(transparent)]
    Tls(#[from] tls::Problem),
    /// Something of the system that control needs.
    #[error("{what}: {cause}")]
    System {
        /// What was tried.
        what: &'static str,
        /// How it failed.
        cause: io::Error,
    },
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> StartError {
    move |cause| StartError::System { what, cause }
}

/// Runs the gateway until it has drained. `run_shard` is the body of a shard's thread.
pub fn run(config: Config, outside: Outside, run_shard: RunShard) -> Result<(), StartError> {
    let signals = Signals::register().map_err(system("taking signals over"))?;
    let everywhere = Everywhere::load(&config.settings, &Everywhere::default())?;
    for warning in everywhere.warnings() {
        tracing::warn!(event = "certificate", "{warning}");
    }
    let in_force = InForce::default();
    let configs = in_force.set(everywhere);
    let sockets = Sockets::listen(&config.settings)?;
    let bound = sockets.bound(&config.settings).map_err(system("reading a bound address"))?;
    let bell = Arc::new(new_bell().map_err(system("making an eventfd"))?);
    let upstream = config.settings.upstream.as_ref().map(|_| new_bell().map(Arc::new)).transpose();
    let upstream = upstream.map_err(system("making an eventfd"))?;
    let links = shards::links(&config, upstream.as_ref());
    let mut runtime = runtime().map_err(|cause| SetupError::new("making control's ring", cause))?;
    shards::start(&config, &configs, sockets.listeners, &links, &bell, run_shard)?;
    let (app, machine, commands) = assemble(config, bound, links, bell, in_force);
    runtime.block_on(async {
        machine::spawn(&machine, commands).map_err(system("waiting on an eventfd"))?;
        start_kafka(&app, &machine)?;
        start_upstream(&app, upstream)?;
        let v1 = sockets.api_v1.map(|socket| (socket, api::v1::router(&app)));
        let doors = [(sockets.api, api::router(&app))].into_iter().chain(v1).collect();
        serve(&app, &machine, signals, (doors, sockets.own), Arc::new(outside)).await
    })
}

/// Control's runtime, with a thread beside it for what would take control too long.
pub fn runtime() -> io::Result<Runtime<TimeDriver<IoUringDriver>>> {
    RuntimeBuilder::<IoUringDriver>::new()
        .with_entries(RING_ENTRIES)
        .enable_timer()
        .attach_thread_pool(Box::new(DefaultThreadPool::new(1)))
        .build()
}

/// What handlers share, control's own state, and the way from the one to the other.
pub fn assemble(
    config: Config,
    bound: Bound,
    links: Arc<[Arc<ShardLink>]>,
    bell: Arc<ControlBell>,
    tls: InForce,
) -> (Arc<App>, Rc<RefCell<Machine>>, UnboundedReceiver<Command>) {
    let secret = HashSecret::random();
    let writer = DirectoryWriter::new(links.len(), limits::SHARD_ROOMS_MAX, &secret);
    let mut control = Control::new(writer, policy(&config), || uuid::Uuid::new_v4().into_bytes());
    control.set_tokens(first_tokens(&config.settings.jwt));
    let directory = Arc::clone(control.directory());
    let tallies = Arc::<Tallies>::default();
    let (commands, commanded) = unbounded();
    let hooks = Hooks::new(&config.settings.hooks, shown(&config.settings, &bound), Arc::clone(&tallies.hooks));
    let mut machine = Machine::new(control, Arc::clone(&links), bell, Arc::clone(&tallies), hooks);
    machine.set_memory_max(config.settings.memory_bytes_max);
    let compression = compression(&config.settings).map(Arc::new);
    let app = App {
        dispatch: Dispatch::new(Arc::clone(&directory), Arc::clone(&links))
            .compressing(compression.clone())
            .with_rates(rates(&config)),
        compression,
        arriving: rates(&config),
        push_ids: Arc::default(),
        kafka: OnceLock::new(),
        tls,
        draining: AtomicBool::new(false),
        tallies,
        links,
        live: Live::new(config),
        bound,
        directory,
        commands,
        wishes: Wishes::default(),
    };
    (Arc::new(app), Rc::new(RefCell::new(machine)), commanded)
}

/// What endpoints are told of the listeners.
fn shown(settings: &Settings, bound: &Bound) -> Arc<[ListenerShown]> {
    let listeners = settings.listener.iter().zip(&bound.listeners);
    let shown = listeners.map(|(listener, (transport, address))| ListenerShown {
        listener: *address,
        transport: if *transport == Transport::Tcp { "tcp" } else { "ws" },
        tls: listener.tls.is_some(),
    });
    shown.collect()
}

/// How fast rooms may be pushed to.
fn rates(config: &Config) -> Arc<Rates> {
    Arc::new(Rates::new(config.settings.limits.room_rates()))
}

/// Whose tokens let clients in. Without keys, as without listeners that ask for tokens: nobody's.
fn first_tokens(jwt: &Jwt) -> decide::Tokens {
    // Read a moment ago, when the configuration was checked; a file that has changed since lets nobody in.
    match identity::load(jwt) {
        Ok(keys) => tokens(jwt, keys),
        Err((key, problem)) => {
            tracing::error!(event = "jwt", key, problem, "tokens let nobody in");
            decide::Tokens::new(Expected::default(), |_| Err(TokenReject::UnknownKey))
        }
    }
}

/// The tokens that these keys have signed, as far as they claim what the configuration expects.
pub(super) fn tokens(jwt: &Jwt, keys: Keys) -> decide::Tokens {
    let expected =
        Expected { issuer: jwt.issuer.clone(), audience: jwt.audience.clone(), leeway_s: jwt.leeway_s.into() };
    decide::Tokens::new(expected, move |token| keys.verify(token))
}

/// What compresses pushes, if a listener does.
fn compression(settings: &Settings) -> Option<Compression> {
    let config::Compression { level, bytes_min } = settings.compression;
    let compresses = settings.listener.iter().any(|listener| listener.compression);
    compresses.then(|| Compression::new(level, bytes_min as usize))
}

/// What logins are judged by.
pub(super) fn policy(config: &Config) -> Policy {
    let settings = &config.settings;
    let rule = |listener: &Listener| match (listener.login, listener.dialect) {
        (Login::Open, Dialect::GoimV1) => LoginRule::OpenV1,
        (Login::Open, _) => LoginRule::Open,
        (Login::Jwt, _) => LoginRule::Jwt,
        (Login::Hook, _) => LoginRule::Hook,
        (Login::Refuse, _) => LoginRule::Refuse,
    };
    Policy {
        listeners: settings.listener.iter().map(rule).collect(),
        key_connections_max: settings.key_connections() as usize,
        key_policy: match settings.key_policy {
            KeyPolicy::Replace => decide::KeyPolicy::Replace,
            KeyPolicy::Refuse => decide::KeyPolicy::Refuse,
            KeyPolicy::Share => decide::KeyPolicy::Share,
        },
        hooks: HookPolicy {
            join: !settings.hooks.join_url.is_empty(),
            gone: !settings.hooks.gone_url.is_empty(),
            allow_when_down: settings.hooks.when_down == WhenDown::Allow,
            pending_max: settings.hooks.pending_max as usize,
        },
        room_members_max: settings.limits.room_members_max,
    }
}

/// Reads from Kafka, and lets the API produce to it, if it is configured.
fn start_kafka(app: &App, machine: &Rc<RefCell<Machine>>) -> Result<(), StartError> {
    let config = app.config();
    let Some(settings) = &config.settings.kafka else { return Ok(()) };
    let dispatch = Dispatch::new(Arc::clone(&app.directory), Arc::clone(&app.links));
    let dispatch = dispatch.compressing(app.compression.clone()).with_rates(Arc::clone(&app.arriving));
    let kafka = Kafka::start(settings, dispatch, Arc::clone(&app.links), config.plan.cpus.clone());
    let kafka = kafka.map_err(StartError::Kafka)?;
    let machine = Rc::clone(machine);
    let obey = move |command: &NodeCommand| machine.borrow_mut().obey_node(command);
    let (directory, cpus) = (Arc::clone(&app.directory), config.plan.cpus.clone());
    kafka.join_nodes(api::this_node(app), directory, cpus, obey).map_err(StartError::Kafka)?;
    let first = app.kafka.set(kafka).is_ok();
    assert!(first, "started once");
    Ok(())
}

/// Starts to pass messages of clients on, if a place is configured.
fn start_upstream(app: &App, bell: Option<Arc<ControlBell>>) -> Result<(), StartError> {
    let config = app.config();
    let (Some(settings), Some(bell)) = (&config.settings.upstream, bell) else { return Ok(()) };
    let shared = upstream::Shared {
        directory: Arc::clone(&app.directory),
        links: Arc::clone(&app.links),
        node: api::this_node(app).name,
    };
    let kafka = config.settings.kafka.as_ref();
    let producer = upstream::start(settings, kafka, shared, bell, config.plan.cpus.clone());
    let producer = producer.map_err(StartError::Upstream)?;
    if let Some((kafka, producer)) = app.kafka.get().zip(producer) {
        kafka.adopt(producer);
    }
    Ok(())
}

async fn serve(
    app: &Arc<App>,
    machine: &RefCell<Machine>,
    signals: Signals,
    (doors, own): (Vec<(std::net::TcpListener, axum::Router)>, Own),
    outside: Arc<Outside>,
) -> Result<(), StartError> {
    let config = app.config();
    let settings = &config.settings;
    let limits = HttpLimits {
        connections_max: settings.api.connections_max,
        head_max: Duration::from_millis(settings.api.request_ms_max.into()),
    };
    for (at, (socket, router)) in doors.into_iter().enumerate() {
        let secure = Arc::clone(app);
        // goim v1's pushers speak no TLS.
        let tls = move || if at == 0 { secure.tls.api() } else { None };
        http::spawn(socket, router, limits, tls).map_err(system("accepting API connections"))?;
    }
    let (mut wishes, of) = (app.wishes.listen(), Arc::clone(app));
    let wish = move |signal| {
        of.wishes.put(match signal {
            Signal::Stop => Wish::Stop,
            Signal::Reload => Wish::Reload(None),
        });
    };
    signals.spawn(wish).map_err(system("reading signals"))?;
    ready::announce(app);
    notify::ready(app);
    notify::spawn(Arc::clone(app));
    let theirs = Arc::clone(&outside);
    monoio::spawn(async move {
        loop {
            monoio::time::sleep(Duration::from_secs(1)).await;
            (theirs.each_second)();
        }
    });
    let stopped = loop {
        match wishes.recv().await {
            Ok(Wish::Reload(answer)) => {
                let result = reload::reload(app, machine, &outside).await;
                if let Some(answer) = answer {
                    let _ = answer.send(result); // whoever asked may have gone
                }
            }
            Ok(Wish::Drain) => break false,
            Ok(Wish::Stop) | Err(_) => break true,
        }
    };
    monoio::spawn(end_at_second_stop(wishes, stopped));
    notify::stopping();
    drain(app, machine, Rc::new(own)).await;
    Ok(())
}

/// Ends the process at the second signal to stop; a drain that a call began is not one.
async fn end_at_second_stop(mut wishes: UnboundedReceiver<Wish>, mut stopped: bool) {
    while let Ok(wish) = wishes.recv().await {
        if matches!(wish, Wish::Reload(_)) {
            // A call was told so before it came here; a signal cannot be answered.
            let problem = "the gateway drains and reads nothing anew";
            tracing::warn!(event = "reload-refused", problem, "nothing has changed");
        }
        if !matches!(wish, Wish::Stop) {
            continue;
        }
        if stopped {
            tracing::warn!(event = "stop", signals = 2, "a second signal: not waiting for the drain");
            std::process::exit(1);
        }
        stopped = true;
        tracing::info!(event = "stop", signals = 1, "the drain has begun; a second signal ends it at once");
    }
}

/// Sends clients away and lets the shards finish, as long as the configuration allows.
async fn drain(app: &App, machine: &RefCell<Machine>, own: Rc<Own>) {
    let Settings { drain_grace_ms, drain_window_ms, drain_ms_max, .. } = app.config().settings;
    app.draining.store(true, Ordering::Relaxed);
    let connections = app.directory.connections();
    tracing::info!(event = "drain", drain_grace_ms, drain_window_ms, drain_ms_max, connections);
    // Balancers see `/readyz` first, and send their clients elsewhere before any is refused.
    monoio::time::sleep(Duration::from_millis(drain_grace_ms.into())).await;
    let here = app.links.iter().map(|link| link.stats.connections.get()).sum();
    let plan = DrainPlan::new(here, drain_window_ms, drain_ms_max - drain_grace_ms);
    let mut drained = machine.borrow_mut().drain(plan);
    let doors = Rc::clone(&own);
    monoio::spawn(async move {
        // The shards have taken their accepts back by then.
        monoio::time::sleep(DOORS_OPEN).await;
        doors.refuse_clients();
    });
    let patience = Duration::from_millis(plan.deadline_ms.into()) + DRAIN_GRACE;
    let all = async {
        // As long as somebody is there, Kafka is read; what is not dispatched is left for the next start.
        let evictions = Duration::from_millis(plan.evict_ms.into());
        let early = monoio::time::timeout(evictions, &mut drained).await.is_ok();
        if let Some(kafka) = app.kafka.get() {
            kafka.stop();
        }
        if !early {
            let _ = drained.await; // its sender lives as long as control
        }
    };
    if monoio::time::timeout(patience, all).await.is_ok() {
        tracing::info!(event = "stopped");
    } else {
        tracing::warn!(event = "stopped", "a shard did not drain in time");
    }
    if let Some(kafka) = app.kafka.get() {
        kafka.finish();
    }
    let since = std::time::Instant::now();
    while app.tallies.hooks.gone_queued.get() > 0 && since.elapsed() < GONE_TOLD {
        monoio::time::sleep(Duration::from_millis(10)).await;
    }
    own.refuse_clients();
    own.refuse_callers();
}
