//! `cargo xtask fuzz`: every fuzz target for some seconds each, on what is in its corpus; findings are named.
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Seconds of each target, unless said otherwise.
const SECONDS: u32 = 60;

/// Runs every target; true if none found anything. Says what is missing where it cannot.
pub(crate) fn run(root: &Path, arguments: &[&str]) -> bool {
    let Some((seconds, only)) = parse(arguments) else {
        eprintln!(
            "Usage: cargo xtask fuzz [--seconds S] [TARGET]...\n\n  S seconds for each target, {SECONDS} by default"
        );
        return false;
    };
    if let Some(missing) = missing() {
        eprintln!("{missing}");
        return false;
    }
    let targets = targets(root);
    if let Some(unknown) = only.iter().find(|name| !targets.iter().any(|target| target == *name)) {
        eprintln!("there is no target {unknown}: {}", targets.join(", "));
        return false;
    }
    let chosen = targets.iter().filter(|target| only.is_empty() || only.contains(&target.as_str()));
    let failed: Vec<&String> = chosen.filter(|target| !fuzz(root, target, seconds)).collect();
    for target in &failed {
        println!(
            "{target}: a finding, kept in fuzz/artifacts/{target}/; once it is fixed, move it to fuzz/corpus/{target}/"
        );
    }
    failed.is_empty()
}

/// Seconds and the names of targets.
fn parse<'a>(arguments: &[&'a str]) -> Option<(u32, Vec<&'a str>)> {
    let (mut seconds, mut only) = (SECONDS, Vec::new());
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match *argument {
            "--seconds" => seconds = arguments.next()?.parse().ok()?,
            flag if flag.starts_with('-') => return None,
            target => only.push(target),
        }
    }
    Some((seconds, only))
}

/// What this machine lacks, and how to get it.
fn missing() -> Option<&'static str> {
    if !works("rustup", &["run", "nightly", "rustc", "--version"]) {
        Some("fuzzing needs a nightly toolchain: rustup toolchain install nightly --profile minimal")
    } else if !works("cargo", &["+nightly", "fuzz", "--version"]) {
        Some("fuzzing needs cargo-fuzz: cargo install cargo-fuzz")
    } else if !works("c++", &["--version"]) {
        Some("fuzzing needs a C++ compiler for libFuzzer: install g++ or clang")
    } else {
        None
    }
}

/// Whether a program can be run, with the toolchain that its arguments name.
pub(crate) fn works(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    let ended = command.args(arguments).env_remove("RUSTUP_TOOLCHAIN").stdout(Stdio::null()).stderr(Stdio::null());
    ended.status().is_ok_and(|status| status.success())
}

/// The targets: the programs in `fuzz/fuzz_targets`.
fn targets(root: &Path) -> Vec<String> {
    let entries = fs::read_dir(root.join("fuzz/fuzz_targets")).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.filter_map(|entry| Some(entry.path().file_stem()?.to_string_lossy().into_owned())).collect();
    names.sort();
    names
}

/// Runs one target: what is new goes to a folder of the build, what is known is only read.
fn fuzz(root: &Path, target: &str, seconds: u32) -> bool {
    let build = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from).join("fuzz");
    let new = build.join("corpus").join(target);
    if let Err(error) = fs::create_dir_all(&new) {
        eprintln!("{}: {error}", new.display());
        return false;
    }
    println!("──── {target}, {seconds} s");
    let mut command = Command::new("cargo");
    command.args(["+nightly", "fuzz", "run", target]).arg(&new).arg(root.join("fuzz/corpus").join(target));
    command.args(["--", &format!("-max_total_time={seconds}"), "-max_len=4096", "-timeout=10", "-print_final_stats=1"]);
    // This process was started by a cargo of its own, of another toolchain.
    command.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO").env("CARGO_TARGET_DIR", &build).current_dir(root);
    // The allocator that the sanitizer watches.
    command.env("RUSTFLAGS", "--cfg system_allocator");
    command.status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_targets_are_read_and_other_flags_refused() {
        assert_eq!(parse(&["--seconds", "5", "frames"]), Some((5, vec!["frames"])));
        assert_eq!(parse(&[]), Some((SECONDS, vec![])));
        assert_eq!((parse(&["--seconds"]), parse(&["--fast"])), (None, None));
    }

    #[test]
    fn targets_are_the_programs_there_are() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        assert!(targets(root).contains(&"frames".to_owned()));
    }
}
