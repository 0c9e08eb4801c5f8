//! The command line of `halley-tune`.
use std::path::PathBuf;

use crate::{Demand, Node, Profile, SHARDS_MAX, Traffic};
use clap::{Args, Parser, Subcommand};

/// What a host can carry, and what to change. Exit code: 0 enough, 1 short of the connections wanted, 2 error.
#[derive(Parser)]
#[command(name = "halley-tune", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Subcommand)]
pub enum Command {
    /// Compare what the host allows with the connections wanted; changes nothing.
    Report(Report),
    /// Show what a profile changes on this host, and change it: now, and after every reboot.
    Apply(Apply),
    /// Restore what `apply` found.
    Revert {
        /// Do not ask.
        #[arg(long)]
        yes: bool,
        /// The folder that stands for `/`.
        #[arg(long, value_name = "FOLDER", default_value = "/")]
        root: PathBuf,
    },
    /// Memory, CPU, bandwidth and nodes for so many connections and messages.
    Plan(PlanArguments),
    /// Print what the rules read, so that `report --root FILE` can be asked elsewhere.
    Record,
    /// Write the files that are made from the rules.
    #[command(hide = true)]
    Generate {
        /// The workspace.
        folder: PathBuf,
    },
}

/// Of `report`.
#[derive(Args)]
pub struct Report {
    /// Connections wanted.
    #[arg(long, value_name = "N")]
    connections: u64,
    /// Shards of the gateway; by default one per CPU, raised until the connections fit.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=SHARDS_MAX))]
    shards: Option<u64>,
    /// What the host is for.
    #[arg(long, value_enum, default_value = "gateway")]
    profile: Profile,
    /// Load generator: pairs of source address and target address that it connects between.
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u64).range(1..))]
    addresses: u64,
    /// Read the limits, control groups and CPUs of this process, such as a gateway that runs, instead of this one's own.
    #[arg(long, value_name = "PID")]
    pub pid: Option<u32>,
    /// Every rule in full.
    #[arg(long)]
    pub all: bool,
    /// One JSON object instead of text.
    #[arg(long)]
    pub json: bool,
    /// A folder with another host's `proc` and `sys`, or a file that `record` wrote.
    #[arg(long, value_name = "PATH", default_value = "/")]
    pub root: PathBuf,
}

/// Of `apply`.
#[derive(Args)]
pub struct Apply {
    /// What the host is for.
    #[arg(long, value_enum)]
    pub profile: Profile,
    /// Show the change, and make none.
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask.
    #[arg(long)]
    pub yes: bool,
    /// The folder that stands for `/`.
    #[arg(long, value_name = "FOLDER", default_value = "/")]
    pub root: PathBuf,
}

/// Of `plan`.
#[derive(Args)]
pub struct PlanArguments {
    /// Clients, on all nodes together.
    #[arg(long, value_name = "N")]
    connections: u64,
    /// Rooms; clients are spread evenly, one room each.
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u64).range(1..))]
    rooms: u64,
    /// Messages a second to each room.
    #[arg(long, value_name = "R", default_value = "1")]
    rate: f64,
    /// Bytes of a payload.
    #[arg(long, value_name = "B", default_value = "100")]
    bytes: u64,
    /// Connections are over TLS.
    #[arg(long)]
    tls: bool,
    /// Cores of a node.
    #[arg(long, value_name = "N", default_value = "8")]
    cores: u64,
    /// Memory of a node, GiB.
    #[arg(long, value_name = "GIB", default_value = "32")]
    memory: u64,
    /// Link of a node, Gbit/s.
    #[arg(long, value_name = "GBIT", default_value = "10")]
    link: u64,
    /// One JSON object instead of text.
    #[arg(long)]
    pub json: bool,
}

impl Report {
    /// What is asked of the host.
    pub fn demand(&self) -> Demand {
        Demand { connections: self.connections, shards: self.shards, addresses: self.addresses, profile: self.profile }
    }
}

impl PlanArguments {
    /// What is to be carried.
    ///
    /// # Errors
    /// A sentence, if a number is beyond any plan.
    pub fn traffic(&self) -> Result<Traffic, String> {
        if !self.rate.is_finite() || self.rate < 0.0 || self.rate > 1e6 {
            return Err(format!("--rate {}: 0 to 1000000 messages a second", self.rate));
        }
        if self.connections > 1_000_000_000_000 || self.bytes > 1 << 30 {
            return Err("--connections or --bytes is beyond any plan".to_owned());
        }
        let Self { connections, rooms, rate, bytes, tls, .. } = *self;
        Ok(Traffic { connections, rooms, rate, bytes, tls })
    }

    /// What one node has.
    pub fn node(&self) -> Node {
        Node {
            cores: self.cores,
            memory_bytes: self.memory.saturating_mul(1 << 30),
            link_bits: self.link.saturating_mul(1_000_000_000),
        }
    }
}
