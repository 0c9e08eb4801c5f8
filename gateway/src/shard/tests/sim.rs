//! The simulation: a whole gateway on a hostile kernel, clients of all kinds, and at every step what must hold.
//!
//! Events and turns alternate; what an event is depends only on the seed and the event's number, so that others can
//! be left out. The shards, dispatch, directory and decisions are the real ones, the ring, clock and clients are not.

mod actor;
mod checks;
mod command;
mod dice;
mod echo;
mod events;
mod harm;
mod living;
mod others;
mod plan;
mod platform;
mod pushed;
mod run;
mod shadow;
mod source;
mod spells;
mod story;
mod tables;
mod upstream;

use self::command::seeds;
use self::run::{EVENTS, Script, tell};
use crate::sabotage::{Bug, plant};

/// Seeds that every test run takes.
const SEEDS: u64 = 40;

/// Clients of each transport and dialect that a standard seed has at least.
const CLIENTS: usize = 10;

#[test]
fn command() {
    command::obey();
    let mut endings = std::collections::BTreeMap::new();
    let told = seeds(0..SEEDS, &Script::Events(EVENTS), |seed, ending| drop(endings.insert(seed, ending)));
    assert!(told.is_ok(), "{told:?}");
    let endings: Vec<_> = endings.into_values().collect();
    let clients: Vec<_> = endings.iter().map(|ending| ending.clients).collect();
    assert!(clients.iter().flatten().all(|clients| *clients >= CLIENTS), "{clients:?}");
    let (table, missing) = tables::reached(&endings);
    assert!(missing.is_empty(), "no standard seed reaches {missing:?}");
    let document = tables::document("reasons.md");
    if std::env::var_os("HALLEY_WRITE_TABLES").is_some() {
        std::fs::write(&document, &table).expect("the document can be written");
    }
    assert_eq!(std::fs::read_to_string(document).expect("a document"), table, "written with HALLEY_WRITE_TABLES=1");
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_one_another() {
    let trace = |seed| tell(seed, &Script::Events(600)).expect("a clean seed").trace;
    assert_eq!(trace(3), trace(3));
    assert_ne!(trace(3), trace(4));
}

#[test]
fn hours_in_which_little_happens_are_told_in_no_time() {
    let hour = 3_600_000;
    for seed in 0..6 {
        let ending = tell(seed, &Script::Until(10 * hour)).expect("a clean seed");
        assert!((10 * hour..15 * hour).contains(&ending.simulated_ms), "a spell has at most four hours");
    }
}

#[test]
fn a_failing_seed_shrinks_to_a_short_script_that_fails_the_same_way() {
    plant(Some(Bug::MemberLeftInRoom));
    let failure = (0..9).find_map(|seed| tell(seed, &Script::Events(EVENTS)).err()).expect("it is found");
    let least = run::shrink(failure.clone());
    let again = tell(least.seed, &Script::Only(least.script.clone())).expect_err("it still fails");
    plant(None);
    assert_eq!(again.message, least.message);
    assert!(least.script.len() < failure.script.len().min(60), "{:?}", least.script);
    assert!(!least.words.is_empty());
}

#[test]
fn the_table_of_planted_bugs_has_each_of_them() {
    let table = std::fs::read_to_string(tables::document("sabotage.md")).expect("a document");
    let missing: Vec<_> =
        Bug::ALL.iter().filter(|(bug, what)| !table.contains(&format!("| {bug:?} | {what} |"))).collect();
    assert!(missing.is_empty(), "cargo xtask sim --sabotage writes it: {missing:?}");
}
