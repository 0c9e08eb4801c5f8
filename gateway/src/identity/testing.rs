//! Tokens of a fixed key, for the simulation and for tests of decisions.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::hmac;
use serde_json::Value;

use super::{Expected, load};
use crate::config::{Jwt, JwtAlgorithm, JwtKey};
use crate::control::decide::Tokens;

const SECRET: &str = "a secret of the simulation, long enough";

/// When the clocks of tests begin, in seconds since 1970.
pub(crate) const EPOCH_S: u64 = 1_800_000_000;

/// Those of the key.
pub(crate) fn tokens() -> Tokens {
    let (kid, secret) = ("k".into(), SECRET.into());
    let key = JwtKey { kid, algorithm: JwtAlgorithm::HS256, secret, ..JwtKey::default() };
    let keys = load(&Jwt { keys: vec![key], ..Jwt::default() }).unwrap_or_else(|error| panic!("{error:?}"));
    Tokens::new(Expected::default(), move |token| keys.verify(token))
}

/// A token that claims this, signed.
pub(crate) fn token(claims: &Value) -> String {
    let [header, claims] = [r#"{"alg":"HS256"}"#, &claims.to_string()].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part));
    let message = format!("{header}.{claims}");
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()), message.as_bytes());
    format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
}
