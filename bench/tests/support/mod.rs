//! A goim v2 server of a few threads that does to each message what a test tells it to.
#![allow(clippy::unwrap_used, clippy::needless_pass_by_value, reason = "only tests use it")]

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bench::schedule::Mark;
use halley_protocol::login::Login;
use halley_protocol::packet::header;
use halley_protocol::push;
use halley_protocol::websocket::handshake;
use serde_json::{Value, json};

/// What a client gets.
#[derive(Clone, Debug)]
pub(crate) enum Delivery {
    /// The packets of these messages, joined.
    Messages(Vec<u32>),
    /// These bytes.
    #[allow(dead_code, reason = "not every test sends nonsense")]
    Bytes(Vec<u8>),
}

/// What the server does.
#[derive(Clone, Copy)]
pub(crate) struct Script {
    /// What the client of a member gets when message `n` is pushed.
    pub(crate) deliver: fn(n: u32, member: i64) -> Delivery,
    /// Whether a push is answered 503 and not delivered.
    pub(crate) refuse: fn(n: u32) -> bool,
    /// Whether a member's login is answered.
    pub(crate) welcome: fn(member: i64) -> bool,
    /// The API hangs up instead of taking this message.
    pub(crate) dies_at: u32,
    /// Whose clients get what is pushed to a room.
    pub(crate) reroute: fn(room: &str) -> &str,
    /// Messages that are due at more than this rate, in messages a second, reach nobody.
    pub(crate) loses_above: f64,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            deliver: |n, _| Delivery::Messages(vec![n]),
            refuse: |_| false,
            welcome: |_| true,
            dies_at: u32::MAX,
            reroute: |room| room,
            loses_above: f64::INFINITY,
        }
    }
}

/// A running server; its threads end with the test's process.
pub(crate) struct Server {
    pub(crate) tcp: SocketAddr,
    pub(crate) ws: SocketAddr,
    pub(crate) api: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    clients: Mutex<Vec<Client>>,
    /// Bodies by number, so that a message can be delivered late or again.
    bodies: Mutex<HashMap<u32, Vec<u8>>>,
    pushes: AtomicU32,
    /// The mark of the first message of the latest pass.
    first: Mutex<Option<Mark>>,
}

/// A client that is logged in.
struct Client {
    stream: TcpStream,
    login: Login,
    ws: bool,
}

impl Server {
    pub(crate) fn start(script: Script) -> Self {
        let shared = Arc::new(Shared::default());
        let listen = |serve: fn(TcpStream, &Shared, &Script) -> io::Result<()>| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    let (stream, shared) = (stream.unwrap(), Arc::clone(&shared));
                    std::thread::spawn(move || serve(stream, &shared, &script));
                }
            });
            address
        };
        let (tcp, ws, api) = (listen(serve_tcp), listen(serve_ws), listen(serve_api));
        Self { tcp, ws, api, shared }
    }

    /// Waits until this many messages have been pushed.
    #[allow(dead_code, reason = "not every test waits")]
    pub(crate) fn wait_for_pushes(&self, count: u32) {
        let deadline = Instant::now() + Duration::from_mins(1);
        while self.shared.pushes.load(Ordering::Relaxed) < count {
            assert!(Instant::now() < deadline, "no {count} pushes came");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The flags that name this server.
    pub(crate) fn flags(&self) -> Vec<String> {
        vec![
            format!("--target=tcp://{}", self.tcp),
            format!("--target=ws://{}/sub", self.ws),
            format!("--push=http://{}", self.api),
        ]
    }
}

fn serve_tcp(mut stream: TcpStream, shared: &Shared, script: &Script) -> io::Result<()> {
    let mut head = [0; 16];
    stream.read_exact(&mut head)?;
    let length = u32::from_be_bytes(*head.first_chunk().unwrap()) as usize;
    let mut body = vec![0; length - 16];
    stream.read_exact(&mut body)?;
    let login = Login::parse(&body).unwrap();
    if (script.welcome)(login.mid) {
        stream.write_all(&header(0, 1, 8, 1))?;
        stay(stream, login, false, shared)?;
    }
    Ok(())
}

fn serve_ws(mut stream: TcpStream, shared: &Shared, script: &Script) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
    let mut answer = [0; handshake::RESPONSE_BYTES];
    let bytes = handshake::response(&handshake::accept(key.as_bytes()), &mut answer);
    stream.write_all(&answer[..bytes])?;
    let payload = masked_frame(&mut stream)?;
    let login = Login::parse(&payload[16..]).unwrap();
    if (script.welcome)(login.mid) {
        let mut reply = vec![0x82, 16];
        reply.extend_from_slice(&header(0, 1, 8, 1));
        stream.write_all(&reply)?;
        stay(stream, login, true, shared)?;
    }
    Ok(())
}

