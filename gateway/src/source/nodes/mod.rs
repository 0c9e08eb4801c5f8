//! The other nodes, from what they tell: who lives, what that adds to the directory's counts, and what all are to do.
//!
//! ```text
//!              history            │ own beat comes back │ from now on
//! beats:       remembered         │                     │ the node lives until `node_ms_max` without one
//! rooms:       remembered         │                     │ counted while the node lives
//! commands:    done if still kept │                     │ done
//! ```
//!
//! No clock of another machine is asked. A node is judged by when its beats arrive here, and time counts only while our own
//! come back: when Kafka is away nobody is declared gone.

mod command;
mod stats;
mod telling;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use halley_protocol::job::JobReject;
use halley_protocol::node::{self, Beat, Key, Rooms, V1};

use crate::directory::{Directory, RoomsOfNode};

pub use command::NodeCommand;
pub use stats::{NodeView, NodesStats};
pub use telling::{Telling, Told};

/// Nodes that are remembered, living or gone.
pub const NODES_MAX: usize = 256;

/// Rooms of all other nodes together, each as often as nodes have it.
pub const ROOMS_HELD_MAX: usize = 1 << 19;

/// Rooms changed elsewhere that wait for control.
const CHANGES_WAITING_MAX: usize = 1 << 16;

/// Commands whose end is remembered.
const COMMANDS_MAX: usize = 4096;

/// Records removed at a time.
const REMOVED_MAX: usize = 1024;

/// After so many times [`Nodes::patience`] without a beat, a node's records are removed from the topic.
const FORGET: u32 = 10;

/// A command that only running nodes do stays in the topic for as long.
const COMMAND_STAYS_MS: i64 = 60_000;

/// What a record leads to.
#[derive(Debug, PartialEq)]
pub enum Heard {
    /// Nothing that others must do.
    Nothing,
    /// This node is to do it.
    Do(NodeCommand),
    /// This node's own records were removed: it tells all again.
    TellAgain,
    /// It is no record of a node.
    Reject(JobReject),
}

/// Time that counts only while our own beats come back.
struct Clock {
    counted: Duration,
    last: Instant,
    /// Our last beat, as it came back.
    echo: Option<Instant>,
    /// An echo this old is no sign that Kafka works.
    stale: Duration,
}

impl Clock {
    fn hears(&self, now: Instant) -> bool {
        self.echo.is_some_and(|echo| now.duration_since(echo) <= self.stale)
    }

    fn advance(&mut self, now: Instant) {
        if self.hears(now) {
            self.counted += now.duration_since(self.last);
        }
        self.last = now;
    }
}

struct Node {
    lives: bool,
    /// When its last beat came, by the clock above and by any other.
    last: Duration,
    heard: Instant,
    beat: Option<(Beat, Arc<str>)>,
    parts: BTreeMap<u16, Part>,
}

#[derive(Default)]
struct Part {
    sequence: u64,
    rooms: RoomsOfNode,
    left_out: u64,
}

/// The other nodes.
pub struct Nodes {
    own: String,
    patience: Duration,
    directory: Arc<Directory>,
    stats: Arc<NodesStats>,
    clock: Clock,
    known: BTreeMap<String, Node>,
    /// Commands by their keys, and when each may be removed.
    commands: BTreeMap<String, i64>,
    /// Entries of all parts.
    held: usize,
}

impl Nodes {
    /// Nobody yet. `own` is this node's id; a node that is silent for `patience` is gone; beats are `beat` apart.
    pub fn new(
        own: String,
        patience: Duration,
        beat: Duration,
        directory: Arc<Directory>,
        stats: Arc<NodesStats>,
        now: Instant,
    ) -> Self {
        let clock = Clock { counted: Duration::ZERO, last: now, echo: None, stale: 3 * beat };
        Self { own, patience, directory, stats, clock, known: BTreeMap::new(), commands: BTreeMap::new(), held: 0 }
    }

    /// Whether one of our own beats ever came back.
    pub fn began(&self) -> bool {
        self.clock.echo.is_some()
    }

    /// Whether our own beats come back.
    pub fn hears(&self, now: Instant) -> bool {
        self.clock.hears(now)
    }

    /// Whether the topic may be read on: not before control has taken what has changed so far.
    pub fn takes_more(&self) -> bool {
        self.directory.elsewhere().untaken() <= CHANGES_WAITING_MAX
    }

