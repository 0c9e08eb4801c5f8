//! One client of each target says hello before the others come: what would fail for all of them is
//! told in one sentence, with what to do about it.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use halley_protocol::{Packet, client, operation, websocket};

use crate::decode::{Item, Malformed, Stream};
use crate::fault::hex;
use crate::plan::Plan;
use crate::secure::Wire;
use crate::target::{Target, Transport};

/// How long a raw server without a marker may take to say that it does not like what it hears.
const OBJECTION: Duration = Duration::from_millis(200);

const MASK: [u8; 4] = [1, 2, 3, 4];

/// Longest answer to a WebSocket request.
const ANSWER_BYTES_MAX: usize = 8192;

/// Says hello to every target, each within `patience`.
///
/// # Errors
/// A sentence that names the target, what happened and what may help.
pub fn hello(plan: &Plan, patience: Duration) -> Result<(), String> {
    if plan.login.is_none() && plan.raw.is_none() {
        return Ok(());
    }
    for (number, target) in (0..).zip(&plan.targets) {
        let greeting = Greeting { plan, number, target, deadline: Instant::now() + patience };
        greeting.run().map_err(|complaint| format!("{target} {complaint}"))?;
    }
    Ok(())
}

/// The hello of one client.
struct Greeting<'a> {
    plan: &'a Plan,
    number: u32,
    target: &'a Target,
    deadline: Instant,
}

/// What came instead of what was waited for.
enum Trouble {
    /// The end of the stream, orderly or not.
    Ended,
    Silent,
}

