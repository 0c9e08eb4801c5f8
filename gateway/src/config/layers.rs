//! Where settings come from: the file or `--dev`, and over it the environment (`HALLEY__SECTION__KEY`).

use std::ops::Range;

use serde::Deserialize;
use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table, Value};

use super::dev::Dev;
use super::error::{ConfigError, Place};
use super::settings::Settings;

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
        let mut dev = Dev::default();
        for (variable, value) in self.variables() {
            let mut table = as_table(variable, value);
            if let Some(said) = table.remove("dev") {
                let taken = if self.is_dev() { dev.take(said) } else { Err(Dev::elsewhere()) };
                taken.map_err(|(key, problem)| ConfigError {
                    place: Place::Environment(variable.into()),
                    key,
                    problem,
                })?;
                continue;
            }
            check_alone(variable, &table)?;
            merge(&mut merged, table);
        }
        if self.is_dev() {
            let mut under = dev.settings();
            merge(&mut under, merged);
            merged = under;
        }
        // Each part was right by itself.
        Settings::deserialize(merged).map_err(|e| in_environment(PREFIX, String::new(), &e))
    }

    fn variables(&self) -> impl Iterator<Item = (&str, &str)> {
        self.environment.iter().filter(|(name, _)| name.starts_with(PREFIX)).map(|(name, value)| (&**name, &**value))
    }

    /// Where the value of a key such as `listener[0].login` came from.
    pub(super) fn place(&self, key: &str) -> Place {
        // The last one goes over the others.
        if let Some((variable, _)) = self.variables().filter(|(name, value)| sets(&as_table(name, value), key)).last() {
            return Place::Environment(variable.into());
        }
        if self.is_dev()
            && let Some(variable) = Dev::variable_of(key)
        {
            return Place::Environment(variable);
        }
        let line = self.file.as_ref().and_then(|(_, text)| line_of(text, key));
        // A table may be there by one of its parts alone.
        let part = format!("{}__", variable_of(key));
        if line.is_none()
            && let Some((variable, _)) = self.variables().find(|(name, _)| name.starts_with(&part))
        {
            return Place::Environment(variable.into());
        }
        match &self.file {
            Some((name, _)) => Place::File { name: name.clone(), line },
            None => Place::Defaults,
        }
    }
}

/// Name of the environment variable that sets a key.
pub(super) fn variable_of(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "__").to_ascii_uppercase())
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

/// Whether this table sets the value of a key, by itself or in a list.
fn sets(table: &Table, key: &str) -> bool {
    let mut here = table;
    for segment in key.split('.') {
        let name = segment.split_once('[').map_or(segment, |(name, _)| name);
        match here.get(name) {
            Some(Value::Table(below)) => here = below,
            Some(_) => return true,
            None => return false,
        }
    }
    false
}

/// Whether what a variable says are settings.
fn check_alone(variable: &str, table: &Table) -> Result<(), ConfigError> {
    // As text, because only text has places that errors refer to.
    let text = toml::to_string(table).expect("a table of plain values");
    match toml::from_str::<Settings>(&text) {
        Ok(_) => Ok(()),
        Err(error) => {
            let key = key_of(&text, &error).unwrap_or_else(|| path_of(table));
            Err(in_environment(variable, key, &error))
        }
    }
}

/// The path to the only value of a table.
fn path_of(table: &Table) -> String {
    let Some((name, value)) = table.iter().next() else { return String::new() };
    match value {
        Value::Table(below) if below.len() == 1 => format!("{name}.{}", path_of(below)),
        _ => name.clone(),
    }
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

fn in_environment(variable: &str, key: String, error: &toml::de::Error) -> ConfigError {
    let mut problem = error.message().replace('\n', " ");
    if problem.ends_with("expected a sequence") {
        problem += ": write a list as TOML does, such as [\"…\"]";
    }
    ConfigError { place: Place::Environment(variable.into()), key, problem }
}

fn in_file(name: &str, text: &str, error: &toml::de::Error) -> ConfigError {
    let line = line_at(text, error.span().map_or(0, |span| span.start));
    let (place, key) = (Place::File { name: name.into(), line: Some(line) }, key_of(text, error).unwrap_or_default());
    ConfigError { place, key, problem: error.message().replace('\n', " ") }
}

/// The key that an error is about.
fn key_of(text: &str, error: &toml::de::Error) -> Option<String> {
    let span = error.span().unwrap_or(0..0);
    key_at(DeTable::parse(text).ok()?.get_ref(), &span)
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
