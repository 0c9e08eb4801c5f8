//! The upstream thread: takes messages from all shards, says who said them, and hands them to the place.

use std::io;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::clerk::Clerk;
use super::http::Http;
use super::{Place, UpstreamLink};
use crate::config;
use crate::control::bell::{self, Waiter};
use crate::control::{shards::AbortOnPanic, start::runtime};
use crate::directory::Directory;
use crate::link::{ControlBell, ShardLink};
use crate::source::{cpus, kafka};

/// How often the thread looks for messages whatever its bell says: a lost bell is a delay and not a hang.
const LOOK: Duration = Duration::from_secs(1);

/// What the thread works with.
pub struct Shared {
    /// Who is who.
    pub directory: Arc<Directory>,
    /// The shards.
    pub links: Arc<[Arc<ShardLink>]>,
    /// What the gateway is called.
    pub node: String,
}

/// Starts the thread; the producer that it has, if messages go to Kafka. `cpus` are those of the shards, which are left alone if there are others.
pub fn start(
    settings: &config::Upstream,
    kafka: Option<&config::Kafka>,
    shared: Shared,
    bell: Arc<ControlBell>,
    cpus: Vec<usize>,
) -> Result<Option<Arc<kafka::Upstream>>, String> {
    let (settings, kafka) = (settings.clone(), kafka.cloned());
    let (report, started) = mpsc::channel();
    let system = |error: io::Error| format!("upstream: {error}");
    let thread = thread::Builder::new().name("upstream".into()).spawn(move || {
        let _abort = AbortOnPanic;
        // The threads of librdkafka inherit where this one may run.
        cpus::leave(&cpus);
        let mut runtime = match runtime() {
            Ok(runtime) => runtime,
            Err(error) => return drop(report.send(Err(system(error)))),
        };
        runtime.block_on(async {
            let made = make(&settings, kafka.as_ref(), &shared);
            let made = made.and_then(|place| Ok((place, Waiter::new(&bell).map_err(system)?)));
            match made {
                Ok((place, waiter)) => {
                    let producer = if let Place::Kafka(producer) = &place { Some(Arc::clone(producer)) } else { None };
                    drop(report.send(Ok(producer)));
                    serve(&shared, &bell, &waiter, &place).await;
                }
                Err(problem) => drop(report.send(Err(problem))),
            }
        });
    });
    thread.map_err(system)?;
    started.recv().unwrap_or_else(|_| Err("upstream: its thread ended".into()))
}

fn make(settings: &config::Upstream, kafka: Option<&config::Kafka>, shared: &Shared) -> Result<Place, String> {
    match kafka {
        Some(kafka) if !settings.is_http() => {
            kafka::Upstream::new(kafka, settings, Arc::clone(&shared.links)).map(|it| Place::Kafka(Arc::new(it)))
        }
        _ => Http::new(settings, &shared.links).map(Place::Http),
    }
}

async fn serve(shared: &Shared, bell: &Arc<ControlBell>, waiter: &Waiter, place: &Place) {
    let theirs = Arc::clone(bell);
    monoio::spawn(async move {
        loop {
            monoio::time::sleep(LOOK).await;
            let _ = bell::ring(&theirs);
        }
    });
    let mut clerk = Clerk::new(shared, place);
    loop {
        if clerk.round(unix_ms()) {
            // Through the kernel and back: a task that wakes itself would starve all others.
            let _ = bell::ring(bell);
        } else {
            bell.park();
            if shared.links.iter().any(|link| link.upstream.as_ref().is_some_and(UpstreamLink::has_messages)) {
                bell.unpark();
                continue;
            }
        }
        if let Err(error) = waiter.rung(bell).await {
            tracing::error!(%error, "cannot wait for messages of clients; looking for them instead");
            monoio::time::sleep(Duration::from_millis(1)).await;
        }
        bell.unpark();
    }
}

fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
