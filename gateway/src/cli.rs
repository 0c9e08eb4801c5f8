//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Holds client connections and pushes messages to them.
#[derive(Debug, Parser)]
#[command(name = "halley", version, args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
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

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Pushes a message, or each line of a pipe, through a gateway's API or straight into Kafka.
    Push(Push),
}

#[derive(Debug, Args)]
#[command(after_help = "Exit codes: 0, every message was taken; 1, one was not; \
    2, the call is wrong, or there is no connection to the API.")]
pub(crate) struct Push {
    /// room:NAME, key:KEY, member:N, or all
    #[arg(required = true, value_name = "TARGET")]
    pub(crate) targets: Vec<String>,
    /// The message; without it, standard input is.
    #[arg(long)]
    pub(crate) text: Option<String>,
    /// Each line of standard input is a message, pushed as it comes.
    #[arg(long, conflicts_with = "text")]
    pub(crate) lines: bool,
    /// The operation that clients see.
    #[arg(long, default_value_t = 1000, allow_negative_numbers = true)]
    pub(crate) operation: i32,
    /// The gateway's API.
    #[arg(long, value_name = "URL", env = "HALLEY_API", default_value = "http://127.0.0.1:3111")]
    pub(crate) api: String,
    /// A token of the API.
    #[arg(long, env = "HALLEY_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// Brokers and topic, such as 127.0.0.1:9092/goim-push-topic: no gateway is asked.
    #[arg(long, value_name = "BROKERS/TOPIC", conflicts_with = "token")]
    pub(crate) kafka: Option<String>,
}
