//! WebSocket streams: both of our decoders for any cut, compared with each other and with tungstenite.

use std::io::{self, Read, Write};

use halley_protocol::websocket::frame::{Cursor, Event, FrameLimits, FrameReject, Frames};
use halley_protocol::websocket::pieces::{BUFFER_BYTES, Piece, Pieces};
use halley_protocol::websocket::{MessageKind, client};
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Error, Message, WebSocket};

use crate::{arrivals, cuts};

const LIMITS: FrameLimits = FrameLimits { message_bytes_max: 500, fragments_max: 20, deflate: false };

/// An event with its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong,
    Close(Option<u16>),
}

type Outcome = (Vec<Seen>, Option<FrameReject>);

/// A client's stream of frames.
pub fn frames(data: &[u8]) {
    let (sizes, stream) = cuts(data);
    let ours = decode(stream, &[]);
    assert_eq!(ours, decode(stream, &sizes), "the cut matters");
    let pieces = decode_pieces(stream, &[]);
    assert_eq!(pieces, decode_pieces(stream, &sizes), "the cut matters to pieces");
    match (ours.1, pieces.1) {
        // Pieces do not count fragments, and find bad text before its frame is complete.
        (Some(FrameReject::TooManyFragments), _) => {
            assert!(pieces.0.starts_with(&ours.0) || ours.0.starts_with(&pieces.0));
        }
        (_, Some(FrameReject::TextNotUtf8)) => assert!(ours.0.starts_with(&pieces.0)),
        _ => assert_eq!(ours, pieces, "two decoders"),
    }
    let (theirs, refused) = decode_theirs(stream);
    let seen: Vec<Seen> = ours.0.into_iter().map(in_their_eyes).collect();
    match ours.1 {
        None => assert!(!refused && seen == theirs, "taken: {seen:?}, by tungstenite {theirs:?} {refused}"),
        // Stricter, and earlier by what a header announces; never different before.
        Some(_) => assert!(theirs.starts_with(&seen), "before a reject: {seen:?}, by tungstenite {theirs:?}"),
    }
    let _ = client::decode(stream);
}

fn message(kind: MessageKind, bytes: &[u8]) -> Seen {
    match kind {
        MessageKind::Text => Seen::Text(bytes.to_vec()),
        MessageKind::Binary => Seen::Binary(bytes.to_vec()),
    }
}

/// Reads the stream as a shard does, in a buffer as small as may be.
fn decode(stream: &[u8], sizes: &[usize]) -> Outcome {
    let (mut frames, mut cursor) = (Frames::default(), Cursor::default());
    let mut buffer = vec![0; LIMITS.buffer_bytes()];
    let (mut seen, mut at) = (Vec::new(), 0);
    for end in arrivals(sizes, stream.len()) {
        while at < end {
            at += fill(&mut buffer, &mut cursor, &stream[at..end]);
            loop {
                match frames.next(LIMITS, &mut buffer, &mut cursor) {
                    Ok(Some(event)) => seen.push(match event {
                        Event::Message { kind, range, .. } => message(kind, &buffer[range]),
                        Event::Ping { range } => Seen::Ping(buffer[range].to_vec()),
                        Event::Pong => Seen::Pong,
                        Event::Close { code } => Seen::Close(code),
                    }),
                    Ok(None) => break,
                    Err(reject) => return (seen, Some(reject)),
                }
            }
            frames.compact(&mut buffer, &mut cursor);
        }
    }
    (seen, None)
}

fn decode_pieces(stream: &[u8], sizes: &[usize]) -> Outcome {
    let (mut pieces, mut cursor) = (Pieces::default(), Cursor::default());
    let mut buffer = vec![0; BUFFER_BYTES];
    let (mut seen, mut at, mut whole) = (Vec::new(), 0, Vec::new());
    for end in arrivals(sizes, stream.len()) {
        while at < end {
            at += fill(&mut buffer, &mut cursor, &stream[at..end]);
            loop {
                match pieces.next(LIMITS.message_bytes_max, &mut buffer, &mut cursor) {
                    Ok(Some(Piece::Data { kind, range, before, last })) => {
                        assert_eq!(before as usize, whole.len());
                        whole.extend_from_slice(&buffer[range]);
                        if last {
                            seen.push(message(kind, &std::mem::take(&mut whole)));
                        }
                    }
                    Ok(Some(Piece::Ping { range })) => seen.push(Seen::Ping(buffer[range].to_vec())),
                    Ok(Some(Piece::Pong)) => seen.push(Seen::Pong),
                    Ok(Some(Piece::Close { code })) => seen.push(Seen::Close(code)),
                    Ok(None) => break,
                    Err(reject) => return (seen, Some(reject)),
                }
            }
            pieces.compact(&mut buffer, &mut cursor);
        }
    }
    (seen, None)
}

fn fill(buffer: &mut [u8], cursor: &mut Cursor, stream: &[u8]) -> usize {
    let count = (buffer.len() - cursor.filled).min(stream.len());
    assert!(count > 0, "a full buffer and nothing to decode");
    buffer[cursor.filled..cursor.filled + count].copy_from_slice(&stream[..count]);
    cursor.filled += count;
    count
}

/// A connection in memory: what is written is forgotten.
pub(crate) struct Memory(pub(crate) io::Cursor<Vec<u8>>, pub(crate) Vec<u8>);

impl Read for Memory {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self.0.read(out)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            bytes => Ok(bytes),
        }
    }
}

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.1.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What tungstenite makes of the stream, and whether it found a mistake.
fn decode_theirs(stream: &[u8]) -> (Vec<Seen>, bool) {
    let bytes_max = Some(LIMITS.message_bytes_max as usize);
    let config = WebSocketConfig::default().max_message_size(bytes_max).max_frame_size(bytes_max);
    let memory = Memory(io::Cursor::new(stream.to_vec()), Vec::new());
    let mut socket = WebSocket::from_raw_socket(memory, Role::Server, Some(config));
    let mut seen = Vec::new();
    loop {
        match socket.read() {
            Ok(Message::Text(text)) => seen.push(Seen::Text(text.as_bytes().to_vec())),
            Ok(Message::Binary(bytes)) => seen.push(Seen::Binary(bytes.to_vec())),
            Ok(Message::Ping(bytes)) => seen.push(Seen::Ping(bytes.to_vec())),
            Ok(Message::Pong(_)) => seen.push(Seen::Pong),
            Ok(Message::Close(close)) => seen.push(Seen::Close(close.map(|close| close.code.into()))),
            Ok(Message::Frame(_)) => unreachable!("never read"),
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => return (seen, false),
            Err(Error::ConnectionClosed | Error::AlreadyClosed) => return (seen, false),
            Err(_) => return (seen, true),
        }
    }
}

/// tungstenite does not know 1014, a registered code, and reads it as 1002.
fn in_their_eyes(seen: Seen) -> Seen {
    if seen == Seen::Close(Some(1014)) { Seen::Close(Some(1002)) } else { seen }
}
