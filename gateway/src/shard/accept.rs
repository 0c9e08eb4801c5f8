//! Accepting: one-shot accepts on shared listeners, never more than free slots.
//!
//! Every armed accept owns a slot. While slots are plentiful each listener has several; when they run
//! out, listeners without an accept are watched, and an idle accept elsewhere gives its slot up for the
//! first client that comes.
//!
//! Who is not accepted waits in the kernel's queue of the listener: beyond the rate of accepts until its turn comes,
//! and while memory is short until there is some. Nobody is accepted only to be sent away.

use halley_ring::{Errno, Ring, Slot};

use crate::reason::Reject;
use crate::sabotage::{Bug, planted};
use crate::stats::ShardStats;

use super::Shard;
use super::bucket::{AcceptRate, Bucket};
use super::conn::{Phase, Table, flag};
use super::settings::{Dialect, Transport};
use super::timers;

/// One accept's place in the ring.
#[derive(Clone, Copy, Debug)]
struct Place {
    listener: usize,
    /// The slot it owns while it is armed.
    slot: Option<Slot>,
    cancelling: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Listener {
    armed: u16,
    watched: bool,
    /// A client waits and no accept is armed.
    waiting: bool,
}

/// Whether accepts are armed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// As far as slots and the rate allow.
    Accepting,
    /// Not until told to go on: memory is short.
    Held,
    /// Never again.
    Stopped,
}

/// The accepts of one shard.
pub(super) struct Acceptor {
    places: Vec<Place>,
    listeners: Vec<Listener>,
    armed_max: u16,
    /// No accept before this tick: the kernel had no file to give.
    pause_until: u32,
    state: State,
    full: bool,
    bucket: Bucket,
    /// The bucket is empty and nothing is armed.
    limited: bool,
}

impl Acceptor {
    pub(super) fn new(listeners: usize, armed_max: u16, rate: AcceptRate) -> Self {
        let places = listeners * usize::from(armed_max);
        Self {
            places: vec![Place { listener: 0, slot: None, cancelling: false }; places],
            listeners: vec![Listener::default(); listeners],
            armed_max,
            pause_until: 0,
            state: State::Accepting,
            full: false,
            bucket: Bucket::new(rate),
            limited: false,
        }
    }

    /// Arms accepts while slots are free, fairly over the listeners, those with waiting clients first.
    pub(super) fn fill(&mut self, ring: &mut impl Ring, table: &mut Table, now_ms: u64, stats: &ShardStats) {
        if self.state != State::Accepting || now_ms < u64::from(self.pause_until) * u64::from(timers::TICK_MS) {
            return;
        }
        self.bucket.fill(now_ms);
        let mut limited = false;
        while let Some(listener) = self.neediest() {
            if !self.bucket.has() && !planted(Bug::RateIgnored) {
                limited = true;
                break;
            }
            let Some(slot) = table.take() else { break };
            self.bucket.take();
            let at = self.places.iter().position(|place| place.slot.is_none()).expect("a place for every accept");
            self.places[at] = Place { listener, slot: Some(slot), cancelling: false };
            self.listeners[listener].armed += 1;
            self.listeners[listener].waiting = false;
            ring.accept(listener, u16::try_from(at).expect("few places"), slot);
        }
        let bare = self.places.iter().all(|place| place.slot.is_none());
        if limited && bare && !self.limited {
            stats.accept_rate_pauses.add(1);
        }
        self.limited = limited && bare;
        if table.free_slots() > 0 {
            self.full = false;
            return;
        }
        let full = bare;
        if full && !self.full {
            stats.accept_pauses.add(1);
        }
        self.full = full;
        self.watch_the_bare(ring);
    }

    /// The listener that should get the next accept: one whose client waits, else the one with the fewest.
    fn neediest(&self) -> Option<usize> {
        let wants = |at: &usize| self.listeners[*at].armed < self.armed_max;
        (0..self.listeners.len())
            .filter(wants)
            .min_by_key(|at| (!self.listeners[*at].waiting, self.listeners[*at].armed))
    }

    /// Every slot is taken: a listener without an accept gets a watch, and one whose client waits gets
    /// the slot of an accept of another listener.
    fn watch_the_bare(&mut self, ring: &mut impl Ring) {
        let mut given_up = self.places.iter().filter(|place| place.cancelling).count();
        for at in 0..self.listeners.len() {
            let Listener { armed, watched, waiting } = self.listeners[at];
            if armed > 0 || watched {
                continue;
            }
            if !waiting {
                self.listeners[at].watched = true;
                ring.watch_listener(at);
            } else if given_up > 0 {
                given_up -= 1;
            } else {
                self.give_one_up(ring, at);
            }
        }
    }

