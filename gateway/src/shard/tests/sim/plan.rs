//! What the gateway of a seed is like: shards, limits, policies and the weather.

use halley_ring::sim::Weather;

use super::dice::Dice;
use crate::control::decide::{KeyPolicy, LoginRule};
use crate::shard::tests::tls::steady_server;
use crate::shard::tests::world::Setup;
use crate::shard::{AcceptRate, ClientRates, Dialect, ListenerSettings, Rate, SlowPolicy, Transport};

/// Listeners of both transports: generous ones, then tight ones, and the same of goim v1; then one that lets nobody in,
/// and two with TLS.
pub(super) const LISTENERS: [(Transport, Dialect); 11] = [
    (Transport::Tcp, Dialect::GoimV2),
    (Transport::WebSocket, Dialect::GoimV2),
    (Transport::Tcp, Dialect::GoimV2),
    (Transport::WebSocket, Dialect::GoimV2),
    (Transport::Tcp, Dialect::GoimV1),
    (Transport::WebSocket, Dialect::GoimV1),
    (Transport::Tcp, Dialect::GoimV1),
    (Transport::WebSocket, Dialect::GoimV1),
    (Transport::Tcp, Dialect::GoimV2),
    (Transport::Tcp, Dialect::GoimV2),
    (Transport::WebSocket, Dialect::GoimV2),
];

/// The listener that refuses every login.
pub(super) const REFUSING: usize = 8;

/// The listeners with TLS. Keys, signatures and nonces are random beyond any seed, but what happens depends on their
/// lengths alone, and these are the same each time.
pub(super) const SEALED: std::ops::Range<usize> = 9..11;

/// Whether a listener's outboxes hold all that can come between two rests.
pub(super) const fn is_generous(listener: usize) -> bool {
    matches!(listener, 0 | 1 | 4 | 5 | 9)
}

/// The listeners that agree to compression, in stories that have any.
pub(super) const COMPRESSING: [usize; 2] = [1, 3];

/// Whether there is compression in the story of a seed.
pub(super) fn compresses(seed: u64) -> bool {
    !seed.is_multiple_of(3)
}

/// The listeners that ask for tokens, or the platform, in stories that have any.
pub(super) const BY_TOKEN: std::ops::Range<usize> = 1..4;

/// How long a closing connection may take; short, so that a rest sees the end of it.
pub(super) const LINGER_MS_MAX: u32 = 100;

/// The only origin that the tight WebSocket listener takes.
pub(super) const ORIGIN: &str = "https://good.example";

/// What a seed's gateway is like beside its setup.
pub(super) struct Plan {
    pub(super) setup: Setup,
    /// Nobody is ever closed, so that what was sent is what was received.
    pub(super) calm: bool,
    pub(super) weather: Weather,
    /// Buffers for questions, of each shard.
    pub(super) asks: usize,
    /// Names of rooms that clients and pushes choose from.
    pub(super) rooms: usize,
    /// Some listeners ask for tokens.
    pub(super) tokens: bool,
    /// The same listeners ask the platform instead, and so do all about rooms.
    pub(super) hooks: bool,
}

