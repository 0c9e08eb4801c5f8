//! The nodes: goim's views of them, and Halley's own.

use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde_json::{Map, Value, json};

use super::Shared;
use super::goim::answer;
use super::params::Params;
use crate::config::{Nodes, Transport};
use crate::control::app::App;
use crate::source::kafka::{Kafka, Me};
use crate::source::nodes::NodeView;

/// `GET /goim/nodes/weighted?platform`: where clients should connect. Zero and empty fields are left out, as by goim.
pub(super) async fn weighted(State(app): State<Shared>, params: Params) -> Response {
    let config = app.config();
    let nodes = &config.settings.nodes;
    let domain = if nodes.domain.is_empty() { host_name() } else { nodes.domain.clone() };
    let own = match params.text("platform") {
        Some("web") if !nodes.host_domain.is_empty() => vec![host_name() + &nodes.host_domain],
        Some("web") => Vec::new(),
        _ => nodes.addresses.clone(),
    };
    let port = |told: u16, transport, tls| if told == 0 { bound_port(&app, transport, tls).unwrap_or(0) } else { told };
    let own = if app.draining.load(Ordering::Relaxed) || own.is_empty() { vec![domain.clone()] } else { own };
    answer(without_zeroes(&[
        ("domain", domain.into()),
        ("tcp_port", port(nodes.tcp_port, Transport::Tcp, false).into()),
        ("ws_port", port(nodes.ws_port, Transport::Ws, false).into()),
        ("wss_port", port(nodes.wss_port, Transport::Ws, true).into()),
        ("heartbeat", nodes.heartbeat_s.into()),
        ("nodes", own.into()),
        ("backoff", backoff(nodes)),
        ("heartbeat_max", nodes.heartbeat_missed_max.into()),
    ]))
}

/// Port of the first listener of a transport with or without TLS.
fn bound_port(app: &App, transport: Transport, tls: bool) -> Option<u16> {
    let config = app.config();
    let mut listeners = app.bound.listeners.iter().zip(&config.settings.listener);
    let found = listeners.find(|((other, _), listener)| *other == transport && listener.tls.is_some() == tls);
    found.map(|((_, address), _)| address.port())
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

/// `GET /goim/nodes/instances`: this process as discovery would show it, and the other nodes that live.
pub(super) async fn instances(State(app): State<Shared>) -> Response {
    let others = app.kafka.get().map(|kafka| kafka.stats().nodes.list());
    let others = others.iter().flat_map(|nodes| nodes.iter()).filter(|node| node.lives).filter_map(instance_of);
    answer(std::iter::once(instance(&app)).chain(others).collect())
}

/// What another node said of itself, with its last counts.
fn instance_of(node: &NodeView) -> Option<Value> {
    let mut instance = serde_json::from_str::<Value>(&node.instance).ok().filter(Value::is_object)?;
    instance["latest_timestamp"] = now_ns().saturating_sub(saturated(node.heard.elapsed())).into();
    if instance["metadata"].is_object() {
        for (name, value) in [("conn_count", node.connections), ("ip_count", node.addresses)] {
            instance["metadata"][name] = value.to_string().into();
        }
        instance["metadata"]["offline"] = node.draining.to_string().into();
    }
    Some(instance)
}

/// This process as it tells other nodes of itself.
pub(in super::super) fn this_node(app: &App) -> Me {
    let config = app.config();
    let name = &config.settings.nodes.name;
    let name = if name.is_empty() { host_name() } else { name.clone() };
    Me { name, instance: instance(app).to_string() }
}

/// `GET /v1/nodes`: this node, and the others as they were last heard of.
pub(super) async fn list(State(app): State<Shared>) -> Json<Value> {
    let kafka = app.kafka.get();
    let lag = |kafka: &Kafka| kafka.stats().partitions().iter().map(|partition| partition.lag()).sum::<u64>();
    let own = json!({
        "node": kafka.and_then(Kafka::node_id),
        "this": true,
        "state": if app.draining.load(Ordering::Relaxed) { "draining" } else { "up" },
        "connections": app.directory.connections(),
        "addresses": app.directory.addresses(),
        "rooms": app.directory.rooms(),
        "rooms_left_out": kafka.map_or(0, |kafka| kafka.stats().nodes.left_out.get()),
        "lag": kafka.map_or(0, lag),
        "silent_ms": 0,
    });
    let others = kafka.map(|kafka| kafka.stats().nodes.list());
    let others = others.iter().flat_map(|nodes| nodes.iter()).map(|node| {
        json!({
            "node": &*node.id,
            "this": false,
            "state": match (node.lives, node.draining) {
                (false, _) => "gone",
                (true, true) => "draining",
                (true, false) => "up",
            },
            "connections": node.connections,
            "addresses": node.addresses,
            "rooms": node.rooms,
            "rooms_left_out": node.left_out,
            "lag": node.lag,
            "silent_ms": u64::try_from(node.heard.elapsed().as_millis()).unwrap_or(u64::MAX),
        })
    });
    Json(json!({ "nodes": std::iter::once(own).chain(others).collect::<Vec<_>>() }))
}

fn now_ns() -> u64 {
    saturated(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn saturated(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn instance(app: &App) -> Value {
    let config = app.config();
    let nodes = &config.settings.nodes;
    let scheme = |transport, tls| match (transport, tls) {
        (Transport::Tcp, false) => "tcp",
        (Transport::Tcp, true) => "tls",
        (Transport::Ws, false) => "ws",
        (Transport::Ws, true) => "wss",
    };
    let listeners = app.bound.listeners.iter().zip(&config.settings.listener);
    let addresses = listeners
        .map(|((transport, address), listener)| format!("{}://{address}", scheme(*transport, listener.tls.is_some())));
    json!({
        "region": nodes.region,
        "zone": nodes.zone,
        "env": nodes.env,
        "appid": "goim.comet",
        "hostname": host_name(),
        "addrs": addresses.collect::<Vec<_>>(),
        "version": env!("CARGO_PKG_VERSION"),
        "latest_timestamp": now_ns(),
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
