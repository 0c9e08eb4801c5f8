//! Where messages go in: an HTTP API, or a Kafka topic.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;
use serde::{Serialize, Serializer};

use super::{Api, Call, HttpPush, KafkaPush, Pushed};
use crate::cli::PushArgs;
use crate::http::Url;
use crate::interrupt::Interrupt;
use crate::plan::Rooms;
use crate::raw::Payload;
use crate::schedule::Schedule;

/// The value of --push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PushTo {
    /// Base of an API.
    Http(Url),
    /// A topic that the server reads.
    Kafka {
        /// Brokers, separated by commas.
        brokers: String,
        /// Its name.
        topic: String,
    },
}

impl FromStr for PushTo {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(place) = text.strip_prefix("kafka://") else {
            return text.parse().map(Self::Http).map_err(|error| format!("{error}, or kafka://BROKERS/TOPIC"));
        };
        match place.split_once('/') {
            Some((brokers, topic)) if !brokers.is_empty() && !topic.is_empty() && !topic.contains('/') => {
                Ok(Self::Kafka { brokers: brokers.to_owned(), topic: topic.to_owned() })
            }
            _ => Err("write kafka://HOST:PORT,…/TOPIC".to_owned()),
        }
    }
}

impl fmt::Display for PushTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(url) => write!(f, "http://{}{}", url.host, url.path),
            Self::Kafka { brokers, topic } => write!(f, "kafka://{brokers}/{topic}"),
        }
    }
}

impl Serialize for PushTo {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

/// How a record of Kafka says whom it is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum JobFormat {
    /// goim's protobuf, as goim's logic writes it.
    #[default]
    GoimV2,
    /// Halley's envelope, as Halley's API writes it.
    Halley,
    /// The message itself, its room in a header.
    Plain,
}

/// The messages of a run: what they are, and for whom.
#[derive(Clone, Debug)]
pub struct Messages {
    /// Where they go.
    pub rooms: Rooms,
    /// Their operation, where there is such a thing.
    pub operation: i32,
    /// What they look like.
    pub payload: Payload,
}

/// Who lets messages out.
#[derive(Clone, Debug)]
pub enum Pusher {
    /// Through an API.
    Http(HttpPush),
    /// Into a topic.
    Kafka(KafkaPush),
}

impl Pusher {
    /// What --push and its sisters ask for. Something must answer there.
    ///
    /// # Errors
    /// A sentence with the remedy.
    pub fn new(push: &PushArgs, messages: Messages, connections: u32, grace: Duration) -> Result<Self, String> {
        match &push.push {
            PushTo::Http(url) => {
                url.connect()?;
                let Messages { rooms, operation, payload } = messages;
                let (url, api, token) = (url.clone(), push.push_api, push.token.clone());
                let call = Call { url, api, token, rooms, operation, payload };
                call.check(push.push_batch)?;
                Ok(Self::Http(HttpPush { call, connections, batch: push.push_batch, grace }))
            }
            PushTo::Kafka { .. } if push.push_api != Api::Goim || push.push_batch > 1 => {
                Err("records of Kafka go one at a time and through no API: drop --push-api and --push-batch, see \
                     --push-format"
                    .to_owned())
            }
            PushTo::Kafka { brokers, topic } => {
                KafkaPush::new(brokers, topic, push.push_format, messages, grace).map(Self::Kafka)
            }
        }
    }

    /// How long to wait for the last answers.
    pub fn grace(&self) -> Duration {
        match self {
            Self::Http(push) => push.grace,
            Self::Kafka(push) => push.grace,
        }
    }

    /// Runs one pass.
    pub fn run(&self, schedule: &Schedule, interrupt: &Interrupt) -> Pushed {
        match self {
            Self::Http(push) => push.run(schedule, interrupt),
            Self::Kafka(push) => push.run(schedule, interrupt),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_named_behind_its_brokers() {
        let read = |text: &str| text.parse::<PushTo>();
        let kafka = read("kafka://a:9092,b:9092/jobs").unwrap();
        assert_eq!(kafka, PushTo::Kafka { brokers: "a:9092,b:9092".into(), topic: "jobs".into() });
        assert_eq!(kafka.to_string(), "kafka://a:9092,b:9092/jobs");
        assert_eq!(read("http://127.0.0.1:3111/").unwrap().to_string(), "http://127.0.0.1:3111");
        for wrong in ["kafka://a:9092", "kafka:///jobs", "kafka://a:9092/", "kafka://a:9092/a/b"] {
            assert!(read(wrong).unwrap_err().contains("/TOPIC"), "{wrong}");
        }
        assert!(read("ftp://a").unwrap_err().contains("kafka://BROKERS/TOPIC"));
    }
}
