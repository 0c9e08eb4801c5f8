//! The directory as its readers see it, while its writer works.

use super::*;

const ONE: ShardIndex = ShardIndex(1);
const ZERO: ShardIndex = ShardIndex(0);

fn conn(shard: ShardIndex, slot: u32, generation: u32) -> ConnWord {
    ConnWord::new(shard, halley_ring::Slot(slot), generation)
}

fn writer() -> DirectoryWriter {
    DirectoryWriter::new(2, 100, &HashSecret::fixed(1))
}

fn room(writer: &mut DirectoryWriter, shard: ShardIndex, name: &str) -> RoomRef {
    writer.order_join(shard, name).expect("the table has places").room
}

fn members(directory: &Directory, member: i64) -> Vec<String> {
    let mut found: Vec<_> = directory.member_connections(member).iter().map(|(_, key)| key.to_string()).collect();
    found.sort();
    found
}

#[test]
fn a_connection_is_found_by_key_and_by_member_until_it_is_removed() {
    let mut writer = writer();
    let directory = writer.directory().clone();
    let (ticket, replaced) = writer.insert(conn(ONE, 3, 1), Key::new("device"), 7, 1);
    assert!(replaced.is_empty());
    assert_eq!(directory.key_connections("device"), [conn(ONE, 3, 1)]);
    assert_eq!(directory.member_connections(7), [(conn(ONE, 3, 1), Key::new("device"))]);
    assert_eq!(directory.connections(), 1);
    assert_eq!(directory.connections_by_shard().collect::<Vec<_>>(), [(ZERO, 0), (ONE, 1)]);
    assert!(writer.remove(ticket, conn(ONE, 3, 1)));
    assert!(!writer.remove(ticket, conn(ONE, 3, 1)));
    assert!(directory.key_connections("device").is_empty());
    assert!(directory.member_connections(7).is_empty());
    assert_eq!(directory.connections(), 0);
}

#[test]
fn a_late_departure_does_not_delete_the_newer_connection() {
    for (old, new) in [
        (conn(ZERO, 3, 1), conn(ZERO, 3, 2)),
        (conn(ZERO, 3, 1), conn(ZERO, 4, 1)),
        (conn(ZERO, 3, 1), conn(ONE, 3, 1)),
    ] {
        let mut writer = writer();
        let directory = writer.directory().clone();
        let (old_ticket, _) = writer.insert(old, Key::new("device"), 7, 1);
        let (new_ticket, replaced) = writer.insert(new, Key::new("device"), 7, 1);
        assert_eq!(replaced, [old]);
        assert!(!writer.remove(old_ticket, old));
        assert_eq!(directory.key_connections("device"), [new]);
        assert_eq!(directory.member_connections(7), [(new, Key::new("device"))]);
        assert_eq!(directory.connections(), 1);
        assert!(writer.remove(new_ticket, new));
        assert_eq!(directory.connections(), 0);
    }
}

#[test]
fn a_key_that_changes_its_member_is_found_under_the_new_one_only() {
    let mut writer = writer();
    let directory = writer.directory().clone();
    writer.insert(conn(ZERO, 1, 1), Key::new("device"), 7, 1);
    writer.insert(conn(ZERO, 2, 1), Key::new("device"), 8, 1);
    assert!(members(&directory, 7).is_empty());
    assert_eq!(members(&directory, 8), ["device"]);
}

#[test]
fn members_that_are_not_above_zero_are_not_entered() {
    let mut writer = writer();
    for member in [0, -5] {
        let (ticket, _) = writer.insert(conn(ZERO, 1, 1), Key::new("device"), member, 1);
        assert!(writer.directory().member_connections(member).is_empty());
        assert!(writer.remove(ticket, conn(ZERO, 1, 1)));
    }
}

#[test]
fn keys_whose_hashes_collide_are_kept_apart() {
    let mut writer = DirectoryWriter::new(2, 100, &HashSecret::colliding(0));
    let directory = writer.directory().clone();
    let keys: Vec<String> = (0..20).map(|n| format!("key-{n}")).collect();
    let mut tickets = Vec::new();
    for (slot, key) in (0..).zip(&keys) {
        let member = i64::from(slot / 10) + 1;
        tickets.push(writer.insert(conn(ZERO, slot, 1), Key::new(key), member, 1).0);
    }
    assert!(tickets.iter().all(|ticket| *ticket == tickets[0]), "the hash collides");
    assert_eq!(directory.key_connections("key-13"), [conn(ZERO, 13, 1)]);
    assert!(directory.key_connections("another").is_empty());
    assert_eq!(members(&directory, 1), keys[..10]);
    let (_, replaced) = writer.insert(conn(ONE, 5, 1), Key::new("key-5"), 1, 1);
    assert_eq!(replaced, [conn(ZERO, 5, 1)]);
    for slot in (0..20).filter(|slot| *slot != 5) {
        assert!(writer.remove(tickets[0], conn(ZERO, slot, 1)));
    }
    assert_eq!(directory.key_connections("key-5"), [conn(ONE, 5, 1)]);
    assert_eq!(members(&directory, 1), ["key-5"]);
    assert!(members(&directory, 2).is_empty());
}

