//! Compression as RFC 7692 has it: its examples, any cut, and what is no deflate at all.

use crate::support::{Outcome, Seen, decode, reads};
use halley_protocol::packet::{self, HEADER_BYTES};
use halley_protocol::websocket::deflate::{BLOCKS_MAX, Deflater, Inflater, LEVELS, TAIL};
use halley_protocol::websocket::frame::{FrameLimits, FrameReject};
use halley_protocol::websocket::{Opcode, client};
use halley_protocol::{deflated, push};
use proptest::prelude::*;

const LIMITS: FrameLimits = FrameLimits { message_bytes_max: 8192, fragments_max: 1024, deflate: true };
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
/// "Hello" in RFC 7692 7.2.3.1.
const HELLO: [u8; 7] = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];

fn inflate(payload: &[u8]) -> Result<Vec<u8>, FrameReject> {
    let mut out = vec![0; LIMITS.message_bytes_max as usize + 1];
    let bytes = Inflater::default().inflate(payload, &mut out)?;
    out.truncate(bytes);
    Ok(out)
}

/// The payload of a message that holds `plain`.
fn deflate(plain: &[u8]) -> Vec<u8> {
    let mut deflater = Deflater::new(6);
    let piece = deflater.piece(plain, plain.len() + 100).expect("room");
    piece.strip_suffix(&TAIL).expect("a tail").to_vec()
}

#[test]
fn the_messages_of_the_rfc_say_hello() {
    let stored = [0x00, 0x05, 0x00, 0xfa, 0xff, b'H', b'e', b'l', b'l', b'o', 0x00];
    let last_block = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00];
    let two_blocks = [0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00];
    for payload in [&HELLO[..], &stored, &last_block, &two_blocks] {
        assert_eq!(inflate(payload), Ok(b"Hello".to_vec()), "{payload:x?}");
    }
    assert_eq!(inflate(&[0x00]), Ok(Vec::new()), "an empty message");
    assert_eq!(inflate(&last_block[..7]), Ok(b"Hello".to_vec()), "a last block at the end of the message");
    assert_eq!(deflate(b"Hello"), HELLO, "and is said as there");
}

#[test]
fn nothing_is_kept_between_two_messages() {
    let mut inflater = Inflater::default();
    let mut out = [0; 100];
    // The second "Hello" of RFC 7692 7.2.3.2 refers to the first.
    let second = [0xf2, 0x00, 0x11, 0x00, 0x00];
    assert_eq!(inflater.inflate(&HELLO, &mut out), Ok(5));
    assert_eq!(inflater.inflate(&second, &mut out), Err(FrameReject::NotDeflate));
    assert_eq!(inflater.inflate(&HELLO, &mut out), Ok(5), "a broken message leaves nothing behind");
    assert_eq!(&out[..5], b"Hello");
}

#[test]
fn what_is_no_deflate_is_told_apart_wherever_it_breaks_off() {
    let payload = deflate(&(0..200_u8).flat_map(|n| [n, n, b'x']).collect::<Vec<_>>());
    for end in 0..payload.len() {
        assert_eq!(inflate(&payload[..end]), Err(FrameReject::NotDeflate), "{end} of {} bytes", payload.len());
    }
    for broken in [&[0xff][..], &[0x06], &[0x00, 0x05, 0x00, 0xfa, 0xfe], &[0xf2, 0x48]] {
        assert_eq!(inflate(broken), Err(FrameReject::NotDeflate), "{broken:x?}");
    }
}

#[test]
fn a_message_may_inflate_to_the_most_bytes_and_not_to_one_more() {
    assert!(inflate(&deflate(&[7; 8192])) == Ok(vec![7; 8192]));
    assert_eq!(inflate(&deflate(&[7; 8193])), Err(FrameReject::MessageTooBig));
    let bomb = deflate(&vec![0; 16 << 20]);
    assert_eq!(inflate(&bomb[..8000]), Err(FrameReject::MessageTooBig), "a bomb that fits a message");
}

