//! As many connections as the machine holds, logged in and in one room, with a broadcast to all of them now and then.

use clap::Args;
use serde::Serialize;

use crate::cli::duration;
use crate::interrupt::Interrupt;
use crate::kernel::{Growth, Kernel, Slab};
use crate::measure::{Latency, Measured, Pass};
use crate::memory::Memory;
use crate::report::{Origin, Table};
use crate::scene::{Entry, Scene, SceneArgs};
use crate::space::Space;
use crate::stand::Failure;

/// Flags of `million`.
#[derive(Clone, Debug, Args, Serialize)]
#[command(mut_arg("connect_rate", |flag| flag.default_value("1000000")))]
#[command(mut_arg("patience", |flag| flag.default_value("600")))]
#[command(mut_arg("grace", |flag| flag.default_value("60")))]
pub struct MillionArgs {
    #[command(flatten)]
    #[serde(flatten)]
    #[allow(missing_docs, reason = "its flags say it")]
    pub scene: SceneArgs,
    /// Clients; by default a million, or as many as memory, ports and file limits allow.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub connections: Option<u32>,
    /// Broadcasts per second.
    #[arg(long, default_value_t = 0.2, value_parser = crate::cli::rate)]
    pub rate: f64,
    /// Seconds of broadcasts.
    #[arg(long, default_value_t = 15.0, value_parser = crate::cli::seconds)]
    pub duration: f64,
    /// Seconds between the last login and the first broadcast.
    #[arg(long, default_value_t = 3.0, value_parser = crate::cli::seconds)]
    pub settle: f64,
    /// Bound: deliveries that may be lost.
    #[arg(long = "max-loss", value_name = "DELIVERIES")]
    pub loss_max: Option<u64>,
    /// Bound: bytes of the server's whole resident set for each connection.
    #[arg(long, requires = "server_pid", value_name = "BYTES", value_parser = crate::cli::bytes)]
    pub bytes_max: Option<f64>,
    /// Bound: connections with logins per second, in the mean.
    #[arg(long = "min-logins", value_name = "PER SECOND", value_parser = crate::cli::rate)]
    pub logins_min: Option<f64>,
}

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
    /// What to bear in mind.
    pub notes: Vec<String>,
    /// Clients there should be.
    pub connections: u32,
    /// How they came in.
    pub entry: Entry,
    /// Memory that connections take.
    pub memory: Footprint,
    /// Deliveries owed: broadcasts × clients.
    pub offered: u64,
    /// Of these, made.
    pub delivered: u64,
    /// Of these, not made.
    pub lost: u64,
    /// Deliveries made again.
    pub duplicates: u64,
    /// Deliveries after a later message.
    pub reordered: u64,
    /// From when a broadcast was due until a client had it; the most is the time of a pass.
    pub latency_ms: Latency,
    /// The broadcasts; none: not everybody came in.
    pub broadcast: Option<Measured>,
}

/// Memory of all connections together, and of each.
#[derive(Debug, Serialize)]
pub struct Footprint {
    /// The server's resident set before the first client, with all, and after the broadcasts.
    pub server_rss_bytes: Option<[u64; 3]>,
    /// The whole of it over the connections, with all and after the broadcasts.
    pub server_rss_bytes_per_connection: Option<[f64; 2]>,
    /// Resident set of this program for each client.
    pub client_bytes_per_connection: f64,
    /// Memory that is not available any more, of user and kernel, both ends, for each connection.
    pub machine_bytes_per_connection: f64,
    /// The kernel's part, both ends.
    pub kernel: Kernel,
}

/// Memory at one moment.
struct Reading {
    server: Option<Memory>,
    own: Option<Memory>,
    available: u64,
    slab: Slab,
}

impl Reading {
    fn take(server_pid: Option<u32>, connections: u32) -> Result<Self, String> {
        let unwatched = |pid: u32| move |error| format!("process {pid} cannot be watched: {error}");
        let server = server_pid.map(|pid| Memory::of(pid, connections).map_err(unwatched(pid))).transpose()?;
        let own = Memory::of(std::process::id(), connections).ok();
        Ok(Self { server, own, available: Space::memory_available(), slab: Slab::read() })
    }
}

/// Runs `million`.
///
/// # Errors
/// If there is no result.
pub fn million(arguments: &MillionArgs, interrupt: &Interrupt) -> Result<Report, Failure> {
    let scene = &arguments.scene;
    let space = Space::of_this_machine(&scene.clients.target, &scene.clients.source);
    let connections = match arguments.connections {
        Some(connections) => space.check(connections).map(|()| connections).map_err(Failure::Surroundings)?,
        None => space.connections(),
    };
    let notes = space.notes(connections);
    for note in &notes {
        eprintln!("note: {note}");
    }
    let pid = scene.server.server_pid;
    let prepared = Scene::new(scene, connections)?;
    let before = Reading::take(pid, 0).map_err(Failure::Surroundings)?;
    let (fleet, entry) = prepared.enter(connections, &scene.generator, interrupt);
    let mut reasons: Vec<_> = entry.failure.clone().into_iter().collect();
    if reasons.is_empty() {
        std::thread::sleep(duration(arguments.settle));
    }
    let came = u32::try_from(entry.connections).unwrap_or(u32::MAX).max(1);
    let all = Reading::take(pid, came);
    let pass = Pass {
        rate: arguments.rate,
        rooms: 1,
        duration: duration(arguments.duration),
        warmup: duration(0.0),
        grace: prepared.push.grace(),
    };
    let broadcast = if reasons.is_empty() { Some(prepared.pass(&fleet, &pass, false, interrupt)) } else { None };
    let after = Reading::take(pid, came);
    fleet.stop();
    let broadcast = match broadcast.transpose() {
        Ok(broadcast) => broadcast,
        Err(Failure::Run(sentence) | Failure::Surroundings(sentence)) => {
            reasons.push(sentence);
            None
        }
    };
    // A server that has died has no memory to look at, and that is a reason in itself.
    let all = all.unwrap_or_else(|sentence| {
        reasons.push(sentence);
        Reading { server: None, own: None, available: before.available, slab: Slab::read() }
    });
    let memory = Footprint::new(&before, &all, after.ok().and_then(|after| after.server), came);
    Ok(Report::new(arguments, connections, notes, reasons, entry, memory, broadcast))
}

