//! The clients: one thread, blocking sockets that are read when they have something.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant, SystemTime};

use halley_protocol::packet::decode_within;
use halley_protocol::{client, operation};
use hdrhistogram::Histogram;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::time::Timespec;

use super::UpstreamArgs;
use crate::cli::duration;
use crate::interrupt::Interrupt;

/// Bytes of a packet from the gateway.
const PACKET_BYTES_MAX: usize = 1 << 20;

/// How long a client may wait for its login.
const LOGIN: Duration = Duration::from_secs(10);

/// All clients, logged in.
pub(super) struct Talk {
    run: String,
    talkers: Vec<Talker>,
    poll: OwnedFd,
    messages: u32,
    at_a_time: u32,
    payload: Vec<u8>,
    patience: Duration,
}

struct Talker {
    stream: TcpStream,
    /// The next message's number.
    next: u32,
    /// When the messages without an answer were said, by number.
    open: BTreeMap<u32, Instant>,
    /// Of a packet that is not whole yet.
    bytes: Vec<u8>,
    ended: bool,
}

/// What became of the messages.
pub(super) struct Talked {
    /// Numbers, by client.
    pub(super) acknowledged: Vec<Vec<u32>>,
    pub(super) refused: BTreeMap<String, u64>,
    pub(super) latency_us: Histogram<u64>,
    pub(super) seconds: f64,
}

impl Talk {
    /// Connects and logs everybody in. Their keys are the run's name and their numbers.
    pub(super) fn connect(arguments: &UpstreamArgs) -> Result<Self, String> {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let run = format!("upstream-{}", since.as_micros());
        let poll = epoll::create(CreateFlags::CLOEXEC).map_err(|error| format!("epoll: {error}"))?;
        let mut talkers = Vec::new();
        for number in 0..arguments.connections {
            let talker = Talker::connect(arguments, &format!("{run}-{number}"))?;
            let data = EventData::new_u64(u64::from(number));
            epoll::add(&poll, &talker.stream, data, EventFlags::IN).map_err(|error| format!("epoll: {error}"))?;
            talkers.push(talker);
        }
        Ok(Self {
            run,
            talkers,
            poll,
            messages: arguments.messages,
            at_a_time: arguments.at_a_time,
            payload: vec![b'x'; arguments.payload_bytes as usize],
            patience: duration(arguments.patience),
        })
    }

    /// What keys begin with.
    pub(super) fn run_name(&self) -> &str {
        &self.run
    }

    /// Lets everybody say everything.
    pub(super) fn run(&mut self, interrupt: &Interrupt) -> Talked {
        let mut outcome = Talked {
            acknowledged: vec![Vec::new(); self.talkers.len()],
            refused: BTreeMap::new(),
            // Any value fits a histogram that grows by itself.
            latency_us: Histogram::new(3).unwrap_or_else(|_| unreachable!("three digits are possible")),
            seconds: 0.0,
        };
        let started = Instant::now();
        let mut heard = started;
        for number in 0..self.talkers.len() {
            self.speak(number);
        }
        let mut events: Vec<Event> = Vec::with_capacity(1024);
        while self.talkers.iter().any(|talker| !talker.ended && !talker.open.is_empty())
            && heard.elapsed() < self.patience
            && !interrupt.is_set()
        {
            events.clear();
            let tenth = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
            if epoll::wait(&self.poll, spare_capacity(&mut events), Some(&tenth)).is_err() {
                continue;
            }
            for event in &events {
                let number = usize::try_from(event.data.u64()).unwrap_or(usize::MAX);
                self.hear(number, &mut outcome);
                self.speak(number);
            }
            if !events.is_empty() {
                heard = Instant::now();
            }
        }
        outcome.seconds = (heard - started).as_secs_f64();
        outcome
    }

    fn speak(&mut self, number: usize) {
        let talker = &mut self.talkers[number];
        let mut out = Vec::new();
        while talker.next < self.messages && talker.open.len() < self.at_a_time as usize {
            let sequence = i32::try_from(talker.next).unwrap_or(i32::MAX);
            out.extend(client::packet(operation::SEND_MESSAGE, sequence, &self.payload));
            talker.open.insert(talker.next, Instant::now());
            talker.next += 1;
        }
        if !out.is_empty() && talker.stream.write_all(&out).is_err() {
            talker.ended = true;
        }
    }

    fn hear(&mut self, number: usize, outcome: &mut Talked) {
        let talker = &mut self.talkers[number];
        let mut bytes = [0; 16 * 1024];
        match talker.stream.read(&mut bytes) {
            Ok(read) if read > 0 => talker.bytes.extend_from_slice(&bytes[..read]),
            _ => {
                talker.ended = true;
                let _ = epoll::delete(&self.poll, &talker.stream); // it is readable for ever
                return;
            }
        }
        let mut used = 0;
        while let Ok(Some(packet)) = decode_within(&talker.bytes[used..], PACKET_BYTES_MAX) {
            used += packet.bytes();
            let said =
                u32::try_from(packet.sequence).ok().and_then(|at| talker.open.remove(&at).map(|when| (at, when)));
            let Some((at, when)) = said.filter(|_| packet.operation == operation::SEND_MESSAGE_REPLY) else { continue };
            if packet.body.is_empty() {
                outcome.acknowledged[number].push(at);
                let us = u64::try_from(when.elapsed().as_micros()).unwrap_or(u64::MAX);
                // It grows to hold any value.
                let _ = outcome.latency_us.record(us);
            } else {
                let answer: serde_json::Value = serde_json::from_slice(packet.body).unwrap_or_default();
                let reason = answer["refused"].as_str().unwrap_or("not understood").to_owned();
                *outcome.refused.entry(reason).or_default() += 1;
            }
        }
        talker.bytes.drain(..used);
    }
}

impl Talker {
    fn connect(arguments: &UpstreamArgs, key: &str) -> Result<Self, String> {
        let failed = |error: std::io::Error| format!("{}: {error}", arguments.target);
        let mut stream = TcpStream::connect(arguments.target.address).map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        stream.set_read_timeout(Some(LOGIN)).map_err(failed)?;
        let login = format!(r#"{{"mid":7,"key":"{key}","room_id":"live://upstream"}}"#);
        stream.write_all(&client::packet(operation::AUTH, 1, login.as_bytes())).map_err(failed)?;
        let mut reply = [0; halley_protocol::packet::HEADER_BYTES];
        stream.read_exact(&mut reply).map_err(failed)?;
        stream.set_read_timeout(None).map_err(failed)?;
        Ok(Self { stream, next: 0, open: BTreeMap::new(), bytes: Vec::new(), ended: false })
    }
}
