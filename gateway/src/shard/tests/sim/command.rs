//! The simulation as a command: `cargo xtask sim`, whose words come in the environment.

use std::collections::BTreeSet;
use std::hash::Hasher;
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
    let passed = match words[..] {
        ["--sabotage"] => tables::sabotage(),
        ["--seeds", seeds] => many(number(seeds)),
        ["--seed", seed] => one(number(seed), &Script::Events(EVENTS)),
        ["--seed", seed, "--events", events] => one(number(seed), &Script::Events(number(events))),
        ["--seed", seed, "--seconds", seconds] => one(number(seed), &Script::Until(number(seconds) * 1000)),
        ["--seed", seed, "--only", list] => {
            let numbers = list.split(',').filter(|number| !number.is_empty()).map(number).collect();
            one(number(seed), &Script::Only(numbers))
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
            let Ending { trace, simulated_ms, clients, reached } = ending;
            println!(
                "seed {seed}: {} simulated seconds, up to {} TCP and {} WebSocket clients, and {} and {} of goim v1",
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

/// What is known after many seeds.
pub(super) struct Sum {
    /// By seed.
    pub(super) endings: Vec<Ending>,
    pub(super) failure: Option<Failure>,
}

/// Tells the standard stories of the first seeds, on all processors; the first failure ends it.
pub(super) fn seeds(count: u64) -> Sum {
    let next = AtomicU64::new(0);
    let told = Mutex::new((Vec::new(), None::<Failure>));
    let tellers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..tellers {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= count {
                        return;
                    }
                    let ending = tell(seed, &Script::Events(EVENTS));
                    let mut told = told.lock().expect("no teller panics");
                    match ending {
                        Ok(ending) => told.0.push((seed, ending)),
                        Err(failure) => {
                            next.store(count, Ordering::Relaxed);
                            told.1.get_or_insert(failure);
                        }
                    }
                }
            });
        }
    });
    let (mut endings, failure) = told.into_inner().expect("no teller panics");
    endings.sort_by_key(|(seed, _)| *seed);
    Sum { endings: endings.into_iter().map(|(_, ending)| ending).collect(), failure }
}

fn many(count: u64) -> bool {
    let began = Instant::now();
    let Sum { endings, failure } = seeds(count);
    if let Some(failure) = failure {
        report(failure);
        return false;
    }
    let hours = endings.iter().map(|ending| ending.simulated_ms).sum::<u64>() / 3_600_000;
    let reached: BTreeSet<_> = endings.iter().flat_map(|ending| ending.reached.iter().cloned()).collect();
    println!("{count} seeds, {hours} simulated hours, {} events, {:?}", count * EVENTS, began.elapsed());
    println!("reached: {}", reached.into_iter().collect::<Vec<_>>().join(", "));
    let mut trace = Trace::new();
    for ending in &endings {
        trace.write_u64(ending.trace);
    }
    println!("trace {:016x}", trace.finish());
    true
}

/// Says what failed, what led to it, and the shortest script found that fails the same way.
fn report(failure: Failure) {
    println!("seed {} fails: {}", failure.seed, failure.message);
    println!("\nthe last events:\n{}", failure.words.join("\n"));
    let events = failure.script.len();
    let least = shrink(failure);
    println!("\n{events} events shrunk to {}: {}", least.script.len(), least.message);
    println!("{}", least.words.join("\n"));
    let numbers: Vec<_> = least.script.iter().map(ToString::to_string).collect();
    println!("\ncargo xtask sim --seed {} --only {}", least.seed, numbers.join(","));
}
