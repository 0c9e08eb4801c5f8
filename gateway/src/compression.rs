//! Compression of pushes: each is deflated once, by the thread that dispatches it, for all who can read it so.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use halley_protocol::websocket::deflate::Deflater;

use crate::payload::{Note, Payload};

/// The one compressor of a process. Two threads dispatch at most, and seldom both.
pub struct Compression {
    deflater: Mutex<Leveled>,
    bytes_min: AtomicUsize,
    counts: Counts,
}

struct Leveled {
    level: u8,
    deflater: Deflater,
}

/// What has become of the pushes that were to be deflated.
#[derive(Debug, Default)]
struct Counts {
    smaller: AtomicU64,
    kept: AtomicU64,
    in_bytes: AtomicU64,
    out_bytes: AtomicU64,
}

/// The same, read once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deflated {
    /// Pushes that became smaller.
    pub smaller: u64,
    /// Pushes that would not have.
    pub kept: u64,
    /// Bytes that were deflated, of either.
    pub in_bytes: u64,
    /// Bytes of those that became smaller, as they are sent.
    pub out_bytes: u64,
}

impl Compression {
    /// A compressor of this level, for pushes with at least so many bytes of body.
    pub fn new(level: u8, bytes_min: usize) -> Self {
        let deflater = Mutex::new(Leveled { level, deflater: Deflater::new(level) });
        Self { deflater, bytes_min: AtomicUsize::new(bytes_min), counts: Counts::default() }
    }

    /// Another level and bound from now on.
    pub fn set(&self, level: u8, bytes_min: usize) {
        self.bytes_min.store(bytes_min, Ordering::Relaxed);
        let mut of = self.deflater.lock().unwrap_or_else(PoisonError::into_inner);
        if of.level != level {
            *of = Leveled { level, deflater: Deflater::new(level) };
        }
    }

    /// Whether a push of so many bytes is worth it.
    pub fn wants(&self, body_bytes: usize) -> bool {
        body_bytes >= self.bytes_min.load(Ordering::Relaxed)
    }

    /// Encodes a push, deflated beside what others get if that is smaller.
    pub fn encode(&self, operation: i32, body: &[u8], note: Note) -> Payload {
        let payload = {
            let mut of = self.deflater.lock().unwrap_or_else(PoisonError::into_inner);
            Payload::encode_deflated(operation, body, note, &mut of.deflater)
        };
        let add = |to: &AtomicU64, n: usize| _ = to.fetch_add(n as u64, Ordering::Relaxed);
        add(&self.counts.in_bytes, payload.inner().len());
        match payload.deflated() {
            Some(frame) => {
                add(&self.counts.smaller, 1);
                add(&self.counts.out_bytes, frame.len());
            }
            None => add(&self.counts.kept, 1),
        }
        payload
    }

    /// What has become of the pushes so far.
    pub fn counts(&self) -> Deflated {
        let Counts { smaller, kept, in_bytes, out_bytes } = &self.counts;
        let [smaller, kept, in_bytes, out_bytes] =
            [smaller, kept, in_bytes, out_bytes].map(|count| count.load(Ordering::Relaxed));
        Deflated { smaller, kept, in_bytes, out_bytes }
    }
}
