//! Who the client is, as proxies say: believed from the end, as far as they are trusted, and never more.

use std::net::{IpAddr, SocketAddr};

use halley_protocol::forwarded::{ForwardedBy, client};
use proptest::prelude::*;

use crate::support::twice_the_cases;

/// The proxies of these tests are of the networks `10.0.0.0/8` and `fd00::/8`.
fn is_trusted(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(v4) => v4.octets()[0] == 10,
        IpAddr::V6(v6) => v6.octets()[0] == 0xfd,
    }
}

fn peer() -> SocketAddr {
    "10.0.0.9:5000".parse().expect("an address")
}

fn said(by: ForwardedBy, lines: &str) -> String {
    let head = format!("GET /sub HTTP/1.1\r\nHost: for=1.2.3.4\r\n{lines}\r\n\r\n");
    client(head.as_bytes(), by, peer(), is_trusted).to_string()
}

#[test]
fn x_forwarded_for_is_believed_from_its_end() {
    for (lines, client) in [
        ("X-Forwarded-For: 203.0.113.7", "203.0.113.7:0"),
        ("x-forwarded-for:203.0.113.7:4711", "203.0.113.7:4711"),
        ("X-FORWARDED-FOR:  2001:db8::1 ", "[2001:db8::1]:0"),
        ("X-Forwarded-For: [2001:db8::1]:80", "[2001:db8::1]:80"),
        ("X-Forwarded-For: [2001:db8::1]", "[2001:db8::1]:0"),
        ("X-Forwarded-For: 1.1.1.1, 203.0.113.7, 10.0.0.1", "203.0.113.7:0"),
        (
            "X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 203.0.113.7\r\nX-Forwarded-For: 10.0.0.1,fd00::1",
            "203.0.113.7:0",
        ),
        ("X-Forwarded-For: 10.0.0.2, 10.0.0.1", "10.0.0.2:0"),
        ("X-Forwarded-For: 203.0.113.7, unknown", "10.0.0.9:5000"),
        ("X-Forwarded-For: 203.0.113.7, unknown, 10.0.0.2, 10.0.0.1", "10.0.0.2:0"),
        ("X-Forwarded-For: ", "10.0.0.9:5000"),
        ("X-Forwarded-For: 203.0.113.7,", "10.0.0.9:5000"),
        ("X-Forwarded-For: 203.0.113.07", "10.0.0.9:5000"),
        ("Forwarded: for=203.0.113.7", "10.0.0.9:5000"),
        ("X-Forwarded-Fort: 203.0.113.7", "10.0.0.9:5000"),
    ] {
        assert_eq!(said(ForwardedBy::XForwardedFor, lines), client, "{lines}");
    }
}

#[test]
fn forwarded_is_read_as_its_rfc_says() {
    for (lines, client) in [
        ("Forwarded: for=203.0.113.7;proto=http;by=203.0.113.43", "203.0.113.7:0"),
        ("Forwarded: proto=https; For=\"[2001:db8:cafe::17]:4711\"", "[2001:db8:cafe::17]:4711"),
        ("Forwarded: for=1.1.1.1, for=203.0.113.7, for=\"10.0.0.1:80\"", "203.0.113.7:0"),
        ("Forwarded: for=\"_a, for=1.1.1.1\";by=x, for=10.0.0.1", "10.0.0.1:0"),
        ("Forwarded: for=203.0.113.7, for=\"\\\", for=1.1.1.1\", for=10.0.0.1", "10.0.0.1:0"),
        ("Forwarded: for=203.0.113.7, for=_hidden", "10.0.0.9:5000"),
        ("Forwarded: for=203.0.113.7, proto=https", "10.0.0.9:5000"),
        ("Forwarded: for=203.0.113.7;for=1.1.1.1", "10.0.0.9:5000"),
        ("Forwarded: for=unknown", "10.0.0.9:5000"),
        ("X-Forwarded-For: 203.0.113.7", "10.0.0.9:5000"),
        ("", "10.0.0.9:5000"),
    ] {
        assert_eq!(said(ForwardedBy::Forwarded, lines), client, "{lines}");
    }
}

proptest! {
    #![proptest_config(twice_the_cases())]

    /// What a trusted proxy puts behind whatever a client wrote is what counts.
    #[test]
    fn nothing_that_a_client_writes_changes_what_its_proxy_says(theirs in "[ -~]{0,40}", quoted in any::<bool>()) {
        let theirs = if quoted { theirs.replace(['"', '\\'], "") } else { theirs };
        let head = format!("GET / HTTP/1.1\r\nX-Forwarded-For: {theirs}, 203.0.113.7, 10.1.1.1\r\n\r\n");
        let seen = client(head.as_bytes(), ForwardedBy::XForwardedFor, peer(), is_trusted);
        prop_assert_eq!(seen.to_string(), "203.0.113.7:0");
        let head = format!("GET / HTTP/1.1\r\nForwarded: {theirs}\r\nForwarded: for=203.0.113.7, for=10.1.1.1\r\n\r\n");
        let seen = client(head.as_bytes(), ForwardedBy::Forwarded, peer(), is_trusted);
        prop_assert_eq!(seen.to_string(), "203.0.113.7:0");
    }

    #[test]
    fn any_bytes_are_read(head in prop::collection::vec(any::<u8>(), 0..200)) {
        for by in [ForwardedBy::XForwardedFor, ForwardedBy::Forwarded] {
            client(&head, by, peer(), is_trusted);
        }
    }
}
