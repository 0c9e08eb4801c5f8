//! The decisions on changes of room, joins and leaves.

use halley_protocol::operation;

use super::hooks::Step;
use super::{Control, Decision, Refusal};
use crate::directory::JoinOrdered;
use crate::ids::{ConnWord, ShardIndex};
use crate::limits;
use crate::order::{Ask, Verdict};
use crate::sabotage::{Bug, planted};

impl Control {
    /// goim's change of room: the login room is now this one; an empty name, none.
    pub(super) fn change_room(&mut self, conn: ConnWord, ask: &Ask) -> Result<Decision, Refusal> {
        if ask.body().is_empty() {
            self.stays.change_room(conn, None);
            return Ok((Verdict::Move(None), None));
        }
        self.join(conn, ask)
    }

    /// A change into a room, or Halley's join of a further one; a refusal of that is told in the reply.
    pub(super) fn join(&mut self, conn: ConnWord, ask: &Ask) -> Result<Decision, Refusal> {
        let name = name(ask.body())?;
        self.check_room(conn, name)?;
        if self.policy.hooks.join {
            return self.ask_hook(conn, ask, Step::Join(name.into()));
        }
        self.enter(conn, ask.operation, name)
    }

    /// What either leads to when the room may be entered.
    pub(super) fn enter(&mut self, conn: ConnWord, operation: i32, name: &str) -> Result<Decision, Refusal> {
        if self.is_full(name) {
            let moves = operation == operation::CHANGE_ROOM;
            if moves {
                self.stays.change_room_within(conn, name);
            }
            return Ok((self.full(conn, moves, name), None));
        }
        let JoinOrdered { room, members } = self.order_join(conn.shard(), name)?;
        let entered = self.room_of(conn.shard(), room).filter(|_| self.policy.hooks.gone);
        let verdict = if operation == operation::CHANGE_ROOM {
            if entered.is_some() {
                self.stays.change_room(conn, entered);
            }
            Verdict::Move(Some(room))
        } else {
            if let Some(room) = entered {
                self.stays.join(conn, room);
            }
            Verdict::Join { room, members: u32::try_from(members).unwrap_or(u32::MAX) }
        };
        Ok((verdict, None))
    }

    /// Halley's leave. A name that no room can have is a room that nobody is in.
    pub(super) fn leave(&mut self, conn: ConnWord, body: &[u8]) -> Verdict {
        let Ok(name) = name(body) else { return Verdict::Leave(None) };
        self.stays.leave(conn, name);
        Verdict::Leave(self.directory().room_in(conn.shard(), name))
    }

    pub(super) fn order_join(&mut self, shard: ShardIndex, name: &str) -> Result<JoinOrdered, Refusal> {
        self.writer.order_join(shard, name).map_err(|_| Refusal::RoomsTooMany)
    }

    /// Whether the room has as many members as it may have, those on their way included.
    pub(super) fn is_full(&self, name: &str) -> bool {
        let members_max = self.policy.room_members_max;
        members_max > 0 && self.directory().room_size(name) >= members_max.into() && !planted(Bug::RoomOverfull)
    }

    /// Who is a member of the full room, its shard knows.
    fn full(&self, conn: ConnWord, moves: bool, name: &str) -> Verdict {
        let directory = self.directory();
        let members = u32::try_from(directory.room_size(name)).unwrap_or(u32::MAX);
        Verdict::RoomFull { room: directory.room_in(conn.shard(), name), members, moves }
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
