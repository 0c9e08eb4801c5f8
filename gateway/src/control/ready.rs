//! Says that the gateway serves: the ready line for programs, limits for operators, a first call for newcomers.

use std::io::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use halley_protocol::packet::PACKET_BYTES_MAX;
use serde_json::{Value, json};
use tuning::{Demand, Report, Tree, Weight};

use super::app::App;
use crate::config::{Auth, Config, ECHO_PATH, Transport};
use crate::endpoint::Url;
use crate::limits::{ECHO_HELD_BYTES_MAX, UPSTREAM_BUFFERS_MAX};
use crate::upstream::Message;

/// Logs limits and warnings, then the ready line, then, in `--dev`, what to try.
pub(super) fn announce(app: &App) {
    let config = app.config();
    limits(&config);
    upstream(&config);
    host(&config);
    warn_of_open_doors(app, &config);
    // One JSON line in every log format: programs wait for it.
    let _ = writeln!(std::io::stderr().lock(), "{}", ready_line(app));
    if config.dev {
        let _ = write!(std::io::stderr().lock(), "{}", first_steps(app));
    }
}

/// Warns of an API that asks nobody for a token and can be reached from elsewhere.
pub(super) fn warn_of_open_doors(app: &App, config: &Config) {
    if config.settings.api.auth == Auth::None && !app.bound.api.ip().is_loopback() {
        tracing::warn!(api = %app.bound.api, "the API lets anybody in who reaches this address (api.auth = \"none\")");
    }
    let api_v1 = config.settings.api_v1.as_ref().map(|api_v1| api_v1.auth).zip(app.bound.api_v1);
    if let Some((Auth::None, address)) = api_v1
        && !address.ip().is_loopback()
    {
        tracing::warn!(api_v1 = %address, "goim v1's API lets anybody in who reaches this address (api_v1.auth = \"none\")");
    }
}

/// The line with `"event":"ready"`.
fn ready_line(app: &App) -> Value {
    let config = app.config();
    let listeners = app.bound.listeners.iter().zip(&config.settings.listener);
    let listeners = listeners.map(|((transport, address), listener)| {
        let transport = if *transport == Transport::Tcp { "tcp" } else { "ws" };
        json!({ "transport": transport, "address": address.to_string(), "tls": listener.tls.is_some() })
    });
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut line = json!({
        "event": "ready",
        "level": "INFO",
        "unix_ms": u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
        "listeners": listeners.collect::<Vec<_>>(),
        "api": app.bound.api.to_string(),
        "pid": std::process::id(),
        "shards": app.config().plan.shards,
        "connections_max": app.config().plan.connections_max,
        "version": env!("CARGO_PKG_VERSION"),
    });
    if let Some(address) = app.bound.api_v1 {
        line["api_v1"] = address.to_string().into();
    }
    line
}

/// What memory the limits allow at worst.
fn limits(config: &Config) {
    let (plan, shard) = (&config.plan, &config.settings.shard);
    let shards = u64::from(plan.shards);
    let outbox_entries = 16 * u64::from(shard.outbox_entries_max);
    let echo = if config.echoes() { u64::from(ECHO_HELD_BYTES_MAX) } else { 0 };
    tracing::info!(
        event = "limits",
        connections_max = plan.connections_max,
        shards,
        shard_connections_max = plan.shard_connections_max,
        cpus = ?plan.cpus,
        slow_clients_bytes_max = shards * (u64::from(shard.pinned_bytes_max) + outbox_entries + echo),
        unfinished_packets_bytes_max = shards * u64::from(shard.partials_max) * PACKET_BYTES_MAX as u64,
        idle_connections_user_bytes = u64::from(plan.connections_max) * tuning::USER_BYTES,
        idle_connections_kernel_bytes = u64::from(plan.connections_max) * tuning::KERNEL_BYTES,
    );
}

/// Where messages of clients go, and what of them can wait in memory.
fn upstream(config: &Config) {
    /// What is kept of a message beside its body, about: key, rooms, and what the place's client needs.
    const BESIDE: u64 = 1024;
    let Some(upstream) = &config.settings.upstream else { return };
    // A URL that was checked, without what may be secret in it.
    let url = Url::parse(&upstream.url).map(|url| url.to_string());
    let place = if upstream.is_http() { url.unwrap_or_default() } else { upstream.kafka_topic.clone() };
    let buffers = u64::from(config.plan.shards) * (UPSTREAM_BUFFERS_MAX * size_of::<Message>()) as u64;
    let waiting = u64::from(upstream.in_flight_max) * (u64::from(upstream.message_bytes_max) + BESIDE);
    tracing::info!(event = "upstream", place, messages_bytes_max = buffers + waiting);
}

/// What this host lacks for the connections configured, by the rules of `halley-tune`. Developers are told only of what
/// stops them.
fn host(config: &Config) {
    let demand =
        Demand { shards: Some(config.plan.shards.into()), ..Demand::gateway(config.plan.connections_max.into()) };
    let report = match Report::of(&Tree::live(), &demand) {
        Ok(report) => report,
        Err(error) => return tracing::warn!(event = "host", %error, "the host's limits are not known"),
    };
    let missed = report.rules.iter().filter(|finding| !finding.ok);
    let (stops, slows): (Vec<_>, Vec<_>) = missed.partition(|finding| finding.weight == Weight::Stops);
    for finding in stops {
        let (found, needed) = (finding.found.to_string(), finding.needed.as_deref().unwrap_or_default());
        tracing::warn!(
            event = "host",
            rule = finding.id,
            found,
            needed,
            effect = finding.effect,
            change = finding.change
        );
    }
    if !slows.is_empty() && !config.dev {
        let slows: Vec<&str> = slows.iter().map(|finding| finding.id).collect();
        tracing::info!(event = "host", ?slows, "`halley-tune report` explains them");
    }
}

fn first_steps(app: &App) -> String {
    let api = app.bound.api;
    let config = app.config();
    let listeners = app.bound.listeners.iter().zip(&config.settings.listener);
    let listeners = listeners.map(|((transport, address), listener)| match transport {
        Transport::Tcp => format!("  tcp        {address}\n"),
        Transport::Ws if listener.tls.is_some() => format!("  and TLS    wss://{address}{}\n", listener.path),
        Transport::Ws => {
            format!("  websocket  ws://{address}{}\n  echo       ws://{address}{ECHO_PATH}\n", listener.path)
        }
    });
    [
        "\nHalley is up in developer mode: anybody may log in and push, on loopback only.\n\n".into(),
        format!("  page       http://{api}/\n  console    http://{api}/console\n"),
        listeners.collect(),
        format!("\nPush to everybody:\n\n  curl -d 'hello' 'http://{api}/goim/push/all?operation=1000'\n\nCtrl-C stops it.\n\n"),
    ]
    .concat()
}
