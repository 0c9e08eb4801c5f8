//! The log: one line per event on standard error.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use gateway::config::{Log, LogFormat};

/// Starts logging. Must be called once.
pub(crate) fn start(log: &Log) {
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(&log.level))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match log.format {
        LogFormat::Json => subscriber.json().flatten_event(true).with_current_span(false).with_span_list(false).init(),
        LogFormat::Text => subscriber.with_target(false).init(),
    }
}
