//! `[log]`: where events go, and which.

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// `[log]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// Shape of a line on standard error.
    pub format: LogFormat,
    /// A level, or directives of tracing's `EnvFilter`.
    pub level: String,
}

impl Log {
    /// Whether the level is one. To `EnvFilter` a word that is none is a module of which all is logged, and of the
    /// rest nothing.
    pub(super) fn has_level(&self) -> bool {
        let part = |part: &str| part.contains('=') || part.trim().parse::<LevelFilter>().is_ok();
        self.level.split(',').all(part) && EnvFilter::try_new(&self.level).is_ok()
    }
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