#[test]
fn blocks_have_a_maximum() {
    // An empty block of fixed codes is ten bits: a few bytes of them cost as much as a whole message.
    let empty_blocks = |blocks: usize| {
        let mut bytes = vec![0; (blocks * 10 + 3).div_ceil(8)];
        (0..blocks).for_each(|block| bytes[(block * 10 + 1) / 8] |= 1 << ((block * 10 + 1) % 8));
        bytes
    };
    let most = BLOCKS_MAX as usize;
    assert_eq!(inflate(&empty_blocks(most / 2)), Ok(Vec::new()));
    assert_eq!(inflate(&empty_blocks(most + 1)), Err(FrameReject::TooManyBlocks));
    assert_eq!(inflate(&[0x03, 0x00].repeat(4000)), Err(FrameReject::TooManyBlocks), "last blocks count too");
}

#[test]
fn what_compressors_make_of_the_longest_message_has_few_enough_blocks() {
    // The smallest memory that zlib can be given makes the most blocks, of bytes that do not compress.
    let mut seed = 1_u32;
    let noise = std::iter::repeat_with(|| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        seed.to_be_bytes()[0]
    });
    let noise: Vec<u8> = noise.take(8192).collect();
    for level in 1..=9 {
        for mem_level in [1, 8, 9] {
            let config = zlib_rs::DeflateConfig { level, mem_level, window_bits: -15, ..Default::default() };
            let mut out = vec![0; 20_000];
            let mut state = zlib_rs::Deflate::new_with_config(config);
            state.compress(&noise, &mut out, zlib_rs::DeflateFlush::SyncFlush).expect("room");
            let bytes = usize::try_from(state.total_out()).expect("small");
            assert!(inflate(&out[..bytes - 4]).as_deref() == Ok(&noise[..]), "level {level}, memory {mem_level}");
        }
    }
}

fn outcome(stream: &[u8]) -> Outcome {
    decode(stream, &[], LIMITS)
}

#[test]
fn a_deflated_message_is_marked_on_its_first_frame_alone() {
    let mut stream = Vec::new();
    client::deflated_frame(&mut stream, false, Opcode::Text, MASK, &HELLO[..3]);
    client::frame(&mut stream, true, Opcode::Ping, MASK, b"between");
    client::frame(&mut stream, true, Opcode::Continuation, MASK, &HELLO[3..]);
    client::frame(&mut stream, true, Opcode::Text, MASK, b"plain");
    client::deflated_frame(&mut stream, true, Opcode::Binary, MASK, &HELLO);
    let seen = [
        Seen::Ping(b"between".to_vec()),
        Seen::Deflated(b"Hello".to_vec()),
        Seen::Text(b"plain".to_vec()),
        Seen::Deflated(b"Hello".to_vec()),
    ];
    assert_eq!(outcome(&stream), Outcome { seen: seen.to_vec(), reject: None });
    let unagreed = decode(&stream, &[], FrameLimits { deflate: false, ..LIMITS });
    assert_eq!(unagreed.reject, Some(FrameReject::ReservedBits), "without compression agreed on");
}

#[test]
fn the_mark_is_refused_everywhere_else() {
    for opcode in [Opcode::Ping, Opcode::Pong, Opcode::Close] {
        let mut stream = Vec::new();
        client::deflated_frame(&mut stream, true, opcode, MASK, b"");
        assert_eq!(outcome(&stream).reject, Some(FrameReject::ReservedBits), "{opcode:?}");
    }
    let mut stream = Vec::new();
    client::deflated_frame(&mut stream, false, Opcode::Binary, MASK, &HELLO[..3]);
    client::deflated_frame(&mut stream, true, Opcode::Continuation, MASK, &HELLO[3..]);
    assert_eq!(outcome(&stream).reject, Some(FrameReject::ReservedBits), "a continuation");
    for bits in [0x20, 0x10] {
        assert_eq!(outcome(&[0x82 | bits, 0x80]).reject, Some(FrameReject::ReservedBits), "other bits");
    }
}

/// What a client with compression reads of a frame that the server sent.
fn read(frame: &[u8]) -> Vec<(i32, Vec<u8>)> {
    let found = client::decode_deflated(frame).expect("a frame").expect("a whole one");
    assert!(found.deflated && found.fin && found.opcode == Opcode::Binary && found.payload.end == frame.len());
    let mut out = vec![0; 4 << 20];
    // A client need not count blocks.
    let mut stream = frame[found.payload].to_vec();
    stream.extend_from_slice(&TAIL);
    let mut state = zlib_rs::Inflate::new(false, 15);
    state.decompress(&stream, &mut out, zlib_rs::InflateFlush::SyncFlush).expect("deflate");
    assert_eq!(state.total_in(), stream.len() as u64);
    out.truncate(usize::try_from(state.total_out()).expect("small"));
    let outer = packet::decode_within(&out, 1 << 24).expect("a packet").expect("a whole one");
    assert_eq!(outer.bytes(), out.len());
    let inner = push::packets(outer.body).map(|range| {
        let inner = packet::decode_within(&outer.body[range], 1 << 24).expect("a packet").expect("a whole one");
        (inner.operation, inner.body.to_vec())
    });
    inner.collect()
}

