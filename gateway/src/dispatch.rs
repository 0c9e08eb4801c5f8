//! Dispatch: looks a target up, encodes (and deflates) the message once, puts one order into the queue of each shard concerned.

mod rates;

use std::sync::Arc;

use arrayvec::ArrayVec;

use crate::compression::Compression;
use crate::directory::Directory;
use crate::ids::{ConnWord, RoomRef, ShardIndex};
use crate::limits;
use crate::link::ShardLink;
use crate::order::{Order, push_weight};
use crate::payload::{Note, Payload};
use crate::sabotage::{Bug, planted};

pub use self::rates::{Rates, RoomRates};

/// Whom a push is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The connections of these keys that accept the operation.
    Keys(Vec<String>),
    /// The connections of these members that accept the operation.
    Members(Vec<i64>),
    /// Everybody in the room, whatever they accept.
    Room(String),
    /// Every logged-in connection that accepts the operation.
    All,
}

/// Where a push went, as the directory knew it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dispatched {
    /// Connections it was dispatched to; whether each accepts the operation is known to its shard only.
    pub connections: u64,
    /// Distinct keys or members without a connection; 1 for a room without members; 0 for all.
    pub offline: u64,
}

/// Why nobody got a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DispatchError {
    /// A shard concerned has no place for a push. Nothing was put anywhere; try again later.
    #[error("a shard's queue is full")]
    Full,
    /// The room gets more than it may in a second. Nothing was put anywhere; try again later.
    #[error("the room gets more than limits.room_pushes_per_second_max or limits.room_bytes_per_second_max lets it")]
    RoomTooFast,
    /// The body has more than [`limits::PAYLOAD_BYTES_MAX`] bytes.
    #[error("the payload has more than {} bytes", limits::PAYLOAD_BYTES_MAX)]
    PayloadTooBig,
    /// There are more than [`limits::PUSH_TARGETS_MAX`] keys or members.
    #[error("the push names more than {} keys or members", limits::PUSH_TARGETS_MAX)]
    TooManyTargets,
}

/// The way into the shards for pushes, shared by all sources. Holds no lock while it puts.
pub struct Dispatch {
    directory: Arc<Directory>,
    links: Arc<[Arc<ShardLink>]>,
    compression: Option<Arc<Compression>>,
    rates: Arc<Rates>,
}

/// What one shard gets of a push.
enum Share {
    Direct(Box<[ConnWord]>),
    Room(RoomRef),
    All,
}

impl Share {
    /// Connections that it names.
    fn named(&self) -> usize {
        match self {
            Self::Direct(conns) => conns.len(),
            Self::Room(_) | Self::All => 0,
        }
    }

    fn order(self, payload: Payload) -> Order {
        match self {
            Self::Direct(conns) => Order::Direct { conns, payload },
            Self::Room(room) => Order::Room { room, payload },
            Self::All => Order::All { payload },
        }
    }
}

/// At most one share for each shard.
type Shares = ArrayVec<(ShardIndex, Share), { limits::SHARDS_MAX }>;

impl Dispatch {
    /// Dispatch over this directory into all shards, in order.
    pub fn new(directory: Arc<Directory>, links: Arc<[Arc<ShardLink>]>) -> Self {
        Self { directory, links, compression: None, rates: Arc::new(Rates::new(RoomRates::default())) }
    }

    /// The same, which deflates pushes for shards that have somebody to read them so.
    #[must_use]
    pub fn compressing(self, compression: Option<Arc<Compression>>) -> Self {
        Self { compression, ..self }
    }

    /// The same with rates of pushes into one room.
    #[must_use]
    pub fn with_rates(self, rates: Arc<Rates>) -> Self {
        Self { rates, ..self }
    }

    /// The rates of pushes into one room.
    pub fn rates(&self) -> &Rates {
        &self.rates
    }

    /// Pushes to everybody concerned or, with an error, to nobody. A target that nobody answers to is no error.
    /// `note` says since when deliveries are measured.
    pub fn push(&self, target: &Target, operation: i32, body: &[u8], note: Note) -> Result<Dispatched, DispatchError> {
        self.push_said_at(note.dispatched_us(), target, operation, body, note)
    }

    /// The same, measured against the rates of its room by when it was said.
    pub fn push_said_at(
        &self,
        said_us: u64,
        target: &Target,
        operation: i32,
        body: &[u8],
        note: Note,
    ) -> Result<Dispatched, DispatchError> {
        if body.len() > limits::PAYLOAD_BYTES_MAX {
            return Err(DispatchError::PayloadTooBig);
        }
        let (mut shares, dispatched) = match target {
            Target::Keys(keys) => self.keys(keys)?,
            Target::Members(members) => self.members(members)?,
            Target::Room(name) => self.room(name),
            Target::All => self.all(),
        };
        // A room that nobody is in costs nothing.
        if !shares.is_empty() {
            self.admit(target, body.len(), said_us)?;
        }
        if let Err(full) = self.take_credits(&mut shares, body.len()) {
            if let Target::Room(room) = target {
                self.rates.give_back(room, body.len());
            }
            return Err(full);
        }
        let compression = self.compression.as_ref().filter(|it| it.wants(body.len()) && self.inflates(&shares));
        self.put(shares, || match compression {
            Some(compression) => compression.encode(operation, body, note),
            None => Payload::encode(operation, body, note),
        });
        Ok(dispatched)
    }