impl Footprint {
    #[allow(clippy::cast_precision_loss, reason = "memory sizes")]
    fn new(before: &Reading, all: &Reading, after: Option<Memory>, connections: u32) -> Self {
        let each = |bytes: u64| bytes as f64 / f64::from(connections);
        let rss = before.server.zip(all.server).zip(after.or(all.server));
        let rss = rss.map(|((before, all), after)| [before.rss_bytes, all.rss_bytes, after.rss_bytes]);
        let own = before.own.zip(all.own).map_or(0, |(before, all)| all.rss_bytes.saturating_sub(before.rss_bytes));
        let tables = before
            .server
            .zip(all.server)
            .map_or(0, |(before, all)| all.page_table_bytes.saturating_sub(before.page_table_bytes));
        let growth = Growth { before: before.slab.clone(), after: all.slab.clone(), connections };
        Self {
            server_rss_bytes: rss,
            server_rss_bytes_per_connection: rss.map(|[_, all, after]| [each(all), each(after)]),
            client_bytes_per_connection: each(own),
            machine_bytes_per_connection: each(before.available.saturating_sub(all.available)),
            kernel: Kernel::new(&growth, &all.slab, None, each(tables)),
        }
    }
}

impl Report {
    fn new(
        arguments: &MillionArgs,
        connections: u32,
        notes: Vec<String>,
        mut reasons: Vec<String>,
        entry: Entry,
        memory: Footprint,
        broadcast: Option<Measured>,
    ) -> Self {
        reasons.extend(broadcast.iter().flat_map(|measured| measured.invalid_reasons.clone()));
        let counts = broadcast.as_ref().map(|measured| measured.counts).unwrap_or_default();
        let mut report = Self {
            origin: Origin::new("million", arguments),
            valid: reasons.is_empty(),
            invalid_reasons: reasons,
            bounds_missed: Vec::new(),
            notes,
            connections,
            entry,
            memory,
            offered: broadcast.as_ref().map_or(0, |measured| measured.offered),
            delivered: counts.delivered,
            lost: counts.lost,
            duplicates: counts.duplicates,
            reordered: counts.reordered,
            latency_ms: broadcast.as_ref().map(|measured| measured.latency_ms).unwrap_or_default(),
            broadcast,
        };
        report.check_bounds(arguments);
        report
    }

    fn check_bounds(&mut self, arguments: &MillionArgs) {
        let (lost, per_second) = (self.lost, self.entry.per_second);
        let missed = &mut self.bounds_missed;
        if arguments.loss_max.is_some_and(|max| lost > max) {
            missed.push(format!("{lost} deliveries were lost"));
        }
        if arguments.logins_min.is_some_and(|min| per_second < min) {
            missed.push(format!("{per_second:.0} clients logged in per second"));
        }
        if let (Some(max), Some([all, after])) = (arguments.bytes_max, self.memory.server_rss_bytes_per_connection)
            && all.max(after) > max
        {
            missed.push(format!("the server's resident set was {:.1} bytes a connection, not {max}", all.max(after)));
        }
        if let Some(stats) = self.broadcast.as_ref().and_then(|measured| measured.stats.as_ref()) {
            if !stats.law_holds {
                missed.push("offered is not sent + dropped + queued".to_owned());
            }
            if stats.sent_is_delivered == Some(false) {
                missed.push("the server's sent is not what clients received".to_owned());
            }
        }
    }

    /// The table for the terminal.
    pub fn table(&self) -> String {
        let mut table = Table::default();
        table.verdict(&self.invalid_reasons, &self.bounds_missed);
        table.row("logged in", format!("{}, of {}", self.entry.line(), self.connections));
        table.row("login ms", self.entry.login_ms);
        let memory = &self.memory;
        if let Some(([start, all, after], [each, each_after])) =
            memory.server_rss_bytes.zip(memory.server_rss_bytes_per_connection)
        {
            let [start, all, after] = [start, all, after].map(|bytes| bytes >> 20);
            table.row("server's resident set", format!("{start} MiB, with all {all} MiB, at the end {after} MiB"));
            table.row("  / connections", format!("{each:.1} bytes, at the end {each_after:.1}"));
        }
        let kernel = memory.kernel.slab_bytes_both_ends;
        let (client, machine) = (memory.client_bytes_per_connection, memory.machine_bytes_per_connection);
        table.row("bytes of a client", format!("{client:.1} in this program"));
        table
            .row("kernel bytes each", format!("{kernel:.0} of slab, both ends; {machine:.0} of all memory, both ends"));
        if let Some(measured) = &self.broadcast {
            table.row("broadcasts", format!("{} ({} refused with 503)", measured.messages, measured.refused));
            table.row("offered", self.offered);
            table.row("delivered, lost", format!("{}, {}", self.delivered, self.lost));
            table.row("duplicates, reordered", format!("{}, {}", self.duplicates, self.reordered));
            table.row("latency ms", self.latency_ms);
            table.costs(measured);
        }
        table.0
    }
}
