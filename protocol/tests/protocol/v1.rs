//! goim v1's packets byte for byte, and how its words are made of v2's.

use halley_protocol::packet::{self, HEADER_BYTES, PacketReject, header};
use halley_protocol::websocket::client;
use halley_protocol::{push, v1};
use proptest::prelude::*;

/// `{"test":1}` as goim v1 pushes it.
const PACKET: [u8; 26] = *b"\x00\x00\x00\x1a\x00\x10\x00\x00\x00\x00\x00\x05\x00\x00\x00\x00{\"test\":1}";

/// Pushes of goim v2 in a row, as goim v1's clients get them.
fn translated(pushes: &[(i32, &[u8])]) -> (Vec<u8>, usize) {
    let mut buffer = vec![0xee; v1::HEADROOM];
    for (operation, body) in pushes {
        buffer.extend_from_slice(&push::encode(*operation, body).0[push::INNER_START..]);
    }
    let start = usize::from(v1::seal(&mut buffer));
    (buffer, start)
}

#[test]
fn a_push_on_both_transports() {
    let (buffer, start) = translated(&[(1000, br#"{"test":1}"#)]);
    assert_eq!(buffer[v1::HEADROOM..], PACKET);
    assert_eq!(buffer[start..], [&[0x82, 0x1a][..], &PACKET].concat());
}

#[test]
fn a_batch_of_two_has_no_outer_header() {
    let (buffer, start) = translated(&[(1000, br#"{"test":1}"#), (5, br#"{"test":1}"#)]);
    assert_eq!(buffer[start..], [&[0x82, 0x34][..], &PACKET, &PACKET].concat());
}

#[test]
fn a_token_is_a_number_as_go_reads_one() {
    let numbers: [(&[u8], i64); 6] =
        [(b"1", 1), (b"0", 0), (b"-12", -12), (b"+7", 7), (b"007", 7), (b"9223372036854775807", i64::MAX)];
    for (token, number) in numbers {
        assert_eq!(v1::user(token), Some(number));
    }
    for token in [&b""[..], b"one", b" 1", b"1 ", b"1.0", b"0x1", b"1_0", b"9223372036854775808", b"\xff", b"-", b"+"] {
        assert_eq!(v1::user(token), None, "{token:?}");
    }
}

#[test]
fn a_packet_of_a_client_has_at_most_1040_bytes() {
    assert_eq!(v1::PACKET_BYTES_MAX, 1040);
    let packet = |body: usize| [&header(body, 1, v1::SEND, 1)[..], &vec![0; body]].concat();
    let most = packet(1024);
    assert!(packet::decode_within(&most, v1::PACKET_BYTES_MAX).expect("good").is_some());
    assert!(packet::decode_message_within(&most, v1::PACKET_BYTES_MAX).is_ok());
    let more = packet(1025);
    assert_eq!(packet::decode_within(&more, v1::PACKET_BYTES_MAX), Err(PacketReject::TooLong));
    assert_eq!(packet::decode_message_within(&more, v1::PACKET_BYTES_MAX), Err(PacketReject::TooLong));
}

#[test]
fn what_is_no_packet_is_left_as_it_is() {
    for tail in [&[][..], &[7; 15], &[0xff; 16]] {
        let mut buffer = [&[0; v1::HEADROOM][..], &header(0, 1, 1000, 0), tail].concat();
        v1::seal(&mut buffer);
        assert_eq!(buffer[v1::HEADROOM..][..HEADER_BYTES], header(0, 0, 5, 0));
        assert_eq!(buffer.len(), v1::HEADROOM + HEADER_BYTES + tail.len());
    }
    v1::seal(&mut [0; v1::HEADROOM]);
}

proptest! {
    #[test]
    fn every_message_keeps_its_body_and_nothing_else(
        messages in prop::collection::vec((any::<i32>(), prop::collection::vec(any::<u8>(), 0..300)), 1..30),
    ) {
        let pushes: Vec<(i32, &[u8])> = messages.iter().map(|(operation, body)| (*operation, &body[..])).collect();
        let (buffer, start) = translated(&pushes);
        let frame = client::decode(&buffer[start..]).unwrap().expect("a whole frame");
        prop_assert_eq!(start + frame.payload.start, v1::HEADROOM);
        prop_assert_eq!(start + frame.payload.end, buffer.len());
        let inner = &buffer[v1::HEADROOM..];
        let ranges: Vec<_> = push::packets(inner).collect();
        prop_assert_eq!(ranges.len(), pushes.len());
        for (range, (_, body)) in ranges.into_iter().zip(pushes) {
            prop_assert_eq!(&inner[range], &[&header(body.len(), 0, 5, 0)[..], body].concat()[..]);
        }
    }
}
