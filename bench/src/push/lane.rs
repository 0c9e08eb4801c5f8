//! One connection to a push API: requests leave when they are due, answers are read beside them.

use std::io::{BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use super::{HttpPush, Pushed};
use crate::clock;
use crate::cost::ThreadSpent;
use crate::http::read_answer;
use crate::interrupt::Interrupt;
use crate::machine;
use crate::schedule::Schedule;
use crate::series::Intervals;

/// Longest sleep between two looks at the interrupt.
const NAP: Duration = Duration::from_millis(50);

/// Requests that are due together go in one write up to about this size.
const WRITE_BYTES: usize = 32 << 10;

/// The messages of the rooms that one connection serves, so that each room has its order.
pub(super) struct Lane<'a> {
    pub(super) push: &'a HttpPush,
    pub(super) schedule: &'a Schedule,
    pub(super) interrupt: &'a Interrupt,
    /// Set when a lane has failed: then the others need not go on.
    pub(super) failed: &'a AtomicBool,
    /// Which of the lanes this is.
    pub(super) number: u32,
    pub(super) lanes: u32,
}

/// What both ends of a lane know.
#[derive(Default)]
struct Shared {
    /// Requests written.
    written: AtomicU32,
    /// Set by either end when it has ended, in whatever way.
    ended: AtomicBool,
}

impl Lane<'_> {
    /// Lets out what is this lane's, from one thread, and reads the answers in another.
    pub(super) fn run(&self) -> Pushed {
        let stream = match self.push.call.url.connect() {
            Ok(stream) => stream,
            Err(failure) => {
                self.failed.store(true, Ordering::Relaxed);
                return Pushed { failure: Some(failure), ..self.nothing() };
            }
        };
        let _ = stream.set_read_timeout(Some(NAP)).and_then(|()| stream.set_write_timeout(Some(NAP)));
        let shared = Shared::default();
        let ended = |pushed: &mut Pushed, name: &str| {
            pushed.threads.push(ThreadSpent::here(format!("{name}-{}", self.number)));
            if pushed.failure.is_some() {
                self.failed.store(true, Ordering::Relaxed);
            }
            shared.ended.store(true, Ordering::Release);
        };
        let (written, answered) = std::thread::scope(|scope| {
            let answered = scope.spawn(|| {
                let (mut pushed, count) = self.read(&stream, &shared);
                ended(&mut pushed, "answers");
                (pushed, count)
            });
            let written = scope.spawn(|| {
                machine::hurry();
                let mut pushed = self.write(&stream, &shared);
                ended(&mut pushed, "push");
                pushed
            });
            (written.join(), answered.join())
        });
        let (Ok(written), Ok((mut pushed, answered))) = (written, answered) else {
            return Pushed { failure: Some("the pusher failed".to_owned()), ..self.nothing() };
        };
        pushed.unanswered = written.offered.messages().saturating_sub(answered);
        pushed.add(written);
        pushed
    }

    fn nothing(&self) -> Pushed {
        Pushed::nothing(self.schedule.rooms)
    }

    /// The messages of each request, in order.
    fn requests(&self) -> Requests {
        let Self { schedule, number, lanes, .. } = *self;
        Requests { schedule: *schedule, number, lanes, batch: self.push.batch as usize, next: 0 }
    }

    /// Writes each request when the last of its messages is due, until there is a reason to stop.
    fn write(&self, stream: &TcpStream, shared: &Shared) -> Pushed {
        let late_over_time = Intervals::new(self.schedule.start_ns);
        let mut pushed = Pushed { late_over_time, ..self.nothing() };
        let stop = || {
            let ended = shared.ended.load(Ordering::Relaxed) || self.failed.load(Ordering::Relaxed);
            ended || self.interrupt.is_set()
        };
        let due_ns = |request: &[u32]| request.last().map_or(0, |last| self.schedule.due_ns(*last));
        let mut requests = self.requests().peekable();
        let (mut bytes, mut together) = (Vec::new(), Vec::new());
        let mut free_ns = 0; // a lane that the server held up is not late by its own fault
        while let Some(first) = requests.peek() {
            if !sleep_until_due(due_ns(first), stop) {
                break;
            }
            let now_ns = clock::now_ns();
            bytes.clear();
            together.clear();
            let ready = |request: &Vec<u32>| due_ns(request) <= now_ns;
            while bytes.len() < WRITE_BYTES
                && let Some(request) = requests.next_if(ready)
            {
                self.push.call.append(&mut bytes, self.schedule, &request);
                let late_us = now_ns.saturating_sub(due_ns(&request).max(free_ns)) / 1000;
                let messages = request.len() as u64;
                pushed.lateness_us.saturating_record_n(late_us, messages);
                pushed.late_over_time.record_n(due_ns(&request), late_us, messages);
                together.push((bytes.len(), request));
            }
            let (taken, outcome) = write_all(stream, &bytes, stop);
            free_ns = clock::now_ns();
            for (_, request) in together.iter().filter(|(end, _)| *end <= taken) {
                for &sequence in request {
                    let (room, place) = self.schedule.place(sequence);
                    pushed.offered.let_out(room, place);
                }
                shared.written.fetch_add(1, Ordering::Release);
            }
            if let Err(error) = outcome {
                pushed.failure = Some(format!("the push API takes no more: {error}"));
                break;
            }
        }
        pushed
    }

    /// Reads the answers, which come in the order of the requests; also says how many messages were
    /// answered.
    fn read(&self, stream: &TcpStream, shared: &Shared) -> (Pushed, u64) {
        let (mut pushed, mut messages) = (self.nothing(), 0);
        let mut ended_ns = None;
        let answered = AtomicU32::new(0);
        let over = || {
            if !shared.ended.load(Ordering::Acquire) {
                return false;
            }
            let since = *ended_ns.get_or_insert_with(clock::now_ns);
            answered.load(Ordering::Relaxed) == shared.written.load(Ordering::Acquire)
                || clock::now_ns() - since > clock::nanoseconds(self.push.grace)
        };
        let mut answers = BufReader::new(Patient { stream, over });
        for request in self.requests() {
            let answer = match read_answer(&mut answers) {
                Ok(answer) => answer,
                Err(error) if error.kind() == ErrorKind::TimedOut => break,
                Err(error) => {
                    pushed.failure = Some(format!("the push API hung up: {error}"));
                    break;
                }
            };
            match self.push.call.refused(&answer, request.len()) {
                Ok(refused) => refused.into_iter().for_each(|at| {
                    let (room, place) = self.schedule.place(request[at]);
                    pushed.offered.refuse(room, place);
                }),
                Err(failure) => {
                    pushed.failure = Some(failure);
                    break;
                }
            }
            let now_ns = clock::now_ns();
            for &sequence in &request {
                pushed.answer_us.saturating_record(now_ns.saturating_sub(self.schedule.due_ns(sequence)) / 1000);
            }
            messages += request.len() as u64;
            answered.fetch_add(1, Ordering::Relaxed);
        }
        (pushed, messages)
    }
}

