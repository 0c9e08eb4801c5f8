//! Lets messages out through an HTTP push API or into Kafka, each when it is due, whatever the server answers.

mod api;
#[cfg(feature = "kafka")]
mod kafka;
#[cfg(not(feature = "kafka"))]
#[path = "push/without_kafka.rs"]
mod kafka;
mod lane;
mod to;

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use hdrhistogram::Histogram;

pub use api::{Api, BATCH_MAX, Call};
pub use kafka::KafkaPush;
use lane::Lane;
pub use to::{JobFormat, Messages, PushTo, Pusher};

use crate::clients::latency_histogram;
use crate::cost::ThreadSpent;
use crate::interrupt::Interrupt;
use crate::offered::Offered;
use crate::schedule::Schedule;
use crate::series::Intervals;

/// Pushes over keep-alive connections. A room has one of them, so that its order is kept; requests
/// do not wait for the answers of those before them.
#[derive(Clone, Debug)]
pub struct HttpPush {
    /// How to call the API.
    pub call: Call,
    /// Connections, as far as there are rooms for them.
    pub connections: u32,
    /// Messages of a call, which leaves when the last of them is due.
    pub batch: u32,
    /// How long to wait for the last answers.
    pub grace: Duration,
}

/// What became of the messages of a pass at their source.
#[derive(Clone, Debug)]
pub struct Pushed {
    /// Messages let out and refused.
    pub offered: Offered,
    /// Messages without an answer.
    pub unanswered: u64,
    /// Why it ended early.
    pub failure: Option<String>,
    /// How late messages were let out, in microseconds.
    pub lateness_us: Histogram<u64>,
    /// The same by the second in which they were due.
    pub late_over_time: Intervals,
    /// Time from when a message was due to its answer, in microseconds.
    pub answer_us: Histogram<u64>,
    /// What the threads spent that let them out.
    pub threads: Vec<ThreadSpent>,
}

impl Pushed {
    /// Nothing let out yet.
    pub fn nothing(rooms: u32) -> Self {
        Self {
            offered: Offered::nothing(rooms),
            unanswered: 0,
            failure: None,
            lateness_us: latency_histogram(),
            late_over_time: Intervals::new(0),
            answer_us: latency_histogram(),
            threads: Vec::new(),
        }
    }

    #[allow(clippy::expect_used, reason = "all are made with the same bounds")]
    fn add(&mut self, other: Self) {
        self.offered.add(other.offered);
        self.unanswered += other.unanswered;
        self.failure = self.failure.take().or(other.failure);
        self.lateness_us.add(other.lateness_us).expect("same bounds");
        self.late_over_time.add(other.late_over_time);
        self.answer_us.add(other.answer_us).expect("same bounds");
        self.threads.extend(other.threads);
    }
}

impl HttpPush {
    /// Runs one pass.
    pub fn run(&self, schedule: &Schedule, interrupt: &Interrupt) -> Pushed {
        let lanes = self.connections.min(schedule.rooms);
        let failed = AtomicBool::new(false);
        let lane = |number| Lane { push: self, schedule, interrupt, failed: &failed, number, lanes };
        let lanes: Vec<Lane<'_>> = (0..lanes).map(lane).collect();
        let mut sum = Pushed::nothing(schedule.rooms);
        std::thread::scope(|scope| {
            let running: Vec<_> = lanes.iter().map(|lane| scope.spawn(|| lane.run())).collect();
            for lane in running {
                match lane.join() {
                    Ok(pushed) => sum.add(pushed),
                    Err(_) => sum.failure = Some("the pusher failed".to_owned()),
                }
            }
        });
        sum
    }
}
