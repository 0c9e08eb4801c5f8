//! Clients that come, misbehave and go, and say so when they get what they must not.
use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use halley_protocol::{
    client as packets, operation,
    packet::decode_within,
    push,
    websocket::{Opcode, client as websocket},
};

use super::{ROOMS, SERVER_ADDRESS, proxy, server};

/// Clients at a time; the server takes fewer.
const CLIENTS: u64 = 700;
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const PACKET_BYTES_MAX: usize = 1 << 20;

/// xorshift64.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// What all clients have seen.
#[derive(Default)]
struct Seen {
    connects: AtomicU64,
    logins: AtomicU64,
    pushes: AtomicU64,
    violations: Mutex<Vec<String>>,
    over: AtomicBool,
}

/// Runs until standard input ends.
pub(crate) fn run() -> bool {
    let seen = Seen::default();
    std::thread::scope(|scope| {
        for seed in 1..=CLIENTS {
            let seen = &seen;
            let life = move || {
                let mut dice = Dice::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
                while !seen.over.load(Ordering::Relaxed) {
                    if live(seen, &mut dice).is_none() {
                        std::thread::sleep(Duration::from_millis(50 + dice.below(200)));
                    }
                }
            };
            std::thread::Builder::new().stack_size(128 << 10).spawn_scoped(scope, life).expect("a thread");
        }
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        seen.over.store(true, Ordering::Relaxed);
    });
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    println!(
        "{} connections, {} logins, {} messages received",
        count(&seen.connects),
        count(&seen.logins),
        count(&seen.pushes)
    );
    let violations = seen.violations.lock().expect("nobody panicked");
    violations.iter().take(20).for_each(|violation| println!("VIOLATION {violation}"));
    // Nothing was shown if nobody got in.
    count(&seen.pushes) > 0
}

/// The connection is to end.
struct Over;

struct Client<'a> {
    stream: TcpStream,
    websocket: bool,
    bytes: Vec<u8>,
    /// The room, and the last number heard in it.
    room: u64,
    last: Option<u64>,
    seen: &'a Seen,
}

/// One connection from its beginning to its end; `None` when it broke.
fn live(seen: &Seen, dice: &mut Dice) -> Option<()> {
    let (port, websocket) = [(server::TCP_PORT, false), (server::WS_PORT, true), (proxy::PORT, false)]
        [usize::try_from(dice.below(3)).unwrap_or(0)];
    let address = SocketAddr::new(SERVER_ADDRESS.parse().ok()?, port);
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(2)).ok()?;
    stream.set_nodelay(true).ok()?;
    stream.set_write_timeout(Some(Duration::from_secs(2))).ok()?;
    seen.connects.fetch_add(1, Ordering::Relaxed);
    if dice.below(8) == 0 {
        return Some(()); // gone at once
    }
    let mut client = Client { stream, websocket, bytes: Vec::new(), room: dice.below(ROOMS), last: None, seen };
    client.enter(dice)?;
    seen.logins.fetch_add(1, Ordering::Relaxed);
    let until = Instant::now() + Duration::from_millis(dice.below(3000));
    while Instant::now() < until && !seen.over.load(Ordering::Relaxed) {
        match dice.below(10) {
            0 => client.say(operation::HEARTBEAT, b"")?,
            1 => client.move_to(dice.below(ROOMS))?,
            2 => std::thread::sleep(Duration::from_millis(dice.below(1500))), // reads nothing
            _ => client.read(Duration::from_millis(50))?,
        }
    }
    client.leave(dice)
}

