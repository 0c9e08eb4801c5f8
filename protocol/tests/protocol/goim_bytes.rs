//! Packets byte for byte as goim v2 and its clients write them.

use halley_protocol::login::Login;
use halley_protocol::packet::{self, Packet};
use halley_protocol::{client, operation, push, reply};

const JSON: &[u8] = br#"{"mid":123, "room_id":"live://1000", "platform":"web", "accepts":[1000,1001,1002]}"#;

/// Bytes from hexadecimal digits and blanks, then `body`.
fn bytes(hex: &str, body: &[u8]) -> Vec<u8> {
    let head = hex.split_whitespace().map(|digits| u8::from_str_radix(digits, 16).expect("hexadecimal"));
    head.chain(body.iter().copied()).collect()
}

/// A packet of version 1 is these bytes, both ways.
#[track_caller]
fn is(operation: i32, sequence: i32, body: &[u8], wire: &[u8]) {
    let packet = Packet { version: 1, operation, sequence, body };
    assert_eq!(packet::decode(wire), Ok(Some(packet)));
    assert_eq!(packet::decode_message(wire), Ok(packet));
    let mut out = [0; reply::REPLY_BYTES_MAX];
    let written = reply::write_tcp(&packet, &mut out);
    assert_eq!(&out[..written], wire);
    assert_eq!(client::packet(operation, sequence, body), wire);
}

#[test]
fn auth() {
    let wire = bytes("00 00 00 62 00 10 00 01 00 00 00 07 00 00 00 01", JSON);
    is(operation::AUTH, 1, JSON, &wire);
    let login = Login::parse(JSON).unwrap();
    let expected = Login {
        mid: 123,
        room_id: "live://1000".into(),
        platform: "web".into(),
        accepts: vec![1000, 1001, 1002],
        ..Login::default()
    };
    assert_eq!(login, expected);
}

#[test]
fn auth_reply() {
    let wire = bytes("00 00 00 10 00 10 00 01 00 00 00 08 00 00 00 01", b"");
    is(operation::AUTH_REPLY, 1, b"", &wire);
}

#[test]
fn heartbeat() {
    let wire = bytes("00 00 00 10 00 10 00 01 00 00 00 02 00 00 00 01", b"");
    is(operation::HEARTBEAT, 1, b"", &wire);
    assert_eq!(client::heartbeat(1)[..], wire);
}

#[test]
fn heartbeat_reply_with_seven_online() {
    let wire = bytes("00 00 00 14 00 10 00 01 00 00 00 03 00 00 00 01 00 00 00 07", b"");
    is(operation::HEARTBEAT_REPLY, 1, &7_i32.to_be_bytes(), &wire);
}

#[test]
fn change_room_and_its_reply() {
    let room = b"live://2000";
    let wire = bytes("00 00 00 1b 00 10 00 01 00 00 00 0c 00 00 00 02", room);
    is(operation::CHANGE_ROOM, 2, room, &wire);
    let wire = bytes("00 00 00 1b 00 10 00 01 00 00 00 0d 00 00 00 02", room);
    is(operation::CHANGE_ROOM_REPLY, 2, room, &wire);
}

#[test]
fn subscribe_and_its_reply() {
    let list = b"1000,1001";
    let wire = bytes("00 00 00 19 00 10 00 01 00 00 00 0e 00 00 00 03", list);
    is(operation::SUBSCRIBE, 3, list, &wire);
    let wire = bytes("00 00 00 19 00 10 00 01 00 00 00 0f 00 00 00 03", list);
    is(operation::SUBSCRIBE_REPLY, 3, list, &wire);
}

#[test]
fn a_push_on_both_transports() {
    let inner = bytes("00 00 00 1a 00 10 00 01 00 00 03 e8 00 00 00 00", br#"{"test":1}"#);
    let framed = bytes("82 2a 00 00 00 2a 00 10 00 01 00 00 00 09 00 00 00 00", &inner);
    let (buffer, start) = push::encode(1000, br#"{"test":1}"#);
    assert_eq!(buffer[push::INNER_START..], inner);
    assert_eq!(buffer[usize::from(start)..], framed);
}

#[test]
fn a_reply_on_websocket_is_one_binary_frame() {
    let packet = Packet { version: 1, operation: 3, sequence: 1, body: &[0, 0, 0, 7] };
    let mut out = [0; reply::REPLY_BYTES_MAX];
    let written = reply::write_websocket(&packet, &mut out);
    let wire = bytes("82 14 00 00 00 14 00 10 00 01 00 00 00 03 00 00 00 01 00 00 00 07", b"");
    assert_eq!(out[..written], wire);
}

#[test]
fn the_longest_echo_fits_into_a_reply() {
    let body = [7; packet::BODY_BYTES_MAX];
    let packet = Packet { version: 1, operation: 13, sequence: 1, body: &body };
    let mut out = [0; reply::REPLY_BYTES_MAX];
    let written = reply::write_websocket(&packet, &mut out);
    assert_eq!(packet::decode_message(&out[4..written]), Ok(packet));
}

#[test]
fn operation_codes() {
    use operation::{
        AUTH, AUTH_REPLY, CHANGE_ROOM, CHANGE_ROOM_REPLY, HEARTBEAT, HEARTBEAT_REPLY, RAW, SUBSCRIBE, SUBSCRIBE_REPLY,
        UNSUBSCRIBE, UNSUBSCRIBE_REPLY,
    };
    assert_eq!([HEARTBEAT, HEARTBEAT_REPLY, AUTH, AUTH_REPLY, RAW], [2, 3, 7, 8, 9]);
    assert_eq!([CHANGE_ROOM, CHANGE_ROOM_REPLY, SUBSCRIBE, SUBSCRIBE_REPLY], [12, 13, 14, 15]);
    assert_eq!([UNSUBSCRIBE, UNSUBSCRIBE_REPLY], [16, 17]);
}
