//! What one shard and the upstream thread share: buffers, messages that wait, answers.

use std::sync::Arc;

use crossbeam::queue::ArrayQueue;

use super::{Answer, Message};
use crate::control::bell;
use crate::limits;
use crate::link::ControlBell;

/// The queues of one shard. None of them is ever full: there are as many places as buffers, and as many as answers that
/// are due.
#[derive(Debug)]
pub struct UpstreamLink {
    /// Buffers that nobody uses.
    free: ArrayQueue<Box<Message>>,
    /// Messages that the thread has yet to take, in the order in which the shard took them.
    waiting: ArrayQueue<Box<Message>>,
    answers: ArrayQueue<Answer>,
    /// The thread's.
    bell: Arc<ControlBell>,
}

impl UpstreamLink {
    /// Queues for a shard that may have so many messages without their answers.
    pub fn new(in_flight_max: usize, bell: Arc<ControlBell>) -> Self {
        let buffers = limits::UPSTREAM_BUFFERS_MAX.min(in_flight_max);
        let free = ArrayQueue::new(buffers);
        for _ in 0..buffers {
            let put = free.push(Box::new(Message::empty()));
            assert!(put.is_ok(), "a place for each");
        }
        Self { free, waiting: ArrayQueue::new(buffers), answers: ArrayQueue::new(in_flight_max), bell }
    }

    // ---- the shard ----

    /// Messages of the shard that may be without their answers.
    pub fn in_flight_max(&self) -> usize {
        self.answers.capacity()
    }

    /// A buffer for a message; it goes into [`Self::put`], or [`Self::give`].
    pub fn take(&self) -> Option<Box<Message>> {
        self.free.pop()
    }

    /// Hands a message over. An answer is due from here on.
    pub fn put(&self, message: Box<Message>) {
        let put = self.waiting.push(message);
        assert!(put.is_ok(), "as many places as buffers");
    }

    /// Wakes the thread if it sleeps; once a turn, after the last message.
    pub fn wake(&self) {
        if self.bell.take()
            && let Err(error) = bell::ring(&self.bell)
        {
            // It looks by itself once a second.
            tracing::error!(%error, "the upstream thread cannot be rung");
        }
    }

    /// The next answer.
    pub fn next_answer(&self) -> Option<Answer> {
        self.answers.pop()
    }

    /// Whether answers wait (looked at between parking and sleeping).
    pub fn has_answers(&self) -> bool {
        !self.answers.is_empty()
    }

    /// Buffers and places that are taken.
    #[cfg(test)]
    pub(crate) fn in_use(&self) -> usize {
        self.free.capacity() - self.free.len() + self.answers.len()
    }

    // ---- the thread ----

    /// The next message. Its buffer must be given back.
    pub fn next(&self) -> Option<Box<Message>> {
        self.waiting.pop()
    }

    /// Whether messages wait.
    pub fn has_messages(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Gives a buffer back.
    pub fn give(&self, message: Box<Message>) {
        let put = self.free.push(message);
        assert!(put.is_ok(), "as many places as buffers");
    }

    /// Puts an answer. Whoever calls it wakes the shard.
    pub(crate) fn put_answer(&self, answer: Answer) {
        let put = self.answers.push(answer);
        assert!(put.is_ok(), "the shard passes on no more than it can be answered");
    }
}
