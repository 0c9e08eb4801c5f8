//! Messages to an HTTP endpoint: some lanes, each with one connection and one request at a time.
//!
//! A key has its lane, so that what one client says arrives in its order. What waits in a lane goes together, as a JSON array; an
//! answer of 2xx says that the endpoint has all of it, anything else that it has nothing.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use hyper::header::HeaderValue;
use serde_json::json;

use super::{Answer, Envelope, Outcome, Receipt, Refused};
use crate::config;
use crate::endpoint::{self, CallFailure, Endpoint, Kind, Url};
use crate::link::ShardLink;

/// Bytes of an answer that are read to keep its connection; the status alone counts.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// A message in its lane.
struct Waiting {
    receipt: Receipt,
    since: Instant,
    json: String,
}

/// The lanes to an endpoint.
pub struct Http {
    lanes: Vec<UnboundedSender<Waiting>>,
}

/// What a configuration says of the endpoint, as one lane calls it. The error is the key of the configuration and a sentence.
pub fn endpoint_rules(settings: &config::Upstream) -> Result<endpoint::Rules, (&'static str, String)> {
    let url = Url::parse(&settings.url).map_err(|problem| ("upstream.url", problem))?;
    let authorization = match &*settings.authorization {
        "" => None,
        text => {
            let wrong = |_| ("upstream.authorization", "is no value of a header: use visible ASCII in one line".into());
            let mut value = HeaderValue::from_str(text).map_err(wrong)?;
            value.set_sensitive(true);
            Some(value)
        }
    };
    let tls = url.is_secure().then(|| endpoint::tls(&settings.ca_file)).transpose();
    Ok(endpoint::Rules {
        url,
        tls: tls.map_err(|problem| ("upstream.ca_file", problem))?,
        kind: Kind::Delivery { authorization },
        call_max: Duration::from_millis(settings.answer_ms_max.into()),
        calls_max: 1,
        answer_bytes_max: ANSWER_BYTES_MAX,
    })
}

impl Http {
    /// Lanes that have not connected yet. Must be called within a runtime.
    pub fn new(settings: &config::Upstream, links: &Arc<[Arc<ShardLink>]>) -> Result<Self, String> {
        let rules = endpoint_rules(settings).map_err(|(key, problem)| format!("{key}: {problem}"))?;
        let lanes = (0..settings.requests_max).map(|_| {
            let (lane, waiting) = unbounded();
            let lane_of = Lane {
                endpoint: Endpoint::new(rules.clone()),
                waiting,
                links: Arc::clone(links),
                batch_max: settings.batch_messages_max as usize,
                patience: Duration::from_millis(settings.answer_ms_max.into()),
            };
            monoio::spawn(lane_of.serve());
            lane
        });
        Ok(Self { lanes: lanes.collect() })
    }

    /// Puts a message into its lane. How many wait there is bounded by what the shards may have in flight.
    pub fn put(&self, envelope: &Envelope<'_>) -> Outcome {
        let mut hasher = DefaultHasher::new();
        envelope.key.hash(&mut hasher);
        let lane = usize::try_from(hasher.finish() % self.lanes.len() as u64).expect("a lane's number");
        let waiting = Waiting { receipt: envelope.receipt, since: Instant::now(), json: json_of(envelope) };
        self.lanes[lane].unbounded_send(waiting).map_err(|_| Refused::PlaceAway)
    }
}

/// A message as the endpoint gets it.
fn json_of(envelope: &Envelope<'_>) -> String {
    let payload = match str::from_utf8(envelope.body) {
        Ok(text) => json!({ "text": text }),
        Err(_) => json!({ "base64": STANDARD.encode(envelope.body) }),
    };
    let rooms: Vec<&str> = envelope.rooms.iter().map(|room| &**room).collect();
    json!({
        "member": envelope.member,
        "key": envelope.key,
        "rooms": rooms,
        "operation": envelope.receipt.operation,
        "sequence": envelope.receipt.sequence,
        "time_ms": envelope.time_ms,
        "node": envelope.node,
        "payload": payload,
    })
    .to_string()
}

struct Lane {
    endpoint: Endpoint,
    waiting: UnboundedReceiver<Waiting>,
    links: Arc<[Arc<ShardLink>]>,
    batch_max: usize,
    patience: Duration,
}

impl Lane {
    async fn serve(mut self) {
        while let Ok(first) = self.waiting.recv().await {
            let mut batch = vec![first];
            while batch.len() < self.batch_max
                && let Ok(next) = self.waiting.try_recv()
            {
                batch.push(next);
            }
            // Who has waited for so long is answered before its message is sent, and not after.
            let now = Instant::now();
            batch.retain(|waiting| {
                let late = now.duration_since(waiting.since) > self.patience;
                if late {
                    self.answer(waiting.receipt, Err(Refused::TimeOut));
                }
                !late
            });
            if !batch.is_empty() {
                self.post(batch).await;
            }
        }
    }

    async fn post(&self, batch: Vec<Waiting>) {
        let messages: Vec<&str> = batch.iter().map(|waiting| &*waiting.json).collect();
        let body = format!("[{}]", messages.join(","));
        let posted = self.endpoint.call(body.into()).await;
        let outcome = posted.map(drop).map_err(|error| {
            let refused = refused(error.failure);
            let (reason, messages, url) = (refused.name(), batch.len(), self.endpoint.url());
            tracing::warn!(event = "upstream-refused", reason, messages, %url, problem = %error);
            refused
        });
        for waiting in &batch {
            self.answer(waiting.receipt, outcome);
        }
    }

    fn answer(&self, receipt: Receipt, outcome: Outcome) {
        self.links[receipt.conn.shard().at()].put_answer(Answer { receipt, outcome });
    }
}

/// What is told of a message whose call failed so.
fn refused(failure: CallFailure) -> Refused {
    match failure {
        CallFailure::Status(_) => Refused::PlaceRefused,
        CallFailure::Late => Refused::TimeOut,
        CallFailure::Unreachable
        | CallFailure::Broken
        | CallFailure::Malformed
        | CallFailure::TooBig
        | CallFailure::Rests => Refused::PlaceAway,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ConnWord, ShardIndex};

    #[test]
    fn a_message_is_json_with_what_the_gateway_knows_and_its_bytes_as_text_if_they_are_some() {
        let conn = ConnWord::new(ShardIndex(0), halley_ring::Slot(1), 2);
        let receipt = Receipt { conn, taken_us: 0, operation: 4, sequence: 9, version: 1 };
        let rooms = ["live://1".into(), "b".into()];
        let mut envelope =
            Envelope { receipt, member: 7, key: "k\"", rooms: &rooms, time_ms: 5, node: "n", body: b"{\"a\":1}" };
        let expected = r#"{"member":7,"key":"k\"","rooms":["live://1","b"],"operation":4,"sequence":9,"time_ms":5,"node":"n","payload":{"text":"{\"a\":1}"}}"#;
        assert_eq!(json_of(&envelope), expected);
        envelope.body = &[0xff, 0];
        assert!(json_of(&envelope).ends_with(r#""payload":{"base64":"/wA="}}"#));
    }
}
