//! Clients that say messages, as many at a time as they may, until each is answered; then what the place has of them.

mod found;
mod talk;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::cost::{Spent, Usage};
use crate::interrupt::Interrupt;
use crate::json;
use crate::machine;
use crate::measure::Latency;
use crate::report::{Origin, Table};
use crate::stand::Failure;
use crate::target::{Target, Transport};

use self::found::{Endpoint, KafkaPlace};
use self::talk::{Talk, Talked};

/// Flags of `upstream`.
#[derive(Clone, Debug, Args, Serialize)]
pub struct UpstreamArgs {
    /// Where clients connect: tcp://HOST:PORT. The gateway must let them say as much as they like.
    #[arg(long)]
    #[serde(serialize_with = "display")]
    pub target: Target,
    /// Clients.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub connections: u32,
    /// Messages that each says.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub messages: u32,
    /// Messages of each without an answer.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub at_a_time: u32,
    /// Bytes of each message.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub payload_bytes: u32,
    /// The topic that the gateway passes messages on to, as BROKERS/TOPIC.
    #[arg(long, required_unless_present = "endpoint", conflicts_with = "endpoint")]
    pub kafka: Option<String>,
    /// Be the endpoint that the gateway passes messages on to, at this address.
    #[arg(long)]
    pub endpoint: Option<SocketAddr>,
    /// Seconds without any answer after which the run is given up.
    #[arg(long, default_value_t = 30.0, value_parser = crate::cli::seconds)]
    pub patience: f64,
    /// Process of the gateway, to count its CPU.
    #[arg(long)]
    pub server_pid: Option<u32>,
    /// CPUs of this program, such as 1 or 2-3.
    #[arg(long)]
    pub cpus: Option<String>,
    /// Write everything measured to this file.
    #[arg(long)]
    pub json: Option<PathBuf>,
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
    /// What a gateway must not do, and did.
    pub bounds_missed: Vec<String>,
    /// Clients.
    pub connections: u32,
    /// Messages that were said.
    pub messages: u64,
    /// Messages acknowledged.
    pub acknowledged: u64,
    /// Messages refused, by the reason that the gateway gave.
    pub refused: BTreeMap<String, u64>,
    /// Messages without an answer.
    pub unanswered: u64,
    /// From the first message to the last answer.
    pub seconds: f64,
    /// Messages acknowledged in a second.
    pub per_second: f64,
    /// From a message until its acknowledgement.
    pub latency_ms: Latency,
    /// What the place has.
    pub place: Place,
    /// What the messages cost the gateway.
    pub server: Option<Server>,
}

/// What the place has of the run's messages.
#[derive(Debug, Default, Serialize)]
pub struct Place {
    /// Messages, each counted once.
    pub found: u64,
    /// Acknowledged and not there.
    pub lost: u64,
    /// There more than once.
    pub duplicates: u64,
    /// There behind a later one of the same client.
    pub reordered: u64,
}

/// What the messages cost the gateway.
#[derive(Debug, Serialize)]
pub struct Server {
    /// Microseconds on a CPU for each message.
    pub cpu_us_per_message: f64,
    /// All of it.
    #[serde(flatten)]
    pub spent: Spent,
}

/// Runs `upstream`.
///
/// # Errors
/// If there is no result.
pub fn upstream(arguments: &UpstreamArgs, interrupt: &Interrupt) -> Result<Report, Failure> {
    if let Some(cpus) = &arguments.cpus {
        machine::pin(cpus).map_err(Failure::Surroundings)?;
    }
    if arguments.target.transport != Transport::Tcp || arguments.target.secure {
        return Err(Failure::Surroundings("clients that say messages connect over tcp://".to_owned()));
    }
    machine::raise_nofile();
    let endpoint = arguments.endpoint.map(Endpoint::start).transpose().map_err(Failure::Surroundings)?;
    let kafka = arguments.kafka.as_deref().map(KafkaPlace::new).transpose().map_err(Failure::Surroundings)?;
    let mut talk = Talk::connect(arguments).map_err(Failure::Surroundings)?;
    let usage = |pid| Usage::of(pid).map_err(|error| Failure::Run(format!("process {pid} cannot be watched: {error}")));
    let before = arguments.server_pid.map(usage).transpose()?;
    let talked = talk.run(interrupt);
    let spent = arguments.server_pid.map(usage).transpose()?.zip(before).map(|(after, before)| after.since(&before));
    let found = match (&endpoint, &kafka) {
        (Some(endpoint), _) => endpoint.found(talk.run_name()),
        (None, Some(kafka)) => kafka.found(talk.run_name()).map_err(Failure::Run)?,
        (None, None) => Vec::new(),
    };
    let report = Report::new(arguments, &talked, &found, spent);
    if let Some(path) = &arguments.json {
        let failed = |error| Failure::Surroundings(format!("{} cannot be written: {error}", path.display()));
        json::write(&report, path).map_err(failed)?;
    }
    Ok(report)
}

