//! `suite`: many runs from one file, each against a server of its own, and one page about all.

mod file;
mod server;

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use clap::Args;
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

pub use file::{Case, Suite};
use server::{Names, Running};

use crate::machine;
use crate::page::{self, Run};

const USAGE: u8 = 2;
const INVALID: u8 = 3;

/// Longest wait for the kernel to free what a run had open.
const REST_MAX: Duration = Duration::from_mins(2);

/// Flags of `suite`.
#[derive(Clone, Debug, Args)]
pub struct SuiteArgs {
    /// The suite, TOML; what may stand in it is in docs/benchmarks/README.md.
    pub file: PathBuf,
    /// Folder for the JSON of each run, its log, its server's log, and report.html; by default
    /// the name of the suite.
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Runs of each case, whatever the file says.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub repeat: Option<u32>,
    /// Only cases whose names contain this; may be given several times.
    #[arg(long)]
    pub only: Vec<String>,
}

/// A suite on its way.
struct Session<'a> {
    suite: &'a Suite,
    out: PathBuf,
    names: Names,
    signals: Signals,
    /// SIGINT and SIGTERM so far.
    interrupts: usize,
    runs: Vec<Run>,
    failures: Vec<String>,
    worst: u8,
}

/// Runs all cases, each as often as it says, one round after the other; a run that fails does not
/// keep the others from running. The exit status is the worst of them.
///
/// # Errors
/// A sentence, if the suite cannot be read, or its results cannot be written.
pub fn suite(arguments: &SuiteArgs) -> Result<u8, String> {
    let suite = Suite::read(&arguments.file)?;
    let out = arguments.out.clone().unwrap_or_else(|| PathBuf::from(&suite.name));
    std::fs::create_dir_all(&out).map_err(|error| format!("{} cannot be made: {error}", out.display()))?;
    let copy = out.join("suite.toml");
    std::fs::copy(&arguments.file, &copy).map_err(|error| format!("{} cannot be written: {error}", copy.display()))?;
    let mut session = Session {
        names: Names::new(&arguments.file, &out)?,
        out,
        suite: &suite,
        signals: Signals::new([SIGINT, SIGTERM]).map_err(|error| error.to_string())?,
        interrupts: 0,
        runs: Vec::new(),
        failures: Vec::new(),
        worst: 0,
    };
    let is_chosen =
        |case: &Case| arguments.only.is_empty() || arguments.only.iter().any(|part| case.name.contains(part.as_str()));
    let cases: Vec<&Case> = suite.case.iter().filter(|case| is_chosen(case)).collect();
    if cases.is_empty() {
        return Err("--only leaves no case".to_owned());
    }
    let times = |case: &Case| arguments.repeat.or(case.repeat).unwrap_or(suite.repeat);
    let rounds = cases.iter().map(|case| times(case)).max().unwrap_or(0);
    for round in 1..=rounds {
        for case in cases.iter().filter(|case| round <= times(case)) {
            if session.interrupts > 0 {
                break;
            }
            session.run(case, round)?;
        }
    }
    if session.interrupts > 0 {
        session.fail("the suite was interrupted: what comes after that is missing".to_owned(), INVALID);
    }
    session.write_page()?;
    println!("{}", session.page().display());
    Ok(session.worst)
}

