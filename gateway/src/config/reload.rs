//! What a configuration read anew changes: which keys differ, which of them a running gateway takes over, and what is in
//! force afterwards.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::{Table, Value};

use super::check;
use super::error::ConfigError;
use super::layers::Sources;
use super::settings::Settings;
use super::{Config, KEYS};

/// Keys that a running gateway takes over; every other one needs a restart.
pub const RELOADS: &[&str] = &[
    "key_connections_max",
    "key_policy",
    "accepts_per_second_max",
    "accepts_burst_max",
    "memory_bytes_max",
    "drain_grace_ms",
    "drain_window_ms",
    "drain_ms_max",
    "shard.run_bytes_max",
    "shard.run_messages_max",
    "shard.room_pending_bytes_max",
    "shard.sends_per_turn_max",
    "compression.level",
    "compression.bytes_min",
    "limits.rooms_per_connection_max",
    "limits.client_packets_per_second_max",
    "limits.client_packets_burst_max",
    "limits.client_bytes_per_second_max",
    "limits.client_bytes_burst_max",
    "limits.network_connections_max",
    "limits.room_members_max",
    "limits.room_pushes_per_second_max",
    "limits.room_bytes_per_second_max",
    "api.auth",
    "api.tokens",
    "api.body_bytes_max",
    "api.client_address",
    "api.trusted_proxies",
    "jwt.issuer",
    "jwt.audience",
    "jwt.leeway_s",
    "jwt.keys.kid",
    "jwt.keys.algorithm",
    "jwt.keys.secret",
    "jwt.keys.secret_file",
    "jwt.keys.public_key_file",
    "api_v1.auth",
    "nodes.domain",
    "nodes.host_domain",
    "nodes.addresses",
    "nodes.tcp_port",
    "nodes.ws_port",
    "nodes.wss_port",
    "nodes.heartbeat_s",
    "nodes.heartbeat_missed_max",
    "nodes.region",
    "nodes.zone",
    "nodes.env",
    "nodes.weight",
    "nodes.backoff.max_delay",
    "nodes.backoff.base_delay",
    "nodes.backoff.factor",
    "nodes.backoff.jitter",
    "kafka.job_age_ms_max",
    "log.level",
    "upstream.operations",
    "upstream.message_bytes_max",
    "upstream.messages_per_second_max",
    "upstream.messages_burst_max",
    "upstream.connection_in_flight_max",
    "listener.login",
    "listener.origins",
    "listener.outbox_bytes_max",
    "listener.stall_ms_max",
    "listener.slow_policy",
    "listener.login_ms_max",
    "listener.heartbeat_ms_max",
    "listener.linger_ms_max",
    "listener.client_address",
    "listener.trusted_proxies",
];

/// Properties of librdkafka that it takes over while it runs: `kafka.client` has them by these names.
pub const CREDENTIALS: [&str; 2] = ["sasl.username", "sasl.password"];

/// One key that differs; values as in TOML, secrets hidden.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Such as `listener[0].login_ms_max`, by the numbers of the configuration in force.
    pub key: String,
    /// In force until now.
    pub old: String,
    /// In the configuration read anew.
    pub new: String,
}

/// What becomes of a configuration that is read anew.
#[derive(Clone, Debug, PartialEq)]
pub struct Reload {
    /// In force from now on: what was, with the changes that apply.
    pub config: Config,
    /// Changes that apply at once.
    pub applied: Vec<Change>,
    /// Changes that only a restart brings; they are not in force.
    pub restart: Vec<Change>,
}

/// The value of a key that is not there.
const ABSENT: &str = "(none)";

impl Config {
    /// Compares with a configuration read anew from `sources`. What is in force afterwards is checked as a whole too.
    pub fn reload(&self, new: &Self, sources: &Sources) -> Result<Reload, ConfigError> {
        let (old, new) = (Sides::of(self), Sides::of(new));
        let partners = partners(&self.settings, &new.settings);
        let (mut merged, whole) = (old.plain.clone(), new.plain.clone());
        let (mut applied, mut restart) = (Vec::new(), Vec::new());
        for (place, old, new) in differing(&old, &new, &partners) {
            let key = place.join();
            let change = Change { key, old: old.shown(), new: new.shown() };
            let known = old.plain.is_some() && new.plain.is_some();
            if (reloads(&place.name()) || (known && place.is_credential()))
                && place.has_table(&merged)
                && place.has_table(&whole)
            {
                place.put(&mut merged, new.plain);
                applied.push(change);
            } else {
                restart.push(change);
            }
        }
        restart.extend(lost_and_found(&self.settings, &new.settings, &partners));
        let settings = Settings::deserialize(Value::Table(merged)).expect("keys of two settings are settings");
        check::check(&settings, sources).map_err(|error| {
            let rest: Vec<_> = restart.iter().map(|change| change.key.as_str()).collect();
            let problem = format!("{} (until a restart brings {})", error.problem, rest.join(", "));
            ConfigError { problem, ..error }
        })?;
        Ok(Reload { config: Self { settings, ..self.clone() }, applied, restart })
    }
}

