//! A platform's endpoint for hooks, as good or bad as a test wants it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::Value;

/// What it does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Does {
    /// 200, with this body.
    Say(String),
    /// These bytes, as they are, and then the end.
    Blurt(Vec<u8>),
    /// Nothing, for longer than anybody waits.
    Hang,
}

/// A request that came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// In lower case.
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Asked {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// It serves until the test ends.
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Endpoint {
    pub(crate) fn start(does: impl Fn(&Asked) -> Does + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let (does, heard) = (Arc::new(does), Arc::clone(&asked));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (does, heard) = (Arc::clone(&does), Arc::clone(&heard));
                thread::spawn(move || serve(stream, &*does, &heard));
            }
        });
        Self { address, asked }
    }

    /// One that answers everything with this.
    pub(crate) fn saying(body: &Value) -> Self {
        let body = body.to_string();
        Self::start(move |_| Does::Say(body.clone()))
    }

    /// What came so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("a server that lives").clone()
    }
}

/// An address at which nobody listens.
pub(crate) fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address")
}

fn serve(mut stream: TcpStream, does: &dyn Fn(&Asked) -> Does, heard: &Mutex<Vec<Asked>>) {
    let mut bytes = Vec::new();
    while let Some(asked) = read(&mut stream, &mut bytes) {
        heard.lock().expect("a test that lives").push(asked.clone());
        match does(&asked) {
            Does::Say(body) => {
                let length = body.len();
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
                if stream.write_all(answer.as_bytes()).is_err() {
                    return;
                }
            }
            Does::Blurt(raw) => return drop(stream.write_all(&raw)),
            Does::Hang => return thread::sleep(Duration::from_mins(1)),
        }
    }
}

fn read(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<Asked> {
    loop {
        let text = String::from_utf8_lossy(bytes).into_owned();
        if let Some((head, rest)) = text.split_once("\r\n\r\n") {
            let head = head.to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
            if rest.len() >= length {
                let body = rest[..length].to_owned();
                *bytes = bytes[text.len() - rest.len() + length..].to_vec();
                return Some(Asked { head, body });
            }
        }
        let mut piece = [0; 4096];
        match stream.read(&mut piece) {
            Ok(read @ 1..) => bytes.extend_from_slice(&piece[..read]),
            _ => return None,
        }
    }
}