#[test]
fn a_push_of_every_level_is_one_smaller_frame_or_none() {
    let text = "{\"user\":\"a name\",\"text\":\"the same again and again\"}".repeat(3);
    for level in LEVELS {
        let mut deflater = Deflater::new(level);
        for bytes in [text.len(), 200_000, 1 << 20] {
            let body: Vec<u8> = text.bytes().cycle().take(bytes).collect();
            let (mut buffer, start) = push::encode(1000, &body);
            let plain = buffer.len();
            assert!(deflated::append(&mut buffer, &mut deflater));
            let frame = &buffer[plain..buffer.len() - TAIL.len()];
            assert!(frame.len() < plain - usize::from(start));
            assert!(read(frame) == [(1000, body)], "level {level}, {bytes} bytes");
        }
        let (mut buffer, _) = push::encode(1000, b"too short");
        let plain = buffer.clone();
        assert!(!deflated::append(&mut buffer, &mut deflater));
        assert_eq!(buffer, plain, "nothing is appended");
    }
}

#[test]
fn pieces_join_in_any_row_whether_deflated_or_stored() {
    let bodies = [vec![b'a'; 300], b"short".to_vec(), vec![b'b'; 70_000], Vec::new(), vec![b'a'; 300]];
    let mut deflater = Deflater::new(6);
    let mut pieces = Vec::new();
    let mut inner_bytes = 0;
    for (at, body) in bodies.iter().enumerate() {
        let (mut buffer, _) = push::encode(1000, body);
        let inner = buffer[push::INNER_START..].to_vec();
        inner_bytes += inner.len();
        let plain = buffer.len();
        if at != 2 && deflated::append(&mut buffer, &mut deflater) {
            pieces.extend_from_slice(deflated::piece(&buffer[plain..]));
        } else {
            let mut stored = vec![0; deflated::stored_bytes(inner.len())];
            assert_eq!(deflated::store(&mut stored, &inner), stored.len());
            pieces.extend_from_slice(&stored);
        }
    }
    let mut frame = vec![0; deflated::frame_bytes(pieces.len())];
    let at = deflated::open(&mut frame, inner_bytes, pieces.len());
    frame[at..].copy_from_slice(&pieces[..pieces.len() - TAIL.len()]);
    let read: Vec<_> = read(&frame).into_iter().map(|(_, body)| body).collect();
    assert!(read == bodies);
    assert!(HEADER_BYTES * 5 < inner_bytes);
}

proptest! {
    #[test]
    fn a_deflated_message_is_the_same_for_any_cut(
        plain in prop::collection::vec(0..4_u8, 0..600), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        reads in reads(),
    ) {
        let payload = deflate(&plain);
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(payload.len() + 1)).collect();
        ends.sort_unstable();
        ends.push(payload.len());
        let (mut stream, mut start) = (Vec::new(), 0);
        for (at, end) in ends.iter().enumerate() {
            let fin = at + 1 == ends.len();
            match at {
                0 => client::deflated_frame(&mut stream, fin, Opcode::Binary, MASK, &payload[start..*end]),
                _ => client::frame(&mut stream, fin, Opcode::Continuation, MASK, &payload[start..*end]),
            }
            start = *end;
        }
        prop_assert_eq!(decode(&stream, &reads, LIMITS), Outcome { seen: vec![Seen::Deflated(plain)], reject: None });
    }

    #[test]
    fn any_payload_is_a_bounded_message_or_a_reject(payload in prop::collection::vec(any::<u8>(), 0..400)) {
        match inflate(&payload) {
            Ok(plain) => prop_assert!(plain.len() <= 8192),
            Err(reject) => prop_assert!(matches!(reject.close_code(), 1007 | 1009), "{:?}", reject),
        }
    }
}
