//! WebSocket close codes that Halley sends, and which codes a client may send (RFC 6455 7.4).

/// The client broke the WebSocket or the packet rules.
pub const PROTOCOL: u16 = 1002;
/// A text message that holds no packet.
pub const WRONG_TYPE: u16 = 1003;
/// Text that is not UTF-8.
pub const BAD_UTF8: u16 = 1007;
/// A message or packet over its limit.
pub const TOO_BIG: u16 = 1009;
/// The gateway restarts or drains: connect again.
pub const RESTART: u16 = 1012;
/// The gateway is short of memory for this connection: try again.
pub const TRY_AGAIN: u16 = 1013;
/// No login within the deadline.
pub const LOGIN_LATE: u16 = 4001;
/// The login was refused.
pub const LOGIN_REFUSED: u16 = 4002;
/// No heartbeat within the deadline.
pub const HEARTBEAT_MISSED: u16 = 4003;
/// A newer connection took the key.
pub const REPLACED: u16 = 4004;
/// Kicked by the operator or the application.
pub const KICKED: u16 = 4005;
/// The client reads too slowly.
pub const TOO_SLOW: u16 = 4006;
/// The grant of the login has expired.
pub const GRANT_EXPIRED: u16 = 4007;
/// The client says more than it may.
pub const TOO_FAST: u16 = 4008;

/// Whether a close frame may carry `code`: 1000–1003, 1007–1014 (registered, and not reserved for
/// local use as 1005, 1006 and 1015 are) and 3000–4999 (libraries and applications).
pub const fn is_legal(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}