impl Session<'_> {
    fn fail(&mut self, sentence: String, status: u8) {
        println!("  {sentence}");
        self.failures.push(sentence);
        self.worst = self.worst.max(status);
    }

    fn page(&self) -> PathBuf {
        self.out.join("report.html")
    }

    fn write_page(&self) -> Result<(), String> {
        let mut runs = self.runs.clone();
        let place = |run: &Run| self.suite.case.iter().position(|case| case.name == run.case);
        runs.sort_by_key(place);
        let page = page::page(&self.suite.name, &runs, &self.failures);
        std::fs::write(self.page(), page)
            .map_err(|error| format!("{} cannot be written: {error}", self.page().display()))
    }

    /// One run of a case, from the start of its server to its end.
    fn run(&mut self, case: &Case, round: u32) -> Result<(), String> {
        let name = format!("{}-{round}", case.name);
        println!("{name}");
        match self.measured(case, &name) {
            Ok((status, run)) => {
                println!("  {}", verdict(&run, status));
                self.worst = self.worst.max(status);
                self.runs.push(run);
            }
            Err(sentence) => self.fail(format!("{name}: {sentence}"), USAGE),
        }
        self.write_page()
    }

    fn measured(&mut self, case: &Case, name: &str) -> Result<(u8, Run), String> {
        let json = self.out.join(format!("{name}.json"));
        let _ = std::fs::remove_file(&json); // a result of an earlier time must not pass for this one
        let mut names = self.names.clone();
        let mut server = None;
        if let Some(kind) = &case.server {
            let log = self.out.join(format!("{name}.server.log"));
            let Self { signals, interrupts, suite, .. } = self;
            let give_up = || {
                *interrupts += signals.pending().count();
                *interrupts > 0
            };
            server = Some(Running::start(&suite.server[kind], &mut names, log, give_up)?);
        }
        let log = self.out.join(format!("{name}.log"));
        let mut bench = start_bench(case, &names, &json, &log)?;
        let ended = self.wait(&mut bench, server.as_mut());
        if ended.is_err() {
            let _ = bench.kill().and_then(|()| bench.wait()); // it may just have ended
        }
        if let Some(server) = server {
            server.stop();
        }
        self.rest();
        let status = ended?.code().and_then(|code| u8::try_from(code).ok());
        match (status, Run::read(&json)) {
            (Some(status), Ok(run)) => Ok((status, run)),
            (status, Err(_)) => {
                self.worst = self.worst.max(status.unwrap_or(INVALID));
                Err(format!("no result; {}", last_line(&log)))
            }
            (None, Ok(_)) => Err(format!("killed; {}", last_line(&log))),
        }
    }

    /// Waits until the machine has as few files open as it will have: the kernel frees the sockets of a run behind the
    /// end of its programs, those of a million for a minute, and the next run shall not pay for that.
    fn rest(&mut self) {
        let deadline = Instant::now() + REST_MAX;
        let mut before = u64::MAX;
        while let Some(open) = machine::open_files().filter(|open| is_falling(before, *open)) {
            before = open;
            self.interrupts += self.signals.pending().count();
            if self.interrupts > 0 || Instant::now() > deadline {
                return;
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// Waits for a run to end, passes signals on, and starts a server again that is to come back.
    fn wait(&mut self, bench: &mut Child, mut server: Option<&mut Running>) -> Result<ExitStatus, String> {
        loop {
            if let Some(status) = bench.try_wait().map_err(|error| error.to_string())? {
                return Ok(status);
            }
            for _ in self.signals.pending() {
                self.interrupts += 1;
                let signal = if self.interrupts > 1 { Signal::KILL } else { Signal::INT };
                let _ = kill_process(Pid::from_child(bench), signal); // it may just have ended
            }
            if let Some(server) = &mut server {
                server.respawn()?;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The run itself: this program, in a group of its own, so that Ctrl-C reaches it only through us.
fn start_bench(case: &Case, names: &Names, json: &Path, log: &Path) -> Result<Child, String> {
    let failed = |error: std::io::Error| format!("the run cannot be started: {error}");
    let program = std::env::current_exe().map_err(failed)?;
    let output = File::create(log).map_err(failed)?;
    let mut command = Command::new(program);
    command.arg(&case.scenario);
    for flag in &case.flags {
        command.arg(names.fill(flag)?);
    }
    if let Some(cpus) = &case.cpus {
        command.arg("--cpus").arg(cpus);
    }
    command.arg("--json").arg(json).stdin(Stdio::null()).process_group(0);
    let both = output.try_clone().map_err(failed)?;
    command.stdout(output).stderr(both).spawn().map_err(failed)
}

/// A run in a line.
fn verdict(run: &Run, status: u8) -> String {
    let word = match status {
        0 => "done",
        1 => "bound missed",
        _ => "INVALID",
    };
    let shown = [
        ("delivered", "delivered"),
        ("lost", "lost"),
        ("latency_ms.p99", "ms p99"),
        ("server.cpu_us_per_delivery", "us a delivery"),
        ("floor_ratio", "times the floor"),
        ("server.bytes_per_connection", "bytes a connection"),
    ];
    let figures = shown.iter().filter_map(|(path, unit)| Some(format!("{} {unit}", page::number(run.number(path)?))));
    let reasons =
        ["invalid_reasons", "bounds_missed"].into_iter().flat_map(|path| run.strings(path)).map(str::to_owned);
    let parts: Vec<String> = figures.chain(reasons).collect();
    format!("{word}: {}", parts.join(", "))
}

/// Whether so many fewer files are open than before that more will be freed.
fn is_falling(before: u64, now: u64) -> bool {
    now + before / 100 < before
}

/// The last thing that somebody said.
fn last_line(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let line = text.lines().rev().find(|line| !line.trim().is_empty());
    line.map_or_else(|| format!("{} is empty", log.display()), |line| line.chars().take(400).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_rests_when_few_files_are_closed_any_more() {
        assert!(is_falling(u64::MAX, 2_000_000), "the first reading has nothing before it");
        assert!(is_falling(2_000_000, 1_900_000));
        assert!(!is_falling(1_000, 995));
        assert!(!is_falling(1_000, 1_200), "somebody else opened some");
    }
}
