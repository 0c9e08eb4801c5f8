//! How a server wants to be told of messages: goim's API, Halley's own, or a plain POST to an
//! address of the user's with the room in it.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};

use crate::http::{Answer, Url};
use crate::plan::Rooms;
use crate::raw::Payload;
use crate::schedule::{Mark, Schedule};

/// Most messages of one call to Halley's API.
pub const BATCH_MAX: u32 = 1000;

/// Which API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Api {
    /// `POST /goim/push/room`, the message as its body.
    Goim,
    /// `POST /v1/push`, which takes several messages in one call.
    Halley,
    /// A POST to --push itself, in which {room} stands for the room; the message as its body.
    Plain,
}

/// Everything about a call but the messages.
#[derive(Clone, Debug)]
pub struct Call {
    /// Base of the API, or with [`Api::Plain`] the whole address.
    pub url: Url,
    /// Which API.
    pub api: Api,
    /// Bearer token.
    pub token: Option<String>,
    /// Where messages go.
    pub rooms: Rooms,
    /// Operation of the messages, where the API has such a thing.
    pub operation: i32,
    /// What messages look like.
    pub payload: Payload,
}

impl Call {
    /// Whether calls of so many messages can be made.
    ///
    /// # Errors
    /// A sentence with the remedy.
    pub fn check(&self, batch: u32) -> Result<(), String> {
        match self.api {
            Api::Goim if !self.rooms.name(0).contains("://") => Err("write the room as TYPE://NAME".to_owned()),
            Api::Goim | Api::Plain if batch > 1 => {
                Err("only Halley's API takes several messages in one call: add --push-api halley".to_owned())
            }
            Api::Plain if self.rooms.count() > 1 && !self.url.path.contains("{room}") => {
                Err("there are several rooms: write {room} where their name belongs in --push".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// Appends the request that lets these messages out: one, or for Halley's API any number.
    pub fn append(&self, out: &mut Vec<u8>, schedule: &Schedule, sequences: &[u32]) {
        let messages = sequences.iter().map(|&sequence| {
            let mark = Mark { run: schedule.run, sequence, due_ns: schedule.due_ns(sequence) };
            let room = schedule.place(sequence).0;
            (room, self.payload.render(&mark, &self.rooms, room))
        });
        if self.api == Api::Halley {
            let pushes: Vec<String> = messages.map(|(room, payload)| self.push(room, &payload)).collect();
            let body = if let [push] = &pushes[..] { push.clone() } else { format!("[{}]", pushes.join(",")) };
            self.request(out, "/v1/push", "Content-Type: application/json\r\n", body.as_bytes());
            return;
        }
        for (room, payload) in messages {
            if self.api == Api::Plain {
                let path = self.url.path.replace("{room}", &self.rooms.short_name(room));
                let url = Url { path, ..self.url.clone() };
                Self { url, ..self.clone() }.request(out, "", "", &payload);
                continue;
            }
            let name = self.rooms.name(room);
            let (kind, name) = name.split_once("://").unwrap_or(("", &name));
            let path = format!("/goim/push/room?operation={}&type={kind}&room={name}", self.operation);
            self.request(out, &path, "", &payload);
        }
    }

    fn request(&self, out: &mut Vec<u8>, path: &str, headers: &str, body: &[u8]) {
        let head = self.url.head("POST", path, self.token.as_deref(), headers, body.len());
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(body);
    }

    /// A push as Halley's API reads it; marks are no text.
    fn push(&self, room: u32, payload: &[u8]) -> String {
        let (room, operation) = (serde_json::Value::from(self.rooms.name(room)), self.operation);
        let payload = BASE64_STANDARD.encode(payload);
        format!(r#"{{"target":{{"room":{room}}},"operation":{operation},"payload":{{"base64":"{payload}"}}}}"#)
    }

    /// Which of a call's messages the server refused, by their place in the call.
    ///
    /// # Errors
    /// A sentence, if the answer is neither taken nor refused.
    pub fn refused(&self, answer: &Answer, messages: usize) -> Result<Vec<usize>, String> {
        let text = || String::from_utf8_lossy(&answer.body);
        let wrong = || Err(format!("the push API answered {}: {}", answer.status, text().trim()));
        match (answer.status, self.api) {
            (503, _) | (429, Api::Plain) => Ok((0..messages).collect()),
            (200, Api::Goim) if text().contains("\"code\":") && !text().contains("\"code\":0") => wrong(),
            (200..300, Api::Plain) | (200, Api::Goim) => Ok(Vec::new()),
            (200, Api::Halley) => refused_of(&answer.body, messages).map_or_else(wrong, Ok),
            _ => wrong(),
        }
    }
}

/// An answer of Halley's API, as far as it matters here.
#[derive(Deserialize)]
struct Results<'a> {
    #[serde(borrow)]
    results: Vec<PushResult<'a>>,
}

#[derive(Deserialize)]
struct PushResult<'a> {
    #[serde(borrow)]
    error: Option<&'a serde_json::value::RawValue>,
}

/// Places of the results that are errors; none if it is no answer to so many messages.
fn refused_of(body: &[u8], messages: usize) -> Option<Vec<usize>> {
    let Results { results } = serde_json::from_slice(body).ok()?;
    let refused = results.iter().enumerate().filter(|(_, result)| result.error.is_some());
    (results.len() == messages).then(|| refused.map(|(place, _)| place).collect())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn call(api: Api, url: &str) -> Call {
        Call {
            url: url.parse().unwrap(),
            api,
            token: None,
            rooms: Rooms::of("live://bench", 300, 100),
            operation: 1000,
            payload: Payload::Binary { bytes: 16 },
        }
    }

    fn request(call: &Call, sequences: &[u32]) -> String {
        let schedule = Schedule::new(7, 1.0, 3, Duration::from_secs(9), Duration::ZERO);
        let mut out = Vec::new();
        call.append(&mut out, &schedule, sequences);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn each_api_is_told_the_room_in_its_own_way() {
        let goim = request(&call(Api::Goim, "http://127.0.0.1:1/base"), &[5]);
        assert!(
            goim.starts_with("POST /base/goim/push/room?operation=1000&type=live&room=bench-2 HTTP/1.1\r\n"),
            "{goim}"
        );
        let plain = request(&call(Api::Plain, "http://127.0.0.1:1/pub?id={room}&x=1"), &[4]);
        assert!(plain.starts_with("POST /pub?id=bench-1&x=1 HTTP/1.1\r\n"), "{plain}");
        let halley = request(&call(Api::Halley, "http://127.0.0.1:1"), &[0, 1]);
        let (head, body) = halley.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("POST /v1/push HTTP/1.1\r\n") && head.contains("application/json"), "{head}");
        let pushes: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(pushes[1]["target"]["room"], "live://bench-1");
        let payload = BASE64_STANDARD.decode(pushes[1]["payload"]["base64"].as_str().unwrap()).unwrap();
        assert_eq!(Mark::read(payload.first_chunk().unwrap()).sequence, 1);
        assert!(request(&call(Api::Halley, "http://127.0.0.1:1"), &[0]).contains("\r\n\r\n{"), "one is no array");
    }

    #[test]
    fn what_was_refused_is_read_from_each_apis_answer() {
        let refused = |api, status, body: &str| {
            let answer = Answer { status, body: body.as_bytes().to_vec() };
            call(api, "http://127.0.0.1:1/{room}").refused(&answer, 2)
        };
        assert_eq!(refused(Api::Goim, 200, r#"{"code":0}"#), Ok(vec![]));
        assert!(refused(Api::Goim, 200, r#"{"code":-400}"#).unwrap_err().contains("-400"));
        assert_eq!(refused(Api::Goim, 503, ""), Ok(vec![0, 1]));
        let mixed = r#"{"results":[{"dispatched":1,"offline":0},{"error":{"status":503}}]}"#;
        assert_eq!(refused(Api::Halley, 200, mixed), Ok(vec![1]));
        assert!(refused(Api::Halley, 200, r#"{"results":[]}"#).is_err(), "an answer to something else");
        assert_eq!(refused(Api::Plain, 201, "queued messages: 1"), Ok(vec![]));
        assert_eq!(refused(Api::Plain, 429, ""), Ok(vec![0, 1]));
        assert!(refused(Api::Plain, 404, "no room").unwrap_err().contains("404: no room"));
    }

    #[test]
    fn what_an_api_cannot_do_is_told_before_the_run() {
        assert!(call(Api::Goim, "http://127.0.0.1:1").check(2).unwrap_err().contains("--push-api halley"));
        assert!(call(Api::Plain, "http://127.0.0.1:1/x").check(1).unwrap_err().contains("{room}"));
        assert_eq!(call(Api::Halley, "http://127.0.0.1:1").check(BATCH_MAX), Ok(()));
    }
}
