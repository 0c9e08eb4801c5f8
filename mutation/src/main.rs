//! Mutation testing: changes one place at a time and asks the simulation, then the tests, whether they notice.
//!
//! `cargo xtask mutants` calls it. All changes live in one program, woven into a copy of the checkout; a number in the
//! environment chooses one. That makes thousands of them cheap: nothing is built again.

mod find;
mod judge;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use self::judge::Verdict;
use self::tree::{Source, Tree};

const USAGE: &str = "\
Usage: cargo xtask mutants [--seeds N] [--sample N,SEED] [--part K/N] [--only NUMBER,…] [--list] [PATH]...
  --seeds N    standard seeds that have to notice a change (300)
  --sample     so many changes, chosen by this seed: in the order they are drawn, so that a run may be cut short
  --part K/N   only every N-th change, beginning with the K-th: 0/N to N-1/N are all of them
  --only       these changes
  --list       what would be changed
  PATH         files or folders, from the root; shard, directory, dispatch and link of the gateway if none is named
Exit 1 if something was missed by the simulation and by the tests.";

/// What is changed unless something else is named.
const UNDER: [&str; 4] =
    ["gateway/src/shard/", "gateway/src/directory/", "gateway/src/dispatch.rs", "gateway/src/link"];

struct Call {
    seeds: u64,
    /// How many, and by which seed.
    sample: Option<(usize, u64)>,
    part: (usize, usize),
    only: Vec<usize>,
    list: bool,
    under: Vec<String>,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let Some(call) = parse(&words) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match run(&call) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

fn parse(words: &[String]) -> Option<Call> {
    let mut call = Call { seeds: 300, sample: None, part: (0, 1), only: Vec::new(), list: false, under: Vec::new() };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match &**word {
            "--seeds" => call.seeds = words.next()?.parse().ok()?,
            "--sample" => {
                let (count, seed) = words.next()?.split_once(',')?;
                call.sample = Some((count.parse().ok()?, seed.parse().ok()?));
            }
            "--part" => {
                let (part, of) = words.next()?.split_once('/')?;
                call.part = (part.parse().ok()?, of.parse().ok()?);
            }
            "--only" => call.only = words.next()?.split(',').map(|n| n.parse().ok()).collect::<Option<_>>()?,
            "--list" => call.list = true,
            flag if flag.starts_with('-') => return None,
            path => call.under.push(path.to_owned()),
        }
    }
    if call.under.is_empty() {
        call.under = UNDER.map(str::to_owned).to_vec();
    }
    (call.part.0 < call.part.1).then_some(call)
}

/// Counts of one file.
#[derive(Default)]
struct Score {
    simulation: usize,
    tests: usize,
    missed: usize,
}

fn run(call: &Call) -> io::Result<bool> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let sources = tree::sources(&root, &call.under)?;
    if call.list {
        for (source, mutant) in chosen(call, &sources, &BTreeSet::new()) {
            println!("{}", name(source, mutant));
        }
        return Ok(true);
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let tree = Tree::copy(&root, &std::path::absolute(target)?, vec!["--no-default-features".into()])?;
    let (program, left_out) = tree.build(&sources)?;
    if let Verdict::Caught(what) = judge::simulation(&program, None, 2)? {
        return Err(io::Error::other(format!("it fails as it is: {what}")));
    }
    let mut scores: BTreeMap<&str, Score> = BTreeMap::new();
    for (source, mutant) in chosen(call, &sources, &left_out) {
        let score = scores.entry(&source.path).or_default();
        match judge::simulation(&program, Some(mutant.number), call.seeds)? {
            Verdict::Caught(what) => {
                score.simulation += 1;
                println!("caught  {}: {what}", name(source, mutant));
            }
            Verdict::Missed => match judge::tests(&program, mutant.number)? {
                Verdict::Caught(what) => {
                    score.tests += 1;
                    println!("tests   {}: {what}", name(source, mutant));
                }
                Verdict::Missed => {
                    score.missed += 1;
                    println!("MISSED  {}", name(source, mutant));
                }
            },
        }
    }
    println!("\n| file | noticed by the simulation | only by tests | missed |\n|---|---|---|---|");
    for (path, Score { simulation, tests, missed }) in &scores {
        println!("| `{path}` | {simulation} | {tests} | {missed} |");
    }
    let sum = |count: fn(&Score) -> usize| scores.values().map(count).sum::<usize>();
    let missed = sum(|score| score.missed);
    println!("| **all** | {} | {} | {missed} |", sum(|score| score.simulation), sum(|score| score.tests));
    println!("\n{} changes that do not compile are left out", left_out.len());
    Ok(missed == 0)
}

fn all(sources: &[Source]) -> impl Iterator<Item = (&Source, &find::Mutant)> {
    sources.iter().flat_map(|source| source.mutants.iter().map(move |mutant| (source, mutant)))
}

/// The changes that a call asks for and that compile.
fn chosen<'s>(call: &Call, sources: &'s [Source], left_out: &BTreeSet<usize>) -> Vec<(&'s Source, &'s find::Mutant)> {
    let is_asked =
        |number: usize| number % call.part.1 == call.part.0 && (call.only.is_empty() || call.only.contains(&number));
    let mut chosen: Vec<_> = all(sources).filter(|(_, mutant)| is_asked(mutant.number)).collect();
    if let Some((_, seed)) = call.sample {
        fastrand::Rng::with_seed(seed).shuffle(&mut chosen);
    }
    chosen.retain(|(_, mutant)| !left_out.contains(&mutant.number));
    chosen.truncate(call.sample.map_or(usize::MAX, |(count, _)| count));
    chosen
}

fn name(source: &Source, mutant: &find::Mutant) -> String {
    format!("{} {}:{} {}: {}", mutant.number, source.path, mutant.line, mutant.function, mutant.what)
}
