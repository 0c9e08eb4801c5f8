//! What is told of a connection when it is gone: kept for each one that is logged in, where somebody wants to know.
//!
//! User memory of such a connection: about 150 bytes, a longer key more, and 16 for each room.

use std::collections::HashMap;
use std::sync::Arc;

use crate::directory::Key;
use crate::ids::ConnWord;
use crate::limits::ROOMS_PER_CONNECTION_MAX;

/// A connection from its login on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stay {
    /// Its member; 0: none.
    pub member: i64,
    /// Its key.
    pub key: Key,
    /// When it logged in, seconds since 1970.
    pub since_s: u64,
    /// The rooms that it is in, the login room first if it has one.
    pub rooms: Vec<Arc<str>>,
    has_login_room: bool,
}

impl Stay {
    pub(super) fn new(member: i64, key: Key, since_s: u64, login_room: Option<Arc<str>>) -> Self {
        let has_login_room = login_room.is_some();
        Self { member, key, since_s, rooms: login_room.into_iter().collect(), has_login_room }
    }

    /// It joins a further room, as its shard does it.
    fn join(&mut self, room: Arc<str>) {
        if self.rooms.len() < ROOMS_PER_CONNECTION_MAX && !self.rooms.contains(&room) {
            self.rooms.push(room);
        }
    }

    /// Its login room is now this one, or none.
    fn change_room(&mut self, room: Option<Arc<str>>) {
        if self.has_login_room && room.as_ref() != self.rooms.first() {
            self.rooms.remove(0);
            self.has_login_room = false;
        }
        let Some(room) = room else { return };
        if let Some(at) = self.rooms.iter().position(|other| *other == room) {
            self.rooms[..=at].rotate_right(1);
        } else if self.rooms.len() < ROOMS_PER_CONNECTION_MAX {
            self.rooms.insert(0, room);
        } else {
            return;
        }
        self.has_login_room = true;
    }

    fn leave(&mut self, room: &str) {
        let Some(at) = self.rooms.iter().position(|other| **other == *room) else { return };
        self.rooms.remove(at);
        self.has_login_room &= at > 0;
    }
}

/// Everybody who is logged in.
#[derive(Debug, Default)]
pub(super) struct Stays(HashMap<ConnWord, Stay>);

impl Stays {
    pub(super) fn begin(&mut self, conn: ConnWord, stay: Stay) {
        self.0.insert(conn, stay);
    }

    pub(super) fn get(&self, conn: ConnWord) -> Option<&Stay> {
        self.0.get(&conn)
    }

    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    pub(super) fn end(&mut self, conn: ConnWord) -> Option<Stay> {
        self.0.remove(&conn)
    }

    pub(super) fn join(&mut self, conn: ConnWord, room: Arc<str>) {
        if let Some(stay) = self.0.get_mut(&conn) {
            stay.join(room);
        }
    }

    pub(super) fn change_room(&mut self, conn: ConnWord, room: Option<Arc<str>>) {
        if let Some(stay) = self.0.get_mut(&conn) {
            stay.change_room(room);
        }
    }

    /// The room is full: its members alone may make it their login room.
    pub(super) fn change_room_within(&mut self, conn: ConnWord, room: &str) {
        if let Some(stay) = self.0.get_mut(&conn)
            && let Some(room) = stay.rooms.iter().find(|its| ***its == *room).cloned()
        {
            stay.change_room(Some(room));
        }
    }

    pub(super) fn leave(&mut self, conn: ConnWord, room: &str) {
        if let Some(stay) = self.0.get_mut(&conn) {
            stay.leave(room);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms_are_those_that_the_shard_has_the_login_room_first() {
        let mut stay = Stay::new(7, Key::new("k"), 5, Some("a".into()));
        let rooms = |stay: &Stay| stay.rooms.iter().map(|room| &**room).collect::<Vec<_>>().join(" ");
        stay.join("b".into());
        stay.join("c".into());
        stay.join("b".into());
        assert_eq!(rooms(&stay), "a b c");
        stay.change_room(Some("c".into()));
        assert_eq!(rooms(&stay), "c b", "the login room is left, and a further one takes its place");
        stay.change_room(Some("c".into()));
        assert_eq!(rooms(&stay), "c b");
        stay.change_room(Some("d".into()));
        assert_eq!(rooms(&stay), "d b");
        stay.leave("d");
        stay.leave("nowhere");
        stay.change_room(None);
        assert_eq!(rooms(&stay), "b", "a further room is no login room");
        stay.change_room(Some("e".into()));
        stay.change_room(None);
        for room in 1..=ROOMS_PER_CONNECTION_MAX {
            stay.join(room.to_string().into());
        }
        assert_eq!(stay.rooms.len(), ROOMS_PER_CONNECTION_MAX);
        stay.change_room(Some("f".into()));
        assert!(!rooms(&stay).contains('f'), "there is no place for another");
    }

    #[test]
    fn a_member_of_a_full_room_leaves_its_login_room_for_it_and_nobody_else_does() {
        let conn = ConnWord::new(crate::ids::ShardIndex(0), halley_ring::Slot(1), 1);
        let mut stays = Stays::default();
        stays.begin(conn, Stay::new(7, Key::new("k"), 5, Some("a".into())));
        stays.join(conn, "full".into());
        stays.change_room_within(conn, "another");
        assert_eq!(stays.get(conn).expect("it is there").rooms, ["a".into(), "full".into()]);
        stays.change_room_within(conn, "full");
        assert_eq!(stays.get(conn).expect("it is there").rooms, ["full".into()]);
    }
}
