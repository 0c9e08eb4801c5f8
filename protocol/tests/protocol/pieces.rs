//! Messages in pieces: the same whatever the frames and reads, and the same messages as the other decoder sees.

use crate::support::{Outcome, Seen, Sent, conversation, damage, damaged, decode, reads, wire};
use halley_protocol::websocket::frame::{Cursor, FrameLimits, FrameReject};
use halley_protocol::websocket::pieces::{BUFFER_BYTES, PIECE_BYTES, Piece, Pieces};
use halley_protocol::websocket::{MessageKind, Opcode};
use proptest::prelude::*;

const MESSAGE_BYTES_MAX: u32 = 100_000;

/// As `support::decode`, with the pieces joined; `lengths` are those of all pieces.
fn joined(stream: &[u8], read_bytes: &[usize], message_bytes_max: u32) -> (Outcome, Vec<usize>) {
    let (mut pieces, mut cursor, mut buffer) = (Pieces::default(), Cursor::default(), vec![0; BUFFER_BYTES]);
    let (mut seen, mut lengths, mut message) = (Vec::new(), Vec::new(), Vec::new());
    let mut sizes = read_bytes.iter().copied();
    let mut rest = stream;
    while !rest.is_empty() {
        let free = buffer.len() - cursor.filled;
        assert!(free > 0, "a full buffer and nothing to decode");
        let count = sizes.next().unwrap_or(usize::MAX).max(1).min(free).min(rest.len());
        buffer[cursor.filled..cursor.filled + count].copy_from_slice(&rest[..count]);
        cursor.filled += count;
        rest = &rest[count..];
        loop {
            match pieces.next(message_bytes_max, &mut buffer, &mut cursor) {
                Ok(Some(Piece::Data { kind, range, before, last })) => {
                    assert_eq!(before as usize, message.len());
                    lengths.push(range.len());
                    message.extend_from_slice(&buffer[range]);
                    if last {
                        let whole = std::mem::take(&mut message);
                        seen.push(match kind {
                            MessageKind::Text => Seen::Text(whole),
                            MessageKind::Binary => Seen::Binary(whole),
                        });
                    }
                }
                Ok(Some(Piece::Ping { range })) => seen.push(Seen::Ping(buffer[range].to_vec())),
                Ok(Some(Piece::Pong)) => seen.push(Seen::Pong),
                Ok(Some(Piece::Close { code })) => seen.push(Seen::Close(code)),
                Ok(None) => break,
                Err(reject) => return (Outcome { seen, reject: Some(reject) }, lengths),
            }
        }
        pieces.compact(&mut buffer, &mut cursor);
    }
    (Outcome { seen, reject: None }, lengths)
}

/// A message of so many bytes in frames of `frame` bytes.
fn long(text: bool, bytes: usize, frame: usize) -> Vec<Sent> {
    let payload: Vec<u8> = "aß€𝄞".bytes().cycle().take(bytes).collect();
    let starts: Vec<usize> = (0..=bytes.saturating_sub(1) / frame).map(|at| at * frame).collect();
    let sent = starts.iter().enumerate().map(|(at, &start)| Sent {
        fin: at + 1 == starts.len(),
        opcode: match (at, text) {
            (0, true) => Opcode::Text,
            (0, false) => Opcode::Binary,
            _ => Opcode::Continuation,
        },
        mask: [0x11, 0x22, 0x33, 0x44],
        payload: payload[start..bytes.min(start + frame)].to_vec(),
    });
    sent.collect()
}

proptest! {
    #[test]
    fn pieces_make_the_messages_that_the_other_decoder_sees((frames, _) in conversation(), reads in reads()) {
        let stream = wire(&frames);
        prop_assert_eq!(joined(&stream, &reads, 8192).0, decode(&stream, &[], FrameLimits::default()));
    }

    #[test]
    fn damaged_pieces_end_as_with_the_other_decoder(
        (frames, _) in conversation(), damage in damage(), reads in reads(),
    ) {
        let stream = damaged(wire(&frames), &damage);
        let (outcome, _) = joined(&stream, &reads, 8192);
        let other = decode(&stream, &[], FrameLimits::default());
        if let Some(FrameReject::TextNotUtf8) = outcome.reject {
            // Bad text is found before its frame is complete.
            prop_assert!(other.seen.starts_with(&outcome.seen));
        } else {
            prop_assert_eq!(outcome, other);
        }
    }

    #[test]
    fn long_messages_come_in_the_same_pieces_for_any_frames_and_reads(
        text in any::<bool>(), characters in 0..4000_usize, frame in 1..30_000_usize,
        reads in prop::collection::vec(1..20_000_usize, 0..12),
    ) {
        let bytes = characters * 10; // of "aß€𝄞" ten bytes each
        let stream = wire(&long(text, bytes, frame));
        let (outcome, lengths) = joined(&stream, &reads, MESSAGE_BYTES_MAX);
        prop_assert_eq!(outcome.reject, None);
        let whole = long(text, bytes, bytes.max(1)).remove(0).payload;
        prop_assert_eq!(outcome.seen, [if text { Seen::Text(whole) } else { Seen::Binary(whole) }]);
        let last = lengths.len() - 1;
        prop_assert!(lengths[..last].iter().all(|length| *length == PIECE_BYTES));
        prop_assert_eq!(lengths[last], bytes - last * PIECE_BYTES);
    }
}

#[test]
fn bad_text_is_found_where_it_stands_for_any_cut() {
    let mut sent = long(true, 20_000, 7000);
    sent[1].payload[5000] = 0xff;
    let stream = wire(&sent);
    for reads in [vec![], vec![1; 30_000], vec![9000, 3, 1000]] {
        let (outcome, lengths) = joined(&stream, &reads, MESSAGE_BYTES_MAX);
        assert_eq!(outcome.reject, Some(FrameReject::TextNotUtf8));
        assert_eq!(lengths, [PIECE_BYTES], "what comes before the bad byte's piece");
    }
    // Also in the middle of a character that the end of the message cuts off.
    let cut = wire(&long(true, 20_004, 7000));
    assert_eq!(joined(&cut, &[], MESSAGE_BYTES_MAX).0.reject, Some(FrameReject::TextNotUtf8));
}

#[test]
fn a_message_has_a_maximum_whatever_its_frames() {
    for frame in [100_001, 64, 9000] {
        let outcome = |bytes| joined(&wire(&long(false, bytes, frame)), &[], MESSAGE_BYTES_MAX).0;
        assert_eq!(outcome(100_000).reject, None);
        assert_eq!(outcome(100_001).reject, Some(FrameReject::MessageTooBig));
    }
}
