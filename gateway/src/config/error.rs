//! What is wrong with a configuration: where, which key, and what would be right, in one sentence.

use std::fmt;

/// A configuration that cannot be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Where the value came from.
    pub place: Place,
    /// The key, such as `listener[0].login`; empty where the file is no TOML.
    pub key: String,
    /// What is wrong and what would be right.
    pub problem: String,
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A line of the file.
    File {
        /// As given on the command line.
        name: String,
        /// From 1. `None`: the key is not in the file.
        line: Option<usize>,
    },
    /// A variable of the environment.
    Environment(String),
    /// Nobody set it.
    Defaults,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { name, line: Some(line) } => write!(f, "{name}:{line}"),
            Self::File { name, line: None } => f.write_str(name),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Defaults => f.write_str("configuration"),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        if !self.key.is_empty() {
            write_line(f, &self.key)?;
            f.write_str(": ")?;
        }
        write_line(f, &self.problem)
    }
}

/// Writes text of the file so that it stays within its line: in TOML also a key can hold a line's end.
fn write_line(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    text.chars().try_for_each(|c| if c.is_control() { write!(f, "{}", c.escape_debug()) } else { write!(f, "{c}") })
}

impl std::error::Error for ConfigError {}
