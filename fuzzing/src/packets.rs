//! goim packets: for any cut the same, and byte for byte what their fields say.

use halley_protocol::packet::{self, Packet, PacketReject};
use halley_protocol::{client, halley, login::Login, operation, push, v1, websocket};

use crate::{arrivals, cuts};

type Fields = (i16, i32, i32, Vec<u8>);

/// A TCP stream in two cuts, its bodies as everything a body can be, and the whole as a WebSocket message.
pub fn packets(data: &[u8]) {
    let (sizes, stream) = cuts(data);
    let whole = decode(stream, &[], packet::PACKET_BYTES_MAX);
    for bytes_max in [packet::PACKET_BYTES_MAX, v1::PACKET_BYTES_MAX] {
        assert_eq!(decode(stream, &[], bytes_max), decode(stream, &sizes, bytes_max));
    }
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
    translation(stream);
    let _ = v1::user(stream);
}

/// Whatever is taken for pushes, goim v1 gets as many packets of the same lengths, in one frame.
fn translation(stream: &[u8]) {
    let mut buffer = [&[0; v1::HEADROOM][..], stream].concat();
    let start = usize::from(v1::seal(&mut buffer));
    let frame = websocket::client::decode(&buffer[start..]).expect("a sound frame").expect("a whole one");
    assert_eq!((start + frame.payload.start, start + frame.payload.end), (v1::HEADROOM, buffer.len()));
    let inner = &buffer[v1::HEADROOM..];
    assert!(push::packets(stream).eq(push::packets(inner)));
    for range in push::packets(inner) {
        assert_eq!(inner[range.start + 6..range.start + 12], [0, 0, 0, 0, 0, 5]);
        assert_eq!(inner[range.start + 12..range.end], stream[range.start + 12..range.end]);
    }
}

fn decode(stream: &[u8], sizes: &[usize], bytes_max: usize) -> (Vec<Fields>, Option<PacketReject>) {
    let (mut seen, mut start) = (Vec::new(), 0);
    for end in arrivals(sizes, stream.len()) {
        loop {
            match packet::decode_within(&stream[start..end], bytes_max) {
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
