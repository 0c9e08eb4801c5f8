//! Where pushes go, and that they go there whole or not at all.

use super::*;
use crate::directory::{DirectoryWriter, HashSecret, Key};
use crate::payload::Note;

struct Rig {
    writer: DirectoryWriter,
    links: Arc<[Arc<ShardLink>]>,
    dispatch: Dispatch,
}

impl Rig {
    /// Two shards with places for `pushes` each.
    fn new(pushes: usize) -> Self {
        let writer = DirectoryWriter::new(2, 10, &HashSecret::fixed(1));
        let link = || Arc::new(ShardLink::with_orders(10, limits::ORDERS_CONTROL_SHARE + pushes));
        let links: Arc<[_]> = (0..2).map(|_| link()).collect();
        let dispatch = Dispatch::new(writer.directory().clone(), links.clone());
        Self { writer, links, dispatch }
    }

    fn login(&mut self, shard: u8, slot: u32, key: &str, member: i64) -> ConnWord {
        let conn = ConnWord::new(ShardIndex(shard), halley_ring::Slot(slot), 1);
        self.writer.insert(conn, Key::new(key), member, 10);
        conn
    }

    fn push(&self, target: &Target) -> Result<(u64, u64), DispatchError> {
        self.dispatch.push(target, 1000, b"hello", Note::default()).map(|done| (done.connections, done.offline))
    }

    /// What a shard got, a direct push as its connections.
    fn direct(&self, shard: usize) -> Vec<Vec<ConnWord>> {
        let orders = std::iter::from_fn(|| self.links[shard].next_order());
        let conns = orders.map(|order| match order {
            Order::Direct { conns, payload } => {
                assert_eq!((payload.operation, &payload.inner()[16..]), (1000, &b"hello"[..]));
                conns.into_vec()
            }
            other => panic!("not a direct push: {other:?}"),
        });
        conns.collect()
    }
}

fn keys(keys: &[&str]) -> Target {
    Target::Keys(keys.iter().map(ToString::to_string).collect())
}

#[test]
fn a_room_that_is_pushed_to_too_fast_refuses_and_others_do_not() {
    let mut rig = Rig::new(50);
    rig.dispatch =
        rig.dispatch.with_rates(Arc::new(Rates::new(RoomRates { pushes_per_second: 3, bytes_per_second: 0 })));
    for (shard, room) in [(0, "a"), (1, "a"), (1, "b")] {
        rig.writer.order_join(ShardIndex(shard), room).expect("a place");
    }
    let pushed = |room: &str| (0..5).filter(|_| rig.push(&Target::Room(room.into())).is_ok()).count();
    assert_eq!((pushed("a"), pushed("b"), pushed("nobody is here")), (3, 3, 5));
    assert_eq!(rig.push(&Target::Room("a".into())), Err(DispatchError::RoomTooFast));
    assert_eq!(rig.dispatch.rates().refused(), 5);
    assert_eq!(rig.push(&Target::All), Ok((0, 0)), "only rooms have a rate");
}

#[test]
fn a_push_to_keys_is_one_order_for_each_shard_that_has_some() {
    let mut rig = Rig::new(10);
    let [a, b, c] = [rig.login(0, 1, "a", 0), rig.login(0, 2, "b", 0), rig.login(1, 1, "c", 0)];
    assert_eq!(rig.push(&keys(&["c", "b", "a", "nobody"])), Ok((3, 1)));
    assert_eq!((rig.direct(0), rig.direct(1)), (vec![vec![a, b]], vec![vec![c]]));
    assert_eq!(rig.push(&keys(&["c"])), Ok((1, 0)));
    assert_eq!((rig.direct(0), rig.direct(1)), (vec![], vec![vec![c]]));
}

#[test]
fn repeated_names_reach_a_connection_once_and_count_once() {
    let mut rig = Rig::new(10);
    let a = rig.login(0, 1, "a", 7);
    assert_eq!(rig.push(&keys(&["a", "x", "a", "x"])), Ok((1, 1)));
    assert_eq!(rig.push(&Target::Members(vec![7, 7, 8, 8])), Ok((1, 1)));
    assert_eq!(rig.direct(0), [[a], [a]]);
}

