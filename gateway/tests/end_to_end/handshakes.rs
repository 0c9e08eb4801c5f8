//! WebSocket upgrades that go wrong: each gets its status, and then the end.

use std::io::{Read as _, Write as _};

use crate::support::{Client, Gateway, Transport, connect};

const GOOD: &str = "GET /sub HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";

/// The status of the answer; the connection must end behind it, unless an upgrade is expected.
fn status(gateway: &Gateway, request: &str, expected: u16) -> u16 {
    let mut stream = connect(gateway.ws());
    stream.write_all(request.as_bytes()).expect("the gateway takes it");
    let mut text = vec![0; 12];
    if expected == 101 {
        stream.read_exact(&mut text).expect("an answer");
    } else {
        text.clear();
        stream.read_to_end(&mut text).expect("an answer and the end");
    }
    let text = String::from_utf8_lossy(&text).into_owned();
    text.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok()).unwrap_or_else(|| panic!("{text:?}"))
}

#[test]
fn a_bad_upgrade_is_answered_with_its_status() {
    let gateway = Gateway::start(&format!(
        "{}{}origins = [\"https://example.org\"]\nlinger_ms_max = 100\n",
        crate::support::OPEN,
        crate::support::LISTENERS
    ));
    let changed = |from: &str, to: &str| format!("{}\r\n", GOOD.replace(from, to));
    let cases = [
        (changed("", ""), 101),
        (changed("/sub ", "/sub?token=1 "), 101),
        (format!("{GOOD}Origin: https://example.org\r\n\r\n"), 101),
        (format!("{GOOD}Origin: https://evil.example\r\n\r\n"), 403),
        (changed("/sub", "/other"), 404),
        (changed("GET", "POST"), 405),
        (changed("Version: 13", "Version: 8"), 426),
        (changed("Upgrade: websocket\r\n", ""), 426),
        (changed("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""), 400),
        (changed("Host: localhost\r\n", ""), 400),
        (changed("HTTP/1.1", "HTTP/1.0"), 505),
        ("\u{1}\u{2}\u{3}\r\n\r\n".into(), 400),
        (format!("{GOOD}X-Long: {}", "a".repeat(9000)), 431),
        (format!("{GOOD}X-Long: {}\r\n\r\n", "a".repeat(9000)), 431),
        (format!("{GOOD}{}\r\n", "X-Many: 1\r\n".repeat(65)), 431),
    ];
    let refused = cases.iter().filter(|(_, expected)| *expected != 101).count();
    for (request, expected) in cases {
        assert_eq!(status(&gateway, &request, expected), expected, "{request}");
    }
    gateway.until_counter("/closes/handshake-refused", refused as u64);
    Client::login(gateway.ws(), Transport::WebSocket, "{}");
}

#[test]
fn an_upgrade_in_single_bytes_is_served_and_one_that_stops_is_ended() {
    let gateway = Gateway::with_listener_keys("login_ms_max = 1000\nlinger_ms_max = 100");
    let mut slow = connect(gateway.ws());
    slow.set_nodelay(true).expect("an option");
    for byte in format!("{GOOD}\r\n").into_bytes() {
        slow.write_all(&[byte]).expect("the gateway reads");
    }
    let mut head = [0; 12];
    slow.read_exact(&mut head).expect("an answer");
    assert_eq!(&head, b"HTTP/1.1 101");

    let mut stopped = connect(gateway.ws());
    stopped.write_all(&GOOD.as_bytes()[..60]).expect("the gateway reads");
    let mut text = String::new();
    stopped.read_to_string(&mut text).expect("an answer and the end");
    assert!(text.starts_with("HTTP/1.1 408 "), "{text:?}");
}
