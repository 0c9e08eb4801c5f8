//! What was let out in a pass: messages into rooms, and which of them the server refused.

use std::collections::HashMap;

/// Messages of a pass that were sent to the server, by room.
#[derive(Clone, Debug, Default)]
pub struct Offered {
    messages: Vec<u32>,
    refused: HashMap<u32, Vec<u32>>,
}

impl Offered {
    /// Nothing yet, for so many rooms.
    pub fn nothing(rooms: u32) -> Self {
        Self { messages: vec![0; rooms as usize], refused: HashMap::new() }
    }

    /// The message at `place` has been let out into `room`, and those before it.
    pub fn let_out(&mut self, room: u32, place: u32) {
        let messages = &mut self.messages[room as usize];
        *messages = (*messages).max(place + 1);
    }

    /// The server has refused a message; those of a room are refused in their order.
    pub fn refuse(&mut self, room: u32, place: u32) {
        self.refused.entry(room).or_default().push(place);
    }

    /// Adds what another source let out into other rooms.
    pub fn add(&mut self, other: Self) {
        for (sum, messages) in self.messages.iter_mut().zip(other.messages) {
            *sum = (*sum).max(messages);
        }
        self.refused.extend(other.refused);
    }

    /// Messages let out into a room, from place 0.
    pub fn messages_in(&self, room: u32) -> u32 {
        self.messages.get(room as usize).copied().unwrap_or(0)
    }

    /// Places of those that the server refused, in order.
    pub fn refused_in(&self, room: u32) -> &[u32] {
        self.refused.get(&room).map_or(&[], Vec::as_slice)
    }

    /// What a client of a room should get.
    pub fn owed_in(&self, room: u32) -> u64 {
        u64::from(self.messages_in(room)).saturating_sub(self.refused_in(room).len() as u64)
    }

    /// Messages let out, all rooms together.
    pub fn messages(&self) -> u64 {
        self.messages.iter().map(|messages| u64::from(*messages)).sum()
    }

    /// Of these, refused.
    pub fn refused(&self) -> u64 {
        self.refused.values().map(|places| places.len() as u64).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_of_different_rooms_add_up() {
        let (mut even, mut odd) = (Offered::nothing(3), Offered::nothing(3));
        even.let_out(0, 0);
        even.let_out(0, 1);
        even.let_out(2, 0);
        odd.let_out(1, 0);
        odd.let_out(1, 1);
        odd.refuse(1, 1);
        even.add(odd);
        assert_eq!((even.messages(), even.refused()), (5, 1));
        assert_eq!([0, 1, 2, 9].map(|room| even.messages_in(room)), [2, 2, 1, 0]);
        assert_eq!((even.owed_in(1), even.refused_in(1), even.refused_in(0)), (1, &[1][..], &[][..]));
    }
}
