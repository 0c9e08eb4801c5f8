//! The command line: every flag with what it means and what it is if nobody says.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use serde::Serialize;

use crate::churn::ChurnArgs;
use crate::clients::{SLOW_BYTES_PER_SECOND_MAX, SLOW_BYTES_PER_SECOND_MIN};
use crate::floor_server::Settings;
use crate::http::Url;
use crate::limit::LimitArgs;
use crate::million::MillionArgs;
use crate::push::{Api, BATCH_MAX, JobFormat, PushTo};
use crate::raw::DialectArgs;
use crate::report_files::ReportArgs;
use crate::rooms::RoomsArgs;
use crate::schedule::MARK_BYTES;
use crate::secure::TlsArgs;
use crate::slow::SlowArgs;
use crate::storm::StormArgs;
use crate::suite::SuiteArgs;
use crate::target::{Target, Transport};
use crate::upstream::UpstreamArgs;

/// Measures push gateways, and doubts itself.
///
/// Exit status: 0 done, 1 a stated bound was missed, 2 wrong usage or surroundings, 3 the run is
/// invalid.
#[derive(Debug, Parser)]
#[command(name = "halley-bench", version)]
pub struct Cli {
    /// What to measure.
    #[command(subcommand)]
    pub command: Command,
}

/// What to measure.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// The physical limit: a bare server of this program sends the same bytes to as many sockets.
    Floor(FloorArgs),
    /// Everybody in one room, messages pushed to it at a fixed rate.
    Broadcast(Box<BroadcastArgs>),
    /// Many rooms of a hundred clients each, messages pushed to every room at a fixed rate.
    Rooms(Box<RoomsArgs>),
    /// Clients come, log in, stay and leave at a rate, while messages are pushed to their room.
    Churn(Box<ChurnArgs>),
    /// Everybody reconnects at once, also after a restart of the server.
    Storm(Box<StormArgs>),
    /// As many connections as the machine holds, with broadcasts to all of them.
    Million(Box<MillionArgs>),
    /// A broadcast without and with clients that read slowly or not at all: what they do to the others.
    Slow(Box<SlowArgs>),
    /// Memory of a server for each client that is logged in and does nothing.
    Idle(Box<IdleArgs>),
    /// Clients say messages: which are acknowledged, how soon, and whether the place has them in order.
    Upstream(Box<UpstreamArgs>),
    /// Many runs from one file, each against a server of its own, and one page about all.
    Suite(SuiteArgs),
    /// One page about runs that were written with --json, side by side.
    Report(ReportArgs),
    /// The bare server of `floor`, started by it.
    #[command(hide = true)]
    FloorServer {
        /// JSON.
        #[arg(value_parser = settings)]
        settings: Settings,
    },
}

/// How clients come to be, in every scenario, and where the numbers go.
#[derive(Clone, Debug, Args, Serialize)]
pub struct GeneratorArgs {
    /// Seconds until everybody must be connected and logged in.
    #[arg(long, default_value_t = 120.0, value_parser = seconds)]
    pub patience: f64,
    /// Connections begun per second.
    #[arg(long, default_value_t = 20_000.0, value_parser = rate)]
    pub connect_rate: f64,
    /// CPUs of the generator, such as 1 or 2-3; everything it starts stays there.
    #[arg(long)]
    pub cpus: Option<String>,
    /// Threads of clients; one for each CPU, and more if the limit of open files demands it.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: Option<u32>,
    /// Microseconds for which a thread of clients that has run out of work lets messages gather:
    /// less work for both sides, and part of the latencies.
    #[arg(long, default_value_t = 200)]
    pub gather_us: u64,
    /// Write everything measured to this file.
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// Write a page with tables and plots to this file.
    #[arg(long)]
    pub html: Option<PathBuf>,
}

