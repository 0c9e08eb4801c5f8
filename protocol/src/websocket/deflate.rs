//! permessage-deflate (RFC 7692) without context takeover: every message is compressed by itself, so nothing is kept
//! between two of them, and one compressor or decompressor serves any number of connections.

use zlib_rs::{Deflate, DeflateConfig, DeflateFlush, Inflate, InflateFlush, Status};

use super::frame::FrameReject;

/// The end of every deflated message, which stays unsaid: an empty stored block without its first byte.
pub const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

/// Most deflate blocks of a message. A block costs its tables, however little it holds; what compressors make of a
/// message that a client may send has far fewer.
pub const BLOCKS_MAX: u32 = 128;

/// Levels of compression: the fastest, and the one with the smallest messages.
pub const LEVELS: core::ops::RangeInclusive<u8> = 1..=9;

/// The base-2 logarithm of the window. Every message may refer to as much of itself as the format can.
const WINDOW_BITS: u8 = 15;

/// Decompresses whole messages. Memory is taken when it is made, and none after.
pub struct Inflater(Inflate);

impl Default for Inflater {
    fn default() -> Self {
        Self(Inflate::new(false, WINDOW_BITS))
    }
}

impl Inflater {
    /// Writes what the payload of a message holds and returns how many bytes that is. `out` is one byte longer than
    /// the longest message; neither memory nor time depends on how long a message says it is.
    pub fn inflate(&mut self, payload: &[u8], out: &mut [u8]) -> Result<usize, FrameReject> {
        // Behind the unsaid end an empty last block: the message must end where a block begins, and neither says anything.
        const END: [u8; 9] = [0x00, 0x00, 0xff, 0xff, 0x01, 0x00, 0x00, 0xff, 0xff];
        let (mut blocks, mut written) = (0, 0);
        self.0.reset(false);
        for (input, silent) in [(payload, false), (&END, true)] {
            let mut read = 0;
            loop {
                blocks += 1;
                if blocks > BLOCKS_MAX {
                    return Err(FrameReject::TooManyBlocks);
                }
                let before = (self.0.total_in(), self.0.total_out());
                // It stops behind every block, and behind a last one says so when it is asked again.
                let status = self.0.decompress(&input[read..], &mut out[written..], InflateFlush::Block);
                read += since(before.0, self.0.total_in());
                written += since(before.1, self.0.total_out());
                if silent && self.0.total_out() > before.1 {
                    return Err(FrameReject::NotDeflate);
                }
                if written == out.len() {
                    return Err(FrameReject::MessageTooBig);
                }
                match status {
                    Ok(Status::Ok) => {}
                    Ok(Status::StreamEnd) if read == input.len() => return Ok(written),
                    // Behind a last block within the message another stream begins.
                    Ok(Status::StreamEnd) => self.0.reset(false),
                    Ok(Status::BufError) if read == input.len() => break,
                    Ok(Status::BufError) | Err(_) => return Err(FrameReject::NotDeflate),
                }
            }
        }
        Err(FrameReject::NotDeflate)
    }
}

fn since(before: u64, now: u64) -> usize {
    usize::try_from(now - before).unwrap_or(usize::MAX) // at most the length of a slice
}

/// Compresses pieces of messages.
pub struct Deflater {
    state: Deflate,
    out: Vec<u8>,
}

impl Deflater {
    /// A compressor of one of [`LEVELS`].
    pub fn new(level: u8) -> Self {
        let config =
            DeflateConfig { level: level.into(), window_bits: -i32::from(WINDOW_BITS), ..DeflateConfig::default() };
        Self { state: Deflate::new_with_config(config), out: Vec::new() }
    }

    /// Deflates `plain` to blocks of its own, which refer to nothing before them and end, with [`TAIL`], where a byte
    /// ends: such pieces may follow each other in any order. `None`: they would have more than `bytes_max` bytes.
    pub fn piece(&mut self, plain: &[u8], bytes_max: usize) -> Option<&[u8]> {
        // A place more: what fills the room to its last byte may not be all.
        let room = bytes_max + 1;
        if self.out.len() < room {
            self.out.resize(room, 0);
        }
        self.state.reset();
        let status = self.state.compress(plain, &mut self.out[..room], DeflateFlush::SyncFlush);
        let (read, written) = (since(0, self.state.total_in()), since(0, self.state.total_out()));
        let whole = status == Ok(Status::Ok) && read == plain.len() && written < room;
        whole.then(|| &self.out[..written])
    }
}