impl Greeting<'_> {
    fn run(&self) -> Result<(), String> {
        let stream = TcpStream::connect_timeout(&self.target.address, self.left())
            .map_err(|error| format!("cannot be reached: {error} (is the server started, and is this its address?)"))?;
        let stream = Wire::over(stream, self.target, self.plan.tls.as_ref());
        let mut stream = stream.map_err(|error| format!("cannot be spoken to over TLS: {error}"))?;
        let behind = match self.target.transport {
            Transport::Tcp => Vec::new(),
            Transport::Ws => self.upgrade(&mut stream)?,
        };
        stream.write_all(&self.opening()).map_err(|error| format!("took no login: {error}"))?;
        self.login(&mut stream, behind)
    }

    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
    }

    /// Makes the WebSocket handshake; answers the bytes behind it.
    fn upgrade(&self, stream: &mut Wire) -> Result<Vec<u8>, String> {
        let path = self.plan.path(self.number);
        let request = websocket::client::request(&self.target.host, &path, "aGFsbGV5LWJlbmNoLWtleQ==");
        stream.write_all(request.as_bytes()).map_err(|error| format!("took no WebSocket request: {error}"))?;
        let mut answer = Vec::new();
        loop {
            let bytes = read(stream, self.left()).map_err(|trouble| match trouble {
                Trouble::Ended => "ended the connection instead of answering a WebSocket request: does it speak \
                                   WebSocket, or goim's TCP (then write tcp://)?"
                    .to_owned(),
                Trouble::Silent => "did not answer a WebSocket request: does it speak WebSocket, or goim's TCP \
                                    (then write tcp://)?"
                    .to_owned(),
            })?;
            answer.extend_from_slice(&bytes);
            if !b"HTTP/1.1 "[..answer.len().min(9)].eq(&answer[..answer.len().min(9)]) {
                return Err(format!("answered a WebSocket request with no HTTP but {}", hex(&answer)));
            }
            if let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") {
                return upgraded(&answer, &path).map(|()| answer.split_off(end + 4));
            }
            if answer.len() > ANSWER_BYTES_MAX {
                return Err("answered a WebSocket request without end".to_owned());
            }
        }
    }

    /// What this client says first.
    fn opening(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if let Some(raw) = &self.plan.raw {
            raw.open(&mut out, &self.plan.rooms, self.number);
        } else if let Some(login) = self.plan.credentials(self.number, "-hello") {
            // The client itself comes soon, with its own key.
            let packet =
                Packet { version: client::VERSION, operation: operation::AUTH, sequence: 1, body: login.as_bytes() };
            match self.target.transport {
                Transport::Tcp => client::append(&mut out, &packet),
                Transport::Ws => websocket::client::packet(&mut out, MASK, &packet),
            }
        }
        out
    }

    /// Waits until the client is logged in.
    fn login(&self, stream: &mut Wire, mut bytes: Vec<u8>) -> Result<(), String> {
        let mut decoder = self.plan.stream(self.number);
        let waits = self.plan.raw.as_ref().is_none_or(|raw| raw.waits);
        let objection = Instant::now() + OBJECTION;
        let mut kept = Vec::new();
        loop {
            let (mut ready, mut closed) = (false, None);
            let mut answers = Vec::new();
            let each = |item: Item<'_>| match item {
                Item::Operation(operation::AUTH_REPLY) | Item::Ready => ready = true,
                Item::CloseFrame(code, _) => closed = Some(code),
                Item::Ping(payload) => {
                    websocket::client::frame(&mut answers, true, websocket::Opcode::Pong, MASK, payload);
                }
                Item::Asked(ping) => {
                    if let Some(raw) = &self.plan.raw {
                        raw.answer(&mut answers, ping, MASK);
                    }
                }
                _ => {}
            };
            let fed = match (&mut decoder, &self.plan.raw) {
                (Stream::Goim(decoder), _) => decoder.feed(&mut kept, &bytes, self.plan.heard_operation(), each),
                (Stream::Raw(decoder), Some(raw)) => decoder.feed(&mut kept, &bytes, &raw.watch, each),
                (Stream::Raw(_), None) => Ok(()), // never: see above
            };
            fed.map_err(|malformed| self.not_understood(malformed, &kept))?;
            if let Some(code) = closed {
                return Err(format!("closed the connection with code {code}: {}", self.advice()));
            }
            if ready {
                return Ok(());
            }
            stream.write_all(&answers).map_err(|error| format!("took no answer: {error}"))?;
            let patience = if waits { self.left() } else { objection.saturating_duration_since(Instant::now()) };
            bytes = match read(stream, patience) {
                Ok(bytes) => bytes,
                Err(Trouble::Silent) if !waits => return Ok(()),
                Err(Trouble::Silent) => return Err(format!("did not answer the login: {}", self.advice())),
                Err(Trouble::Ended) => return Err(format!("ended the connection at the login: {}", self.advice())),
            };
        }
    }

    fn not_understood(&self, malformed: Malformed, bytes: &[u8]) -> String {
        if bytes.starts_with(b"HTTP/") {
            return "answers in HTTP: for a WebSocket server write ws://HOST:PORT/PATH".to_owned();
        }
        let (what, shown) = (malformed.sentence(), hex(bytes));
        let advice = if self.plan.raw.is_some() {
            "is this a WebSocket server?"
        } else {
            "is this a goim server? for others say --dialect raw-ws"
        };
        format!("answered the login with {what} ({shown}): {advice}")
    }

    /// What to look at if the login is not answered.
    fn advice(&self) -> &'static str {
        match &self.plan.raw {
            Some(raw) if raw.waits => "are --open, --open-binary and --ready-marker what this server wants?",
            Some(_) => "are --open and --open-binary what this server wants?",
            None => {
                "does its listener let this room and key in, and is it a goim server (for others say --dialect raw-ws)?"
            }
        }
    }
}

/// Judges the answer to a WebSocket request.
fn upgraded(answer: &[u8], path: &str) -> Result<(), String> {
    let text = String::from_utf8_lossy(answer);
    let line = text.lines().next().unwrap_or_default();
    let status = line.strip_prefix("HTTP/1.1 ").unwrap_or(line);
    let advice = match status.get(..3) {
        Some("101") => return Ok(()),
        Some("401" | "403") => "a token or an origin is missing",
        Some("404") => "is the path of the target right?",
        Some("426" | "400") => "is this a WebSocket endpoint, and the path right?",
        Some("429" | "503") => "is the server full?",
        _ => "is this a WebSocket endpoint?",
    };
    Err(format!("answered a WebSocket request for {path} with {status}: {advice}"))
}

fn read(stream: &mut Wire, patience: Duration) -> Result<Vec<u8>, Trouble> {
    let mut bytes = vec![0; 4096];
    stream.set_read_timeout(patience.max(Duration::from_millis(1)));
    match stream.read(&mut bytes) {
        Ok(0) => Err(Trouble::Ended),
        Ok(read) => {
            bytes.truncate(read);
            Ok(bytes)
        }
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Err(Trouble::Silent),
        Err(error) if error.kind() == ErrorKind::Interrupted => Ok(Vec::new()),
        Err(_) => Err(Trouble::Ended),
    }
}