/// Who the clients of a server are.
#[derive(Clone, Debug, Args, Serialize)]
pub struct ClientArgs {
    /// Where clients connect: tcp://HOST:PORT or ws://HOST:PORT/sub, over TLS tls:// and wss://; given several times, clients
    /// take them in turn.
    #[arg(long, required = true)]
    #[serde(serialize_with = "display_all")]
    pub target: Vec<Target>,
    /// Whom clients over TLS trust.
    #[command(flatten)]
    #[serde(flatten)]
    pub tls: TlsArgs,
    /// Source addresses of the clients; given several times, clients take them in turn.
    #[arg(long)]
    pub source: Vec<IpAddr>,
    /// The room: NAME (which is `live://NAME`) or `TYPE://NAME`.
    #[arg(long, default_value = "bench", value_parser = room)]
    pub room: String,
    /// Operations that clients accept.
    #[arg(long, value_delimiter = ',', default_values_t = [1000, 1001, 1002])]
    pub accepts: Vec<i32>,
    /// Clients leave their key to the server (so they do by default).
    #[arg(long, conflicts_with = "keys_prefix")]
    pub generated_keys: bool,
    /// Clients' keys are this and their number.
    #[arg(long)]
    pub keys_prefix: Option<String>,
    /// Seconds between two heartbeats of a client, as goim's clients have it; 0: none.
    #[arg(long, default_value_t = 240.0, value_parser = seconds)]
    pub heartbeat: f64,
    #[command(flatten)]
    #[serde(flatten)]
    #[allow(missing_docs, reason = "its flags say it")]
    pub dialect: DialectArgs,
}

/// What every scenario with a schedule has.
#[derive(Clone, Debug, Args, Serialize)]
pub struct RunArgs {
    #[command(flatten)]
    #[serde(flatten)]
    #[allow(missing_docs, reason = "its flags say it")]
    pub generator: GeneratorArgs,
    /// Clients.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub connections: u32,
    /// Messages per second into each room.
    #[arg(long, default_value_t = 10.0, value_parser = rate)]
    pub rate: f64,
    /// Seconds measured.
    #[arg(long, default_value_t = 10.0, value_parser = seconds)]
    pub duration: f64,
    /// Seconds of messages before, which are not counted.
    #[arg(long, default_value_t = 2.0, value_parser = seconds)]
    pub warmup: f64,
    /// Seconds between the last login and the first message.
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    pub settle: f64,
    /// Seconds to wait for messages on their way after the last one.
    #[arg(long, default_value_t = 10.0, value_parser = seconds)]
    pub grace: f64,
    /// Bytes of each message, at least the 16 of its mark (run, sequence, due time).
    #[arg(long, default_value_t = MARK_BYTES, value_parser = payload_bytes)]
    pub payload_bytes: usize,
    /// Operation of the messages.
    #[arg(long, default_value_t = 1000)]
    pub operation: i32,
    /// CPUs of the bare server of a floor.
    #[arg(long)]
    pub server_cpus: Option<String>,
    /// Write the latencies to this file, as a log of `HdrHistogram`.
    #[arg(long)]
    pub hlog: Option<PathBuf>,
    /// Bound: deliveries that may be lost.
    #[arg(long = "max-loss", value_name = "DELIVERIES")]
    pub loss_max: Option<u64>,
    /// Bound: 99th percentile of the latency in milliseconds.
    #[arg(long = "max-p99-ms", value_name = "MS", value_parser = bound)]
    pub p99_ms_max: Option<f64>,
}

/// Where messages are pushed.
#[derive(Clone, Debug, Args, Serialize)]
pub struct PushArgs {
    /// Base of the push API, such as `http://127.0.0.1:3111`, or `kafka://BROKERS/TOPIC`.
    #[arg(long)]
    pub push: PushTo,
    /// kafka: how records say whom they are for.
    #[arg(long, value_enum, default_value = "goim-v2")]
    pub push_format: JobFormat,
    /// Which API that is.
    #[arg(long, value_enum, default_value = "goim")]
    pub push_api: Api,
    /// Connections to it. The messages of a room take one of them, so that their order is known.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub push_connections: u32,
    /// Messages in one call of Halley's API, which waits for the last of them to be due.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(BATCH_MAX)))]
    pub push_batch: u32,
    /// Bearer token of the API.
    #[arg(long, env = "HALLEY_BENCH_TOKEN", hide_env_values = true)]
    #[serde(skip)]
    pub token: Option<String>,
}

