//! Tokens of clients: nothing is granted that no key has signed, and what is claimed is what was written.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use gateway::config::{Jwt, JwtAlgorithm, JwtKey};
use gateway::identity::{Claims, Expected, Keys, Rules, TokenReject, load};
use ring::hmac;

const SECRET: &str = "a secret of the fuzzers, of more than 32 bytes";

/// What a signed token says of itself where the input does not.
const HEADER: &[u8] = br#"{"alg":"HS256","typ":"JWT"}"#;

/// Times at which a token is looked at.
const TIMES: [u64; 4] = [0, 1_800_000_000, u64::MAX - 1, u64::MAX];

/// The secret alone, and one key of each algorithm.
static ONE: LazyLock<Keys> = LazyLock::new(|| keys(vec![secret()]));
static FOUR: LazyLock<Keys> = LazyLock::new(|| {
    let public = |algorithm, kid: &str| JwtKey {
        kid: kid.into(),
        algorithm,
        public_key_file: format!("{}/keys/{kid}.pem", env!("CARGO_MANIFEST_DIR")),
        ..JwtKey::default()
    };
    keys(vec![
        secret(),
        public(JwtAlgorithm::RS256, "rs256"),
        public(JwtAlgorithm::ES256, "es256"),
        public(JwtAlgorithm::EdDSA, "ed25519"),
    ])
});

fn secret() -> JwtKey {
    JwtKey { kid: "k".into(), algorithm: JwtAlgorithm::HS256, secret: SECRET.into(), ..JwtKey::default() }
}

fn keys(keys: Vec<JwtKey>) -> Keys {
    load(&Jwt { keys, ..Jwt::default() }).unwrap_or_else(|error| panic!("{error:?}"))
}

/// The first byte says what the others are: a token, claims that are signed, or a header and claims that are signed.
pub fn tokens(data: &[u8]) {
    let Some((&kind, rest)) = data.split_first() else { return };
    match kind % 3 {
        0 => {
            let Ok(token) = std::str::from_utf8(rest) else { return };
            granted(token, ONE.verify(token));
            granted(token, FOUR.verify(token));
        }
        1 => {
            let token = sign(HEADER, rest);
            // Claims in the order of our fields are none: an object is asked for.
            let is_object = rest.trim_ascii_start().starts_with(b"{");
            let claims = serde_json::from_slice::<Claims>(rest).ok().filter(|_| is_object).ok_or(TokenReject::Claims);
            assert_eq!(ONE.verify(&token), claims, "a signed token");
            assert_eq!(FOUR.verify(&token).err(), Some(TokenReject::UnknownKey), "it does not say of which key");
            granted(&token, claims);
            // Whatever was signed: not with a bit of the signature or the claims changed.
            for at in [HEADER.len() * 4 / 3 + 2, token.len() - 2] {
                let mut changed = token.clone().into_bytes();
                changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
                let changed = String::from_utf8(changed).unwrap();
                assert!(changed == token || ONE.verify(&changed).is_err(), "{changed}");
            }
        }
        _ => {
            let Some((&bytes, rest)) = rest.split_first() else { return };
            let (header, claims) = rest.split_at(usize::from(bytes).min(rest.len()));
            let token = sign(header, claims);
            granted(&token, ONE.verify(&token));
            granted(&token, FOUR.verify(&token));
        }
    }
}

fn sign(header: &[u8], claims: &[u8]) -> String {
    let [header, claims] = [header, claims].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part));
    let message = format!("{header}.{claims}");
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()), message.as_bytes());
    format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
}

/// What must be true of a token that was taken, and of its claims.
fn granted(token: &str, verified: Result<Claims, TokenReject>) {
    let Ok(claims) = verified else { return };
    let parts: Vec<&str> = token.split('.').collect();
    let [header, payload, _] = parts[..] else { panic!("{} parts", parts.len()) };
    // No one but the secret's owner could sign here: nobody has the private keys.
    let [header, payload] = [header, payload].map(|part| BASE64_URL_SAFE_NO_PAD.decode(part).unwrap());
    assert_eq!(token, sign(&header, &payload), "the signature");
    assert_eq!(serde_json::from_slice::<Claims>(&payload).unwrap(), claims);
    for expected in [
        Expected::default(),
        Expected { issuer: "i".into(), audience: "a".into(), leeway_s: 0 },
        Expected { leeway_s: u64::MAX, ..Expected::default() },
    ] {
        for now_s in TIMES {
            let Ok(ends_s) = claims.check(&expected, now_s) else { continue };
            assert!(now_s < ends_s, "it has ended");
            assert_eq!(claims.check(&expected, ends_s), Err(TokenReject::Expired));
            assert!(expected.issuer.is_empty() || claims.iss.as_ref() == Some(&expected.issuer));
        }
    }
    let rules = Rules::new(&claims);
    for name in ["", "a", "live://1", "ab"].into_iter().chain(claims.rooms.iter().map(String::as_str)) {
        assert_eq!(rules.allow_room(name), claims.rooms.iter().any(|pattern| fits(pattern, name)), "{name}");
    }
    for operation in [0, 1000, i32::MIN] {
        let named = claims.operations.as_ref().is_none_or(|named| named.contains(&operation));
        assert_eq!(rules.allow_operation(operation), named);
    }
}

/// Whether something put for the pattern's first star makes the name.
fn fits(pattern: &str, name: &str) -> bool {
    let Some(star) = pattern.find('*') else { return pattern == name };
    let ends = name.char_indices().map(|(at, _)| at).chain([name.len()]);
    let between = ends.clone().flat_map(|from| ends.clone().filter(move |to| *to >= from).map(move |to| from..to));
    between.map(|range| [&pattern[..star], &name[range], &pattern[star + 1..]].concat()).any(|made| made == name)
}
