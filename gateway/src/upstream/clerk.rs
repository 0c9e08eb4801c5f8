//! Says who said a message, and in which rooms, and hands it to the place. Time is an argument.

use std::fmt::Write as _;
use std::sync::Arc;

use super::thread::Shared;
use super::{Answer, Envelope, Message, Outcome, Place, Refused};
use crate::directory::Key;

/// Messages of one shard in a row, so that a busy shard does not hold up the others.
const MESSAGES_IN_A_ROW: usize = 64;

/// Knows who is who.
pub(crate) struct Clerk<'a> {
    shared: &'a Shared,
    place: &'a Place,
    /// The key of the message at hand, if it must be written out.
    key: String,
    /// The rooms of the message at hand.
    rooms: Vec<Arc<str>>,
}

impl<'a> Clerk<'a> {
    pub(crate) fn new(shared: &'a Shared, place: &'a Place) -> Self {
        Self { shared, place, key: String::new(), rooms: Vec::new() }
    }

    /// Takes some messages of every shard; whether there were any.
    pub(crate) fn round(&mut self, time_ms: u64) -> bool {
        let mut found = false;
        for shard in self.shared.links.iter() {
            let Some(link) = &shard.upstream else { continue };
            for _ in 0..MESSAGES_IN_A_ROW {
                let Some(message) = link.next() else { break };
                found = true;
                let outcome = self.forward(&message, time_ms);
                let receipt = message.receipt;
                link.give(message);
                if outcome.is_err() {
                    shard.put_answer(Answer { receipt, outcome });
                }
            }
        }
        found
    }

    fn forward(&mut self, message: &Message, time_ms: u64) -> Outcome {
        let Message { receipt, ticket, rooms, .. } = message;
        let (member, key) = self.shared.directory.connection(*ticket, receipt.conn).ok_or(Refused::Replaced)?;
        let key = match &key {
            Key::Text(text) => text,
            uuid @ Key::Uuid(_) => {
                self.key.clear();
                let _ = write!(self.key, "{uuid}");
                &*self.key
            }
        };
        self.rooms.clear();
        // A room that the connection has left since, and everybody else too, has no name any more.
        let shard = receipt.conn.shard();
        self.rooms.extend(rooms.iter().filter_map(|room| self.shared.directory.room_name(shard, *room)));
        self.place.put(&Envelope {
            receipt: *receipt,
            member: member.max(0),
            key,
            rooms: &self.rooms,
            time_ms,
            node: &self.shared.node,
            body: message.body(),
        })
    }
}
