//! Reports to control, and those still owed because its queue was full.

use std::collections::VecDeque;

use halley_ring::{Ring, Slot};

use crate::ids::ConnWord;
use crate::order::{Ask, Report};
use crate::sabotage::{Bug, planted};

use super::Shard;
use super::conn::{Phase, flag};
use super::flush::rewind;
use super::outbox::SlotList;

/// What could not be reported yet. Room changes are owed by the rooms' dirty list.
pub(super) struct Debts {
    /// Questions, and answers to inspections, in order.
    reports: VecDeque<Report>,
    /// Connections that are gone.
    gone: SlotList,
    /// Something was put since control was last told.
    notify: bool,
}

/// Inspections that wait for a place in the queue; beyond this they are not answered.
const INSPECTIONS_MAX: usize = 64;

impl Debts {
    pub(super) fn new(slots: u32) -> Self {
        Self {
            reports: VecDeque::with_capacity(crate::limits::ASKS_MAX + INSPECTIONS_MAX),
            gone: VecDeque::with_capacity(slots as usize),
            notify: false,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.reports.is_empty() && self.gone.is_empty()
    }
}

impl<R: Ring> Shard<R> {
    pub(super) fn word(&self, slot: Slot) -> ConnWord {
        ConnWord::new(self.settings.index, slot, self.table[slot].generation)
    }

    /// Asks control; the connection waits for the answer.
    pub(super) fn ask(&mut self, slot: Slot, ask: Box<Ask>) {
        self.table[slot].set(flag::ASK | flag::KNOWN);
        let report = Report::Ask { conn: self.word(slot), ask };
        self.debts.reports.push_back(report);
    }

    /// Answers an inspection, if not too many wait.
    pub(super) fn answer_inspection(&mut self, report: Report) {
        if self.debts.reports.len() < INSPECTIONS_MAX {
            self.debts.reports.push_back(report);
        }
    }

    /// Whether control has yet to be told something.
    pub(super) fn owes(&self) -> bool {
        let drained = self.open == 0 && self.acceptor.is_quiet() || planted(Bug::DrainSpins);
        let unsaid = self.draining.is_some_and(|drain| !drain.reported) && drained;
        !self.debts.is_empty() || !self.rooms.dirty.is_empty() || unsaid
    }

    /// A closed connection with nothing in flight: control is told if it knows it, then the slot is free.
    pub(super) fn join(&mut self, slot: Slot) {
        let conn = &self.table[slot];
        if conn.phase != Phase::Closing || conn.has(flag::IN_FLIGHT) {
            return;
        }
        if conn.has(flag::KNOWN) {
            self.debts.gone.push_back(slot);
        } else {
            self.free(slot);
        }
    }

    fn free(&mut self, slot: Slot) {
        if self.table[slot].has(flag::DEFLATE) {
            self.stats().deflating.sub(1);
        }
        if planted(Bug::SlotFreedTwice) {
            self.table.give(slot);
        }
        self.table.give(slot);
        self.open -= 1;
    }

    /// Puts what is owed, oldest first, until the queue is full; tells control if it sleeps.
    pub(super) fn report(&mut self) {
        self.report_owed();
        while let Some(room) = self.rooms.dirty.pop_front() {
            let (reference, size, joins) = self.rooms.clean(room);
            let report = Report::Room { room: reference, size, joins };
            if self.link.put_report(report).is_err() {
                self.rooms.stay_dirty(room);
                break;
            }
            self.debts.notify = true;
        }
        rewind(&mut self.rooms.dirty);
        if let Some(drain) = &mut self.draining
            && !drain.reported
            && self.open == 0
            && self.acceptor.is_quiet()
            && self.debts.is_empty()
            && self.rooms.dirty.is_empty()
        {
            drain.reported = self.link.put_report(Report::Drained).is_ok();
            self.debts.notify |= drain.reported;
        }
        if self.debts.notify && self.control.take() && !planted(Bug::NotifyForgotten) {
            self.ring.notify();
        }
        self.debts.notify = false;
    }

    fn report_owed(&mut self) {
        while let Some(report) = self.debts.reports.pop_front() {
            if let Err(report) = self.link.put_report(report) {
                self.debts.reports.push_front(report);
                return;
            }
            self.debts.notify = true;
        }
        while let Some(slot) = self.debts.gone.pop_front() {
            let conn = &self.table[slot];
            let report = Report::Gone {
                conn: self.word(slot),
                ticket: conn.ticket,
                reason: conn.close_reason(),
                peer: self.table.peer(slot),
            };
            if self.link.put_report(report).is_err() && !planted(Bug::ReportLost) {
                self.debts.gone.push_front(slot);
                return;
            }
            self.debts.notify = true;
            self.free(slot);
        }
        rewind(&mut self.debts.gone);
    }
}
