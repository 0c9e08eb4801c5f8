//! Carrying out what control and dispatch order.

use halley_protocol::halley::{JoinReply, JoinStatus, LeaveStatus, RefreshReply, RefreshStatus};
use halley_protocol::operation;
use halley_protocol::packet::Packet;
use halley_ring::{Ring, Slot};

use crate::ids::{ConnWord, RoomRef};
use crate::limits::PUSHES_WEIGHT_MAX;
use crate::order::{Echoed, Grant, Inspection, Order, Report, Verdict};
use crate::payload::Payload;
use crate::reason::{CloseReason, DropReason, Reject};
use crate::sabotage::{Bug, planted};

use super::conn::{Phase, flag};
use super::rooms::Joined;
use super::{ORDERS_PER_TURN_MAX, Shard, timers};

impl<R: Ring> Shard<R> {
    /// Carries orders out, pushes only as long as what waits here leaves room; whether some are left.
    pub(super) fn take_orders(&mut self) -> bool {
        for _ in 0..ORDERS_PER_TURN_MAX {
            let push = if self.has_room() { self.link.next_push() } else { None };
            let done = push.is_none();
            // What control ordered before dispatch found it in the directory comes first.
            while let Some(order) = self.link.next_control() {
                self.carry_out(order);
            }
            if let Some(push) = push {
                self.carry_out(push);
            }
            if done {
                return self.link.has_pushes();
            }
        }
        true
    }

    /// Whether another push can wait in the shard.
    fn has_room(&self) -> bool {
        self.queues.has_room() && self.queues.weight() + self.rooms.waiting_bytes() < PUSHES_WEIGHT_MAX
    }

    fn carry_out(&mut self, order: Order) {
        match order {
            Order::Grant { conn, grant } => self.grant(conn, &grant),
            // The buffer is for others; the connection waits on.
            Order::Answer { ask, verdict: Verdict::Later, .. } => self.asks.push(ask),
            Order::Answer { conn, ask, verdict } => {
                self.answer(conn, ask.echoed(), verdict);
                if !(planted(Bug::AnswerForgotten) && self.table[conn.slot()].phase == Phase::Closing) {
                    self.asks.push(ask);
                }
            }
            Order::Decided { conn, asked, verdict } => self.answer(conn, asked.echoed(), verdict),
            Order::Room { room, payload } => self.push_to_room(room, payload),
            Order::Direct { conns, payload } => self.queues.push_direct(conns, payload),
            Order::All { payload } => self.queues.push_all(payload),
            Order::Close { conn, reason } => match self.slot_of(conn) {
                Some(slot) => self.end(slot, reason),
                None => self.reject(Reject::StaleConnection),
            },
            Order::Inspect { conn, token } => {
                let found = self.slot_of(conn).map(|slot| Box::new(self.inspect(slot)));
                self.answer_inspection(Report::Inspected { token, found });
            }
            Order::Reload { settings } => {
                self.settings.take_over(&settings);
                self.acceptor.set_rate(settings.accept_rate);
            }
            Order::HoldAccepts { hold } => self.acceptor.hold(&mut self.ring, hold, &self.link.stats),
            Order::Drain { plan } => self.begin_drain(plan),
            Order::Certificates { listener, config } => self.tls.configure(listener.into(), config),
        }
    }

    /// The slot of a connection that has not ended.
    fn slot_of(&self, conn: ConnWord) -> Option<Slot> {
        let entry = self.table.hot.get(conn.slot().at())?;
        let live = matches!(entry.phase, Phase::Handshake | Phase::Login | Phase::Open);
        (live && entry.generation == conn.generation()).then_some(conn.slot())
    }

    fn push_to_room(&mut self, room: RoomRef, payload: Payload) {
        let Some(index) = self.rooms.find(room) else {
            self.reject(Reject::StaleRoom);
            return;
        };
        let bytes = u32::try_from(payload.inner().len()).unwrap_or(u32::MAX);
        let waiting = self.rooms.pending_bytes(index);
        let fits = waiting == 0 || waiting.saturating_add(bytes) <= self.settings.room_pending_bytes_max;
        if !fits || self.rooms.enqueue(index, payload).is_err() {
            let members = self.rooms.members(index);
            self.stats().offered.add(u64::from(members));
            self.count_dropped(DropReason::RoomBehind, members);
        }
    }

