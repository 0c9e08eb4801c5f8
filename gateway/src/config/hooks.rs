//! `[hooks]`: what the platform's own service is asked, and what follows when it does not answer.

use serde::{Deserialize, Serialize};

/// `[hooks]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Hooks {
    /// Asked about each login of listeners with `login = "hook"`.
    pub login_url: String,
    /// Asked about each room that is entered. Empty: nobody is.
    pub join_url: String,
    /// Told which connections are gone. Empty: nobody is.
    pub gone_url: String,
    /// The secret that calls are signed with. Empty: in `secret_file`.
    pub secret: String,
    /// A file with the secret. Both empty: calls are not signed.
    pub secret_file: String,
    /// Who may sign the certificates of an endpoint with `https`, in PEM. Empty: the system's.
    pub ca_file: String,
    /// How long a question may take, milliseconds.
    pub call_ms_max: u32,
    /// Calls of a hook at a time.
    pub calls_max: u32,
    /// Questions without an answer.
    pub pending_max: u32,
    /// Bytes of an answer.
    pub answer_bytes_max: u32,
    /// What follows when the service is down.
    pub when_down: WhenDown,
    /// Connections that are gone, in one call.
    pub gone_batch_max: u32,
    /// Connections that are gone and wait to be told of.
    pub gone_queue_max: u32,
    /// Calls for the same connections.
    pub gone_tries_max: u32,
}

impl Default for Hooks {
    fn default() -> Self {
        Self {
            login_url: String::new(),
            join_url: String::new(),
            gone_url: String::new(),
            secret: String::new(),
            secret_file: String::new(),
            ca_file: String::new(),
            call_ms_max: 3000,
            calls_max: 64,
            pending_max: 4096,
            answer_bytes_max: 65_536,
            when_down: WhenDown::Refuse,
            gone_batch_max: 100,
            gone_queue_max: 65_536,
            gone_tries_max: 10,
        }
    }
}

/// `hooks.when_down`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenDown {
    /// Who is asked about is refused, and told to come back.
    Refuse,
    /// Who is asked about is let in, as whom it says.
    Allow,
}
