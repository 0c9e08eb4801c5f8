//! `cargo xtask check`: runs every step even when one fails, and reports all failures together.
use std::{
    env, fmt,
    path::Path,
    process::{Command, Output},
    time::{Duration, Instant},
};

use crate::tidy;

/// One cargo call.
struct Step {
    name: &'static str,
    arguments: &'static [&'static str],
    environment: &'static [(&'static str, &'static str)],
    /// Output goes straight to the terminal: a reader of CI wants to see the tests' results.
    shown: bool,
}

/// Plain cargo calls on cargo's own target directory, so that a second run finds everything built.
const STEPS: &[Step] = &[
    Step { name: "format", arguments: &["fmt", "--all", "--check"], environment: &[], shown: false },
    Step {
        name: "clippy",
        arguments: &["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"],
        environment: &[],
        shown: false,
    },
    Step {
        name: "test",
        arguments: &["test", "--workspace", "--locked", "--no-fail-fast"],
        environment: &[],
        shown: true,
    },
    Step {
        name: "doc",
        arguments: &["doc", "--workspace", "--no-deps", "--locked"],
        environment: &[("RUSTDOCFLAGS", "-D warnings")],
        shown: false,
    },
];

/// What became of a step.
struct Outcome {
    name: &'static str,
    /// What the step printed, if it failed; empty where it was shown already.
    failure: Option<String>,
    took: Duration,
}

/// Runs all steps and prints the summary; true if every one passed.
pub(crate) fn run(root: &Path) -> bool {
    let mut outcomes: Vec<Outcome> = STEPS.iter().map(|step| timed(step.name, || cargo(root, step))).collect();
    outcomes.push(timed("tidy", || tidy_step(root)));

    for outcome in &outcomes {
        if let Some(text) = outcome.failure.as_deref().filter(|text| !text.is_empty()) {
            println!("\n──── {} failed\n{}", outcome.name, text.trim_end());
        }
    }
    println!("\n{:<8} {:<7} {:>7}", "step", "result", "seconds");
    for outcome in &outcomes {
        println!("{outcome}");
    }
    outcomes.iter().all(|outcome| outcome.failure.is_none())
}

fn timed(name: &'static str, step: impl FnOnce() -> Result<(), String>) -> Outcome {
    println!("──── {name}");
    let start = Instant::now();
    let failure = step().err();
    Outcome { name, failure, took: start.elapsed() }
}

fn cargo(root: &Path, step: &Step) -> Result<(), String> {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(step.arguments).envs(step.environment.iter().copied()).current_dir(root);
    let ended = if step.shown {
        command.status().map(|status| Output { status, stdout: Vec::new(), stderr: Vec::new() })
    } else {
        command.output()
    };
    match ended {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            Err(format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
        }
        Err(error) => Err(format!("cargo could not be started: {error}")),
    }
}

fn tidy_step(root: &Path) -> Result<(), String> {
    let complaints = tidy::complaints(root);
    if complaints.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = complaints.iter().map(ToString::to_string).collect();
    Err(lines.join("\n"))
}

impl fmt::Display for Outcome {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let result = if self.failure.is_none() { "ok" } else { "FAILED" };
        write!(out, "{:<8} {:<7} {:>7.1}", self.name, result, self.took.as_secs_f32())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(arguments: &'static [&'static str]) -> Step {
        Step { name: "step", arguments, environment: &[], shown: false }
    }

    #[test]
    fn a_step_that_fails_hands_over_what_it_printed() {
        let here = Path::new(".");
        let failure = cargo(here, &step(&["no-such-command"])).unwrap_err();
        assert!(failure.contains("no-such-command"), "{failure}");
        assert_eq!(cargo(here, &step(&["--version"])), Ok(()));
    }

    #[test]
    fn the_summary_line_names_the_failure() {
        let mut outcome = timed("test", || Err(String::new()));
        assert!(outcome.to_string().starts_with("test     FAILED"));
        outcome.failure = None;
        assert!(outcome.to_string().starts_with("test     ok"));
    }
}
