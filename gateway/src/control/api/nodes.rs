//! goim's view of the nodes: this process is the one there is.

use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::State;
use axum::response::Response;
use serde_json::{Map, Value, json};

use super::Shared;
use super::goim::answer;
use super::params::Params;
use crate::config::{Nodes, Transport};
use crate::control::app::App;

/// `GET /goim/nodes/weighted?platform`: where clients should connect. Zero and empty fields are left out, as by goim.
pub(super) async fn weighted(State(app): State<Shared>, params: Params) -> Response {
    let nodes = &app.config.settings.nodes;
    let domain = if nodes.domain.is_empty() { host_name() } else { nodes.domain.clone() };
    let own = match params.text("platform") {
        Some("web") if !nodes.host_domain.is_empty() => vec![host_name() + &nodes.host_domain],
        Some("web") => Vec::new(),
        _ => nodes.addresses.clone(),
    };
    let port = |told: u16, transport| if told == 0 { app.bound.port(transport).unwrap_or(0) } else { told };
    let own = if app.draining.load(Ordering::Relaxed) || own.is_empty() { vec![domain.clone()] } else { own };
    answer(without_zeroes(&[
        ("domain", domain.into()),
        ("tcp_port", port(nodes.tcp_port, Transport::Tcp).into()),
        ("ws_port", port(nodes.ws_port, Transport::Ws).into()),
        ("wss_port", nodes.wss_port.into()),
        ("heartbeat", nodes.heartbeat_s.into()),
        ("nodes", own.into()),
        ("backoff", backoff(nodes)),
        ("heartbeat_max", nodes.heartbeat_missed_max.into()),
    ]))
}

fn backoff(nodes: &Nodes) -> Value {
    let backoff = &nodes.backoff;
    without_zeroes(&[
        ("max_delay", backoff.delay_max.into()),
        ("base_delay", backoff.base_delay.into()),
        ("factor", backoff.factor.into()),
        ("jitter", backoff.jitter.into()),
    ])
}

fn without_zeroes(fields: &[(&str, Value)]) -> Value {
    let is_zero = |value: &Value| value.as_f64() == Some(0.0) || value.as_str() == Some("");
    let fields = fields.iter().filter(|(_, value)| !is_zero(value));
    Value::Object(fields.map(|(name, value)| ((*name).into(), value.clone())).collect::<Map<_, _>>())
}

/// `GET /goim/nodes/instances`: this process as discovery would show it.
pub(super) async fn instances(State(app): State<Shared>) -> Response {
    answer(json!([instance(&app)]))
}

fn instance(app: &App) -> Value {
    let nodes = &app.config.settings.nodes;
    let scheme = |transport| if transport == Transport::Tcp { "tcp" } else { "ws" };
    let addresses =
        app.bound.listeners.iter().map(|(transport, address)| format!("{}://{address}", scheme(*transport)));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    json!({
        "region": nodes.region,
        "zone": nodes.zone,
        "env": nodes.env,
        "appid": "goim.comet",
        "hostname": host_name(),
        "addrs": addresses.collect::<Vec<_>>(),
        "version": env!("CARGO_PKG_VERSION"),
        "latest_timestamp": u64::try_from(now.as_nanos()).unwrap_or(u64::MAX),
        "metadata": {
            "addrs": nodes.addresses.join(","),
            "conn_count": app.directory.connections().to_string(),
            "ip_count": app.directory.addresses().to_string(),
            "offline": app.draining.load(Ordering::Relaxed).to_string(),
            "weight": nodes.weight.to_string(),
        },
    })
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
