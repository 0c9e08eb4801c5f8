//! Plain jobs: the value is the payload as it is; headers name target and operation, or the key does.
//!
//! | header | value |
//! |---|---|
//! | `halley-room` | the room's name |
//! | `halley-keys` | connection keys, separated by commas |
//! | `halley-members` | members in decimal, separated by commas |
//! | `halley-all` | anything |
//! | `halley-operation` | in decimal; without it, [`OPERATION`] |
//!
//! Without a header for the target, and on a topic declared plain, the key says it: `room:NAME`, `key:KEY`, `member:N`, `all`,
//! and everything else is the name of a room.

use std::borrow::Cow;
use std::str::from_utf8;

use super::{Job, JobReject, JobTarget, Record};

/// How the headers' names begin.
pub const PREFIX: &str = "halley-";

/// The operation of a job that names none.
pub const OPERATION: i32 = 1000;

/// The values of a record's headers, by name.
#[derive(Clone, Copy, Debug, Default)]
pub struct Headers<'a> {
    room: Option<&'a [u8]>,
    keys: Option<&'a [u8]>,
    members: Option<&'a [u8]>,
    all: Option<&'a [u8]>,
    operation: Option<&'a [u8]>,
    /// Two of one name, or a header without a value.
    bad: bool,
}

impl<'a> Headers<'a> {
    /// Takes a header up; others than those above are ignored, such as [`super::ID_HEADER`].
    pub fn add(&mut self, name: &str, value: Option<&'a [u8]>) {
        let Some(name) = name.strip_prefix(PREFIX) else { return };
        let place = match name {
            "room" => &mut self.room,
            "keys" => &mut self.keys,
            "members" => &mut self.members,
            "all" => &mut self.all,
            "operation" => &mut self.operation,
            _ => return,
        };
        self.bad |= place.is_some() || value.is_none();
        *place = Some(value.unwrap_or_default());
    }

    /// Whether one of them names a target.
    pub fn name_a_target(&self) -> bool {
        self.targets() > 0
    }

    fn targets(&self) -> usize {
        [self.room, self.keys, self.members, self.all].iter().flatten().count()
    }

    fn operation(&self) -> Result<i32, JobReject> {
        self.operation.map_or(Ok(OPERATION), number)
    }

    fn target(&self) -> Result<Option<JobTarget>, JobReject> {
        if self.bad || self.targets() > 1 {
            return Err(JobReject::Header);
        }
        if let Some(room) = self.room {
            return Ok(Some(JobTarget::Room(text(room)?.into())));
        }
        if let Some(keys) = self.keys {
            return Ok(Some(JobTarget::Keys(text(keys)?.split(',').map(Into::into).collect())));
        }
        if let Some(members) = self.members {
            let members = members.split(|byte| *byte == b',').map(number).collect::<Result<_, _>>()?;
            return Ok(Some(JobTarget::Members(members)));
        }
        Ok(self.all.map(|_| JobTarget::All))
    }
}

/// Reads a record.
pub fn read<'a>(record: &Record<'a>) -> Result<Job<'a>, JobReject> {
    let target = match record.headers.target()? {
        Some(target) => target,
        None => of_key(record.key.ok_or(JobReject::NoTarget)?)?,
    };
    Ok(Job { target, operation: record.headers.operation()?, payload: Cow::Borrowed(record.value) })
}

fn of_key(key: &[u8]) -> Result<JobTarget, JobReject> {
    let key = from_utf8(key).map_err(|_| JobReject::BadName)?;
    Ok(match key.split_once(':') {
        Some(("room", room)) => JobTarget::Room(room.into()),
        Some(("key", key)) => JobTarget::Keys(vec![key.into()]),
        Some(("member", member)) => JobTarget::Members(vec![member.parse().map_err(|_| JobReject::BadName)?]),
        _ if key == "all" => JobTarget::All,
        _ => JobTarget::Room(key.into()),
    })
}

fn text(value: &[u8]) -> Result<&str, JobReject> {
    from_utf8(value).map_err(|_| JobReject::Header)
}

fn number<T: std::str::FromStr>(value: &[u8]) -> Result<T, JobReject> {
    text(value)?.trim().parse().map_err(|_| JobReject::Header)
}
