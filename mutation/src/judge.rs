//! Runs the program with one change chosen, and says who noticed.

use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// The test that obeys words (`cargo xtask sim`).
const SIMULATION: &str = "shard::tests::sim::command";

/// Processor time that a run may take beside a second for each seed, which takes a quarter of it. Longer means that it
/// does not end.
const CPU_SECONDS: u64 = 60;

/// A run that for so many times as long neither works nor ends has locked itself up.
const WALL_FACTOR: u64 = 4;

/// Address space of a run, in KiB: a change that makes it grow without end is noticed, not suffered.
const ADDRESS_KIB_MAX: u64 = 24 << 20;

/// What became of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Noticed, by what.
    Caught(String),
    Missed,
}

/// Whether the standard stories of so many seeds notice the change.
pub(crate) fn simulation(program: &Path, mutant: Option<usize>, seeds: u64) -> io::Result<Verdict> {
    let cpu_seconds = CPU_SECONDS + seeds;
    let mut command = limited(program, mutant, cpu_seconds);
    command.args(["--exact", SIMULATION, "--nocapture"]).env("HALLEY_SIM", format!("--seeds {seeds}"));
    // The first line is enough: what follows it is the search for a shorter script.
    run(command, cpu_seconds, |line| line.starts_with("seed ") && line.contains(" fails:"))
}

/// Whether the tests of the same modules notice the change, the simulation left out.
pub(crate) fn tests(program: &Path, mutant: usize) -> io::Result<Verdict> {
    let cpu_seconds = CPU_SECONDS;
    let mut command = limited(program, Some(mutant), cpu_seconds);
    command.args(["shard::", "directory::", "dispatch::", "link::", "decide::", "--skip", "shard::tests::sim"]);
    run(command, cpu_seconds, |line| line.starts_with("test ") && line.ends_with("FAILED"))
}

fn limited(program: &Path, mutant: Option<usize>, cpu_seconds: u64) -> Command {
    let mut command = Command::new("sh");
    let limits = format!("ulimit -t {cpu_seconds}; ulimit -v {ADDRESS_KIB_MAX}; ulimit -c 0; exec \"$0\" \"$@\"");
    command.arg("-c").arg(limits).arg(program).env_remove("HALLEY_SIM").env_remove("HALLEY_MUTANT");
    if let Some(number) = mutant {
        command.env("HALLEY_MUTANT", number.to_string());
    }
    // Tests find the documents of the copy that they were built from.
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(mut command: Command, cpu_seconds: u64, tells: fn(&str) -> bool) -> io::Result<Verdict> {
    let mut child = command.spawn()?;
    let (Some(output), Some(mut errors)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(io::Error::other("no output"));
    };
    let (told, first) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if tells(&line) {
                let _ = told.send(line);
            }
        }
    });
    let silent = std::thread::spawn(move || {
        let mut text = String::new();
        let _ = errors.read_to_string(&mut text);
        text
    });
    let verdict = match first.recv_timeout(Duration::from_secs(WALL_FACTOR * cpu_seconds)) {
        Ok(line) => {
            child.kill()?;
            child.wait()?;
            Verdict::Caught(line)
        }
        Err(mpsc::RecvTimeoutError::Timeout) => {
            child.kill()?;
            child.wait()?;
            Verdict::Caught("it does not end".into())
        }
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            let status = child.wait()?;
            if status.success() { Verdict::Missed } else { Verdict::Caught(status.to_string()) }
        }
    };
    let _ = reader.join();
    let said = silent.join().unwrap_or_default();
    Ok(match verdict {
        Verdict::Caught(line) if line.starts_with("signal") => {
            Verdict::Caught(format!("{line} {}", said.lines().last().unwrap_or_default()))
        }
        verdict => verdict,
    })
}
