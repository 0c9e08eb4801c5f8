//! goim's jobs: protobuf `PushMsg` of v2 (`internal/logic/dao/kafka.go`) and the JSON of v1 (`libs/proto/job.go`).

/// goim v2: `goim.logic.PushMsg`, proto3.
pub mod v2 {
    use std::borrow::Cow;

    use prost::Message;

    use crate::job::{Job, JobReject, JobTarget};

    /// `PushMsg.Type`.
    const PUSH: i32 = 0;
    const ROOM: i32 = 1;
    const BROADCAST: i32 = 2;

    /// The message. Its `speed` is read and not applied, its `server` is ignored: each node looks up its own keys.
    #[derive(Clone, PartialEq, Eq, Message)]
    pub struct PushMsg {
        /// 0 PUSH, 1 ROOM, 2 BROADCAST.
        #[prost(int32, tag = "1")]
        pub r#type: i32,
        /// The operation that clients see.
        #[prost(int32, tag = "2")]
        pub operation: i32,
        /// Messages per second of a broadcast.
        #[prost(int32, tag = "3")]
        pub speed: i32,
        /// Host name of the comet that goim's logic found the keys on.
        #[prost(string, tag = "4")]
        pub server: String,
        /// `type://room`.
        #[prost(string, tag = "5")]
        pub room: String,
        /// Connection keys.
        #[prost(string, repeated, tag = "6")]
        pub keys: Vec<String>,
        /// The message body.
        #[prost(bytes = "vec", tag = "7")]
        pub msg: Vec<u8>,
    }

    /// Whether this byte is the tag of one of the message's fields, with the wire type that it has.
    pub(in crate::job) fn begins_with(byte: u8) -> bool {
        matches!(byte, 0x08 | 0x10 | 0x18 | 0x22 | 0x2a | 0x32 | 0x3a)
    }

    /// A push to a room as goim's logic writes it.
    pub fn write_room(room: &str, operation: i32, body: &[u8]) -> Vec<u8> {
        let message = PushMsg { r#type: ROOM, operation, room: room.into(), msg: body.into(), ..PushMsg::default() };
        message.encode_to_vec()
    }

    /// Reads a value.
    pub fn read<'a>(value: &[u8]) -> Result<Job<'a>, JobReject> {
        if value.is_empty() {
            return Err(JobReject::Empty);
        }
        let message = PushMsg::decode(value).map_err(|_| JobReject::Protobuf)?;
        let target = match message.r#type {
            PUSH => JobTarget::Keys(message.keys),
            ROOM if message.room.is_empty() => return Err(JobReject::NoTarget),
            ROOM => JobTarget::Room(message.room),
            BROADCAST => JobTarget::All,
            _ => return Err(JobReject::UnknownKind),
        };
        Ok(Job { target, operation: message.operation, payload: Cow::Owned(message.msg) })
    }
}

/// goim v1: a JSON object; every push arrives as operation 5.
pub mod v1 {
    use std::borrow::Cow;

    use base64::Engine as _;
    use base64::prelude::BASE64_STANDARD;
    use serde::Deserialize;

    use crate::job::{Job, JobReject, JobTarget};

    /// `OP_SEND_SMS_REPLY`, the one operation of v1's pushes.
    pub const OPERATION: i32 = 5;

    /// As Go reads it: what is missing is empty, what is unknown is ignored.
    #[derive(Deserialize)]
    struct Object<'a> {
        #[serde(borrow)]
        op: Cow<'a, str>,
        #[serde(default)]
        roomid: i32,
        #[serde(default)]
        subkeys: Option<Vec<String>>,
        #[serde(borrow, default)]
        msg: Option<Cow<'a, str>>,
    }

    /// Reads a value. Room `n` is the room named `"n"`.
    pub fn read<'a>(value: &[u8]) -> Result<Job<'a>, JobReject> {
        if value.is_empty() {
            return Err(JobReject::Empty);
        }
        let object: Object<'_> = serde_json::from_slice(value).map_err(|_| JobReject::Json)?;
        let payload = BASE64_STANDARD.decode(object.msg.as_deref().unwrap_or("")).map_err(|_| JobReject::Json)?;
        let target = match &*object.op {
            "multiple" => JobTarget::Keys(object.subkeys.unwrap_or_default()),
            "broadcast_room" => JobTarget::Room(object.roomid.to_string()),
            "broadcast" => JobTarget::All,
            _ => return Err(JobReject::UnknownKind),
        };
        Ok(Job { target, operation: OPERATION, payload: Cow::Owned(payload) })
    }
}
