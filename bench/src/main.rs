//! `halley-bench`: reads the command line, runs a scenario, writes what it found.

use std::process::ExitCode;

use bench::broadcast::{self, Failure};
use bench::churn;
use bench::cli::{Cli, Command, GeneratorArgs, RunArgs};
use bench::floor_server;
use bench::idle;
use bench::interrupt::Interrupt;
use bench::machine;
use bench::million;
use bench::report::{self, Report};
use bench::report_files;
use bench::rooms;
use bench::slow;
use bench::storm;
use bench::suite;
use bench::upstream;
use clap::Parser;

const DONE: u8 = 0;
const BOUND_MISSED: u8 = 1;
const USAGE: u8 = 2;
const INVALID: u8 = 3;

fn main() -> ExitCode {
    let status = match run(Cli::parse().command) {
        Ok(status) => status,
        Err(Failure::Surroundings(sentence)) => complain(&sentence, USAGE),
        Err(Failure::Run(sentence)) => complain(&sentence, INVALID),
    };
    ExitCode::from(status)
}

// long: an arm for each command
fn run(command: Command) -> Result<u8, Failure> {
    match command {
        Command::FloorServer { settings } => floor_server::run(&settings).map(|()| DONE).map_err(Failure::Run),
        Command::Suite(arguments) => suite::suite(&arguments).map_err(Failure::Surroundings),
        Command::Report(arguments) => report_files::report(&arguments).map_err(Failure::Surroundings),
        Command::Floor(arguments) => {
            let interrupt = prepare(&arguments.run.generator)?;
            let (measured, floor) = broadcast::floor(&arguments, &interrupt)?;
            finish(&arguments.run, Report::new("floor", &arguments, &measured, Some(&floor)), None)
        }
        Command::Broadcast(arguments) if arguments.limit.find_limit => {
            let interrupt = prepare(&arguments.load.run.generator)?;
            let (measured, limit) = broadcast::find_limit(&arguments, &interrupt)?;
            let report = Report { limit: Some(&limit), ..Report::new("broadcast", &arguments, &measured, None) };
            finish(&arguments.load.run, report, None)
        }
        Command::Broadcast(arguments) => {
            let interrupt = prepare(&arguments.load.run.generator)?;
            let (measured, floor) = broadcast::broadcast(&arguments, &interrupt)?;
            let report = Report::new("broadcast", &arguments, &measured, floor.as_ref());
            finish(&arguments.load.run, report, arguments.floor_ratio_max)
        }
        Command::Rooms(arguments) => {
            let interrupt = prepare(&arguments.load.run.generator)?;
            let (measured, limit) = rooms::rooms(&arguments, &interrupt)?;
            let report = Report { limit: limit.as_ref(), ..Report::new("rooms", &arguments, &measured, None) };
            finish(&arguments.load.run, report, None)
        }
        Command::Churn(arguments) => {
            let interrupt = prepare(&arguments.scene.generator)?;
            let report = churn::churn(&arguments, &interrupt)?;
            print!("{}", report.table());
            report::write_files(&report, &arguments.scene.generator).map_err(Failure::Surroundings)?;
            Ok(status(report.measured.valid, &report.bounds_missed))
        }
        Command::Storm(arguments) => {
            let interrupt = prepare(&arguments.scene.generator)?;
            let report = storm::storm(&arguments, &interrupt)?;
            print!("{}", report.table());
            report::write_files(&report, &arguments.scene.generator).map_err(Failure::Surroundings)?;
            Ok(status(report.valid, &report.bounds_missed))
        }
        Command::Million(arguments) => {
            let interrupt = prepare(&arguments.scene.generator)?;
            let report = million::million(&arguments, &interrupt)?;
            print!("{}", report.table());
            report::write_files(&report, &arguments.scene.generator).map_err(Failure::Surroundings)?;
            Ok(status(report.valid, &report.bounds_missed))
        }
        Command::Slow(arguments) => {
            let interrupt = prepare(&arguments.load.run.generator)?;
            let (measured, effect) = slow::slow(&arguments, &interrupt)?;
            let mut report = Report::new("slow", &arguments, &measured, None);
            report.bounds_missed = effect.bounds_missed(arguments.p99_ratio_max);
            report.effect = Some(&effect);
            finish(&arguments.load.run, report, None)
        }
        Command::Upstream(arguments) => {
            let interrupt = Interrupt::catch().map_err(|error| Failure::Surroundings(error.to_string()))?;
            let report = upstream::upstream(&arguments, &interrupt)?;
            print!("{}", report.table());
            Ok(status(report.valid, &report.bounds_missed))
        }
        Command::Idle(arguments) => {
            let interrupt = prepare(&arguments.generator)?;
            let report = idle::idle(&arguments, &interrupt)?;
            print!("{}", report.table());
            report::write_files(&report, &arguments.generator).map_err(Failure::Surroundings)?;
            Ok(status(report.valid, &report.bounds_missed))
        }
    }
}

/// Pins the generator and catches signals, before any thread is started.
fn prepare(generator: &GeneratorArgs) -> Result<Interrupt, Failure> {
    if let Some(cpus) = &generator.cpus {
        machine::pin(cpus).map_err(Failure::Surroundings)?;
    }
    Interrupt::catch().map_err(|error| Failure::Surroundings(error.to_string()))
}

fn finish(run: &RunArgs, mut report: Report<'_>, floor_ratio_max: Option<f64>) -> Result<u8, Failure> {
    report.check_bounds(run, floor_ratio_max);
    print!("{}", report.table());
    report::write_files(&report, &run.generator).map_err(Failure::Surroundings)?;
    if let Some(path) = &run.hlog {
        let failed = |error| Failure::Surroundings(format!("{} cannot be written: {error}", path.display()));
        report.write_hlog(path).map_err(failed)?;
    }
    Ok(status(report.measured.valid, &report.bounds_missed))
}

fn status(valid: bool, bounds_missed: &[String]) -> u8 {
    if !valid {
        INVALID
    } else if !bounds_missed.is_empty() {
        BOUND_MISSED
    } else {
        DONE
    }
}

fn complain(sentence: &str, status: u8) -> u8 {
    eprintln!("halley-bench: {sentence}");
    status
}