    /// A login that stands: from here on pushes to the connection wait for the reply to its login.
    fn grant(&mut self, word: ConnWord, grant: &Grant) {
        let known = grant.room.is_none_or(|room| self.rooms.count_join(room));
        if !known {
            self.reject(Reject::StaleRoom);
        }
        let slot = word.slot();
        let conn = &mut self.table[slot];
        // The question in flight keeps the slot, so this is the connection that asked.
        debug_assert_eq!(conn.generation, word.generation());
        conn.ticket = grant.ticket;
        if conn.phase != Phase::Login {
            return;
        }
        if !planted(Bug::EarlyPush) {
            conn.set(flag::HELD);
        }
        if grant.marked {
            conn.set(flag::MARKED);
        }
        if grant.limited {
            conn.set(flag::LIMITED);
        }
        self.pace.grant(slot, grant.rate);
        match self.accept_sets.take(&mut grant.accepts.clone()) {
            Ok(set) => self.table[slot].accepts = set,
            Err(_) => self.reject(Reject::TooManyAccepts),
        }
        if let Some(room) = grant.room.filter(|_| known) {
            self.move_to(slot, Some(room));
        }
    }

    /// Makes this the login room, or none.
    fn move_to(&mut self, slot: Slot, room: Option<RoomRef>) {
        self.keep_online(slot);
        let before = if self.table[slot].has(flag::LOGIN_ROOM) {
            self.rooms.of(&self.table, slot).next().map(|room| room.index)
        } else {
            None
        };
        if let Some(before) = before
            && room.map(|room| room.index) != Some(before)
        {
            self.rooms.leave(&mut self.table, slot, before);
            self.table[slot].clear(flag::LOGIN_ROOM);
        }
        let Some(room) = room else { return };
        match self.rooms.join(&mut self.table, slot, room.index, self.settings.rooms_per_connection_max, true) {
            Joined::New => self.table[slot].set(flag::LOGIN_ROOM),
            Joined::Already => {
                self.rooms.make_first(&mut self.table, slot, room.index);
                self.table[slot].set(flag::LOGIN_ROOM);
            }
            Joined::TooMany => self.reject(Reject::TooManyRooms),
        }
    }

    /// Control's answer to a question: carried out, replied to, and the connection is read again.
    fn answer(&mut self, word: ConnWord, ask: Echoed<'_>, verdict: Verdict) {
        let slot = word.slot();
        debug_assert_eq!(self.table[slot].generation, word.generation());
        let ordered = match verdict {
            Verdict::Move(room) => room,
            Verdict::Join { room, .. } => Some(room),
            _ => None,
        };
        if ordered.is_some_and(|room| !self.rooms.count_join(room)) {
            self.reject(Reject::StaleRoom);
        }
        self.table[slot].clear(flag::ASK);
        match self.table[slot].phase {
            Phase::Login | Phase::Open => {
                self.reply.clear();
                self.decide(slot, ask, verdict);
                if self.table[slot].chunk != 0 || !self.table[slot].has(flag::POLL_READ) {
                    self.mark_ready(slot);
                }
            }
            Phase::Closing => self.join(slot),
            Phase::Lingering => self.mark_ready(slot),
            Phase::Free | Phase::Accepting | Phase::Handshake => {}
        }
    }

    fn decide(&mut self, slot: Slot, ask: Echoed<'_>, verdict: Verdict) {
        match verdict {
            Verdict::Admit => self.admit(slot, ask),
            Verdict::Later => debug_assert!(false, "it was late already"),
            Verdict::Refuse(reason) => self.end(slot, reason),
            Verdict::Move(room) => {
                self.move_to(slot, room);
                self.reply_to_ask(slot, ask, operation::CHANGE_ROOM_REPLY, ask.body);
            }
            Verdict::Join { room, members } => {
                let reply = self.join_room(slot, room, members);
                self.reply_to_ask(slot, ask, operation::JOIN_REPLY, &reply.to_bytes());
            }
            Verdict::RoomFull { room, moves: true, .. } => self.move_within(slot, ask, room),
            Verdict::RoomFull { room, members, moves: false } => self.join_within(slot, ask, room, members),
            Verdict::JoinRefused => {
                let reply = JoinReply { status: JoinStatus::Refused, members: 0 };
                self.reply_to_ask(slot, ask, operation::JOIN_REPLY, &reply.to_bytes());
            }
            Verdict::Leave(room) => {
                let status = self.leave_room(slot, room);
                self.reply_to_ask(slot, ask, operation::LEAVE_REPLY, &status.to_bytes());
            }
            Verdict::Accept => {
                self.accept(slot, ask.body);
                self.reply_to_ask(slot, ask, operation::SUBSCRIBE_REPLY, ask.body);
            }
            Verdict::AcceptRefused => {
                self.reject(Reject::NotGranted);
                self.reply_to_ask(slot, ask, operation::SUBSCRIBE_REPLY, ask.body);
            }
            Verdict::Refreshed { seconds, limited, rate } => {
                self.pace.grant(slot, rate);
                let conn = &mut self.table[slot];
                conn.clear(flag::LIMITED);
                if limited {
                    conn.set(flag::LIMITED);
                }
                self.reply_to_refresh(slot, ask, RefreshStatus::Refreshed, seconds);
            }
            Verdict::RefreshRefused { seconds } => {
                self.reply_to_refresh(slot, ask, RefreshStatus::Refused, seconds);
            }
        }
    }

