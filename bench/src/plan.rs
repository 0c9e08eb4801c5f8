//! What each client of a run is: where it connects to, from where, who it says it is, in which room.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use halley_protocol::login::Login;
use halley_protocol::v1;
use rustls::ClientConfig;

use crate::decode::{Decoder, Stream};
use crate::raw::RawPlan;
use crate::raw_decode::RawDecoder;
use crate::target::{Target, Transport};

/// What all clients of a run have in common.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Clients take these in turn.
    pub targets: Vec<Target>,
    /// Clients take these in turn; empty: the kernel chooses.
    pub sources: Vec<IpAddr>,
    /// The rooms they are in.
    pub rooms: Rooms,
    /// How clients log in; none: they do not, and WebSocket is spoken without a handshake.
    pub login: Option<LoginPlan>,
    /// What clients and server say to each other if it is not goim's dialect.
    pub raw: Option<RawPlan>,
    /// What handshakes with targets over TLS begin with.
    pub tls: Option<Arc<ClientConfig>>,
    /// The operation of the messages to look for.
    pub operation: i32,
    /// Connections a thread begins per second.
    pub connect_rate: f64,
    /// Connections of a thread between connect and login reply, at most; keeps listen queues short.
    pub pending_max: u32,
    /// Share of the clients that are slow.
    pub slow_percent: f64,
    /// Receive buffers of a thread.
    pub buffers: u16,
    /// How long a thread out of work lets messages gather; part of the latencies.
    pub gather: Duration,
}

/// The rooms of a run: one after the other is filled with clients, so each has some of every target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rooms {
    /// Name of the only room, or what the names of several begin with (`live://bench`).
    base: String,
    /// How many.
    count: u32,
    /// Clients in each but the last, which may have fewer.
    subscribers: u32,
}

impl Rooms {
    /// Everybody in one room.
    pub fn one(name: &str) -> Self {
        Self { base: name.to_owned(), count: 1, subscribers: u32::MAX }
    }

    /// Rooms `NAME-0`, `NAME-1` and so on, as many as so many clients fill.
    pub fn of(name: &str, clients: u32, subscribers: u32) -> Self {
        Self { base: name.to_owned(), count: clients.div_ceil(subscribers).max(1), subscribers }
    }

    /// How many.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The room of a client.
    #[inline]
    pub fn of_client(&self, number: u32) -> u32 {
        number / self.subscribers
    }

    /// The name of a room as a login carries it, `live://bench-7`.
    pub fn name(&self, room: u32) -> String {
        if self.subscribers == u32::MAX { self.base.clone() } else { format!("{}-{room}", self.base) }
    }

    /// The name of a room for servers without types of rooms, `bench-7`.
    pub fn short_name(&self, room: u32) -> String {
        let name = self.name(room);
        name.split_once("://").map_or_else(|| name.clone(), |(_, short)| short.to_owned())
    }
}

/// What clients say when they log in.
#[derive(Clone, Debug)]
pub struct LoginPlan {
    /// As clients of goim v1: a number.
    pub v1: bool,
    /// Accepted operations.
    pub accepts: Vec<i32>,
    /// Keys are this and the client's number; none: the server makes them.
    pub keys_prefix: Option<String>,
    /// Time between two heartbeats of a client; zero: none.
    pub heartbeat: Duration,
}

impl Plan {
    /// Where a client connects to.
    pub(crate) fn target(&self, number: u32) -> &Target {
        &self.targets[number as usize % self.targets.len()]
    }

    /// The path of its WebSocket request.
    pub(crate) fn path(&self, number: u32) -> String {
        let path = &self.target(number).path;
        self.raw.as_ref().map_or_else(|| path.clone(), |raw| raw.fill(path, &self.rooms, number))
    }

    /// The decoder of what a client is told, at the beginning.
    pub(crate) fn stream(&self, number: u32) -> Stream {
        match &self.raw {
            Some(_) => Stream::Raw(RawDecoder::default()),
            None => Stream::Goim(Decoder::new(self.target(number).transport == Transport::Ws)),
        }
    }

