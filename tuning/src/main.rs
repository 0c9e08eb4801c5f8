//! `halley-tune`: says how many connections this host carries, and what stops the next one.
use std::{collections::BTreeMap, num::NonZero, path::PathBuf, process::ExitCode, thread};

use clap::{Parser, Subcommand};
use serde::Serialize;
use tuning::{Bound, CONNECTION_BYTES, Capacity, Host, bounds, capacity, notes, shards_for};

/// What a host can carry. Exit code: 0 enough, 1 short of the connections wanted, 2 error.
#[derive(Parser)]
#[command(name = "halley-tune", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Compare what the host allows with the connections wanted; changes nothing.
    Report {
        /// Connections wanted.
        #[arg(long, value_name = "N")]
        connections: u64,
        /// Shards of the gateway; by default one per CPU, raised until the connections fit.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=tuning::SHARDS_MAX))]
        shards: Option<u64>,
        /// One JSON object instead of text.
        #[arg(long)]
        json: bool,
        /// Where `proc` and `sys` are found: a copy of another host's, or this one's.
        #[arg(long, value_name = "FOLDER", default_value = "/")]
        root: PathBuf,
    },
}

#[derive(Serialize)]
struct Report {
    connections_wanted: u64,
    enough: bool,
    shards: u64,
    #[serde(flatten)]
    capacity: Capacity,
    /// Connections that each bound allows; null where the host sets none.
    bounds: BTreeMap<Bound, Option<u64>>,
    notes: Vec<String>,
    host: Host,
}

fn main() -> ExitCode {
    let Command::Report { connections, shards, json, root } = Arguments::parse().command;
    let host = match Host::read(&root) {
        Ok(host) => host,
        Err(error) => {
            eprintln!("halley-tune: {error}");
            return ExitCode::from(2);
        }
    };
    let report = Report::new(host, connections, shards);
    if json {
        // Numbers, names and text only: nothing that JSON could refuse.
        println!("{}", serde_json::to_string_pretty(&report).unwrap_or_default());
    } else {
        report.print();
    }
    if report.enough { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Report {
    fn new(host: Host, wanted: u64, shards: Option<u64>) -> Self {
        let cpus = thread::available_parallelism().map_or(1, NonZero::get) as u64;
        let shards = shards.unwrap_or_else(|| shards_for(&host, wanted, cpus));
        let capacity = capacity(&host, shards);
        Self {
            connections_wanted: wanted,
            enough: capacity.connections >= wanted,
            shards,
            capacity,
            bounds: bounds(&host, shards)
                .into_iter()
                .map(|(bound, allowed)| (bound, (allowed != u64::MAX).then_some(allowed)))
                .collect(),
            notes: notes(&host, shards, wanted),
            host,
        }
    }

    fn print(&self) {
        println!("connections allowed with {} shards, by", self.shards);
        for (bound, allowed) in &self.bounds {
            let allowed = allowed.map_or_else(|| "no bound".to_owned(), |number| number.to_string());
            println!("  {allowed:>12}  {}", explained(*bound, &self.host));
        }
        for note in &self.notes {
            println!("note: {note}");
        }
        let Capacity { connections, limited_by } = self.capacity;
        if self.enough {
            println!("enough for {}: {connections} fit", self.connections_wanted);
        } else {
            println!("short of {}: {connections} fit; {}", self.connections_wanted, remedy(limited_by));
        }
    }
}

fn explained(bound: Bound, host: &Host) -> String {
    let or_unknown = |value: Option<u64>| value.map_or_else(|| "unlimited".to_owned(), |number| number.to_string());
    match bound {
        Bound::Kernel => format!("kernel {}, 6.1 needed", host.kernel.as_deref().unwrap_or("unknown")),
        Bound::IoUringDisabled => {
            format!("kernel.io_uring_disabled {}", host.io_uring_disabled.unwrap_or(0))
        }
        Bound::FileTable => format!(
            "file table of each shard's ring: RLIMIT_NOFILE {} (hard), at most {}",
            or_unknown(host.files.hard),
            tuning::FILE_TABLE_MAX
        ),
        Bound::FileMax => {
            format!("fs.file-max {} less {} files open now", or_unknown(host.file_max), host.files_open.unwrap_or(0))
        }
        Bound::Memory => format!(
            "available memory (host {} bytes, control group {}) at {CONNECTION_BYTES} bytes a connection",
            or_unknown(host.memory_available),
            or_unknown(host.cgroup_available)
        ),
    }
}

fn remedy(bound: Bound) -> &'static str {
    match bound {
        Bound::Kernel => "run Linux 6.1 or later",
        Bound::IoUringDisabled => "set kernel.io_uring_disabled to 0, or to 1 with the gateway's group",
        Bound::FileTable => "raise RLIMIT_NOFILE (LimitNOFILE= of the unit, ulimit -Hn), or use more shards",
        Bound::FileMax => "raise fs.file-max",
        Bound::Memory => "add memory, or raise memory.max of the control group",
    }
}
