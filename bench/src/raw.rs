//! The dialect of any other WebSocket server, as the user describes it: what clients say first,
//! what shows that they may expect messages, how pings of the application are answered.

use std::str::FromStr;

use clap::Args;
use halley_protocol::websocket::{Opcode, client};
use serde::Serialize;

use crate::plan::Rooms;
use crate::raw_decode::{MARKER_BYTES_MAX, Watch};
use crate::schedule::{MARK_TEXT_BYTES, Mark};
use crate::target::{Target, Transport};

/// What clients and server say to each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Dialect {
    /// goim's packets: in TCP or in WebSocket, as the target says.
    #[default]
    Goim,
    /// goim v1's: clients log in with a number, and are all in room 1 (--room 1).
    GoimV1,
    /// Any WebSocket server: --open, --ready-marker, --ping-marker and --payload-template tell
    /// what it wants; marks of messages travel as text.
    RawWs,
}

/// Flags that describe a dialect. In texts, `{room}`, `{key}` and `{number}` (or `{n}`, which clap's
/// help cannot show) stand for a client's room, key and number, and \r \n \t \\ \xHH for such bytes.
#[derive(Clone, Debug, Default, Args, Serialize)]
pub struct DialectArgs {
    /// What clients and server say to each other.
    #[arg(long, value_enum, default_value_t = Dialect::Goim)]
    pub dialect: Dialect,
    /// raw-ws: a text frame that each client sends after the handshake; given several times, in
    /// this order. `{room}`, `{key}` and `{number}` (also in the target's path) stand for the
    /// client's room, key and number; \r \n \t \\ \xHH for such bytes.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub open: Vec<Text>,
    /// raw-ws: the same as a binary frame, after those of --open.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub open_binary: Vec<Text>,
    /// raw-ws: a client is ready when a message contains this; without it, when the last opening
    /// frame is sent.
    #[arg(long, value_name = "TEXT")]
    pub ready_marker: Option<Text>,
    /// raw-ws: a line of a message that is exactly TEXT is a ping of the application, to be
    /// answered with a frame ANSWER, such as 2=3 for Socket.IO. Pings of WebSocket itself are
    /// always answered.
    #[arg(long, value_name = "TEXT=ANSWER")]
    pub ping_marker: Vec<PingAnswer>,
    /// raw-ws: what is pushed; `{mark}` stands for the message, `{room}` for its room. Without it,
    /// the message itself.
    #[arg(long, value_name = "TEXT")]
    pub payload_template: Option<Text>,
}

/// A text of the user with its escapes resolved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Text(pub String);

/// A ping of the application and its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PingAnswer {
    ping: String,
    answer: String,
}

/// What clients of a raw dialect have in common.
#[derive(Clone, Debug)]
pub struct RawPlan {
    /// Keys are this and the client's number.
    keys_prefix: String,
    open: Vec<(Opcode, String)>,
    answers: Vec<String>,
    /// Answers are binary frames, as the opening frames are.
    binary: bool,
    /// Whether a message shows that a client is ready.
    pub(crate) waits: bool,
    /// What to look for in messages.
    pub(crate) watch: Watch,
}

impl DialectArgs {
    /// The raw dialect these flags describe, none if it is goim's.
    ///
    /// # Errors
    /// A sentence, if they contradict each other.
    pub fn raw(&self, targets: &[Target], keys_prefix: Option<&str>) -> Result<Option<RawPlan>, String> {
        if self.dialect != Dialect::RawWs {
            let unused = !self.open.is_empty()
                || !self.open_binary.is_empty()
                || self.ready_marker.is_some()
                || !self.ping_marker.is_empty()
                || self.payload_template.is_some();
            let sentence = "--open, --open-binary, --ready-marker, --ping-marker and --payload-template \
                            describe a raw dialect: say --dialect raw-ws too";
            return if unused { Err(sentence.to_owned()) } else { Ok(None) };
        }
        if let Some(target) = targets.iter().find(|target| target.transport != Transport::Ws) {
            return Err(format!("--dialect raw-ws speaks WebSocket: write {target} as ws://…"));
        }
        let ready = self.ready_marker.as_ref().map(|text| text.0.as_str());
        let pings = self.ping_marker.iter().map(|pair| pair.ping.as_bytes());
        let texts = pings.clone().chain(ready.map(str::as_bytes));
        if texts.clone().any(|text| text.is_empty() || text.len() > MARKER_BYTES_MAX || text.contains(&b'\n')) {
            return Err(format!("a marker is one line of 1 to {MARKER_BYTES_MAX} bytes"));
        }
        let frames = |opcode, texts: &[Text]| texts.iter().map(|text| (opcode, text.0.clone())).collect::<Vec<_>>();
        Ok(Some(RawPlan {
            keys_prefix: keys_prefix.unwrap_or_default().to_owned(),
            open: [frames(Opcode::Text, &self.open), frames(Opcode::Binary, &self.open_binary)].concat(),
            answers: self.ping_marker.iter().map(|pair| pair.answer.clone()).collect(),
            binary: self.open.is_empty() && !self.open_binary.is_empty(),
            waits: ready.is_some(),
            watch: Watch::new(ready, pings.map(<[u8]>::to_vec).collect()),
        }))
    }

    /// What messages of so many bytes look like.
    pub fn payload(&self, bytes: usize) -> Payload {
        match self.dialect {
            Dialect::Goim | Dialect::GoimV1 => Payload::Binary { bytes },
            Dialect::RawWs => {
                let template = self.payload_template.as_ref().map(|text| text.0.clone());
                Payload::Text { bytes: bytes.max(MARK_TEXT_BYTES), template }
            }
        }
    }
}

