//! What a token claims, and whether that holds at a time. Pure: the time is an argument.

use std::fmt;

use serde::{Deserialize, Deserializer, de};

use super::TokenReject;
use crate::limits;
use crate::shard::RATE_MAX;

/// Patterns of rooms in one token.
const ROOM_PATTERNS_MAX: usize = 64;

/// Bytes of a token's id.
const TOKEN_ID_BYTES_MAX: usize = 128;

/// The claims that Halley reads; others are ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Claims {
    /// When it ends; required.
    pub exp: Option<Date>,
    /// From when on it is good.
    pub nbf: Option<Date>,
    /// When it was issued: revocations of a member or key are of what was issued before.
    pub iat: Option<Date>,
    /// The issuer.
    pub iss: Option<String>,
    /// Whom it is for.
    pub aud: Audience,
    /// Its id, by which it can be revoked.
    pub jti: Option<String>,
    /// The member; none: 0.
    pub mid: Option<i64>,
    /// The connection's key, or a pattern of it; none: the gateway makes one up.
    pub key: Option<String>,
    /// Patterns of the rooms that may be joined; none: no room.
    pub rooms: Vec<String>,
    /// The operations that may be accepted; none: all.
    pub operations: Option<Vec<i32>>,
    /// Packets that the client may say in a second; none: those of the configuration.
    pub rate: Option<u32>,
}

/// What a token must claim besides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// The issuer; empty: any.
    pub issuer: String,
    /// The audience; empty: tokens for an audience are refused.
    pub audience: String,
    /// By how much clocks may differ, seconds.
    pub leeway_s: u64,
}

impl Claims {
    /// Whether the token is good at this time, in seconds since 1970; and if so, when it ends.
    pub fn check(&self, expected: &Expected, now_s: u64) -> Result<u64, TokenReject> {
        let too_many = self.rooms.len() > ROOM_PATTERNS_MAX
            || self.operations.as_ref().is_some_and(|operations| operations.len() > limits::ACCEPTS_MAX)
            || self.rate.is_some_and(|rate| !(1..=RATE_MAX).contains(&rate))
            || self.jti.as_ref().is_some_and(|id| id.len() > TOKEN_ID_BYTES_MAX)
            || self.key.as_ref().is_some_and(|key| key.len() > limits::KEY_BYTES_MAX)
            || self.rooms.iter().any(|room| room.len() > limits::ROOM_NAME_BYTES_MAX);
        let Some(Date(exp)) = self.exp.filter(|_| !too_many) else { return Err(TokenReject::Claims) };
        let ends_s = exp.saturating_add(expected.leeway_s);
        if now_s >= ends_s {
            return Err(TokenReject::Expired);
        }
        if self.nbf.is_some_and(|Date(nbf)| now_s.saturating_add(expected.leeway_s) < nbf) {
            return Err(TokenReject::Early);
        }
        if !expected.issuer.is_empty() && self.iss.as_ref() != Some(&expected.issuer) {
            return Err(TokenReject::Issuer);
        }
        let ours =
            if expected.audience.is_empty() { self.aud.0.is_empty() } else { self.aud.0.contains(&expected.audience) };
        if ours { Ok(ends_s) } else { Err(TokenReject::Audience) }
    }
}

/// Seconds since 1970; a fraction is left out, and what is before 1970 is 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Date(pub u64);

