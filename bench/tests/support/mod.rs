//! A goim v2 server of a few threads that does to each message what a test tells it to.
#![allow(clippy::unwrap_used, clippy::needless_pass_by_value, reason = "only tests use it")]

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use halley_protocol::login::Login;
use halley_protocol::packet::header;
use halley_protocol::push;
use halley_protocol::websocket::handshake;

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
}

impl Default for Script {
    fn default() -> Self {
        Self { deliver: |n, _| Delivery::Messages(vec![n]), refuse: |_| false, welcome: |_| true, dies_at: u32::MAX }
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
    /// Streams of the clients that are logged in, with their member; true for WebSocket.
    clients: Mutex<Vec<(TcpStream, i64, bool)>>,
    /// Bodies by number, so that a message can be delivered late or again.
    bodies: Mutex<HashMap<u32, Vec<u8>>>,
    pushes: AtomicU32,
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
    let member = Login::parse(&body).unwrap().mid;
    if (script.welcome)(member) {
        stream.write_all(&header(0, 1, 8, 1))?;
        stay(stream, member, false, shared)?;
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
    let member = Login::parse(&payload[16..]).unwrap().mid;
    if (script.welcome)(member) {
        let mut reply = vec![0x82, 16];
        reply.extend_from_slice(&header(0, 1, 8, 1));
        stream.write_all(&reply)?;
        stay(stream, member, true, shared)?;
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
fn stay(mut stream: TcpStream, member: i64, ws: bool, shared: &Shared) -> io::Result<()> {
    let writer = stream.try_clone()?;
    shared.clients.lock().unwrap().push((writer, member, ws));
    io::copy(&mut stream, &mut io::sink()).map(drop)
}

fn serve_api(stream: TcpStream, shared: &Shared, script: &Script) -> io::Result<()> {
    let mut requests = BufReader::new(stream.try_clone()?);
    loop {
        let mut length = 0;
        let mut line = String::new();
        loop {
            line.clear();
            if requests.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if let Some(value) = line.strip_prefix("Content-Length: ") {
                length = value.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        requests.read_exact(&mut body)?;
        let n = shared.pushes.fetch_add(1, Ordering::Relaxed);
        if n >= script.dies_at {
            return Ok(());
        }
        shared.bodies.lock().unwrap().insert(n, body);
        let refused = (script.refuse)(n);
        if !refused {
            deliver(n, shared, script);
        }
        let answer = r#"{"code":0,"message":""}"#;
        let status = if refused { "503 Busy" } else { "200 OK" };
        write!(&stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{answer}", answer.len())?;
    }
}

fn deliver(n: u32, shared: &Shared, script: &Script) {
    let bodies = shared.bodies.lock().unwrap();
    for (stream, member, ws) in shared.clients.lock().unwrap().iter_mut() {
        let bytes = match (script.deliver)(n, *member) {
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