/// Iterates over the requests of a lane, each with its messages.
struct Requests {
    schedule: Schedule,
    number: u32,
    lanes: u32,
    batch: usize,
    next: u32,
}

impl Iterator for Requests {
    type Item = Vec<u32>;

    fn next(&mut self) -> Option<Vec<u32>> {
        let mut request = Vec::with_capacity(self.batch);
        while self.next < self.schedule.count && request.len() < self.batch {
            if self.schedule.place(self.next).0 % self.lanes == self.number {
                request.push(self.next);
            }
            self.next += 1;
        }
        (!request.is_empty()).then_some(request)
    }
}

/// Sleeps until a message is due; false if there is a reason to stop.
pub(super) fn sleep_until_due(due_ns: u64, stop: impl Fn() -> bool) -> bool {
    loop {
        if stop() {
            return false;
        }
        let now_ns = clock::now_ns();
        if now_ns >= due_ns {
            return true;
        }
        clock::sleep_until(due_ns.min(now_ns + clock::nanoseconds(NAP)));
    }
}

/// Writes until all is written, however long the server takes, or there is a reason to stop; answers
/// how many bytes went.
fn write_all(mut stream: &TcpStream, bytes: &[u8], stop: impl Fn() -> bool) -> (usize, std::io::Result<()>) {
    let mut written = 0;
    while written < bytes.len() {
        match stream.write(&bytes[written..]) {
            Ok(0) => return (written, Err(ErrorKind::WriteZero.into())),
            Ok(more) => written += more,
            Err(error) if !is_pause(&error) => return (written, Err(error)),
            Err(_) if stop() => break,
            Err(_) => {}
        }
    }
    (written, Ok(()))
}

/// A stream that is asked again after every timeout, until there is nothing to wait for.
struct Patient<'a, F> {
    stream: &'a TcpStream,
    over: F,
}

impl<F: FnMut() -> bool> Read for Patient<'_, F> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            match self.stream.read(buffer) {
                Err(error) if is_pause(&error) => {}
                other => return other,
            }
            if (self.over)() {
                return Err(ErrorKind::TimedOut.into());
            }
        }
    }
}

fn is_pause(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests(lanes: u32, batch: usize) -> Vec<Vec<Vec<u32>>> {
        let schedule = Schedule::new(1, 2.0, 5, Duration::from_secs(2), Duration::ZERO);
        let lane = |number| Requests { schedule, number, lanes, batch, next: 0 }.collect();
        (0..lanes).map(lane).collect()
    }

    #[test]
    fn every_message_is_in_one_request_and_a_room_in_one_lane() {
        assert_eq!(requests(1, 3)[0].concat(), (0..20).collect::<Vec<_>>());
        for (lanes, batch) in [(2, 1), (3, 4), (5, 7)] {
            let lanes = requests(lanes, batch);
            let mut all: Vec<u32> = lanes.iter().flatten().flatten().copied().collect();
            all.sort_unstable();
            assert_eq!(all, (0..20).collect::<Vec<_>>());
            for (number, lane) in lanes.iter().enumerate() {
                assert!(lane.iter().all(|request| request.len() <= batch));
                assert!(lane.iter().flatten().all(|sequence| (*sequence as usize % 5) % lanes.len() == number));
            }
        }
    }
}
