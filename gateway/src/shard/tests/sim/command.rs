//! The simulation as a command: `cargo xtask sim`, whose words come in the environment.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hasher;
use std::ops::Range;
use std::process::exit;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::dice::Trace;
use super::run::{EVENTS, Failure, Script, shrink, tell};
use super::story::Ending;
use super::tables;

/// Where the words are.
const WORDS: &str = "HALLEY_SIM";

/// Does what the words say and ends the process; returns if there are none.
pub(super) fn obey() {
    let Ok(words) = std::env::var(WORDS) else { return };
    let words: Vec<&str> = words.split_whitespace().collect();
    let number = |text: &str| -> u64 { text.parse().unwrap_or_else(|_| refuse(&words)) };
    let range = |text: &str| match text.split_once("..") {
        Some((from, to)) => number(from)..number(to),
        None => 0..number(text),
    };
    let passed = match words[..] {
        ["--sabotage"] => tables::sabotage(),
        ["--seeds", seeds] => many(range(seeds), &Script::Events(EVENTS)),
        ["--seeds", seeds, "--seconds", seconds] => many(range(seeds), &Script::Until(number(seconds) * 1000)),
        ["--seed", seed] => one(number(seed), &Script::Events(EVENTS)),
        ["--seed", seed, "--events", events] => one(number(seed), &Script::Events(number(events))),
        ["--seed", seed, "--seconds", seconds] => one(number(seed), &Script::Until(number(seconds) * 1000)),
        ["--seed", seed, "--only", list] => one(number(seed), &Script::Only(list.split(',').map(number).collect())),
        ["--seed", seed, "--only-long", list] => {
            one(number(seed), &Script::OnlyLong(list.split(',').map(number).collect()))
        }
        _ => refuse(&words),
    };
    exit(i32::from(!passed));
}

fn refuse(words: &[&str]) -> ! {
    eprintln!("{WORDS} says {words:?}, which is not understood");
    exit(2)
}

fn one(seed: u64, script: &Script) -> bool {
    match tell(seed, script) {
        Ok(ending) => {
            let Ending { trace, events, simulated_ms, clients, reached } = ending;
            println!(
                "seed {seed}: {events} events in {} simulated seconds, up to {} TCP and {} WebSocket clients, and {} and {} of goim v1",
                simulated_ms / 1000,
                clients[0],
                clients[1],
                clients[2],
                clients[3]
            );
            println!("reached: {}", reached.into_iter().collect::<Vec<_>>().join(", "));
            println!("trace {trace:016x}");
            true
        }
        Err(failure) => {
            report(failure);
            false
        }
    }
}

/// Seeds between two words about how far it has come.
const TELL_EVERY: u64 = 1000;

/// Tells the stories of these seeds on all processors, and hands over their endings in any order; the first failure
/// ends it.
pub(super) fn seeds(
    range: Range<u64>,
    script: &Script,
    ending: impl FnMut(u64, Ending) + Send,
) -> Result<(), Box<Failure>> {
    let next = AtomicU64::new(range.start);
    let told = Mutex::new((ending, Ok(())));
    let tellers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..tellers {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= range.end {
                        return;
                    }
                    let ending = tell(seed, script);
                    let mut told = told.lock().expect("no teller panics");
                    match ending {
                        Ok(ending) => told.0(seed, ending),
                        Err(failure) => {
                            next.store(range.end, Ordering::Relaxed);
                            told.1 = std::mem::replace(&mut told.1, Ok(())).and(Err(Box::new(failure)));
                        }
                    }
                }
            });
        }
    });
    told.into_inner().expect("no teller panics").1
}

fn many(range: Range<u64>, script: &Script) -> bool {
    let began = Instant::now();
    let (mut simulated_ms, mut events, mut reached) = (0, 0, BTreeSet::new());
    let mut traces = BTreeMap::new();
    let told = seeds(range, script, |seed, ending| {
        simulated_ms += ending.simulated_ms;
        events += ending.events;
        reached.extend(ending.reached);
        traces.insert(seed, ending.trace);
        let done = traces.len() as u64;
        if done.is_multiple_of(TELL_EVERY) {
            eprintln!("{done} seeds, {} simulated hours, {:?}", simulated_ms / 3_600_000, began.elapsed());
        }
    });
    if let Err(failure) = told {
        report(*failure);
        return false;
    }
    let (seeds, hours) = (traces.len(), simulated_ms / 3_600_000);
    println!("{seeds} seeds, {hours} simulated hours, {events} events, {:?}", began.elapsed());
    println!("reached: {}", reached.into_iter().collect::<Vec<_>>().join(", "));
    let mut trace = Trace::new();
    traces.values().for_each(|seed| trace.write_u64(*seed));
    println!("trace {:016x}", trace.finish());
    true
}

/// Says what failed, what led to it, and the shortest script found that fails the same way.
fn report(failure: Failure) {
    println!("seed {} fails: {}", failure.seed, failure.message);
    println!("\nthe last events:\n{}", failure.words.join("\n"));
    let (events, trace) = (failure.script.len(), failure.trace);
    let least = shrink(failure);
    println!("\n{events} events shrunk to {}: {}", least.script.len(), least.message);
    println!("{}", least.words.join("\n"));
    let numbers: Vec<_> = least.script.iter().map(ToString::to_string).collect();
    let only = match (numbers.is_empty(), least.long) {
        (true, _) => "--events 0".to_owned(),
        (false, false) => format!("--only {}", numbers.join(",")),
        (false, true) => format!("--only-long {}", numbers.join(",")),
    };
    println!("\ncargo xtask sim --seed {} {only}", least.seed);
    println!("trace {trace:016x}");
}
