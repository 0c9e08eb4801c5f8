//! What a client that is logged in and does nothing costs a server: memory of user and kernel as
//! the slope between two numbers of clients, and CPU.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::cli::{IdleArgs, duration};
use crate::cost::{Spent, Usage};
use crate::fleet::Fleet;
use crate::interrupt::Interrupt;
use crate::kernel::{Growth, Kernel, Slab};
use crate::machine;
use crate::memory::{Memory, Settling};
use crate::plan::Plan;
use crate::preflight;
use crate::report::{Origin, Table};
use crate::stand::{Failure, log_in, plan};
use crate::target::{Target, Transport};

/// Connections to the bare holder, at most.
const BARE_MAX: u32 = 2000;

/// Those of them begun per second: its listen queue is short.
const BARE_RATE: f64 = 2000.0;

/// What a run has shown.
#[derive(Debug, Serialize)]
pub struct Report {
    /// How to repeat it.
    #[serde(flatten)]
    pub origin: Origin,
    /// Whether the numbers mean anything.
    pub valid: bool,
    /// Why not.
    pub invalid_reasons: Vec<String>,
    /// Bounds that were missed.
    pub bounds_missed: Vec<String>,
    /// Clients at the last reading.
    pub connections: u32,
    /// The server's memory and CPU.
    pub server: Server,
    /// Before the first client, with some, with all.
    pub readings: [Memory; 3],
    /// The kernel's memory for each connection.
    pub kernel: Kernel,
}

/// What the clients cost the server.
#[derive(Debug, Serialize)]
pub struct Server {
    /// Resident set with all clients.
    pub rss_bytes: u64,
    /// Resident set before the first.
    pub rss_bytes_at_start: u64,
    /// Resident set that each client added between the second reading and the third: the slope.
    pub bytes_per_connection: f64,
    /// The same of its anonymous memory, where that may be read.
    pub anonymous_bytes_per_connection: Option<f64>,
    /// The whole resident set over the number of clients.
    pub rss_bytes_per_connection: f64,
    /// CPU while all were idle, heartbeats included, in percent of a core.
    pub idle_cpu_percent: f64,
    /// Seconds for which that was measured.
    pub idle_seconds: f64,
    /// The CPU in those seconds.
    pub idle: Spent,
}

/// A run in which the clients are logged in.
struct Run<'a> {
    arguments: &'a IdleArgs,
    interrupt: &'a Interrupt,
    plan: Arc<Plan>,
    threads: u32,
    fleets: Vec<Fleet>,
}

/// Runs `idle`.
///
/// # Errors
/// If there is no result.
pub fn idle(arguments: &IdleArgs, interrupt: &Interrupt) -> Result<Report, Failure> {
    let (from, connections) = (arguments.from.unwrap_or(arguments.connections / 3).max(1), arguments.connections);
    if from >= connections {
        let sentence = format!("--from {from} is not below --connections {connections}: a slope needs two points");
        return Err(Failure::Surroundings(sentence));
    }
    preflight::reach(&arguments.clients.target).map_err(Failure::Surroundings)?;
    let (plan, threads) = plan(&arguments.clients, &arguments.generator, connections).map_err(Failure::Surroundings)?;
    let mut run = Run { arguments, interrupt, plan: Arc::new(plan), threads, fleets: Vec::new() };
    let start = run.read(0).map_err(Failure::Surroundings)?;
    let report = run.report(start, from, connections).map_err(Failure::Run);
    run.fleets.into_iter().for_each(Fleet::stop);
    report
}

