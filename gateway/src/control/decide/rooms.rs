//! The decisions on changes of room, joins and leaves.

use super::{Control, Refusal};
use crate::directory::JoinOrdered;
use crate::ids::{ConnWord, ShardIndex};
use crate::limits;
use crate::order::Verdict;

impl Control {
    /// goim's change of room: the login room is now this one; an empty name, none.
    pub(super) fn change_room(&mut self, conn: ConnWord, body: &[u8]) -> Result<Verdict, Refusal> {
        if body.is_empty() {
            return Ok(Verdict::Move(None));
        }
        Ok(Verdict::Move(Some(self.order_join(conn, body)?.room)))
    }

    /// Halley's join of a further room. A refusal is told in the reply.
    pub(super) fn join(&mut self, conn: ConnWord, body: &[u8]) -> Result<Verdict, Refusal> {
        let JoinOrdered { room, members } = self.order_join(conn, body)?;
        Ok(Verdict::Join { room, members: u32::try_from(members).unwrap_or(u32::MAX) })
    }

    /// Halley's leave. A name that no room can have is a room that nobody is in.
    pub(super) fn leave(&self, shard: ShardIndex, body: &[u8]) -> Verdict {
        let name = name(body).ok();
        Verdict::Leave(name.and_then(|name| self.directory().room_in(shard, name)))
    }

    fn order_join(&mut self, conn: ConnWord, body: &[u8]) -> Result<JoinOrdered, Refusal> {
        let name = name(body)?;
        self.check_room(conn, name)?;
        self.writer.order_join(conn.shard(), name).map_err(|_| Refusal::RoomsTooMany)
    }
}

fn name(body: &[u8]) -> Result<&str, Refusal> {
    let name = std::str::from_utf8(body).map_err(|_| Refusal::RoomNameBad)?;
    check_name(name)?;
    Ok(name)
}

/// A room's name has a byte at least, and not more than the limit.
pub(super) fn check_name(name: &str) -> Result<(), Refusal> {
    if name.is_empty() || name.len() > limits::ROOM_NAME_BYTES_MAX {
        return Err(Refusal::RoomNameBad);
    }
    Ok(())
}
