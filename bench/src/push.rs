//! Lets messages out through an HTTP push API, each when it is due, whatever the server answers.

use std::io::{BufReader, ErrorKind, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::clients::latency_histogram;
use crate::clock;
use crate::http::{Answer, Url, read_answer};
use crate::interrupt::Interrupt;
use crate::machine;
use crate::schedule::{Mark, Schedule};

/// Longest sleep between two looks at the interrupt.
const NAP_NS: u64 = 50_000_000;

/// Pushes to one room through goim's API on one keep-alive connection, so that order is kept.
/// Requests do not wait for the answers of those before them.
#[derive(Clone, Debug)]
pub struct HttpPush {
    /// Base of the API.
    pub url: Url,
    /// Path and query of the call.
    pub path: String,
    /// Bearer token.
    pub token: Option<String>,
    /// Bytes of each message.
    pub payload_bytes: usize,
    /// How long to wait for the last answers.
    pub grace: Duration,
}

/// What became of the messages of a pass at their source.
#[derive(Clone, Debug)]
pub struct Pushed {
    /// Messages let out, from sequence 0.
    pub messages: u32,
    /// Sequences that the server refused with 503, in order.
    pub refused: Vec<u32>,
    /// Requests without an answer.
    pub unanswered: u32,
    /// Why it ended early.
    pub failure: Option<String>,
    /// How late messages were let out, in microseconds.
    pub lateness_us: Histogram<u64>,
    /// Time from when a message was due to its answer, in microseconds.
    pub answer_us: Histogram<u64>,
}

impl Pushed {
    /// Nothing let out yet.
    pub fn nothing() -> Self {
        Self {
            messages: 0,
            refused: Vec::new(),
            unanswered: 0,
            failure: None,
            lateness_us: latency_histogram(),
            answer_us: latency_histogram(),
        }
    }
}

impl HttpPush {
    /// Pushes to goim's room `kind://name`.
    pub fn to_room(url: Url, room: &str, operation: i32) -> Result<Self, String> {
        let (kind, name) = room.split_once("://").ok_or("write the room as TYPE://NAME")?;
        let path = format!("/goim/push/room?operation={operation}&type={kind}&room={name}");
        Ok(Self { url, path, token: None, payload_bytes: 0, grace: Duration::from_secs(5) })
    }

    /// Runs one pass.
    pub fn run(&self, schedule: &Schedule, interrupt: &Interrupt) -> Pushed {
        let stream = match self.url.connect() {
            Ok(stream) => stream,
            Err(failure) => return Pushed { failure: Some(failure), ..Pushed::nothing() },
        };
        let written = AtomicU32::new(0);
        let ended = AtomicBool::new(false);
        let reader = Reader { push: self, stream: &stream, written: &written, ended: &ended };
        let write = || {
            machine::hurry();
            let pushed =
                self.write_all(&stream, schedule, &written, || interrupt.is_set() || ended.load(Ordering::Relaxed));
            ended.store(true, Ordering::Release);
            pushed
        };
        let (pushed, answered) = std::thread::scope(|scope| {
            let answers = scope.spawn(|| reader.run(schedule));
            let pushed = scope.spawn(write).join();
            (pushed, answers.join())
        });
        let (Ok(mut pushed), Ok(answered)) = (pushed, answered) else {
            return Pushed { failure: Some("the pusher failed".to_owned()), ..Pushed::nothing() };
        };
        pushed.refused = answered.refused;
        pushed.answer_us = answered.answer_us;
        pushed.unanswered = pushed.messages - answered.count;
        pushed.failure = answered.failure.or(pushed.failure);
        pushed
    }

    /// Writes each message when it is due, until all are written or there is a reason to stop.
    fn write_all(
        &self,
        stream: &TcpStream,
        schedule: &Schedule,
        written: &AtomicU32,
        stop: impl Fn() -> bool,
    ) -> Pushed {
        let mut pushed = Pushed::nothing();
        for sequence in 0..schedule.count {
            if !sleep_until_due(schedule.due_ns(sequence), &stop) {
                break;
            }
            let late_ns = clock::now_ns().saturating_sub(schedule.due_ns(sequence));
            pushed.lateness_us.saturating_record(late_ns / 1000);
            if let Err(error) = self.write(stream, schedule, sequence) {
                pushed.failure = Some(format!("pushing message {sequence} failed: {error}"));
                break;
            }
            pushed.messages += 1;
            written.store(pushed.messages, Ordering::Release);
        }
        pushed
    }

    fn write(&self, mut stream: &TcpStream, schedule: &Schedule, sequence: u32) -> std::io::Result<()> {
        let due_ns = schedule.due_ns(sequence);
        let body = Mark { run: schedule.run, sequence, due_ns }.payload(self.payload_bytes);
        let mut request = self.url.head("POST", &self.path, self.token.as_deref(), body.len()).into_bytes();
        request.extend_from_slice(&body);
        stream.write_all(&request)
    }
}

/// Sleeps until a message is due; false if there is a reason to stop.
fn sleep_until_due(due_ns: u64, stop: impl Fn() -> bool) -> bool {
    loop {
        if stop() {
            return false;
        }
        let now_ns = clock::now_ns();
        if now_ns >= due_ns {
            return true;
        }
        clock::sleep_until(due_ns.min(now_ns + NAP_NS));
    }
}

/// Reads the answers, which come in the order of the requests.
struct Reader<'a> {
    push: &'a HttpPush,
    stream: &'a TcpStream,
    written: &'a AtomicU32,
    /// Set by either side when it has ended, in whatever way.
    ended: &'a AtomicBool,
}