/// Whether a running gateway takes the key over, or the whole list of tables that is called so.
fn reloads(name: &str) -> bool {
    RELOADS.iter().any(|key| key.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
}

/// Settings as tables, once as they are and once as they may be shown.
struct Sides {
    settings: Settings,
    plain: Table,
    shown: Table,
}

impl Sides {
    fn of(config: &Config) -> Self {
        let table = |settings: &Settings| Table::try_from(settings).expect("settings are tables of plain values");
        Self { settings: config.settings.clone(), plain: table(&config.settings), shown: table(&config.hidden()) }
    }
}

/// For each listener of the old settings the one of the new with its address; several of one address in their order.
fn partners(old: &Settings, new: &Settings) -> Vec<Option<usize>> {
    let mut taken = vec![false; new.listener.len()];
    let find = |old: &super::Listener| {
        let same = |at: &usize| !taken[*at] && new.listener[*at].bind.to_string() == old.bind.to_string();
        let found = (0..new.listener.len()).find(same)?;
        taken[found] = true;
        Some(found)
    };
    old.listener.iter().map(find).collect()
}

/// Where a key is: names of tables, and of a listener its number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    listener: Option<usize>,
    names: Vec<String>,
}

impl Place {
    /// The key as in the documentation.
    fn name(&self) -> String {
        let under = if self.listener.is_some() { "listener." } else { "" };
        format!("{under}{}", self.names.join("."))
    }

    fn join(&self) -> String {
        match self.listener {
            Some(at) => format!("listener[{at}].{}", self.names.join(".")),
            None => self.name(),
        }
    }

    /// Whether it is one of [`CREDENTIALS`].
    fn is_credential(&self) -> bool {
        matches!(&self.names[..], [kafka, client, name]
            if kafka == "kafka" && client == "client" && CREDENTIALS.contains(&name.as_str()))
    }

    /// Whether the table of the key is there: one that comes or goes does so as a whole. Listeners have their partners.
    fn has_table(&self, table: &Table) -> bool {
        let (_, above) = self.names.split_last().expect("a key has a name");
        let mut at = Some(table);
        for name in above.iter().filter(|_| self.listener.is_none()) {
            at = at.and_then(|table| table.get(name)).and_then(Value::as_table);
        }
        at.is_some()
    }

    /// Sets the key, or takes it out.
    fn put(&self, table: &mut Table, value: Option<Value>) {
        let mut table = match self.listener {
            Some(at) => table["listener"][at].as_table_mut().expect("a listener is a table"),
            None => table,
        };
        let (last, above) = self.names.split_last().expect("a key has a name");
        for name in above {
            let entry = table.entry(name).or_insert_with(|| Value::Table(Table::new()));
            table = entry.as_table_mut().expect("keys of both settings have one shape");
        }
        match value {
            Some(value) => drop(table.insert(last.clone(), value)),
            None => drop(table.remove(last)),
        }
    }
}

/// A value of one side, and how it may be shown.
#[derive(Default)]
struct Side {
    plain: Option<Value>,
    shown: Option<Value>,
}

impl Side {
    fn shown(&self) -> String {
        self.shown.as_ref().map_or_else(|| ABSENT.into(), ToString::to_string)
    }
}

/// Every key whose values differ, listeners with their partners.
fn differing(old: &Sides, new: &Sides, partners: &[Option<usize>]) -> Vec<(Place, Side, Side)> {
    let mut keys: BTreeMap<Place, [Side; 2]> = BTreeMap::new();
    for (which, sides) in [old, new].into_iter().enumerate() {
        for (plain, table) in [(true, &sides.plain), (false, &sides.shown)] {
            let mut note = |place: Place, value: &Value| {
                let side = &mut keys.entry(place).or_default()[which];
                *(if plain { &mut side.plain } else { &mut side.shown }) = Some(value.clone());
            };
            leaves(table, None, &mut Vec::new(), &mut note);
            for (at, partner) in partners.iter().enumerate() {
                let at_side = if which == 0 { Some(at) } else { *partner };
                if let (Some(there), Some(_)) = (at_side, partner) {
                    let listener = table["listener"][there].as_table().expect("a listener is a table");
                    leaves(listener, Some(at), &mut Vec::new(), &mut note);
                }
            }
        }
    }
    let differ = |(_, [old, new]): &(Place, [Side; 2])| old.plain != new.plain;
    keys.into_iter().filter(differ).map(|(place, [old, new])| (place, old, new)).collect()
}

/// Calls `each` for every value under a table but listeners, which have a pass of their own.
fn leaves(table: &Table, listener: Option<usize>, above: &mut Vec<String>, each: &mut impl FnMut(Place, &Value)) {
    for (name, value) in table {
        if listener.is_none() && above.is_empty() && name == "listener" {
            continue;
        }
        above.push(name.clone());
        match value {
            Value::Table(below) => leaves(below, listener, above, each),
            value => each(Place { listener, names: above.clone() }, value),
        }
        above.pop();
    }
}

/// Listeners that one side alone has.
fn lost_and_found(old: &Settings, new: &Settings, partners: &[Option<usize>]) -> Vec<Change> {
    let lost = (0..old.listener.len()).filter(|at| partners[*at].is_none()).map(|at| {
        let old = format!("\"{}\"", old.listener[at].bind);
        Change { key: format!("listener[{at}].bind"), old, new: ABSENT.into() }
    });
    let found = (0..new.listener.len()).filter(|at| !partners.contains(&Some(*at))).map(|at| {
        let new = format!("\"{}\"", new.listener[at].bind);
        Change { key: format!("listener[{at}].bind"), old: ABSENT.into(), new }
    });
    lost.chain(found).collect()
}

/// The list of `docs/configuration.md`: the keys that are taken over, in the order of the file.
pub fn reload_list() -> String {
    let keys = KEYS.iter().filter(|key| RELOADS.contains(&key.name)).map(|key| format!("`{}`", key.name));
    let of_kafka = CREDENTIALS.iter().map(|name| format!("`{name}` in `kafka.client`"));
    keys.chain(of_kafka).collect::<Vec<_>>().join(", ")
}
