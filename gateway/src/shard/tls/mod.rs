//! TLS of a shard's connections: handshakes by rustls, a few a turn, and then records by the shard itself.
//!
//! rustls hands the keys over when a handshake is complete, as it does for the kernel's TLS. From there on a message is
//! sealed straight into its batch and opened where it was received: nothing is allocated on its way, and an
//! idle connection keeps its keys and nothing else.

mod handshake;
mod inbox;
mod receive;
mod records;
mod send;

use std::sync::Arc;

use halley_ring::{Ring, Slot};
use rustls::ServerConfig;
use rustls::server::UnbufferedServerConnection;

use super::chunks::Chunks;
use super::conn::flag;
use super::outbox::SlotList;
use super::{ListenerSettings, Shard};

pub(super) use records::Content;
pub(super) use send::{Sealed, bytes_of};

use inbox::{InboxIndex, Inboxes};
use records::{Records, SEAL_BYTES_MAX};

/// Handshakes that a turn goes on with: the work of one is that of a hundred deliveries.
const HANDSHAKES_PER_TURN_MAX: u32 = 4;

/// Bytes of sealed records in a batch; a batch is submitted when another seal might not fit.
const SEALED_BYTES_MAX: usize = 512 * 1024;

const _: () = assert!(SEAL_BYTES_MAX * 8 <= SEALED_BYTES_MAX, "long messages share a batch too");

/// What a connection's TLS is at.
enum Stage {
    Free,
    Shaking(Box<UnbufferedServerConnection>),
    Open(Box<Records>),
}

/// The TLS of one connection.
struct Session {
    stage: Stage,
    /// Its inbox while a record is unfinished.
    inbox: u32,
    /// What comes is not opened any more.
    deaf: bool,
}

const _: () = assert!(size_of::<Session>() <= 24, "beside its keys");

/// The TLS of all connections of a shard. Nothing is reserved where no listener has it.
pub(super) struct Tls {
    /// What new connections of each listener begin with.
    configs: Vec<Option<Arc<ServerConfig>>>,
    /// The session of a slot; one more than its place.
    places: Box<[u32]>,
    sessions: Vec<Session>,
    free: Vec<u32>,
    inboxes: Inboxes,
    /// Connections whose handshake waits for its turn.
    waiting: SlotList,
    /// Handshakes that may go on this turn.
    turns: u32,
    /// Sealed records of the batch.
    sealed: Vec<u8>,
    /// What a handshake says.
    said: Vec<u8>,
}

impl Tls {
    /// Bytes of receive buffers that it needs.
    pub(super) fn buffer_bytes(listeners: &[ListenerSettings], partials_max: u32) -> usize {
        if listeners.iter().any(|listener| listener.tls.is_some()) { Inboxes::bytes(partials_max) } else { 0 }
    }

    pub(super) fn new(listeners: &[ListenerSettings], slots: u32, partials_max: u32, chunks: &Chunks) -> Self {
        let configs: Vec<_> = listeners.iter().map(|listener| listener.tls.clone()).collect();
        let is_used = configs.iter().any(Option::is_some);
        let some = |size: usize| if is_used { size } else { 0 };
        Self {
            configs,
            places: bytemuck::zeroed_slice_box(some(slots as usize)),
            sessions: Vec::with_capacity(some(slots as usize)),
            free: Vec::with_capacity(some(slots as usize)),
            inboxes: Inboxes::new(if is_used { partials_max } else { 0 }, chunks.end()),
            waiting: SlotList::with_capacity(some(slots as usize)),
            turns: 0,
            sealed: Vec::with_capacity(some(SEALED_BYTES_MAX)),
            said: Vec::new(),
        }
    }

    /// From here on connections of a listener begin with this configuration; those that are there keep theirs.
    pub(super) fn configure(&mut self, listener: usize, config: Arc<ServerConfig>) {
        if let Some(place @ Some(_)) = self.configs.get_mut(listener) {
            *place = Some(config);
        }
    }

    /// Begins a connection's TLS, if its listener has it.
    pub(super) fn begin(&mut self, slot: Slot, listener: usize) -> bool {
        let Some(config) = &self.configs[listener] else { return false };
        let handshake = UnbufferedServerConnection::new(Arc::clone(config)).expect("checked when it was loaded");
        let session = Session { stage: Stage::Shaking(Box::new(handshake)), inbox: 0, deaf: false };
        let place = if let Some(place) = self.free.pop() {
            self.sessions[place as usize] = session;
            place
        } else {
            self.sessions.push(session);
            u32::try_from(self.sessions.len() - 1).expect("as many as slots")
        };
        self.places[slot.at()] = place + 1;
        true
    }

    /// Forgets a connection's TLS.
    fn end(&mut self, slot: Slot) {
        let Some(place) = std::mem::take(&mut self.places[slot.at()]).checked_sub(1) else { return };
        let session = &mut self.sessions[place as usize];
        session.stage = Stage::Free;
        if let Some(inbox) = session.inbox.checked_sub(1) {
            self.inboxes.give(InboxIndex(inbox));
        }
        self.free.push(place);
    }

    fn session(&mut self, slot: Slot) -> &mut Session {
        let place = self.places[slot.at()] - 1;
        &mut self.sessions[place as usize]
    }

    /// The keys of a connection whose handshake is complete.
    fn records(&mut self, slot: Slot) -> Option<&mut Records> {
        match &mut self.session(slot).stage {
            Stage::Open(records) => Some(records),
            Stage::Free | Stage::Shaking(_) => None,
        }
    }

    /// Nothing that comes is opened any more.
    pub(super) fn deafen(&mut self, slot: Slot) {
        self.session(slot).deaf = true;
    }

    /// The sealed records of the batch.
    pub(super) fn sealed(&self) -> &[u8] {
        &self.sealed
    }

    /// The batch is out.
    pub(super) fn forget_sealed(&mut self) {
        self.sealed.clear();
    }

    /// Whether another seal fits the batch.
    pub(super) fn has_room(&self) -> bool {
        self.sealed.len() + SEAL_BYTES_MAX <= self.sealed.capacity() || self.sealed.is_empty()
    }

    /// Sessions, kept inboxes, and handshakes that wait.
    #[cfg(test)]
    pub(super) fn in_use(&self) -> (usize, u32, usize) {
        (self.sessions.len() - self.free.len(), self.inboxes.kept(), self.waiting.len())
    }
}

impl<R: Ring> Shard<R> {
    /// Whether the connection's handshake is not complete: nothing but it may be said.
    pub(super) fn is_shaking(&mut self, slot: Slot) -> bool {
        self.table[slot].has(flag::TLS) && self.tls.records(slot).is_none()
    }

    /// The connection's socket closes.
    pub(super) fn end_tls(&mut self, slot: Slot) {
        if self.table[slot].has(flag::TLS) {
            self.tls.end(slot);
        }
    }
}
