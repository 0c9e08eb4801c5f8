//! What is counted of hooks.

use std::time::Duration;

use crate::endpoint::CallFailure;
use crate::stats::{Counter, Spread};

/// What an endpoint is called for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A login.
    Login,
    /// A room that is entered.
    Join,
    /// Connections that are gone.
    Gone,
}

impl Subject {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Login, Self::Join, Self::Gone];

    /// The label in metrics, and the value of the header `halley-hook`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Join => "join",
            Self::Gone => "gone",
        }
    }
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The answer says yes.
    Allowed,
    /// The answer says no.
    Refused,
    /// It was told.
    Taken,
    /// The answer says neither.
    Nonsense,
    /// The answer is too long.
    TooBig,
    /// Another status than 200 to 299.
    Status,
    /// No answer in time.
    Late,
    /// No connection.
    Unreachable,
    /// The connection ended before the answer did.
    Broken,
    /// It was not tried, because the last ones failed.
    Rests,
}

impl Outcome {
    /// All of them, in the order of their discriminants.
    pub const ALL: [Self; 10] = [
        Self::Allowed,
        Self::Refused,
        Self::Taken,
        Self::Nonsense,
        Self::TooBig,
        Self::Status,
        Self::Late,
        Self::Unreachable,
        Self::Broken,
        Self::Rests,
    ];

    /// The label in metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Refused => "refused",
            Self::Taken => "taken",
            Self::Nonsense => "nonsense",
            Self::TooBig => "too-big",
            Self::Status => "status",
            Self::Late => "late",
            Self::Unreachable => "unreachable",
            Self::Broken => "broken",
            Self::Rests => "rests",
        }
    }

    pub(super) fn of(failure: CallFailure) -> Self {
        match failure {
            CallFailure::Late => Self::Late,
            CallFailure::Unreachable => Self::Unreachable,
            CallFailure::Broken => Self::Broken,
            CallFailure::Malformed => Self::Nonsense,
            CallFailure::TooBig => Self::TooBig,
            CallFailure::Status(_) => Self::Status,
            CallFailure::Rests => Self::Rests,
        }
    }
}

/// Counters of hooks, written by control.
#[derive(Debug, Default)]
pub struct HookStats {
    /// By subject and outcome.
    calls: [[Counter; Outcome::ALL.len()]; Subject::ALL.len()],
    pending: [Counter; Subject::ALL.len()],
    /// Connections that are gone and wait to be told of.
    pub gone_queued: Counter,
    /// Told of.
    pub gone_told: Counter,
    /// Not told of, because as many waited as may.
    pub gone_dropped: Counter,
    /// Not told of, because every try failed.
    pub gone_lost: Counter,
    /// From the question to its answer, the wait for a place included, microseconds.
    pub call_us: Spread,
}

impl HookStats {
    pub(super) fn begin(&self, subject: Subject) {
        self.pending[subject as usize].add(1);
    }

    pub(super) fn end(&self, subject: Subject, outcome: Outcome, took: Duration) {
        self.pending[subject as usize].sub(1);
        self.calls[subject as usize][outcome as usize].add(1);
        self.call_us.record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    /// Calls of this subject that ended so.
    pub fn calls(&self, subject: Subject, outcome: Outcome) -> u64 {
        self.calls[subject as usize][outcome as usize].get()
    }

    /// Questions of this subject without an answer.
    pub fn pending(&self, subject: Subject) -> u64 {
        self.pending[subject as usize].get()
    }
}