#[test]
fn a_shared_key_holds_up_to_its_maximum_newest_first_and_loses_the_oldest() {
    let mut writer = DirectoryWriter::new(2, 100, &HashSecret::colliding(0));
    let directory = writer.directory().clone();
    writer.insert(conn(ZERO, 90, 1), Key::new("other"), 9, 3);
    for slot in 1..=3 {
        assert!(writer.insert(conn(ZERO, slot, 1), Key::new("tv"), 7, 3).1.is_empty());
    }
    let (_, replaced) = writer.insert(conn(ONE, 4, 1), Key::new("tv"), 7, 3);
    assert_eq!(replaced, [conn(ZERO, 1, 1)]);
    assert_eq!(directory.key_connections("tv"), [conn(ONE, 4, 1), conn(ZERO, 3, 1), conn(ZERO, 2, 1)]);
    let (ticket, replaced) = writer.insert(conn(ONE, 5, 1), Key::new("tv"), 7, 1);
    assert_eq!(replaced, [conn(ZERO, 2, 1), conn(ZERO, 3, 1), conn(ONE, 4, 1)], "a lowered maximum holds at once");
    assert_eq!(directory.member_connections(7).len(), 1);
    assert!(writer.remove(ticket, conn(ONE, 5, 1)));
    assert!(directory.member_connections(7).is_empty());
    assert_eq!(directory.key_connections("other"), [conn(ZERO, 90, 1)]);
}

#[test]
fn a_member_with_several_keys_keeps_the_others_when_one_goes() {
    let mut writer = writer();
    let directory = writer.directory().clone();
    let ticket = writer.insert(conn(ZERO, 1, 1), Key::new("phone"), 7, 1).0;
    writer.insert(conn(ONE, 1, 1), Key::new("tablet"), 7, 1);
    writer.insert(conn(ONE, 2, 1), Key::new("tv"), 7, 1);
    assert_eq!(members(&directory, 7), ["phone", "tablet", "tv"]);
    writer.remove(ticket, conn(ZERO, 1, 1));
    assert_eq!(members(&directory, 7), ["tablet", "tv"]);
}

#[test]
fn a_replaced_key_is_never_missing_for_a_reader() {
    let mut writer = writer();
    let directory = writer.directory().clone();
    writer.insert(conn(ZERO, 0, 0), Key::new("device"), 7, 1);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                assert_eq!(directory.key_connections("device").len(), 1);
                assert_eq!(directory.member_connections(7).len(), 1);
            }
        });
        for generation in 1..20_000 {
            writer.insert(conn(ShardIndex((generation % 2) as u8), 0, generation), Key::new("device"), 7, 1);
        }
        done.store(true, Ordering::Relaxed);
        reader.join().expect("every read found the key");
    });
}

#[test]
fn a_room_index_is_reused_only_when_the_room_is_empty_and_every_join_is_done() {
    let mut writer = writer();
    let directory = writer.directory().clone();
    let first = room(&mut writer, ZERO, "a");
    assert_eq!(room(&mut writer, ZERO, "a"), first);
    writer.room_reported(ZERO, first, 0, 1);
    assert_eq!(directory.room_in(ZERO, "a"), Some(first), "a join is on the way");
    writer.room_reported(ZERO, first, 1, 2);
    assert_eq!(directory.room_in(ZERO, "a"), Some(first), "a member is there");
    writer.room_reported(ZERO, first, 0, 2);
    assert_eq!((directory.room_in(ZERO, "a"), directory.rooms()), (None, 0));
    assert_eq!(directory.room_name(ZERO, first), None);

    let second = room(&mut writer, ZERO, "b");
    assert_eq!(second.index, first.index);
    assert_ne!(second.generation, first.generation);
    writer.room_reported(ZERO, first, 0, 1);
    assert_eq!(directory.room_in(ZERO, "b"), Some(second), "a stale report says nothing of the new room");
    assert_eq!(directory.room_name(ZERO, second).as_deref(), Some("b"));
    assert_eq!(directory.room_name(ZERO, first), None);
}

