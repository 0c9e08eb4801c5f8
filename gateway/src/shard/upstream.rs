//! Upstream: messages of clients that are passed on, and the answers that come back.

use bytemuck::Zeroable;
use halley_protocol::operation;
use halley_protocol::packet::Packet;
use halley_protocol::reply;
use halley_ring::{Ring, Slot};

use crate::ids::Generation;
use crate::limits::UPSTREAM_BUFFERS_MAX;
use crate::reason::CloseReason;
use crate::sabotage::{Bug, planted};
use crate::upstream::{Answer, Bucket, Outcome, Receipt, Refused, UpstreamLink};

use super::chunks::ChunkIndex;
use super::conn::{Phase, flag};
use super::requests::{REPLY_BYTES_MAX, Request};
use super::{RECVS_PER_TURN_MAX, Shard};

/// Most answers told in a turn.
pub(super) const ANSWERS_PER_TURN_MAX: usize = 512;

/// Bytes of the reply to one message: a frame's and a packet's header, and the longest body.
const ANSWER_BYTES: usize = 64;

const _: () = assert!(
    ANSWERS_PER_TURN_MAX * ANSWER_BYTES + reply::REPLY_BYTES_MAX <= REPLY_BYTES_MAX,
    "the answers of a turn fit the replies of one connection"
);

const _: () = assert!(
    UPSTREAM_BUFFERS_MAX > RECVS_PER_TURN_MAX,
    "a turn in which everybody says one message fits, whether or not the thread runs meanwhile"
);

/// What is known of the connections that have passed something on.
pub(super) struct Upstream {
    /// By slot; none without upstream. Address space at start, memory when a slot first says something.
    senders: Box<[Sender]>,
    /// Messages without their answers.
    in_flight: usize,
    /// Something was passed on since the thread was last woken.
    wake: bool,
}

/// One connection. An entry of another generation is that of a connection that is gone.
#[derive(Clone, Copy, Debug, Zeroable)]
struct Sender {
    bucket: Bucket,
    generation: Generation,
    /// Messages without their answers.
    in_flight: u32,
}

const _: () = assert!(size_of::<Sender>() == 16, "held for every connection that says something");

impl Upstream {
    pub(super) fn new(slots: u32, configured: bool) -> Self {
        let slots = if configured { slots as usize } else { 0 };
        Self { senders: bytemuck::zeroed_slice_box(slots), in_flight: 0, wake: false }
    }

    /// Messages without their answers.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn sender(&mut self, slot: Slot, generation: Generation) -> &mut Sender {
        let sender = &mut self.senders[slot.at()];
        if sender.generation != generation {
            *sender = Sender { generation, ..Sender::zeroed() };
        }
        sender
    }
}

impl<R: Ring> Shard<R> {
    /// Whether this operation is a message for the place.
    pub(super) fn passes_on(&self, operation: i32) -> bool {
        self.settings.upstream.as_ref().is_some_and(|rules| rules.pass_on(operation))
    }

    /// Hands a message to the upstream thread, or refuses it.
    pub(super) fn pass_on(&mut self, slot: Slot, chunk: ChunkIndex, request: &Request) {
        self.stats().upstream.received.add(1);
        if let Err(refused) = self.try_pass_on(slot, chunk, request) {
            self.stats().upstream.refused[refused.at()].add(1);
            self.reply_to(slot, request, reply_operation(request.operation), refused.body().as_bytes());
        }
    }

    fn try_pass_on(&mut self, slot: Slot, chunk: ChunkIndex, request: &Request) -> Outcome {
        let (Some(rules), Some(link)) = (&self.settings.upstream, &self.link.upstream) else {
            return Err(Refused::PlaceAway);
        };
        if self.draining.is_some_and(|drain| slot.0 < drain.cursor) {
            return Err(Refused::Draining);
        }
        if request.body.len() > rules.message_bytes_max as usize {
            return Err(Refused::TooLarge);
        }
        let conn = &self.table[slot];
        let sender = self.upstream.sender(slot, conn.generation);
        if sender.in_flight >= rules.connection_in_flight_max {
            return Err(Refused::InFlight);
        }
        let taken_us = self.ring.now_us();
        if !sender.bucket.take(rules, taken_us) {
            return Err(Refused::Rate);
        }
        if self.upstream.in_flight >= link.in_flight_max() {
            return Err(Refused::QueueFull);
        }
        let mut message = link.take().ok_or(Refused::QueueFull)?;
        let Request { operation, sequence, version, .. } = *request;
        let word = self.word(slot);
        message.receipt = Receipt { conn: word, taken_us, operation, sequence, version };
        message.ticket = self.table[slot].ticket;
        message.rooms = self.rooms.of(&self.table, slot).collect();
        let (bytes, _) = self.chunks.parts(chunk);
        message.set_body(&bytes[request.body.clone()]);
        link.put(message);
        self.upstream.sender(slot, word.generation()).in_flight += 1;
        self.upstream.in_flight += 1;
        self.upstream.wake = true;
        self.table[slot].set(flag::UPSTREAM);
        Ok(())
    }

