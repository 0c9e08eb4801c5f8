//! What is generated from the simulation: which seed reaches which reason, and how soon each planted bug is found.

use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::run::{EVENTS, Script, tell};
use super::story::Ending;
use crate::reason::{CloseReason, DropReason, Reject};
use crate::sabotage::{Bug, plant};
use crate::upstream::Refused;

/// Seeds within which a planted bug is found.
const SEEDS_MAX: u64 = 60;

/// Processor time within which it is found.
const FOUND_WITHIN: Duration = Duration::from_mins(1);

/// Processor time that this thread has had.
fn worked() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().expect("it does not run backwards")
}

/// Every reason there is.
fn reasons() -> Vec<String> {
    // It takes more records than most stories have: `shard/tests/tls_endings.rs` reaches it.
    // The clients of a story come without a proxy: `shard/tests/proxied.rs` reaches these.
    let others = [CloseReason::TlsWorn, CloseReason::ProxyUntrusted, CloseReason::ProxyMalformed];
    let closes = CloseReason::ALL.iter().filter(|reason| !others.contains(reason));
    let closes = closes.map(|reason| format!("close {}", reason.name()));
    let drops = DropReason::ALL.iter().map(|reason| format!("drop {}", reason.name()));
    let rejects = Reject::ALL.iter().map(|reject| format!("reject {}", reject.name()));
    let upstream = Refused::ALL.iter().map(|refused| format!("upstream {}", refused.name()));
    closes.chain(drops).chain(rejects).chain(upstream).collect()
}

/// The table of reasons, and those that no seed reached.
pub(super) fn reached(endings: &[Ending]) -> (String, Vec<String>) {
    let mut table = String::from(
        "# Reasons that the simulation reaches\n\nWritten by the simulation from its standard seeds and compared by a \
         test: `HALLEY_WRITE_TABLES=1 cargo xtask sim --tables` writes it anew.\nA reason that no standard seed reaches \
         fails the test.\n\n| reason | seeds that reach it | first |\n|---|---|---|\n",
    );
    let mut missing = Vec::new();
    for reason in reasons() {
        let seeds: Vec<_> = (0..endings.len()).filter(|seed| endings[*seed].reached.contains(&reason)).collect();
        match seeds.first() {
            Some(first) => writeln!(table, "| {reason} | {} | {first} |", seeds.len()).expect("a string"),
            None => missing.push(reason),
        }
    }
    (table, missing)
}

/// A generated document's place.
pub(super) fn document(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/testing").join(name)
}

/// Plants every bug in turn and says how soon it is found; whether all were.
pub(super) fn sabotage() -> bool {
    let mut table = String::from(
        "# Planted bugs\n\nWritten by `cargo xtask sim --sabotage`: each bug of `gateway/src/sabotage.rs` is planted \
         alone, and the standard\nseeds are told until one fails. Events are those of the seed that fails; seconds are \
         processor time of one\nthread until then.",
    );
    write!(table, " One that takes more than {} of them counts as not found.\n\n", FOUND_WITHIN.as_secs())
        .expect("a string");
    table.push_str("| bug | what is wrong | seeds | events | seconds | what noticed |\n|---|---|---|---|---|---|\n");
    let mut missed = Vec::new();
    for (bug, what) in Bug::ALL {
        let began = worked();
        plant(Some(*bug));
        let found = (0..SEEDS_MAX).find_map(|seed| tell(seed, &Script::Events(EVENTS)).err());
        plant(None);
        let took = worked().saturating_sub(began);
        let within = found.filter(|_| took <= FOUND_WITHIN);
        let took = took.as_secs_f32();
        if let Some(failure) = within {
            let (seeds, events) = (failure.seed + 1, failure.script.len());
            let noticed = failure.message.lines().skip(1).collect::<Vec<_>>().join(" ");
            let noticed: String = noticed.replace('|', "/").chars().take(90).collect();
            println!("{bug:?}: found by seed {} after {events} events, {took:.1} s", failure.seed);
            writeln!(table, "| {bug:?} | {what} | {seeds} | {events} | {took:.1} | {} |", noticed.trim())
                .expect("a string");
        } else {
            println!("{bug:?}: NOT FOUND in {SEEDS_MAX} seeds, {took:.1} s");
            missed.push(*bug);
        }
    }
    std::fs::write(document("sabotage.md"), table).expect("the document can be written");
    println!("{} of {} planted bugs found", Bug::ALL.len() - missed.len(), Bug::ALL.len());
    println!("trace {:016x}", missed.len());
    missed.is_empty()
}
