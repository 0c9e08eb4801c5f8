//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

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
    /// Makes a token of the API and the line of the configuration that lets it in.
    Token(Token),
    /// Sends the clients of a running gateway away, spread over `drain_window_ms`, and ends it.
    Drain(Admin),
    /// Makes a running gateway read its configuration anew, and prints what has changed and what needs a restart.
    Reload(Admin),
}

#[derive(Debug, Args)]
#[command(after_help = "Exit codes: 0, it is done as asked; 1, the gateway refused; \
    2, the call is wrong, or there is no connection to the API.")]
pub(crate) struct Admin {
    /// The gateway's configuration file: the address of the API and its first token that is no hash are taken
    /// from it and the environment.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The gateway's API, such as `http://127.0.0.1:3111`, which is the default without a file.
    #[arg(long, value_name = "URL", env = "HALLEY_API")]
    pub(crate) api: Option<String>,
    /// A token of the API.
    #[arg(long, env = "HALLEY_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// Certificates in PEM that an API at `https://…` is checked with; by default those of the system.
    #[arg(long, value_name = "FILE", env = "HALLEY_CA")]
    pub(crate) ca: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "Standard output has two lines: the token, which is shown this once and kept nowhere, and an \
    entry for `tokens = [ … ]` under [api], which holds its SHA-256 alone. Nothing else is changed or asked.")]
pub(crate) struct Token {
    /// Whose token it is, for the audit log.
    #[arg(required = true)]
    pub(crate) name: String,
    /// What its calls may do.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "push")]
    pub(crate) scopes: Vec<Scope>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scope {
    /// Pushes
    Push,
    /// Looks at rooms, connections, counters and metrics
    Read,
    /// Ends connections, reloads and drains
    Admin,
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
    /// Certificates in PEM that an API at `https://…` is checked with; by default those of the system.
    #[arg(long, value_name = "FILE", env = "HALLEY_CA")]
    pub(crate) ca: Option<String>,
    /// Brokers and topic, such as 127.0.0.1:9092/goim-push-topic: no gateway is asked.
    #[arg(long, value_name = "BROKERS/TOPIC", conflicts_with = "token")]
    pub(crate) kafka: Option<String>,
    /// Properties of the Kafka client, such as credentials: lines `name=value`, with the names of [kafka.client].
    #[arg(long, value_name = "FILE", requires = "kafka")]
    pub(crate) kafka_config: Option<PathBuf>,
}
