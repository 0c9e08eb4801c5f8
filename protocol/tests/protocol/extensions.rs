//! Offers of `Sec-WebSocket-Extensions`: which of them is taken, and in what words.

use halley_protocol::websocket::client;
use halley_protocol::websocket::handshake::{ANSWER_BYTES, HandshakeReject, Rules, answer, parse};

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const PLAIN: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

/// What the response says of extensions to a request with these header lines; empty: nothing.
fn answered(lines: &[&str]) -> Result<String, HandshakeReject> {
    let request = client::request("localhost", "/sub", KEY);
    let lines: Vec<_> = lines.iter().map(|line| format!("Sec-WebSocket-Extensions: {line}\r\n")).collect();
    let request = format!("{}{}\r\n", &request[..request.len() - 2], lines.concat());
    let rules = Rules { path: "/sub", origins: &[], deflate: true };
    let upgrade = parse(request.as_bytes(), &rules)?.expect("a whole head");
    let mut out = [0; ANSWER_BYTES];
    let bytes = answer(&upgrade, &mut out);
    let text = std::str::from_utf8(&out[..bytes]).expect("text");
    let head = text.strip_suffix("\r\n\r\n").expect("an empty line at the end");
    let line = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Extensions: "));
    assert_eq!(client::response(text.as_bytes(), KEY).is_ok(), line.is_none(), "{text}");
    Ok(line.unwrap_or_default().to_owned())
}

#[test]
fn what_clients_offer_is_taken() {
    for offer in [
        "permessage-deflate",
        "permessage-deflate; client_max_window_bits",
        "permessage-deflate; client_max_window_bits=15",
        "permessage-deflate;client_max_window_bits=\"8\" ; server_no_context_takeover",
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
        " , permessage-deflate,",
        "x-webkit-deflate-frame, permessage-deflate; client_max_window_bits",
        "other; unknown=\"quoted\"; flag, permessage-deflate",
        "permessage-deflate; server_max_window_bits=10, permessage-deflate",
        "permessage-deflate; unknown, permessage-deflate; client_max_window_bits",
    ] {
        assert_eq!(answered(&[offer]).as_deref(), Ok(PLAIN), "{offer}");
    }
    assert_eq!(answered(&["other", "permessage-deflate"]).as_deref(), Ok(PLAIN), "several headers are one list");
}

#[test]
fn the_first_offer_that_can_be_taken_is() {
    let window = format!("{PLAIN}; server_max_window_bits=15");
    let offers = "permessage-deflate; server_max_window_bits=9, permessage-deflate; server_max_window_bits=15, \
                  permessage-deflate";
    assert_eq!(answered(&[offers]), Ok(window), "a bound on the window is answered");
}

#[test]
fn offers_in_other_words_are_declined() {
    for offer in [
        "",
        "other",
        "permessage-bzip2",
        "permessage-deflate; unknown",
        "permessage-deflate; server_max_window_bits",
        "permessage-deflate; server_max_window_bits=14",
        "permessage-deflate; server_max_window_bits=16",
        "permessage-deflate; client_max_window_bits=7",
        "permessage-deflate; client_max_window_bits=08",
        "permessage-deflate; client_max_window_bits=16",
        "permessage-deflate; server_no_context_takeover=1",
        "permessage-deflate; client_no_context_takeover=true",
        "permessage-deflate; client_max_window_bits; client_max_window_bits=10",
        "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
    ] {
        assert_eq!(answered(&[offer]).as_deref(), Ok(""), "{offer}");
    }
    assert_eq!(answered(&[]).as_deref(), Ok(""), "nothing is offered");
}

#[test]
fn a_header_that_is_none_ends_the_handshake() {
    for offer in [
        ";",
        "permessage-deflate;",
        "permessage-deflate; =1",
        "permessage-deflate; client_max_window_bits=",
        "permessage-deflate; client_max_window_bits=\"10",
        "permessage-deflate client_max_window_bits",
        "permessage-deflate; a=\"two words\"",
        "permessage/deflate",
        "other, \"quoted\"",
    ] {
        assert_eq!(answered(&[offer]), Err(HandshakeReject::Malformed), "{offer}");
    }
}

#[test]
fn a_client_of_halleys_own_understands_the_answer() {
    let request = client::deflate_request("localhost", "/sub", KEY);
    for deflate in [true, false] {
        let upgrade = parse(request.as_bytes(), &Rules { path: "/sub", origins: &[], deflate });
        let upgrade = upgrade.expect("sound").expect("whole");
        let mut out = [0; ANSWER_BYTES];
        let bytes = answer(&upgrade, &mut out);
        assert_eq!(client::deflate_response(&out[..bytes], KEY).ok(), deflate.then_some(Some(bytes)));
        assert_eq!(client::response(&out[..bytes], KEY).ok(), (!deflate).then_some(Some(bytes)));
        assert_eq!(client::deflate_response(&out[..20], KEY), Ok(None));
    }
}
