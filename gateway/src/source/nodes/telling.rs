//! What this node tells the others: a beat, and the parts of its rooms that have changed.

use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::sync::Arc;

use halley_protocol::node::{Key, PART_ROOMS_MAX, PARTS_MAX, Rooms, V1, write};

use crate::directory::{Directory, RoomCount};

/// Bytes of rooms that go with one beat, but for the last part among them; further parts go with the next.
pub(super) const ROOM_BYTES_PER_BEAT_MAX: usize = 1 << 19;

/// Bytes of one record: below what brokers take without being asked.
const PART_BYTES_MAX: usize = 900_000;

/// A record: its key and its value, `None` to end it.
pub type Told = (String, Option<Vec<u8>>);

/// What was told so far.
pub struct Telling {
    own: String,
    rooms_max: usize,
    sequence: u64,
    /// For each part, what was told of it.
    parts: Vec<Last>,
    /// Where the next look at the parts begins.
    next: usize,
    left_out: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    /// There is no record.
    Nothing,
    /// There may be a record, of whatever.
    Unknown,
    /// The rooms with this hash.
    Rooms(u64),
}

impl Telling {
    /// Nothing told yet. Of more rooms than `rooms_max` the smallest are left out.
    pub fn new(own: String, rooms_max: usize) -> Self {
        let parts = vec![Last::Nothing; usize::from(PARTS_MAX)];
        Self { own, rooms_max, sequence: 0, parts, next: 0, left_out: 0 }
    }

    /// The next sequence number.
    pub fn number(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    /// Rooms left out at the last look.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// It is not known any more what the others have heard.
    pub fn tell_again(&mut self) {
        self.parts.fill(Last::Unknown);
    }

    /// Records of the parts that have changed, as many as go with one beat.
    pub fn rooms(&mut self, directory: &Directory) -> Vec<Told> {
        let mut parts = self.divide(directory);
        let mut records = Vec::new();
        let (mut bytes, first) = (0, self.next);
        for at in (first..parts.len()).chain(0..first) {
            if bytes >= ROOM_BYTES_PER_BEAT_MAX {
                break;
            }
            self.next = (at + 1) % parts.len();
            let rooms = &mut parts[at];
            rooms.sort_unstable();
            let now = if rooms.is_empty() { Last::Nothing } else { Last::Rooms(hash(&*rooms)) };
            if self.parts[at] == now {
                continue;
            }
            self.parts[at] = now;
            let record = self.record(at, rooms);
            bytes += record.1.as_ref().map_or(0, Vec::len);
            records.push(record);
        }
        records
    }

    fn record(&mut self, at: usize, rooms: &[(Arc<str>, u32)]) -> Told {
        let key = Key::Rooms(&self.own, u16::try_from(at).expect("a part's number")).write();
        if rooms.is_empty() {
            return (key, None);
        }
        let members = rooms.iter().map(|(name, members)| (name.to_string(), *members)).collect();
        (key, write(&V1::Rooms(Rooms { sequence: self.number(), members })))
    }

    /// This node's rooms by parts, the largest first.
    fn divide(&mut self, directory: &Directory) -> Vec<Vec<(Arc<str>, u32)>> {
        let mut parts = vec![Vec::new(); self.parts.len()];
        let mut bytes = vec![0; self.parts.len()];
        let rooms = directory.rooms_here(self.rooms_max);
        let mut told = 0;
        for RoomCount { name, members } in rooms {
            let at = usize::try_from(hash(&*name) % parts.len() as u64).expect("a part's number");
            bytes[at] += name.len() + 16;
            if members > 0 && bytes[at] <= PART_BYTES_MAX && parts[at].len() < PART_ROOMS_MAX {
                parts[at].push((name, u32::try_from(members).unwrap_or(u32::MAX)));
                told += 1;
            }
        }
        self.left_out = directory.rooms().saturating_sub(told);
        parts
    }

    /// Ends every record of this node, its beat first: whoever reads that needs no other.
    pub fn end(&self) -> Vec<Told> {
        let parts = (0..PARTS_MAX).filter(|part| self.parts[usize::from(*part)] != Last::Nothing);
        let parts = parts.map(|part| (Key::Rooms(&self.own, part).write(), None));
        [(Key::Beat(&self.own).write(), None)].into_iter().chain(parts).collect()
    }
}

fn hash(of: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}
