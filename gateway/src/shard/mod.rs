//! A shard: one thread, one ring, its own connections and its own part of every room.
//!
//! ```text
//! completions   kernel  → state     always empties the completion queue; marks work
//! orders        control → state     ┐
//! receive       input   → state     │ change state and mark; what they mark is worked off
//! timers        time    → state     ┘ under a maximum per turn
//! flush         state   → kernel    the only place that sends
//! wait                              the only place that may sleep
//! ```
//!
//! A shard shares nothing with other shards, locks nothing and never blocks; after its start it allocates
//! nothing on the way of a message.

mod accept;
mod accepts;
mod batch;
mod blocked;
mod blocks;
mod bucket;
mod chunks;
mod close;
mod conn;
mod echo;
mod flush;
mod orders;
mod outbox;
mod pace;
mod proxied;
mod receive;
mod reports;
mod requests;
mod rooms;
mod runs;
mod settings;
mod thread;
mod timers;
mod tls;
mod upstream;
mod v1;

#[cfg(test)]
mod tests;

pub use bucket::AcceptRate;
pub use pace::{ClientRates, RATE_MAX, Rate};
pub use settings::{ClientAddress, Dialect, ListenerSettings, Reloadable, ShardSettings, SlowPolicy, Transport};
pub use thread::{ShardStart, run};

use std::collections::VecDeque;
use std::sync::Arc;

use halley_ring::{Completion, RECV_BATCH_MAX, Received, RecvRequest, Ring, SEND_BATCH_MAX, SendFailure, Slot, Wait};

use crate::limits;
use crate::link::{ControlBell, ShardLink};
use crate::order::{Ask, DrainPlan};
use crate::reason::{DropReason, Reject};
use crate::stats::{Pool, ShardStats};

use self::accept::Acceptor;
use self::accepts::AcceptSets;
use self::batch::Batch;
use self::chunks::Chunks;
use self::conn::{Class, Phase, Table, flag};
use self::flush::Queues;
use self::outbox::{Outboxes, SlotList};
use self::pace::Pace;
use self::reports::Debts;
use self::rooms::Rooms;
use self::runs::Runs;
use self::timers::Wheel;
use self::tls::Tls;
use self::upstream::Upstream;

/// Most orders carried out in a turn.
const ORDERS_PER_TURN_MAX: usize = 512;

/// Most receives of a turn.
const RECVS_PER_TURN_MAX: usize = 1024;

/// Most timers that fire in a turn.
const TIMERS_PER_TURN_MAX: usize = 4096;

/// Longest sleep: bounds what a lost wake-up can cost, and drives the timers.
const SLEEP_MS_MAX: u64 = timers::TICK_MS as u64;

/// One shard over its ring. Time is an argument: milliseconds since the process started.
pub struct Shard<R: Ring> {
    settings: ShardSettings,
    ring: R,
    link: Arc<ShardLink>,
    control: Arc<ControlBell>,
    now_ms: u64,
    /// The same in ticks of the wheel.
    tick: u32,
    table: Table,
    wheel: Wheel,
    acceptor: Acceptor,
    chunks: Chunks,
    accept_sets: AcceptSets,
    rooms: Rooms,
    runs: Runs,
    outboxes: Outboxes,
    queues: Queues,
    batch: Batch,
    pace: Pace,
    tls: Tls,
    upstream: Upstream,
    debts: Debts,
    /// Connections to read, each once.
    ready: SlotList,
    /// Connections whose next packet waits for an ask buffer.
    wait_ask: SlotList,
    /// Buffers for questions to control.
    asks: Vec<Box<Ask>>,
    /// Replies of the connection that is being read.
    reply: Vec<u8>,
    requests: Vec<RecvRequest>,
    received: Vec<Received>,
    failures: Vec<SendFailure>,
    draining: Option<Drain>,
    open: u32,
}

/// A drain in progress.
#[derive(Clone, Copy, Debug)]
struct Drain {
    plan: DrainPlan,
    /// When it was ordered.
    begun: u32,
    begun_ms: u64,
    /// Everything is closed by force from this tick on.
    deadline: u32,
    /// Slots from here on have been told.
    cursor: u32,
    reported: bool,
}

/// What a turn left to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Work is left: come back at once.
    Busy,
    /// Nothing to do until something happens.
    Idle,
    /// The shard has drained; no further turn is needed.
    Done,
}

