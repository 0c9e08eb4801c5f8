//! Packets: each limit, each mistake.

use halley_protocol::packet::{BODY_BYTES_MAX, Packet, PacketReject, decode, decode_message, decode_within, header};
use halley_protocol::websocket::MessageKind;

/// A header with any lengths, followed by `body`.
fn raw(packet_bytes: i32, header_bytes: i16, body: &[u8]) -> Vec<u8> {
    let mut bytes = header(0, 1, 4, 9).to_vec();
    bytes[..4].copy_from_slice(&packet_bytes.to_be_bytes());
    bytes[4..6].copy_from_slice(&header_bytes.to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// TCP and WebSocket judge alike.
#[track_caller]
fn rejected(bytes: &[u8], reject: PacketReject) {
    assert_eq!(decode(bytes), Err(reject));
    assert_eq!(decode_message(bytes), Err(reject));
}

#[test]
fn a_length_below_the_header_is_rejected() {
    for packet_bytes in [i32::MIN, -1, 0, 1, 15] {
        rejected(&raw(packet_bytes, 16, b""), PacketReject::TooShort);
    }
}

#[test]
fn a_body_of_4096_bytes_is_taken_and_one_more_is_rejected_by_its_header() {
    let bytes = raw(4112, 16, &[7; BODY_BYTES_MAX]);
    let packet = Packet { version: 1, operation: 4, sequence: 9, body: &[7; BODY_BYTES_MAX] };
    assert_eq!(decode(&bytes), Ok(Some(packet)));
    assert_eq!(decode_message(&bytes), Ok(packet));
    rejected(&raw(4113, 16, b""), PacketReject::TooLong);
    rejected(&raw(i32::MAX, 16, b""), PacketReject::TooLong);
}

#[test]
fn another_header_length_is_rejected() {
    for header_bytes in [i16::MIN, 0, 15, 17, 0x1000, 0x0110] {
        rejected(&raw(16, header_bytes, b""), PacketReject::HeaderLength);
    }
}

#[test]
fn a_packet_beyond_its_message_is_rejected() {
    let bytes = raw(20, 16, b"abcd");
    for end in 0..bytes.len() {
        assert_eq!(decode_message(&bytes[..end]), Err(PacketReject::BeyondMessage));
    }
    assert_eq!(decode_message(&bytes).map(|packet| packet.body), Ok(&b"abcd"[..]));
}

#[test]
fn bytes_after_the_packet_of_a_message_are_ignored() {
    let bytes = raw(18, 16, b"abcd");
    assert_eq!(decode_message(&bytes).map(|packet| packet.body), Ok(&b"ab"[..]));
}

#[test]
fn a_stream_is_not_judged_before_its_header_is_there() {
    let bytes = raw(-1, 0, b"");
    for end in 0..16 {
        assert_eq!(decode(&bytes[..end]), Ok(None));
    }
}

#[test]
fn clients_read_larger_packets() {
    let body = vec![1; 100_000];
    let bytes = [&header(body.len(), 1, 1000, 0)[..], &body].concat();
    let packet = decode_within(&bytes, 1 << 20).unwrap().unwrap();
    assert_eq!((packet.bytes(), packet.body), (bytes.len(), &body[..]));
    assert_eq!(decode_within(&bytes, 100_000), Err(PacketReject::TooLong));
}

#[test]
fn text_without_a_packet_is_the_wrong_type() {
    let codes = PacketReject::ALL.map(|reject| reject.close_code(MessageKind::Text));
    assert_eq!(codes, [1003; 4]);
    let codes = PacketReject::ALL.map(|reject| reject.close_code(MessageKind::Binary));
    assert_eq!(codes, [1002, 1009, 1002, 1002]);
}

#[test]
fn every_reject_is_listed_in_order_under_a_name_of_its_own() {
    for (index, reject) in PacketReject::ALL.into_iter().enumerate() {
        assert_eq!(reject as usize, index);
    }
    let mut names = PacketReject::ALL.map(PacketReject::name).to_vec();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), PacketReject::ALL.len());
}
