//! What each client of a run is: where it connects to, from where, who it says it is.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use halley_protocol::login::Login;

use crate::target::Target;

/// Sockets from one source address: well below the ephemeral ports of the default range.
pub const CLIENTS_PER_SOURCE: u32 = 20_000;

/// What all clients of a run have in common.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Clients take these in turn.
    pub targets: Vec<Target>,
    /// Clients take these in turn; empty: the kernel chooses.
    pub sources: Vec<IpAddr>,
    /// How clients log in; none: they do not, and WebSocket is spoken without a handshake.
    pub login: Option<LoginPlan>,
    /// The operation of the messages to look for.
    pub operation: i32,
    /// Connections a thread begins per second.
    pub connect_rate: f64,
    /// Share of the clients that are slow.
    pub slow_percent: f64,
    /// Receive buffers of a thread.
    pub buffers: u16,
    /// How long a thread out of work lets messages gather; part of the latencies.
    pub gather: Duration,
}

/// What clients say when they log in.
#[derive(Clone, Debug)]
pub struct LoginPlan {
    /// Room name as the login carries it (`live://bench`).
    pub room: String,
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

    /// What it says to log in, if it does.
    pub(crate) fn login(&self, number: u32) -> Option<Login> {
        let plan = self.login.as_ref()?;
        let prefix = plan.keys_prefix.as_ref();
        Some(Login {
            mid: i64::from(number) + 1,
            key: prefix.map_or_else(String::new, |prefix| format!("{prefix}{number}")),
            room_id: plan.room.clone(),
            platform: "bench".to_owned(),
            accepts: plan.accepts.clone(),
            ..Login::default()
        })
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
            login: None,
            operation: 1000,
            connect_rate: 1.0,
            slow_percent,
            buffers: 4,
            gather: Duration::ZERO,
        }
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