impl<R: Ring> Shard<R> {
    /// A shard that serves nothing yet; all memory it will use is reserved here.
    pub fn new(settings: ShardSettings, ring: R, link: Arc<ShardLink>, control: Arc<ControlBell>) -> Self {
        let slots = settings.connections_max;
        let per_connection = u32::try_from(limits::ROOMS_PER_CONNECTION_MAX).unwrap_or(u32::MAX);
        // Every run is kept by an outbox entry, a passing room, a direct push or a reply.
        let runs_max = settings.outbox_entries_max as usize + limits::ORDERS_MAX * 4;
        let echo_bytes_max = settings.echo_bytes_max();
        let array_bytes = settings.pinned_bytes_max.saturating_mul(2).max(16 << 20).saturating_add(echo_bytes_max);
        // Beside its outbox an echo connection may have a message whole and one begun.
        let outboxes = if echo_bytes_max > 0 { slots * 3 } else { slots };
        let tls_bytes = Tls::buffer_bytes(&settings.listeners, settings.partials_max);
        let inflates = settings.listeners.iter().any(|listener| listener.compression);
        let chunks = Chunks::new(settings.partials_max, tls_bytes, inflates);
        Self {
            table: Table::new(slots),
            wheel: Wheel::new(),
            acceptor: Acceptor::new(settings.listeners.len(), settings.accepts_armed_max, settings.accept_rate),
            tls: Tls::new(&settings.listeners, slots, settings.partials_max, &chunks),
            chunks,
            upstream: Upstream::new(slots, settings.upstream.is_some()),
            accept_sets: AcceptSets::new(),
            rooms: Rooms::new(settings.rooms_max, slots, per_connection),
            runs: Runs::new(runs_max, array_bytes, [settings.pinned_bytes_max, echo_bytes_max]),
            outboxes: Outboxes::new(outboxes, settings.outbox_entries_max),
            queues: Queues::new(slots),
            batch: Batch::new(),
            pace: Pace::new(slots),
            debts: Debts::new(slots),
            ready: VecDeque::with_capacity(slots as usize),
            wait_ask: VecDeque::with_capacity(slots as usize),
            asks: (0..limits::ASKS_MAX).map(|_| Box::new(Ask::empty())).collect(),
            reply: Vec::with_capacity(requests::REPLY_BYTES_MAX),
            requests: Vec::with_capacity(RECV_BATCH_MAX),
            received: Vec::with_capacity(RECV_BATCH_MAX),
            failures: Vec::with_capacity(SEND_BATCH_MAX),
            draining: None,
            open: 0,
            now_ms: 0,
            tick: 0,
            settings,
            ring,
            link,
            control,
        }
    }

    /// One turn without its sleep.
    pub fn turn(&mut self, now_ms: u64) -> Turn {
        self.now_ms = now_ms;
        self.tick = u32::try_from(now_ms / u64::from(timers::TICK_MS)).unwrap_or(u32::MAX);
        self.completions();
        let mut busy = self.take_orders();
        busy |= self.take_answers();
        busy |= self.receive();
        self.wake_upstream();
        busy |= self.fire_timers();
        self.drain_step();
        busy |= self.flush();
        self.acceptor.fill(&mut self.ring, &mut self.table, now_ms, &self.link.stats);
        self.report();
        self.publish();
        if self.is_drained() {
            Turn::Done
        } else if busy {
            Turn::Busy
        } else {
            Turn::Idle
        }
    }

    /// Sleeps as far as the turn allows, or only lets the kernel go on.
    pub fn wait(&mut self, turn: Turn) {
        let how = self.park(turn);
        self.ring.wait(how);
        self.link.unpark();
    }

    /// How to wait after this turn; a sleep has been announced.
    fn park(&self, turn: Turn) -> Wait {
        if turn == Turn::Idle && self.link.park(self.owes()) {
            Wait::Sleep(std::time::Duration::from_millis(SLEEP_MS_MAX))
        } else {
            Wait::Poll
        }
    }

    fn stats(&self) -> &ShardStats {
        &self.link.stats
    }

    fn reject(&self, reject: Reject) {
        self.stats().rejects[reject.at()].add(1);
    }

    fn count_dropped(&self, reason: DropReason, deliveries: u32) {
        self.stats().dropped[reason.at()].add(u64::from(deliveries));
    }