    /// One record of the topic, in its order.
    pub fn hear(&mut self, key: &[u8], value: Option<&[u8]>, now: Instant, unix_ms: i64) -> Heard {
        self.clock.advance(now);
        let Some(key) = Key::read(key) else { return Heard::Reject(JobReject::BadName) };
        let Some(value) = value else { return self.removed(&key) };
        let record = match node::read(value) {
            Ok(record) => record,
            Err(reject) => return Heard::Reject(reject),
        };
        match (key, record) {
            (Key::Beat(id), V1::Beat(_)) if id == self.own => self.clock.echo = Some(now),
            (Key::Rooms(id, _), V1::Rooms(_)) if id == self.own => {}
            (Key::Beat(id), V1::Beat(beat)) => return self.beat(id, beat, now),
            (Key::Rooms(id, part), V1::Rooms(rooms)) => return self.rooms(id, part, rooms, now),
            (ref key @ Key::Command(id, _), V1::Command(command)) => {
                return self.command(key, id, &command, unix_ms);
            }
            _ => return Heard::Reject(JobReject::UnknownKind),
        }
        Heard::Nothing
    }

    fn beat(&mut self, id: &str, beat: Beat, now: Instant) -> Heard {
        let began = self.began();
        let counted = self.clock.counted;
        let Some(node) = self.node(id, now) else { return Heard::Reject(JobReject::TooManyTargets) };
        if node.beat.as_ref().is_some_and(|(last, _)| last.sequence > beat.sequence) {
            return Heard::Nothing;
        }
        let instance = match &node.beat {
            Some((last, instance)) if last.instance == beat.instance => Arc::clone(instance),
            _ => beat.instance.as_str().into(),
        };
        node.beat = Some((beat, instance));
        (node.last, node.heard) = (counted, now);
        if began && !node.lives {
            self.set_lives(id, true);
        }
        Heard::Nothing
    }

    fn rooms(&mut self, id: &str, part: u16, rooms: Rooms, now: Instant) -> Heard {
        let held = self.held;
        let Some(node) = self.node(id, now) else { return Heard::Reject(JobReject::TooManyTargets) };
        let lives = node.lives;
        let known = node.parts.entry(part).or_default();
        if known.sequence > rooms.sequence {
            return Heard::Nothing;
        }
        let old = std::mem::take(&mut known.rooms);
        let room_for = ROOMS_HELD_MAX - (held - old.len());
        let all = rooms.members.len();
        let new: RoomsOfNode = rooms
            .members
            .into_iter()
            .filter(|room| room.1 > 0)
            .map(|(name, n)| (name.into(), n))
            .take(room_for)
            .collect();
        known.left_out = if new.len() == room_for { (all - new.len()) as u64 } else { 0 };
        known.sequence = rooms.sequence;
        known.rooms.clone_from(&new);
        self.held = held - old.len() + new.len();
        if lives {
            self.replace(&old, &new);
        }
        Heard::Nothing
    }

    fn command(&mut self, key: &Key<'_>, id: &str, command: &node::Command, unix_ms: i64) -> Heard {
        if self.commands.len() < COMMANDS_MAX {
            self.commands.insert(key.write(), command.until_ms.max(unix_ms.saturating_add(COMMAND_STAYS_MS)));
        }
        let is_due = self.began() || command.until_ms > unix_ms;
        if id == self.own || !is_due {
            return Heard::Nothing;
        }
        // One that this build does not know is another's business.
        match serde_json::from_str(&command.body) {
            Ok(command) => Heard::Do(command),
            Err(_) => Heard::Reject(JobReject::Json),
        }
    }

    fn removed(&mut self, key: &Key<'_>) -> Heard {
        match key {
            Key::Beat(id) if *id == self.own => return Heard::TellAgain,
            Key::Rooms(id, _) if *id == self.own => {}
            Key::Beat(id) => {
                self.set_lives(id, false);
                self.forget(id);
            }
            Key::Rooms(id, part) => {
                let Some(node) = self.known.get_mut(*id) else { return Heard::Nothing };
                let (lives, part) = (node.lives, node.parts.remove(part).unwrap_or_default());
                self.held -= part.rooms.len();
                if lives {
                    self.replace(&part.rooms, &Vec::new());
                }
            }
            Key::Command(..) => drop(self.commands.remove(&key.write())),
        }
        Heard::Nothing
    }

