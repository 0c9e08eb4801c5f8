//! `[kafka]`: the log that jobs are read from, and that the API writes to.

use std::fmt;

use halley_protocol::job::Format;
use serde::{Deserialize, Serialize};

/// `[kafka]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Kafka {
    /// Brokers to ask for all others.
    pub brokers: Vec<String>,
    /// The topic with the jobs.
    pub topic: String,
    /// How the jobs are written.
    pub format: JobFormat,
    /// Where to begin without a position.
    pub start: Start,
    /// Where the positions are kept. Empty: nowhere.
    pub position_file: String,
    /// Age from which a job is not dispatched any more, milliseconds. 0: none.
    pub job_age_ms_max: u32,
    /// Topic for records that are no jobs. Empty: none.
    pub dead_letter_topic: String,
    /// Topic in which nodes tell of each other. Empty: they do not.
    pub nodes_topic: String,
    /// Silence after which a node is gone, milliseconds.
    pub node_ms_max: u32,
    /// Rooms that a node tells the others of.
    pub node_rooms_max: u32,
    /// How long the API waits for Kafka's acknowledgement, milliseconds.
    pub produce_ms_max: u32,
    /// Bytes of records fetched ahead of each partition.
    pub fetched_bytes_max: u32,
    /// Properties of librdkafka, by their names.
    pub client: toml::Table,
}

impl Default for Kafka {
    fn default() -> Self {
        Self {
            brokers: Vec::new(),
            topic: "goim-push-topic".into(),
            format: JobFormat::Auto,
            start: Start::Latest,
            position_file: String::new(),
            job_age_ms_max: 0,
            dead_letter_topic: String::new(),
            nodes_topic: String::new(),
            node_ms_max: 10_000,
            node_rooms_max: 65_536,
            produce_ms_max: 5000,
            fetched_bytes_max: 4 << 20,
            client: toml::Table::new(),
        }
    }
}

impl Kafka {
    /// The values of `client` as librdkafka takes them; the name of one that is a table, a list or a date is the error.
    pub fn properties(&self) -> Result<Vec<(String, String)>, &str> {
        let text = |(name, value): (&'_ String, &toml::Value)| match value {
            toml::Value::String(text) => Some((name.clone(), text.clone())),
            toml::Value::Integer(_) | toml::Value::Boolean(_) | toml::Value::Float(_) => {
                Some((name.clone(), value.to_string()))
            }
            _ => None,
        };
        self.client.iter().map(|entry| text(entry).ok_or(entry.0.as_str())).collect()
    }

    /// Without what must not be shown.
    pub(super) fn hide_secrets(&mut self, hidden: &str) {
        for (name, value) in &mut self.client {
            if ["password", "secret", "key", "jaas", "token"].iter().any(|part| name.contains(part)) {
                *value = hidden.into();
            }
        }
    }
}

/// `kafka.format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobFormat {
    /// Told apart record by record.
    Auto,
    /// Halley's envelope.
    Halley,
    /// goim v2's protobuf.
    GoimV2,
    /// goim v1's JSON.
    GoimV1,
    /// The value is the payload.
    Plain,
}

impl From<JobFormat> for Format {
    fn from(format: JobFormat) -> Self {
        match format {
            JobFormat::Auto => Self::Auto,
            JobFormat::Halley => Self::Envelope,
            JobFormat::GoimV2 => Self::GoimV2,
            JobFormat::GoimV1 => Self::GoimV1,
            JobFormat::Plain => Self::Plain,
        }
    }
}

/// `kafka.start`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Start {
    /// With what is produced from now on.
    Latest,
    /// With the oldest record there is.
    Earliest,
    /// With this offset of every partition.
    Offset(i64),
    /// With the first record of this time or later, milliseconds since 1970.
    Time(i64),
}

impl TryFrom<String> for Start {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let number = |digits: &str| digits.parse().ok().filter(|n: &i64| *n >= 0);
        let parsed = match text.split_once(':') {
            None if text == "latest" => Some(Self::Latest),
            None if text == "earliest" => Some(Self::Earliest),
            Some(("offset", digits)) => number(digits).map(Self::Offset),
            Some(("time", digits)) => number(digits).map(Self::Time),
            _ => None,
        };
        parsed.ok_or_else(|| {
            format!("\"{text}\" is no start: use \"latest\", \"earliest\", \"offset:N\" or \"time:MILLISECONDS\" (since 1970)")
        })
    }
}

impl From<Start> for String {
    fn from(start: Start) -> Self {
        start.to_string()
    }
}

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("latest"),
            Self::Earliest => f.write_str("earliest"),
            Self::Offset(offset) => write!(f, "offset:{offset}"),
            Self::Time(ms) => write!(f, "time:{ms}"),
        }
    }
}
