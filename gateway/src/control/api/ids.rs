//! Ids of pushes: who says an id again gets the first answer again, and nothing is pushed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use futures_channel::oneshot;
use serde_json::{Value, json};

use crate::dispatch::Dispatched;
use crate::limits;
use crate::remembered::Remembered;

/// What became of a push that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Dispatched(Dispatched),
    /// Partition and offset.
    Produced(i32, i64),
}

impl Answer {
    pub(super) fn to_json(self) -> Value {
        match self {
            Self::Dispatched(Dispatched { connections, offline }) => {
                json!({ "dispatched": connections, "offline": offline })
            }
            Self::Produced(partition, offset) => json!({ "partition": partition, "offset": offset }),
        }
    }
}

/// The ids of the last pushes, each with its answer or with those who wait for it.
#[derive(Debug)]
pub struct PushIds {
    table: Mutex<Remembered<First>>,
    since: Instant,
    repeats: AtomicU64,
}

#[derive(Debug)]
enum First {
    Answered(Answer),
    /// On its way; those who said it again meanwhile.
    Waits(Vec<oneshot::Sender<Answer>>),
}

/// Whether an id is new.
pub(super) enum Claim {
    New(Turn),
    Repeat(Answer),
    /// The first one is on its way. Dropped if nobody took it.
    Follows(oneshot::Receiver<Answer>),
}

/// The right to push under an id. Unless it is [`Self::done`], the next who says the id has it.
pub(super) struct Turn {
    ids: Arc<PushIds>,
    id: String,
}

impl Default for PushIds {
    fn default() -> Self {
        let table = Remembered::new(limits::PUSH_IDS_MAX, limits::PUSH_ID_MS_MAX);
        Self { table: Mutex::new(table), since: Instant::now(), repeats: AtomicU64::new(0) }
    }
}

impl PushIds {
    /// Pushes that were answered with an earlier one's answer.
    pub fn repeats(&self) -> u64 {
        self.repeats.load(Ordering::Relaxed)
    }

    /// Ids that went before their time, because there were too many.
    pub fn forgotten(&self) -> u64 {
        self.table().forgotten()
    }

    pub(super) fn claim(self: &Arc<Self>, id: String) -> Claim {
        let now_ms = self.now_ms();
        let mut table = self.table();
        match table.get(&id, now_ms) {
            Some(First::Answered(answer)) => {
                self.repeats.fetch_add(1, Ordering::Relaxed);
                Claim::Repeat(*answer)
            }
            Some(First::Waits(others)) => {
                self.repeats.fetch_add(1, Ordering::Relaxed);
                let (sender, receiver) = oneshot::channel();
                // Whoever has gone waits no longer.
                others.retain(|other| !other.is_canceled());
                others.push(sender);
                Claim::Follows(receiver)
            }
            None => {
                table.put(&id, First::Waits(Vec::new()), now_ms);
                Claim::New(Turn { ids: Arc::clone(self), id })
            }
        }
    }

    fn table(&self) -> MutexGuard<'_, Remembered<First>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Turn {
    /// The push was taken.
    pub(super) fn done(self, answer: Answer) {
        let now_ms = self.ids.now_ms();
        let before = self.ids.table().put(&self.id, First::Answered(answer), now_ms);
        if let Some(First::Waits(others)) = before {
            for other in others {
                let _ = other.send(answer); // it may have gone
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut table = self.ids.table();
        if let Some(First::Waits(_)) = table.get(&self.id, self.ids.now_ms()) {
            table.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(ids: &Arc<PushIds>, id: &str) -> Turn {
        let Claim::New(turn) = ids.claim(id.into()) else { panic!("{id} is new") };
        turn
    }

    #[test]
    fn who_says_an_id_again_while_it_is_on_its_way_gets_the_first_answer_or_none() {
        let ids = Arc::new(PushIds::default());
        let first = turn(&ids, "a");
        let Claim::Follows(mut second) = ids.claim("a".into()) else { panic!("on its way") };
        assert_eq!(second.try_recv(), Ok(None));
        first.done(Answer::Produced(3, 4));
        assert_eq!(second.try_recv(), Ok(Some(Answer::Produced(3, 4))));
        assert!(matches!(ids.claim("a".into()), Claim::Repeat(Answer::Produced(3, 4))));

        let failed = turn(&ids, "b");
        let Claim::Follows(mut second) = ids.claim("b".into()) else { panic!("on its way") };
        drop(failed);
        assert!(second.try_recv().is_err(), "nobody took it");
        turn(&ids, "b").done(Answer::Produced(0, 0));
        assert_eq!((ids.repeats(), ids.forgotten()), (3, 0));
    }
}
