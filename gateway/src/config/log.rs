//! `[log]`: where events go, and which.

use serde::{Deserialize, Serialize};

/// `[log]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// Shape of a line on standard error.
    pub format: LogFormat,
    /// A level, or directives of tracing's `EnvFilter`.
    pub level: String,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Auto, level: "info".into() }
    }
}

/// `log.format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// Entries of systemd's journal where standard error leads to it, else as `Json`.
    Auto,
    /// One JSON object per line.
    Json,
    /// For people.
    Text,
}
