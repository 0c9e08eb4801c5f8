//! Runs cases against a server: each cut in two at every position, both halves read apart, its answer compared.

use std::collections::HashMap;
use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use halley_protocol::websocket::{Opcode, client as websocket, handshake};
use socket2::SockRef;

use crate::support::PATIENCE;

/// Key of every handshake that is sound, as in RFC 6455 1.3.
pub(crate) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// Connections that are open at a time for one thread.
const BATCH: usize = 200;
const THREADS: usize = 3;
/// Cuts that are tried behind the first 512 bytes.
const CUTS_BEYOND: usize = 100;

/// What is asked of a server, in its words or ours, and how it is tried.
pub(crate) struct Requirement {
    pub(crate) section: &'static str,
    pub(crate) sentence: &'static str,
    pub(crate) cases: Vec<Case>,
}

/// Bytes, and what must come back for them.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) start: Start,
    pub(crate) bytes: Vec<u8>,
    pub(crate) expected: Vec<Expected>,
}

/// What comes before the bytes of a case.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// Nothing: they are a handshake.
    Connected,
    /// A handshake and its answer: they are frames.
    Upgraded,
}

/// What must be heard next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    Heard(Heard),
    /// A close frame with this code and then the end; another server may choose another code, or none.
    Failed(u16),
    /// An answer with this status and then the end; another server may choose another one.
    Refused(u16),
}

/// What a server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// The handshake's answer is 101 and right in every header.
    Upgraded,
    /// Another answer.
    Status(u16),
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>),
    End,
    Reset,
    /// Bytes that no server may send.
    Nonsense,
    Silence,
}

/// Where the cases go.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) host: String,
    /// Path that echoes.
    pub(crate) path: String,
    /// Ours: every code must be the one we chose.
    pub(crate) strict: bool,
    /// Every position is tried, not only some behind the first 512.
    pub(crate) full: bool,
}

/// One case cut at one place; 0: not cut.
pub(crate) type Try<'a> = (&'a Case, usize);

struct Connection<'a> {
    case: &'a Case,
    cut: usize,
    stream: TcpStream,
    bytes: Vec<u8>,
    upgraded: bool,
    message: Option<Opcode>,
    payload: Vec<u8>,
}

/// The positions at which so many bytes are cut.
pub(crate) fn cuts(bytes: usize, full: bool) -> Vec<usize> {
    let near = bytes.min(if full { usize::MAX } else { 513 });
    let beyond = (1..=CUTS_BEYOND).map(|n| near + (bytes - near) * n / (CUTS_BEYOND + 1));
    let mut cuts: Vec<usize> = (0..near).chain(beyond.filter(|cut| *cut < bytes)).collect();
    cuts.dedup();
    cuts
}

/// Runs everything; what went wrong, a line each.
pub(crate) fn run(server: &Server, requirements: &[Requirement]) -> (usize, Vec<String>) {
    let tries: Vec<Try<'_>> = requirements
        .iter()
        .flat_map(|requirement| &requirement.cases)
        .flat_map(|case| cuts(case.bytes.len(), server.full).into_iter().map(move |cut| (case, cut)))
        .collect();
    let batches = Mutex::new(tries.chunks(BATCH));
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let next = batches.lock().expect("no panic holds it").next();
                    let Some(batch) = next else { return };
                    let found = run_batch(server, batch);
                    failures.lock().expect("no panic holds it").extend(found);
                }
            });
        }
    });
    (tries.len(), failures.into_inner().expect("no panic held it"))
}