impl RawPlan {
    /// A text of the user for one client.
    pub(crate) fn fill(&self, text: &str, rooms: &Rooms, number: u32) -> String {
        let room = rooms.short_name(rooms.of_client(number));
        let number = number.to_string();
        let key = format!("{}{number}", self.keys_prefix);
        text.replace("{room}", &room).replace("{key}", &key).replace("{number}", &number).replace("{n}", &number)
    }

    /// Appends the frames that a client sends first.
    pub(crate) fn open(&self, out: &mut Vec<u8>, rooms: &Rooms, number: u32) {
        for (opcode, text) in &self.open {
            client::frame(out, true, *opcode, number.to_be_bytes(), self.fill(text, rooms, number).as_bytes());
        }
    }

    /// Appends the answer to an application's ping.
    pub(crate) fn answer(&self, out: &mut Vec<u8>, ping: usize, mask: [u8; 4]) {
        let opcode = if self.binary { Opcode::Binary } else { Opcode::Text };
        client::frame(out, true, opcode, mask, self.answers[ping].as_bytes());
    }
}

/// What is pushed for each message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// The mark in binary, and dots up to a number of bytes.
    Binary {
        /// At least those of a mark.
        bytes: usize,
    },
    /// The mark as text, and dots up to a number of bytes, perhaps in a text of the user.
    Text {
        /// Without the template.
        bytes: usize,
        /// Holds `{mark}` and perhaps `{room}`.
        template: Option<String>,
    },
}

impl Payload {
    /// What is pushed to a room.
    pub fn render(&self, mark: &Mark, rooms: &Rooms, room: u32) -> Vec<u8> {
        match self {
            Self::Binary { bytes } => mark.payload(*bytes),
            Self::Text { bytes, template } => {
                let text = format!("{:.<bytes$}", mark.text());
                let Some(template) = template else { return text.into_bytes() };
                template.replace("{room}", &rooms.short_name(room)).replace("{mark}", &text).into_bytes()
            }
        }
    }
}

impl FromStr for Text {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text.chars();
        while let Some(character) = rest.next() {
            if character != '\\' {
                out.push(character);
                continue;
            }
            out.push(match rest.next() {
                Some('r') => '\r',
                Some('n') => '\n',
                Some('t') => '\t',
                Some('\\') => '\\',
                Some('x') => {
                    let digits: String = rest.by_ref().take(2).collect();
                    let byte = u8::from_str_radix(&digits, 16).ok().filter(|byte| digits.len() == 2 && byte.is_ascii());
                    byte.ok_or("\\x takes two hexadecimal digits, 00 to 7f")?.into()
                }
                _ => return Err("write \\r \\n \\t \\xHH, or \\\\ for a backslash".to_owned()),
            });
        }
        Ok(Self(out))
    }
}

impl FromStr for PingAnswer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (ping, answer) = text.split_once('=').ok_or("write TEXT=ANSWER")?;
        let (ping, answer) = (ping.parse::<Text>()?.0, answer.parse::<Text>()?.0);
        Ok(Self { ping, answer })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw() -> DialectArgs {
        DialectArgs { dialect: Dialect::RawWs, ..DialectArgs::default() }
    }

    fn targets(url: &str) -> Vec<Target> {
        vec![url.parse().unwrap()]
    }

    #[test]
    fn escapes_are_resolved_and_unknown_ones_refused() {
        assert_eq!(r"SUB a 1\r\nPING\x21\\".parse(), Ok(Text("SUB a 1\r\nPING!\\".to_owned())));
        for bad in [r"\q", r"\x4", r"\xff", "\\"] {
            assert!(bad.parse::<Text>().is_err(), "{bad}");
        }
        let pair: PingAnswer = r"PING=PONG\r\n".parse().unwrap();
        assert_eq!((pair.ping.as_str(), pair.answer.as_str()), ("PING", "PONG\r\n"));
    }

    #[test]
    fn what_clients_say_names_their_room_key_and_number() {
        let rooms = Rooms::of("live://r", 10, 2);
        let plan = raw().raw(&targets("ws://127.0.0.1:1/x"), Some("k-")).unwrap().unwrap();
        assert_eq!(
            plan.fill(r#"{"id":{number},"u":"{key}","c":"{room}"}{}"#, &rooms, 7),
            r#"{"id":7,"u":"k-7","c":"r-3"}{}"#
        );
    }

    #[test]
    fn flags_that_contradict_each_other_are_refused_with_a_sentence() {
        let goim = DialectArgs { open: vec![Text("x".to_owned())], ..DialectArgs::default() };
        assert!(goim.raw(&targets("ws://127.0.0.1:1/x"), None).unwrap_err().contains("--dialect raw-ws"));
        assert!(raw().raw(&targets("tcp://127.0.0.1:1"), None).unwrap_err().contains("ws://"));
        let long = DialectArgs { ready_marker: Some(Text("x".repeat(201))), ..raw() };
        assert!(long.raw(&targets("ws://127.0.0.1:1/x"), None).is_err());
    }

    #[test]
    fn a_payload_holds_its_mark_as_text_inside_what_the_user_wants() {
        let mark = Mark { run: 1, sequence: 2, due_ns: 3 };
        let template = Some(r#"{"channel":"{room}","data":"{mark}"}"#.parse().unwrap());
        let arguments = DialectArgs { payload_template: template, ..raw() };
        let text = String::from_utf8(arguments.payload(40).render(&mark, &Rooms::one("live://a"), 0)).unwrap();
        assert_eq!(text, format!(r#"{{"channel":"a","data":"{}...."}}"#, mark.text()));
        assert_eq!(raw().payload(16).render(&mark, &Rooms::one("a"), 0), mark.text().into_bytes(), "a mark is not cut");
    }
}
