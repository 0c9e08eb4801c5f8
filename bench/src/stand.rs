//! A server under test with its clients: they log in once, and passes run over them.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::{ClientArgs, GeneratorArgs, LoadArgs, RunArgs, SlowFlags, duration};
use crate::cost::NetCounters;
use crate::fleet::Fleet;
use crate::hello::hello;
use crate::interrupt::Interrupt;
use crate::measure::{Measured, Pass, Source, Watched, measure};
use crate::plan::{LoginPlan, Plan, Rooms};
use crate::preflight;
use crate::push::{Messages, Pusher};
use crate::raw::Dialect;
use crate::stats::StatsSource;

/// How long a first client waits for its login, before all others.
const HELLO_PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no result.
#[derive(Debug)]
pub enum Failure {
    /// Wrong before anything was measured.
    Surroundings(String),
    /// Went wrong on the way.
    Run(String),
}

/// Everything that is needed for a pass.
pub struct Stand<'a> {
    load: &'a LoadArgs,
    interrupt: &'a Interrupt,
    plan: Arc<Plan>,
    threads: u32,
    push: Pusher,
    stats: Option<StatsSource>,
    fleet: Option<Fleet>,
    /// How many bytes a second slow clients read, if there are any.
    slow: Option<u32>,
    net_before: NetCounters,
}

impl<'a> Stand<'a> {
    /// Looks whether a run with these flags can be made; nobody is connected yet.
    ///
    /// # Errors
    /// [`Failure::Surroundings`].
    pub fn new(load: &'a LoadArgs, rooms: Rooms, interrupt: &'a Interrupt) -> Result<Self, Failure> {
        Self::check(load, rooms, interrupt).map_err(Failure::Surroundings)
    }

    fn check(load: &'a LoadArgs, rooms: Rooms, interrupt: &'a Interrupt) -> Result<Self, String> {
        let LoadArgs { run, clients, push, server } = load;
        preflight::reach(&clients.target)?;
        let messages = Messages {
            rooms: rooms.clone(),
            operation: run.operation,
            payload: clients.dialect.payload(run.payload_bytes),
        };
        let pusher = Pusher::new(push, messages, push.push_connections, duration(run.grace))?;
        let (plan, threads) = plan_in(rooms, clients, &run.generator, run.connections)?;
        Ok(Self {
            load,
            interrupt,
            plan: Arc::new(Plan { operation: run.operation, ..plan }),
            threads,
            push: pusher,
            stats: server.metrics.clone().map(|url| StatsSource { url, token: push.token.clone() }),
            fleet: None,
            slow: None,
            net_before: NetCounters::default(),
        })
    }

    /// Lets a share of the clients be slow; for clients that log in later.
    pub fn slow(&mut self, flags: &SlowFlags) {
        self.plan = Arc::new(Plan { slow_percent: flags.slow_percent, ..Plan::clone(&self.plan) });
        self.slow = (flags.slow_percent > 0.0).then_some(flags.slow_bytes_per_second);
    }

    /// Runs one pass; clients log in first, if they have not yet or some were lost.
    ///
    /// # Errors
    /// [`Failure::Run`].
    pub fn pass(&mut self, pass: &Pass) -> Result<Measured, Failure> {
        self.run(pass).map_err(Failure::Run)
    }

    fn run(&mut self, pass: &Pass) -> Result<Measured, String> {
        let run = &self.load.run;
        let fleet = match self.fleet.take() {
            Some(fleet) if fleet.totals().gone == 0 => {
                self.net_before = NetCounters::read();
                fleet
            }
            gone => {
                gone.into_iter().for_each(Fleet::stop);
                self.net_before = NetCounters::read();
                let fleet = log_in(&self.plan, 0..run.connections, self.threads, &run.generator, self.interrupt)?;
                std::thread::sleep(duration(run.settle));
                fleet
            }
        };
        let watched = Watched {
            fleet: &fleet,
            moving: false,
            slow: self.slow,
            server_pid: self.load.server.server_pid,
            stats: self.stats.as_ref(),
            net_before: &self.net_before,
            interrupt: self.interrupt,
            bar: progress(pass.deliveries(fleet.clients()), "delivered"),
        };
        let measured = measure(&mut Source::Process(&self.push), pass, &watched)?;
        self.fleet = Some(fleet);
        Ok(measured)
    }

    /// Closes all connections.
    pub fn leave(&mut self) {
        self.fleet.take().into_iter().for_each(Fleet::stop);
    }
}

impl Drop for Stand<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}

/// What clients with these flags are, and from how many threads they come.
///
/// # Errors
/// A sentence, if ports or file limits do not suffice.
pub fn plan(clients: &ClientArgs, generator: &GeneratorArgs, connections: u32) -> Result<(Plan, u32), String> {
    plan_in(Rooms::one(&clients.room), clients, generator, connections)
}

/// The same for clients in several rooms. One client of each target says hello.
///
/// # Errors
/// A sentence, if ports or file limits do not suffice, or a target does not let its client in.
pub fn plan_in(
    rooms: Rooms,
    clients: &ClientArgs,
    generator: &GeneratorArgs,
    connections: u32,
) -> Result<(Plan, u32), String> {
    let spread = preflight::spread(connections, &clients.target, &clients.source, generator.threads)?;
    let raw = clients.dialect.raw(&clients.target, clients.keys_prefix.as_deref())?;
    let v1 = clients.dialect.dialect == Dialect::GoimV1;
    if v1 && rooms.count() > 1 {
        return Err("clients of goim v1 are all in room 1: the dialect goim-v1 has one room".to_owned());
    }
    let login = LoginPlan {
        v1,
        accepts: clients.accepts.clone(),
        keys_prefix: clients.keys_prefix.clone(),
        heartbeat: duration(clients.heartbeat),
    };
    let plan = Plan {
        targets: clients.target.clone(),
        sources: spread.sources,
        rooms,
        login: raw.is_none().then_some(login),
        raw,
        tls: clients.tls.config(&clients.target)?,
        operation: clients.accepts.first().copied().unwrap_or_default(),
        connect_rate: generator.connect_rate / f64::from(spread.threads),
        pending_max: spread.pending_max,
        slow_percent: 0.0,
        buffers: spread.buffers,
        gather: Duration::from_micros(generator.gather_us),
    };
    hello(&plan, duration(generator.patience).min(HELLO_PATIENCE))?;
    Ok((plan, spread.threads))
}

/// Connects the clients with these numbers and waits until all are logged in.
///
/// # Errors
/// See [`Fleet::wait_ready`].
pub fn log_in(
    plan: &Arc<Plan>,
    numbers: Range<u32>,
    threads: u32,
    generator: &GeneratorArgs,
    interrupt: &Interrupt,
) -> Result<Fleet, String> {
    let fleet = Fleet::start(plan, numbers, threads);
    let logins = progress(u64::from(fleet.clients()), "logged in");
    fleet.wait_ready(duration(generator.patience), interrupt, |ready| logins.set_position(ready))?;
    logins.finish_and_clear();
    Ok(fleet)
}

/// The pass that these flags describe.
pub fn pass(run: &RunArgs, rooms: u32) -> Pass {
    Pass {
        rate: run.rate,
        rooms,
        duration: duration(run.duration),
        warmup: duration(run.warmup),
        grace: duration(run.grace),
    }
}

/// A progress bar on standard error, invisible if that is no terminal.
pub fn progress(length: u64, what: &'static str) -> ProgressBar {
    let template = "{bar:40} {pos}/{len} {msg} {elapsed}";
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length).with_style(style).with_message(what)
}
