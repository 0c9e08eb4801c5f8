//! The document of the protocol says what the code does.

use halley_protocol::login::LoginReject;
use halley_protocol::packet::{BODY_BYTES_MAX, PACKET_BYTES_MAX, PacketReject};
use halley_protocol::websocket::MessageKind;
use halley_protocol::websocket::frame::{FrameLimits, FrameReject};
use halley_protocol::websocket::handshake::{HEAD_BYTES_MAX, HEADERS_MAX, HandshakeReject};
use halley_protocol::{close, operation};

const DOCUMENT: &str = include_str!("../../../docs/protocol.md");

/// Every table row as its cells.
fn rows() -> Vec<Vec<&'static str>> {
    let rows = DOCUMENT.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    rows.map(|row| row.split(" | ").collect()).collect()
}

/// The first cells of the rows with this last cell.
fn first_cells(last: &str) -> Vec<&'static str> {
    let rows = rows().into_iter().filter(|cells| cells.last() == Some(&last));
    rows.map(|cells| cells[0]).collect()
}

#[test]
fn every_mistake_is_listed_once_with_its_code() {
    let frames = FrameReject::ALL.map(|reject| (reject.name(), reject.close_code()));
    let packets = PacketReject::ALL.map(|reject| (reject.name(), reject.close_code(MessageKind::Binary)));
    for (name, code) in frames.into_iter().chain(packets) {
        assert_eq!(first_cells(&format!("`{name}`")), [code.to_string()], "{name}");
    }
    for reject in HandshakeReject::ALL {
        let status = core::str::from_utf8(&reject.response()[9..12]).expect("digits");
        assert_eq!(first_cells(&format!("`{}`", reject.name())), [status], "{reject:?}");
    }
    for reject in LoginReject::ALL {
        assert!(DOCUMENT.contains(&format!("`{}`", reject.name())));
    }
}

#[test]
fn every_operation_is_listed_under_its_number() {
    use operation as op;
    for (number, name) in [
        (op::HEARTBEAT, "heartbeat"),
        (op::HEARTBEAT_REPLY, "heartbeat reply"),
        (op::AUTH, "auth"),
        (op::AUTH_REPLY, "auth reply"),
        (op::RAW, "raw"),
        (op::CHANGE_ROOM, "change room"),
        (op::CHANGE_ROOM_REPLY, "change room reply"),
        (op::SUBSCRIBE, "subscribe"),
        (op::SUBSCRIBE_REPLY, "subscribe reply"),
        (op::UNSUBSCRIBE, "unsubscribe"),
        (op::UNSUBSCRIBE_REPLY, "unsubscribe reply"),
        (op::JOIN, "join"),
        (op::JOIN_REPLY, "join reply"),
        (op::LEAVE, "leave"),
        (op::LEAVE_REPLY, "leave reply"),
        (op::KICK, "kick"),
        (op::REFRESH, "refresh"),
        (op::REFRESH_REPLY, "refresh reply"),
    ] {
        let number = number.to_string();
        let listed = rows().iter().any(|cells| cells.windows(2).any(|pair| pair == [&number, name]));
        assert!(listed, "{number} {name}");
    }
}

#[test]
fn every_close_code_is_explained() {
    for code in [
        close::PROTOCOL,
        close::WRONG_TYPE,
        close::BAD_UTF8,
        close::TOO_BIG,
        close::RESTART,
        close::LOGIN_LATE,
        close::LOGIN_REFUSED,
        close::HEARTBEAT_MISSED,
        close::REPLACED,
        close::KICKED,
        close::TOO_SLOW,
        close::GRANT_EXPIRED,
    ] {
        let number = code.to_string();
        assert!(rows().iter().any(|cells| cells.len() == 2 && cells[0] == number), "{code}");
        assert!(close::is_legal(code));
    }
}

#[test]
fn every_limit_is_stated() {
    let FrameLimits { message_bytes_max, fragments_max, .. } = FrameLimits::default();
    for sentence in [
        format!("16 to {PACKET_BYTES_MAX}, so a body has at most {BODY_BYTES_MAX} bytes"),
        format!("at most {message_bytes_max} bytes in at most {fragments_max} frames"),
        format!("over {HEAD_BYTES_MAX} bytes of head, or over {HEADERS_MAX} headers"),
    ] {
        assert!(DOCUMENT.contains(&sentence), "{sentence}");
    }
}
