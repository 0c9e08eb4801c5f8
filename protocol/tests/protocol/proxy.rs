//! The header of a proxy: as `HAProxy` writes it, refused where it is not sound, and the same for any cut.

use std::net::SocketAddr;

use halley_protocol::proxy::{HEADER_BYTES_MAX, Header, LINE_BYTES_MAX, ProxyReject, parse};
use proptest::prelude::*;

use crate::support::twice_the_cases;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// A header of version 2.
fn binary(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).expect("short").to_be_bytes();
    [SIGNATURE, &[command, family], &length, body].concat()
}

fn field(kind: u8, value: &[u8]) -> Vec<u8> {
    [&[kind][..], &u16::try_from(value.len()).expect("short").to_be_bytes(), value].concat()
}

/// 192.0.2.1:40000 to 198.51.100.1:3101.
const V4: &[u8] = &[192, 0, 2, 1, 198, 51, 100, 1, 0x9c, 0x40, 0x0c, 0x1d];

/// The header with a right checksum as its last field.
fn summed(family: u8, addresses: &[u8]) -> Vec<u8> {
    let mut header = binary(0x21, family, &[addresses, &field(3, &[0; 4])].concat());
    let sum = crc32c::crc32c(&header).to_be_bytes();
    let at = header.len() - 4;
    header[at..].copy_from_slice(&sum);
    header
}

#[test]
fn a_line_names_the_client() {
    for (line, source) in [
        ("PROXY TCP4 192.0.2.1 198.51.100.1 40000 3101\r\n", Some(address("192.0.2.1:40000"))),
        ("PROXY TCP6 2001:db8::1 2001:db8::2 65535 0\r\n", Some(address("[2001:db8::1]:65535"))),
        ("PROXY UNKNOWN\r\n", None),
        ("PROXY UNKNOWN ffff::1 whatever it says\r\n", None),
    ] {
        let whole = [line.as_bytes(), b"\0\0\0\x10"].concat();
        assert_eq!(parse(&whole), Ok(Some(Header { bytes: line.len(), source })), "{line}");
    }
}

#[test]
fn a_line_that_is_not_as_the_protocol_has_it_is_refused() {
    for line in [
        "PROXY TCP4 192.0.2.1 198.51.100.1 40000\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 40000 3101 1\r\n",
        "PROXY TCP4  192.0.2.1 198.51.100.1 40000 3101\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 040000 3101\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 +4000 3101\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 65536 3101\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1  3101\r\n",
        "PROXY TCP4 192.0.2.01 198.51.100.1 40000 3101\r\n",
        "PROXY TCP4 2001:db8::1 2001:db8::2 40000 3101\r\n",
        "PROXY TCP6 192.0.2.1 198.51.100.1 40000 3101\r\n",
        "PROXY UDP4 192.0.2.1 198.51.100.1 40000 3101\r\n",
        "PROXY \r\n",
    ] {
        assert_eq!(parse(line.as_bytes()), Err(ProxyReject::Line), "{line}");
    }
    let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(LINE_BYTES_MAX - 16));
    assert_eq!(long.len(), LINE_BYTES_MAX);
    assert!(matches!(parse(long.as_bytes()), Ok(Some(_))), "the longest line");
    let longer = long.replace("UNKNOWN ", "UNKNOWN xx");
    assert_eq!(parse(longer.as_bytes()), Err(ProxyReject::TooLong));
    for other in ["GET / HTTP/1.1\r\n", "PROXX", "\r\n\r\nQUIT", "\0\0\0\x17"] {
        assert_eq!(parse(other.as_bytes()), Err(ProxyReject::Missing), "{other:?}");
    }
}