impl<'de> Deserialize<'de> for Date {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Date;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("seconds since 1970")
            }
            fn visit_u64<E>(self, seconds: u64) -> Result<Date, E> {
                Ok(Date(seconds))
            }
            fn visit_i64<E>(self, seconds: i64) -> Result<Date, E> {
                Ok(Date(u64::try_from(seconds).unwrap_or(0)))
            }
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast of floats saturates")]
            fn visit_f64<E>(self, seconds: f64) -> Result<Date, E> {
                Ok(Date(seconds as u64))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// One name or a list of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audience(Vec<String>);

impl<'de> Deserialize<'de> for Audience {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Audience;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an audience or a list of them")
            }
            fn visit_str<E>(self, name: &str) -> Result<Audience, E> {
                Ok(Audience(vec![name.into()]))
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, seq: A) -> Result<Audience, A::Error> {
                Vec::deserialize(de::value::SeqAccessDeserializer::new(seq)).map(Audience)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(json: &str) -> Claims {
        serde_json::from_str(json).expect("claims")
    }

    #[test]
    fn a_token_is_good_from_its_nbf_until_its_exp_and_the_leeway_is_on_both_sides() {
        let claims = claims(r#"{"nbf":1000,"exp":2000.9}"#);
        for (leeway_s, good) in [(0, 1000..2000), (5, 995..2005)] {
            let expected = Expected { leeway_s, ..Expected::default() };
            let check = |now_s| claims.check(&expected, now_s);
            assert_eq!(check(good.start - 1), Err(TokenReject::Early));
            assert_eq!((check(good.start), check(good.end - 1)), (Ok(good.end), Ok(good.end)));
            assert_eq!(check(good.end), Err(TokenReject::Expired));
        }
    }

    #[test]
    fn a_token_without_end_is_none() {
        for none in ["{}", "[]", r#"{"exp":null}"#] {
            assert_eq!(claims(none).check(&Expected::default(), 5), Err(TokenReject::Claims));
        }
        assert_eq!(claims(r#"{"exp":-3}"#).check(&Expected::default(), 5), Err(TokenReject::Expired));
        assert_eq!(claims(r#"{"exp":1e300}"#).check(&Expected::default(), 5), Ok(u64::MAX));
        for wrong in [r#"{"exp":"2000"}"#, r#"{"exp":true}"#, r#"{"exp":1,"exp":2}"#, r#"{"rooms":"a"}"#] {
            assert!(serde_json::from_str::<Claims>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn issuer_and_audience_are_those_of_the_configuration() {
        let ours =
            |issuer: &str, audience: &str| Expected { issuer: issuer.into(), audience: audience.into(), leeway_s: 0 };
        let check = |json: &str, expected: &Expected| claims(json).check(expected, 0).err();
        let anybody = ours("", "");
        assert_eq!(check(r#"{"exp":9,"iss":"x"}"#, &anybody), None);
        assert_eq!(check(r#"{"exp":9,"aud":"x"}"#, &anybody), Some(TokenReject::Audience), "it is for somebody");
        let us = ours("id", "push");
        assert_eq!(check(r#"{"exp":9,"iss":"id","aud":"push"}"#, &us), None);
        assert_eq!(check(r#"{"exp":9,"iss":"id","aud":["web","push"]}"#, &us), None);
        assert_eq!(check(r#"{"exp":9,"iss":"id","aud":["web"]}"#, &us), Some(TokenReject::Audience));
        assert_eq!(check(r#"{"exp":9,"iss":"id"}"#, &us), Some(TokenReject::Audience));
        assert_eq!(check(r#"{"exp":9,"iss":"other","aud":"push"}"#, &us), Some(TokenReject::Issuer));
        assert_eq!(check(r#"{"exp":9,"aud":"push"}"#, &us), Some(TokenReject::Issuer));
    }

    #[test]
    fn claims_beyond_their_maximum_are_no_claims() {
        let with = |rooms: usize, operations: usize, id: usize, key: usize, room: usize| Claims {
            exp: Some(Date(9)),
            rooms: vec!["r".repeat(room); rooms],
            operations: Some(vec![1; operations]),
            jti: Some("i".repeat(id)),
            key: Some("k".repeat(key)),
            ..Claims::default()
        };
        assert_eq!(with(64, 64, 128, 256, 256).check(&Expected::default(), 0), Ok(9));
        for wrong in [
            with(65, 64, 128, 256, 256),
            with(64, 65, 128, 256, 256),
            with(64, 64, 129, 256, 256),
            with(64, 64, 128, 257, 256),
            with(64, 64, 128, 256, 257),
        ] {
            assert_eq!(wrong.check(&Expected::default(), 0), Err(TokenReject::Claims));
        }
        for (rate, good) in [(0, false), (1, true), (RATE_MAX, true), (RATE_MAX + 1, false)] {
            let claims = Claims { exp: Some(Date(9)), rate: Some(rate), ..Claims::default() };
            assert_eq!(claims.check(&Expected::default(), 0).is_ok(), good, "{rate}");
        }
    }
}
