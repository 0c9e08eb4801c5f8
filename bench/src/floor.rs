//! The physical limit: the same messages, sockets, rate and clients, but a server that does
//! nothing except send.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cost::NetCounters;
use crate::fleet::Fleet;
use crate::floor_server::{Accepted, Done, Kind, Ports, Settings};
use crate::interrupt::Interrupt;
use crate::measure::{Latency, Measured, Pass, Source, Watched, measure};
use crate::plan::{Plan, Rooms};
use crate::preflight;
use crate::push::Pushed;
use crate::schedule::Schedule;
use crate::stand;
use crate::target::{Target, Transport};

/// A bare server in a child process.
pub struct FloorChild {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    ports: Ports,
    /// What it said about the last pass.
    last: Option<Done>,
}

/// How to measure the floor.
#[derive(Clone, Debug)]
pub struct FloorRun {
    /// Connections, evenly over the transports.
    pub connections: u32,
    /// Transports that the clients take in turn.
    pub transports: Vec<Transport>,
    /// CPUs of the bare server.
    pub server_cpus: Option<String>,
    /// Operation of the messages.
    pub operation: i32,
    /// Bytes of each message.
    pub payload_bytes: usize,
    /// Connections begun per second.
    pub connect_rate: f64,
    /// Threads of clients.
    pub threads: Option<u32>,
    /// See [`Plan::gather`].
    pub gather: Duration,
    /// How long to wait for the connections.
    pub patience: Duration,
    /// Between the last connection and the first message.
    pub settle: Duration,
    /// The pass itself.
    pub pass: Pass,
}

/// One pass of the floor.
#[derive(Clone, Debug, Serialize)]
pub struct FloorPass {
    /// How the bare server sent.
    pub kind: Kind,
    /// Its CPU per delivery in microseconds.
    pub us_per_delivery: f64,
    /// Deliveries owed and made.
    pub offered: u64,
    /// See `offered`.
    pub delivered: u64,
    /// Messages planned and sent: fewer if even the bare server could not keep up.
    pub messages_planned: u32,
    /// See `messages_planned`.
    pub messages: u32,
    /// Sends that a full socket refused.
    pub blocked: u64,
    /// 99th percentile of how late the bare server began a message, in milliseconds.
    pub late_ms_p99: f64,
    /// Latency at the clients.
    pub latency_ms: Latency,
    /// Reasons to doubt this pass.
    pub invalid_reasons: Vec<String>,
}

/// All passes of a run and their means.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Floor {
    /// Mean CPU per delivery of the passes on bare rings, in microseconds.
    pub ring_us: Option<f64>,
    /// The same of those with `send(2)`.
    pub send_us: Option<f64>,
    /// Every pass, in order.
    pub passes: Vec<FloorPass>,
}

impl Floor {
    /// Adds a pass.
    pub fn add(&mut self, pass: FloorPass) {
        self.passes.push(pass);
        self.ring_us = self.mean(Kind::Ring);
        self.send_us = self.mean(Kind::Send);
    }

    /// The better of the two.
    pub fn best_us(&self) -> Option<f64> {
        self.ring_us.into_iter().chain(self.send_us).reduce(f64::min)
    }

    fn mean(&self, kind: Kind) -> Option<f64> {
        let of_kind = self.passes.iter().filter(|pass| pass.kind == kind);
        let costs: Vec<f64> = of_kind.map(|pass| pass.us_per_delivery).collect();
        #[allow(clippy::cast_precision_loss, reason = "a few passes")]
        let count = costs.len() as f64;
        (count > 0.0).then(|| costs.iter().sum::<f64>() / count)
    }
}

impl FloorRun {
    /// Measures one kind of floor; the whole measurement is answered beside the summary.
    ///
    /// # Errors
    /// A sentence.
    pub fn run(&self, kind: Kind, interrupt: &Interrupt) -> Result<(FloorPass, Measured), String> {
        let net_before = NetCounters::read();
        let mut child = FloorChild::start(&self.settings(kind))?;
        let targets: Vec<Target> = self.transports.iter().map(|transport| child.target(*transport)).collect();
        let spread = preflight::spread(self.connections, &targets, &[], self.threads)?;
        let plan = Arc::new(Plan {
            targets,
            sources: spread.sources,
            rooms: Rooms::one(""),
            login: None,
            raw: None,
            tls: None,
            operation: self.operation,
            connect_rate: self.connect_rate / f64::from(spread.threads),
            pending_max: spread.pending_max,
            slow_percent: 0.0,
            buffers: spread.buffers,
            gather: self.gather,
        });
        let fleet = Fleet::start(&plan, 0..self.connections, spread.threads);
        fleet.wait_ready(self.patience, interrupt, |_| ())?;
        let accepted: Accepted = child.hear()?;
        debug_assert_eq!(accepted.accepted, self.connections);
        std::thread::sleep(self.settle);
        let watched = Watched {
            fleet: &fleet,
            slow: None,
            moving: false,
            server_pid: Some(child.child.id()),
            stats: None,
            net_before: &net_before,
            interrupt,
            bar: stand::progress(self.pass.deliveries(self.connections), "delivered by the floor"),
        };
        let measured = measure(&mut Source::Floor(&mut child), &self.pass, &watched)?;
        fleet.stop();
        let done = child.last.ok_or("the bare server did not say what it sent")?;
        Ok((self.summary(kind, &measured, &done), measured))
    }

