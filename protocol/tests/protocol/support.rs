//! Feeds bytes to the frame decoder as a shard would, in reads of any size.

use halley_protocol::websocket::deflate::Inflater;
use halley_protocol::websocket::frame::{Cursor, Event, FrameLimits, FrameReject, Frames};
use halley_protocol::websocket::{MessageKind, Opcode, client};
use proptest::prelude::*;

/// An event with its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    /// What a deflated message holds.
    Deflated(Vec<u8>),
    Ping(Vec<u8>),
    Pong,
    Close(Option<u16>),
}

/// Everything a connection says before its bytes or its good behaviour end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) seen: Vec<Seen>,
    pub(crate) reject: Option<FrameReject>,
}

/// Decodes `stream` in a buffer of exactly the stated size, in reads of `read_bytes` in turn (the last one for the
/// rest), going on after a close as a careless caller would.
pub(crate) fn decode(stream: &[u8], read_bytes: &[usize], limits: FrameLimits) -> Outcome {
    let mut frames = Frames::default();
    let mut buffer = vec![0; limits.buffer_bytes()];
    let mut cursor = Cursor::default();
    let mut seen = Vec::new();
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
            match frames.next(limits, &mut buffer, &mut cursor) {
                Ok(Some(Event::Message { range, deflated: true, .. })) => {
                    let mut out = vec![0; limits.message_bytes_max as usize + 1];
                    match Inflater::default().inflate(&buffer[range], &mut out) {
                        Ok(bytes) => seen.push(Seen::Deflated(out[..bytes].to_vec())),
                        Err(reject) => return Outcome { seen, reject: Some(reject) },
                    }
                }
                Ok(Some(event)) => seen.push(with_bytes(event, &buffer)),
                Ok(None) => break,
                Err(reject) => {
                    let reject = Some(reject);
                    return Outcome { seen, reject };
                }
            }
            assert!(frames.held() <= cursor.read && cursor.read <= cursor.filled);
        }
        frames.compact(&mut buffer, &mut cursor);
        assert_eq!(cursor.read, frames.held(), "compacted");
    }
    Outcome { seen, reject: None }
}

fn with_bytes(event: Event, buffer: &[u8]) -> Seen {
    match event {
        Event::Message { kind, range, .. } => match kind {
            MessageKind::Text => Seen::Text(buffer[range].to_vec()),
            MessageKind::Binary => Seen::Binary(buffer[range].to_vec()),
        },
        Event::Ping { range } => Seen::Ping(buffer[range].to_vec()),
        Event::Pong => Seen::Pong,
        Event::Close { code } => Seen::Close(code),
    }
}

/// One frame as a client sends it.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) fin: bool,
    pub(crate) opcode: Opcode,
    pub(crate) mask: [u8; 4],
    pub(crate) payload: Vec<u8>,
}

/// The frames on the wire.
pub(crate) fn wire(frames: &[Sent]) -> Vec<u8> {
    let mut out = Vec::new();
    for sent in frames {
        client::frame(&mut out, sent.fin, sent.opcode, sent.mask, &sent.payload);
    }
    out
}

/// A well-behaved conversation: its frames and the events they must give.
pub(crate) fn conversation() -> impl Strategy<Value = (Vec<Sent>, Vec<Seen>)> {
    (prop::collection::vec(message(), 0..6), close()).prop_map(|(messages, close)| {
        let (mut frames, mut seen) = (Vec::new(), Vec::new());
        for (message_frames, message_seen) in messages.into_iter().chain([close]) {
            frames.extend(message_frames);
            seen.extend(message_seen);
        }
        (frames, seen)
    })
}

type Part = (Vec<Sent>, Vec<Seen>);