impl Run<'_> {
    fn report(&mut self, start: Memory, from: u32, connections: u32) -> Result<Report, String> {
        let arguments = self.arguments;
        self.grow(0, from)?;
        let some = self.read(from)?;
        let before = Slab::read();
        self.grow(from, connections)?;
        let all = self.read(connections)?;
        let after = Slab::read();
        let (idle_seconds, idle) = self.rest()?;
        let quiet = Slab::read();
        let readings = [start, some, all];
        let invalid_reasons = self.doubts(&readings);
        let server = Server::new(&readings, idle_seconds, idle);
        let growth = Growth { before, after, connections: connections - from };
        let tables = slope(&some, &all, |memory| Some(memory.page_table_bytes));
        let kernel = Kernel::new(&growth, &quiet, self.to_a_bare_holder().as_ref(), tables.unwrap_or(0.0));
        let bytes = server.bytes_per_connection;
        let missed = arguments.bytes_max.filter(|max| bytes > *max);
        Ok(Report {
            origin: Origin::new("idle", arguments),
            valid: invalid_reasons.is_empty(),
            invalid_reasons,
            bounds_missed: missed
                .map(|max| format!("a connection cost {bytes:.1} bytes, not {max}"))
                .into_iter()
                .collect(),
            connections,
            server,
            readings,
            kernel,
        })
    }

    fn grow(&mut self, from: u32, to: u32) -> Result<(), String> {
        let fleet = log_in(&self.plan, from..to, self.threads, &self.arguments.generator, self.interrupt)?;
        self.fleets.push(fleet);
        Ok(())
    }

    /// The server's memory when it is steady.
    fn read(&self, connections: u32) -> Result<Memory, String> {
        let arguments = self.arguments;
        let settling = Settling { steady: duration(arguments.steady), patience: duration(arguments.settle) };
        settling.read(arguments.server_pid, connections, || self.trouble())
    }

    /// Why the run cannot go on.
    fn trouble(&self) -> Option<String> {
        let interrupted = || self.interrupt.is_set().then(|| "interrupted before all readings were made".to_owned());
        self.fleets.iter().find_map(Fleet::failure).or_else(interrupted)
    }

    /// Lets everything be idle for a while: how long that was, and what the server spent.
    fn rest(&self) -> Result<(f64, Spent), String> {
        let pid = self.arguments.server_pid;
        let usage = || Usage::of(pid).map_err(|error| format!("process {pid} cannot be watched: {error}"));
        let before = usage()?;
        let started = Instant::now();
        while started.elapsed() < duration(self.arguments.idle) && !self.interrupt.is_set() {
            std::thread::sleep(Duration::from_millis(20));
        }
        let spent = usage()?.since(&before);
        Ok((started.elapsed().as_secs_f64(), spent))
    }

    fn doubts(&self, readings: &[Memory]) -> Vec<String> {
        let settle = self.arguments.settle;
        let unsteady = readings.iter().filter(|memory| !memory.steady);
        let mut doubts: Vec<_> = unsteady
            .map(|memory| format!("with {} clients the resident set was not steady in {settle} s", memory.connections))
            .collect();
        doubts.extend(self.trouble());
        doubts
    }

    /// Connects clients of the same kind to a holder of sockets in this process.
    fn to_a_bare_holder(&self) -> Option<Growth> {
        let files = u32::try_from(machine::raise_nofile()).unwrap_or(u32::MAX);
        let connections = self.arguments.connections.min(BARE_MAX).min(files / 2);
        let listener = TcpListener::bind("127.0.0.1:0").ok()?;
        listener.set_nonblocking(true).ok()?;
        let address = listener.local_addr().ok()?;
        let target =
            Target { transport: Transport::Tcp, secure: false, host: String::new(), path: String::new(), address };
        let plan = Plan {
            targets: vec![target],
            sources: Vec::new(),
            login: None,
            raw: None,
            connect_rate: BARE_RATE,
            ..Plan::clone(&self.plan)
        };
        let before = Slab::read();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let holder = scope.spawn(|| hold(&listener, connections, &stop));
            let fleet = Fleet::start(&Arc::new(plan), 0..connections, 1);
            let connected = fleet.wait_ready(duration(self.arguments.generator.patience), self.interrupt, |_| ());
            stop.store(connected.is_err(), Ordering::Relaxed);
            let held = holder.join().ok()?;
            let after = Slab::read();
            fleet.stop();
            (held.len() == connections as usize).then_some(Growth { before, after, connections })
        })
    }
}

