//! The rules of RFC 6455 one by one: what is taken, and which reject answers each mistake.

use crate::support::{Outcome, Seen, Sent, decode, wire};
use halley_protocol::websocket::encode::{
    CONTROL_BYTES_MAX, FRAME_HEADER_BYTES_MAX, close_frame, control_frame, frame_header,
};
use halley_protocol::websocket::frame::{Cursor, Event, FrameLimits, FrameReject, Frames};
use halley_protocol::websocket::{MessageKind, Opcode, client};

const LIMITS: FrameLimits = FrameLimits { message_bytes_max: 8192, fragments_max: 1024, deflate: false };
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

fn sent(fin: bool, opcode: Opcode, payload: &[u8]) -> Sent {
    let payload = payload.to_vec();
    Sent { fin, opcode, mask: MASK, payload }
}

fn outcome(frames: &[Sent]) -> Outcome {
    decode(&wire(frames), &[], LIMITS)
}

/// What the last of `frames` is rejected with; all before it must be good.
#[track_caller]
fn reject_of(frames: &[Sent]) -> FrameReject {
    let (_, before) = frames.split_last().expect("frames");
    assert_eq!(outcome(before).reject, None, "only the last frame is wrong");
    outcome(frames).reject.expect("a reject")
}

/// What raw bytes are rejected with, and that fewer of them are not.
#[track_caller]
fn reject_of_bytes(bytes: &[u8]) -> FrameReject {
    decode(bytes, &[], LIMITS).reject.expect("a reject")
}

#[track_caller]
fn told(reject: FrameReject, expected: FrameReject, code: u16) {
    assert_eq!(reject, expected);
    assert_eq!(reject.close_code(), code);
}

#[test]
fn the_masked_hello_of_the_rfc_is_a_text_message() {
    let bytes = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    assert_eq!(decode(&bytes, &[], LIMITS).seen, [Seen::Text(b"Hello".to_vec())]);
    let mut encoded = Vec::new();
    client::frame(&mut encoded, true, Opcode::Text, MASK, b"Hello");
    assert_eq!(encoded, bytes);
}

#[test]
fn control_frames_between_fragments_are_seen_at_once() {
    let seen = outcome(&[
        sent(false, Opcode::Text, b"Hel"),
        sent(true, Opcode::Ping, b"are you there"),
        sent(false, Opcode::Continuation, b""),
        sent(true, Opcode::Pong, b"unasked"),
        sent(true, Opcode::Continuation, b"lo"),
        sent(true, Opcode::Binary, b"next"),
    ])
    .seen;
    let expected = [
        Seen::Ping(b"are you there".to_vec()),
        Seen::Pong,
        Seen::Text(b"Hello".to_vec()),
        Seen::Binary(b"next".to_vec()),
    ];
    assert_eq!(seen, expected);
}

#[test]
fn a_close_between_fragments_is_seen() {
    let seen = outcome(&[sent(false, Opcode::Text, b"Hel"), sent(true, Opcode::Close, &1001_u16.to_be_bytes())]).seen;
    assert_eq!(seen, [Seen::Close(Some(1001))]);
}

#[test]
fn a_message_in_one_frame_stays_where_it_is() {
    let mut buffer = wire(&[sent(true, Opcode::Binary, b"first"), sent(true, Opcode::Binary, b"second")]);
    let mut frames = Frames::default();
    let mut cursor = Cursor { read: 0, filled: buffer.len() };
    let mut ranges = Vec::new();
    while let Ok(Some(Event::Message { range, .. })) = frames.next(LIMITS, &mut buffer, &mut cursor) {
        ranges.push(range);
    }
    assert_eq!(ranges, [6..11, 17..23]);
}

#[test]
fn every_length_form_is_taken_where_it_is_the_shortest() {
    let limits = FrameLimits { message_bytes_max: 70_000, fragments_max: 1, deflate: false };
    for bytes in [0, 1, 125, 126, 127, 65_535, 65_536, 70_000] {
        let payload: Vec<u8> = (0..=255).cycle().take(bytes).collect();
        let stream = wire(&[sent(true, Opcode::Binary, &payload)]);
        assert_eq!(decode(&stream, &[], limits).seen, [Seen::Binary(payload)], "{bytes} bytes");
    }
}

