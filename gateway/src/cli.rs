//! The command line.

use std::path::PathBuf;

use clap::Parser;

/// Holds client connections and pushes messages to them.
#[derive(Debug, Parser)]
#[command(name = "halley", version)]
pub(crate) struct Cli {
    /// Configuration file (docs/configuration.md).
    #[arg(long, value_name = "FILE", conflicts_with = "dev")]
    pub(crate) config: Option<PathBuf>,
    /// Try it: TCP 127.0.0.1:3101, WebSocket 127.0.0.1:3102, API and page 127.0.0.1:3111, anybody may log in.
    #[arg(long)]
    pub(crate) dev: bool,
    /// Check the configuration and end.
    #[arg(long)]
    pub(crate) check_config: bool,
    /// Print the configuration with every default filled in, and end.
    #[arg(long)]
    pub(crate) print_config: bool,
}
