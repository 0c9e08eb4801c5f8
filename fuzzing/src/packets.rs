//! goim packets: for any cut the same, and byte for byte what their fields say.

use halley_protocol::packet::{self, Packet, PacketReject};
use halley_protocol::{client, halley, login::Login, operation, push};

use crate::{arrivals, cuts};

type Fields = (i16, i32, i32, Vec<u8>);

/// A TCP stream in two cuts, its bodies as everything a body can be, and the whole as a WebSocket message.
pub fn packets(data: &[u8]) {
    let (sizes, stream) = cuts(data);
    let whole = decode(stream, &[]);
    assert_eq!(whole, decode(stream, &sizes));
    let mut again = Vec::new();
    for (version, operation, sequence, body) in &whole.0 {
        client::append(&mut again, &Packet { version: *version, operation: *operation, sequence: *sequence, body });
        meanings(body);
    }
    assert!(stream.starts_with(&again), "fields that are not those of the bytes");
    let message = packet::decode_message(stream);
    if let (Ok(message), Some((_, _, _, body))) = (&message, whole.0.first()) {
        assert_eq!(message.body, body);
    }
    assert!(push::packets(stream).count() <= stream.len() / packet::HEADER_BYTES);
}

fn decode(stream: &[u8], sizes: &[usize]) -> (Vec<Fields>, Option<PacketReject>) {
    let (mut seen, mut start) = (Vec::new(), 0);
    for end in arrivals(sizes, stream.len()) {
        loop {
            match packet::decode(&stream[start..end]) {
                Ok(Some(packet)) => {
                    start += packet.bytes();
                    let Packet { version, operation, sequence, body } = packet;
                    seen.push((version, operation, sequence, body.to_vec()));
                }
                Ok(None) => break,
                Err(reject) => return (seen, Some(reject)),
            }
        }
    }
    (seen, None)
}

/// What is read from a body.
fn meanings(body: &[u8]) {
    if let Ok(login) = Login::parse(body) {
        let again = Login::parse(login.to_json().as_bytes()).expect("what is written can be read");
        assert_eq!(again, login);
    }
    let mut numbers = Vec::new();
    if operation::parse_operations(body, |number| numbers.push(number)) {
        let named: Vec<i64> = String::from_utf8_lossy(body).split(',').filter_map(|part| part.parse().ok()).collect();
        assert_eq!(named, numbers.into_iter().map(i64::from).collect::<Vec<_>>());
    }
    let _ = halley::JoinReply::parse(body);
    let _ = halley::LeaveStatus::parse(body);
    let _ = halley::Kick::parse(body);
}