/// All of these at once; what went wrong, a line each.
pub(crate) fn run_batch(server: &Server, batch: &[Try<'_>]) -> Vec<String> {
    let mut connections: Vec<_> = batch.iter().map(|(case, cut)| Connection::open(server, case, *cut)).collect();
    let request = websocket::request(&server.host, &server.path, KEY);
    for connection in connections.iter_mut().filter(|connection| connection.case.start == Start::Upgraded) {
        connection.say(request.as_bytes());
    }
    let mut failures = Vec::new();
    for connection in connections.iter_mut().filter(|connection| connection.case.start == Start::Upgraded) {
        let heard = connection.hear();
        if heard != Heard::Upgraded {
            failures.push(format!("{}: no upgrade but {heard:?}", connection.case.name));
        }
    }
    for connection in &mut connections {
        let case = connection.case;
        connection.say(&case.bytes[..connection.cut]);
    }
    wait_until_read(server.address, &connections);
    for connection in &mut connections {
        let case = connection.case;
        connection.say(&case.bytes[connection.cut..]);
    }
    for connection in &mut connections {
        let heard = connection.listen();
        if !agrees(&connection.case.expected, &heard, server.strict) {
            let Connection { case, cut, .. } = connection;
            failures.push(format!("{}, cut at {cut}: expected {:?}, heard {heard:?}", case.name, case.expected));
        }
    }
    failures
}

/// Waits until the first halves have been taken out of the server's sockets (the kernel's tables say so); of a
/// server on another machine, until they have arrived there.
fn wait_until_read(server: SocketAddr, connections: &[Connection<'_>]) {
    let ports: Vec<u16> = connections.iter().filter(|it| it.cut > 0).map(Connection::port).collect();
    let since = Instant::now();
    loop {
        let queues = queues(server.port());
        if ports.iter().all(|port| queues.get(port).copied().unwrap_or(0) == 0) {
            return;
        }
        assert!(since.elapsed() < PATIENCE, "first halves that nobody reads");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// By the client's port: bytes that it has sent and that the server's program has not read.
fn queues(server_port: u16) -> HashMap<u16, u64> {
    let mut queues = HashMap::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        for line in fs::read_to_string(table).unwrap_or_default().lines().skip(1) {
            let mut fields = line.split_ascii_whitespace().skip(1);
            let mut port = || u16::from_str_radix(fields.next()?.rsplit(':').next()?, 16).ok();
            let (Some(local), Some(remote)) = (port(), port()) else { continue };
            let Some((unsent, unread)) = fields.nth(1).and_then(|queues| queues.split_once(':')) else { continue };
            let hex = |text| u64::from_str_radix(text, 16).unwrap_or(0);
            if remote == server_port {
                *queues.entry(local).or_insert(0) += hex(unsent);
            } else if local == server_port {
                *queues.entry(remote).or_insert(0) += hex(unread);
            }
        }
    }
    queues
}

/// Whether what was heard is what was expected, all of it and nothing more.
fn agrees(expected: &[Expected], heard: &[Heard], strict: bool) -> bool {
    let mut heard = heard.iter();
    let mut next = || heard.next().cloned().unwrap_or(Heard::Silence);
    let all = expected.iter().all(|expected| match (expected, next()) {
        (Expected::Heard(Heard::Close(_)), Heard::Close(_)) if !strict => true,
        (Expected::Heard(expected), heard) => *expected == heard,
        (Expected::Failed(code), Heard::Close(told)) => told == Some(*code) || !strict,
        (Expected::Refused(status), Heard::Status(told)) => told == *status || (!strict && told >= 400),
        (Expected::Failed(_) | Expected::Refused(_), Heard::End | Heard::Reset) => !strict,
        _ => false,
    });
    let rest: Vec<_> = heard.collect();
    let ends = expected.iter().any(Expected::is_an_end);
    all && match rest[..] {
        [] => !ends || !strict,
        [Heard::End] => ends,
        [Heard::Reset] => ends && !strict,
        _ => false,
    }
}

impl Expected {
    fn is_an_end(&self) -> bool {
        !matches!(self, Self::Heard(Heard::Upgraded | Heard::Text(_) | Heard::Binary(_) | Heard::Pong(_)))
    }
}

impl<'a> Connection<'a> {
    fn open(server: &Server, case: &'a Case, cut: usize) -> Self {
        let stream = TcpStream::connect(server.address).expect("the server listens");
        stream.set_nodelay(true).expect("an option");
        stream.set_read_timeout(Some(PATIENCE)).expect("an option");
        // No port may stay taken: there are more tries than ports.
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("an option");
        Self { case, cut, stream, bytes: Vec::new(), upgraded: false, message: None, payload: Vec::new() }
    }

    fn port(&self) -> u16 {
        self.stream.local_addr().expect("connected").port()
    }

    /// The server may have ended the connection for what it heard before.
    fn say(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Everything up to the last thing that is expected, and to the end if the server is to end it.
    fn listen(&mut self) -> Vec<Heard> {
        let expected = self.case.expected.len();
        let ends = self.case.expected.iter().any(Expected::is_an_end);
        let mut heard = Vec::new();
        loop {
            if heard.len() >= expected && !ends {
                return heard;
            }
            let next = self.hear();
            if let Heard::Close(_) = next {
                let _ = self.stream.shutdown(Shutdown::Write);
            }
            let last = matches!(next, Heard::End | Heard::Reset | Heard::Silence | Heard::Nonsense);
            heard.push(next);
            if last {
                return heard;
            }
        }
    }

    fn hear(&mut self) -> Heard {
        loop {
            if let Some(heard) = self.decode() {
                return heard;
            }
            let mut bytes = [0; 16 * 1024];
            match self.stream.read(&mut bytes) {
                Ok(0) => return Heard::End,
                Ok(read) => self.bytes.extend_from_slice(&bytes[..read]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Heard::Reset,
                Err(_) => return Heard::Silence,
            }
        }
    }

    fn decode(&mut self) -> Option<Heard> {
        if !self.upgraded {
            let end = self.bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
            let heard = judge(&String::from_utf8_lossy(&self.bytes[..end]));
            self.upgraded = heard == Heard::Upgraded;
            // The body of a refusal is not looked at.
            let used = if self.upgraded { end } else { self.bytes.len() };
            self.bytes.drain(..used);
            return Some(heard);
        }
        loop {
            let Ok(frame) = websocket::decode(&self.bytes) else { return Some(Heard::Nonsense) };
            let frame = frame?;
            let payload = self.bytes[frame.payload.clone()].to_vec();
            self.bytes.drain(..frame.payload.end);
            match frame.opcode {
                Opcode::Pong if frame.fin => return Some(Heard::Pong(payload)),
                Opcode::Close if frame.fin => {
                    return Some(Heard::Close(payload.first_chunk().map(|code| u16::from_be_bytes(*code))));
                }
                Opcode::Text | Opcode::Binary if self.message.is_none() => self.message = Some(frame.opcode),
                Opcode::Continuation if self.message.is_some() => {}
                _ => return Some(Heard::Nonsense),
            }
            self.payload.extend(payload);
            if frame.fin {
                let whole = std::mem::take(&mut self.payload);
                let text = self.message.take() == Some(Opcode::Text);
                return Some(if text { Heard::Text(whole) } else { Heard::Binary(whole) });
            }
        }
    }
}

/// An answer to a handshake with [`KEY`].
fn judge(head: &str) -> Heard {
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok());
    let Some(status) = status else { return Heard::Nonsense };
    let headers: HashMap<String, &str> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim()))
        .collect();
    let is = |name: &str, value: &str| headers.get(name).is_some_and(|got| got.eq_ignore_ascii_case(value));
    if status == 426 && !is("sec-websocket-version", "13") {
        return Heard::Nonsense;
    }
    if status != 101 {
        return Heard::Status(status);
    }
    let accept = handshake::accept(KEY.as_bytes());
    let right = is("upgrade", "websocket")
        && is("connection", "upgrade")
        && headers.get("sec-websocket-accept").is_some_and(|got| got.as_bytes() == accept)
        && !headers.contains_key("sec-websocket-extensions")
        && !headers.contains_key("sec-websocket-protocol");
    if right { Heard::Upgraded } else { Heard::Nonsense }
}

#[test]
fn every_position_up_to_512_is_cut_and_a_hundred_beyond() {
    assert_eq!(cuts(4, false), [0, 1, 2, 3]);
    assert_eq!(cuts(513, false).len(), 513);
    let long = cuts(70_000, false);
    assert_eq!(long.len(), 513 + CUTS_BEYOND);
    assert!(long.starts_with(&(0..=512).collect::<Vec<_>>()) && long.iter().all(|cut| *cut < 70_000));
    assert_eq!(cuts(70_000, true).len(), 70_000);
}

#[test]
fn a_wrong_answer_is_not_taken_for_a_right_one() {
    let close = |code| Heard::Close(Some(code));
    let failed = [Expected::Failed(1002)];
    assert!(agrees(&failed, &[close(1002), Heard::End], true));
    assert!(!agrees(&failed, &[close(1002)], true), "the connection stays open");
    assert!(!agrees(&failed, &[close(1002), Heard::Reset], true));
    assert!(!agrees(&failed, &[close(1007), Heard::End], true));
    assert!(agrees(&failed, &[close(1007), Heard::End], false), "another server's choice");
    assert!(!agrees(&failed, &[Heard::Text(vec![]), close(1002), Heard::End], false));
    let pong = [Expected::Heard(Heard::Pong(vec![1]))];
    assert!(agrees(&pong, &[Heard::Pong(vec![1])], true));
    assert!(!agrees(&pong, &[Heard::Pong(vec![2])], false) && !agrees(&pong, &[Heard::Silence], false));
    assert_eq!(
        judge("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"),
        Heard::Nonsense
    );
}
