//! What nodes tell each other through a compacted topic: that they live, who is in their rooms, and what all are to do.
//!
//! A record's key says whose it is and what; a record takes the place of the one before it with the same key, and one
//! without a value ends it.
//!
//! | key | value | written |
//! |---|---|---|
//! | `beat/NODE` | [`Beat`] | several times within the time after which a node counts as gone |
//! | `rooms/NODE/PART` | [`Rooms`]: the rooms whose names fall into this part | when one of them has changed |
//! | `command/NODE/NUMBER` | [`Command`] | once; numbers come round again |
//!
//! A value is a header as [an envelope's](crate::job::envelope) with another magic, then an archive of [`V1`].

use rkyv::rancor::Failure;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Serialize};

use crate::job::JobReject;
use crate::job::envelope::{open, seal};

/// How a value begins.
pub const MAGIC: [u8; 4] = *b"\xffHN0";

/// The version that is written.
pub const VERSION: u16 = 1;

/// Bytes of a node's id, which names it in keys.
pub const ID_BYTES_MAX: usize = 320;

/// Parts that a node's rooms may be told in.
pub const PARTS_MAX: u16 = 256;

/// Rooms of one part.
pub const PART_ROOMS_MAX: usize = 8192;

/// Bytes of a room's name.
pub const ROOM_BYTES_MAX: usize = 256;

/// Bytes of a command's body, and of what a node says about itself.
pub const BODY_BYTES_MAX: usize = 65_536;

/// What a record's key names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key<'a> {
    /// The node's sign of life.
    Beat(&'a str),
    /// A part of its rooms.
    Rooms(&'a str, u16),
    /// Something that it wants done.
    Command(&'a str, u64),
}

impl<'a> Key<'a> {
    /// Reads a key; anything else is none.
    pub fn read(key: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(key).ok()?;
        let named = |id: &'a str| (!id.is_empty() && id.len() <= ID_BYTES_MAX && !id.contains('/')).then_some(id);
        match text.split_once('/')? {
            ("beat", id) => Some(Self::Beat(named(id)?)),
            ("rooms", rest) => {
                let (id, part) = rest.split_once('/')?;
                Some(Self::Rooms(named(id)?, part.parse().ok().filter(|part| *part < PARTS_MAX)?))
            }
            ("command", rest) => {
                let (id, number) = rest.split_once('/')?;
                Some(Self::Command(named(id)?, number.parse().ok()?))
            }
            _ => None,
        }
    }

    /// The key as it is written.
    pub fn write(&self) -> String {
        match self {
            Self::Beat(id) => format!("beat/{id}"),
            Self::Rooms(id, part) => format!("rooms/{id}/{part}"),
            Self::Command(id, number) => format!("command/{id}/{number}"),
        }
    }
}

/// A node's sign of life, and what it says of itself.
#[derive(Archive, Serialize, Clone, Debug, PartialEq, Eq)]
pub struct Beat {
    /// Grows with each.
    pub sequence: u64,
    /// Its logged-in connections.
    pub connections: u64,
    /// Their distinct IP addresses.
    pub addresses: u64,
    /// Its rooms.
    pub rooms: u64,
    /// Rooms of these that it does not tell of, because there are too many.
    pub left_out: u64,
    /// Jobs that wait for it in Kafka.
    pub lag: u64,
    /// It is being stopped.
    pub draining: bool,
    /// Itself as goim's discovery would show it: JSON.
    pub instance: String,
}

/// Members of rooms, as one node has them.
#[derive(Archive, Serialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Rooms {
    /// Grows with each.
    pub sequence: u64,
    /// By name.
    pub members: Vec<(String, u32)>,
}

/// Something that every other node is to do.
#[derive(Archive, Serialize, Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Until when nodes that start later do it too, milliseconds since 1970. 0: only those do it that run now.
    pub until_ms: i64,
    /// What: JSON, so that a node skips what it does not know.
    pub body: String,
}

/// The body of version 1.
#[derive(Archive, Serialize, Clone, Debug, PartialEq, Eq)]
pub enum V1 {
    /// See there.
    Beat(Beat),
    /// See there.
    Rooms(Rooms),
    /// See there.
    Command(Command),
}

/// Reads a value.
pub fn read(value: &[u8]) -> Result<V1, JobReject> {
    let body = open(MAGIC, VERSION, value)?;
    let archived = rkyv::access::<ArchivedV1, Failure>(body).map_err(|Failure| JobReject::EnvelopeBody)?;
    Ok(match archived {
        ArchivedV1::Beat(beat) => V1::Beat(read_beat(beat)?),
        ArchivedV1::Rooms(rooms) => V1::Rooms(read_rooms(rooms)?),
        ArchivedV1::Command(command) => {
            V1::Command(Command { until_ms: command.until_ms.to_native(), body: text(&command.body)? })
        }
    })
}

fn read_beat(beat: &ArchivedBeat) -> Result<Beat, JobReject> {
    Ok(Beat {
        sequence: beat.sequence.to_native(),
        connections: beat.connections.to_native(),
        addresses: beat.addresses.to_native(),
        rooms: beat.rooms.to_native(),
        left_out: beat.left_out.to_native(),
        lag: beat.lag.to_native(),
        draining: beat.draining,
        instance: text(&beat.instance)?,
    })
}

/// The rooms come out in order, each once.
fn read_rooms(rooms: &ArchivedRooms) -> Result<Rooms, JobReject> {
    if rooms.members.len() > PART_ROOMS_MAX {
        return Err(JobReject::TooManyTargets);
    }
    let mut members = Vec::with_capacity(rooms.members.len());
    for room in rooms.members.iter() {
        if !(1..=ROOM_BYTES_MAX).contains(&room.0.len()) {
            return Err(JobReject::BadName);
        }
        members.push((room.0.as_str().to_owned(), room.1.to_native()));
    }
    if !members.is_sorted_by(|a, b| a.0 < b.0) {
        return Err(JobReject::EnvelopeBody);
    }
    Ok(Rooms { sequence: rooms.sequence.to_native(), members })
}

fn text(text: &rkyv::string::ArchivedString) -> Result<String, JobReject> {
    if text.len() > BODY_BYTES_MAX {
        return Err(JobReject::TooLarge);
    }
    Ok(text.as_str().to_owned())
}

/// Writes a value. `None`: it has 4 GiB or more.
pub fn write(record: &V1) -> Option<Vec<u8>> {
    let body: AlignedVec = rkyv::to_bytes::<Failure>(record).ok()?;
    seal(MAGIC, VERSION, &body)
}