impl Report {
    #[allow(clippy::cast_precision_loss, reason = "counts of a run")]
    fn new(arguments: &UpstreamArgs, talked: &Talked, found: &[(u32, u32)], spent: Option<Spent>) -> Self {
        let place = Place::of(&talked.acknowledged, found);
        let acknowledged: u64 = talked.acknowledged.iter().map(|of_client| of_client.len() as u64).sum();
        let refused: u64 = talked.refused.values().sum();
        let messages = u64::from(arguments.connections) * u64::from(arguments.messages);
        let unanswered = messages - acknowledged - refused;
        let mut invalid_reasons = Vec::new();
        if unanswered > 0 {
            invalid_reasons.push(format!("{unanswered} messages were not said or have no answer"));
        }
        let missed = [(place.lost, "acknowledged and lost"), (place.reordered, "there out of order")];
        let missed = missed.into_iter().filter(|(count, _)| *count > 0);
        Self {
            origin: Origin::new("upstream", arguments),
            valid: invalid_reasons.is_empty(),
            invalid_reasons,
            bounds_missed: missed.map(|(count, what)| format!("{count} messages were {what}")).collect(),
            connections: arguments.connections,
            messages,
            acknowledged,
            refused: talked.refused.clone(),
            unanswered,
            seconds: talked.seconds,
            per_second: acknowledged as f64 / talked.seconds,
            latency_ms: Latency::of(&talked.latency_us),
            place,
            server: spent.map(|spent| Server {
                cpu_us_per_message: spent.cpu_seconds * 1e6 / acknowledged.max(1) as f64,
                spent,
            }),
        }
    }

    /// The table for the terminal.
    pub fn table(&self) -> String {
        let mut table = Table::default();
        table.verdict(&self.invalid_reasons, &self.bounds_missed);
        table.row("connections", self.connections);
        table.row("messages", format!("{} in {:.2} s", self.messages, self.seconds));
        table.row("acknowledged", format!("{}, {:.0} a second", self.acknowledged, self.per_second));
        for (reason, count) in &self.refused {
            table.row("refused", format!("{count} {reason}"));
        }
        table.row("latency ms", self.latency_ms);
        let Place { found, lost, duplicates, reordered } = self.place;
        table.row("the place has", format!("{found}: {lost} lost, {duplicates} twice, {reordered} out of order"));
        if let Some(server) = &self.server {
            table.row("server CPU", format!("{:.2} us a message", server.cpu_us_per_message));
        }
        table.0
    }
}

impl Place {
    /// Compares what was acknowledged, by client, with client and number of all that is there, in its order.
    fn of(acknowledged: &[Vec<u32>], found: &[(u32, u32)]) -> Self {
        let mut place = Self::default();
        let mut there = vec![std::collections::BTreeSet::new(); acknowledged.len()];
        for (client, number) in found {
            let Some(of_client) = there.get_mut(*client as usize) else { continue };
            place.reordered += u64::from(of_client.last().is_some_and(|last| last > number));
            if of_client.insert(*number) {
                place.found += 1;
            } else {
                place.duplicates += 1;
            }
        }
        let pairs = acknowledged.iter().zip(&there);
        let lost = pairs.map(|(said, there)| said.iter().filter(|number| !there.contains(number)).count() as u64);
        place.lost = lost.sum();
        place
    }
}

fn display<S: serde::Serializer>(target: &Target, out: S) -> Result<S::Ok, S::Error> {
    out.collect_str(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_twice_or_out_of_order_is_counted() {
        let acknowledged = [vec![0, 1, 2], vec![0, 1], vec![]];
        let Place { found, lost, duplicates, reordered } =
            Place::of(&acknowledged, &[(0, 0), (1, 1), (0, 2), (0, 1), (1, 1), (9, 0)]);
        assert_eq!((found, lost, duplicates, reordered), (4, 1, 1, 1));
    }
}