#[test]
fn joins_are_compared_across_the_wrap_of_their_counter() {
    let mut writer = writer();
    let directory = writer.directory().clone();
    let room = room(&mut writer, ZERO, "a");
    directory.rooms.preset_joins("a", u32::MAX);
    writer.room_reported(ZERO, room, 5, u32::MAX);
    writer.order_join(ZERO, "a").expect("it has its index");
    assert_eq!(directory.room_size("a"), 6);
    writer.room_reported(ZERO, room, 0, u32::MAX);
    assert_eq!(directory.room_size("a"), 1);
    writer.room_reported(ZERO, room, 0, 0);
    assert_eq!(directory.rooms(), 0);
}

#[test]
fn a_room_sums_its_shards_and_leaves_each_by_itself() {
    let mut writer = writer();
    let directory = writer.directory().clone();
    let in_zero = room(&mut writer, ZERO, "a");
    let in_one = room(&mut writer, ONE, "a");
    assert_eq!(directory.room_size("a"), 2, "joins on the way count");
    writer.room_reported(ZERO, in_zero, 10, 1);
    writer.room_reported(ONE, in_one, 5, 1);
    assert_eq!(directory.room_size("a"), 15);
    writer.room_reported(ZERO, in_zero, 0, 1);
    assert_eq!((directory.room_size("a"), directory.room_in(ZERO, "a")), (5, None));
    assert_eq!(writer.order_join(ONE, "a").map(|ordered| ordered.members), Ok(6));
    assert_eq!(directory.room_size("nobody"), 0);
}

#[test]
fn a_full_room_table_refuses_new_rooms_only_and_only_in_its_shard() {
    let mut writer = DirectoryWriter::new(2, 1, &HashSecret::fixed(1));
    let a = room(&mut writer, ZERO, "a");
    assert_eq!(writer.order_join(ZERO, "b"), Err(RoomTableFull));
    assert!(writer.order_join(ZERO, "a").is_ok());
    assert!(writer.order_join(ONE, "b").is_ok());
    writer.room_reported(ZERO, a, 0, 2);
    assert!(writer.order_join(ZERO, "b").is_ok());
}

#[test]
fn pages_of_rooms_follow_each_other_by_name() {
    let mut writer = writer();
    let directory = writer.directory().clone();
    for n in (0..50).rev() {
        room(&mut writer, ZERO, &format!("live://{n:02}"));
    }
    room(&mut writer, ZERO, "chat://1");
    let names = |page: Vec<RoomCount>| page.iter().map(|room| room.name.to_string()).collect::<Vec<_>>();
    let first = names(directory.rooms_page("live://", "", 20));
    assert_eq!(first, (0..20).map(|n| format!("live://{n:02}")).collect::<Vec<_>>());
    let second = names(directory.rooms_page("live://", &first[19], 40));
    assert_eq!(second, (20..50).map(|n| format!("live://{n:02}")).collect::<Vec<_>>());
    assert_eq!(names(directory.rooms_page("", "", 1)), ["chat://1"]);
    assert!(directory.rooms_page("", "", 0).is_empty());
    assert!(directory.rooms_page("live://", "live://49", 10).is_empty());
}

#[test]
fn the_top_rooms_are_those_with_most_members_under_the_prefix() {
    let mut writer = writer();
    let directory = writer.directory().clone();
    for (name, size) in [("live://a", 5), ("live://b", 9), ("live2://c", 7), ("live://d", 5), ("chat://x", 99)] {
        let room = room(&mut writer, ONE, name);
        writer.room_reported(ONE, room, size, 1);
    }
    let top = directory.rooms_top("live", 3);
    let top: Vec<_> = top.iter().map(|room| (&*room.name, room.members)).collect();
    assert_eq!(top, [("live://b", 9), ("live2://c", 7), ("live://a", 5)]);
}