impl Plan {
    // long: what a gateway is like, one thing after another
    pub(super) fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed, u64::MAX);
        let dice = &mut dice;
        let calm = dice.once_in(3);
        let mut setup = Setup::new().shards(dice.pick(&[1, 2, 2, 3]));
        setup.seed = seed;
        setup.pushes_max = dice.pick(&[4, 64, 3000]);
        setup.control_max = dice.pick(&[2, 16, 1024]);
        setup.reports_max = dice.pick(&[2, 16, 2048]);
        let rule = |dialect| if dialect == Dialect::GoimV1 { LoginRule::OpenV1 } else { LoginRule::Open };
        setup.policy.listeners = LISTENERS.iter().map(|(_, dialect)| rule(*dialect)).collect();
        setup.policy.listeners[REFUSING] = LoginRule::Refuse;
        let tokens = !calm && seed.is_multiple_of(2);
        if tokens {
            setup.policy.listeners[BY_TOKEN].fill(LoginRule::Jwt);
        }
        let hooks = !calm && seed % 4 == 1;
        if hooks {
            setup.policy.listeners[BY_TOKEN].fill(LoginRule::Hook);
            (setup.policy.hooks.join, setup.policy.hooks.gone) = (true, true);
        }
        setup.policy.key_connections_max = dice.pick(&[1, 1, 2, 3]);
        setup.policy.key_policy = dice.pick(&[KeyPolicy::Replace, KeyPolicy::Replace, KeyPolicy::Refuse]);
        let policies = [SlowPolicy::DropNewest, SlowPolicy::DropOldest, SlowPolicy::Close];
        setup.listeners =
            LISTENERS.map(|(transport, dialect)| ListenerSettings::new(transport).speaking(dialect)).into();
        for (at, listener) in setup.listeners.iter_mut().enumerate() {
            listener.outbox_bytes_max =
                if is_generous(at) { 8 << 20 } else { 300 + u32::try_from(dice.below(1500)).expect("small") };
            listener.slow_policy = if calm { policies[dice.below(2)] } else { dice.pick(&policies) };
            let never = u32::MAX / 2;
            (listener.login_ms_max, listener.stall_ms_max, listener.heartbeat_ms_max) =
                if calm || is_generous(at) { (never, never, never) } else { (2000, 600, 2000) };
            listener.linger_ms_max = LINGER_MS_MAX;
            listener.tls = SEALED.contains(&at).then(steady_server);
        }
        if compresses(seed) {
            setup.compression = if seed.is_multiple_of(4) { (1, 200) } else { (6, 20) };
            COMPRESSING.into_iter().for_each(|at| setup.listeners[at].compression = true);
        }
        setup.listeners[3].origins = vec![ORIGIN.into()];
        let shard = &mut setup.shard;
        shard.connections_max = dice.pick(&[10, 24, 80]);
        shard.accepts_armed_max = dice.pick(&[1, 2, 5]);
        shard.accept_rate = AcceptRate { per_1000_s: dice.pick(&[0, 0, 0, 20_000]), burst: dice.pick(&[2, 12]) };
        shard.sends_per_turn_max = dice.pick(&[3, 20, 4096]);
        shard.run_messages_max = dice.pick(&[1, 4, 256]);
        shard.run_bytes_max = dice.pick(&[100, 1000, 16384]);
        if !calm {
            shard.outbox_entries_max = dice.pick(&[16, 4096]);
            shard.pinned_bytes_max = dice.pick(&[4000, 4 << 20, 4 << 20]);
            shard.partials_max = dice.pick(&[2, 32]);
            shard.room_pending_bytes_max = dice.pick(&[600, 4 << 20, 4 << 20]);
        }
        let more = &mut Dice::new(seed, u64::MAX - 3);
        if !calm {
            setup.policy.room_members_max = more.pick(&[0, 7]);
            if more.once_in(5) {
                // Twelve of sixteen clients in a row are of one network.
                setup = setup.networks(11);
            }
            let none = Rate::default();
            let packets = more.pick(&[none, none, Rate { per_second: 20, burst: 250 }]);
            let bytes = more.pick(&[none, none, Rate { per_second: 2000, burst: 12_000 }]);
            for (_, listener) in setup.listeners.iter_mut().enumerate().filter(|(at, _)| !is_generous(*at)) {
                listener.client_rates = ClientRates { packets, bytes };
            }
        }
        Self {
            calm,
            weather: weather(dice, calm),
            asks: dice.pick(&[2, 8, crate::limits::ASKS_MAX]),
            rooms: dice.pick(&[6, 6, 30]),
            tokens,
            hooks,
            setup,
        }
    }
}

impl Plan {
    /// Deadlines as long as they are outside, for a story of hours: who keeps to them stays.
    pub(super) fn lengthen(&mut self, seed: u64) {
        let dice = &mut Dice::new(seed, u64::MAX - 2);
        for listener in &mut self.setup.listeners {
            let minutes = dice.pick(&[1, 8, 8]) * 60_000;
            if listener.heartbeat_ms_max > 1 << 30 {
                listener.heartbeat_ms_max = 8 * 60_000;
            } else if dice.once_in(2) {
                let stall_ms_max = dice.pick(&[600, 15_000]);
                (listener.login_ms_max, listener.stall_ms_max, listener.heartbeat_ms_max) =
                    (5000, stall_ms_max, minutes);
            }
        }
    }
}

pub(super) fn weather(dice: &mut Dice, calm: bool) -> Weather {
    let mut chance = |most: usize| u8::try_from(if dice.once_in(2) { 0 } else { dice.below(most) }).expect("small");
    Weather {
        short_send: chance(128),
        blocked_send: chance(128),
        short_recv: chance(200),
        late: chance(128),
        failed_accept: chance(60),
        failed_poll: chance(60),
        broken: if calm { 0 } else { chance(2) },
    }
}
