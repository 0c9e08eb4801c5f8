//! The login: goim's auth JSON, read as Go reads it, and Halley's mark.
//!
//! ```json
//! {"mid":123, "key":"device-key", "room_id":"live://1000", "platform":"web", "accepts":[1000,1001]}
//! ```
//!
//! Every field may be missing. As in Go's `encoding/json`: names match whatever their case, unknown ones are
//! ignored, of equal ones the last wins, `null` leaves a value as it is (and empties `accepts`), a number is
//! an integer in digits, and each byte that is not UTF-8 becomes U+FFFD. The one difference: half a surrogate
//! pair (`"\ud800"`) is refused, where Go writes U+FFFD.

use core::fmt;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::ser::{SerializeMap as _, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// What a client says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Login {
    /// Member; 0: none.
    pub mid: i64,
    /// Key of the connection; empty: the server makes one.
    pub key: String,
    /// Room, such as `live://1000`, taken literally; empty: none.
    pub room_id: String,
    /// Ignored by goim.
    pub platform: String,
    /// Operations wanted of pushes to keys, members and all; pushes to rooms come regardless.
    pub accepts: Vec<i32>,
    /// `"halley":1`: the client knows Halley's operations.
    pub halley: bool,
    /// What says who it is, to Halley; goim ignores the field, so one that is no string is none.
    pub token: String,
}

/// Why a login is refused before anybody is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LoginReject {
    /// Not JSON; an empty body is not.
    Syntax,
    /// Not an object, or a field of the wrong type or range.
    WrongType,
}

impl LoginReject {
    /// Every reject, in the order of their discriminants.
    pub const ALL: [Self; 2] = [Self::Syntax, Self::WrongType];

    /// Name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Syntax => "login-syntax",
            Self::WrongType => "login-wrong-type",
        }
    }
}

impl Login {
    /// Reads the body of an auth packet.
    pub fn parse(body: &[u8]) -> Result<Self, LoginReject> {
        let parsed: Result<Option<Self>, _> = serde_json::from_str(&to_text(body));
        match parsed {
            Ok(login) => Ok(login.unwrap_or_default()),
            Err(error) if error.is_data() => Err(LoginReject::WrongType),
            Err(_) => Err(LoginReject::Syntax),
        }
    }

    /// Body of an auth packet; fields that say nothing are left out.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default() // strings and integers cannot fail
    }
}

impl<'de> Deserialize<'de> for Login {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Fields)
    }
}

struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = Login;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Login, M::Error> {
        let mut login = Login::default();
        while let Some(name) = map.next_key::<String>()? {
            let value = map.next_value::<&RawValue>()?.get();
            set(&mut login, &fold(&name), value).ok_or_else(|| serde::de::Error::custom("wrong type"))?;
        }
        Ok(login)
    }
}

/// Sets the field `name` to the JSON text `value`; `None` if it is of the wrong type.
fn set(login: &mut Login, name: &str, value: &str) -> Option<()> {
    let null = value == "null";
    match name {
        "mid" if !null => login.mid = integer(value)?,
        "key" if !null => login.key = string(value)?,
        "room_id" if !null => login.room_id = string(value)?,
        "platform" if !null => login.platform = string(value)?,
        "accepts" if null => login.accepts.clear(),
        "accepts" => login.accepts = integers(value)?,
        "halley" => login.halley = value == "1",
        "token" => login.token = string(value).unwrap_or_default(),
        _ => {}
    }
    Some(())
}

/// Go reads the digits themselves, so `1.0` and `1e3` are no integers and `-0` is one.
fn integer<T: core::str::FromStr>(value: &str) -> Option<T> {
    value.parse().ok()
}

fn string(value: &str) -> Option<String> {
    serde_json::from_str(value).ok()
}

fn integers(value: &str) -> Option<Vec<i32>> {
    let values: Vec<&RawValue> = serde_json::from_str(value).ok()?;
    let item = |value: &RawValue| match value.get() {
        "null" => Some(0),
        digits => integer(digits),
    };
    values.into_iter().map(item).collect()
}

/// Go compares names under Unicode case folding, by which two letters outside ASCII equal one inside.
fn fold(name: &str) -> String {
    name.chars()
        .map(|letter| match letter {
            '\u{212a}' => 'k', // the Kelvin sign
            '\u{17f}' => 's',  // the long s
            letter => letter.to_ascii_lowercase(),
        })
        .collect()
}

fn to_text(body: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = core::str::from_utf8(body) {
        return Cow::Borrowed(text);
    }
    let mut text = String::with_capacity(body.len() + 8);
    for chunk in body.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    Cow::Owned(text)
}

impl Serialize for Login {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if self.mid != 0 {
            map.serialize_entry("mid", &self.mid)?;
        }
        for (name, value) in [("key", &self.key), ("room_id", &self.room_id), ("platform", &self.platform)] {
            if !value.is_empty() {
                map.serialize_entry(name, value)?;
            }
        }
        if !self.accepts.is_empty() {
            map.serialize_entry("accepts", &self.accepts)?;
        }
        if self.halley {
            map.serialize_entry("halley", &1)?;
        }
        if !self.token.is_empty() {
            map.serialize_entry("token", &self.token)?;
        }
        map.end()
    }
}