/// What is watched on the server's side.
#[derive(Clone, Debug, Args, Serialize)]
pub struct ServerArgs {
    /// Process of the server, to count its CPU and memory.
    #[arg(long)]
    pub server_pid: Option<u32>,
    /// Halley's counters: its API, or the whole address of /v1/stats.
    #[arg(long)]
    #[serde(serialize_with = "display_some_url")]
    pub metrics: Option<Url>,
}

/// Flags of `floor`.
#[derive(Clone, Debug, Args, Serialize)]
pub struct FloorArgs {
    #[command(flatten)]
    #[serde(flatten)]
    #[allow(missing_docs, reason = "its flags say it")]
    pub run: RunArgs,
    /// How messages travel; given several times, clients take them in turn.
    #[arg(long, value_enum, default_values = ["tcp"])]
    pub transport: Vec<Transport>,
}

/// What every scenario has that pushes messages to a server.
#[derive(Clone, Debug, Args, Serialize)]
pub struct LoadArgs {
    #[command(flatten)]
    #[serde(flatten)]
    #[allow(missing_docs, reason = "its flags say it")]
    pub run: RunArgs,
    #[command(flatten)]
    #[serde(flatten)]
    #[allow(missing_docs, reason = "its flags say it")]
    pub clients: ClientArgs,
    #[command(flatten)]
    #[serde(flatten)]
    #[allow(missing_docs, reason = "its flags say it")]
    pub push: PushArgs,
    #[command(flatten)]
    #[serde(flatten)]
    #[allow(missing_docs, reason = "its flags say it")]
    pub server: ServerArgs,
}

/// Who is slow, and how.
#[derive(Clone, Copy, Debug, Args, Serialize)]
pub struct SlowFlags {
    /// Share of the clients that are slow while the measured messages go out; they are counted apart.
    #[arg(long, default_value_t = 0.0, value_parser = percent)]
    pub slow_percent: f64,
    /// Bytes that each of them reads in a second; 0: they stop reading.
    #[arg(long, default_value_t = 0, value_name = "BYTES", value_parser = slow_bytes)]
    pub slow_bytes_per_second: u32,
}

/// Flags of `broadcast`.
#[derive(Clone, Debug, Args, Serialize)]
pub struct BroadcastArgs {
    #[command(flatten)]
    #[serde(flatten)]
    #[allow(missing_docs, reason = "its flags say it")]
    pub load: LoadArgs,
    #[command(flatten)]
    #[serde(flatten)]
    #[allow(missing_docs, reason = "its flags say it")]
    pub slow: SlowFlags,
    #[command(flatten)]
    #[serde(flatten)]
    #[allow(missing_docs, reason = "its flags say it")]
    pub limit: LimitArgs,
    /// Measure the floor, both kinds, before and after with the same settings.
    #[arg(long, conflicts_with = "find_limit")]
    pub with_floor: bool,
    /// Bound: the server's CPU per delivery, as a multiple of the better floor.
    #[arg(long = "max-floor-ratio", requires_all = ["with_floor", "server_pid"], value_name = "RATIO", value_parser = bound)]
    pub floor_ratio_max: Option<f64>,
}