impl Client<'_> {
    fn enter(&mut self, dice: &mut Dice) -> Option<()> {
        if self.websocket {
            self.stream.write_all(websocket::request("torture", "/sub", KEY).as_bytes()).ok()?;
            loop {
                match websocket::response(&self.bytes, KEY) {
                    Ok(Some(bytes)) => break drop(self.bytes.drain(..bytes)),
                    Ok(None) => self.fill(Duration::from_secs(8))?,
                    Err(_) => return None, // 503 while it drains
                }
            }
        }
        let login = format!(r#"{{"room_id":"torture://{}"}}"#, self.room);
        let bytes = self.framed(operation::AUTH, login.as_bytes());
        let cut = usize::try_from(dice.below(bytes.len() as u64)).unwrap_or(0);
        self.stream.write_all(&bytes[..cut]).ok()?;
        self.stream.write_all(&bytes[cut..]).ok()?;
        self.until(operation::AUTH_REPLY)
    }

    fn move_to(&mut self, room: u64) -> Option<()> {
        self.say(operation::CHANGE_ROOM, format!("torture://{room}").as_bytes())?;
        // Until the reply both rooms may be heard; what was heard of the old one is over.
        self.until(operation::CHANGE_ROOM_REPLY)?;
        if room != self.room {
            (self.room, self.last) = (room, None);
        }
        Some(())
    }

    fn leave(&mut self, dice: &mut Dice) -> Option<()> {
        match dice.below(3) {
            0 => self.stream.shutdown(Shutdown::Write).ok(),
            1 => self.stream.write_all(&self.framed(1000, b"half")[..9]).ok(),
            _ => Some(()),
        }
    }

    fn framed(&self, operation: i32, body: &[u8]) -> Vec<u8> {
        let packet = packets::packet(operation, 1, body);
        if !self.websocket {
            return packet;
        }
        let mut frame = Vec::new();
        websocket::frame(&mut frame, true, Opcode::Binary, [1, 2, 3, 4], &packet);
        frame
    }

    fn say(&mut self, operation: i32, body: &[u8]) -> Option<()> {
        self.stream.write_all(&self.framed(operation, body)).ok()
    }

    fn fill(&mut self, time: Duration) -> Option<()> {
        self.stream.set_read_timeout(Some(time)).ok()?;
        let mut bytes = [0; 8192];
        let read = self.stream.read(&mut bytes).ok().filter(|read| *read > 0)?;
        self.bytes.extend_from_slice(&bytes[..read]);
        Some(())
    }

    /// Reads what comes within this time.
    fn read(&mut self, time: Duration) -> Option<()> {
        self.stream.set_read_timeout(Some(time)).ok()?;
        let mut bytes = [0; 8192];
        match self.stream.read(&mut bytes) {
            Ok(0) => return None,
            Ok(read) => self.bytes.extend_from_slice(&bytes[..read]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return None,
        }
        while self.next(None).ok()?.is_some() {}
        Some(())
    }

    /// Reads until the reply with this operation.
    fn until(&mut self, reply: i32) -> Option<()> {
        loop {
            match self.next(Some(reply)).ok()? {
                Some(operation) if operation == reply => return Some(()),
                Some(_) => {}
                None => self.fill(Duration::from_secs(8))?,
            }
        }
    }

    /// The operation of the next packet that is there; judges pushes.
    fn next(&mut self, awaited: Option<i32>) -> Result<Option<i32>, Over> {
        if !self.websocket {
            return Ok(match decode_within(&self.bytes, PACKET_BYTES_MAX) {
                Ok(None) => None,
                Ok(Some(packet)) => {
                    let (operation, body, bytes) = (packet.operation, packet.body.to_vec(), packet.bytes());
                    self.bytes.drain(..bytes);
                    self.judge(operation, &body, awaited);
                    Some(operation)
                }
                Err(reject) => return Err(self.violated(&format!("a torn stream: {reject:?}"))),
            });
        }
        let Ok(frame) = websocket::decode(&self.bytes) else { return Err(self.violated("a torn frame")) };
        let Some(frame) = frame else { return Ok(None) };
        let payload = self.bytes[frame.payload.clone()].to_vec();
        self.bytes.drain(..frame.payload.end);
        if frame.opcode != Opcode::Binary {
            return Err(Over); // a close
        }
        let Ok(Some(outer)) = decode_within(&payload, PACKET_BYTES_MAX) else {
            return Err(self.violated("a message without a packet"));
        };
        if outer.operation != operation::RAW {
            return Ok(Some(outer.operation));
        }
        for range in push::packets(outer.body) {
            match decode_within(&outer.body[range], PACKET_BYTES_MAX) {
                Ok(Some(inner)) => self.judge(inner.operation, inner.body, awaited),
                _ => return Err(self.violated("a torn batch")),
            }
        }
        Ok(Some(operation::RAW))
    }

    /// A push must be of this room, and newer than the one before.
    fn judge(&mut self, operation: i32, body: &[u8], awaited: Option<i32>) {
        if operation != 1000 {
            return;
        }
        self.seen.pushes.fetch_add(1, Ordering::Relaxed);
        let text = String::from_utf8_lossy(body).into_owned();
        let Some((room, number)) = text
            .strip_prefix("torture://")
            .and_then(|rest| rest.split_once(' '))
            .and_then(|(room, number)| Some((room.parse::<u64>().ok()?, number.parse::<u64>().ok()?)))
        else {
            self.violated(&format!("a message that nobody sent: {text}"));
            return;
        };
        if room != self.room {
            if awaited != Some(operation::CHANGE_ROOM_REPLY) {
                self.violated(&format!("in room {} a message of room {room}", self.room));
            }
            return;
        }
        if self.last.is_some_and(|last| last >= number) {
            self.violated(&format!("in room {room} {number} behind {:?}", self.last));
        }
        self.last = Some(number);
    }

    fn violated(&self, what: &str) -> Over {
        self.seen.violations.lock().expect("nobody panicked").push(what.to_owned());
        Over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a client in room 1 complains of when it gets these messages.
    fn complaints(texts: &[&str]) -> usize {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let seen = Seen::default();
        let bytes = texts.iter().flat_map(|text| packets::packet(1000, 0, text.as_bytes())).collect();
        let mut client = Client { stream, websocket: false, bytes, room: 1, last: None, seen: &seen };
        while let Ok(Some(_)) = client.next(None) {}
        seen.violations.lock().unwrap().len()
    }

    #[test]
    fn a_client_complains_of_strangers_rooms_repeats_and_what_nobody_sent() {
        assert_eq!(complaints(&["torture://1 5", "torture://1 13"]), 0);
        assert_eq!(complaints(&["torture://1 5", "torture://1 5"]), 1);
        assert_eq!(complaints(&["torture://1 5", "torture://1 4"]), 1);
        assert_eq!(complaints(&["torture://2 5"]), 1);
        assert_eq!(complaints(&["torture://1 ", "hello"]), 2);
    }
}
