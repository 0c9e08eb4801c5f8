//! A reload: the whole configuration is read anew and checked, then everything that can change does, or nothing.

use std::cell::RefCell;
use std::sync::Arc;

use futures_channel::oneshot;

use super::app::{App, ReloadResult};
use super::certificates::replace_certificates;
use super::machine::Machine;
use super::{notify, ready, shards, start};
use crate::config::{Change, Config, Host, Reload, Sources};
use crate::identity::{self, Keys};

/// What the program around the gateway does for a reload.
pub struct Outside {
    /// Reads the sources of the configuration again, or says in a sentence why not.
    pub reread: Box<dyn Fn() -> Result<Sources, String> + Send + Sync>,
    /// The machine as it was at the start: a reload makes no other plan.
    pub host: Host,
    /// Logs by another level from now on.
    pub set_log_level: Box<dyn Fn(&str) + Send + Sync>,
    /// Called once a second.
    pub each_second: Box<dyn Fn() + Send + Sync>,
}

impl Outside {
    /// Reads and compares; nothing changes by that.
    fn read(&self, old: &Config) -> Result<(Reload, Keys), String> {
        let sources = (self.reread)()?;
        let new = Config::load(&sources, &self.host).map_err(|error| error.to_string())?;
        let reload = old.reload(&new, &sources).map_err(|error| error.to_string())?;
        let keys = identity::load(&reload.config.settings.jwt);
        Ok((reload, keys.map_err(|(key, problem)| format!("{key}: {problem}"))?))
    }
}

/// Reads the configuration anew, beside control since a name may have to be looked up, and takes over what can change.
pub(super) async fn reload(app: &Arc<App>, machine: &RefCell<Machine>, outside: &Arc<Outside>) -> ReloadResult {
    notify::reloading();
    let (old, theirs) = (app.config(), Arc::clone(outside));
    let (answer, answered) = oneshot::channel();
    drop(monoio::spawn_blocking(move || drop(answer.send(theirs.read(&old)))));
    let result = answered.await.unwrap_or_else(|oneshot::Canceled| Err("the configuration was not read".into()));
    let result = result.and_then(|(reload, keys)| Ok((with_certificates(app, reload)?, keys)));
    let result = match result {
        Ok((reload, keys)) => {
            take_over(app, machine, outside, &reload.config, keys);
            let Reload { applied, restart, .. } = &reload;
            tracing::info!(event = "reload", applied = list(applied), needs_restart = list(restart));
            Ok(reload)
        }
        Err(problem) => {
            tracing::error!(event = "reload-refused", problem, "nothing has changed");
            Err(problem)
        }
    };
    notify::ready(app);
    result
}

/// Certificates are in files of their own, which change without the configuration.
fn with_certificates(app: &App, reload: Reload) -> ReloadResult {
    let warnings = replace_certificates(app, &reload.config.settings).map_err(|problem| problem.to_string())?;
    for warning in warnings {
        tracing::warn!(event = "certificate", "{warning}");
    }
    Ok(reload)
}

/// Everything that takes settings over. None of this can fail: what could was checked.
fn take_over(app: &App, machine: &RefCell<Machine>, outside: &Outside, config: &Config, keys: Keys) {
    (outside.set_log_level)(&config.settings.log.level);
    let mut machine = machine.borrow_mut();
    machine.set_memory_max(config.settings.memory_bytes_max);
    machine.set_tokens(start::tokens(&config.settings.jwt, keys));
    machine.reload(start::policy(config), &shards::reloadable(config));
    if let Some(compression) = &app.compression {
        let crate::config::Compression { level, bytes_min } = config.settings.compression;
        compression.set(level, bytes_min as usize);
    }
    if config.settings.api.auth != app.config().settings.api.auth {
        ready::warn_of_open_doors(app, config);
    }
    if let (Some(kafka), Some(settings)) = (app.kafka.get(), &config.settings.kafka) {
        kafka.reload(settings);
    }
    let rates = config.settings.limits.room_rates();
    app.dispatch.rates().set(rates);
    app.arriving.set(rates);
    app.live.replace(config.clone());
}

fn list(changes: &[Change]) -> String {
    let one = |Change { key, old, new }: &Change| format!("{key}: {old} → {new}");
    changes.iter().map(one).collect::<Vec<_>>().join(", ")
}