#[test]
fn an_empty_message_is_a_message() {
    let frames =
        [sent(true, Opcode::Text, b""), sent(false, Opcode::Binary, b""), sent(true, Opcode::Continuation, b"")];
    assert_eq!(outcome(&frames).seen, [Seen::Text(vec![]), Seen::Binary(vec![])]);
}

#[test]
fn the_smallest_stated_buffer_takes_the_longest_message_a_byte_at_a_time() {
    let limits = FrameLimits { message_bytes_max: 300, fragments_max: 3, deflate: false };
    assert_eq!(limits.buffer_bytes(), 300 + 2 + 4 + 125);
    let frames = [
        sent(false, Opcode::Binary, &[1; 300]),
        sent(true, Opcode::Ping, &[2; 125]),
        sent(true, Opcode::Continuation, &[]),
    ];
    // `decode` asserts that the buffer is never full without a frame in it.
    for reads in [vec![1; 600], vec![]] {
        let outcome = decode(&wire(&frames), &reads, limits);
        assert_eq!(outcome.seen, [Seen::Ping(vec![2; 125]), Seen::Binary(vec![1; 300])]);
    }
}

#[test]
fn an_unmasked_frame_is_rejected() {
    told(reject_of_bytes(&[0x82, 0x00]), FrameReject::Unmasked, 1002);
}

#[test]
fn each_reserved_bit_is_rejected() {
    for bit in [0x40, 0x20, 0x10] {
        told(reject_of_bytes(&[0x82 | bit, 0x80]), FrameReject::ReservedBits, 1002);
    }
}

#[test]
fn each_reserved_opcode_is_rejected() {
    for opcode in (3..=7).chain(11..=15) {
        told(reject_of_bytes(&[0x80 | opcode, 0x80]), FrameReject::UnknownOpcode, 1002);
    }
}

#[test]
fn a_fragmented_control_frame_is_rejected() {
    for opcode in [Opcode::Close, Opcode::Ping, Opcode::Pong] {
        told(reject_of(&[sent(false, opcode, b"")]), FrameReject::FragmentedControl, 1002);
    }
}

#[test]
fn a_control_frame_over_125_bytes_is_rejected_by_its_second_byte() {
    for opcode in [8, 9, 10] {
        for length in [126, 127] {
            let reject = reject_of_bytes(&[0x80 | opcode, 0x80 | length]);
            told(reject, FrameReject::ControlTooLong, 1002);
        }
    }
}

#[test]
fn a_continuation_without_a_start_is_rejected() {
    for fin in [true, false] {
        let frames = [sent(true, Opcode::Binary, b"whole"), sent(fin, Opcode::Continuation, b"x")];
        told(reject_of(&frames), FrameReject::ContinuationWithoutStart, 1002);
    }
}

#[test]
fn a_new_message_inside_a_fragmented_one_is_rejected() {
    for opcode in [Opcode::Text, Opcode::Binary] {
        let frames = [sent(false, Opcode::Text, b""), sent(true, opcode, b"x")];
        told(reject_of(&frames), FrameReject::DataInsideMessage, 1002);
    }
}

