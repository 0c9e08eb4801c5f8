//! Why a call has no answer that counts: in a closed list for counting, and with its cause for the log.

use std::error::Error;
use std::fmt;

use hyper::StatusCode;

/// Why a call has no answer that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallFailure {
    /// It took longer than [`super::Rules::call_max`].
    Late,
    /// No connection: no address, refused, or TLS failed.
    Unreachable,
    /// The connection ended before the answer did.
    Broken,
    /// The answer is no HTTP.
    Malformed,
    /// The answer is longer than [`super::Rules::answer_bytes_max`].
    TooBig,
    /// Another status than 200 to 299.
    Status(u16),
    /// The last calls failed, and the next is tried a little later.
    Rests,
}

impl CallFailure {
    /// Whether the endpoint is down, as far as can be seen from here; else it is there and answers what is no answer.
    pub fn is_down(self) -> bool {
        match self {
            Self::Late | Self::Unreachable | Self::Broken | Self::Rests => true,
            Self::Malformed | Self::TooBig => false,
            Self::Status(code) => matches!(code, 408 | 429 | 500..),
        }
    }
}

/// A failure and its cause; shown as a sentence.
#[derive(Debug)]
pub struct CallError {
    /// What is counted.
    pub failure: CallFailure,
    /// In the words of who noticed it; empty where there is nothing to add.
    cause: String,
}

impl CallError {
    pub(super) fn new(failure: CallFailure, error: &(dyn Error + 'static)) -> Self {
        let mut cause = error.to_string();
        let mut deeper = error.source();
        while let Some(error) = deeper {
            let words = error.to_string();
            // Some errors repeat what is beneath them.
            if !cause.ends_with(&words) {
                cause = format!("{cause}: {words}");
            }
            deeper = error.source();
        }
        Self { failure, cause }
    }
}

impl From<CallFailure> for CallError {
    fn from(failure: CallFailure) -> Self {
        Self { failure, cause: String::new() }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.failure {
            CallFailure::Late => f.write_str("the endpoint did not answer in time"),
            CallFailure::Unreachable => f.write_str("the endpoint is not reached"),
            CallFailure::Broken => f.write_str("the connection ended before the endpoint's answer did"),
            CallFailure::Malformed => f.write_str("the endpoint's answer is no HTTP"),
            CallFailure::TooBig => f.write_str("the endpoint's answer is too long"),
            CallFailure::Rests => f.write_str("the endpoint is left alone for a moment: its last calls failed"),
            CallFailure::Status(code) => match StatusCode::from_u16(code) {
                Ok(status) => write!(f, "the endpoint answered {status}"),
                Err(_) => write!(f, "the endpoint answered {code}"),
            },
        }?;
        if self.cause.is_empty() { Ok(()) } else { write!(f, ": {}", self.cause) }
    }
}

impl Error for CallError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_a_sentence_with_what_lies_beneath() {
        let cause = std::io::Error::other(std::io::Error::other("unknown issuer"));
        let error = CallError::new(CallFailure::Unreachable, &cause);
        assert_eq!(error.to_string(), "the endpoint is not reached: unknown issuer");
        assert_eq!(
            CallError::from(CallFailure::Status(503)).to_string(),
            "the endpoint answered 503 Service Unavailable"
        );
    }
}