    /// Where it connects from, if that is not the kernel's choice.
    pub(crate) fn source(&self, number: u32) -> Option<SocketAddr> {
        let source = self.sources.get(number as usize % self.sources.len().max(1))?;
        Some(SocketAddr::new(*source, 0))
    }

    /// Whether a client is one of the slow, which are spread over all targets alike.
    pub(crate) fn is_slow(&self, number: u32) -> bool {
        let place = f64::from(number / u32::try_from(self.targets.len()).unwrap_or(1));
        let share = self.slow_percent / 100.0;
        (place * share).floor() < ((place + 1.0) * share).floor()
    }

    /// The operation that messages arrive with.
    pub(crate) fn heard_operation(&self) -> i32 {
        if self.login.as_ref().is_some_and(|login| login.v1) { v1::PUSH } else { self.operation }
    }

    /// The body of its login, if it logs in; `behind` is put behind its key.
    pub(crate) fn credentials(&self, number: u32, behind: &str) -> Option<String> {
        let plan = self.login.as_ref()?;
        let mid = i64::from(number) + 1;
        if plan.v1 {
            return Some(mid.to_string());
        }
        let prefix = plan.keys_prefix.as_ref();
        let login = Login {
            mid,
            key: prefix.map_or_else(String::new, |prefix| format!("{prefix}{number}{behind}")),
            room_id: self.rooms.name(self.rooms.of_client(number)),
            platform: "bench".to_owned(),
            accepts: plan.accepts.clone(),
            ..Login::default()
        };
        Some(login.to_json())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(slow_percent: f64) -> Plan {
        let targets = ["tcp://127.0.0.1:1", "ws://127.0.0.1:2/sub"].map(str::parse::<Target>);
        Plan {
            targets: targets.into_iter().collect::<Result<_, _>>().unwrap(),
            sources: Vec::new(),
            rooms: Rooms::one("live://bench"),
            login: None,
            raw: None,
            tls: None,
            operation: 1000,
            connect_rate: 1.0,
            pending_max: 1,
            slow_percent,
            buffers: 4,
            gather: Duration::ZERO,
        }
    }

    #[test]
    fn rooms_are_filled_one_after_the_other_with_clients_of_every_target() {
        let rooms = Rooms::of("live://bench", 250, 100);
        assert_eq!(rooms.count(), 3);
        assert_eq!([0, 99, 100, 249].map(|number| rooms.of_client(number)), [0, 0, 1, 2]);
        assert_eq!((rooms.name(2).as_str(), rooms.short_name(2).as_str()), ("live://bench-2", "bench-2"));
        let one = Rooms::one("bench");
        assert_eq!((one.count(), one.of_client(1 << 30), one.name(0).as_str()), (1, 0, "bench"));
        assert_eq!(one.short_name(0), "bench");
    }

    #[test]
    fn a_client_of_goim_v1_says_its_number_and_hears_operation_5() {
        let login = LoginPlan { v1: true, accepts: vec![1000], keys_prefix: None, heartbeat: Duration::ZERO };
        let v1 = Plan { login: Some(login.clone()), ..plan(0.0) };
        assert_eq!((v1.credentials(6, "-hello").as_deref(), v1.heard_operation()), (Some("7"), 5));
        let v2 = Plan { login: Some(LoginPlan { v1: false, ..login }), ..plan(0.0) };
        assert_eq!(v2.heard_operation(), 1000);
        let json = r#"{"mid":7,"room_id":"live://bench","platform":"bench","accepts":[1000]}"#;
        assert_eq!(v2.credentials(6, "-hello").as_deref(), Some(json));
    }

    #[test]
    fn slow_clients_are_as_many_as_asked_for_and_on_all_targets_alike() {
        for (percent, each) in [(0.0, 0), (1.0, 50), (12.5, 625), (50.0, 2500)] {
            let plan = plan(percent);
            let slow = |target: u32| (0..10_000).filter(|n| n % 2 == target && plan.is_slow(*n)).count();
            assert_eq!((slow(0), slow(1)), (each, each), "{percent} %");
        }
    }
}