#[test]
fn version_2_names_the_client_and_knows_its_checksum() {
    let v6 = [[0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]; 2].concat();
    let v6 = [&v6[..], &[0x9c, 0x40, 0x0c, 0x1d]].concat();
    for (header, source) in [
        (binary(0x21, 0x11, V4), Some(address("192.0.2.1:40000"))),
        (binary(0x21, 0x21, &v6), Some(address("[2001:db8::1]:40000"))),
        (binary(0x21, 0x11, &[V4, &field(4, b"pad"), &field(2, b"host")].concat()), Some(address("192.0.2.1:40000"))),
        (summed(0x11, V4), Some(address("192.0.2.1:40000"))),
        (binary(0x21, 0x31, &[b'/'; 216]), None),
        (binary(0x21, 0x00, b"anything"), None),
        (binary(0x20, 0x11, V4), None),
        (binary(0x20, 0x77, b"ignored"), None),
    ] {
        let whole = [&header[..], b"client"].concat();
        assert_eq!(parse(&whole), Ok(Some(Header { bytes: header.len(), source })), "{header:?}");
    }
}

#[test]
fn version_2_is_refused_where_it_is_not_sound() {
    let mut wrong = summed(0x11, V4);
    wrong[20] ^= 1;
    let twice = [V4, &field(3, &[0; 4]), &field(3, &[0; 4])].concat();
    for (header, reject) in [
        (binary(0x11, 0x11, V4), ProxyReject::Kind),
        (binary(0x22, 0x11, V4), ProxyReject::Kind),
        (binary(0x21, 0x12, V4), ProxyReject::Kind),
        (binary(0x21, 0x41, V4), ProxyReject::Kind),
        (binary(0x21, 0x11, &V4[1..]), ProxyReject::TooShort),
        (binary(0x21, 0x11, &vec![0; HEADER_BYTES_MAX]), ProxyReject::TooLong),
        (binary(0x21, 0x11, &[V4, &[4, 0]].concat()), ProxyReject::Field),
        (binary(0x21, 0x11, &[V4, &[4, 0, 2, 0]].concat()), ProxyReject::Field),
        (binary(0x21, 0x11, &[V4, &field(3, &[0; 3])].concat()), ProxyReject::Field),
        (binary(0x21, 0x11, &twice), ProxyReject::Field),
        (wrong, ProxyReject::Checksum),
    ] {
        assert_eq!(parse(&header), Err(reject), "{header:?}");
    }
}

/// The first judgement as the bytes arrive one by one.
fn judged(bytes: &[u8]) -> Result<Option<Header>, ProxyReject> {
    (0..=bytes.len()).map(|end| parse(&bytes[..end])).find(|judged| *judged != Ok(None)).unwrap_or(Ok(None))
}

fn header() -> impl Strategy<Value = Vec<u8>> {
    let fields = prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..20)), 0..4);
    let line = "PROXY (TCP4|TCP6|UNKNOWN|X) [0-9a-f.:]{0,12} [0-9.]{0,9} [0-9]{0,6} [0-9]{1,5}\r?\n?";
    prop_oneof![
        line.prop_map(String::into_bytes),
        (0x1f..0x23_u8, prop::sample::select(vec![0, 0x11, 0x12, 0x21, 0x31]), fields).prop_map(
            |(command, family, fields)| {
                let fields = fields.iter().flat_map(|(kind, value)| field(kind % 6, value));
                binary(command, family, &V4.iter().copied().chain(fields).collect::<Vec<_>>())
            }
        ),
        Just(summed(0x11, V4)),
        prop::collection::vec(any::<u8>(), 0..300),
    ]
}

proptest! {
    #![proptest_config(twice_the_cases())]

    #[test]
    fn a_header_is_judged_the_same_for_any_cut(mut bytes in header(), flip in any::<(usize, u8)>(), damage in any::<bool>()) {
        if damage && !bytes.is_empty() {
            let at = flip.0 % bytes.len();
            bytes[at] ^= flip.1;
        }
        bytes.extend_from_slice(b"what the client says");
        let whole = parse(&bytes);
        prop_assert_eq!(judged(&bytes), whole);
        if let Ok(Some(header)) = whole {
            prop_assert!(header.bytes <= bytes.len());
            prop_assert_eq!(parse(&bytes[..header.bytes]), whole, "nothing behind it matters");
        }
    }
}
