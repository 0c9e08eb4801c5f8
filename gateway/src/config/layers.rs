//! Where settings come from: the file or `--dev`, and over it the environment (`HALLEY__SECTION__KEY`).

use std::ops::Range;

use serde::Deserialize;
use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table, Value};

use super::bind::Bind;
use super::error::{ConfigError, Place};
use super::log::{Log, LogFormat};
use super::settings::{Api, Auth, Listener, Login, Settings, Transport};

const PREFIX: &str = "HALLEY__";

/// Everything a configuration is made of, read once at start.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// Name and text of `--config`; `None` for `--dev`.
    pub file: Option<(String, String)>,
    /// The environment.
    pub environment: Vec<(String, String)>,
}

impl Sources {
    /// Whether this is `--dev`.
    pub fn is_dev(&self) -> bool {
        self.file.is_none()
    }

    /// The settings before defaults that depend on the machine, in their types but not yet checked.
    pub(super) fn read(&self) -> Result<Settings, ConfigError> {
        let mut merged = Table::new();
        if let Some((name, text)) = &self.file {
            let read = |e: toml::de::Error| in_file(name, text, &e);
            toml::from_str::<Settings>(text).map_err(read)?;
            merged = toml::from_str(text).map_err(read)?;
        }
        let mut dev = DevAddresses::default();
        for (variable, value) in self.variables() {
            let table = as_table(variable, value);
            if self.is_dev() && dev.take(&table) {
                continue;
            }
            if let Err(e) = Settings::deserialize(table.clone()) {
                return Err(in_environment(variable, &e));
            }
            merge(&mut merged, table);
        }
        if self.is_dev() {
            dev.fill(&mut merged);
        }
        Settings::deserialize(merged).map_err(|e| in_environment(PREFIX, &e))
    }

    fn variables(&self) -> impl Iterator<Item = (&str, &str)> {
        self.environment.iter().filter(|(name, _)| name.starts_with(PREFIX)).map(|(name, value)| (&**name, &**value))
    }

    /// Where the value of a key such as `listener[0].login` came from.
    pub(super) fn place(&self, key: &str) -> Place {
        if let Some((variable, _)) = self.variables().find(|(variable, _)| variable_of(key) == *variable) {
            return Place::Environment(variable.into());
        }
        match &self.file {
            Some((name, text)) => Place::File { name: name.clone(), line: line_of(text, key) },
            None => Place::Defaults,
        }
    }
}

/// Name of the environment variable that sets a key.
pub(super) fn variable_of(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "__").to_ascii_uppercase())
}

/// What `HALLEY__DEV__…` sets of `--dev`: addresses, and the certificate without which there is no WebSocket over TLS.
struct DevAddresses {
    tcp: Value,
    ws: Value,
    wss: Option<Value>,
    certificate: Option<Value>,
    key: Option<Value>,
}

impl Default for DevAddresses {
    fn default() -> Self {
        Self { tcp: "127.0.0.1:3101".into(), ws: "127.0.0.1:3102".into(), wss: None, certificate: None, key: None }
    }
}

impl DevAddresses {
    fn take(&mut self, table: &Table) -> bool {
        let Some(Value::Table(dev)) = table.get("dev") else { return false };
        for (key, value) in dev {
            match key.as_str() {
                "tcp" => self.tcp = value.clone(),
                "ws" => self.ws = value.clone(),
                "wss" => self.wss = Some(value.clone()),
                "certificate" => self.certificate = Some(value.clone()),
                "key" => self.key = Some(value.clone()),
                _ => return false,
            }
        }
        true
    }

    /// Puts the settings of `--dev` under what the environment says.
    fn fill(self, merged: &mut Table) {
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
        for (listener, bind) in listeners.iter_mut().zip([self.tcp, self.ws]) {
            listener.as_table_mut().expect("a listener is a table").insert("bind".into(), bind);
        }
        if self.wss.is_some() || self.certificate.is_some() || self.key.is_some() {
            let mut secure = listeners[1].clone();
            let files = [("certificate", self.certificate), ("key", self.key)];
            let files = files.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
            let certificates = Value::Array(vec![Value::Table(files.collect())]);
            let table = secure.as_table_mut().expect("a listener is a table");
            table.insert("bind".into(), self.wss.unwrap_or_else(|| "127.0.0.1:3103".into()));
            table.insert("tls".into(), Value::Table(Table::from_iter([("certificates".to_owned(), certificates)])));
            listeners.push(secure);
        }
        merge(&mut dev, std::mem::take(merged));
        *merged = dev;
    }
}