    fn admit(&mut self, slot: Slot, ask: Echoed<'_>) {
        let heartbeat = timers::ticks(self.listener(slot).heartbeat_ms_max);
        let deadline = self.tick + heartbeat;
        let conn = &mut self.table[slot];
        conn.phase = Phase::Open;
        conn.clear(flag::HELD);
        conn.deadline = deadline;
        let outbox = conn.outbox;
        if outbox != 0 {
            // It could not take anything while it was held.
            let stall_at = self.stall_at(slot);
            self.outboxes.set_stall_at(outbox, stall_at);
        }
        self.set_timer(slot);
        self.stats().logins.add(1);
        let reply =
            Packet { version: ask.version, operation: operation::AUTH_REPLY, sequence: ask.sequence, body: &[] };
        self.write_packet(slot, &reply);
        if outbox != 0 {
            self.insert_reply(slot);
            self.mark_writable(slot);
        } else {
            self.queue_reply(slot);
        }
    }

    fn reply_to_ask(&mut self, slot: Slot, ask: Echoed<'_>, operation: i32, body: &[u8]) {
        self.write_packet(slot, &Packet { version: ask.version, operation, sequence: ask.sequence, body });
        self.queue_reply(slot);
    }

    fn reply_to_refresh(&mut self, slot: Slot, ask: Echoed<'_>, status: RefreshStatus, seconds: u32) {
        let reply = RefreshReply { status, seconds: i32::try_from(seconds).unwrap_or(i32::MAX) };
        self.reply_to_ask(slot, ask, operation::REFRESH_REPLY, &reply.to_bytes());
    }

    fn join_room(&mut self, slot: Slot, room: RoomRef, members: u32) -> JoinReply {
        match self.rooms.join(&mut self.table, slot, room.index, self.settings.rooms_per_connection_max, false) {
            Joined::New | Joined::Already => {
                JoinReply { status: JoinStatus::Joined, members: i32::try_from(members).unwrap_or(i32::MAX) }
            }
            Joined::TooMany => {
                self.reject(Reject::TooManyRooms);
                JoinReply { status: JoinStatus::TooManyRooms, members: 0 }
            }
        }
    }

    /// The room as one that the connection is in.
    fn member_of(&self, slot: Slot, room: Option<RoomRef>) -> Option<RoomRef> {
        room.filter(|room| self.rooms.of(&self.table, slot).any(|of| of == *room))
    }

    /// A move into a full room: a member of it may make it its login room.
    fn move_within(&mut self, slot: Slot, ask: Echoed<'_>, room: Option<RoomRef>) {
        let Some(room) = self.member_of(slot, room) else { return self.end(slot, CloseReason::RoomFull) };
        self.move_to(slot, Some(room));
        self.reply_to_ask(slot, ask, operation::CHANGE_ROOM_REPLY, ask.body);
    }

    /// A join of a full room: nothing new for a member of it, for others there is no place.
    fn join_within(&mut self, slot: Slot, ask: Echoed<'_>, room: Option<RoomRef>, members: u32) {
        let reply = if self.member_of(slot, room).is_some() {
            JoinReply { status: JoinStatus::Joined, members: i32::try_from(members).unwrap_or(i32::MAX) }
        } else {
            self.reject(Reject::RoomFull);
            JoinReply { status: JoinStatus::RoomFull, members: 0 }
        };
        self.reply_to_ask(slot, ask, operation::JOIN_REPLY, &reply.to_bytes());
    }

    fn leave_room(&mut self, slot: Slot, room: Option<RoomRef>) -> LeaveStatus {
        let Some(room) = room.and_then(|room| self.rooms.find(room)) else { return LeaveStatus::NotMember };
        let first = self.rooms.of(&self.table, slot).next().map(|room| room.index);
        let was_login_room = self.table[slot].has(flag::LOGIN_ROOM) && first == Some(room);
        if was_login_room {
            self.keep_online(slot);
        }
        if !self.rooms.leave(&mut self.table, slot, room) {
            return LeaveStatus::NotMember;
        }
        if was_login_room {
            self.table[slot].clear(flag::LOGIN_ROOM);
        }
        LeaveStatus::Left
    }

    fn inspect(&self, slot: Slot) -> Inspection {
        let conn = &self.table[slot];
        let cold = self.table.cold(slot);
        let (queued_bytes, queued_messages) = match conn.outbox {
            0 => (0, 0),
            outbox => (self.outboxes.bytes(outbox), self.outboxes.messages(outbox)),
        };
        Inspection {
            peer: self.table.peer(slot),
            listener: conn.listener,
            age_ms: u64::from(self.tick.saturating_sub(cold.accepted_at)) * u64::from(timers::TICK_MS),
            rooms: self.rooms.of(&self.table, slot).collect(),
            queued_bytes,
            queued_messages,
            accepts: self.accept_sets.operations(conn.accepts).to_vec(),
        }
    }
}
