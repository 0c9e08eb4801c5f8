//! Bugs planted on purpose, each one line at its place, so that the simulation shows that it sees.
//!
//! They are in no program: outside this crate's own tests [`planted`] is the constant `false`.

macro_rules! bugs {
    ($($bug:ident: $what:literal,)*) => {
        /// A bug that can be planted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Bug {
            $(#[doc = $what] $bug,)*
        }

        #[cfg(test)]
        impl Bug {
            /// Every bug, with what it is.
            pub(crate) const ALL: &[(Self, &str)] = &[$((Self::$bug, $what),)*];
        }
    };
}

bugs! {
    AcceptsIgnored: "pushes to all reach connections that do not accept the operation",
    AnswerForgotten: "a question's buffer is not given back when its connection is closing",
    AnswerHoldsSlot: "a connection's slot is held for messages that have their answers",
    CompletionLeft: "the last completion of a batch is left in the queue",
    ConnectionGenerationIgnored: "a direct push reaches whoever has the slot now",
    CreditLost: "the place taken for a push that was refused elsewhere is not given back",
    DebtUnsaid: "a shard that owes reports does not say so, and turns while control rests",
    DebtorSleeps: "control makes room for reports and does not ring the shard that owes some",
    DepartureTakesNewer: "a departure takes the key's newest connection out of the directory",
    DrainSpins: "a shard that drains never sleeps",
    DropUncounted: "a push that a slow client misses is not counted",
    EarlyPush: "pushes do not wait for the reply to the login",
    ElsewhereUnheard: "what other nodes say of a room's members does not come to the shards",
    EvictedAtOnce: "a drain tells everybody at once, whatever its window",
    ExpiryIgnored: "a connection outlives its token",
    GrantUnchecked: "a room may be joined that the token does not allow",
    GrantedRoomUncounted: "a join on its way is not counted, so that its room is freed too early",
    HalfDispatch: "a push goes to the shards that have a place, and the others miss it",
    HalfReload: "a reload brings a shard its listeners' settings and not its own limits",
    HeartbeatLate: "a deadline is kept one tick too long",
    HookIgnored: "who is refused by the platform is let in",
    LeaverSkipsMember: "somebody who leaves during a pass makes another member miss it",
    LostWakeUp: "a push is put without waking the shard",
    MemberLeftInRoom: "a connection that ends stays in its rooms",
    NetworkKept: "a connection that ends still counts in its network",
    NotifyForgotten: "reports are put without waking control",
    OutboxOvertaken: "a push is sent past what waits in the connection's outbox",
    PacketsLeft: "packets already received wait until more bytes come",
    PartialForgotten: "what was received of an unfinished packet is thrown away",
    ParkWithoutLook: "a shard falls asleep without looking at its queues once more",
    RateIgnored: "connections are accepted beyond the rate",
    RecordServedAlone: "the data of each TLS record is served by itself and has its replies in a send of its own",
    ReplacedStays: "the older connection of a replaced key is not closed",
    ReportLost: "a departure that finds the report queue full is not reported",
    RoomGenerationIgnored: "a push for a room that is gone reaches the room that has its index now",
    RoomIndexReused: "a room's index is used again under the same generation",
    RoomOverfull: "a full room takes further members",
    RunFreedEarly: "a run is freed while the batch that sends it is being built",
    SecondPollLeft: "a poll for writing is not cancelled with the close",
    SentTooMuch: "what the kernel did not take stays counted as sent",
    SlotFreedTwice: "a slot is given to the free list twice",
    StallUnnoticed: "a client that stalls is not watched from when it blocked",
    TornFrame: "the rest of a short send begins at the wrong byte",
    V1BlockKept: "what goim v1's clients get of a run is not given back with the run",
    V1ReadsV2: "clients of goim v1 get what those of goim v2 get",
}

#[cfg(test)]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Plants a bug in what this thread does from now on, or none.
#[cfg(test)]
pub(crate) fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

/// Whether the bug is planted.
#[cfg(test)]
pub(crate) fn planted(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Never, outside tests.
#[cfg(not(test))]
pub(crate) const fn planted(_: Bug) -> bool {
    false
}
