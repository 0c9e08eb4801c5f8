//! Why a connection ended and why a delivery was dropped: closed lists, each entry numbered, named and counted.

/// Why a connection ended. Exactly one per connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum CloseReason {
    /// The peer closed its end.
    PeerClosed,
    /// The peer's end broke: reset or timed out.
    PeerReset,
    /// A packet length under 16 or beyond its message, or a header length other than 16.
    PacketMalformed,
    /// A packet above the packet limit.
    PacketTooBig,
    /// A TLS handshake that failed; the peer got the alert.
    TlsHandshake,
    /// A TLS record that cannot be opened or may not come; the peer got the alert.
    TlsRecord,
    /// The keys of a TLS 1.2 connection have sealed as many records as they may.
    TlsWorn,
    /// The source network has as many connections as it may have; over WebSocket the peer got the status.
    NetworkFull,
    /// Not a proxy whose word is taken, on a listener where a proxy speaks first.
    ProxyUntrusted,
    /// A proxy's header that is none.
    ProxyMalformed,
    /// The HTTP upgrade was refused; the peer got the status.
    HandshakeRefused,
    /// A WebSocket frame against RFC 6455.
    FrameMalformed,
    /// A text message that holds no packet.
    FrameWrongType,
    /// Text or a close reason that is not UTF-8.
    FrameNotUtf8,
    /// A compressed WebSocket message that is no deflate.
    FrameNotDeflate,
    /// A WebSocket message above its limit in bytes, fragments or deflate blocks.
    FrameTooBig,
    /// No login within `login_ms_max`.
    LoginLate,
    /// The login was refused: bad JSON, no permission, key in use.
    LoginRefused,
    /// No heartbeat within `heartbeat_ms_max`.
    HeartbeatMissed,
    /// A newer connection took the key.
    Replaced,
    /// Ended by an operator.
    Kicked,
    /// More packets or bytes in a time than a client may say.
    TooFast,
    /// More unsent bytes than `outbox_bytes_max` under the policy `close`.
    TooSlow,
    /// No byte taken for `stall_ms_max`.
    Stalled,
    /// The shard's memory for blocked connections was used up.
    OutboxPool,
    /// The shard's buffers for unfinished packets were used up; the oldest went.
    PartialPool,
    /// A room name above its limit or not UTF-8.
    RoomNameBad,
    /// The room of a login or of a change has as many members as it may have.
    RoomFull,
    /// goim v1: an operation that it does not have, or that is not the login where that is due.
    OperationUnknown,
    /// The gateway drains or stops.
    Drain,
    /// The token that let it in has ended.
    GrantExpired,
    /// The token that let it in, or its member or key, was revoked.
    GrantRevoked,
    /// The platform could not be asked about it, or gave no answer.
    HookFailed,
}

impl CloseReason {
    /// Every reason, in order of its number.
    pub const ALL: [Self; 33] = [
        Self::PeerClosed,
        Self::PeerReset,
        Self::PacketMalformed,
        Self::PacketTooBig,
        Self::TlsHandshake,
        Self::TlsRecord,
        Self::TlsWorn,
        Self::NetworkFull,
        Self::ProxyUntrusted,
        Self::ProxyMalformed,
        Self::HandshakeRefused,
        Self::FrameMalformed,
        Self::FrameWrongType,
        Self::FrameNotUtf8,
        Self::FrameNotDeflate,
        Self::FrameTooBig,
        Self::LoginLate,
        Self::LoginRefused,
        Self::HeartbeatMissed,
        Self::Replaced,
        Self::Kicked,
        Self::TooFast,
        Self::TooSlow,
        Self::Stalled,
        Self::OutboxPool,
        Self::PartialPool,
        Self::RoomNameBad,
        Self::RoomFull,
        Self::OperationUnknown,
        Self::Drain,
        Self::GrantExpired,
        Self::GrantRevoked,
        Self::HookFailed,
    ];