fn masked_frame(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut head = [0; 2];
    stream.read_exact(&mut head)?;
    let mut length = usize::from(head[1] & 0x7f);
    if length == 126 {
        stream.read_exact(&mut head)?;
        length = usize::from(u16::from_be_bytes(head));
    }
    let mut mask = [0; 4];
    stream.read_exact(&mut mask)?;
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload)?;
    for (index, byte) in payload.iter_mut().enumerate() {
        *byte ^= mask[index % 4];
    }
    Ok(payload)
}

/// Makes a client reachable and reads, without interest, what it says.
fn stay(mut stream: TcpStream, login: Login, ws: bool, shared: &Shared) -> io::Result<()> {
    let writer = stream.try_clone()?;
    shared.clients.lock().unwrap().push(Client { stream: writer, login, ws });
    io::copy(&mut stream, &mut io::sink()).map(drop)
}

fn serve_api(stream: TcpStream, shared: &Shared, script: &Script) -> io::Result<()> {
    let mut requests = BufReader::new(stream.try_clone()?);
    loop {
        let (mut length, mut path) = (0, String::new());
        let mut line = String::new();
        loop {
            line.clear();
            if requests.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if let Some(value) = line.strip_prefix("Content-Length: ") {
                length = value.trim().parse().unwrap();
            }
            if let Some(rest) = line.strip_prefix("POST ") {
                rest.split(' ').next().unwrap().clone_into(&mut path);
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        requests.read_exact(&mut body)?;
        let Some((status, answer)) = call(&path, &body, shared, script) else { return Ok(()) };
        write!(&stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{answer}", answer.len())?;
    }
}

/// Status and body of the answer to a call of goim's API or Halley's; none: hang up.
fn call(path: &str, body: &[u8], shared: &Shared, script: &Script) -> Option<(&'static str, String)> {
    if path != "/v1/push" {
        let of = |name: &str| path.split(['?', '&']).find_map(|part| part.strip_prefix(name)).unwrap();
        let room = format!("{}://{}", of("type="), of("room="));
        let status = if take(&room, body.to_vec(), shared, script)? { "200 OK" } else { "503 Busy" };
        return Some((status, r#"{"code":0,"message":""}"#.to_owned()));
    }
    let pushes: Value = serde_json::from_slice(body).unwrap();
    let mut results = Vec::new();
    for push in pushes.as_array().unwrap_or(&vec![pushes.clone()]) {
        let payload = BASE64_STANDARD.decode(push["payload"]["base64"].as_str().unwrap()).unwrap();
        let taken = take(push["target"]["room"].as_str().unwrap(), payload, shared, script)?;
        results.push(if taken { json!({ "dispatched": 1, "offline": 0 }) } else { json!({ "error": {} }) });
    }
    Some(("200 OK", json!({ "results": results }).to_string()))
}

/// Takes a message for a room: false if it is refused, none if the server dies.
fn take(room: &str, body: Vec<u8>, shared: &Shared, script: &Script) -> Option<bool> {
    let n = shared.pushes.fetch_add(1, Ordering::Relaxed);
    if n >= script.dies_at {
        return None;
    }
    let too_fast = shared.rate(&body) > script.loses_above;
    shared.bodies.lock().unwrap().insert(n, body);
    let refused = (script.refuse)(n);
    if !refused && !too_fast {
        deliver(n, (script.reroute)(room), shared, script);
    }
    Some(!refused)
}

impl Shared {
    /// Messages a second at which those between the first message of the pass and this one are due.
    #[allow(clippy::cast_precision_loss, reason = "times of a test")]
    fn rate(&self, body: &[u8]) -> f64 {
        let mark = Mark::read(body.first_chunk().unwrap());
        let mut first = self.first.lock().unwrap();
        let first = match *first {
            Some(first) if first.run == mark.run && first.sequence != mark.sequence => first,
            _ => {
                *first = Some(mark);
                return 0.0;
            }
        };
        let messages = f64::from(mark.sequence) - f64::from(first.sequence);
        messages / ((mark.due_ns as f64 - first.due_ns as f64) / 1e9)
    }
}

fn deliver(n: u32, room: &str, shared: &Shared, script: &Script) {
    let bodies = shared.bodies.lock().unwrap();
    for Client { stream, login, ws } in shared.clients.lock().unwrap().iter_mut() {
        if login.room_id != room {
            continue;
        }
        let bytes = match (script.deliver)(n, login.mid) {
            Delivery::Bytes(bytes) => bytes,
            Delivery::Messages(messages) if messages.is_empty() => continue,
            Delivery::Messages(messages) => {
                let mut run = vec![0; push::INNER_START];
                for n in messages {
                    let body = &bodies[&n];
                    run.extend_from_slice(&header(body.len(), 1, 1000, 0));
                    run.extend_from_slice(body);
                }
                let start = if *ws { usize::from(push::seal(&mut run)) } else { push::INNER_START };
                run.split_off(start)
            }
        };
        let _ = stream.write_all(&bytes); // a client may have gone
    }
}
