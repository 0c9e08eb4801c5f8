//! The opening handshake: what lets a client in, and the response to each mistake.

use halley_protocol::websocket::client;
use halley_protocol::websocket::handshake::{
    HEAD_BYTES_MAX, HEADERS_MAX, HandshakeReject, RESPONSE_BYTES, Rules, Upgrade, accept, parse, response,
};

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const RULES: Rules<'_> = Rules { path: "/sub", origins: &[], deflate: false };

fn request() -> String {
    client::request("localhost:3102", "/sub", KEY)
}

/// The request with `from` replaced, which must be in it.
fn with(from: &str, to: &str) -> String {
    let request = request();
    assert!(request.contains(from), "{from}");
    request.replacen(from, to, 1)
}

/// The request with one header more.
fn and(header: &str) -> String {
    with("\r\n\r\n", &format!("\r\n{header}\r\n\r\n"))
}

fn judged(request: &str) -> Result<Option<Upgrade>, HandshakeReject> {
    parse(request.as_bytes(), &RULES)
}

#[track_caller]
fn refused(request: &str, reject: HandshakeReject, status: &str) {
    assert_eq!(judged(request), Err(reject), "{request}");
    assert!(reject.response().starts_with(format!("HTTP/1.1 {status} ").as_bytes()));
}

#[track_caller]
fn let_in(request: &str) {
    assert!(matches!(judged(request), Ok(Some(_))), "{request}: {:?}", judged(request));
}

