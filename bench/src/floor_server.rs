//! The bare server of the floor, in a process of its own: accepts, and sends each message to
//! everybody when it is due, as fast as the kernel lets it.
//!
//! It is told what to do in lines of JSON on its standard input, answers on its standard output,
//! and ends when the input does.

use std::io::{self, BufRead, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use halley_protocol::push;
use halley_ring::client::floor::{Fan, Outcome, Wanted};
use rustix::net::{SendFlags, listen, send, sockopt};
use serde::{Deserialize, Serialize};

use crate::clients::latency_histogram;
use crate::clock;
use crate::machine;
use crate::schedule::{Mark, Schedule};

/// How the bare server sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// On bare rings: direct descriptors, no completions, batches.
    Ring,
    /// With one `send(2)` after the other.
    Send,
}

impl Kind {
    /// Both, unless plain descriptors are too few for so many connections.
    pub fn possible(connections: u32) -> &'static [Self] {
        const OTHER_FILES: u64 = 64;
        let enough = machine::raise_nofile() >= u64::from(connections) + OTHER_FILES;
        if enough { &[Self::Ring, Self::Send] } else { &[Self::Ring] }
    }
}

/// What the bare server is told on its command line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Settings {
    /// How to send.
    pub kind: Kind,
    /// CPUs to run on.
    pub cpus: Option<String>,
    /// Connections that get goim packets as they are.
    pub tcp: u32,
    /// Connections that get them in WebSocket frames.
    pub ws: u32,
    /// Operation of the messages.
    pub operation: i32,
    /// Bytes of each message.
    pub payload_bytes: usize,
    /// How long to wait for the connections.
    pub patience_s: u64,
}

/// Its first line: the ports it listens on.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Ports {
    /// For packets as they are.
    pub tcp: u16,
    /// For WebSocket frames.
    pub ws: u16,
}

/// Its second line, when everybody is accepted.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Accepted {
    /// How many.
    pub accepted: u32,
}

/// Its line after each schedule.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Done {
    /// Messages sent to everybody; fewer than planned if it fell behind.
    pub messages: u32,
    /// Sends that a full socket refused.
    pub blocked: u64,
    /// Connections lost.
    pub died: u64,
    /// 99th percentile of how late a message was begun, in microseconds.
    pub late_us_p99: u64,
}

/// A server that has fallen behind the whole schedule by this much stops.
const BEHIND_NS_MAX: u64 = 1_000_000_000;

/// The sockets, and how they are sent to.
enum Everybody {
    Ring(Fan),
    /// Each with the index of its message; none if lost.
    Send(Vec<Option<(TcpStream, u8)>>),
}

/// Runs the bare server until standard input ends.
///
/// # Errors
/// A sentence.
pub fn run(settings: &Settings) -> Result<(), String> {
    if let Some(cpus) = &settings.cpus {
        machine::pin(cpus)?;
    }
    machine::raise_nofile();
    serve(settings).map_err(|error| format!("the bare server failed: {error}"))
}

fn serve(settings: &Settings) -> io::Result<()> {
    let (tcp, ws) = (listener()?, listener()?);
    say(&Ports { tcp: tcp.local_addr()?.port(), ws: ws.local_addr()?.port() })?;
    let mut everybody = Everybody::accept(settings, &tcp, &ws)?;
    say(&Accepted { accepted: settings.tcp + settings.ws })?;
    for line in io::stdin().lock().lines() {
        let schedule: Schedule = serde_json::from_str(&line?)?;
        say(&send_all(&mut everybody, settings, &schedule)?)?;
    }
    Ok(())
}

fn say(line: &impl Serialize) -> io::Result<()> {
    let mut text = serde_json::to_string(line)?;
    text.push('\n');
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

fn listener() -> io::Result<TcpListener> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listen(&listener, 4096)?; // the library's own queue is short
    sockopt::set_tcp_nodelay(&listener, true)?; // inherited
    Ok(listener)
}

fn send_all(everybody: &mut Everybody, settings: &Settings, schedule: &Schedule) -> io::Result<Done> {
    let mut done = Done { messages: 0, blocked: 0, died: 0, late_us_p99: 0 };
    let mut late_us = latency_histogram();
    for sequence in 0..schedule.count {
        let due_ns = schedule.due_ns(sequence);
        while clock::now_ns() < due_ns {
            clock::sleep_until(due_ns);
        }
        let now_ns = clock::now_ns();
        if now_ns > schedule.end_ns() + BEHIND_NS_MAX {
            break;
        }
        late_us.saturating_record((now_ns - due_ns) / 1000);
        let mark = Mark { run: schedule.run, sequence, due_ns };
        let body = mark.payload(settings.payload_bytes);
        let (message, start) = push::encode(settings.operation, &body);
        let messages = [&message[push::INNER_START..], &message[usize::from(start)..]];
        let outcome = everybody.send(&messages)?;
        done.messages += 1;
        done.blocked += outcome.blocked;
        done.died += outcome.died;
    }
    done.late_us_p99 = late_us.value_at_quantile(0.99);
    Ok(done)
}

impl Everybody {
    fn accept(settings: &Settings, tcp: &TcpListener, ws: &TcpListener) -> io::Result<Self> {
        if settings.kind == Kind::Send {
            return Self::accept_plain(settings, tcp, ws);
        }
        let files = u32::try_from(machine::raise_nofile()).unwrap_or(u32::MAX);
        let mut fan = Fan::new(files.min(1 << 20));
        let wanted = [
            Wanted { listener: tcp, class: 0, sockets: settings.tcp },
            Wanted { listener: ws, class: 1, sockets: settings.ws },
        ];
        fan.accept(&wanted, Instant::now() + Duration::from_secs(settings.patience_s))?;
        Ok(Self::Ring(fan))
    }

    fn accept_plain(settings: &Settings, tcp: &TcpListener, ws: &TcpListener) -> io::Result<Self> {
        let take = |listener: &TcpListener, class: u8, count: u32| {
            let one = |_| listener.accept().map(|(stream, _)| Some((stream, class)));
            (0..count).map(one).collect::<io::Result<Vec<_>>>()
        };
        // Both at once, or the other's queue overflows meanwhile.
        let (plain, framed) = std::thread::scope(|scope| {
            let framed = scope.spawn(|| take(ws, 1, settings.ws));
            let plain = take(tcp, 0, settings.tcp);
            (plain, framed.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into())))
        });
        let mut sockets = plain?;
        sockets.extend(framed?);
        Ok(Self::Send(sockets))
    }

    fn send(&mut self, messages: &[&[u8]; 2]) -> io::Result<Outcome> {
        let sockets = match self {
            Self::Ring(fan) => return fan.send_to_all(messages),
            Self::Send(sockets) => sockets,
        };
        let mut outcome = Outcome::default();
        for socket in sockets {
            let Some((stream, class)) = socket else { continue };
            let message = messages[usize::from(*class)];
            match send(stream, message, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(bytes) if bytes == message.len() => outcome.sent += 1,
                Err(rustix::io::Errno::AGAIN) => outcome.blocked += 1,
                Ok(_) | Err(_) => {
                    outcome.died += 1;
                    *socket = None;
                }
            }
        }
        Ok(outcome)
    }
}
