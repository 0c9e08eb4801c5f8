//! Starts the gateway: sockets, shards, control; then runs control until a signal ends it.

use std::cell::RefCell;
use std::io;
use std::net::Shutdown;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_channel::mpsc::{UnboundedReceiver, unbounded};
use monoio::blocking::DefaultThreadPool;
use monoio::time::TimeDriver;
use monoio::{IoUringDriver, Runtime, RuntimeBuilder};

use super::api;
use super::app::{App, Command, Tallies};
use super::bell::new_bell;
use super::decide::{self, Control, LoginRule, Policy};
use super::http::{self, HttpLimits};
use super::listen::{Bound, Door, ListenError, Sockets};
use super::machine::{self, Machine};
use super::shards::{self, RunShard};
use super::signals::{Signal, Signals};
use super::{notify, ready};
use crate::config::{Config, Dialect, KeyPolicy, Listener, Login};
use crate::directory::{DirectoryWriter, HashSecret};
use crate::dispatch::Dispatch;
use crate::limits;
use crate::link::{ControlBell, ShardLink};
use crate::source::kafka::Kafka;
use crate::source::nodes::NodeCommand;

/// Entries of control's ring.
const RING_ENTRIES: u32 = 256;

/// How much longer than its deadline a drain may take before control gives up on a shard.
const DRAIN_GRACE: Duration = Duration::from_secs(1);

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
    /// Kafka does not start.
    #[error("{0}")]
    Kafka(String),
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
pub fn run(config: Config, run_shard: RunShard) -> Result<(), StartError> {
    let signals = Signals::register().map_err(system("taking signals over"))?;
    let sockets = Sockets::listen(&config.settings)?;
    let bound = sockets.bound(&config.settings).map_err(system("reading a bound address"))?;
    let bell = Arc::new(new_bell().map_err(system("making an eventfd"))?);
    let links = shards::links(&config);
    let mut runtime = runtime()
        .map_err(system("making control's io_uring (see kernel.io_uring_disabled, seccomp, container profile)"))?;
    shards::start(&config, sockets.listeners, &links, &bell, run_shard)?;
    let (app, machine, commands) = assemble(config, bound, links, bell);
    runtime.block_on(async {
        machine::spawn(&machine, commands).map_err(system("waiting on an eventfd"))?;
        start_kafka(&app, &machine)?;
        let v1 = sockets.api_v1.map(|door| (door, api::v1::router(&app)));
        let doors = [(sockets.api, api::router(&app))].into_iter().chain(v1).collect();
        serve(&app, &machine, signals, doors).await
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
) -> (Arc<App>, Rc<RefCell<Machine>>, UnboundedReceiver<Command>) {
    let secret = HashSecret::random();
    let writer = DirectoryWriter::new(links.len(), limits::SHARD_ROOMS_MAX, &secret);
    let control = Control::new(writer, policy(&config), || uuid::Uuid::new_v4().into_bytes());
    let directory = Arc::clone(control.directory());
    let tallies = Arc::<Tallies>::default();
    let (commands, commanded) = unbounded();
    let machine = Machine::new(control, Arc::clone(&links), bell, Arc::clone(&tallies));
    let app = App {
        dispatch: Dispatch::new(Arc::clone(&directory), Arc::clone(&links)),
        tokens: api::Tokens::new(&config.settings.api),
        push_ids: Arc::default(),
        kafka: OnceLock::new(),
        draining: AtomicBool::new(false),
        tallies,
        links,
        config,
        bound,
        directory,
        commands,
    };
    (Arc::new(app), Rc::new(RefCell::new(machine)), commanded)
}

/// What logins are judged by.
fn policy(config: &Config) -> Policy {
    let settings = &config.settings;
    let rule = |listener: &Listener| match (listener.login, listener.dialect) {
        (Login::Open, Dialect::GoimV1) => LoginRule::OpenV1,
        (Login::Open, _) => LoginRule::Open,
        (Login::Refuse | Login::Jwt | Login::Hook, _) => LoginRule::Refuse,
    };
    Policy {
        listeners: settings.listener.iter().map(rule).collect(),
        key_connections_max: settings.key_connections() as usize,
        key_policy: match settings.key_policy {
            KeyPolicy::Replace => decide::KeyPolicy::Replace,
            KeyPolicy::Refuse => decide::KeyPolicy::Refuse,
            KeyPolicy::Share => decide::KeyPolicy::Share,
        },
    }
}

/// Reads from Kafka, and lets the API produce to it, if it is configured.
fn start_kafka(app: &App, machine: &Rc<RefCell<Machine>>) -> Result<(), StartError> {
    let Some(settings) = &app.config.settings.kafka else { return Ok(()) };
    let dispatch = Dispatch::new(Arc::clone(&app.directory), Arc::clone(&app.links));
    let kafka = Kafka::start(settings, dispatch, Arc::clone(&app.links), app.config.plan.cpus.clone());
    let kafka = kafka.map_err(StartError::Kafka)?;
    let machine = Rc::clone(machine);
    let obey = move |command: &NodeCommand| machine.borrow_mut().obey_node(command);
    let (directory, cpus) = (Arc::clone(&app.directory), app.config.plan.cpus.clone());
    kafka.join_nodes(api::this_node(app), directory, cpus, obey).map_err(StartError::Kafka)?;
    let first = app.kafka.set(kafka).is_ok();
    assert!(first, "started once");
    Ok(())
}

async fn serve(
    app: &Arc<App>,
    machine: &RefCell<Machine>,
    signals: Signals,
    doors: Vec<(Door, axum::Router)>,
) -> Result<(), StartError> {
    let settings = &app.config.settings;
    let limits = HttpLimits {
        connections_max: settings.api.connections_max,
        head_max: Duration::from_millis(settings.api.request_ms_max.into()),
    };
    let mut own = Vec::new();
    for (Door { socket, passed }, router) in doors {
        if !passed {
            own.push(socket.try_clone().map_err(system("naming the API's socket twice"))?);
        }
        http::spawn(socket, router, limits).map_err(system("accepting API connections"))?;
    }
    let (stop, mut stopped) = unbounded();
    signals.spawn(move |signal| drop(stop.unbounded_send(signal))).map_err(system("reading signals"))?;
    ready::announce(app);
    notify::ready(app);
    notify::spawn(Arc::clone(app));
    while let Ok(Signal::Reload) = stopped.recv().await {
        notify::reloading();
        tracing::warn!(event = "reload", "not supported in this version: restart instead");
        notify::ready(app);
    }
    monoio::spawn(async move {
        while let Ok(signal) = stopped.recv().await {
            if signal == Signal::Stop {
                tracing::warn!(event = "stop", "a second signal: not waiting for the drain");
                std::process::exit(1);
            }
        }
    });
    notify::stopping();
    drain(app, machine).await;
    // The kernel takes this ring down some time after the process has ended. Its accept would hold the port until
    // then, and whoever starts the gateway anew would find it taken. A socket that was passed is the service manager's:
    // it goes on listening for the next process.
    for socket in own {
        let _ = socket2::SockRef::from(&socket).shutdown(Shutdown::Both);
    }
    Ok(())
}

/// Lets the shards finish, as long as the configuration allows.
async fn drain(app: &App, machine: &RefCell<Machine>) {
    let deadline_ms = app.config.settings.drain_ms_max;
    tracing::info!(event = "drain", deadline_ms, connections = app.directory.connections());
    app.draining.store(true, Ordering::Relaxed);
    // What is not dispatched is left for the next start.
    if let Some(kafka) = app.kafka.get() {
        kafka.stop();
    }
    let drained = machine.borrow_mut().drain(deadline_ms);
    let patience = Duration::from_millis(deadline_ms.into()) + DRAIN_GRACE;
    if monoio::time::timeout(patience, drained).await.is_ok() {
        tracing::info!(event = "stopped");
    } else {
        tracing::warn!(event = "stopped", "a shard did not drain in time");
    }
    if let Some(kafka) = app.kafka.get() {
        kafka.finish();
    }
}
