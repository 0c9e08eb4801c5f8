//! Records of a TLS connection after its handshake, sealed and opened in place: RFC 8446 and RFC 5246 with AEAD.
//!
//! ```text
//! TLS 1.3             17 0303 length | sealed( data, content type, zeros ), tag 16
//! TLS 1.2, AES-GCM    content 0303 length | nonce 8 | sealed( data ), tag 16
//! TLS 1.2, ChaCha20   content 0303 length | sealed( data ), tag 16
//! ```

use std::ops::Range;

use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use rustls::kernel::KernelConnection;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::{ConnectionTrafficSecrets, ProtocolVersion};

/// Bytes of a record's header.
pub(super) const HEADER_BYTES: usize = 5;

/// Bytes of data in a record.
pub(super) const PLAIN_BYTES_MAX: usize = 1 << 14;

/// Bytes of a record behind its header, in the version that allows more.
pub(super) const BODY_BYTES_MAX: usize = PLAIN_BYTES_MAX + 2048;

/// The same in TLS 1.3.
const BODY_BYTES_MAX_13: usize = PLAIN_BYTES_MAX + 256;

/// Bytes that sealing adds to a record at most.
const OVERHEAD_BYTES_MAX: usize = HEADER_BYTES + EXPLICIT_BYTES + TAG_BYTES;

/// Bytes of data that are sealed at once: a joined run with its frame header fits.
pub(in crate::shard) const SEAL_PLAIN_BYTES_MAX: usize = 2 * PLAIN_BYTES_MAX;

/// Bytes that this takes, a change of keys before it included.
pub(in crate::shard) const SEAL_BYTES_MAX: usize =
    SEAL_PLAIN_BYTES_MAX + SEAL_PLAIN_BYTES_MAX.div_ceil(PLAIN_BYTES_MAX) * OVERHEAD_BYTES_MAX + 64;

const TAG_BYTES: usize = 16;

/// Bytes of the nonce that an AES-GCM record of TLS 1.2 carries.
const EXPLICIT_BYTES: usize = 8;

/// Records that one key may seal (RFC 8446, 5.5, for AES-GCM; the other cipher would bear more).
#[cfg(test)]
const SEALED_MAX: u64 = 600;
#[cfg(not(test))]
const SEALED_MAX: u64 = 1 << 24;

/// What a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(in crate::shard) enum Content {
    /// An alert.
    Alert = 21,
    /// A message of the handshake protocol, such as a change of keys.
    Handshake = 22,
    /// The connection's data.
    Data = 23,
}

/// What a peer did that ends its connection, by the alert that it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(in crate::shard) enum Fault {
    /// A content, or a message, that may not come now.
    Unexpected = 10,
    /// The record cannot be opened.
    BadRecord = 20,
    /// A record longer than allowed.
    TooLong = 22,
    /// A message that is none.
    Malformed = 50,
    /// TLS 1.2: a new handshake is asked for.
    Renegotiation = 100,
}

/// One direction: its key, and how many records have used it.
struct Half {
    key: LessSafeKey,
    iv: [u8; NONCE_LEN],
    sequence: u64,
}

impl Half {
    fn new((sequence, secrets): (u64, ConnectionTrafficSecrets)) -> Option<Self> {
        let (algorithm, key, iv) = match &secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return None,
        };
        // The key's memory is longer than the shorter keys.
        let key = key.as_ref().get(..algorithm.key_len())?;
        let key = LessSafeKey::new(UnboundKey::new(algorithm, key).ok()?);
        Some(Self { key, iv: iv.as_ref().try_into().ok()?, sequence })
    }

    /// The nonce of the next record: no two records of a key share one, for the sequence only grows.
    fn nonce(&self) -> [u8; NONCE_LEN] {
        let mut nonce = self.iv;
        for (byte, sequence) in nonce[NONCE_LEN - 8..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= sequence;
        }
        nonce
    }

    fn is_aes(&self) -> bool {
        self.key.algorithm() != &CHACHA20_POLY1305
    }

    /// What TLS 1.2 authenticates beside the data.
    fn aad_12(&self, content: u8, bytes: usize) -> [u8; 13] {
        let mut aad = [0; 13];
        aad[..8].copy_from_slice(&self.sequence.to_be_bytes());
        aad[8..].copy_from_slice(&header(content, bytes));
        aad
    }
}

