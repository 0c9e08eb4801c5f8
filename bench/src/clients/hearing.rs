//! What clients hear: items of a stream, judged, counted and answered.

use std::io;

use halley_protocol::{operation, websocket};
use halley_ring::client::{Actions, Client};

use super::{Crew, Session, State};
use crate::clock;
use crate::decode::{Item, Malformed, Stream};
use crate::fault::{FAULTS_SHOWN_MAX, Fault};
use crate::plan::Plan;
use crate::schedule::Mark;
use crate::secure::Secured;
use crate::tally::Verdict;

impl Crew {
    pub(super) fn heard(&mut self, actions: &mut Actions, client: Client, bytes: &[u8]) -> io::Result<()> {
        if self.session(client).state == State::Upgrading {
            self.upgraded(actions, client, bytes)
        } else {
            self.received(actions, client, bytes)
        }
    }

    #[inline]
    pub(super) fn received(&mut self, actions: &mut Actions, client: Client, bytes: &[u8]) -> io::Result<()> {
        let now_ns = clock::now_ns();
        let mut kept = self.take_kept(client);
        let Self {
            first, sessions, pass, gaps, counts, slow_delivered, latencies, outgoing, secured, plan, moves, ..
        } = self;
        let room = plan.rooms.of_client(*first + client.0);
        let place = |mark: Mark| {
            let pass = pass.filter(|pass| mark.run == pass.run && mark.sequence < pass.count)?;
            Some(pass.place(mark.sequence))
        };
        let Session { stream, tally, slow, .. } = &mut sessions[client.0 as usize];
        let mut book = moves.as_mut().and_then(|moves| moves.book.as_mut());
        let mut logged_in = false;
        let mut closed = None;
        let mut sent = Ok(());
        let each = |item: Item<'_>| match item {
            Item::Message(mark) => {
                let Some((of_room, place)) = place(mark) else {
                    counts.stray += 1;
                    return;
                };
                if of_room != room {
                    counts.misrouted += 1;
                    return;
                }
                if book.as_ref().is_some_and(|book| !book.owes(client.0, place)) {
                    counts.unowed += 1;
                    return;
                }
                let late_us = now_ns.saturating_sub(mark.due_ns) / 1000;
                let verdict = tally.take(gaps, client.0, place, late_us);
                match verdict {
                    Verdict::Duplicate => counts.duplicates += 1,
                    _ if *slow => *slow_delivered += 1,
                    Verdict::InOrder | Verdict::Reordered => {
                        counts.delivered += 1;
                        if let Some(book) = &mut book {
                            book.arrived(place);
                        }
                        latencies.record(now_ns, late_us);
                    }
                }
                counts.reordered += u64::from(verdict == Verdict::Reordered);
            }
            Item::Unmarked => counts.stray += 1,
            Item::Operation(operation::AUTH_REPLY) | Item::Ready => logged_in = true,
            Item::Operation(_) => {}
            Item::CloseFrame(code, retry_ms) => closed = Some((code, retry_ms)),
            Item::Ping(payload) => sent = pong(actions, secured, client, outgoing, payload),
            Item::Asked(ping) => sent = answer(actions, secured, client, outgoing, plan, ping),
        };
        let fed = match (stream, &plan.raw) {
            (Stream::Goim(decoder), _) => decoder.feed(&mut kept, bytes, plan.heard_operation(), each),
            (Stream::Raw(decoder), Some(raw)) => decoder.feed(&mut kept, bytes, &raw.watch, each),
            (Stream::Raw(_), None) => Ok(()), // never: the plan makes the stream
        };
        sent?;
        if let Err(malformed) = fed {
            return self.malformed(actions, client, malformed, &kept);
        }
        if let Some((code, retry_ms)) = closed {
            return self.sent_away(actions, client, code, retry_ms);
        }
        self.keep(client, kept);
        if logged_in && self.session(client).state == State::LoggingIn {
            self.become_ready(client);
        }
        self.leave_if_complete(actions, client)
    }

    /// What the decoder of a client left, or an empty vector to be used again.
    #[inline]
    pub(super) fn take_kept(&mut self, client: Client) -> Vec<u8> {
        if !self.sessions[client.0 as usize].kept {
            return std::mem::take(&mut self.spare);
        }
        self.kept.remove(&client.0).unwrap_or_default()
    }

    /// Keeps what a decoder left for the next bytes.
    #[inline]
    pub(super) fn keep(&mut self, client: Client, kept: Vec<u8>) {
        let session = &mut self.sessions[client.0 as usize];
        session.kept = !kept.is_empty();
        if session.kept {
            self.kept.insert(client.0, kept);
        } else {
            self.spare = kept;
        }
    }

    /// Keeps malformed bytes for the report and closes the connection they came on.
    pub(super) fn malformed(
        &mut self,
        actions: &mut Actions,
        client: Client,
        malformed: Malformed,
        bytes: &[u8],
    ) -> io::Result<()> {
        let number = self.first + client.0;
        let fault = Fault::new(number, self.plan.target(number).to_string(), malformed, bytes);
        let why = format!("the server sent {}: {}", fault.why, fault.hex);
        self.counts.malformed += 1;
        if self.faults.len() < FAULTS_SHOWN_MAX {
            self.faults.push(fault);
        }
        self.break_off(actions, client, &why)
    }
}

fn pong(
    actions: &mut Actions,
    secured: &mut Secured,
    client: Client,
    outgoing: &mut Vec<u8>,
    payload: &[u8],
) -> io::Result<()> {
    outgoing.clear();
    websocket::client::frame(outgoing, true, websocket::Opcode::Pong, client.0.to_be_bytes(), payload);
    secured.send(actions, client, outgoing)
}

/// Answers an application's ping.
fn answer(
    actions: &mut Actions,
    secured: &mut Secured,
    client: Client,
    outgoing: &mut Vec<u8>,
    plan: &Plan,
    ping: usize,
) -> io::Result<()> {
    let Some(raw) = &plan.raw else { return Ok(()) };
    outgoing.clear();
    raw.answer(outgoing, ping, client.0.to_be_bytes());
    secured.send(actions, client, outgoing)
}
