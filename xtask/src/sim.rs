//! `cargo xtask sim`: the simulation, which lives among the gateway's unit tests so that no program contains it.
use std::{
    env,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
};

/// The test that obeys words, and where it finds them.
const TEST: &str = "shard::tests::sim::command";
const WORDS: &str = "HALLEY_SIM";

/// How to call it.
pub(crate) const USAGE: &str = "\
Usage: cargo xtask sim --seed S [--events N | --seconds SIMULATED | --only N,N,…]
       cargo xtask sim --seeds N      the standard stories of the seeds 0..N; A..B begins elsewhere
       cargo xtask sim --seeds N --seconds SIMULATED   long stories, with quiet hours among busy ones
       cargo xtask sim --sabotage     every planted bug, and how soon it is found
       cargo xtask sim --tables       writes docs/testing/reasons.md anew
The last line is `trace HASH`: the same for the same seed. Exit 1 with a failing seed, its last events and a short script.";

/// Runs it and passes on what it says, without the test harness's own lines; true if it passed.
pub(crate) fn run(root: &Path, words: &[&str]) -> bool {
    if !is_understood(words) {
        eprintln!("{USAGE}");
        return false;
    }
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args([
        "test",
        "--quiet",
        "--locked",
        "--package",
        "gateway",
        "--lib",
        "--",
        "--exact",
        TEST,
        "--nocapture",
    ]);
    if words == ["--tables"] {
        command.env("HALLEY_WRITE_TABLES", "1").env_remove(WORDS);
    } else {
        command.env(WORDS, words.join(" "));
    }
    let child = command.current_dir(root).stdout(Stdio::piped()).spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => {
            eprintln!("cargo could not be started: {error}");
            return false;
        }
    };
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if !(line.is_empty() || line.starts_with("running 1 test") || line.starts_with("test shard::")) {
                println!("{line}");
            }
        }
    }
    child.wait().is_ok_and(|status| status.success())
}

fn is_understood(words: &[&str]) -> bool {
    let number = |text: &str| text.parse::<u64>().is_ok();
    let range = |text: &str| text.split_once("..").map_or_else(|| number(text), |(a, b)| number(a) && number(b));
    match words {
        ["--sabotage" | "--tables"] => true,
        ["--seeds", seeds] => range(seeds),
        ["--seeds", seeds, "--seconds", n] => range(seeds) && number(n),
        ["--seed", n] => number(n),
        ["--seed", seed, "--events" | "--seconds", n] => number(seed) && number(n),
        ["--seed", seed, "--only" | "--only-long", list] => number(seed) && list.split(',').all(number),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_calls_are_understood() {
        for good in [
            "--seeds 5",
            "--seed 1",
            "--seed 1 --events 9",
            "--seed 1 --seconds 9",
            "--seed 1 --only 3,7",
            "--seeds 4..9 --seconds 3",
        ] {
            assert!(is_understood(&good.split(' ').collect::<Vec<_>>()), "{good}");
        }
        for bad in
            ["--seeds", "--seeds many", "--seeds 3..", "--seed 1 --only 3,", "--seed 1 --events", "--seconds 9", ""]
        {
            assert!(!is_understood(&bad.split(' ').collect::<Vec<_>>()), "{bad}");
        }
    }
}
