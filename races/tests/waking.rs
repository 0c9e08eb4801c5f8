//! Nobody sleeps over work: the gateway's flags, in every order that two threads could run in.
//!
//! The file with the flags is the gateway's own, compiled with loom's atomics. A queue is one counter. Nobody sleeps
//! here: who would have fallen asleep must have been rung when all is done, with work in its queue.

#[allow(dead_code, unreachable_pub, reason = "all of the gateway's file, of which each test uses a part")]
#[path = "../../gateway/src/link/parked.rs"]
mod parked;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use loom::thread;

use parked::{Owes, Parked};

/// A queue, its reader's flags, and whether its reader was rung.
struct Shared {
    queue: AtomicUsize,
    parked: Parked,
    owes: Owes,
    rung: AtomicBool,
}

impl Shared {
    fn new(items: usize) -> Arc<Self> {
        let (parked, owes) = (Parked::default(), Owes::default());
        Arc::new(Self { queue: AtomicUsize::new(items), parked, owes, rung: AtomicBool::new(false) })
    }

    fn wake(&self) {
        if self.parked.take() {
            self.rung.store(true, Ordering::SeqCst);
        }
    }

    fn is_rung(&self) -> bool {
        self.rung.load(Ordering::SeqCst)
    }

    /// Puts an item where there is always room.
    fn put(&self) {
        self.queue.fetch_add(1, Ordering::SeqCst);
        self.wake();
    }

    fn is_empty(&self) -> bool {
        self.queue.load(Ordering::SeqCst) == 0
    }

    /// Puts an item into a queue of one place. Like the real one it looks behind a fence, which loom knows better than a
    /// sequentially consistent load.
    fn push(&self) -> bool {
        fence(Ordering::SeqCst);
        self.queue.compare_exchange(0, 1, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    fn pop(&self) {
        let popped = self.queue.swap(0, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        assert_eq!(popped, 1, "the item that it began with");
    }
}

/// A shard that takes orders while somebody puts so many; it sleeps when it may.
fn orders(items: usize, may_sleep: fn(&Shared) -> bool) {
    loom::model(move || {
        let shared = Shared::new(0);
        let putter = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || (0..items).for_each(|_| shared.put()))
        };
        let mut asleep = false;
        for _ in 0..2 {
            shared.queue.swap(0, Ordering::SeqCst);
            if may_sleep(&shared) {
                asleep = true;
                break;
            }
        }
        putter.join().expect("it does not panic");
        let waits = !shared.is_empty();
        assert!(!(asleep && waits) || shared.is_rung(), "sleeps over an order");
    });
}

/// A shard whose report finds the queue full, while control takes what is in it.
fn reports(put: fn(&Shared) -> bool) {
    loom::model(move || {
        let shared = Shared::new(1);
        let control = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                shared.pop();
                if shared.owes.collect() {
                    shared.wake();
                }
            })
        };
        let asleep = !put(&shared) && shared.parked.park_unless(|| shared.owes.are_collected());
        control.join().expect("it does not panic");
        assert!(!asleep || shared.is_rung(), "sleeps over a report");
    });
}

#[test]
fn an_order_wakes_a_shard_that_falls_asleep() {
    orders(1, |shared| shared.parked.park_unless(|| !shared.is_empty()));
    orders(2, |shared| shared.parked.park_unless(|| !shared.is_empty()));
}

#[test]
#[should_panic(expected = "sleeps over an order")]
fn who_does_not_look_once_more_sleeps_over_an_order() {
    orders(1, |shared| shared.parked.park_unless(|| false));
}

#[test]
#[should_panic(expected = "sleeps over an order")]
fn who_looks_before_it_announces_its_sleep_sleeps_over_an_order() {
    orders(1, |shared| {
        let empty = shared.is_empty();
        shared.parked.park();
        empty
    });
}

#[test]
fn room_for_reports_wakes_the_shard_that_owes_one() {
    reports(|shared| {
        shared.push() || {
            shared.owes.owe();
            shared.push()
        }
    });
}

#[test]
#[should_panic(expected = "sleeps over a report")]
fn who_does_not_try_once_more_owes_for_ever() {
    reports(|shared| {
        let put = shared.push();
        if !put {
            shared.owes.owe();
        }
        put
    });
}

#[test]
#[should_panic(expected = "sleeps over an order")]
fn a_flag_without_order_is_not_enough() {
    loom::model(|| {
        let (queue, flag) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let putter = {
            let (queue, flag) = (Arc::clone(&queue), Arc::clone(&flag));
            thread::spawn(move || {
                queue.fetch_add(1, Ordering::Relaxed);
                flag.swap(false, Ordering::Relaxed)
            })
        };
        flag.swap(true, Ordering::Relaxed);
        let asleep = queue.load(Ordering::Relaxed) == 0;
        let rings = putter.join().expect("it does not panic");
        assert!(!asleep || rings, "sleeps over an order");
    });
}
