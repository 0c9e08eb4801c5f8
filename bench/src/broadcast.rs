//! The scenario goim is known for: everybody in one room, messages pushed to it at a fixed rate.

use std::time::Duration;

use crate::cli::{BroadcastArgs, FloorArgs, RunArgs, duration};
use crate::floor::{Floor, FloorRun};
use crate::floor_server::Kind;
use crate::interrupt::Interrupt;
use crate::limit::{self, Limit};
use crate::measure::Measured;
use crate::plan::Rooms;
pub use crate::stand::Failure;
use crate::stand::{Stand, pass};
use crate::target::Transport;

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
    let (run, clients) = (&arguments.load.run, &arguments.load.clients);
    let mut stand = Stand::new(&arguments.load, Rooms::one(&clients.room), interrupt)?;
    stand.slow(&arguments.slow);
    let transports = clients.target.iter().map(|target| target.transport).collect();
    let floor_run = floor_run(run, transports);
    let mut floor = Floor::default();
    let kinds = if arguments.with_floor { Kind::possible(run.connections) } else { &[] };
    for kind in kinds {
        floor_pass(&floor_run, *kind, &mut floor, interrupt)?;
    }
    let mut measured = stand.pass(&pass(run, 1))?;
    stand.leave();
    for kind in kinds.iter().rev().filter(|_| !interrupt.is_set()) {
        floor_pass(&floor_run, *kind, &mut floor, interrupt)?;
    }
    measured.doubt_floor(&floor);
    Ok((measured, arguments.with_floor.then_some(floor)))
}

/// Runs `broadcast --find-limit`.
///
/// # Errors
/// If there is no result.
pub fn find_limit(arguments: &BroadcastArgs, interrupt: &Interrupt) -> Result<(Measured, Limit), Failure> {
    let load = &arguments.load;
    let mut stand = Stand::new(load, Rooms::one(&load.clients.room), interrupt)?;
    stand.slow(&arguments.slow);
    limit::find(&arguments.limit, load, 1, &mut stand, interrupt)
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
        pass: pass(run, 1),
    }
}
