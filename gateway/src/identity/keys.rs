//! The keys that sign tokens. A key has one algorithm; what a token says of its own is only compared with it.

use std::collections::HashSet;
use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;

use super::{Claims, TokenReject, provider};
use crate::config::{Jwt, JwtAlgorithm, JwtKey};

/// Shortest secret of `HS256`, bytes: that of its hash.
const SECRET_BYTES_MIN: usize = 32;

/// Shortest public key of `RS256`, bytes in DER: one of 2048 bits.
const RSA_BYTES_MIN: usize = 268;

/// Keys by `kid`.
pub struct Keys(Vec<Key>);

struct Key {
    kid: String,
    algorithm: JwtAlgorithm,
    /// Or the secret.
    verifying: DecodingKey,
    validation: Validation,
}

/// What is read of a token's header.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    /// Extensions that a reader must know; this one knows none.
    crit: Option<serde_json::Value>,
}

/// Reads the keys of a configuration. The error is the key of the configuration and a sentence.
pub fn load(jwt: &Jwt) -> Result<Keys, (String, String)> {
    // A second installation is that of the same.
    let _ = provider::PROVIDER.install_default();
    let mut keys = Vec::new();
    for (at, key) in jwt.keys.iter().enumerate() {
        let read = read(key).map_err(|(name, problem)| (format!("jwt.keys[{at}].{name}"), problem))?;
        keys.push(Key {
            kid: key.kid.clone(),
            algorithm: key.algorithm,
            verifying: read,
            validation: signature_only(algorithm(key.algorithm)),
        });
    }
    Ok(Keys(keys))
}

/// Claims are checked by [`Claims::check`], whose time is an argument.
fn signature_only(algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.required_spec_claims = HashSet::new();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation
}

fn algorithm(algorithm: JwtAlgorithm) -> Algorithm {
    match algorithm {
        JwtAlgorithm::HS256 => Algorithm::HS256,
        JwtAlgorithm::RS256 => Algorithm::RS256,
        JwtAlgorithm::ES256 => Algorithm::ES256,
        JwtAlgorithm::EdDSA => Algorithm::EdDSA,
    }
}

fn read(key: &JwtKey) -> Result<DecodingKey, (&'static str, String)> {
    let file = |name: &'static str, path: &str| {
        std::fs::read(Path::new(path)).map_err(|cause| (name, format!("cannot read {path}: {cause}")))
    };
    let name = key.algorithm.name();
    match (key.algorithm, key.secret.as_str(), key.secret_file.as_str(), key.public_key_file.as_str()) {
        (JwtAlgorithm::HS256, secret, "", "") if !secret.is_empty() => secret_key("secret", secret.as_bytes()),
        (JwtAlgorithm::HS256, "", path, "") if !path.is_empty() => {
            secret_key("secret_file", file("secret_file", path)?.trim_ascii_end())
        }
        (JwtAlgorithm::HS256, ..) => Err(("algorithm", format!("{name} needs either secret or secret_file"))),
        (_, "", "", path) if !path.is_empty() => public_key(key.algorithm, &file("public_key_file", path)?)
            .ok_or_else(|| ("public_key_file", format!("{path} holds no public key of {name} in PEM"))),
        _ => Err(("algorithm", format!("{name} needs public_key_file, and nothing else"))),
    }
}

fn secret_key(name: &'static str, secret: &[u8]) -> Result<DecodingKey, (&'static str, String)> {
    if secret.len() < SECRET_BYTES_MIN {
        return Err((
            name,
            format!(
                "has {} bytes, at least {SECRET_BYTES_MIN} are needed: make one with `openssl rand -hex 32`",
                secret.len()
            ),
        ));
    }
    Ok(DecodingKey::from_secret(secret))
}

/// A key of this algorithm, and no other; a private key is none.
fn public_key(algorithm: JwtAlgorithm, pem: &[u8]) -> Option<DecodingKey> {
    if std::str::from_utf8(pem).is_ok_and(|text| text.contains("PRIVATE KEY")) {
        return None;
    }
    let key = match algorithm {
        JwtAlgorithm::HS256 => return None,
        JwtAlgorithm::RS256 => DecodingKey::from_rsa_pem(pem),
        JwtAlgorithm::ES256 => DecodingKey::from_ec_pem(pem),
        JwtAlgorithm::EdDSA => DecodingKey::from_ed_pem(pem),
    };
    let key = key.ok()?;
    let bytes = key.try_get_as_bytes().ok()?;
    let fits = match algorithm {
        JwtAlgorithm::HS256 => false,
        JwtAlgorithm::RS256 => bytes.len() >= RSA_BYTES_MIN,
        JwtAlgorithm::ES256 => bytes.len() == 65,
        JwtAlgorithm::EdDSA => bytes.len() == 32,
    };
    fits.then_some(key)
}

impl Keys {
    /// The claims of a token that one of the keys has signed. Whether they hold now is [`Claims::check`]'s to say.
    pub fn verify(&self, token: &str) -> Result<Claims, TokenReject> {
        let header = header(token).ok_or(TokenReject::Malformed)?;
        let key = match (&header.kid, &self.0[..]) {
            (None, [only]) => Some(only),
            (None, _) => None,
            (Some(kid), keys) => keys.iter().find(|key| key.kid == *kid),
        };
        let key = key.ok_or(TokenReject::UnknownKey)?;
        if header.alg != key.algorithm.name() {
            return Err(TokenReject::Algorithm);
        }
        match jsonwebtoken::decode(token, &key.verifying, &key.validation) {
            Ok(token) => Ok(token.claims),
            Err(error) => Err(match error.kind() {
                ErrorKind::InvalidSignature => TokenReject::Signature,
                ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName => TokenReject::Algorithm,
                ErrorKind::Json(_) => TokenReject::Claims,
                _ => TokenReject::Malformed,
            }),
        }
    }
}

fn header(token: &str) -> Option<Header> {
    let (header, rest) = token.split_once('.')?;
    rest.split_once('.').filter(|(_, signature)| !signature.contains('.'))?;
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(header).ok()?;
    let header: Header = serde_json::from_slice(&bytes).ok()?;
    header.crit.is_none().then_some(header)
}
