//! A gateway whose shards are two pairs of queues in the hands of the test.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use gateway::config::{Config, Host, Sources, Transport};
use gateway::control::app::App;
use gateway::control::listen::Bound;
use gateway::control::{api, bell, machine, start};
use gateway::ids::{ConnWord, ShardIndex};
use gateway::limits;
use gateway::link::{ControlBell, ShardLink};
use gateway::order::{Ask, Order, Report, Verdict};
use gateway::tls::InForce;
use halley_protocol::{operation, packet};
use halley_ring::Slot;
use http_body_util::BodyExt;
use hyper::service::Service;
use hyper::{HeaderMap, Method, Request, StatusCode};
use hyper_util::service::TowerToHyperService;
use serde_json::Value;

/// Longest that anything here may take; a failed test, not a slow one, gets there.
const PATIENCE: Duration = Duration::from_secs(20);

/// The configuration of most tests: no token needed, everybody may log in.
pub(crate) const OPEN: &str = "[api]\nauth = \"none\"\n[[listener]]\nbind = \"127.0.0.1:0\"\nlogin = \"open\"\n";

pub(crate) struct Gateway {
    pub(crate) app: Arc<App>,
    pub(crate) router: Router,
    bell: Arc<ControlBell>,
}

/// An answer, read whole.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }
}

pub(crate) fn config(text: &str) -> Config {
    let host = Host { cpus: vec![0, 1], files_max: 20_000, memory_bytes: 1 << 34 };
    let sources = Sources { file: Some(("test.toml".into(), text.into())), environment: Vec::new() };
    Config::load(&sources, &host).expect("a right configuration")
}

/// Runs a test on control's runtime, with control's own tasks beside it.
pub(crate) fn run(config: Config, test: impl AsyncFnOnce(&Gateway)) {
    let links = [(); 2].map(|()| Arc::new(ShardLink::new(64)));
    run_with_links(config, links.into(), test);
}

/// The same with queues that take this many pushes.
pub(crate) fn run_with_room_for(pushes: usize, test: impl AsyncFnOnce(&Gateway)) {
    let orders = limits::ORDERS_CONTROL_SHARE + pushes;
    let links = [(); 2].map(|()| Arc::new(ShardLink::with_orders(64, orders)));
    run_with_links(config(OPEN), links.into(), test);
}

fn run_with_links(config: Config, links: Arc<[Arc<ShardLink>]>, test: impl AsyncFnOnce(&Gateway)) {
    let mut runtime = start::runtime().expect("io_uring");
    runtime.block_on(async {
        let bound = Bound {
            listeners: vec![
                (Transport::Tcp, ([127, 0, 0, 1], 3101).into()),
                (Transport::Ws, ([127, 0, 0, 1], 3102).into()),
            ],
            api: ([127, 0, 0, 1], 3111).into(),
            api_v1: None,
        };
        let bell = Arc::new(bell::new_bell().expect("an eventfd"));
        let (app, machine, commands) = start::assemble(config, bound, links, Arc::clone(&bell), InForce::default());
        machine::spawn(&machine, commands).expect("a pollable eventfd");
        let gateway = Gateway { router: api::router(&app), app, bell };
        monoio::time::timeout(PATIENCE, test(&gateway)).await.expect("nothing hangs");
    });
}

impl Gateway {
    /// The same gateway behind another door.
    pub(crate) fn with_router(&self, router: Router) -> Self {
        Self { router, app: Arc::clone(&self.app), bell: Arc::clone(&self.bell) }
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = TowerToHyperService::new(self.router.clone()).call(request).await.expect("infallible");
        let (parts, body) = response.into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    pub(crate) async fn call(&self, method: Method, uri: &str, body: impl Into<Body>) -> Answer {
        self.send(Request::builder().method(method).uri(uri).body(body.into()).expect("a request")).await
    }

    pub(crate) async fn get(&self, uri: &str) -> Answer {
        self.call(Method::GET, uri, Body::empty()).await
    }

    pub(crate) async fn post(&self, uri: &str, body: impl Into<Body>) -> Answer {
        self.call(Method::POST, uri, body).await
    }

    /// `POST /v1/push` with its type.
    pub(crate) async fn push(&self, body: &str) -> Answer {
        let request = Request::post("/v1/push").header("content-type", "application/json; charset=utf-8");
        self.send(request.body(Body::from(body.to_owned())).expect("a request")).await
    }

    /// A shard says something, and rings if control sleeps.
    pub(crate) fn report(&self, shard: u8, report: Report) {
        self.app.links[usize::from(shard)].put_report(report).expect("room for a report");
        if self.bell.take() {
            bell::ring(&self.bell).expect("an eventfd");
        }
    }

    /// A client logs in on a shard and is answered.
    pub(crate) async fn ask_to_log_in(&self, shard: u8, slot: u32, login: &str) -> (ConnWord, Verdict) {
        let conn = self.ask(shard, slot, login);
        loop {
            if let Order::Answer { conn: answered, verdict, .. } = self.order(shard).await {
                assert_eq!(answered, conn);
                return (conn, verdict);
            }
        }
    }

    /// A client asks to log in.
    pub(crate) fn ask(&self, shard: u8, slot: u32, login: &str) -> ConnWord {
        let conn = ConnWord::new(ShardIndex(shard), Slot(slot), 1);
        let mut body = [0; packet::BODY_BYTES_MAX];
        body[..login.len()].copy_from_slice(login.as_bytes());
        let ask = Ask {
            listener: 0,
            ticket: 0,
            peer: ([10, 0, shard, 1], 40_000).into(),
            version: 1,
            operation: operation::AUTH,
            sequence: 1,
            body_bytes: u16::try_from(login.len()).expect("short"),
            body,
        };
        self.report(shard, Report::Ask { conn, ask: Box::new(ask) });
        conn
    }

    /// A client is in.
    pub(crate) async fn log_in(&self, shard: u8, slot: u32, login: &str) -> ConnWord {
        let (conn, verdict) = self.ask_to_log_in(shard, slot, login).await;
        assert!(matches!(verdict, Verdict::Admit), "{login}: {verdict:?}");
        conn
    }

    /// The shard's next order.
    pub(crate) async fn order(&self, shard: u8) -> Order {
        let since = Instant::now();
        loop {
            if let Some(order) = self.app.links[usize::from(shard)].next_order() {
                return order;
            }
            assert!(since.elapsed() < PATIENCE, "shard {shard} gets no order");
            monoio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Whether no shard has an order waiting.
    pub(crate) fn is_quiet(&self) -> bool {
        self.app.links.iter().all(|link| link.next_order().is_none())
    }
}