/// Accepts so many connections, and no more than that.
fn hold(listener: &TcpListener, connections: u32, stop: &AtomicBool) -> Vec<std::net::TcpStream> {
    let mut held = Vec::new();
    while held.len() < connections as usize && !stop.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, _)) => held.push(stream),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(_) => break, // too few descriptors: then there is no comparison
        }
    }
    held
}

impl Server {
    #[allow(clippy::cast_precision_loss, reason = "memory sizes")]
    fn new([start, some, all]: &[Memory; 3], idle_seconds: f64, idle: Spent) -> Self {
        Self {
            rss_bytes: all.rss_bytes,
            rss_bytes_at_start: start.rss_bytes,
            bytes_per_connection: slope(some, all, |memory| Some(memory.rss_bytes)).unwrap_or(0.0),
            anonymous_bytes_per_connection: slope(some, all, |memory| memory.anonymous_bytes),
            rss_bytes_per_connection: all.rss_bytes as f64 / f64::from(all.connections),
            idle_cpu_percent: idle.cpu_seconds / idle_seconds * 100.0,
            idle_seconds,
            idle,
        }
    }
}

/// Bytes that each further client added between two readings.
#[allow(clippy::cast_precision_loss, reason = "memory sizes")]
fn slope(some: &Memory, all: &Memory, bytes: fn(&Memory) -> Option<u64>) -> Option<f64> {
    let grown = bytes(all)? as f64 - bytes(some)? as f64;
    Some(grown / f64::from(all.connections - some.connections))
}

impl Report {
    /// The table for the terminal.
    pub fn table(&self) -> String {
        let mut table = Table::default();
        for reason in &self.invalid_reasons {
            table.row("INVALID", reason);
        }
        for missed in &self.bounds_missed {
            table.row("bound missed", missed);
        }
        for Memory { connections, rss_bytes, settled_seconds, .. } in &self.readings {
            #[allow(clippy::cast_precision_loss, reason = "memory sizes")]
            let mib = *rss_bytes as f64 / f64::from(1 << 20);
            let settled = format!("{mib:.2} MiB resident, steady after {settled_seconds:.1} s");
            table.row(&format!("{connections} clients"), settled);
        }
        let server = &self.server;
        let anonymous = server.anonymous_bytes_per_connection;
        let anonymous = anonymous.map_or(String::new(), |bytes| format!(" (anonymous {bytes:.1})"));
        table.row("bytes per connection", format!("{:.1}{anonymous}: the slope", server.bytes_per_connection));
        table.row("whole set / connections", format!("{:.1}", server.rss_bytes_per_connection));
        let (percent, seconds) = (server.idle_cpu_percent, server.idle_seconds);
        table.row("idle CPU", format!("{percent:.2} % of a core in {seconds:.1} s"));
        self.kernel_rows(&mut table);
        table.0
    }

    fn kernel_rows(&self, table: &mut Table) {
        let kernel = &self.kernel;
        let (both, drift) = (kernel.slab_bytes_both_ends, kernel.drift_bytes);
        let served = kernel.server_bytes.map_or("cannot be told".to_owned(), |bytes| format!("{bytes:.0}"));
        table.row("kernel bytes each", format!("server {served}, slab of both ends {both:.0} (drift {drift:.0})"));
        for cache in &kernel.caches {
            let (bytes, objects) = (cache.object_bytes, cache.both_ends);
            let of_server = cache.server.map_or(String::new(), |objects| format!(", of the server {objects:.2}"));
            table.row(&format!("  {}", cache.name), format!("{objects:.2} of {bytes} bytes{of_server}"));
        }
        for untold in &kernel.untold {
            table.row("not told", untold);
        }
    }
}