struct Answered {
    count: u32,
    refused: Vec<u32>,
    failure: Option<String>,
    answer_us: Histogram<u64>,
}

impl Reader<'_> {
    fn run(&self, schedule: &Schedule) -> Answered {
        let mut answered = Answered { count: 0, refused: Vec::new(), failure: None, answer_us: latency_histogram() };
        let mut stream = BufReader::new(self.stream);
        let mut done_ns = None;
        let _ = self.stream.set_read_timeout(Some(Duration::from_millis(50)));
        while answered.count < schedule.count {
            let ended = self.ended.load(Ordering::Acquire);
            if ended && answered.count == self.written.load(Ordering::Acquire) {
                break;
            }
            if ended {
                let since = *done_ns.get_or_insert_with(clock::now_ns);
                if clock::now_ns() - since > clock::nanoseconds(self.push.grace) {
                    break;
                }
            }
            match wait_for_bytes(&mut stream) {
                Ok(true) => {}
                Ok(false) => continue,
                Err(error) => {
                    answered.failure = Some(format!("the push API hung up: {error}"));
                    break;
                }
            }
            let _ = self.stream.set_read_timeout(Some(self.push.grace));
            let answer = read_answer(&mut stream);
            let _ = self.stream.set_read_timeout(Some(Duration::from_millis(50)));
            if let Err(failure) = answered.take(schedule, answer) {
                answered.failure = Some(failure);
                break;
            }
        }
        self.ended.store(true, Ordering::Relaxed);
        answered
    }
}

impl Answered {
    fn take(&mut self, schedule: &Schedule, answer: std::io::Result<Answer>) -> Result<(), String> {
        let answer = answer.map_err(|error| format!("the push API stopped answering: {error}"))?;
        let due_ns = schedule.due_ns(self.count);
        self.answer_us.saturating_record(clock::now_ns().saturating_sub(due_ns) / 1000);
        let text = String::from_utf8_lossy(&answer.body);
        match answer.status {
            200 if !text.contains("\"code\":") || text.contains("\"code\":0") => {}
            503 => self.refused.push(self.count),
            status => return Err(format!("the push API answered {status}: {}", text.trim())),
        }
        self.count += 1;
        Ok(())
    }
}

/// Whether there is something to read; false if the read timed out.
fn wait_for_bytes(stream: &mut BufReader<&TcpStream>) -> std::io::Result<bool> {
    use std::io::BufRead;
    match stream.fill_buf() {
        Ok([]) => Err(ErrorKind::UnexpectedEof.into()),
        Ok(_) => Ok(true),
        Err(error) => match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => Ok(false),
            _ => Err(error),
        },
    }
}
