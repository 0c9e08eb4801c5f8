//! The WebSocket opening handshake, server side (RFC 6455 4.2).

use super::extension::{ANSWER_BYTES_MAX, Agreed, negotiate};
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use base64::{Engine as _, alphabet};
use sha1::{Digest as _, Sha1};

/// Most bytes of a request head, the empty line included.
pub const HEAD_BYTES_MAX: usize = 8192;
/// Most headers of a request.
pub const HEADERS_MAX: usize = 64;
/// Bytes of the response to a good handshake.
pub const RESPONSE_BYTES: usize = RESPONSE_HEAD.len() + ACCEPT_BYTES + 4;
/// Most bytes of the response with what is agreed on.
pub const ANSWER_BYTES: usize = RESPONSE_BYTES + ANSWER_BYTES_MAX;

/// Base64 of a SHA-1.
const ACCEPT_BYTES: usize = 28;
const RESPONSE_HEAD: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
Connection: Upgrade\r\nSec-WebSocket-Accept: ";
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Clients that fill the two unused bits of a key are let in: the RFC asks for 16 bytes, no more.
const KEYS: GeneralPurpose =
    GeneralPurpose::new(&alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));

/// What a listener asks of a handshake.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// The path, `/sub` for goim clients; a query may follow it.
    pub path: &'a str,
    /// Origins let in, such as `https://example.org`, compared without regard to case. Empty, or one of them
    /// `*`: all. A request without `Origin` does not come from a browser and is let in.
    pub origins: &'a [String],
    /// Compression is agreed to where a client offers it.
    pub deflate: bool,
}

/// A good handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upgrade {
    /// Bytes of the request; frames begin behind them.
    pub head_bytes: usize,
    /// For [`response`].
    pub accept: [u8; ACCEPT_BYTES],
    /// The compression that is agreed on.
    pub deflate: Option<Agreed>,
}

/// Why a handshake is refused; [`HandshakeReject::response`] is what the client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HandshakeReject {
    /// Not an HTTP request, not exactly one `Host`, or an offer of extensions that is none: 400.
    Malformed,
    /// Not exactly one `Sec-WebSocket-Key` of 16 bytes in base64: 400.
    Key,
    /// An origin that is not on the list: 403.
    Origin,
    /// Another path: 404.
    Path,
    /// Another method than GET: 405.
    Method,
    /// `Upgrade: websocket` or `Connection: Upgrade` is missing: 426.
    NoUpgrade,
    /// Another version than 13: 426.
    Version,
    /// Over [`HEAD_BYTES_MAX`] or [`HEADERS_MAX`]: 431.
    TooLarge,
    /// Another HTTP than 1.1: 505.
    HttpVersion,
}

impl HandshakeReject {
    /// Every reject, in the order of their discriminants.
    pub const ALL: [Self; 9] = [
        Self::Malformed,
        Self::Key,
        Self::Origin,
        Self::Path,
        Self::Method,
        Self::NoUpgrade,
        Self::Version,
        Self::TooLarge,
        Self::HttpVersion,
    ];

    /// The whole HTTP response; the connection is closed behind it.
    pub const fn response(self) -> &'static [u8] {
        match self {
            Self::Malformed => {
                b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 25\r\n\
Connection: close\r\n\r\nnot a sound HTTP request\n"
            }
            Self::Key => {
                b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 40\r\n\
Connection: close\r\n\r\nSec-WebSocket-Key is missing or invalid\n"
            }
            Self::Origin => {
                b"HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\nContent-Length: 27\r\n\
Connection: close\r\n\r\nthis origin is not allowed\n"
            }
            Self::Path => {
                b"HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\nContent-Length: 26\r\n\
Connection: close\r\n\r\nno WebSocket at this path\n"
            }
            Self::Method => {
                b"HTTP/1.1 405 Method Not Allowed\r\nAllow: GET\r\nContent-Type: text/plain\r\n\
Content-Length: 28\r\nConnection: close\r\n\r\nWebSocket begins with a GET\n"
            }
            Self::NoUpgrade | Self::Version => {
                b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
Content-Type: text/plain\r\nContent-Length: 38\r\nConnection: close, Upgrade\r\n\r\n\
only WebSocket version 13 spoken here\n"
            }
            Self::TooLarge => {
                b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Type: text/plain\r\n\
Content-Length: 26\r\nConnection: close\r\n\r\nrequest head is too large\n"
            }
            Self::HttpVersion => {
                b"HTTP/1.1 505 HTTP Version Not Supported\r\nContent-Type: text/plain\r\n\
Content-Length: 26\r\nConnection: close\r\n\r\nonly HTTP/1.1 spoken here\n"
            }
        }
    }

    /// Name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "handshake-malformed",
            Self::Key => "handshake-key",
            Self::Origin => "handshake-origin",
            Self::Path => "handshake-path",
            Self::Method => "handshake-method",
            Self::NoUpgrade => "handshake-no-upgrade",
            Self::Version => "handshake-version",
            Self::TooLarge => "handshake-too-large",
            Self::HttpVersion => "handshake-http-version",
        }
    }
}