    /// Wakes the upstream thread, if there is something new for it.
    pub(super) fn wake_upstream(&mut self) {
        if std::mem::take(&mut self.upstream.wake)
            && let Some(link) = &self.link.upstream
        {
            link.wake();
        }
    }

    /// Tells clients what became of their messages; whether answers are left. Several in a row for one connection leave as
    /// one reply.
    pub(super) fn take_answers(&mut self) -> bool {
        if self.upstream.in_flight == 0 {
            return false;
        }
        let now_us = self.ring.now_us();
        self.reply.clear();
        let mut told = None;
        for _ in 0..ANSWERS_PER_TURN_MAX {
            let Some(answer) = self.link.upstream.as_ref().and_then(UpstreamLink::next_answer) else { break };
            let slot = answer.receipt.conn.slot();
            if let Some(told) = told.filter(|told| *told != slot) {
                self.queue_reply(told);
            }
            told = Some(slot);
            self.answered(slot, &answer, now_us);
        }
        if let Some(told) = told {
            self.queue_reply(told);
        }
        self.link.upstream.as_ref().is_some_and(UpstreamLink::has_answers)
    }

    fn answered(&mut self, slot: Slot, answer: &Answer, now_us: u64) {
        let Answer { receipt, outcome } = *answer;
        self.upstream.in_flight -= 1;
        let body = match outcome {
            Ok(()) => {
                self.stats().upstream.acknowledged.add(1);
                self.stats().upstream.answer_us.record(now_us.saturating_sub(receipt.taken_us));
                ""
            }
            Err(refused) => {
                self.stats().upstream.refused[refused.at()].add(1);
                refused.body()
            }
        };
        // Only the end of a drain frees a slot before its answers are here.
        if self.table[slot].generation != receipt.conn.generation() {
            return;
        }
        let sender = self.upstream.sender(slot, receipt.conn.generation());
        sender.in_flight -= 1;
        let last = sender.in_flight == 0 && self.table[slot].has(flag::UPSTREAM);
        if last && !planted(Bug::AnswerHoldsSlot) {
            self.table[slot].clear(flag::UPSTREAM);
        }
        match self.table[slot].phase {
            Phase::Open => {
                let (version, sequence) = (receipt.version, receipt.sequence);
                let operation = reply_operation(receipt.operation);
                self.write_packet(slot, &Packet { version, operation, sequence, body: body.as_bytes() });
                if last && self.draining.is_some_and(|drain| slot.0 < drain.cursor) {
                    self.queue_reply(slot);
                    self.end(slot, CloseReason::Drain);
                }
            }
            Phase::Closing if last => self.join(slot),
            _ => {}
        }
    }

    /// Whether a drain lets the connection stay until its messages are answered.
    pub(super) fn waits_for_answers(&self, slot: Slot) -> bool {
        self.table[slot].phase == Phase::Open && self.table[slot].has(flag::UPSTREAM)
    }

    /// Waits no longer for the answers to a connection's messages; it is about to be cut.
    pub(super) fn forget_answers(&mut self, slot: Slot) {
        if self.table[slot].has(flag::UPSTREAM) {
            self.table[slot].clear(flag::UPSTREAM);
            self.join(slot);
        }
    }
}

/// goim has a code for the reply to a message; others are answered under their own, as goim answers what it does not know.
fn reply_operation(operation: i32) -> i32 {
    if operation == operation::SEND_MESSAGE { operation::SEND_MESSAGE_REPLY } else { operation }
}
