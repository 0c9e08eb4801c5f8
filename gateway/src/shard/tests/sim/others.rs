//! Other nodes: what they say of their rooms, which sizes of rooms include.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::story::Story;
use crate::directory::{RoomCount, RoomsOfNode};

/// Members that a room has on one node at most.
const MEMBERS_MAX: usize = 5;

/// What two other nodes said last, each in order of names.
#[derive(Default)]
pub(super) struct Others([RoomsOfNode; 2]);

impl Others {
    /// Members of a room that are there.
    pub(super) fn members(&self, room: &str) -> u64 {
        self.0.iter().flatten().filter(|(name, _)| **name == *room).map(|(_, members)| u64::from(*members)).sum()
    }

    /// These rooms of this node with those of the others, by name.
    pub(super) fn with(&self, here: &BTreeMap<Arc<str>, u64>) -> Vec<RoomCount> {
        let mut rooms = here.clone();
        for (name, members) in self.0.iter().flatten() {
            *rooms.entry(Arc::clone(name)).or_default() += u64::from(*members);
        }
        rooms.into_iter().map(|(name, members)| RoomCount { name, members }).collect()
    }

    /// Distinct rooms that they have.
    pub(super) fn rooms(&self) -> u64 {
        self.with(&BTreeMap::new()).len() as u64
    }
}

impl Story {
    /// Another node says anew what rooms it has, or says no more.
    pub(super) fn hear_of_others(&mut self) -> String {
        let node = self.dice.below(2);
        let mut rooms = BTreeMap::new();
        if !self.dice.once_in(4) {
            for _ in 0..self.dice.below(6) {
                let name: Arc<str> = if self.dice.once_in(4) { "only elsewhere".into() } else { self.room().into() };
                rooms.insert(name, u32::try_from(1 + self.dice.below(MEMBERS_MAX)).expect("small"));
            }
        }
        self.others_say(node, rooms.into_iter().collect())
    }

    fn others_say(&mut self, node: usize, new: RoomsOfNode) -> String {
        let directory = &self.world.directory;
        let concerns = |name: &str| directory.room_size_here(name) > 0;
        directory.elsewhere().replace(&self.others.0[node], &new, concerns);
        self.others.0[node] = new;
        format!("node {node} has {:?}", self.others.0[node])
    }

    /// They are gone too.
    pub(super) fn end_of_others(&mut self) {
        for node in 0..2 {
            self.others_say(node, RoomsOfNode::new());
        }
        self.world.control.publish_online(&self.world.links);
        let elsewhere = self.world.directory.elsewhere();
        assert_eq!((elsewhere.rooms(), elsewhere.untaken()), (0, 0), "rooms of other nodes");
    }
}
