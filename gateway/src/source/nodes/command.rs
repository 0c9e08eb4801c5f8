//! What one node asks all others to do.

use serde::{Deserialize, Serialize};

use crate::control::decide::Revoked;

/// A command, as it stands in the nodes' topic: JSON, so that a node skips what it does not know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeCommand {
    /// End every connection of a key.
    Kick {
        /// The key.
        key: String,
        /// Why, for the log.
        reason: String,
    },
    /// End what a token, a member or a key has, and refuse its tokens.
    Revoke {
        /// Whose.
        what: Revoked,
        /// Until when, in seconds since 1970.
        until_s: u64,
    },
}
