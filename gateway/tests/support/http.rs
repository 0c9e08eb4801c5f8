//! Calls of the HTTP API as curl makes them, one connection each.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use super::process::Gateway;
use super::{PATIENCE, until};

/// What a call was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

impl Gateway {
    /// One call with these further header lines, each ended by CR LF.
    pub(crate) fn call(&self, method: &str, uri: &str, headers: &str, body: &str) -> Answer {
        call(self.api, method, uri, headers, body)
    }

    /// One call of goim v1's API, which must be served.
    pub(crate) fn call_v1(&self, method: &str, uri: &str, body: &str) -> Answer {
        let api = self.api_v1.expect("[api_v1] is configured");
        call(api, method, uri, "Content-Type: application/x-www-form-urlencoded\r\n", body)
    }

    pub(crate) fn get(&self, uri: &str) -> Answer {
        self.call("GET", uri, "", "")
    }

    /// `curl -d BODY URI`, with the type that curl gives it.
    pub(crate) fn curl(&self, uri: &str, body: &str) -> Answer {
        self.call("POST", uri, "Content-Type: application/x-www-form-urlencoded\r\n", body)
    }

    /// `POST /v1/push`; it must be taken. Returns the results.
    pub(crate) fn push(&self, body: &Value) -> Value {
        let answer = self.call("POST", "/v1/push", "Content-Type: application/json\r\n", &body.to_string());
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()["results"].clone()
    }

    /// A counter of `/v1/stats`, summed over shards; `path` leads from the shard to it.
    pub(crate) fn counter(&self, path: &str) -> u64 {
        total(&self.get("/v1/stats").json(), path)
    }

    /// Waits until a counter is this.
    pub(crate) fn until_counter(&self, path: &str, value: u64) {
        until(&format!("{path} is {value}: {}", self.get("/v1/stats").body), || self.counter(path) == value);
    }

    /// Waits until nothing is queued, and checks the law shard by shard.
    pub(crate) fn settled(&self) -> Value {
        self.until_counter("/queued", 0);
        let stats = self.get("/v1/stats").json();
        for shard in stats["shards"].as_array().expect("shards") {
            let number =
                |path: &str| shard.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("no {path}"));
            let dropped = shard["dropped"].as_object().expect("drops by reason").values();
            let dropped: u64 = dropped.map(|count| count.as_u64().expect("a count")).sum();
            assert_eq!(number("/offered"), number("/sent") + dropped + number("/queued"), "the law: {shard}");
        }
        stats
    }
}

/// A counter of `/v1/stats`, summed over shards.
fn total(stats: &Value, path: &str) -> u64 {
    let shards = stats["shards"].as_array().expect("shards");
    shards.iter().map(|shard| shard.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("no {path}"))).sum()
}

fn call(api: SocketAddr, method: &str, uri: &str, headers: &str, body: &str) -> Answer {
    let mut stream = TcpStream::connect(api).expect("the API listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let length = body.len();
    let request = format!(
        "{method} {uri} HTTP/1.1\r\nHost: {api}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    );
    stream.write_all(request.as_bytes()).expect("the API reads");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{method} {uri}: {text:?}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    assert!(!head.to_ascii_lowercase().contains("transfer-encoding"), "read as it is: {head}");
    Answer { status, body: body.to_owned() }
}
