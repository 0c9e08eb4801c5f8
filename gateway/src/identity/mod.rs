//! Who a client is by its token (JWT): the keys that sign tokens, what a token claims, and what that allows.

mod claims;
mod keys;
mod provider;
mod rules;
#[cfg(test)]
pub(crate) mod testing;

pub use claims::{Claims, Date, Expected};
pub use keys::{Keys, load};
pub use rules::Rules;

pub(crate) use rules::matches;

/// Why a token is no grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TokenReject {
    /// There is none.
    Missing,
    /// Not three parts of base64url, or a header that is none.
    Malformed,
    /// No key has its `kid`, or it has none and there are several keys.
    UnknownKey,
    /// Another algorithm than the key's, or `none`.
    Algorithm,
    /// The signature is not the key's.
    Signature,
    /// Claims of the wrong type, too many of them, or no `exp`.
    Claims,
    /// `exp` has passed.
    Expired,
    /// `nbf` has not come.
    Early,
    /// Another issuer than the configuration's.
    Issuer,
    /// Not for this audience.
    Audience,
    /// The token, its member or its key has been revoked.
    Revoked,
}

impl TokenReject {
    /// Every reject.
    pub const ALL: [Self; 11] = [
        Self::Missing,
        Self::Malformed,
        Self::UnknownKey,
        Self::Algorithm,
        Self::Signature,
        Self::Claims,
        Self::Expired,
        Self::Early,
        Self::Issuer,
        Self::Audience,
        Self::Revoked,
    ];

    /// The label in metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Missing => "token-missing",
            Self::Malformed => "token-malformed",
            Self::UnknownKey => "token-key-unknown",
            Self::Algorithm => "token-algorithm",
            Self::Signature => "token-signature",
            Self::Claims => "token-claims",
            Self::Expired => "token-expired",
            Self::Early => "token-early",
            Self::Issuer => "token-issuer",
            Self::Audience => "token-audience",
            Self::Revoked => "token-revoked",
        }
    }
}
