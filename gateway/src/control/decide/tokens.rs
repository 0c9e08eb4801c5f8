//! The decisions on tokens: at a login, when one is renewed, when its time has come, when it is revoked.

use halley_protocol::login::Login;
use halley_protocol::operation;

use super::{Control, LoginRule, OrderSink, Refusal, Revoked, TooManyRevocations};
use crate::directory::Key;
use crate::identity::{Claims, Expected, Rules, TokenReject, matches};
use crate::ids::ConnWord;
use crate::order::{Ask, Order, Verdict};
use crate::reason::CloseReason;
use crate::sabotage::{Bug, planted};

/// Grants that one call ends.
const ENDINGS_MAX: usize = 1024;

/// Checks a token's signature, and says what it claims.
type Verify = Box<dyn Fn(&str) -> Result<Claims, TokenReject> + Send>;

/// Whose tokens are good.
pub struct Tokens {
    verify: Verify,
    expected: Expected,
    /// Signatures checked so far.
    verified: u64,
}

impl Tokens {
    /// Those that `verify` says are signed, and that claim what is expected.
    pub fn new(expected: Expected, verify: impl Fn(&str) -> Result<Claims, TokenReject> + Send + 'static) -> Self {
        Self { verify: Box::new(verify), expected, verified: 0 }
    }

    /// Nobody's.
    pub(super) fn none() -> Self {
        Self::new(Expected::default(), |_| Err(TokenReject::UnknownKey))
    }
}

/// What a token gives to a login.
pub(super) struct Given {
    pub(super) rules: Rules,
    pub(super) token_id: Option<String>,
    pub(super) ends_s: u64,
}

impl Control {
    /// Lets in who has one of these tokens, on listeners that ask for one. Who is in by others stays.
    pub fn set_tokens(&mut self, tokens: Tokens) {
        self.tokens = Tokens { verified: self.tokens.verified, ..tokens };
    }

    /// The time from here on, in seconds since 1970.
    pub fn set_now(&mut self, now_s: u64) {
        self.now_s = now_s;
    }

    /// Signatures checked so far: each takes a while.
    pub fn verified(&self) -> u64 {
        self.tokens.verified
    }

    /// Connections that came with a token.
    pub fn standings(&self) -> usize {
        self.standings.count()
    }

    /// Whether grants have ended, so that [`Self::expire`] has something to do.
    pub fn is_due(&self) -> bool {
        self.standings.is_due(self.now_s)
    }

    /// Ends connections whose grant has ended, a bounded number of them; whether there are more.
    pub fn expire(&mut self, orders: &mut impl OrderSink) -> bool {
        let (due, more) = self.standings.due(self.now_s, ENDINGS_MAX);
        for conn in due {
            orders.put(conn.shard(), Order::Close { conn, reason: CloseReason::GrantExpired });
        }
        more
    }

    /// Ends the connections concerned, and refuses their tokens until then; how many they were.
    pub fn revoke(
        &mut self,
        what: &Revoked,
        until_s: u64,
        orders: &mut impl OrderSink,
    ) -> Result<usize, TooManyRevocations> {
        self.revocations.put(what.clone(), self.now_s, until_s)?;
        let mut conns = Vec::new();
        match what {
            Revoked::Key(key) => self.directory().add_key_connections(key, &mut conns),
            Revoked::Member(member) => self.directory().add_member_connections(*member, &mut conns),
            Revoked::Token(id) => conns = self.standings.of_token(id),
        }
        for conn in &conns {
            orders.put(conn.shard(), Order::Close { conn: *conn, reason: CloseReason::GrantRevoked });
        }
        Ok(conns.len())
    }

    /// Who a login is by its token; its member and key become those of the token.
    pub(super) fn identify(&mut self, login: &mut Login) -> Result<Given, Refusal> {
        if login.token.is_empty() {
            return Err(TokenReject::Missing.into());
        }
        let (claims, ends_s) = self.verify(&login.token)?;
        let member = claims.mid.unwrap_or(0);
        if login.mid != 0 && login.mid != member {
            return Err(Refusal::MemberNotGranted);
        }
        login.mid = member;
        login.key = key(&login.key, claims.key.as_deref()).ok_or(Refusal::KeyNotGranted)?;
        self.revocations.check(&claims, &login.key, member, self.now_s)?;
        let rules = Rules::new(&claims);
        if !login.room_id.is_empty() && !rules.allow_room(&login.room_id) {
            return Err(Refusal::RoomNotGranted);
        }
        if !login.accepts.iter().all(|operation| rules.allow_operation(*operation)) {
            return Err(Refusal::OperationNotGranted);
        }
        Ok(Given { rules, token_id: claims.jti, ends_s })
    }

