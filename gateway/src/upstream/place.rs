//! Where messages go, and what of a message goes there.

use std::sync::Arc;

use super::http::Http;
use super::{Outcome, Receipt};
use crate::source::kafka;

/// A message with what the gateway knows of who said it.
#[derive(Clone, Copy, Debug)]
pub struct Envelope<'a> {
    /// Who waits for the answer; operation and sequence.
    pub receipt: Receipt,
    /// The member; 0: none.
    pub member: i64,
    /// The key.
    pub key: &'a str,
    /// The rooms, the login room first if there is one.
    pub rooms: &'a [Arc<str>],
    /// When the gateway took it, milliseconds since 1970.
    pub time_ms: u64,
    /// The gateway.
    pub node: &'a str,
    /// What the client said.
    pub body: &'a [u8],
}

/// Where messages go.
pub enum Place {
    /// A topic.
    Kafka(Arc<kafka::Upstream>),
    /// An endpoint.
    Http(Http),
    /// A list, for tests.
    #[cfg(test)]
    List(std::cell::RefCell<Vec<Kept>>),
}

/// An envelope on such a list.
#[cfg(test)]
#[derive(Debug)]
pub struct Kept {
    /// As in [`Envelope`].
    pub receipt: Receipt,
    /// As in [`Envelope`].
    pub member: i64,
    /// As in [`Envelope`].
    pub key: String,
    /// As in [`Envelope`].
    pub rooms: Vec<Arc<str>>,
    /// As in [`Envelope`].
    pub body: Vec<u8>,
}

impl Place {
    /// Sends a message; never waits. `Ok`: its answer will come to its shard.
    pub fn put(&self, envelope: &Envelope<'_>) -> Outcome {
        match self {
            Self::Kafka(kafka) => kafka.put(envelope),
            Self::Http(http) => http.put(envelope),
            #[cfg(test)]
            Self::List(list) => {
                let Envelope { receipt, member, key, rooms, body, .. } = *envelope;
                let (key, rooms, body) = (key.to_owned(), rooms.to_vec(), body.to_vec());
                list.borrow_mut().push(Kept { receipt, member, key, rooms, body });
                Ok(())
            }
        }
    }
}
