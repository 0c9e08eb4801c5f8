//! `[upstream]`: where messages of clients go.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// `[upstream]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Upstream {
    /// The topic they are produced to. Empty: `url` says where they go.
    pub kafka_topic: String,
    /// The endpoint they are posted to. Empty: `kafka_topic` says where they go.
    pub url: String,
    /// `Authorization` of the requests. Empty: none.
    pub authorization: String,
    /// Who may sign the certificate of an endpoint with `https`, in PEM. Empty: the system's.
    pub ca_file: String,
    /// Operations that are messages.
    pub operations: Vec<Operations>,
    /// Bytes of a message.
    pub message_bytes_max: u32,
    /// Messages of a connection a second on average. 0: as many as it likes.
    pub messages_per_second_max: u32,
    /// Messages of a connection at once after a pause.
    pub messages_burst_max: u32,
    /// Messages of a connection without their answers.
    pub connection_in_flight_max: u32,
    /// Messages of the process without their answers.
    pub in_flight_max: u32,
    /// How long the place may take, milliseconds.
    pub answer_ms_max: u32,
    /// Requests at a time, each on a connection of its own.
    pub requests_max: u32,
    /// Messages of one request.
    pub batch_messages_max: u32,
}

impl Default for Upstream {
    fn default() -> Self {
        Self {
            kafka_topic: String::new(),
            url: String::new(),
            authorization: String::new(),
            ca_file: String::new(),
            operations: vec![Operations { first: 4, last: 4 }],
            message_bytes_max: 4096,
            messages_per_second_max: 10,
            messages_burst_max: 50,
            connection_in_flight_max: 32,
            in_flight_max: 16_384,
            answer_ms_max: 5000,
            requests_max: 8,
            batch_messages_max: 64,
        }
    }
}

impl Upstream {
    /// Whether messages go to an endpoint, and not to a topic.
    pub fn is_http(&self) -> bool {
        !self.url.is_empty()
    }

    /// Messages of one of so many shards without their answers.
    pub fn shard_in_flight_max(&self, shards: u32) -> usize {
        (self.in_flight_max / shards.max(1)).max(1) as usize
    }
}

/// An operation, or a range of them with both ends: `1000`, or `"1000-1999"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operations {
    /// The first.
    pub first: i32,
    /// The last.
    pub last: i32,
}

impl fmt::Display for Operations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl Serialize for Operations {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.first == self.last { serializer.serialize_i32(self.first) } else { serializer.collect_str(self) }
    }
}

impl<'de> Deserialize<'de> for Operations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Operations;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an operation such as 1000, or a range such as \"1000-1999\"")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Operations, E> {
                let range =
                    text.split_once('-').and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)));
                match range {
                    Some((first, last)) if first <= last => Ok(Operations { first, last }),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }
            fn visit_i64<E: de::Error>(self, n: i64) -> Result<Operations, E> {
                let one = i32::try_from(n).map_err(|_| E::invalid_value(de::Unexpected::Signed(n), &self))?;
                Ok(Operations { first: one, last: one })
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}
