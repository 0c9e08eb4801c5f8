//! `--dev`: settings that need no file, and what `HALLEY__DEV__…` changes of them.

use serde::Deserialize;
use toml::{Table, Value};

use super::bind::Bind;
use super::log::{Log, LogFormat};
use super::settings::{Api, Auth, Listener, Login, Settings, Transport};

/// What can be said, and the key that it sets: addresses, and the certificate without which there is no WebSocket over TLS.
const KEYS: [(&str, &str); 5] = [
    ("tcp", "listener[0].bind"),
    ("ws", "listener[1].bind"),
    ("wss", "listener[2].bind"),
    ("certificate", "listener[2].tls.certificates[0].certificate"),
    ("key", "listener[2].tls.certificates[0].key"),
];

/// What was said.
#[derive(Debug, Default)]
pub(super) struct Dev(Table);

impl Dev {
    /// Takes what a variable says; the error is a key and a sentence.
    pub(super) fn take(&mut self, said: Value) -> Result<(), (String, String)> {
        let names = || KEYS.map(|(name, _)| format!("HALLEY__DEV__{}", name.to_ascii_uppercase())).join(", ");
        let Value::Table(said) = said else { return Err(("dev".into(), format!("is no key: use {}", names()))) };
        for (name, value) in said {
            let Some((_, key)) = KEYS.iter().find(|(known, _)| *known == name) else {
                return Err((format!("dev.{name}"), format!("is no key: use {}", names())));
            };
            let right = match &*name {
                "certificate" | "key" => String::deserialize(value.clone()).map(drop),
                _ => Bind::deserialize(value.clone()).map(drop),
            };
            right.map_err(|error| ((*key).to_owned(), error.message().replace('\n', " ")))?;
            self.0.insert(name, value);
        }
        Ok(())
    }

    /// The error where there is a file.
    pub(super) fn elsewhere() -> (String, String) {
        ("dev".into(), "only --dev has such keys: write listeners into the file".into())
    }

    /// The variable that sets this key of `--dev`.
    pub(super) fn variable_of(key: &str) -> Option<String> {
        let (name, _) = KEYS.iter().find(|(_, its)| *its == key)?;
        Some(format!("HALLEY__DEV__{}", name.to_ascii_uppercase()))
    }

    /// All settings of `--dev`.
    pub(super) fn settings(mut self) -> Table {
        let settings = Settings {
            api: Api { auth: Auth::None, ..Api::default() },
            log: Log { format: LogFormat::Text, ..Log::default() },
            // Who stops it waits for it.
            drain_window_ms: 0,
            drain_ms_max: 5000,
            listener: [Transport::Tcp, Transport::Ws]
                .map(|transport| Listener {
                    bind: Bind::loopback(0),
                    transport,
                    login: Login::Open,
                    ..Listener::default()
                })
                .into(),
            ..Settings::default()
        };
        let mut dev = Table::try_from(settings).expect("settings are tables of plain values");
        let listeners = dev.get_mut("listener").and_then(Value::as_array_mut).expect("two listeners");
        for (at, (name, default)) in [("tcp", "127.0.0.1:3101"), ("ws", "127.0.0.1:3102")].into_iter().enumerate() {
            self.place(&mut listeners[at], name, default);
        }
        if !self.0.is_empty() {
            let mut secure = listeners[1].clone();
            let listener = self.place(&mut secure, "wss", "127.0.0.1:3103");
            let certificates = Value::Array(vec![Value::Table(self.0)]);
            listener.insert("tls".into(), Value::Table(Table::from_iter([("certificates".to_owned(), certificates)])));
            listeners.push(secure);
        }
        dev
    }

    /// Binds a listener to the address that was said, or to its own.
    fn place<'a>(&mut self, listener: &'a mut Value, name: &str, default: &str) -> &'a mut Table {
        let bind = self.0.remove(name).unwrap_or_else(|| default.into());
        let listener = listener.as_table_mut().expect("a listener is a table");
        listener.insert("bind".into(), bind);
        listener
    }
}
