//! Memberships and passes of one shard's rooms.

use super::*;
use crate::payload::Note;
use proptest::prelude::*;

const PER_CONNECTION: u8 = 3;

fn setup(slots: u32) -> (Rooms, Table) {
    let mut table = Table::new(slots);
    while table.take().is_some() {}
    (Rooms::new(8, slots, u32::from(PER_CONNECTION)), table)
}

fn room(index: u32) -> RoomRef {
    RoomRef { index: RoomIndex(index), generation: 1 }
}

fn join(rooms: &mut Rooms, table: &mut Table, slot: u32, index: u32) -> Joined {
    rooms.count_join(room(index));
    rooms.join(table, Slot(slot), RoomIndex(index), PER_CONNECTION, false)
}

#[test]
fn a_connection_is_a_member_once_and_in_so_many_rooms() {
    let (mut rooms, mut table) = setup(1);
    assert_eq!(join(&mut rooms, &mut table, 0, 0), Joined::New);
    assert_eq!(join(&mut rooms, &mut table, 0, 0), Joined::Already);
    assert_eq!(join(&mut rooms, &mut table, 0, 1), Joined::New);
    assert_eq!(join(&mut rooms, &mut table, 0, 2), Joined::New);
    assert_eq!(join(&mut rooms, &mut table, 0, 3), Joined::TooMany);
    rooms.leave_all(&mut table, Slot(0));
    assert_eq!((table[Slot(0)].rooms, rooms.with_members()), (0, 0));
}

#[test]
fn a_stale_room_is_not_found() {
    let (mut rooms, mut table) = setup(1);
    assert_eq!(rooms.find(room(0)), None, "before its first join");
    join(&mut rooms, &mut table, 0, 0);
    assert_eq!(rooms.find(room(0)), Some(RoomIndex(0)));
    rooms.leave_all(&mut table, Slot(0));
    rooms.count_join(RoomRef { index: RoomIndex(0), generation: 2 });
    assert_eq!(rooms.find(room(0)), None, "the index has a new owner");
    assert_eq!(rooms.find(RoomRef { index: RoomIndex(99), generation: 1 }), None);
}

#[test]
fn waiting_messages_leave_in_order() {
    let (mut rooms, mut table) = setup(1);
    join(&mut rooms, &mut table, 0, 0);
    for text in ["a", "b", "c"] {
        rooms.enqueue(RoomIndex(0), Payload::encode(1, text.as_bytes(), Note::default())).expect("room");
    }
    assert_eq!(rooms.pending_bytes(RoomIndex(0)), 3 * 17);
    assert_eq!(rooms.active.len(), 1, "active once");
    let order: Vec<_> = std::iter::from_fn(|| rooms.dequeue(RoomIndex(0)).map(|p| p.inner()[16])).collect();
    assert_eq!(order, b"abc");
    assert_eq!(rooms.pending_bytes(RoomIndex(0)), 0);
}

/// What may happen while runs pass through a room of a few connections.
#[derive(Clone, Debug)]
enum Event {
    Join(u32),
    Leave(u32),
    Step,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        (0u32..12).prop_map(Event::Join),
        (0u32..12).prop_map(Event::Leave),
        Just(Event::Step),
        Just(Event::Step),
    ];
    proptest::collection::vec(event, 0..200)
}

proptest! {
    /// Each pass serves exactly those who were members at its start and did not leave meanwhile, once each.
    #[test]
    fn a_pass_serves_everybody_who_stayed_exactly_once(events in events()) {
        let (mut rooms, mut table) = setup(12);
        let mut owed: std::collections::BTreeSet<u32> = std::collections::BTreeSet::default();
        let mut members: std::collections::BTreeSet<u32> = std::collections::BTreeSet::default();
        for event in events {
            match event {
                Event::Join(slot) => {
                    join(&mut rooms, &mut table, slot, 0);
                    members.insert(slot);
                }
                Event::Leave(slot) => {
                    rooms.leave(&mut table, Slot(slot), RoomIndex(0));
                    members.remove(&slot);
                    owed.remove(&slot);
                }
                Event::Step => {
                    if let Some(slot) = rooms.step(RoomIndex(0)) {
                        prop_assert!(owed.remove(&slot.0), "{slot:?} served without being owed");
                    } else {
                        prop_assert!(owed.is_empty(), "passed over: {owed:?}");
                        rooms.finish(RoomIndex(0));
                        rooms.start(RoomIndex(0), RunIndex(0));
                        owed = members.clone();
                    }
                }
            }
            prop_assert_eq!(rooms.members(RoomIndex(0)) as usize, members.len());
        }
        for slot in 0..12 {
            prop_assert_eq!(rooms.is_member(&table, Slot(slot), RoomIndex(0)), members.contains(&slot));
            rooms.leave_all(&mut table, Slot(slot));
        }
        prop_assert_eq!(rooms.with_members(), 0);
    }
}
