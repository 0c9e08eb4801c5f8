//! Bodies of Halley's own operations.

use halley_protocol::halley::{
    JoinReply, JoinStatus, Kick, LeaveStatus, RETRY_BYTES_MAX, RefreshReply, RefreshStatus, retry_ms, retry_text,
};
use halley_protocol::operation;

#[test]
fn codes_lie_below_the_base() {
    assert_eq!(operation::HALLEY_BASE, -1_212_219_392);
    let codes = [operation::JOIN, operation::JOIN_REPLY, operation::LEAVE, operation::LEAVE_REPLY];
    assert_eq!(codes, [-1_212_219_393, -1_212_219_394, -1_212_219_395, -1_212_219_396]);
    let codes = [operation::KICK, operation::REFRESH, operation::REFRESH_REPLY];
    assert_eq!(codes, [-1_212_219_397, -1_212_219_399, -1_212_219_400]);
}

#[test]
fn a_join_reply_is_status_and_members() {
    let reply = JoinReply { status: JoinStatus::TooManyRooms, members: 258 };
    assert_eq!(reply.to_bytes(), [0, 0, 0, 2, 0, 0, 1, 2]);
    for status in [JoinStatus::Joined, JoinStatus::Refused, JoinStatus::TooManyRooms, JoinStatus::RoomFull] {
        let reply = JoinReply { status, members: i32::MAX };
        assert_eq!(JoinReply::parse(&reply.to_bytes()), Some(reply));
    }
    assert_eq!(JoinReply::parse(&[0, 0, 0, 4, 0, 0, 0, 0]), None);
    assert_eq!(JoinReply::parse(&[0; 7]), None);
}

#[test]
fn a_leave_reply_is_a_status() {
    assert_eq!(LeaveStatus::NotMember.to_bytes(), [0, 0, 0, 1]);
    for status in [LeaveStatus::Left, LeaveStatus::NotMember] {
        assert_eq!(LeaveStatus::parse(&status.to_bytes()), Some(status));
    }
    assert_eq!(LeaveStatus::parse(&[0, 0, 0, 2]), None);
    assert_eq!(LeaveStatus::parse(&[0; 3]), None);
}

#[test]
fn a_kick_is_code_and_text() {
    let kick = Kick { code: 4005, text: "bye €" };
    let mut out = [0; 32];
    let bytes = kick.write(&mut out);
    assert_eq!(&out[..bytes], b"\0\0\x0f\xa5bye \xe2\x82\xac");
    assert_eq!(Kick::parse(&out[..bytes]), Some(kick));
    assert_eq!(Kick::parse(&out[..bytes - 1]), None, "half a character");
    assert_eq!(Kick::parse(&out[..3]), None);
}

#[test]
fn a_kick_may_say_when_to_come_back() {
    for (ms, text) in
        [(0, "drain; retry_ms=0"), (12_500, "drain; retry_ms=12500"), (u32::MAX, "drain; retry_ms=4294967295")]
    {
        let mut out = [0; 5 + RETRY_BYTES_MAX];
        let bytes = retry_text("drain", ms, &mut out);
        assert_eq!(&out[..bytes], text.as_bytes());
        assert_eq!(Kick { code: 1012, text }.retry_ms(), Some(ms));
    }
    for text in ["drain", "", "; retry_ms=", "; retry_ms=+1", "; retry_ms=4294967296", "; retry_ms=1 s", "retry_ms=1"] {
        assert_eq!(retry_ms(text), None, "{text:?}");
    }
}

#[test]
fn a_refresh_reply_is_status_and_seconds() {
    let reply = RefreshReply { status: RefreshStatus::Refused, seconds: 258 };
    assert_eq!(reply.to_bytes(), [0, 0, 0, 1, 0, 0, 1, 2]);
    for status in [RefreshStatus::Refreshed, RefreshStatus::Refused] {
        let reply = RefreshReply { status, seconds: i32::MAX };
        assert_eq!(RefreshReply::parse(&reply.to_bytes()), Some(reply));
    }
    assert_eq!(RefreshReply::parse(&[0, 0, 0, 2, 0, 0, 0, 0]), None);
    assert_eq!(RefreshReply::parse(&[0; 7]), None);
}
