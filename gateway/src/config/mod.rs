//! The configuration: `halley.toml`, the environment, and what this machine allows, resolved and checked.

mod bind;
mod capacity;
mod check;
mod compression;
mod dev;
mod error;
mod hooks;
mod jwt;
mod kafka;
mod keys;
mod layers;
mod limited;
mod log;
mod nodes;
mod proxies;
mod reload;
mod settings;
mod tls;
mod tokens;
mod upstream;

pub use bind::Bind;
pub use capacity::{Host, Plan};
pub use compression::Compression;
pub use error::{ConfigError, Place};
pub use hooks::{Hooks, WhenDown};
pub use jwt::{Jwt, JwtAlgorithm, JwtKey};
pub use kafka::{JobFormat, Kafka, Start};
pub use keys::{KEYS, Key, table};
pub use layers::Sources;
pub use limited::Limited;
pub use log::{Log, LogFormat};
pub use nodes::{Backoff, Nodes};
pub use proxies::{ClientAddress, TrustedProxies};
pub use reload::{CREDENTIALS, Change, RELOADS, Reload, reload_list};
pub use settings::{
    Api, ApiV1, Auth, Dialect, ECHO_PATH, KeyPolicy, Listener, Login, Settings, Shard, Shards, SlowPolicy, Transport,
};
pub use tls::{CertificateFiles, ClientAuth, Tls, TlsVersion};
pub use tokens::{HashedToken, Scope, Token, TokenHash};
pub use upstream::{Operations, Upstream};

/// A configuration that can be started: every value present, in its range, and fitting the others.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The keys of `halley.toml`, with nothing left open.
    pub settings: Settings,
    /// How connections are divided among shards and CPUs.
    pub plan: Plan,
    /// Started with `--dev`: the page is served, and everything is on loopback.
    pub dev: bool,
}

impl Config {
    /// Reads the sources, fills in defaults, checks every rule and divides `host` among shards.
    pub fn load(sources: &Sources, host: &Host) -> Result<Self, ConfigError> {
        let mut settings = sources.read()?;
        settings.listener.iter_mut().for_each(Listener::resolve);
        check::check(&settings, sources)?;
        let plan = capacity::plan(&settings, host, sources)?;
        settings.connections_max = Some(plan.connections_max);
        settings.shards = Shards::Count(plan.shards);
        settings.key_connections_max = Some(settings.key_connections());
        Ok(Self { settings, plan, dev: sources.is_dev() })
    }

    /// Whether a path speaks echo.
    pub fn echoes(&self) -> bool {
        self.dev || self.settings.listener.iter().any(|listener| listener.dialect == Dialect::Echo)
    }

    /// The resolved configuration as TOML. Tokens and passwords are hidden, since this gets pasted into tickets.
    pub fn to_toml(&self) -> String {
        toml::to_string(&self.hidden()).expect("settings are tables of plain values")
    }

    /// The settings as they may be shown.
    fn hidden(&self) -> Settings {
        let mut settings = self.settings.clone();
        for token in &mut settings.api.tokens {
            if let Token::Plain(token) = token {
                *token = HIDDEN.into();
            }
        }
        for key in settings.jwt.keys.iter_mut().filter(|key| !key.secret.is_empty()) {
            key.secret = HIDDEN.into();
        }
        if !settings.hooks.secret.is_empty() {
            settings.hooks.secret = HIDDEN.into();
        }
        if let Some(kafka) = &mut settings.kafka {
            kafka.hide_secrets(HIDDEN);
        }
        if let Some(upstream) = settings.upstream.as_mut().filter(|upstream| !upstream.authorization.is_empty()) {
            upstream.authorization = HIDDEN.into();
        }
        settings
    }
}

/// What is printed in place of a token; too short to be accepted as one.
pub const HIDDEN: &str = "(hidden)";

#[cfg(test)]
mod reload_tests;
#[cfg(test)]
mod tests;