    /// Counts a push of so many bytes against the rates of its room, if it is for one.
    pub fn admit(&self, target: &Target, bytes: usize, said_us: u64) -> Result<(), DispatchError> {
        match target {
            Target::Room(room) if !self.rates.take(room, bytes, said_us) => Err(DispatchError::RoomTooFast),
            _ => Ok(()),
        }
    }

    fn keys(&self, keys: &[String]) -> Result<(Shares, Dispatched), DispatchError> {
        let keys = distinct(keys.iter().map(String::as_str))?;
        Ok(direct(&keys, |key, conns| self.directory.add_key_connections(key, conns)))
    }

    fn members(&self, members: &[i64]) -> Result<(Shares, Dispatched), DispatchError> {
        let members = distinct(members.iter().copied())?;
        Ok(direct(&members, |member, conns| self.directory.add_member_connections(*member, conns)))
    }

    fn room(&self, name: &str) -> (Shares, Dispatched) {
        let parts = self.directory.room_parts(name);
        let dispatched = Dispatched {
            connections: parts.iter().map(|part| part.members()).sum(),
            offline: u64::from(parts.is_empty()),
        };
        (parts.iter().map(|part| (part.shard, Share::Room(part.room))).collect(), dispatched)
    }

    fn all(&self) -> (Shares, Dispatched) {
        let mut dispatched = Dispatched::default();
        let mut shares = Shares::new();
        for (shard, connections) in self.directory.connections_by_shard().filter(|(_, connections)| *connections > 0) {
            dispatched.connections += connections;
            shares.push((shard, Share::All));
        }
        (shares, dispatched)
    }

    /// One place in the queue of each shard concerned, or of none.
    fn take_credits(&self, shares: &mut Shares, body_bytes: usize) -> Result<(), DispatchError> {
        let weight = |share: &Share| push_weight(body_bytes, share.named());
        let lacking = shares.iter().position(|(shard, share)| !self.link(*shard).take_credit(weight(share)));
        let Some(taken) = lacking else { return Ok(()) };
        if planted(Bug::HalfDispatch) {
            shares.truncate(taken);
            return Ok(());
        }
        if planted(Bug::CreditLost) {
            return Err(DispatchError::Full);
        }
        for (shard, share) in &shares[..taken] {
            self.link(*shard).return_credit(weight(share));
        }
        Err(DispatchError::Full)
    }

    /// Whether one of these shards has clients with compression. Who comes meanwhile gets the message as others do.
    fn inflates(&self, shares: &Shares) -> bool {
        shares.iter().any(|(shard, _)| self.link(*shard).stats.deflating.get() > 0)
    }

    /// Every shard has its credit.
    fn put(&self, mut shares: Shares, encode: impl FnOnce() -> Payload) {
        let Some((last, last_share)) = shares.pop() else { return };
        let payload = encode();
        for (shard, share) in shares {
            self.link(shard).put_push(share.order(payload.clone()));
        }
        self.link(last).put_push(last_share.order(payload));
    }

    fn link(&self, shard: ShardIndex) -> &ShardLink {
        &self.links[shard.at()]
    }
}

fn distinct<T: Ord>(named: impl ExactSizeIterator<Item = T>) -> Result<Vec<T>, DispatchError> {
    if named.len() > limits::PUSH_TARGETS_MAX {
        return Err(DispatchError::TooManyTargets);
    }
    let mut distinct: Vec<T> = named.collect();
    distinct.sort_unstable();
    distinct.dedup();
    Ok(distinct)
}

/// Groups the connections that `look_up` finds by shard, each connection once.
fn direct<T>(named: &[T], look_up: impl Fn(&T, &mut Vec<ConnWord>)) -> (Shares, Dispatched) {
    let mut conns = Vec::new();
    let mut offline = 0;
    for name in named {
        let before = conns.len();
        look_up(name, &mut conns);
        offline += u64::from(conns.len() == before);
    }
    conns.sort_unstable();
    conns.dedup();
    let shares = conns.chunk_by(|a, b| a.shard() == b.shard());
    let shares = shares.map(|conns| (conns[0].shard(), Share::Direct(conns.into()))).collect();
    (shares, Dispatched { connections: conns.len() as u64, offline })
}

#[cfg(test)]
mod tests;
