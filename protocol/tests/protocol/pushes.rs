//! Pushes: one buffer for both transports, alone and joined.

use halley_protocol::packet::{self, header};
use halley_protocol::push::{HEADROOM, INNER_START, NOTE_BYTES, VERSION, encode, packets, seal};
use halley_protocol::websocket::client;
use halley_protocol::{Packet, operation};
use proptest::prelude::*;

#[test]
fn the_frame_header_lies_right_before_the_outer_header_at_every_length() {
    for (body_bytes, start) in [(0, 8), (93, 8), (94, 6), (65_503, 6), (65_504, 0), (100_000, 0)] {
        let (buffer, seen) = encode(1000, &vec![b'x'; body_bytes]);
        assert_eq!(usize::from(seen), NOTE_BYTES + start, "{body_bytes} bytes");
        let wire = &buffer[usize::from(seen)..];
        let frame = client::decode(wire).unwrap().expect("a whole frame");
        assert_eq!(usize::from(seen) + frame.payload.start, HEADROOM);
        assert_eq!(frame.payload.end, wire.len());
    }
}

#[test]
fn walking_stops_at_what_is_no_whole_packet() {
    let one = header(0, 1, 5, 0);
    for tail in [&[][..], &[0], &one[..15], &[0; 16], &header(1, 1, 5, 0), &[0xff; 16]] {
        let inner = [&one[..], &one, tail].concat();
        assert_eq!(packets(&inner).collect::<Vec<_>>(), [0..16, 16..32], "{tail:?}");
    }
}

proptest! {
    #[test]
    fn a_joined_run_gives_both_transports_the_same_messages(
        messages in prop::collection::vec((any::<i32>(), prop::collection::vec(any::<u8>(), 0..300)), 1..30),
    ) {
        let mut run = vec![0; INNER_START];
        for (operation, body) in &messages {
            run.extend_from_slice(&encode(*operation, body).0[INNER_START..]);
        }
        let start = usize::from(seal(&mut run));

        let frame = client::decode(&run[start..]).unwrap().expect("one frame");
        prop_assert_eq!(start + frame.payload.end, run.len());
        let message = &run[start..][frame.payload];
        let outer = packet::decode_within(message, usize::MAX).unwrap().expect("one packet");
        prop_assert_eq!((outer.version, outer.operation, outer.sequence), (VERSION, operation::RAW, 0));
        prop_assert_eq!(outer.bytes(), message.len());
        prop_assert_eq!(outer.body, &run[INNER_START..]);

        let seen: Vec<_> = packets(outer.body)
            .map(|range| packet::decode_within(&outer.body[range], usize::MAX).unwrap().unwrap())
            .collect();
        let expected: Vec<_> = messages
            .iter()
            .map(|(operation, body)| Packet { version: 1, operation: *operation, sequence: 0, body })
            .collect();
        prop_assert_eq!(seen, expected);
    }
}