fn header(content: u8, bytes: usize) -> [u8; HEADER_BYTES] {
    let [high, low] = u16::try_from(bytes).expect("a record is short").to_be_bytes();
    [content, 3, 3, high, low]
}

/// The length of the record at the front, header included; `None` while its header is incomplete.
pub(super) fn record_bytes(input: &[u8]) -> Option<usize> {
    let [_, _, _, high, low, ..] = *input else { return None };
    Some(HEADER_BYTES + usize::from(u16::from_be_bytes([high, low])))
}

/// Both directions of an established connection.
pub(in crate::shard) struct Records {
    tx: Half,
    rx: Half,
    /// TLS 1.3 changes keys; `None` in TLS 1.2.
    keys: Option<KernelConnection<ServerConnectionData>>,
    /// The peer wants to see new keys before the next data.
    update_owed: bool,
}

/// The message that says that the next record has new keys, and asks for none in return.
const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];

impl Records {
    /// Takes over from a handshake that is complete; `None` if its cipher is not one of ours.
    pub(super) fn new(handshake: UnbufferedServerConnection) -> Option<Self> {
        let (secrets, keys) = handshake.dangerous_into_kernel_connection().ok()?;
        let keys = (keys.protocol_version() == ProtocolVersion::TLSv1_3).then_some(keys);
        Some(Self { tx: Half::new(secrets.tx)?, rx: Half::new(secrets.rx)?, keys, update_owed: false })
    }

    /// Whether the keys have sealed all the records that they may and cannot be changed.
    pub(super) fn is_worn(&self) -> bool {
        self.keys.is_none() && self.tx.is_aes() && self.tx.sequence >= SEALED_MAX
    }

    /// Appends at most `SEAL_PLAIN_BYTES_MAX` bytes as records; how many bytes stand before them.
    pub(in crate::shard) fn seal(&mut self, content: Content, plain: &[u8], out: &mut Vec<u8>) -> usize {
        debug_assert!(plain.len() <= SEAL_PLAIN_BYTES_MAX && out.capacity() - out.len() >= SEAL_BYTES_MAX);
        let start = out.len();
        if self.keys.is_some() && (self.update_owed || self.tx.sequence + 2 >= SEALED_MAX) {
            self.seal_one(Content::Handshake, &KEY_UPDATE, out);
            self.update_owed = false;
            if let Some(half) = self.keys.as_mut().and_then(|keys| keys.update_tx_secret().ok()).and_then(Half::new) {
                self.tx = half;
            }
        }
        let lead = out.len() - start;
        for plain in plain.chunks(PLAIN_BYTES_MAX) {
            self.seal_one(content, plain, out);
        }
        lead
    }