/// Judges the request at the front of `bytes`; `None` while its end is missing. Nonsense is refused where it
/// begins, everything else once the head is complete.
pub fn parse(bytes: &[u8], rules: &Rules<'_>) -> Result<Option<Upgrade>, HandshakeReject> {
    let bytes = &bytes[..bytes.len().min(HEAD_BYTES_MAX)];
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(head_bytes)) => {
            let accept = judge(&request, rules)?;
            let deflate = if rules.deflate { offered(&request)? } else { None };
            Ok(Some(Upgrade { head_bytes, accept, deflate }))
        }
        Ok(httparse::Status::Partial) if bytes.len() == HEAD_BYTES_MAX => Err(HandshakeReject::TooLarge),
        Ok(httparse::Status::Partial) => Ok(None),
        Err(httparse::Error::TooManyHeaders) => Err(HandshakeReject::TooLarge),
        Err(httparse::Error::Version) => Err(HandshakeReject::HttpVersion),
        Err(_) => Err(HandshakeReject::Malformed),
    }
}

/// Writes the response to a good handshake, byte for byte goim's, and returns its length.
pub fn response(accept: &[u8; ACCEPT_BYTES], out: &mut [u8; RESPONSE_BYTES]) -> usize {
    let (head, rest) = out.split_at_mut(RESPONSE_HEAD.len());
    head.copy_from_slice(RESPONSE_HEAD);
    let (value, end) = rest.split_at_mut(ACCEPT_BYTES);
    value.copy_from_slice(accept);
    end.copy_from_slice(b"\r\n\r\n");
    RESPONSE_BYTES
}

/// Writes the response to a handshake, what is agreed on included, and returns its length.
pub fn answer(upgrade: &Upgrade, out: &mut [u8; ANSWER_BYTES]) -> usize {
    let mut plain = [0; RESPONSE_BYTES];
    let plain_bytes = response(&upgrade.accept, &mut plain);
    let (head, end) = plain[..plain_bytes].split_at(plain_bytes - 4);
    let mut line = [0; ANSWER_BYTES_MAX];
    let line_bytes = upgrade.deflate.map_or(0, |agreed| agreed.answer(&mut line));
    let mut bytes = 0;
    for part in [head, &line[..line_bytes], end] {
        out[bytes..bytes + part.len()].copy_from_slice(part);
        bytes += part.len();
    }
    bytes
}

/// What of the client's offers is taken. RFC 6455 9.1: a header that is not one ends the connection.
fn offered(request: &httparse::Request<'_, '_>) -> Result<Option<Agreed>, HandshakeReject> {
    negotiate(values(request.headers, "Sec-WebSocket-Extensions")).map_err(|_| HandshakeReject::Malformed)
}

/// The value of `Sec-WebSocket-Accept` that answers `key`.
pub fn accept(key: &[u8]) -> [u8; ACCEPT_BYTES] {
    let digest = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    let mut out = [0; ACCEPT_BYTES];
    let written = STANDARD.encode_slice(digest, &mut out);
    debug_assert_eq!(written, Ok(ACCEPT_BYTES));
    out
}

fn judge(request: &httparse::Request<'_, '_>, rules: &Rules<'_>) -> Result<[u8; ACCEPT_BYTES], HandshakeReject> {
    if request.version != Some(1) {
        return Err(HandshakeReject::HttpVersion);
    }
    if request.method != Some("GET") {
        return Err(HandshakeReject::Method);
    }
    if !is_path(request.path.unwrap_or_default(), rules.path) {
        return Err(HandshakeReject::Path);
    }
    let headers = &*request.headers;
    if only(headers, "Host").is_none() {
        return Err(HandshakeReject::Malformed);
    }
    if !has_token(headers, "Upgrade", "websocket") || !has_token(headers, "Connection", "upgrade") {
        return Err(HandshakeReject::NoUpgrade);
    }
    if only(headers, "Sec-WebSocket-Version") != Some(b"13") {
        return Err(HandshakeReject::Version);
    }
    let key = only(headers, "Sec-WebSocket-Key").filter(|key| is_key(key)).ok_or(HandshakeReject::Key)?;
    if !values(headers, "Origin").all(|origin| is_allowed(origin, rules.origins)) {
        return Err(HandshakeReject::Origin);
    }
    Ok(accept(key))
}

/// Whether `target` is `path`, as such or in an absolute URI, with or without a query.
fn is_path(target: &str, path: &str) -> bool {
    let target = match target.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https") => {
            rest.find('/').map_or("", |slash| &rest[slash..])
        }
        _ => target,
    };
    target.split('?').next() == Some(path)
}

fn is_key(key: &[u8]) -> bool {
    let mut bytes = [0; 18]; // what 24 characters can decode to
    KEYS.decode_slice(key, &mut bytes) == Ok(16)
}

fn is_allowed(origin: &[u8], origins: &[String]) -> bool {
    origins.is_empty()
        || origins.iter().any(|allowed| allowed == "*" || origin.eq_ignore_ascii_case(allowed.as_bytes()))
}

/// Values of all headers of this name.
fn values<'a>(headers: &'a [httparse::Header<'a>], name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value.trim_ascii())
}

/// The value of a header that is there exactly once.
fn only<'a>(headers: &'a [httparse::Header<'a>], name: &'a str) -> Option<&'a [u8]> {
    let mut values = values(headers, name);
    let first = values.next()?;
    values.next().is_none().then_some(first)
}

/// Whether a header holds `token` in its comma-separated list, whatever the case.
fn has_token(headers: &[httparse::Header<'_>], name: &str, token: &str) -> bool {
    values(headers, name)
        .flat_map(|value| value.split(|&byte| byte == b','))
        .any(|item| item.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}
