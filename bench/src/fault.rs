//! What servers do wrong, kept to be shown: malformed bytes, and when connections ended.

use serde::Serialize;

use crate::decode::{Malformed, SHOWN_BYTES_MAX};

/// Malformed frames of a run that are shown; all are counted.
pub const FAULTS_SHOWN_MAX: usize = 5;

/// Malformed bytes that a client was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// The client's number.
    pub client: u32,
    /// Where it was connected to.
    pub target: String,
    /// What is wrong.
    pub why: &'static str,
    /// The bytes, from the packet or frame that is wrong, in hexadecimal.
    pub hex: String,
}

impl Fault {
    /// A fault with the bytes a decoder left.
    pub fn new(client: u32, target: String, malformed: Malformed, bytes: &[u8]) -> Self {
        Self { client, target, why: malformed.sentence(), hex: hex(bytes) }
    }
}

/// The first bytes, in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().take(SHOWN_BYTES_MAX).fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}"); // a String takes everything
        hex
    })
}

/// When connections ended that should have stayed, on [`crate::clock`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    /// How many.
    pub count: u64,
    /// The first of them.
    pub first_ns: u64,
    /// The last of them.
    pub last_ns: u64,
}

impl Ends {
    /// Adds one.
    pub fn add(&mut self, now_ns: u64) {
        self.join(Self { count: 1, first_ns: now_ns, last_ns: now_ns });
    }

    /// Adds others.
    pub fn join(&mut self, other: Self) {
        if other.count == 0 {
            return;
        }
        let first_ns = if self.count == 0 { other.first_ns } else { self.first_ns.min(other.first_ns) };
        let last_ns = self.last_ns.max(other.last_ns);
        *self = Self { count: self.count + other.count, first_ns, last_ns };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_several_threads_keep_the_first_and_the_last() {
        let (mut a, mut b, mut sum) = (Ends::default(), Ends::default(), Ends::default());
        b.add(7);
        b.add(9);
        a.add(8);
        for part in [a, Ends::default(), b] {
            sum.join(part);
        }
        assert_eq!(sum, Ends { count: 3, first_ns: 7, last_ns: 9 });
    }

    #[test]
    fn no_more_bytes_are_shown_than_stated() {
        assert_eq!(hex(&[0, 0xff]), "00ff");
        assert_eq!(hex(&[1; 100]).len(), 2 * SHOWN_BYTES_MAX);
    }
}