    /// A connection that is let in has what its token gives.
    pub(super) fn stand(&mut self, conn: ConnWord, given: Given) {
        self.standings.put(conn, given.rules, given.token_id.as_deref(), given.ends_s);
    }

    /// A new token for a connection that came with one: of the same member, and allowing the same key.
    pub(super) fn refresh(&mut self, conn: ConnWord, ask: &Ask) -> Result<Verdict, Refusal> {
        // Whom the platform let in came without a token.
        let by_hook = self.policy.listeners.get(usize::from(ask.listener)) == Some(&LoginRule::Hook);
        self.standings.rules(conn).filter(|_| !by_hook).ok_or(TokenReject::Missing)?;
        let token = std::str::from_utf8(ask.body()).map_err(|_| TokenReject::Malformed)?;
        let (claims, ends_s) = self.verify(token)?;
        // Who is not there any more is about to be told so.
        let (member, key) = self.directory().connection(ask.ticket, conn).ok_or(TokenReject::Revoked)?;
        if claims.mid.unwrap_or(0) != member {
            return Err(Refusal::MemberNotGranted);
        }
        let text = key.to_string();
        let same = claims.key.as_ref().map_or(matches!(key, Key::Uuid(_)), |pattern| matches(pattern, &text));
        if !same {
            return Err(Refusal::KeyNotGranted);
        }
        self.revocations.check(&claims, &text, member, self.now_s)?;
        let given = Given { rules: Rules::new(&claims), token_id: claims.jti, ends_s };
        let (limited, rate) = (!given.rules.allow_all_operations(), given.rules.rate());
        self.stand(conn, given);
        Ok(Verdict::Refreshed { seconds: self.seconds_left(conn), limited, rate })
    }

    /// Until a connection's grant ends; 0 if it has none.
    pub(super) fn seconds_left(&self, conn: ConnWord) -> u32 {
        let ends_s = self.standings.ends_s(conn).map_or(0, u64::from);
        u32::try_from(ends_s.saturating_sub(self.now_s)).unwrap_or(u32::MAX)
    }

    /// A subscription of a connection whose token does not allow every operation. What is no list changes nothing.
    pub(super) fn subscribe(&self, conn: ConnWord, body: &[u8]) -> Result<Verdict, Refusal> {
        let Some(rules) = self.standings.rules(conn) else { return Ok(Verdict::Accept) };
        let mut granted = true;
        operation::parse_operations(body, |operation| granted &= rules.allow_operation(operation));
        if granted { Ok(Verdict::Accept) } else { Err(Refusal::OperationNotGranted) }
    }

    /// Whether a connection's token, if it came with one, allows the room.
    pub(super) fn check_room(&self, conn: ConnWord, name: &str) -> Result<(), Refusal> {
        let granted = self.standings.rules(conn).is_none_or(|rules| rules.allow_room(name));
        if granted || planted(Bug::GrantUnchecked) { Ok(()) } else { Err(Refusal::RoomNotGranted) }
    }

    fn verify(&mut self, token: &str) -> Result<(Claims, u64), TokenReject> {
        self.tokens.verified += 1;
        let claims = (self.tokens.verify)(token)?;
        let ends_s = claims.check(&self.tokens.expected, self.now_s)?;
        Ok((claims, ends_s))
    }
}

/// The key of a login whose token allows this; empty: one is made up.
fn key(asked: &str, allowed: Option<&str>) -> Option<String> {
    match allowed {
        None => asked.is_empty().then(String::new),
        Some(exact) if asked.is_empty() => (!exact.contains('*')).then(|| exact.to_owned()),
        Some(pattern) => matches(pattern, asked).then(|| asked.to_owned()),
    }
}
