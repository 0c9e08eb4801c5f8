//! What has been revoked, until it would have ended anyway: at most so many, and none is forgotten before its time.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::identity::{Claims, TokenReject};

/// Revocations that are remembered.
const REVOCATIONS_MAX: usize = 100_000;

/// Whose grants end.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Revoked {
    /// Every token for this key of a connection that was issued before.
    Key(String),
    /// Every token of this member that was issued before.
    Member(i64),
    /// The token with this id.
    Token(String),
}

/// As many are revoked as can be remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyRevocations;

/// When something was revoked, and until when that is remembered.
#[derive(Clone, Copy, Debug)]
struct Since {
    at_s: u64,
    until_s: u64,
}

#[derive(Debug, Default)]
pub(super) struct Revocations(HashMap<Revoked, Since>);

impl Revocations {
    /// Remembers that this is revoked since now, until then.
    pub(super) fn put(&mut self, what: Revoked, at_s: u64, until_s: u64) -> Result<(), TooManyRevocations> {
        if self.0.len() >= REVOCATIONS_MAX && !self.0.contains_key(&what) {
            self.0.retain(|_, since| since.until_s > at_s);
            if self.0.len() >= REVOCATIONS_MAX {
                return Err(TooManyRevocations);
            }
        }
        let before = self.0.get(&what).map_or(0, |since| since.until_s);
        self.0.insert(what, Since { at_s, until_s: until_s.max(before) });
        Ok(())
    }

    /// Whether a token may not be used any more, by a connection of this key and member.
    pub(super) fn check(&self, claims: &Claims, key: &str, member: i64, now_s: u64) -> Result<(), TokenReject> {
        if self.0.is_empty() {
            return Ok(());
        }
        let in_force = |what: Revoked| self.0.get(&what).filter(|since| since.until_s > now_s);
        let before = |since: &Since| claims.iat.is_none_or(|issued| issued.0 <= since.at_s);
        let token = claims.jti.as_ref().is_some_and(|id| in_force(Revoked::Token(id.clone())).is_some());
        let key = in_force(Revoked::Key(key.into())).is_some_and(before);
        let member = member != 0 && in_force(Revoked::Member(member)).is_some_and(before);
        if token || key || member { Err(TokenReject::Revoked) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Claims;

    fn claims(json: &str) -> Claims {
        serde_json::from_str(json).expect("claims")
    }

    #[test]
    fn a_token_is_revoked_by_its_id_and_by_member_and_key_if_it_is_older() {
        let mut revocations = Revocations::default();
        let good = |revocations: &Revocations, json: &str, key: &str, member: i64, now_s: u64| {
            revocations.check(&claims(json), key, member, now_s).is_ok()
        };
        revocations.put(Revoked::Token("t".into()), 100, 200).expect("a place");
        revocations.put(Revoked::Member(7), 100, 200).expect("a place");
        revocations.put(Revoked::Key("k".into()), 100, 200).expect("a place");
        for (json, key, member) in [(r#"{"jti":"t","iat":150}"#, "a", 1), (r#"{"iat":100}"#, "a", 7), ("{}", "k", 1)] {
            assert!(!good(&revocations, json, key, member, 199), "{json} {key} {member}");
            assert!(good(&revocations, json, key, member, 200), "not any more");
        }
        for (json, key, member) in [(r#"{"jti":"u"}"#, "a", 0), (r#"{"iat":101}"#, "k", 7)] {
            assert!(good(&revocations, json, key, member, 199), "{json} {key} {member}");
        }
        revocations.put(Revoked::Token("t".into()), 150, 160).expect("it is there");
        assert!(!good(&revocations, r#"{"jti":"t"}"#, "a", 1, 199), "the later end stays");
    }

    #[test]
    fn a_full_table_forgets_none_and_refuses_further_ones() {
        let mut revocations = Revocations::default();
        let token = |n: usize| Revoked::Token(n.to_string());
        for n in 0..REVOCATIONS_MAX {
            revocations.put(token(n), 0, 100).expect("a place");
        }
        assert_eq!(revocations.put(token(REVOCATIONS_MAX), 99, 200), Err(TooManyRevocations));
        assert_eq!(revocations.put(token(5), 99, 200), Ok(()), "what is there already");
        assert!(revocations.check(&claims(r#"{"jti":"0"}"#), "", 0, 99).is_err());
        assert_eq!(revocations.put(token(REVOCATIONS_MAX), 100, 200), Ok(()), "the others have ended");
        assert_eq!(revocations.0.len(), 2);
    }
}
