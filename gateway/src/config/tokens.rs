//! Bearer tokens of the API: as text, with every scope, or as a hash with a name and scopes of its own.
//!
//! A token is 32 random bytes, so its plain SHA-256 cannot be guessed backwards; a slow hash protects passwords, which
//! people choose, and would cost every call what it costs the guesser.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Bytes of a token's name.
const NAME_BYTES_MAX: usize = 64;

/// What a call may be allowed for. None includes another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Pushes.
    Push,
    /// Looks at rooms, connections, counters and metrics.
    Read,
    /// Ends connections, reloads and drains.
    Admin,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 3] = [Self::Push, Self::Read, Self::Admin];

    /// As written in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Read => "read",
            Self::Admin => "admin",
        }
    }
}

/// An entry of `api.tokens`.
#[derive(Clone, Debug, PartialEq)]
pub enum Token {
    /// The token itself.
    Plain(String),
    /// What it is known by.
    Hashed(HashedToken),
}

/// A token that the configuration does not know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HashedToken {
    /// For logs.
    pub name: String,
    /// Its hash.
    pub hash: TokenHash,
    /// What its calls may do.
    pub scopes: Vec<Scope>,
}

impl HashedToken {
    /// Checks name and scopes; the problem is a sentence.
    pub fn check(&self) -> Result<(), String> {
        let name = &self.name;
        let visible = name.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'/' | b'"' | b'\\'));
        if !(1..=NAME_BYTES_MAX).contains(&name.len()) || !visible {
            return Err(format!(
                "a token's name has 1 to {NAME_BYTES_MAX} visible ASCII characters without blank, slash and quote"
            ));
        }
        if self.scopes.is_empty() {
            return Err(format!("\"{name}\" may do nothing: give it scopes of push, read and admin"));
        }
        Ok(())
    }
}

impl Token {
    /// The scopes of its calls.
    pub fn scopes(&self) -> &[Scope] {
        match self {
            Self::Plain(_) => &Scope::ALL,
            Self::Hashed(token) => &token.scopes,
        }
    }

    /// Its hash.
    pub fn hash(&self) -> TokenHash {
        match self {
            Self::Plain(token) => TokenHash::of(token.as_bytes()),
            Self::Hashed(token) => token.hash.clone(),
        }
    }
}

impl<'de> Deserialize<'de> for Token {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Token;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a token, or a table with name, hash and scopes")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Token, E> {
                Ok(Token::Plain(text.into()))
            }
            fn visit_map<M: de::MapAccess<'de>>(self, map: M) -> Result<Token, M::Error> {
                HashedToken::deserialize(MapAccessDeserializer::new(map)).map(Token::Hashed)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl Serialize for Token {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Plain(token) => serializer.serialize_str(token),
            Self::Hashed(token) => token.serialize(serializer),
        }
    }
}

/// SHA-256 of a token, written `sha256:` and 64 digits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TokenHash([u8; 32]);

const HASH_PREFIX: &str = "sha256:";

impl TokenHash {
    /// The hash of a token.
    pub fn of(token: &[u8]) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, token);
        Self(digest.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }

    /// Whether they are the same, in a time that does not depend on where they differ.
    pub fn equals(&self, other: &Self) -> bool {
        let differing = self.0.iter().zip(&other.0).fold(0, |differing, (a, b)| differing | (a ^ b));
        std::hint::black_box(differing) == 0
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HASH_PREFIX)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl From<TokenHash> for String {
    fn from(hash: TokenHash) -> Self {
        hash.to_string()
    }
}

impl TryFrom<String> for TokenHash {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong =
            || format!("a token's hash is \"{HASH_PREFIX}\" and 64 hexadecimal digits, as `halley token` prints it");
        let digits = text.strip_prefix(HASH_PREFIX).map(str::as_bytes).filter(|digits| digits.len() == 64);
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(digits.ok_or_else(wrong)?.chunks(2)) {
            *byte = digit(pair[0]).ok_or_else(wrong)? << 4 | digit(pair[1]).ok_or_else(wrong)?;
        }
        Ok(Self(hash))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_that_of_sha256sum_and_reads_back() {
        let hash = TokenHash::of(b"abc");
        let text = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hash.to_string(), text);
        let again = TokenHash::try_from(text.to_uppercase().replace("SHA", "sha")).expect("capitals are digits too");
        assert!(again.equals(&hash) && !again.equals(&TokenHash::of(b"abd")));
        for wrong in ["", "abc", "sha256:", &text[1..], &text[..text.len() - 1], &text.replace("ba78", "gg78")] {
            assert!(TokenHash::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
    }
}