    fn seal_one(&mut self, content: Content, plain: &[u8], out: &mut Vec<u8>) {
        let Half { key, sequence, .. } = &self.tx;
        let nonce = self.tx.nonce();
        let body = out.len() + HEADER_BYTES;
        let tag = if self.keys.is_some() {
            let header = header(Content::Data as u8, plain.len() + 1 + TAG_BYTES);
            out.extend_from_slice(&header);
            out.extend_from_slice(plain);
            out.push(content as u8);
            key.seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(header), &mut out[body..])
        } else {
            let explicit = if self.tx.is_aes() { EXPLICIT_BYTES } else { 0 };
            let aad = self.tx.aad_12(content as u8, plain.len());
            out.extend_from_slice(&header(content as u8, explicit + plain.len() + TAG_BYTES));
            out.extend_from_slice(&nonce[NONCE_LEN - explicit..]);
            out.extend_from_slice(plain);
            let data = &mut out[body + explicit..];
            key.seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), data)
        };
        out.extend_from_slice(tag.expect("a record is far shorter than what a cipher can seal").as_ref());
        self.tx.sequence = sequence + 1;
    }

    /// How many bytes of data the peer can read when it has the first `taken` bytes of a seal.
    pub(in crate::shard) fn readable(&self, taken: usize, lead: usize, plain: usize) -> usize {
        let overhead = match (&self.keys, self.tx.is_aes()) {
            (Some(_), _) => HEADER_BYTES + 1 + TAG_BYTES,
            (None, true) => HEADER_BYTES + EXPLICIT_BYTES + TAG_BYTES,
            (None, false) => HEADER_BYTES + TAG_BYTES,
        };
        let (mut left, mut readable) = (taken.saturating_sub(lead), 0);
        while readable < plain {
            let data = (plain - readable).min(PLAIN_BYTES_MAX);
            if left < overhead + data {
                break;
            }
            left -= overhead + data;
            readable += data;
        }
        readable
    }

    /// Opens a whole record; where its data lies in it.
    pub(super) fn open(&mut self, record: &mut [u8]) -> Result<(Content, Range<usize>), Fault> {
        let (head, body) = record.split_at_mut(HEADER_BYTES);
        let head: [u8; HEADER_BYTES] = (&*head).try_into().map_err(|_| Fault::Malformed)?;
        let opened = if self.keys.is_some() { self.open_13(head, body) } else { self.open_12(head, body) };
        let (content, range) = opened?;
        self.rx.sequence += 1;
        let content = match content {
            21 => Content::Alert,
            22 => Content::Handshake,
            23 => Content::Data,
            _ => return Err(Fault::Unexpected),
        };
        if range.len() > PLAIN_BYTES_MAX {
            return Err(Fault::TooLong);
        }
        // Only data may be empty.
        if range.is_empty() && content != Content::Data {
            return Err(Fault::Unexpected);
        }
        Ok((content, range.start + HEADER_BYTES..range.end + HEADER_BYTES))
    }

    fn open_13(&self, head: [u8; HEADER_BYTES], body: &mut [u8]) -> Result<(u8, Range<usize>), Fault> {
        if body.len() > BODY_BYTES_MAX_13 {
            return Err(Fault::TooLong);
        }
        if head[0] != Content::Data as u8 {
            return Err(Fault::Unexpected);
        }
        let nonce = Nonce::assume_unique_for_key(self.rx.nonce());
        let inner = self.rx.key.open_in_place(nonce, Aad::from(head), body).map_err(|_| Fault::BadRecord)?;
        let end = inner.iter().rposition(|byte| *byte != 0).ok_or(Fault::Unexpected)?;
        Ok((inner[end], 0..end))
    }

    fn open_12(&self, head: [u8; HEADER_BYTES], body: &mut [u8]) -> Result<(u8, Range<usize>), Fault> {
        if body.len() > BODY_BYTES_MAX {
            return Err(Fault::TooLong);
        }
        let mut nonce = self.rx.nonce();
        let explicit = if self.rx.is_aes() { EXPLICIT_BYTES } else { 0 };
        let data = body.len().checked_sub(explicit + TAG_BYTES).ok_or(Fault::BadRecord)?;
        nonce[NONCE_LEN - explicit..].copy_from_slice(&body[..explicit]);
        let aad = Aad::from(self.rx.aad_12(head[0], data));
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.rx.key.open_in_place(nonce, aad, &mut body[explicit..]).map_err(|_| Fault::BadRecord)?;
        Ok((head[0], explicit..explicit + data))
    }

    /// A message of the handshake protocol after the handshake: only new keys may come, alone in their record.
    pub(super) fn handle(&mut self, message: &[u8]) -> Result<(), Fault> {
        let Some(keys) = &mut self.keys else { return Err(Fault::Renegotiation) };
        match *message {
            [24, 0, 0, 1, asked @ (0 | 1)] => {
                let half = keys.update_rx_secret().ok().and_then(Half::new);
                self.rx = half.ok_or(Fault::Unexpected)?;
                self.update_owed |= asked == 1;
                Ok(())
            }
            [24, ..] => Err(Fault::Malformed),
            _ => Err(Fault::Unexpected),
        }
    }
}