/// Flags of `idle`.
#[derive(Clone, Debug, Args, Serialize)]
pub struct IdleArgs {
    #[command(flatten)]
    #[serde(flatten)]
    #[allow(missing_docs, reason = "its flags say it")]
    pub generator: GeneratorArgs,
    #[command(flatten)]
    #[serde(flatten)]
    #[allow(missing_docs, reason = "its flags say it")]
    pub clients: ClientArgs,
    /// Clients at the second reading.
    #[arg(long, default_value_t = 15_000, value_parser = clap::value_parser!(u32).range(2..))]
    pub connections: u32,
    /// Clients at the first reading; a third of --connections by default.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub from: Option<u32>,
    /// Process of the server.
    #[arg(long)]
    pub server_pid: u32,
    /// Seconds to wait at most for a steady resident set, before each reading.
    #[arg(long, default_value_t = 60.0, value_parser = seconds)]
    pub settle: f64,
    /// Seconds for which it must have stayed within 0.5 %.
    #[arg(long, default_value_t = 3.0, value_parser = seconds)]
    pub steady: f64,
    /// Seconds of doing nothing in which the server's CPU is measured.
    #[arg(long, default_value_t = 10.0, value_parser = window)]
    pub idle: f64,
    /// Bound: bytes of resident set that a further connection may add.
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub bytes_max: Option<f64>,
}

/// A number of seconds as a duration.
pub fn duration(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn settings(text: &str) -> Result<Settings, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

pub(crate) fn factor(text: &str) -> Result<f64, String> {
    number(text, 1.0, 100.0)
}

/// A number within bounds.
pub(crate) fn number(text: &str, low: f64, high: f64) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    let fits = number >= low && number <= high;
    if fits { Ok(number) } else { Err(format!("not between {low} and {high}")) }
}

pub(crate) fn rate(text: &str) -> Result<f64, String> {
    number(text, 0.001, 1e6)
}

pub(crate) fn seconds(text: &str) -> Result<f64, String> {
    number(text, 0.0, 1e6)
}

fn window(text: &str) -> Result<f64, String> {
    number(text, 0.1, 1e6)
}

pub(crate) fn bound(text: &str) -> Result<f64, String> {
    number(text, 0.0, 1e9)
}

pub(crate) fn bytes(text: &str) -> Result<f64, String> {
    number(text, 0.0, 1e12)
}

fn percent(text: &str) -> Result<f64, String> {
    number(text, 0.0, 99.0)
}

fn slow_bytes(text: &str) -> Result<u32, String> {
    let range = SLOW_BYTES_PER_SECOND_MIN..=SLOW_BYTES_PER_SECOND_MAX;
    match text.parse() {
        Ok(bytes) if bytes == 0 || range.contains(&bytes) => Ok(bytes),
        _ => Err(format!("neither 0 nor between {} and {}", range.start(), range.end())),
    }
}

pub(crate) fn payload_bytes(text: &str) -> Result<usize, String> {
    let bytes: usize = text.parse().map_err(|_| "not a number of bytes".to_owned())?;
    let fits = (MARK_BYTES..=1 << 20).contains(&bytes);
    if fits { Ok(bytes) } else { Err(format!("not between {MARK_BYTES} and {}", 1 << 20)) }
}

/// The room as a login carries it.
#[allow(clippy::unnecessary_wraps, reason = "the form of a value parser")]
fn room(text: &str) -> Result<String, String> {
    Ok(if text.contains("://") { text.to_owned() } else { format!("live://{text}") })
}

fn display_all<S: serde::Serializer>(targets: &[Target], out: S) -> Result<S::Ok, S::Error> {
    out.collect_seq(targets.iter().map(ToString::to_string))
}

fn display_url<S: serde::Serializer>(url: &Url, out: S) -> Result<S::Ok, S::Error> {
    out.collect_str(&format_args!("http://{}{}", url.host, url.path))
}

#[allow(clippy::ref_option, reason = "serde hands out what it has")]
fn display_some_url<S: serde::Serializer>(url: &Option<Url>, out: S) -> Result<S::Ok, S::Error> {
    match url {
        Some(url) => display_url(url, out),
        None => out.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_room_without_a_type_is_a_live_room() {
        assert_eq!(room("bench").unwrap(), "live://bench");
        assert_eq!(room("chat://1").unwrap(), "chat://1");
    }

    #[test]
    fn numbers_that_make_no_run_are_refused() {
        for bad in ["--rate=0", "--rate=nan", "--connections=0", "--payload-bytes=15", "--duration=-1"] {
            assert!(Cli::try_parse_from(["halley-bench", "floor", bad]).is_err(), "{bad}");
        }
    }
}
