//! Two requests of Kafka's protocol, since the jars come without Kafka's command-line tools: who is there, and make a topic.
//!
//! Source: the protocol guide of Apache Kafka, Metadata v4 and `CreateTopics` v4.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::Result;

const METADATA: u16 = 3;
const CREATE_TOPICS: u16 = 19;
const VERSION: u16 = 4;
const TOPIC_ALREADY_EXISTS: u16 = 36;
const TIMEOUT: Duration = Duration::from_secs(10);

/// Whether the broker is up and let in: a metadata answer names it.
pub(super) fn serves(port: u16) -> bool {
    // No topics, and none made.
    call(port, METADATA, &[0, 0, 0, 0, 0]).is_some_and(|answer| answer.get(4..8) == Some(&[0, 0, 0, 1]))
}

/// Makes a topic and waits until the broker knows it.
pub(super) fn create_topic(port: u16, name: &str, partitions: u32) -> Result<()> {
    let mut request = vec![0, 0, 0, 1];
    request.extend(string(name));
    request.extend(partitions.to_be_bytes());
    request.extend([0, 1]); // replicas
    request.extend([0; 8]); // no assignment, no configuration
    request.extend(10_000u32.to_be_bytes());
    request.push(0); // not only checked
    let answer = call(port, CREATE_TOPICS, &request).ok_or_else(|| format!("no answer from port {port}"))?;
    // Throttle time, one topic, its name, then the error.
    match answer.get(4 + 4 + 2 + name.len()..).and_then(<[u8]>::first_chunk).map(|code| u16::from_be_bytes(*code)) {
        Some(0 | TOPIC_ALREADY_EXISTS) => known(port, name),
        code => Err(format!("topic {name}: error code {code:?}")),
    }
}

/// The broker's own view follows the controller's by some milliseconds.
fn known(port: u16, name: &str) -> Result<()> {
    let since = Instant::now();
    let mut request = vec![0, 0, 0, 1];
    request.extend(string(name));
    request.push(0);
    while since.elapsed() < TIMEOUT {
        // The topic's entry begins with its error; after it comes its name.
        let entry = [&[0, 0][..], &string(name)].concat();
        let answer = call(port, METADATA, &request).unwrap_or_default();
        if answer.windows(entry.len()).any(|window| window == entry) {
            return Ok(());
        }
        sleep(Duration::from_millis(20));
    }
    Err(format!("topic {name} was made and does not appear"))
}

fn string(text: &str) -> Vec<u8> {
    let bytes = u16::try_from(text.len()).expect("names of topics are short");
    [&bytes.to_be_bytes()[..], text.as_bytes()].concat()
}

/// One request on a connection of its own; the answer behind its correlation id.
fn call(port: u16, key: u16, body: &[u8]) -> Option<Vec<u8>> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream.set_read_timeout(Some(TIMEOUT)).ok()?;
    let mut request = Vec::new();
    request.extend(key.to_be_bytes());
    request.extend(VERSION.to_be_bytes());
    request.extend([0, 0, 0, 7]); // correlation id
    request.extend(string("xtask"));
    request.extend(body);
    stream.write_all(&u32::try_from(request.len()).ok()?.to_be_bytes()).ok()?;
    stream.write_all(&request).ok()?;
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let mut answer = vec![0; usize::try_from(u32::from_be_bytes(length)).ok()?.min(1 << 20)];
    stream.read_exact(&mut answer).ok()?;
    answer.strip_prefix(&[0, 0, 0, 7]).map(<[u8]>::to_vec)
}
