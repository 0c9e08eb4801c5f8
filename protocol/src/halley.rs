//! Bodies of Halley's own operations: join, leave, refresh and kick; integers are big endian int32.

/// What became of a join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum JoinStatus {
    /// The connection is a member, be it since now or since before.
    Joined = 0,
    /// The login does not allow this room, or the name is not one.
    Refused = 1,
    /// The connection is in as many rooms as it may be.
    TooManyRooms = 2,
    /// The room has as many members as it may have.
    RoomFull = 3,
}

/// Body of a join reply: `status · members`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JoinReply {
    /// What became of the join.
    pub status: JoinStatus,
    /// Members of the room, as far as the gateway knows; 0 where the status is not `Joined`.
    pub members: i32,
}

impl JoinReply {
    /// The body.
    pub const fn to_bytes(self) -> [u8; 8] {
        let [s0, s1, s2, s3] = (self.status as i32).to_be_bytes();
        let [m0, m1, m2, m3] = self.members.to_be_bytes();
        [s0, s1, s2, s3, m0, m1, m2, m3]
    }

    /// Reads a body; `None` if it is not one. Bytes behind are left to later versions.
    pub fn parse(body: &[u8]) -> Option<Self> {
        let (status, rest) = int32(body)?;
        let (members, _) = int32(rest)?;
        let status = match status {
            0 => JoinStatus::Joined,
            1 => JoinStatus::Refused,
            2 => JoinStatus::TooManyRooms,
            3 => JoinStatus::RoomFull,
            _ => return None,
        };
        Some(Self { status, members })
    }
}

/// Body of a leave reply: `status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum LeaveStatus {
    /// No push of this room begun from now on reaches the connection.
    Left = 0,
    /// The connection was not in this room.
    NotMember = 1,
}

impl LeaveStatus {
    /// The body.
    pub const fn to_bytes(self) -> [u8; 4] {
        (self as i32).to_be_bytes()
    }

    /// Reads a body; `None` if it is not one. Bytes behind are left to later versions.
    pub fn parse(body: &[u8]) -> Option<Self> {
        match int32(body)?.0 {
            0 => Some(Self::Left),
            1 => Some(Self::NotMember),
            _ => None,
        }
    }
}

/// What became of a new token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum RefreshStatus {
    /// The connection has the new grant.
    Refreshed = 0,
    /// The token is not good, or of somebody else; the grant is as it was.
    Refused = 1,
}

/// Body of a refresh reply: `status · seconds`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefreshReply {
    /// What became of the token.
    pub status: RefreshStatus,
    /// Until the grant ends.
    pub seconds: i32,
}

impl RefreshReply {
    /// The body.
    pub const fn to_bytes(self) -> [u8; 8] {
        let [s0, s1, s2, s3] = (self.status as i32).to_be_bytes();
        let [e0, e1, e2, e3] = self.seconds.to_be_bytes();
        [s0, s1, s2, s3, e0, e1, e2, e3]
    }

    /// Reads a body; `None` if it is not one. Bytes behind are left to later versions.
    pub fn parse(body: &[u8]) -> Option<Self> {
        let (status, rest) = int32(body)?;
        let (seconds, _) = int32(rest)?;
        let status = match status {
            0 => RefreshStatus::Refreshed,
            1 => RefreshStatus::Refused,
            _ => return None,
        };
        Some(Self { status, seconds })
    }
}

/// Body of a kick: `code · text`. TCP clients learn from it what WebSocket clients see in the close frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kick<'a> {
    /// The WebSocket close code, see [`crate::close`].
    pub code: i32,
    /// For people, UTF-8.
    pub text: &'a str,
}

impl<'a> Kick<'a> {
    /// Writes the body and returns its length, `4 + text.len()`, which `out` must hold.
    pub fn write(&self, out: &mut [u8]) -> usize {
        let bytes = 4 + self.text.len();
        out[..4].copy_from_slice(&self.code.to_be_bytes());
        out[4..bytes].copy_from_slice(self.text.as_bytes());
        bytes
    }

    /// Reads a body; `None` if it is not one.
    pub fn parse(body: &'a [u8]) -> Option<Self> {
        let (code, text) = int32(body)?;
        let text = core::str::from_utf8(text).ok()?;
        Some(Self { code, text })
    }

    /// After how many milliseconds the client should come back, where the text says so.
    pub fn retry_ms(&self) -> Option<u32> {
        retry_ms(self.text)
    }
}

/// What comes before the milliseconds in a text that says when to come back.
const RETRY: &str = "; retry_ms=";

/// Bytes that [`retry_text`] adds to a reason.
pub const RETRY_BYTES_MAX: usize = RETRY.len() + 10;

/// Writes `reason; retry_ms=N`, the text of a kick or a close frame that says when to come back, and returns its length.
/// `out` must hold the reason and [`RETRY_BYTES_MAX`].
pub fn retry_text(reason: &str, retry_ms: u32, out: &mut [u8]) -> usize {
    let mut digits = [0; 10];
    let mut first = digits.len();
    let mut left = retry_ms;
    loop {
        first -= 1;
        digits[first] = b'0' + u8::try_from(left % 10).unwrap_or(0);
        left /= 10;
        if left == 0 {
            break;
        }
    }
    let mut bytes = 0;
    for part in [reason.as_bytes(), RETRY.as_bytes(), &digits[first..]] {
        out[bytes..bytes + part.len()].copy_from_slice(part);
        bytes += part.len();
    }
    bytes
}

/// Reads the end of such a text; `None` if it does not say when to come back.
pub fn retry_ms(text: &str) -> Option<u32> {
    let (_, digits) = text.rsplit_once(RETRY)?;
    if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse().ok() } else { None }
}

fn int32(bytes: &[u8]) -> Option<(i32, &[u8])> {
    let (value, rest) = bytes.split_first_chunk()?;
    Some((i32::from_be_bytes(*value), rest))
}