#[test]
fn a_push_to_a_member_or_a_shared_key_reaches_all_its_connections() {
    let mut rig = Rig::new(10);
    let [a, b, c] = [rig.login(0, 1, "a", 7), rig.login(0, 2, "b", 7), rig.login(1, 1, "b", 7)];
    assert_eq!(rig.push(&Target::Members(vec![7])), Ok((3, 0)));
    assert_eq!((rig.direct(0), rig.direct(1)), (vec![vec![a, b]], vec![vec![c]]));
    assert_eq!(rig.push(&keys(&["b"])), Ok((2, 0)));
    assert_eq!((rig.direct(0), rig.direct(1)), (vec![vec![b]], vec![vec![c]]));
}

#[test]
fn a_push_to_a_room_goes_to_the_shards_it_is_marked_in() {
    let mut rig = Rig::new(10);
    let room = rig.writer.order_join(ShardIndex(1), "a").expect("a place").room;
    assert_eq!(rig.push(&Target::Room("a".into())), Ok((1, 0)));
    assert!(rig.links[0].next_order().is_none());
    assert!(matches!(rig.links[1].next_order(), Some(Order::Room { room: to, .. }) if to == room));
    assert_eq!(rig.push(&Target::Room("b".into())), Ok((0, 1)));
    assert!(rig.links[1].next_order().is_none());
}

#[test]
fn a_push_to_all_goes_to_the_shards_with_logins() {
    let mut rig = Rig::new(10);
    assert_eq!(rig.push(&Target::All), Ok((0, 0)));
    rig.login(1, 1, "a", 0);
    rig.login(1, 2, "b", 0);
    assert_eq!(rig.push(&Target::All), Ok((2, 0)));
    assert!(rig.links[0].next_order().is_none());
    assert!(matches!(rig.links[1].next_order(), Some(Order::All { .. })));
}

#[test]
fn nobody_gets_a_push_that_one_shard_has_no_place_for() {
    let mut rig = Rig::new(1);
    let [a, b] = [rig.login(0, 1, "a", 0), rig.login(1, 1, "b", 0)];
    assert_eq!(rig.push(&keys(&["b"])), Ok((1, 0)));
    for _ in 0..5 {
        assert_eq!(rig.push(&keys(&["a", "b"])), Err(DispatchError::Full));
        assert_eq!(rig.push(&Target::All), Err(DispatchError::Full));
    }
    assert_eq!(rig.push(&keys(&["a"])), Ok((1, 0)), "the place in the first shard was given back");
    assert_eq!((rig.direct(0), rig.direct(1)), (vec![vec![a]], vec![vec![b]]));
    assert_eq!(rig.push(&keys(&["a", "b"])), Ok((2, 0)), "a carried out push frees its place");
}

#[test]
fn a_push_to_nobody_succeeds_though_the_queues_are_full() {
    let mut rig = Rig::new(1);
    rig.login(0, 1, "a", 0);
    assert_eq!(rig.push(&keys(&["a"])), Ok((1, 0)));
    assert_eq!(rig.push(&keys(&["nobody"])), Ok((0, 1)));
    assert_eq!(rig.push(&keys(&[])), Ok((0, 0)));
}

#[test]
fn a_push_above_its_limits_is_refused_and_one_at_them_is_not() {
    let rig = Rig::new(1);
    let body = vec![0; limits::PAYLOAD_BYTES_MAX + 1];
    assert_eq!(rig.dispatch.push(&Target::All, 1, &body, Note::default()), Err(DispatchError::PayloadTooBig));
    assert!(rig.dispatch.push(&Target::All, 1, &body[1..], Note::default()).is_ok());
    let members = vec![1; limits::PUSH_TARGETS_MAX + 1];
    assert_eq!(rig.push(&Target::Members(members.clone())), Err(DispatchError::TooManyTargets));
    assert_eq!(rig.push(&Target::Members(members[1..].to_vec())), Ok((0, 1)));
}

#[test]
fn concurrent_pushes_never_take_more_places_than_there_are() {
    let mut rig = Rig::new(3);
    rig.login(0, 1, "a", 0);
    rig.login(1, 1, "b", 0);
    let rig = &rig;
    let taken: u64 = std::thread::scope(|scope| {
        let pushes = |_| scope.spawn(|| (0..500).filter(|_| rig.push(&Target::All).is_ok()).count() as u64);
        let threads: Vec<_> = (0..4).map(pushes).collect();
        threads.into_iter().map(|thread| thread.join().expect("no place was taken twice")).sum()
    });
    for shard in 0..2 {
        let orders = std::iter::from_fn(|| rig.links[shard].next_order()).count() as u64;
        assert_eq!(orders, taken, "every push is in both queues");
    }
    assert_eq!(taken, 3);
}