#[test]
fn a_length_in_more_bytes_than_needed_is_rejected() {
    let sixteen = [0x82, 0xfe, 0, 125];
    let sixty_four = [0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
    told(reject_of_bytes(&sixteen), FrameReject::LengthNotMinimal, 1002);
    told(reject_of_bytes(&sixty_four), FrameReject::LengthNotMinimal, 1002);
}

#[test]
fn a_length_with_its_top_bit_set_is_rejected() {
    let bytes = [0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 1];
    told(reject_of_bytes(&bytes), FrameReject::LengthTopBit, 1002);
}

#[test]
fn a_close_of_one_byte_is_rejected() {
    told(reject_of(&[sent(true, Opcode::Close, &[3])]), FrameReject::ClosePayload, 1002);
}

#[test]
fn every_close_code_is_legal_or_rejected() {
    for code in 0..=u16::MAX {
        let frames = [sent(true, Opcode::Close, &code.to_be_bytes())];
        let legal = [1000..1004, 1007..1015, 3000..5000].iter().any(|codes| codes.contains(&code));
        if legal {
            assert_eq!(outcome(&frames).seen, [Seen::Close(Some(code))]);
        } else {
            told(reject_of(&frames), FrameReject::CloseCode, 1002);
        }
    }
}

#[test]
fn a_close_without_a_code_is_a_close() {
    assert_eq!(outcome(&[sent(true, Opcode::Close, b"")]).seen, [Seen::Close(None)]);
}

#[test]
fn a_close_reason_that_is_not_utf8_is_rejected() {
    let frames = [sent(true, Opcode::Close, b"\x03\xe8good until \xff")];
    told(reject_of(&frames), FrameReject::CloseReasonNotUtf8, 1007);
}

#[test]
fn text_that_is_not_utf8_is_rejected() {
    // Overlong, surrogate, beyond the last character, a lone continuation byte, a character cut off.
    for bad in [&b"\xc0\xaf"[..], b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"a\x80", b"caf\xc3"] {
        told(reject_of(&[sent(true, Opcode::Text, bad)]), FrameReject::TextNotUtf8, 1007);
    }
}

#[test]
fn a_character_may_lie_across_fragments() {
    let text = "κόσμε 𝄞";
    for first in 0..=text.len() {
        for second in first..=text.len() {
            let bytes = text.as_bytes();
            let frames = [
                sent(false, Opcode::Text, &bytes[..first]),
                sent(false, Opcode::Continuation, &bytes[first..second]),
                sent(true, Opcode::Continuation, &bytes[second..]),
            ];
            assert_eq!(outcome(&frames).seen, [Seen::Text(bytes.to_vec())]);
        }
    }
}

#[test]
fn wrong_text_is_rejected_at_the_fragment_that_makes_it_wrong() {
    let frames = [sent(false, Opcode::Text, b"caf\xc3"), sent(false, Opcode::Continuation, b"x")];
    told(reject_of(&frames), FrameReject::TextNotUtf8, 1007);
}

#[test]
fn text_that_ends_inside_a_character_is_rejected_at_its_last_fragment() {
    let frames = [
        sent(false, Opcode::Text, b"caf\xc3"),
        sent(false, Opcode::Continuation, b""),
        sent(true, Opcode::Continuation, b""),
    ];
    told(reject_of(&frames), FrameReject::TextNotUtf8, 1007);
}

#[test]
fn binary_need_not_be_utf8() {
    let frames = [sent(false, Opcode::Binary, b"\xff"), sent(true, Opcode::Continuation, b"\xc3")];
    assert_eq!(outcome(&frames).seen, [Seen::Binary(b"\xff\xc3".to_vec())]);
}

#[test]
fn a_message_over_the_limit_is_rejected_by_its_header() {
    assert_eq!(outcome(&[sent(true, Opcode::Binary, &[0; 8192])]).reject, None);
    let length = [0x82, 0xfe, 0x20, 0x01]; // 8193, and not even the mask
    told(reject_of_bytes(&length), FrameReject::MessageTooBig, 1009);
    let gigantic = [0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    told(reject_of_bytes(&gigantic), FrameReject::MessageTooBig, 1009);
}

#[test]
fn fragments_together_over_the_limit_are_rejected_by_the_header_of_the_last() {
    let mut stream = wire(&[sent(false, Opcode::Binary, &[0; 8192])]);
    assert_eq!(decode(&stream, &[], LIMITS).reject, None);
    stream.extend([0x80, 0x81]); // one byte more
    told(reject_of_bytes(&stream), FrameReject::MessageTooBig, 1009);
}

#[test]
fn a_hundred_thousand_empty_fragments_end_at_the_limit() {
    let mut frames = vec![sent(false, Opcode::Binary, b"")];
    frames.resize(1024, sent(false, Opcode::Continuation, b""));
    frames.push(sent(true, Opcode::Continuation, b""));
    told(reject_of(&frames), FrameReject::TooManyFragments, 1009);
    frames.pop();
    frames.resize(100_000, sent(false, Opcode::Continuation, b""));
    told(outcome(&frames).reject.expect("a reject"), FrameReject::TooManyFragments, 1009);
}

#[test]
fn a_message_of_exactly_as_many_fragments_as_allowed_is_taken_and_counting_begins_anew() {
    let mut frames = vec![sent(false, Opcode::Binary, b"a")];
    frames.resize(1023, sent(false, Opcode::Continuation, b"a"));
    frames.push(sent(true, Opcode::Continuation, b"a"));
    let twice = [frames.clone(), frames].concat();
    assert_eq!(outcome(&twice).seen, [Seen::Binary(vec![b'a'; 1024]), Seen::Binary(vec![b'a'; 1024])]);
}

#[test]
fn bytes_after_a_close_are_rejected() {
    let frames = [sent(true, Opcode::Close, b""), sent(true, Opcode::Ping, b"")];
    told(reject_of(&frames), FrameReject::AfterClose, 1002);
}

#[test]
fn a_connection_stays_rejected() {
    let mut buffer = vec![0x82, 0x00, 0x82, 0x80, 1, 2, 3, 4];
    let mut frames = Frames::default();
    let mut cursor = Cursor { read: 0, filled: 2 };
    assert_eq!(frames.next(LIMITS, &mut buffer, &mut cursor), Err(FrameReject::Unmasked));
    let mut cursor = Cursor { read: 2, filled: 8 };
    assert_eq!(frames.next(LIMITS, &mut buffer, &mut cursor), Err(FrameReject::AfterClose));
}

#[test]
fn a_mask_is_undone_at_every_length_and_offset() {
    for bytes in 0..70_u8 {
        let payload: Vec<u8> = (0..bytes).collect();
        let stream = wire(&[sent(true, Opcode::Binary, &payload)]);
        for (index, byte) in payload.iter().enumerate() {
            assert_eq!(stream[6 + index], byte ^ MASK[index % 4]);
        }
        for before in 0..20 {
            let mut buffer = [vec![0xee; before], stream.clone()].concat();
            let mut cursor = Cursor { read: before, filled: buffer.len() };
            let event = Frames::default().next(LIMITS, &mut buffer, &mut cursor);
            let range = before + 6..before + stream.len();
            let kind = MessageKind::Binary;
            assert_eq!(&buffer[range.clone()], payload);
            assert_eq!(event, Ok(Some(Event::Message { kind, range, deflated: false })));
        }
    }
}

#[test]
fn server_headers_take_the_shortest_form() {
    let mut out = [0; FRAME_HEADER_BYTES_MAX];
    for (payload_bytes, expected) in [
        (0, &[0x82, 0][..]),
        (125, &[0x82, 125]),
        (126, &[0x82, 126, 0, 126]),
        (65_535, &[0x82, 126, 0xff, 0xff]),
        (65_536, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
    ] {
        let bytes = frame_header(&mut out, Opcode::Binary, payload_bytes);
        assert_eq!(&out[..bytes], expected);
    }
}

#[test]
fn a_pong_carries_the_ping() {
    let mut out = [0; CONTROL_BYTES_MAX];
    let bytes = control_frame(Opcode::Pong, &[7; 125], &mut out);
    assert_eq!((bytes, out[0], out[1]), (127, 0x8a, 125));
    assert_eq!(out[2..], [7; 125]);
}

#[test]
fn a_long_close_reason_is_cut_at_a_character() {
    let mut out = [0; CONTROL_BYTES_MAX];
    let bytes = close_frame(Some(1012), &"€".repeat(60), &mut out);
    assert_eq!(bytes, 2 + 2 + 41 * 3);
    assert_eq!(out[2..4], 1012_u16.to_be_bytes());
    assert_eq!(out[4..bytes], *"€".repeat(41).as_bytes());
    assert_eq!(close_frame(None, "unsaid", &mut out), 2);
    assert_eq!(out[..2], [0x88, 0]);
}

#[test]
fn every_reject_has_a_code_that_may_be_sent_and_a_name_of_its_own() {
    let mut names: Vec<&str> = FrameReject::ALL.iter().map(|reject| reject.name()).collect();
    for (index, reject) in FrameReject::ALL.into_iter().enumerate() {
        assert_eq!(reject as usize, index, "in order, none missing");
        assert!(halley_protocol::close::is_legal(reject.close_code()));
    }
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), FrameReject::ALL.len());
}

#[test]
fn what_survives_between_reads_is_eight_bytes() {
    assert_eq!(size_of::<Frames>(), 8);
}
