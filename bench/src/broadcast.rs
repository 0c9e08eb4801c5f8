//! The scenario goim is known for: everybody in one room, messages pushed to it at a fixed rate.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::{BroadcastArgs, ClientArgs, FloorArgs, GeneratorArgs, RunArgs, duration};
use crate::cost::NetCounters;
use crate::fleet::Fleet;
use crate::floor::{Floor, FloorRun};
use crate::floor_server::Kind;
use crate::interrupt::Interrupt;
use crate::measure::{Measured, Pass, Source, Watched, measure};
use crate::plan::{LoginPlan, Plan};
use crate::preflight;
use crate::push::HttpPush;
use crate::stats::StatsSource;
use crate::target::Transport;

/// Why there is no result.
#[derive(Debug)]
pub enum Failure {
    /// Wrong before anything was measured.
    Surroundings(String),
    /// Went wrong on the way.
    Run(String),
}

/// Runs `floor`: both kinds. What the pass on bare rings showed stands for the run.
///
/// # Errors
/// If there is no result.
pub fn floor(arguments: &FloorArgs, interrupt: &Interrupt) -> Result<(Measured, Floor), Failure> {
    let run = floor_run(&arguments.run, arguments.transport.clone());
    let mut floor = Floor::default();
    let mut measured = None;
    for kind in Kind::possible(arguments.run.connections) {
        let whole = floor_pass(&run, *kind, &mut floor, interrupt)?;
        measured = measured.or(whole);
        if interrupt.is_set() {
            break;
        }
    }
    let mut measured = measured.ok_or(Failure::Run("no pass of the floor was made".to_owned()))?;
    measured.invalid_reasons.clear(); // they come again, with the name of their pass
    measured.doubt_floor(&floor);
    Ok((measured, floor))
}

/// Runs `broadcast`, between two floors if asked to.
///
/// # Errors
/// If there is no result.
pub fn broadcast(arguments: &BroadcastArgs, interrupt: &Interrupt) -> Result<(Measured, Option<Floor>), Failure> {
    preflight::reach(&arguments.clients.target).map_err(Failure::Surroundings)?;
    arguments.push.connect().map_err(Failure::Surroundings)?;
    let transports = arguments.clients.target.iter().map(|target| target.transport).collect();
    let run = floor_run(&arguments.run, transports);
    let mut floor = Floor::default();
    let kinds = if arguments.with_floor { Kind::possible(arguments.run.connections) } else { &[] };
    for kind in kinds {
        floor_pass(&run, *kind, &mut floor, interrupt)?;
    }
    let mut measured = server_pass(arguments, interrupt)?;
    for kind in kinds.iter().rev().filter(|_| !interrupt.is_set()) {
        floor_pass(&run, *kind, &mut floor, interrupt)?;
    }
    measured.doubt_floor(&floor);
    Ok((measured, arguments.with_floor.then_some(floor)))
}

fn server_pass(arguments: &BroadcastArgs, interrupt: &Interrupt) -> Result<Measured, Failure> {
    let run = &arguments.run;
    let net_before = NetCounters::read();
    let stats = arguments.metrics.clone().map(|url| StatsSource { url, token: arguments.token.clone() });
    let push = HttpPush::to_room(arguments.push.clone(), &arguments.clients.room, run.operation)
        .map_err(Failure::Surroundings)?;
    let push = HttpPush {
        token: arguments.token.clone(),
        payload_bytes: run.payload_bytes,
        grace: duration(run.grace),
        ..push
    };
    let (plan, threads) = plan(&arguments.clients, &run.generator, run.connections).map_err(Failure::Surroundings)?;
    let plan = Arc::new(Plan { operation: run.operation, slow_percent: arguments.slow_percent, ..plan });
    let fleet = log_in(&plan, 0..run.connections, threads, &run.generator, interrupt).map_err(Failure::Run)?;
    std::thread::sleep(duration(run.settle));
    let watched = Watched {
        fleet: &fleet,
        slow: arguments.slow_percent > 0.0,
        server_pid: arguments.server_pid,
        stats: stats.as_ref(),
        net_before: &net_before,
        interrupt,
        bar: progress(pass(run).deliveries(run.connections), "delivered"),
    };
    let measured = measure(&mut Source::Http(&push), &pass(run), &watched).map_err(Failure::Run)?;
    fleet.stop();
    Ok(measured)
}

/// What clients with these flags are, and from how many threads they come.
///
/// # Errors
/// A sentence, if ports or file limits do not suffice.
pub fn plan(clients: &ClientArgs, generator: &GeneratorArgs, connections: u32) -> Result<(Plan, u32), String> {
    let spread = preflight::spread(connections, &clients.target, &clients.source, generator.threads)?;
    let plan = Plan {
        targets: clients.target.clone(),
        sources: spread.sources,
        login: Some(LoginPlan {
            room: clients.room.clone(),
            accepts: clients.accepts.clone(),
            keys_prefix: clients.keys_prefix.clone(),
            heartbeat: duration(clients.heartbeat),
        }),
        operation: clients.accepts.first().copied().unwrap_or_default(),
        connect_rate: generator.connect_rate / f64::from(spread.threads),
        slow_percent: 0.0,
        buffers: spread.buffers,
        gather: Duration::from_micros(generator.gather_us),
    };
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

fn floor_pass(
    run: &FloorRun,
    kind: Kind,
    floor: &mut Floor,
    interrupt: &Interrupt,
) -> Result<Option<Measured>, Failure> {
    let (pass, measured) = run.run(kind, interrupt).map_err(Failure::Run)?;
    floor.add(pass);
    Ok((kind == Kind::Ring).then_some(measured))
}

fn floor_run(run: &RunArgs, transports: Vec<Transport>) -> FloorRun {
    FloorRun {
        connections: run.connections,
        transports,
        server_cpus: run.server_cpus.clone(),
        operation: run.operation,
        payload_bytes: run.payload_bytes,
        connect_rate: run.generator.connect_rate,
        threads: run.generator.threads,
        gather: Duration::from_micros(run.generator.gather_us),
        patience: duration(run.generator.patience),
        settle: duration(run.settle),
        pass: pass(run),
    }
}

fn pass(run: &RunArgs) -> Pass {
    Pass { rate: run.rate, duration: duration(run.duration), warmup: duration(run.warmup), grace: duration(run.grace) }
}

/// A progress bar on standard error, invisible if that is no terminal.
pub fn progress(length: u64, what: &'static str) -> ProgressBar {
    let template = "{bar:40} {pos}/{len} {msg} {elapsed}";
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length).with_style(style).with_message(what)
}
