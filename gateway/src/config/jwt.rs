//! `[jwt]`: whose tokens let clients in.

use serde::{Deserialize, Serialize};

/// `[jwt]`: for listeners with `login = "jwt"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Jwt {
    /// The issuer of every token. Empty: any.
    pub issuer: String,
    /// The audience that tokens are for. Empty: tokens for one are refused.
    pub audience: String,
    /// By how much the clocks of issuer and gateway may differ, seconds.
    pub leeway_s: u32,
    /// `[[jwt.keys]]`.
    pub keys: Vec<JwtKey>,
}

impl Default for Jwt {
    fn default() -> Self {
        Self { issuer: String::new(), audience: String::new(), leeway_s: 1, keys: Vec::new() }
    }
}

/// A key that tokens are signed with.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JwtKey {
    /// Its name, as in the header of the tokens.
    pub kid: String,
    /// The only algorithm that it is used with.
    pub algorithm: JwtAlgorithm,
    /// The secret of `HS256`. Empty: in `secret_file`.
    #[serde(default)]
    pub secret: String,
    /// A file with the secret.
    #[serde(default)]
    pub secret_file: String,
    /// A file with the public key of another algorithm, in PEM.
    #[serde(default)]
    pub public_key_file: String,
}

/// `jwt.keys.algorithm`, by the names of RFC 7518 and 8037.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum JwtAlgorithm {
    /// HMAC with SHA-256: issuer and gateway share a secret.
    #[default]
    HS256,
    /// RSA, PKCS #1 v1.5, with SHA-256.
    RS256,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// Ed25519.
    EdDSA,
}

impl JwtAlgorithm {
    /// As in a token's header.
    pub const fn name(self) -> &'static str {
        match self {
            Self::HS256 => "HS256",
            Self::RS256 => "RS256",
            Self::ES256 => "ES256",
            Self::EdDSA => "EdDSA",
        }
    }
}