    /// Cancels an accept of the listener that has most, for the sake of `other`.
    fn give_one_up(&mut self, ring: &mut impl Ring, other: usize) {
        let armed = |place: &Place| self.listeners[place.listener].armed;
        let place = (0..self.places.len())
            .filter(|at| {
                let place = &self.places[*at];
                place.slot.is_some() && !place.cancelling && place.listener != other
            })
            .max_by_key(|at| armed(&self.places[*at]));
        if let Some(at) = place {
            self.places[at].cancelling = true;
            ring.cancel_accept(u16::try_from(at).expect("few places"));
        }
    }

    /// A watched listener has a client, or the watch was ended.
    pub(super) fn listener_ready(&mut self, listener: usize) {
        let listener = &mut self.listeners[listener];
        listener.watched = false;
        listener.waiting = listener.armed == 0;
    }

    /// An accept has completed: its listener and the slot that it owned.
    fn completed(&mut self, place: u16) -> (usize, Slot) {
        let place = &mut self.places[usize::from(place)];
        let slot = place.slot.take().expect("an armed accept");
        place.cancelling = false;
        self.listeners[place.listener].armed -= 1;
        (place.listener, slot)
    }

    /// Nobody came for this accept, or nobody who is there.
    fn give_back(&mut self) {
        self.bucket.give();
    }

    /// Another rate from now on.
    pub(super) fn set_rate(&mut self, rate: AcceptRate) {
        self.bucket.set(rate);
    }

    /// Stops accepting for good.
    pub(super) fn stop(&mut self, ring: &mut impl Ring) {
        self.state = State::Stopped;
        self.take_back(ring);
    }

    /// Stops accepting until told to go on.
    pub(super) fn hold(&mut self, ring: &mut impl Ring, hold: bool, stats: &ShardStats) {
        match (self.state, hold) {
            (State::Accepting, true) => {
                stats.accept_memory_pauses.add(1);
                self.state = State::Held;
                self.take_back(ring);
            }
            (State::Held, false) => self.state = State::Accepting,
            _ => {}
        }
    }

    /// Takes every accept and watch back. One that has its client already keeps it.
    fn take_back(&mut self, ring: &mut impl Ring) {
        for (at, place) in self.places.iter_mut().enumerate() {
            if place.slot.is_some() && !place.cancelling {
                place.cancelling = true;
                ring.cancel_accept(u16::try_from(at).expect("few places"));
            }
        }
        for (at, listener) in self.listeners.iter_mut().enumerate() {
            if listener.watched {
                ring.unwatch_listener(at);
            }
        }
    }

    /// Accepts that own a slot.
    #[cfg(test)]
    pub(super) fn armed(&self) -> u32 {
        u32::try_from(self.places.iter().filter(|place| place.slot.is_some()).count()).expect("few places")
    }

    /// Whether nothing of this is in flight.
    pub(super) fn is_quiet(&self) -> bool {
        self.places.iter().all(|place| place.slot.is_none()) && self.listeners.iter().all(|l| !l.watched)
    }
}

impl<R: Ring> Shard<R> {
    /// An accept has completed: begins the connection, or gives the slot back.
    pub(super) fn accepted(&mut self, place: u16, result: Result<std::net::SocketAddr, Errno>) {
        let (listener, slot) = self.acceptor.completed(place);
        let peer = match result {
            Ok(peer) => peer,
            Err(error) => {
                self.table.give(slot);
                self.acceptor.give_back();
                // The socket of a gateway that drains listens no more.
                if error != Errno::CANCELED && self.draining.is_none() {
                    self.reject(Reject::AcceptFailed);
                    // Without a file, or with a client that was gone at once: the others wait one tick.
                    self.acceptor.pause_until = self.tick + 1;
                }
                return;
            }
        };
        self.table.begin(slot, peer, self.tick);
        self.pace.begin(slot);
        self.stats().accepted.add(1);
        self.open += 1;
        let settings = &self.settings.listeners[listener];
        let deadline = self.tick + timers::ticks(settings.login_ms_max);
        let (transport, dialect) = (settings.transport, settings.dialect);
        let conn = &mut self.table[slot];
        conn.listener = u8::try_from(listener).expect("few listeners");
        conn.deadline = deadline;
        conn.phase = if transport == Transport::WebSocket { Phase::Handshake } else { Phase::Login };
        if transport == Transport::WebSocket {
            conn.set(flag::WEBSOCKET);
        } else if dialect == Dialect::GoimV1 {
            conn.set(flag::V1);
        }
        if let Err(reason) = self.begin_peer(slot) {
            return self.refuse_peer(slot, reason);
        }
        if self.tls.begin(slot, listener) {
            self.table[slot].set(flag::TLS);
        }
        self.wheel.set(&mut self.table, slot, deadline);
        if let Some(drain) = &mut self.draining {
            // It came before its accept could be cancelled: it is told like those before it.
            drain.cursor = drain.cursor.min(slot.0);
        }
        // The first bytes are often there already: read before arming a poll.
        self.mark_ready(slot);
    }
}
