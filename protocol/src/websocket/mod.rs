//! RFC 6455, server side: handshake, frames in, frames out, compression (RFC 7692); and a client's half for tests and load.

pub mod client;
pub mod deflate;
pub mod encode;
pub mod extension;
pub mod frame;
pub mod handshake;
pub mod pieces;
mod reject;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// A further piece of the message begun before.
    Continuation = 0,
    /// A text message or its first piece.
    Text = 1,
    /// A binary message or its first piece.
    Binary = 2,
    /// The sender will send nothing more.
    Close = 8,
    /// Asks for a pong with the same payload.
    Ping = 9,
    /// Answers a ping, or comes unasked.
    Pong = 10,
}

impl Opcode {
    /// The opcode in the low four bits of `byte`; `None` for the reserved ones.
    pub const fn from_bits(byte: u8) -> Option<Self> {
        Some(match byte & 0x0f {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }

    /// Close, ping and pong: never fragmented, at most 125 bytes, allowed between fragments.
    pub const fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// Kind of a data message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKind {
    /// Checked to be UTF-8.
    Text,
    /// Any bytes.
    Binary,
}

/// XORs `payload` with `mask`, beginning with its first byte: masks and unmasks.
pub(crate) fn apply_mask(payload: &mut [u8], mask: [u8; 4]) {
    let wide = u128::from(u32::from_ne_bytes(mask)) * 0x0000_0001_0000_0001_0000_0001_0000_0001;
    let mut chunks = payload.chunks_exact_mut(16);
    for chunk in &mut chunks {
        let chunk: &mut [u8; 16] = chunk.try_into().expect("chunks of 16");
        *chunk = (u128::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, key) in chunks.into_remainder().iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}