    /// The label in metrics, logs and the kick text.
    pub fn name(self) -> &'static str {
        match self {
            Self::PeerClosed => "peer-closed",
            Self::PeerReset => "peer-reset",
            Self::PacketMalformed => "packet-malformed",
            Self::PacketTooBig => "packet-too-big",
            Self::TlsHandshake => "tls-handshake",
            Self::TlsRecord => "tls-record",
            Self::TlsWorn => "tls-worn",
            Self::NetworkFull => "network-full",
            Self::ProxyUntrusted => "proxy-untrusted",
            Self::ProxyMalformed => "proxy-malformed",
            Self::HandshakeRefused => "handshake-refused",
            Self::FrameMalformed => "frame-malformed",
            Self::FrameWrongType => "frame-wrong-type",
            Self::FrameNotUtf8 => "frame-not-utf8",
            Self::FrameNotDeflate => "frame-not-deflate",
            Self::FrameTooBig => "frame-too-big",
            Self::LoginLate => "login-late",
            Self::LoginRefused => "login-refused",
            Self::HeartbeatMissed => "heartbeat-missed",
            Self::Replaced => "replaced",
            Self::Kicked => "kicked",
            Self::TooFast => "too-fast",
            Self::TooSlow => "too-slow",
            Self::Stalled => "stalled",
            Self::OutboxPool => "outbox-pool",
            Self::PartialPool => "partial-pool",
            Self::RoomNameBad => "room-name-bad",
            Self::RoomFull => "room-full",
            Self::OperationUnknown => "operation-unknown",
            Self::Drain => "drain",
            Self::GrantExpired => "grant-expired",
            Self::GrantRevoked => "grant-revoked",
            Self::HookFailed => "hook-failed",
        }
    }

    /// The WebSocket close code told to the peer; also the code in Halley's kick. `None`: nothing
    /// is told, because the peer is gone or has its HTTP answer or alert.
    pub fn code(self) -> Option<u16> {
        match self {
            Self::PeerClosed
            | Self::PeerReset
            | Self::TlsHandshake
            | Self::TlsRecord
            | Self::NetworkFull
            | Self::ProxyUntrusted
            | Self::ProxyMalformed
            | Self::HandshakeRefused => None,
            Self::PacketMalformed | Self::FrameMalformed | Self::OperationUnknown => Some(1002),
            Self::FrameWrongType => Some(1003),
            Self::FrameNotUtf8 | Self::FrameNotDeflate => Some(1007),
            Self::PacketTooBig | Self::FrameTooBig | Self::RoomNameBad => Some(1009),
            Self::Drain | Self::TlsWorn => Some(1012),
            Self::OutboxPool | Self::PartialPool | Self::HookFailed => Some(1013),
            Self::LoginLate => Some(4001),
            Self::LoginRefused | Self::RoomFull => Some(4002),
            Self::HeartbeatMissed => Some(4003),
            Self::Replaced => Some(4004),
            Self::Kicked => Some(4005),
            Self::TooSlow | Self::Stalled => Some(4006),
            Self::GrantExpired | Self::GrantRevoked => Some(4007),
            Self::TooFast => Some(4008),
        }
    }

    /// The reason's number: its place in [`CloseReason::ALL`].
    pub fn at(self) -> usize {
        self as usize
    }
}

/// Why a delivery (one message to one connection) did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum DropReason {
    /// The connection's outbox was full and its policy is `drop-newest`.
    SlowNewest,
    /// The connection's outbox was full and its policy is `drop-oldest`.
    SlowOldest,
    /// The connection ended with the message unsent.
    Closed,
    /// More waited in the room than `room_pending_bytes_max`.
    RoomBehind,
}

impl DropReason {
    /// Every reason, in order of its number.
    pub const ALL: [Self; 4] = [Self::SlowNewest, Self::SlowOldest, Self::Closed, Self::RoomBehind];

    /// The label in metrics and `/v1/stats`.
    pub fn name(self) -> &'static str {
        match self {
            Self::SlowNewest => "slow-newest",
            Self::SlowOldest => "slow-oldest",
            Self::Closed => "closed",
            Self::RoomBehind => "room-behind",
        }
    }

    /// The reason's number: its place in [`DropReason::ALL`].
    pub fn at(self) -> usize {
        self as usize
    }
}

/// How a TLS handshake ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Handshake {
    /// It was complete, with a new exchange of keys and certificates.
    Full,
    /// It was complete, with a ticket of an earlier connection.
    Resumed,
    /// It failed; connections that ended during it for other reasons are not counted.
    Failed,
}

impl Handshake {
    /// Every end, in order of its number.
    pub const ALL: [Self; 3] = [Self::Full, Self::Resumed, Self::Failed];

    /// The label in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Resumed => "resumed",
            Self::Failed => "failed",
        }
    }

    /// The number: its place in [`Handshake::ALL`].
    pub fn at(self) -> usize {
        self as usize
    }
}

/// What a shard refused without closing anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Reject {
    /// An order for a connection that is gone.
    StaleConnection,
    /// An order for a room index that has been given to another room, or to none.
    StaleRoom,
    /// A join beyond `rooms_per_connection_max`.
    TooManyRooms,
    /// A join of a room that has as many members as it may have.
    RoomFull,
    /// A subscription beyond `accepts_max` or `accept_sets_max`; echoed without effect, as goim does.
    TooManyAccepts,
    /// An accept that the kernel failed, for example for want of files.
    AcceptFailed,
    /// A subscription that the connection's token does not allow; echoed without effect.
    NotGranted,
}

impl Reject {
    /// Every reject, in order of its number.
    pub const ALL: [Self; 7] = [
        Self::StaleConnection,
        Self::StaleRoom,
        Self::TooManyRooms,
        Self::RoomFull,
        Self::TooManyAccepts,
        Self::AcceptFailed,
        Self::NotGranted,
    ];

    /// The label in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::StaleConnection => "stale-connection",
            Self::StaleRoom => "stale-room",
            Self::TooManyRooms => "too-many-rooms",
            Self::RoomFull => "room-full",
            Self::TooManyAccepts => "too-many-accepts",
            Self::AcceptFailed => "accept-failed",
            Self::NotGranted => "not-granted",
        }
    }

    /// The reject's number: its place in [`Reject::ALL`].
    pub fn at(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_places_in_the_lists() {
        assert!(CloseReason::ALL.iter().enumerate().all(|(at, reason)| reason.at() == at));
        assert!(DropReason::ALL.iter().enumerate().all(|(at, reason)| reason.at() == at));
        assert!(Handshake::ALL.iter().enumerate().all(|(at, end)| end.at() == at));
        assert!(Reject::ALL.iter().enumerate().all(|(at, reject)| reject.at() == at));
    }

    #[test]
    fn close_codes_may_be_sent_on_a_websocket() {
        for code in CloseReason::ALL.iter().filter_map(|reason| reason.code()) {
            assert!(matches!(code, 1000..=1003 | 1007..=1013 | 4000..=4999), "{code}");
        }
    }
}
