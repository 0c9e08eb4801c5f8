//! TLS as the configuration says it: files read and checked, what handshakes begin with, and streams of HTTP over it.

mod load;
mod secure;
mod validity;

pub use load::{CERTIFICATES_MAX, Loaded, Problem, Speaks, load};
pub(crate) use secure::Secure;

use std::sync::{Arc, Mutex, PoisonError};

use rustls::ServerConfig;

use crate::config::{Settings, Transport};

/// The TLS of every listener, in the order of the configuration, and of the API.
#[derive(Debug, Default)]
pub struct Everywhere {
    /// `None`: the listener has no TLS.
    pub listeners: Vec<Option<Loaded>>,
    /// The same of the API.
    pub api: Option<Loaded>,
}

impl Everywhere {
    /// Reads all files that the settings name. Where `before` has TLS too, tickets that clients have go on being taken.
    pub fn load(settings: &Settings, before: &Self) -> Result<Self, Problem> {
        let mut listeners = Vec::with_capacity(settings.listener.len());
        for (at, listener) in settings.listener.iter().enumerate() {
            let speaks = if listener.transport == Transport::Ws { Speaks::Http } else { Speaks::Packets };
            let before = before.listeners.get(at).and_then(Option::as_ref);
            let loaded = listener.tls.as_ref().map(|tls| load(tls, speaks, before));
            listeners.push(loaded.transpose().map_err(|problem| problem.under(&format!("listener[{at}].tls")))?);
        }
        let api = settings.api.tls.as_ref().map(|tls| load(tls, Speaks::Api, before.api.as_ref()));
        Ok(Self { listeners, api: api.transpose().map_err(|problem| problem.under("api.tls"))? })
    }

    /// What an operator should know of the certificates, such as that one has expired.
    pub fn warnings(&self) -> Vec<String> {
        let listeners = self.listeners.iter().enumerate();
        let listeners = listeners.filter_map(|(at, it)| Some((format!("listener[{at}].tls"), it.as_ref()?)));
        let api = self.api.iter().map(|it| ("api.tls".to_owned(), it));
        let all = listeners.chain(api);
        all.flat_map(|(key, it)| it.warnings.iter().map(move |warning| format!("{key}.{warning}"))).collect()
    }
}

/// The TLS that new connections begin with, which can be replaced.
#[derive(Debug, Default)]
pub struct InForce(Mutex<Everywhere>);

impl InForce {
    /// Puts another in force; returns what each listener begins with from now on.
    pub fn set(&self, everywhere: Everywhere) -> Vec<Option<Arc<ServerConfig>>> {
        let configs = everywhere.listeners.iter().map(|it| Some(Arc::clone(&it.as_ref()?.config))).collect();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = everywhere;
        configs
    }

    /// Reads the files of the settings as successors of those in force, which stay in force until [`InForce::set`].
    pub fn successors(&self, settings: &Settings) -> Result<Everywhere, Problem> {
        Everywhere::load(settings, &self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What connections of the API begin with.
    pub fn api(&self) -> Option<Arc<ServerConfig>> {
        let everywhere = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        everywhere.api.as_ref().map(|it| Arc::clone(&it.config))
    }
}