/// A message in up to five frames with control frames between them.
fn message() -> impl Strategy<Value = Part> {
    let payload = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40).prop_map(|bytes| (false, bytes)),
        prop::collection::vec(any::<u8>(), 100..300).prop_map(|bytes| (false, bytes)),
        "\\PC{0,60}".prop_map(|text| (true, text.into_bytes())),
        "[äöü€𝄞]{0,20}".prop_map(|text| (true, text.into_bytes())),
    ];
    let cuts = prop::collection::vec(any::<prop::sample::Index>(), 0..5);
    let controls = prop::collection::vec(prop::option::of(control()), 5);
    (payload, cuts, controls, any::<[u8; 4]>()).prop_map(|((text, payload), cuts, controls, mask)| {
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(payload.len() + 1)).collect();
        ends.sort_unstable();
        ends.push(payload.len());
        let (mut frames, mut seen, mut start) = (Vec::new(), Vec::new(), 0);
        for (index, &end) in ends.iter().enumerate() {
            let opcode = match (index, text) {
                (0, true) => Opcode::Text,
                (0, false) => Opcode::Binary,
                _ => Opcode::Continuation,
            };
            let fin = index + 1 == ends.len();
            let payload = payload[start..end].to_vec();
            frames.push(Sent { fin, opcode, mask, payload });
            start = end;
            if let (false, Some(Some((frame, event)))) = (fin, controls.get(index)) {
                frames.push(frame.clone());
                seen.push(event.clone());
            }
        }
        seen.push(if text { Seen::Text(payload) } else { Seen::Binary(payload) });
        (frames, seen)
    })
}

fn control() -> impl Strategy<Value = (Sent, Seen)> {
    (any::<bool>(), prop::collection::vec(any::<u8>(), 0..=125), any::<[u8; 4]>()).prop_map(|(ping, payload, mask)| {
        let (opcode, event) =
            if ping { (Opcode::Ping, Seen::Ping(payload.clone())) } else { (Opcode::Pong, Seen::Pong) };
        (Sent { fin: true, opcode, mask, payload }, event)
    })
}

fn close() -> impl Strategy<Value = Part> {
    let code = prop_oneof![1000..=1003_u16, 1007..=1014_u16, 3000..=4999_u16];
    prop::option::of(prop::option::of((code, "\\PC{0,20}"))).prop_map(|close| {
        let Some(close) = close else {
            return (Vec::new(), Vec::new());
        };
        let mut payload = Vec::new();
        if let Some((code, reason)) = &close {
            payload.extend_from_slice(&code.to_be_bytes());
            payload.extend_from_slice(reason.as_bytes());
        }
        let frame = Sent { fin: true, opcode: Opcode::Close, mask: [1, 2, 3, 4], payload };
        (vec![frame], vec![Seen::Close(close.map(|(code, _)| code))])
    })
}

/// Sizes of reads.
pub(crate) fn reads() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        Just(vec![1; 4096]),
        prop::collection::vec(1..8_usize, 0..400),
        prop::collection::vec(1..600_usize, 0..20),
    ]
}

/// Damage to a stream: a few bytes written over, then the end cut off.
pub(crate) fn damage() -> impl Strategy<Value = (Vec<(prop::sample::Index, u8)>, prop::sample::Index)> {
    (prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3), any::<prop::sample::Index>())
}

/// `stream` with the damage done.
pub(crate) fn damaged(
    mut stream: Vec<u8>,
    (writes, end): &(Vec<(prop::sample::Index, u8)>, prop::sample::Index),
) -> Vec<u8> {
    if !stream.is_empty() {
        for (at, byte) in writes {
            let at = at.index(stream.len());
            stream[at] = *byte;
        }
        // Most of the time the whole stream is kept.
        let kept = end.index(stream.len() * 4) + 1;
        stream.truncate(kept);
    }
    stream
}

/// For properties that are cheap to look at; `PROPTEST_CASES` says how many are once.
pub(crate) fn twice_the_cases() -> ProptestConfig {
    let config = ProptestConfig::default();
    ProptestConfig { cases: 2 * config.cases, ..config }
}