    fn settings(&self, kind: Kind) -> Settings {
        let count = |transport| {
            let takes = |number: &u32| self.transports[*number as usize % self.transports.len()] == transport;
            u32::try_from((0..self.connections).filter(takes).count()).unwrap_or(u32::MAX)
        };
        Settings {
            kind,
            cpus: self.server_cpus.clone(),
            tcp: count(Transport::Tcp),
            ws: count(Transport::Ws),
            operation: self.operation,
            payload_bytes: self.payload_bytes,
            patience_s: self.patience.as_secs(),
        }
    }

    fn summary(&self, kind: Kind, measured: &Measured, done: &Done) -> FloorPass {
        let planned = Schedule::new(0, self.pass.rate, 1, self.pass.duration, Duration::ZERO);
        #[allow(clippy::cast_precision_loss, reason = "latencies")]
        let late_ms_p99 = done.late_us_p99 as f64 / 1000.0;
        let mut invalid_reasons = measured.invalid_reasons.clone();
        // What was paid for and did not arrive would raise the floor, and flatter what is compared with it.
        let (delivered, offered) = (measured.counts.delivered, measured.offered);
        if delivered < offered || done.died + done.blocked > 0 {
            let (died, blocked) = (done.died, done.blocked);
            invalid_reasons.push(format!("{delivered} of {offered} delivered, {blocked} sends blocked, {died} failed"));
        }
        if measured.server.is_none() {
            invalid_reasons.push("the CPU of the bare server cannot be told".to_owned());
        }
        FloorPass {
            kind,
            us_per_delivery: measured.server.as_ref().map_or(0.0, |server| server.cpu_us_per_delivery),
            offered: measured.offered,
            delivered: measured.counts.delivered,
            messages_planned: planned.count,
            messages: done.messages,
            blocked: done.blocked,
            late_ms_p99,
            latency_ms: measured.latency_ms,
            invalid_reasons,
        }
    }
}

impl FloorChild {
    fn start(settings: &Settings) -> Result<Self, String> {
        let failed = |error: &dyn std::fmt::Display| format!("the bare server cannot start: {error}");
        let program = std::env::current_exe().map_err(|error| failed(&error))?;
        let text = serde_json::to_string(settings).map_err(|error| failed(&error))?;
        let mut child = Command::new(program)
            .args(["floor-server", &text])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| failed(&error))?;
        let orders = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().ok_or("no pipe to the bare server")?);
        let mut started = Self { child, orders, answers, ports: Ports { tcp: 0, ws: 0 }, last: None };
        started.ports = started.hear()?;
        Ok(started)
    }

    fn target(&self, transport: Transport) -> Target {
        let port = match transport {
            Transport::Tcp => self.ports.tcp,
            Transport::Ws => self.ports.ws,
        };
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        Target { transport, secure: false, host: address.to_string(), path: String::new(), address }
    }

    /// Lets it send the messages of a schedule.
    pub fn run(&mut self, schedule: &Schedule) -> Pushed {
        let mut pushed = Pushed::nothing(1);
        match self.order(schedule) {
            Ok(done) => {
                if let Some(last) = done.messages.checked_sub(1) {
                    pushed.offered.let_out(0, last);
                }
                self.last = Some(done);
            }
            Err(failure) => pushed.failure = Some(failure),
        }
        pushed
    }

    fn order(&mut self, schedule: &Schedule) -> Result<Done, String> {
        let text = serde_json::to_string(schedule).map_err(|error| error.to_string())?;
        let orders = self.orders.as_mut().ok_or("the bare server has ended")?;
        let sent = orders.write_all(format!("{text}\n").as_bytes());
        sent.map_err(|error| format!("the bare server has ended: {error}"))?;
        self.hear()
    }

    fn hear<T: for<'a> Deserialize<'a>>(&mut self) -> Result<T, String> {
        let mut line = String::new();
        let heard = self.answers.read_line(&mut line);
        heard.map_err(|error| format!("the bare server has ended: {error}"))?;
        serde_json::from_str(&line).map_err(|_| "the bare server has ended".to_owned())
    }
}

impl Drop for FloorChild {
    fn drop(&mut self) {
        self.orders = None; // the end of its input ends it
        let _ = self.child.kill(); // also while it still waits for connections
        let _ = self.child.wait();
    }
}
