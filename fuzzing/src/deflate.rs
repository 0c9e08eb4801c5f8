//! Compression: any payload is inflated as another decoder does or refused, and what is deflated comes back as it was.

use std::io::Read as _;

use flate2::read::DeflateDecoder;
use halley_protocol::websocket::client;
use halley_protocol::websocket::deflate::{Deflater, Inflater, TAIL};
use halley_protocol::websocket::frame::{Cursor, Event, FrameLimits, FrameReject, Frames};
use halley_protocol::{deflated, push};

use crate::{arrivals, cuts};

const LIMITS: FrameLimits = FrameLimits { message_bytes_max: 500, fragments_max: 20, deflate: true };

/// The payload of a compressed message, a body of a push, and a client's stream of frames.
pub fn deflate(data: &[u8]) {
    inflates(data);
    comes_back(data);
    let (sizes, stream) = cuts(data);
    assert_eq!(messages(stream, &[]), messages(stream, &sizes), "the cut matters");
}

fn inflates(payload: &[u8]) {
    let mut out = vec![0; LIMITS.message_bytes_max as usize + 1];
    match Inflater::default().inflate(payload, &mut out) {
        Ok(bytes) => {
            assert!(bytes < out.len());
            assert_eq!(theirs(payload), out[..bytes], "another decoder");
        }
        Err(reject) => {
            let known = [FrameReject::NotDeflate, FrameReject::MessageTooBig, FrameReject::TooManyBlocks];
            assert!(known.contains(&reject), "{reject:?}");
        }
    }
}

/// What a decoder makes of the payload that knows nothing of messages: stream by stream.
fn theirs(payload: &[u8]) -> Vec<u8> {
    let input = [payload, &TAIL, &[0x01, 0x00, 0x00, 0xff, 0xff]].concat();
    let (mut rest, mut out) = (&input[..], Vec::new());
    while !rest.is_empty() {
        let mut decoder = DeflateDecoder::new(rest);
        if decoder.read_to_end(&mut out).is_err() {
            // Behind a last block at the end of the payload, what is unsaid is no stream.
            break;
        }
        rest = &rest[usize::try_from(decoder.total_in()).expect("a slice")..];
    }
    out
}

fn comes_back(body: &[u8]) {
    let (mut buffer, _) = push::encode(1000, body);
    let inner = buffer[push::INNER_START..].to_vec();
    let plain = buffer.len();
    let mut pieces = Vec::new();
    if deflated::append(&mut buffer, &mut Deflater::new(1)) {
        pieces.extend_from_slice(deflated::piece(&buffer[plain..]));
    }
    let mut stored = vec![0; deflated::stored_bytes(inner.len())];
    deflated::store(&mut stored, &inner);
    pieces.extend_from_slice(&stored);
    let count = if pieces.len() > stored.len() { 2 } else { 1 };
    let mut frame = vec![0; deflated::frame_bytes(pieces.len()) + TAIL.len()];
    let at = deflated::open(&mut frame, inner.len() * count, pieces.len());
    frame[at..].copy_from_slice(&pieces);
    frame.truncate(frame.len() - TAIL.len());
    let found = client::decode_deflated(&frame).expect("a frame").expect("a whole one");
    assert!(found.deflated && found.payload.end == frame.len());
    assert_eq!(theirs(&frame[found.payload])[16..], inner.repeat(count), "what was pushed");
}

/// What the messages of a stream are, as they arrive, and how it ends.
fn messages(stream: &[u8], sizes: &[usize]) -> (Vec<(bool, Vec<u8>)>, Option<FrameReject>) {
    let (mut frames, mut cursor) = (Frames::default(), Cursor::default());
    let mut buffer = vec![0; LIMITS.buffer_bytes()];
    let (mut seen, mut at) = (Vec::new(), 0);
    for end in arrivals(sizes, stream.len()) {
        while at < end {
            let count = (buffer.len() - cursor.filled).min(end - at);
            buffer[cursor.filled..cursor.filled + count].copy_from_slice(&stream[at..at + count]);
            (cursor.filled, at) = (cursor.filled + count, at + count);
            loop {
                match frames.next(LIMITS, &mut buffer, &mut cursor) {
                    Ok(Some(Event::Message { range, deflated, .. })) => seen.push((deflated, buffer[range].to_vec())),
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(reject) => return (seen, Some(reject)),
                }
            }
            frames.compact(&mut buffer, &mut cursor);
        }
    }
    (seen, None)
}