    fn listener(&self, slot: Slot) -> &ListenerSettings {
        &self.settings.listeners[usize::from(self.table[slot].listener)]
    }

    fn class(&self, slot: Slot) -> Class {
        self.table[slot].class()
    }

    /// Takes every completion and marks what it makes possible.
    fn completions(&mut self) {
        while let Some(completion) = self.ring.next() {
            match completion {
                Completion::Accepted { place, result } => self.accepted(place, result),
                Completion::Readable { slot, generation } => self.poll_ended(slot, generation, flag::POLL_READ),
                Completion::Writable { slot, generation } => self.poll_ended(slot, generation, flag::POLL_WRITE),
                Completion::Closed { slot, generation } => {
                    if self.table[slot].generation == generation {
                        self.table[slot].clear(flag::CLOSE);
                        self.join(slot);
                    }
                }
                Completion::ListenerReady { listener } => self.acceptor.listener_ready(listener),
                Completion::Doorbell => {}
            }
        }
    }

    fn poll_ended(&mut self, slot: Slot, generation: u32, poll: u32) {
        let conn = &mut self.table[slot];
        if conn.generation != generation {
            return;
        }
        conn.clear(poll);
        if conn.phase == Phase::Closing {
            self.join(slot);
        } else if poll == flag::POLL_READ {
            self.mark_ready(slot);
        } else {
            self.mark_writable(slot);
        }
    }

    /// Puts the connection on the list of those to be read.
    fn mark_ready(&mut self, slot: Slot) {
        let conn = &mut self.table[slot];
        if !conn.has(flag::READY) {
            conn.set(flag::READY);
            self.ready.push_back(slot);
        }
    }

    /// Puts the connection on the list of those whose outbox is sent from.
    fn mark_writable(&mut self, slot: Slot) {
        let conn = &mut self.table[slot];
        if conn.outbox != 0 && !conn.has(flag::WRITABLE | flag::HELD) {
            conn.set(flag::WRITABLE);
            self.queues.writable.push_back(slot);
        }
    }

    /// Whether timers are left that are due.
    fn fire_timers(&mut self) -> bool {
        for _ in 0..TIMERS_PER_TURN_MAX {
            let Some(slot) = self.wheel.next(&mut self.table, self.tick) else {
                return !self.ready.is_empty();
            };
            self.timer_fired(slot);
        }
        true
    }

    /// Publishes the gauges and the ring's counters.
    fn publish(&self) {
        let stats = self.stats();
        let counters = self.ring.counters();
        stats.enters.set(counters.enters);
        stats.completions.set(counters.completions);
        stats.connections.set(u64::from(self.open));
        stats.rooms.set(u64::from(self.rooms.with_members()));
        stats.pinned_bytes.set(self.runs.pinned_bytes());
        stats.upstream.in_flight.set(self.upstream.in_flight() as u64);
        stats.turns.add(1);
        self.publish_pools();
        stats.publish_balance();
    }

    /// Publishes how much there is of what the shard has a fixed number of, and how much is taken.
    fn publish_pools(&self) {
        let places = |count: usize| count as u64;
        let settings = &self.settings;
        let push_bytes = self.queues.weight() + self.rooms.waiting_bytes();
        for (pool, used, max) in [
            (Pool::AcceptSets, self.accept_sets.used().into(), places(limits::ACCEPT_SETS_MAX - 1)),
            (Pool::Asks, places(limits::ASKS_MAX - self.asks.len()), places(limits::ASKS_MAX)),
            (Pool::Connections, self.open.into(), settings.connections_max.into()),
            (Pool::OutboxEntries, self.outboxes.used_entries().into(), settings.outbox_entries_max.into()),
            (Pool::Partials, self.chunks.kept().into(), settings.partials_max.into()),
            (Pool::PinnedBytes, self.runs.pushed_bytes(), settings.pinned_bytes_max.into()),
            (Pool::PushBytes, places(push_bytes), places(limits::PUSHES_WEIGHT_MAX)),
            (Pool::Rooms, self.rooms.with_members().into(), settings.rooms_max.into()),
            (Pool::Runs, self.runs.used().into(), places(self.runs.places_max())),
        ] {
            let fill = &self.stats().pools[pool.at()];
            fill.used.set(used);
            fill.max.set(max);
        }
    }
}