    fn node(&mut self, id: &str, now: Instant) -> Option<&mut Node> {
        if !self.known.contains_key(id) {
            if self.known.len() >= NODES_MAX {
                // Starts that crashed leave beats without rooms. They must not keep anybody out who lives.
                let gone = self.known.iter().filter(|(_, node)| !node.lives);
                let least = gone.min_by_key(|(_, node)| (!node.parts.is_empty(), node.heard))?.0.clone();
                self.forget(&least);
            }
            let last = self.clock.counted;
            let node = Node { lives: false, last, heard: now, beat: None, parts: BTreeMap::new() };
            self.known.insert(id.into(), node);
        }
        self.known.get_mut(id)
    }

    fn forget(&mut self, id: &str) {
        if let Some(node) = self.known.remove(id) {
            self.held -= node.parts.values().map(|part| part.rooms.len()).sum::<usize>();
            self.publish();
        }
    }

    fn set_lives(&mut self, id: &str, lives: bool) {
        let Some(node) = self.known.get_mut(id).filter(|node| node.lives != lives) else { return };
        node.lives = lives;
        tracing::info!(event = "nodes", node = id, lives);
        let nothing = Vec::new();
        for part in self.known[id].parts.values() {
            let (old, new) = if lives { (&nothing, &part.rooms) } else { (&part.rooms, &nothing) };
            self.replace(old, new);
        }
        self.publish();
    }

    fn replace(&self, old: &RoomsOfNode, new: &RoomsOfNode) {
        let directory = &self.directory;
        directory.elsewhere().replace(old, new, |name| directory.room_size_here(name) > 0);
    }

    /// Publishes what is known, for the counts and for whoever asks.
    fn publish(&self) {
        let beats = self.known.values().filter(|node| node.lives).filter_map(|node| node.beat.as_ref());
        let (connections, addresses) = beats.fold((0u64, 0u64), |(connections, addresses), (beat, _)| {
            (connections.saturating_add(beat.connections), addresses.saturating_add(beat.addresses))
        });
        self.directory.elsewhere().set_totals(connections, addresses);
        let view = |(id, node): (&String, &Node)| {
            let (beat, instance) = node.beat.as_ref()?;
            Some(NodeView {
                id: id.as_str().into(),
                lives: node.lives,
                heard: node.heard,
                connections: beat.connections,
                addresses: beat.addresses,
                rooms: beat.rooms,
                left_out: beat.left_out + node.parts.values().map(|part| part.left_out).sum::<u64>(),
                lag: beat.lag,
                draining: beat.draining,
                instance: Arc::clone(instance),
            })
        };
        self.stats.publish(self.known.iter().filter_map(view).collect());
    }

    /// Judges who lives, and publishes what is known. About ten times in `patience`.
    pub fn tick(&mut self, now: Instant) {
        self.clock.advance(now);
        let late = |node: &Node| node.lives && self.clock.counted.saturating_sub(node.last) > self.patience;
        let gone: Vec<String> = self.known.iter().filter(|(_, node)| late(node)).map(|(id, _)| id.clone()).collect();
        for id in gone {
            self.set_lives(&id, false);
        }
        self.publish();
    }

    /// Keys of records that are of no use any more, if it is this node that removes them: the first of those that live.
    pub fn litter(&self, now: Instant, unix_ms: i64) -> Vec<String> {
        let first = self.known.iter().find(|(_, node)| node.lives).is_none_or(|(id, _)| self.own < *id);
        if !first || !self.hears(now) {
            return Vec::new();
        }
        let forgotten = |node: &&Node| self.clock.counted.saturating_sub(node.last) > FORGET * self.patience;
        let old = self.known.iter().filter(|(_, node)| !node.lives && forgotten(node));
        let records = old.flat_map(|(id, node)| {
            let parts = node.parts.keys().map(|part| Key::Rooms(id, *part).write());
            // Last: whoever reads it forgets the node, and with it what else there is.
            parts.chain([Key::Beat(id).write()])
        });
        let commands = self.commands.iter().filter(|(_, until)| **until < unix_ms).map(|(key, _)| key.clone());
        records.chain(commands).take(REMOVED_MAX).collect()
    }
}
