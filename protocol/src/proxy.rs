//! The header that a proxy puts before its client's bytes: PROXY protocol, versions 1 and 2.
//!
//! Source: `doc/proxy-protocol.txt` of `HAProxy`.
//!
//! ```text
//! version 1   "PROXY TCP4 192.0.2.1 198.51.100.1 40000 3101\r\n", at most 107 bytes
//!
//! version 2    0           12    13      14       16
//!             ┌───────────┬─────┬───────┬────────┬───────────┬──────────────────────┐
//!             │ signature │ 2,  │family,│ length │ addresses │ type · length · value │
//!             │           │ cmd │ kind  │        │           │ …                    │
//!             └───────────┴─────┴───────┴────────┴───────────┴──────────────────────┘
//! ```

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::str::FromStr;

/// Most bytes of a header of version 1, its line end included.
pub const LINE_BYTES_MAX: usize = 107;
/// Most bytes of a header of version 2; a longer one is refused by its length.
pub const HEADER_BYTES_MAX: usize = 4096;

const LINE: &[u8] = b"PROXY ";
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes of version 2 before its addresses.
const FIXED_BYTES: usize = 16;
const CHECKSUM: u8 = 3;

/// A whole header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of it; the client's follow.
    pub bytes: usize,
    /// The client. `None`: the proxy speaks for itself, or its client has no address of the internet; then the connection's
    /// own address counts.
    pub source: Option<SocketAddr>,
}

/// Why a header is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProxyReject {
    /// Neither version's first bytes.
    Missing,
    /// A line that is not as version 1 has it.
    Line,
    /// A version, command or family that there is not, or one of datagrams.
    Kind,
    /// Longer than [`LINE_BYTES_MAX`] or [`HEADER_BYTES_MAX`].
    TooLong,
    /// Shorter than its addresses.
    TooShort,
    /// A field behind the addresses that does not end within the header, or a checksum of another length or twice.
    Field,
    /// The checksum is another one.
    Checksum,
}

impl ProxyReject {
    /// Every reject.
    pub const ALL: [Self; 7] =
        [Self::Missing, Self::Line, Self::Kind, Self::TooLong, Self::TooShort, Self::Field, Self::Checksum];
}

/// Reads the header that a connection begins with; `None` while it is not all there.
pub fn parse(bytes: &[u8]) -> Result<Option<Header>, ProxyReject> {
    if begins(bytes, LINE) {
        parse_line(bytes)
    } else if begins(bytes, SIGNATURE) {
        parse_binary(bytes)
    } else {
        Err(ProxyReject::Missing)
    }
}

/// Whether the bytes agree with the word as far as both go.
fn begins(bytes: &[u8], word: &[u8]) -> bool {
    bytes.iter().zip(word).all(|(a, b)| a == b)
}

fn parse_line(bytes: &[u8]) -> Result<Option<Header>, ProxyReject> {
    let window = &bytes[..bytes.len().min(LINE_BYTES_MAX)];
    let Some(end) = window.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() < LINE_BYTES_MAX { Ok(None) } else { Err(ProxyReject::TooLong) };
    };
    let words = window.get(LINE.len()..end).and_then(|words| core::str::from_utf8(words).ok());
    let source = line_source(words.ok_or(ProxyReject::Line)?)?;
    Ok(Some(Header { bytes: end + 2, source }))
}

/// What the words behind `PROXY` say; exactly one space is between them.
fn line_source(words: &str) -> Result<Option<SocketAddr>, ProxyReject> {
    let (family, addresses) = words.split_once(' ').unwrap_or((words, ""));
    if family == "UNKNOWN" {
        return Ok(None);
    }
    line_address(family, addresses).map(Some).ok_or(ProxyReject::Line)
}

fn line_address(family: &str, words: &str) -> Option<SocketAddr> {
    let mut words = words.split(' ');
    let [source, target, source_port, target_port] = [words.next()?, words.next()?, words.next()?, words.next()?];
    if words.next().is_some() {
        return None;
    }
    port(target_port)?;
    let source: IpAddr = match family {
        "TCP4" => {
            Ipv4Addr::from_str(target).ok()?;
            Ipv4Addr::from_str(source).ok()?.into()
        }
        "TCP6" => {
            Ipv6Addr::from_str(target).ok()?;
            Ipv6Addr::from_str(source).ok()?.into()
        }
        _ => return None,
    };
    Some(SocketAddr::new(source, port(source_port)?))
}

/// Digits without a sign, and without zeros in front.
fn port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit()) && (text.len() == 1 || !text.starts_with('0'));
    if digits { text.parse().ok() } else { None }
}

fn parse_binary(bytes: &[u8]) -> Result<Option<Header>, ProxyReject> {
    let Some(fixed) = bytes.first_chunk::<FIXED_BYTES>() else { return Ok(None) };
    let [.., command, family, high, low] = *fixed;
    let is_local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Err(ProxyReject::Kind),
    };
    let address_bytes = match family {
        0x00 => 0,
        0x11 => 12,
        0x21 => 36,
        0x31 => 216,
        // Whatever a proxy that speaks for itself says of addresses is ignored.
        _ if is_local => 0,
        _ => return Err(ProxyReject::Kind),
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    let end = FIXED_BYTES + length;
    if end > HEADER_BYTES_MAX {
        return Err(ProxyReject::TooLong);
    }
    if !is_local && length < address_bytes {
        return Err(ProxyReject::TooShort);
    }
    let Some(header) = bytes.get(..end) else { return Ok(None) };
    if is_local {
        return Ok(Some(Header { bytes: end, source: None }));
    }
    let (addresses, fields) = header[FIXED_BYTES..].split_at(address_bytes);
    // Without a family nothing is said of what follows.
    if family != 0 {
        check_fields(header, fields)?;
    }
    Ok(Some(Header { bytes: end, source: binary_source(family, addresses) }))
}

fn binary_source(family: u8, addresses: &[u8]) -> Option<SocketAddr> {
    match family {
        0x11 => {
            let port = addresses.get(8..)?.first_chunk()?;
            Some((Ipv4Addr::from(*addresses.first_chunk::<4>()?), u16::from_be_bytes(*port)).into())
        }
        0x21 => {
            let port = addresses.get(32..)?.first_chunk()?;
            Some((Ipv6Addr::from(*addresses.first_chunk::<16>()?), u16::from_be_bytes(*port)).into())
        }
        _ => None,
    }
}

/// Walks the fields, and compares the checksum (CRC-32c of the header with zeros in its place) if one of them is it.
fn check_fields(header: &[u8], fields: &[u8]) -> Result<(), ProxyReject> {
    let mut rest = fields;
    let mut sum = None;
    while let [kind, high, low, tail @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let (value, behind) = tail.split_at_checked(length).ok_or(ProxyReject::Field)?;
        if *kind == CHECKSUM {
            let value = *<&[u8; 4]>::try_from(value).map_err(|_| ProxyReject::Field)?;
            let at = header.len() - tail.len();
            if sum.replace((u32::from_be_bytes(value), at)).is_some() {
                return Err(ProxyReject::Field);
            }
        }
        rest = behind;
    }
    if !rest.is_empty() {
        return Err(ProxyReject::Field);
    }
    let Some((said, at)) = sum else { return Ok(()) };
    let before = crc32c::crc32c(&header[..at]);
    let found = crc32c::crc32c_append(crc32c::crc32c_append(before, &[0; 4]), &header[at + 4..]);
    if found == said { Ok(()) } else { Err(ProxyReject::Checksum) }
}
