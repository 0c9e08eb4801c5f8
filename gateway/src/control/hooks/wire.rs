//! The JSON of questions and answers, as `docs/hooks.md` describes it.

use std::net::SocketAddr;

use bytes::Bytes;
use halley_protocol::login::Login;
use serde::{Deserialize, Serialize};

use crate::control::decide::{About, Allowed, Question};

/// What endpoints are told of a listener.
#[derive(Clone, Debug, Serialize)]
pub struct ListenerShown {
    /// Its address.
    pub listener: SocketAddr,
    /// `tcp` or `ws`.
    pub transport: &'static str,
    /// Whether it speaks TLS.
    pub tls: bool,
}

/// Where a client is.
#[derive(Serialize)]
struct Place<'a> {
    peer: SocketAddr,
    #[serde(flatten)]
    listener: Option<&'a ListenerShown>,
}

#[derive(Serialize)]
struct LoginQuestion<'a> {
    #[serde(flatten)]
    login: &'a Login,
    #[serde(flatten)]
    place: Place<'a>,
}

#[derive(Serialize)]
struct JoinQuestion<'a> {
    #[serde(skip_serializing_if = "is_none")]
    mid: i64,
    key: &'a str,
    room: &'a str,
    #[serde(flatten)]
    place: Place<'a>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
pub(super) fn is_none(mid: &i64) -> bool {
    *mid == 0
}

/// The body of a question.
pub(super) fn question(question: &Question, listeners: &[ListenerShown]) -> Bytes {
    let place = Place { peer: question.peer, listener: listeners.get(usize::from(question.listener)) };
    let json = match &question.about {
        About::Login(login) => serde_json::to_vec(&LoginQuestion { login, place }),
        About::Join { member, key, room } => serde_json::to_vec(&JoinQuestion { mid: *member, key, room, place }),
    };
    json.expect("texts and numbers").into()
}

/// What an endpoint says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Allowed(Box<Allowed>),
    /// And why, for the log.
    Refused(String),
}

#[derive(Deserialize)]
struct Said {
    allowed: bool,
    #[serde(default)]
    reason: String,
    #[serde(flatten)]
    grant: Allowed,
}

/// Reads the body of an answer.
pub(super) fn answer(body: &[u8]) -> Result<Answer, serde_json::Error> {
    let Said { allowed, reason, grant } = serde_json::from_slice(body)?;
    Ok(if allowed { Answer::Allowed(Box::new(grant)) } else { Answer::Refused(reason) })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::identity::Date;

    fn asked(about: About) -> Value {
        let shown =
            ListenerShown { listener: "0.0.0.0:3102".parse().expect("an address"), transport: "ws", tls: false };
        let peer = "[2001:db8::1]:5000".parse().expect("an address");
        serde_json::from_slice(&question(&Question { about, listener: 0, peer }, &[shown])).expect("JSON")
    }

    #[test]
    fn a_question_says_what_the_client_said_and_where_it_came_from() {
        let login = Login::parse(br#"{"mid":7,"key":"k","room_id":"a","platform":"web","accepts":[1],"token":"t"}"#);
        let place =
            json!({ "peer": "[2001:db8::1]:5000", "listener": "0.0.0.0:3102", "transport": "ws", "tls": false });
        let with = |mut question: Value| {
            question.as_object_mut().expect("an object").extend(place.as_object().expect("an object").clone());
            question
        };
        let expected = json!({ "mid": 7, "key": "k", "room_id": "a", "platform": "web", "accepts": [1], "token": "t" });
        assert_eq!(asked(About::Login(login.expect("a login"))), with(expected));
        assert_eq!(asked(About::Login(Login::default())), with(json!({})));
        let join = |member| About::Join { member, key: "k".into(), room: "a".into() };
        assert_eq!(asked(join(7)), with(json!({ "mid": 7, "key": "k", "room": "a" })));
        assert_eq!(asked(join(0)), with(json!({ "key": "k", "room": "a" })));
    }

    #[test]
    fn an_answer_says_yes_or_no_and_anything_else_is_none() {
        let all = r#"{"allowed":true,"mid":7,"key":"k","room_id":"","accepts":[1],"rooms":["a*"],"operations":[1,2],
            "exp":1800000000.5,"reason":"why not","of":{"the":"platform"}}"#;
        let allowed = Allowed {
            mid: Some(7),
            key: Some("k".into()),
            room_id: Some(String::new()),
            accepts: Some(vec![1]),
            rooms: Some(vec!["a*".into()]),
            operations: Some(vec![1, 2]),
            exp: Some(Date(1_800_000_000)),
        };
        assert_eq!(answer(all.as_bytes()).expect("an answer"), Answer::Allowed(Box::new(allowed)));
        let plain = answer(br#"{"allowed":true,"mid":null}"#).expect("an answer");
        assert_eq!(plain, Answer::Allowed(Box::default()));
        let refused = answer(br#"{"allowed":false,"reason":"banned"}"#).expect("an answer");
        assert_eq!(refused, Answer::Refused("banned".into()));
        for wrong in [
            "",
            "true",
            "{}",
            "null",
            "{\"allowed\":1}",
            "{\"allowed\":\"true\"}",
            "{\"allowed\":true,\"mid\":\"7\"}",
            "{\"allowed\":true,\"rooms\":\"a\"}",
            "{\"allowed\":true,\"accepts\":[2147483648]}",
            "{\"allowed\":true,\"exp\":\"tomorrow\"}",
            "{\"allowed\":true}{",
            "<html>",
        ] {
            assert!(answer(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
