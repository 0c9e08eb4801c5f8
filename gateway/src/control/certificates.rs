//! Replacing certificates without dropping a connection.

use super::app::{App, Command};
use crate::config::Settings;
use crate::tls::Problem;

/// Reads the certificates and keys that `settings` names, and lets every new connection begin with them; connections that
/// are there keep what they began with. Nothing changes if one of them cannot be used.
///
/// Only the `tls` tables are looked at, and only where a listener, or the API, has had one since the start. Returns what
/// an operator should know of the new certificates.
pub fn replace_certificates(app: &App, settings: &Settings) -> Result<Vec<String>, Problem> {
    let successors = app.tls.successors(settings)?;
    let warnings = successors.warnings();
    let started = app.config();
    for (at, config) in app.tls.set(successors).into_iter().enumerate() {
        let had = started.settings.listener.get(at).is_some_and(|listener| listener.tls.is_some());
        let Some(config) = config.filter(|_| had) else { continue };
        let listener = u8::try_from(at).expect("few listeners");
        // Control takes commands for as long as it runs.
        let _ = app.commands.unbounded_send(Command::Certificates { listener, config });
    }
    Ok(warnings)
}
