//! The decision on a login.

use std::net::SocketAddr;

use arrayvec::ArrayVec;
use halley_protocol::login::Login;
use halley_protocol::v1;

use super::hooks::Step;
use super::rooms::check_name;
use super::stays::Stay;
use super::tokens::Given;
use super::{Control, Decision, Event, KeyPolicy, LoginRule, OrderSink, Refusal};
use crate::directory::Key;
use crate::ids::{ConnWord, RoomRef, ShardIndex};
use crate::limits;
use crate::order::{Ask, Grant, Order, Verdict};
use crate::reason::CloseReason;
use crate::sabotage::{Bug, planted};

impl Control {
    /// Admits, refuses, or asks the platform.
    pub(super) fn login(
        &mut self,
        conn: ConnWord,
        ask: &Ask,
        orders: &mut impl OrderSink,
    ) -> Result<Decision, Refusal> {
        if ask.ticket != 0 {
            return Err(Refusal::LoginTwice);
        }
        let rule = self.policy.listeners.get(usize::from(ask.listener)).copied().unwrap_or(LoginRule::Refuse);
        let mut login = match rule {
            LoginRule::Open | LoginRule::Jwt | LoginRule::Hook => Login::parse(ask.body())?,
            LoginRule::OpenV1 => self.login_v1(ask.body())?,
            LoginRule::Refuse => return Err(Refusal::LoginsClosed),
        };
        let given = if rule == LoginRule::Jwt { Some(self.identify(&mut login)?) } else { None };
        check(&mut login)?;
        if rule == LoginRule::Hook {
            return self.ask_hook(conn, ask, Step::Login(login));
        }
        if self.policy.hooks.join && !login.room_id.is_empty() {
            return self.ask_hook(conn, ask, Step::Room(login, given));
        }
        self.admit(conn, ask.peer, login, given, orders)
    }

    /// Lets a login in, or refuses it. Nothing is changed and no order put before it is sure to stand; then: the room is
    /// marked, the grant ordered, the directory written, so that whoever finds the connection there may push to it.
    pub(super) fn admit(
        &mut self,
        conn: ConnWord,
        peer: SocketAddr,
        mut login: Login,
        given: Option<Given>,
        orders: &mut impl OrderSink,
    ) -> Result<Decision, Refusal> {
        check(&mut login)?;
        let key = self.key(&login.key)?;
        let accepts = ArrayVec::try_from(login.accepts.as_slice()).map_err(|_| Refusal::AcceptsTooMany)?;
        let room = self.login_room(conn.shard(), &login.room_id)?;

        let ticket = self.writer.ticket(&key);
        let limited = given.as_ref().is_some_and(|given| !given.rules.allow_all_operations());
        let rate = given.as_ref().map_or(0, |given| given.rules.rate());
        let grant = Grant { ticket, room, accepts, marked: login.halley, limited, rate };
        orders.put(conn.shard(), Order::Grant { conn, grant: Box::new(grant) });
        let (_, replaced) = self.writer.insert(conn, key.clone(), login.mid, self.policy.key_connections_max);
        self.writer.address_came(peer.ip());
        if let Some(given) = given {
            self.stand(conn, given);
        }
        if self.policy.hooks.gone {
            let room = room.and_then(|room| self.room_of(conn.shard(), room));
            self.stays.begin(conn, Stay::new(login.mid, key.clone(), self.now_s, room));
        }
        for old in replaced.iter().filter(|_| !planted(Bug::ReplacedStays)) {
            orders.put(old.shard(), Order::Close { conn: *old, reason: CloseReason::Replaced });
        }
        let event = Event::Admitted { conn, peer, member: login.mid, key, replaced: replaced.len() };
        Ok((Verdict::Admit, Some(event)))
    }

    /// What a token of goim v1 stands for by the rule of its own auther. The key is as v1's router makes it, `user_number`;
    /// its number is new in this process, whoever the user is, so that no connection takes another's place.
    fn login_v1(&mut self, token: &[u8]) -> Result<Login, Refusal> {
        /// Numbers tried: clients of goim v2, who choose their keys, may have taken some.
        const TRIES: usize = 64;
        let user = v1::user(token);
        let mid = user.unwrap_or(0);
        for _ in 0..TRIES {
            self.v1_sequence = self.v1_sequence.wrapping_add(1);
            let key = format!("{mid}_{}", self.v1_sequence);
            if self.directory().key_connections(&key).is_empty() {
                let room_id = user.map_or("", |_| v1::ROOM).into();
                return Ok(Login { mid, key, room_id, ..Login::default() });
            }
        }
        Err(Refusal::KeyInUse)
    }

    /// The login's key, or a new one. Under [`KeyPolicy::Replace`] a key in use is free to take.
    fn key(&mut self, text: &str) -> Result<Key, Refusal> {
        if text.is_empty() {
            return Ok(Key::generated((self.random)()));
        }
        let in_use = || self.directory().key_connections(text).len() >= self.policy.key_connections_max;
        match self.policy.key_policy {
            KeyPolicy::Refuse | KeyPolicy::Share if in_use() => Err(Refusal::KeyInUse),
            KeyPolicy::Replace | KeyPolicy::Refuse | KeyPolicy::Share => Ok(Key::new(text)),
        }
    }

    fn login_room(&mut self, shard: ShardIndex, name: &str) -> Result<Option<RoomRef>, Refusal> {
        if name.is_empty() {
            return Ok(None);
        }
        if self.is_full(name) {
            return Err(Refusal::RoomFull);
        }
        Ok(Some(self.order_join(shard, name)?.room))
    }
}

/// The limits of a login; its accepted operations come out sorted, each once.
fn check(login: &mut Login) -> Result<(), Refusal> {
    if login.key.len() > limits::KEY_BYTES_MAX {
        return Err(Refusal::KeyTooLong);
    }
    if !login.room_id.is_empty() {
        check_name(&login.room_id)?;
    }
    login.accepts.sort_unstable();
    login.accepts.dedup();
    if login.accepts.len() > limits::ACCEPTS_MAX {
        return Err(Refusal::AcceptsTooMany);
    }
    Ok(())
}