/// `HALLEY__API__BIND=x` as the table `api.bind = x`. What reads as a TOML value is one, the rest is a string.
fn as_table(variable: &str, value: &str) -> Table {
    let parsed = format!("v = {value}").parse::<Table>().ok().filter(|table| table.len() == 1);
    let mut value = parsed.and_then(|mut table| table.remove("v")).unwrap_or_else(|| value.into());
    let name = variable[PREFIX.len()..].to_ascii_lowercase();
    let mut segments = name.split("__").collect::<Vec<_>>();
    while segments.len() > 1 {
        let key = segments.pop().expect("more than one").to_owned();
        value = Value::Table(Table::from_iter([(key, value)]));
    }
    Table::from_iter([(segments[0].to_owned(), value)])
}

fn merge(under: &mut Table, over: Table) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(Value::Table(under)), Value::Table(over)) => merge(under, over),
            (_, value) => {
                under.insert(key, value);
            }
        }
    }
}

fn in_environment(variable: &str, error: &toml::de::Error) -> ConfigError {
    let mut problem = error.message().replace('\n', " ");
    if problem.ends_with("expected a sequence") {
        problem += ": write a list as TOML does, such as [\"…\"]";
    }
    ConfigError { place: Place::Environment(variable.into()), key: String::new(), problem }
}

fn in_file(name: &str, text: &str, error: &toml::de::Error) -> ConfigError {
    let span = error.span().unwrap_or(0..0);
    let key = DeTable::parse(text).ok().and_then(|table| key_at(table.get_ref(), &span)).unwrap_or_default();
    let place = Place::File { name: name.into(), line: Some(line_at(text, span.start)) };
    ConfigError { place, key, problem: error.message().replace('\n', " ") }
}

fn line_at(text: &str, offset: usize) -> usize {
    text.char_indices().take_while(|(at, _)| *at < offset).filter(|(_, c)| *c == '\n').count() + 1
}

/// The path of the innermost key whose name or value covers `span`.
fn key_at(table: &DeTable<'_>, span: &Range<usize>) -> Option<String> {
    let covers = |outer: Range<usize>| outer.start <= span.start && span.end <= outer.end;
    for (key, value) in table {
        let name = key.get_ref();
        if let Some(below) = match value.get_ref() {
            DeValue::Table(table) => key_at(table, span).map(|below| format!("{name}.{below}")),
            DeValue::Array(array) => array.iter().enumerate().find_map(|(at, item)| {
                item.get_ref()
                    .as_table()
                    .and_then(|table| key_at(table, span))
                    .map(|below| format!("{name}[{at}].{below}"))
            }),
            _ => None,
        } {
            return Some(below);
        }
        if covers(key.span()) || covers(value.span()) {
            return Some(name.to_string());
        }
    }
    None
}

/// The line of a key in the file, or of the nearest table above it.
fn line_of(text: &str, key: &str) -> Option<usize> {
    let table = DeTable::parse(text).ok()?;
    let mut line = None;
    let mut here: Spanned<DeValue<'_>> = Spanned::new(table.span(), DeValue::Table(table.into_inner()));
    for segment in key.split('.') {
        let (name, index) = match segment.strip_suffix(']').and_then(|segment| segment.split_once('[')) {
            Some((name, index)) => (name, index.parse::<usize>().ok()),
            None => (segment, None),
        };
        let Some((found, value)) = here.get_ref().as_table().and_then(|table| table.get_key_value(name)) else { break };
        let value = match index {
            Some(index) => value.get_ref().get(index)?.clone(),
            None => value.clone(),
        };
        let start = if index.is_some() { value.span().start } else { found.span().start };
        line = Some(line_at(text, start));
        here = value;
    }
    line
}