#[test]
fn the_key_of_the_rfc_is_answered_as_in_the_rfc() {
    assert_eq!(&accept(KEY.as_bytes()), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}

#[test]
fn the_response_is_byte_for_byte_goims() {
    let upgrade = judged(&request()).unwrap().unwrap();
    assert_eq!(upgrade.head_bytes, request().len());
    let mut out = [0; RESPONSE_BYTES];
    let bytes = response(&upgrade.accept, &mut out);
    let expected = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    assert_eq!(core::str::from_utf8(&out[..bytes]), Ok(expected));
    assert_eq!(client::response(&out, KEY), Ok(Some(bytes)));
    assert_eq!(client::response(&out[..50], KEY), Ok(None));
    assert_eq!(client::response(HandshakeReject::Path.response(), KEY), Err(client::BadServerFrame));
}

#[test]
fn frames_begin_behind_the_head() {
    let behind = format!("{}\u{0}frames", request());
    assert_eq!(judged(&behind).unwrap().unwrap().head_bytes, request().len());
}

#[test]
fn browsers_are_let_in() {
    let_in(&with("Connection: Upgrade", "Connection: keep-alive, Upgrade"));
    let_in(&with("Connection: Upgrade", "connection: keep-alive\r\nCONNECTION:upgrade"));
    let_in(&with("Upgrade: websocket", "UPGRADE: WebSocket"));
    let_in(&and("Sec-WebSocket-Extensions: permessage-deflate\r\nSec-WebSocket-Protocol: chat\r\nCookie: a=b"));
}

#[test]
fn a_query_and_an_absolute_target_are_let_in() {
    for target in ["/sub?", "/sub?x=1&y=/z?", "http://localhost:3102/sub", "HTTPS://a/sub?x=1"] {
        let_in(&with("GET /sub ", &format!("GET {target} ")));
    }
}

#[test]
fn another_path_is_404() {
    for target in ["/", "/sub/", "/subx", "/SUB", "sub", "*", "/x?/sub", "http://localhost", "ftp://a/sub"] {
        refused(&with("GET /sub ", &format!("GET {target} ")), HandshakeReject::Path, "404");
    }
}

#[test]
fn another_method_is_405() {
    for method in ["POST", "HEAD", "OPTIONS", "get"] {
        refused(&with("GET ", &format!("{method} ")), HandshakeReject::Method, "405");
    }
}

#[test]
fn another_http_is_505() {
    refused(&with("HTTP/1.1", "HTTP/1.0"), HandshakeReject::HttpVersion, "505");
    refused(&with("HTTP/1.1", "HTTP/2.0"), HandshakeReject::HttpVersion, "505");
}

#[test]
fn what_is_not_http_is_400_at_once() {
    assert_eq!(judged("\u{16}\u{3}\u{1}"), Err(HandshakeReject::Malformed), "TLS");
    refused(&with("Host: ", "Host : "), HandshakeReject::Malformed, "400");
    refused(&with("Host: ", " Host: "), HandshakeReject::Malformed, "400");
    refused(&and("No colon"), HandshakeReject::Malformed, "400");
}

#[test]
fn no_host_or_two_are_400() {
    refused(&with("Host: localhost:3102\r\n", ""), HandshakeReject::Malformed, "400");
    refused(&and("Host: other"), HandshakeReject::Malformed, "400");
}

#[test]
fn a_plain_get_is_426() {
    refused(&with("Upgrade: websocket\r\n", ""), HandshakeReject::NoUpgrade, "426");
    refused(&with("Upgrade: websocket", "Upgrade: h2c"), HandshakeReject::NoUpgrade, "426");
    refused(&with("Connection: Upgrade\r\n", ""), HandshakeReject::NoUpgrade, "426");
    refused(&with("Connection: Upgrade", "Connection: upgraded"), HandshakeReject::NoUpgrade, "426");
}

#[test]
fn another_version_is_426_and_told_the_right_one() {
    for version in ["8", "013", "13, 8", ""] {
        let request = with("Version: 13", &format!("Version: {version}"));
        refused(&request, HandshakeReject::Version, "426");
    }
    refused(&with("Sec-WebSocket-Version: 13\r\n", ""), HandshakeReject::Version, "426");
    refused(&and("Sec-WebSocket-Version: 8"), HandshakeReject::Version, "426");
    let told = HandshakeReject::Version.response();
    assert!(core::str::from_utf8(told).unwrap().contains("\r\nSec-WebSocket-Version: 13\r\n"));
}

#[test]
fn a_key_that_is_not_16_bytes_is_400() {
    for key in [
        "",
        "AAAA",
        "AAAAAAAAAAAAAAAAAAAAAA",
        "AAAAAAAAAAAAAAAAAAAAAAA=",
        "AAAAAAAAAAAAAAAAAAAAAAAA",
        "!AAAAAAAAAAAAAAAAAAAAA==",
        "AAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    ] {
        refused(&with(KEY, key), HandshakeReject::Key, "400");
    }
    refused(&with(&format!("Sec-WebSocket-Key: {KEY}\r\n"), ""), HandshakeReject::Key, "400");
    refused(&and(&format!("Sec-WebSocket-Key: {KEY}")), HandshakeReject::Key, "400");
}

#[test]
fn a_key_with_its_unused_bits_set_is_let_in() {
    let_in(&with(KEY, "AAAAAAAAAAAAAAAAAAAAAB=="));
}

#[test]
fn an_origin_off_the_list_is_403() {
    let origins = ["https://example.org".to_owned(), "http://localhost:8080".to_owned()];
    let rules = Rules { path: "/sub", origins: &origins, deflate: false };
    for (origin, expected) in [
        ("https://example.org", true),
        ("HTTPS://Example.ORG", true),
        ("http://localhost:8080", true),
        ("http://example.org", false),
        ("https://example.org:8443", false),
        ("https://example.org.evil.test", false),
        ("https://evil.test", false),
        ("null", false),
        ("", false),
    ] {
        let judged = parse(and(&format!("Origin: {origin}")).as_bytes(), &rules);
        if expected {
            assert!(matches!(judged, Ok(Some(_))), "{origin}");
        } else {
            assert_eq!(judged, Err(HandshakeReject::Origin), "{origin}");
        }
    }
    let two = and("Origin: https://example.org\r\nOrigin: https://evil.test");
    assert_eq!(parse(two.as_bytes(), &rules), Err(HandshakeReject::Origin));
    assert!(HandshakeReject::Origin.response().starts_with(b"HTTP/1.1 403 "));
}

#[test]
fn no_origin_is_no_browser_and_let_in() {
    let rules = Rules { path: "/sub", origins: &["https://example.org".to_owned()], deflate: false };
    assert!(matches!(parse(request().as_bytes(), &rules), Ok(Some(_))));
}

#[test]
fn an_empty_list_or_a_star_lets_every_origin_in() {
    let request = and("Origin: https://evil.test");
    for origins in [vec![], vec!["https://a".to_owned(), "*".to_owned()]] {
        let rules = Rules { path: "/sub", origins: &origins, deflate: false };
        assert!(matches!(parse(request.as_bytes(), &rules), Ok(Some(_))));
    }
}

#[test]
fn a_head_of_8192_bytes_is_taken_and_one_more_is_431() {
    let filler = HEAD_BYTES_MAX - and("X: ").len();
    let longest = and(&format!("X: {}", "x".repeat(filler)));
    assert_eq!(longest.len(), HEAD_BYTES_MAX);
    let_in(&longest);
    let_in(&format!("{longest}frames"));
    assert_eq!(judged(&longest[..HEAD_BYTES_MAX - 1]), Ok(None));
    refused(&and(&format!("X: {}", "x".repeat(filler + 1))), HandshakeReject::TooLarge, "431");
    refused(&format!("GET /{}", "x".repeat(HEAD_BYTES_MAX)), HandshakeReject::TooLarge, "431");
}

#[test]
fn sixty_four_headers_are_taken_and_one_more_is_431() {
    let more = |count: usize| and(&vec!["X: y"; count].join("\r\n"));
    let_in(&more(HEADERS_MAX - 5));
    refused(&more(HEADERS_MAX - 4), HandshakeReject::TooLarge, "431");
}

#[test]
fn every_response_is_whole_and_closes() {
    for (index, reject) in HandshakeReject::ALL.into_iter().enumerate() {
        assert_eq!(reject as usize, index, "in order, none missing");
        let mut headers = [httparse::EMPTY_HEADER; 8];
        let mut parsed = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(head) = parsed.parse(reject.response()).unwrap() else {
            panic!("{reject:?}: no whole head");
        };
        let value = |name| {
            let header = parsed.headers.iter().find(|header| header.name == name);
            core::str::from_utf8(header.expect(name).value).unwrap()
        };
        let body = &reject.response()[head..];
        assert_eq!(value("Content-Length").parse(), Ok(body.len()), "{reject:?}");
        assert!(value("Connection").starts_with("close"));
        assert_eq!(body.iter().position(|&byte| byte == b'\n'), Some(body.len() - 1), "one line");
    }
}