#[test]
fn changed_counts_are_published_to_every_shard_of_the_room_and_freed_ones_as_zero() {
    let mut writer = writer();
    let links: Vec<_> = (0..2).map(|_| Arc::new(crate::link::ShardLink::new(100))).collect();
    let online =
        |shard: ShardIndex, room: RoomRef| links[shard.at()].room_online[room.index.0 as usize].load(Ordering::Relaxed);
    let [in_zero, in_one] = [ZERO, ONE].map(|shard| room(&mut writer, shard, "a"));
    writer.room_reported(ZERO, in_zero, 10, 1);
    assert_eq!(online(ZERO, in_zero), 0, "not before it is published");
    writer.publish_online(&links);
    assert_eq!((online(ZERO, in_zero), online(ONE, in_one)), (11, 11));
    writer.room_reported(ONE, in_one, 4, 1);
    writer.publish_online(&links);
    assert_eq!((online(ZERO, in_zero), online(ONE, in_one)), (14, 14));
    writer.room_reported(ONE, in_one, 0, 1);
    writer.publish_online(&links);
    assert_eq!((online(ZERO, in_zero), online(ONE, in_one)), (10, 0));
    writer.room_reported(ZERO, in_zero, 0, 1);
    let reused = room(&mut writer, ZERO, "b");
    writer.publish_online(&links);
    assert_eq!((reused.index, online(ZERO, reused)), (in_zero.index, 1));
}

#[test]
fn counts_of_numbered_rooms_stop_at_their_maximum() {
    let most = crate::control::api::v1::COUNTS_MAX;
    let mut writer = DirectoryWriter::new(1, most + 10, &HashSecret::fixed(1));
    for name in
        (0..=most).map(|number| number.to_string()).chain(["1", "7", "7", "01", "+2", "-1", "a", ""].map(Into::into))
    {
        writer.order_join(ShardIndex(0), &name).expect("room for it");
    }
    let counts = writer.directory().rooms_numbered(most);
    assert_eq!((counts.len(), &counts[..3]), (most, &[(7, 3), (1, 2), (-1, 1)][..]));
    assert_eq!(writer.directory().rooms_numbered(most + 10).len(), most + 2, "names that are written as numbers are");
    let elsewhere = vec![("7".into(), 4), ("a".into(), 9), ("70000".into(), 5)];
    writer.directory().elsewhere().replace(&Vec::new(), &elsewhere, |_| false);
    let counts = writer.directory().rooms_numbered(most);
    assert_eq!((counts.len(), &counts[..3]), (most, &[(7, 7), (70_000, 5), (1, 2)][..]), "over all nodes");
}

#[test]
fn rooms_of_other_nodes_are_counted_with_ours() {
    let mut writer = writer();
    let directory = writer.directory().clone();
    let links: Vec<_> = (0..2).map(|_| Arc::new(crate::link::ShardLink::new(100))).collect();
    let [ours, both] = ["ours", "both"].map(|name| room(&mut writer, ONE, name));
    writer.room_reported(ONE, ours, 4, 1);
    writer.room_reported(ONE, both, 3, 1);
    writer.publish_online(&links);
    let others = vec![("both".into(), 5), ("theirs".into(), 7)];
    directory.elsewhere().replace(&RoomsOfNode::new(), &others, |name| directory.room_size_here(name) > 0);
    assert_eq!(["ours", "both", "theirs"].map(|name| directory.room_size(name)), [4, 8, 7]);
    assert_eq!(["ours", "both", "theirs"].map(|name| directory.room_size_here(name)), [4, 3, 0]);
    let told =
        |rooms: Vec<RoomCount>| rooms.into_iter().map(|room| (room.name.to_string(), room.members)).collect::<Vec<_>>();
    let all = [("both", 8), ("ours", 4), ("theirs", 7)].map(|(name, members)| (name.to_owned(), members));
    assert_eq!(told(directory.rooms_page("", "", 9)), all);
    assert_eq!(told(directory.rooms_page("", "", 2)), all[..2]);
    assert_eq!(told(directory.rooms_page("", "both", 9)), all[1..]);
    assert_eq!(told(directory.rooms_page("o", "", 9)), all[1..2]);
    assert_eq!(told(directory.rooms_top("", 2)), [all[0].clone(), all[2].clone()]);
    assert_eq!(told(directory.rooms_top("o", 9)), all[1..2]);
    assert_eq!(told(directory.rooms_here(1)), [("ours".to_owned(), 4)]);
    assert_eq!(directory.rooms(), 2, "of this node");
    let online = |room: RoomRef| links[1].room_online[room.index.0 as usize].load(Ordering::Relaxed);
    assert_eq!((online(ours), online(both)), (4, 3), "not before it is published");
    writer.publish_online(&links);
    assert_eq!((online(ours), online(both)), (4, 8));
    assert_eq!(writer.order_join(ONE, "both").map(|ordered| ordered.members), Ok(9));
    assert_eq!(writer.order_join(ZERO, "theirs").map(|ordered| ordered.members), Ok(8));
}
