//! What scenarios in which clients move, or are very many, have in common: flags, and one pass over a fleet.

use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use serde::Serialize;

use crate::cli::{ClientArgs, GeneratorArgs, PushArgs, ServerArgs, duration};
use crate::cost::NetCounters;
use crate::curve::Curve;
use crate::fleet::Fleet;
use crate::interrupt::Interrupt;
use crate::measure::{Latency, Measured, Pass, Source, Watched, measure};
use crate::moves::Failed;
use crate::plan::{Plan, Rooms};
use crate::preflight;
use crate::push::{Messages, Pusher};
use crate::schedule::MARK_BYTES;
use crate::stand::{Failure, plan, progress};
use crate::stats::StatsSource;

/// Flags for clients of one room, and for messages to it.
#[derive(Clone, Debug, Args, Serialize)]
pub struct SceneArgs {
    #[command(flatten)]
    #[serde(flatten)]
    #[allow(missing_docs, reason = "its flags say it")]
    pub generator: GeneratorArgs,
    #[command(flatten)]
    #[serde(flatten)]
    #[allow(missing_docs, reason = "its flags say it")]
    pub clients: ClientArgs,
    #[command(flatten)]
    #[serde(flatten)]
    #[allow(missing_docs, reason = "its flags say it")]
    pub push: PushArgs,
    #[command(flatten)]
    #[serde(flatten)]
    #[allow(missing_docs, reason = "its flags say it")]
    pub server: ServerArgs,
    /// Bytes of each message, at least the 16 of its mark (run, sequence, due time).
    #[arg(long, default_value_t = MARK_BYTES, value_parser = crate::cli::payload_bytes)]
    pub payload_bytes: usize,
    /// Operation of the messages.
    #[arg(long, default_value_t = 1000)]
    pub operation: i32,
    /// Seconds to wait for messages on their way.
    #[arg(long, default_value_t = 10.0, value_parser = crate::cli::seconds)]
    pub grace: f64,
}

/// Everything that is needed for a run, before anybody has connected.
pub struct Scene {
    pub(crate) plan: Plan,
    pub(crate) threads: u32,
    pub(crate) push: Pusher,
    stats: Option<StatsSource>,
    server_pid: Option<u32>,
    net_before: NetCounters,
}

/// A fleet that logs in for the first time.
#[derive(Debug, Serialize)]
pub struct Entry {
    /// Clients that were logged in.
    pub connections: u64,
    /// Seconds from the first connection begun to the last login answered.
    pub seconds: f64,
    /// Connections with logins per second, in the mean.
    pub per_second: f64,
    /// The least and the most of it, over tenths of the time.
    pub per_second_range: Option<(f64, f64)>,
    /// From the beginning of connecting until the login was answered.
    pub login_ms: Latency,
    /// Attempts that failed; none is made twice.
    pub failed: Failed,
    /// Seconds, and how many were logged in.
    pub over_time: Curve,
    /// Why not all came in.
    #[serde(skip)]
    pub failure: Option<String>,
}

impl Scene {
    /// Looks whether a run can be made.
    ///
    /// # Errors
    /// [`Failure::Surroundings`].
    pub fn new(arguments: &SceneArgs, connections: u32) -> Result<Self, Failure> {
        Self::check(arguments, connections).map_err(Failure::Surroundings)
    }

    fn check(arguments: &SceneArgs, connections: u32) -> Result<Self, String> {
        let SceneArgs { generator, clients, push, server, .. } = arguments;
        preflight::reach(&clients.target)?;
        let messages = Messages {
            rooms: Rooms::one(&clients.room),
            operation: arguments.operation,
            payload: clients.dialect.payload(arguments.payload_bytes),
        };
        let pusher = Pusher::new(push, messages, 1, duration(arguments.grace))?;
        let (plan, threads) = plan(clients, generator, connections)?;
        Ok(Self {
            plan: Plan { operation: arguments.operation, ..plan },
            threads,
            push: pusher,
            stats: server.metrics.clone().map(|url| StatsSource { url, token: push.token.clone() }),
            server_pid: server.server_pid,
            net_before: NetCounters::read(),
        })
    }

    /// Connects so many clients, and says how that went, also if not all came in.
    pub fn enter(&self, connections: u32, generator: &GeneratorArgs, interrupt: &Interrupt) -> (Fleet, Entry) {
        let bar = progress(u64::from(connections), "logged in");
        let started = Instant::now();
        let fleet = Fleet::start(&Arc::new(self.plan.clone()), 0..connections, self.threads);
        let mut over_time = Curve::default();
        let ready = fleet.wait_ready(duration(generator.patience), interrupt, |ready| {
            bar.set_position(ready);
            over_time.take(started.elapsed().as_secs_f64(), ready);
        });
        let seconds = started.elapsed().as_secs_f64();
        bar.finish_and_clear();
        let seen = fleet.look();
        let connections = fleet.totals().ready;
        #[allow(clippy::cast_precision_loss, reason = "counts of a run")]
        let per_second = connections as f64 / seconds;
        let entry = Entry {
            connections,
            seconds,
            per_second,
            per_second_range: over_time.rates(),
            login_ms: Latency::of(&seen.login_us),
            failed: seen.failed,
            over_time,
            failure: ready.err(),
        };
        (fleet, entry)
    }

    /// Runs a pass of messages over a fleet.
    ///
    /// # Errors
    /// [`Failure::Run`].
    pub fn pass(&self, fleet: &Fleet, pass: &Pass, moving: bool, interrupt: &Interrupt) -> Result<Measured, Failure> {
        let present = u32::try_from(fleet.totals().ready).unwrap_or(u32::MAX);
        let watched = Watched {
            fleet,
            slow: None,
            moving,
            server_pid: self.server_pid,
            stats: self.stats.as_ref(),
            net_before: &self.net_before,
            interrupt,
            bar: progress(pass.deliveries(present), "delivered"),
        };
        measure(&mut Source::Process(&self.push), pass, &watched).map_err(Failure::Run)
    }
}

impl Entry {
    /// A line for the terminal.
    pub fn line(&self) -> String {
        let Self { connections, seconds, per_second, .. } = self;
        let range = self.per_second_range.map_or(String::new(), |(least, most)| format!(" ({least:.0} to {most:.0})"));
        format!("{connections} in {seconds:.1} s, {per_second:.0}/s{range}")
    }
}
