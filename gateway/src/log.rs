//! The log: one line per event on standard error, or an entry of systemd's journal.

mod journal;
mod limiter;

use std::io::IsTerminal as _;

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use gateway::config::{self, LogFormat};

use self::journal::Journal;
use self::limiter::Limit;

/// The log while it is written.
#[derive(Clone)]
pub(crate) struct Log {
    level: reload::Handle<EnvFilter, Registry>,
    limit: Limit,
}

impl Log {
    /// Logs by another level, which has been checked.
    pub(crate) fn set_level(&self, level: &str) {
        if let Err(error) = self.level.reload(EnvFilter::new(level)) {
            tracing::error!(%error, "the level of the log stays as it is");
        }
    }

    /// Tells of lines that were left out; about once a second.
    pub(crate) fn tell_suppressed(&self) {
        self.limit.tell();
    }
}

/// Starts logging. Must be called once.
pub(crate) fn start(log: &config::Log) -> Log {
    let (filter, level) = reload::Layer::new(EnvFilter::new(&log.level));
    let limit = Limit::new();
    let (lines, problem) = lines(log.format);
    tracing_subscriber::registry().with(filter).with(lines.with_filter(limit.clone())).init();
    if let Some(error) = problem {
        tracing::warn!(%error, "the journal takes no entries; writing JSON to standard error");
    }
    Log { level, limit }
}

type Filtered = tracing_subscriber::layer::Layered<reload::Layer<EnvFilter, Registry>, Registry>;

/// What writes events, and why it is not the journal, if it should have been.
fn lines(format: LogFormat) -> (Box<dyn Layer<Filtered> + Send + Sync>, Option<std::io::Error>) {
    // The protocol's own variable, read where it is used.
    let stream = std::env::var("JOURNAL_STREAM").ok();
    let journal = match format {
        LogFormat::Auto if journal::has_standard_error(stream.as_deref()) => Some(Journal::connect(journal::SOCKET)),
        _ => None,
    };
    let problem = match journal {
        Some(Ok(journal)) => return (journal.boxed(), None),
        Some(Err(error)) => Some(error),
        None => None,
    };
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    let lines = match format {
        LogFormat::Text => lines.with_target(false).boxed(),
        LogFormat::Auto | LogFormat::Json => {
            lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed()
        }
    };
    (lines, problem)
}
