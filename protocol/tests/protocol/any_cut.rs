//! For any cut of the byte stream the events are the same, and no bytes make a decoder panic or hang.

use crate::support::{conversation, damage, damaged, decode, reads, twice_the_cases, wire};
use halley_protocol::packet::{self, Packet, PacketReject};
use halley_protocol::websocket::client;
use halley_protocol::websocket::frame::FrameLimits;
use halley_protocol::websocket::handshake::{self, Rules};
use halley_protocol::{login, operation, push};
use proptest::prelude::*;

const SMALL: FrameLimits = FrameLimits { message_bytes_max: 300, fragments_max: 5, deflate: false };

proptest! {
    #![proptest_config(twice_the_cases())]

    #[test]
    fn a_sound_conversation_gives_its_events_for_any_cut((frames, seen) in conversation(), reads in reads()) {
        let outcome = decode(&wire(&frames), &reads, FrameLimits::default());
        prop_assert_eq!(outcome.reject, None);
        prop_assert_eq!(outcome.seen, seen);
    }

    #[test]
    fn a_damaged_conversation_ends_the_same_for_any_cut(
        (frames, _) in conversation(), damage in damage(), reads in reads(), small in any::<bool>(),
    ) {
        let limits = if small { SMALL } else { FrameLimits::default() };
        let stream = damaged(wire(&frames), &damage);
        prop_assert_eq!(decode(&stream, &reads, limits), decode(&stream, &[], limits));
    }

    #[test]
    fn any_bytes_at_all_end_the_same_for_any_cut(
        stream in prop::collection::vec(any::<u8>(), 0..600), reads in reads(),
    ) {
        prop_assert_eq!(decode(&stream, &reads, SMALL), decode(&stream, &[], SMALL));
    }

    #[test]
    fn packets_come_out_as_they_went_in_for_any_cut(
        sent in prop::collection::vec(
            (any::<i16>(), any::<i32>(), any::<i32>(), prop::collection::vec(any::<u8>(), 0..200)), 0..8),
        reads in reads(),
    ) {
        let mut stream = Vec::new();
        for (version, operation, sequence, body) in &sent {
            let packet = Packet { version: *version, operation: *operation, sequence: *sequence, body };
            halley_protocol::client::append(&mut stream, &packet);
        }
        prop_assert_eq!(packets(&stream, &reads), (sent, None));
    }

    #[test]
    fn damaged_packets_end_the_same_for_any_cut(
        bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 1..5),
        damage in damage(), reads in reads(),
    ) {
        let stream = bodies.iter().flat_map(|body| halley_protocol::client::packet(4, 1, body)).collect();
        let stream = damaged(stream, &damage);
        prop_assert_eq!(packets(&stream, &reads), packets(&stream, &[]));
    }

    #[test]
    fn a_handshake_is_judged_the_same_for_any_cut(
        version in prop::sample::select(vec!["13", "12"]), damage in damage(),
        behind in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let request = client::request("localhost", "/sub?a=b", "dGhlIHNhbXBsZSBub25jZQ==");
        let mut stream = damaged(request.replace(": 13", &format!(": {version}")).into_bytes(), &damage);
        stream.extend(behind);
        let rules = Rules { path: "/sub", origins: &[], deflate: false };
        let whole = handshake::parse(&stream, &rules);
        let first = (0..=stream.len())
            .map(|end| handshake::parse(&stream[..end], &rules))
            .find(|judged| *judged != Ok(None))
            .unwrap_or(Ok(None));
        prop_assert_eq!(first, whole);
    }

    #[test]
    fn no_bytes_make_the_other_decoders_panic_or_hang(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = packet::decode_message(&bytes);
        let _ = login::Login::parse(&bytes);
        let _ = operation::parse_operations(&bytes, |_| {});
        let _ = halley_protocol::halley::JoinReply::parse(&bytes);
        let _ = halley_protocol::halley::LeaveStatus::parse(&bytes);
        let _ = halley_protocol::halley::Kick::parse(&bytes);
        let _ = handshake::parse(&bytes, &Rules { path: "/sub", origins: &[], deflate: false });
        let _ = client::decode(&bytes);
        prop_assert!(push::packets(&bytes).count() <= bytes.len() / 16);
    }
}

type Fields = (i16, i32, i32, Vec<u8>);

/// Decodes `stream` as a shard reads a TCP connection.
fn packets(stream: &[u8], read_bytes: &[usize]) -> (Vec<Fields>, Option<PacketReject>) {
    let mut seen = Vec::new();
    let (mut start, mut end) = (0, 0);
    let mut sizes = read_bytes.iter().copied();
    while end < stream.len() {
        end = stream.len().min(end.saturating_add(sizes.next().unwrap_or(usize::MAX).max(1)));
        loop {
            match packet::decode(&stream[start..end]) {
                Ok(Some(packet)) => {
                    let Packet { version, operation, sequence, body } = packet;
                    seen.push((version, operation, sequence, body.to_vec()));
                    start += packet.bytes();
                }
                Ok(None) => break,
                Err(reject) => return (seen, Some(reject)),
            }
        }
    }
    (seen, None)
}
