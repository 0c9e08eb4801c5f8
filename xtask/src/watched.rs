//! `cargo xtask asan` and `cargo xtask miri`: tests under what watches memory, on the nightly compiler.
use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use crate::fuzz;

/// Modules of the gateway that call neither the kernel nor C.
const PURE: [&str; 18] = [
    "directory::",
    "dispatch::",
    "ids::",
    "link::",
    "networks::",
    "order::",
    "payload::",
    "remembered::",
    "stats::",
    "shard::accepts",
    "shard::blocks",
    "shard::bucket",
    "shard::chunks",
    "shard::conn",
    "shard::outbox",
    "shard::rooms",
    "shard::runs",
    "shard::timers",
];

/// The gateway's unit tests, and its real process over real sockets, with every instruction of Rust's watched.
pub(crate) fn asan(root: &Path, filters: &[&str]) -> bool {
    let Some(mut command) = nightly(root, "asan") else { return false };
    // Sanitizers want a target named, so that build scripts are built without them.
    command.args(["test", "--locked", "--package", "gateway", "--package", "halley-ring", "--no-fail-fast"]);
    command.args(["--target", &format!("{}-unknown-linux-gnu", env::consts::ARCH), "--lib", "--tests", "--"]);
    command.args(filters);
    command.env("RUSTFLAGS", "-Zsanitizer=address --cfg system_allocator");
    // C within crates is watched as well, which librdkafka's own build does not expect.
    command.env("LDFLAGS", "-fsanitize=address");
    // A process that ends leaves what it holds to the kernel.
    command.env("ASAN_OPTIONS", "detect_leaks=0");
    passes(command)
}

/// What is pure under Miri's interpreter, which sees every wrong access and much of what is undefined.
pub(crate) fn miri(root: &Path, filters: &[&str]) -> bool {
    let pure = if filters.is_empty() { &PURE } else { filters };
    // Compressing takes it hours.
    let protocol: &[&str] = &["test", "--locked", "--package", "halley-protocol", "--", "--skip", "deflate::"];
    let gateway: &[&str] = &["test", "--locked", "--package", "gateway", "--no-default-features", "--lib", "--"];
    [(protocol, filters), (gateway, pure)].into_iter().all(|(arguments, filters)| {
        let Some(mut command) = nightly(root, "miri") else { return false };
        command.arg("miri").args(arguments).args(filters).env("MIRIFLAGS", "-Zmiri-disable-isolation");
        // It is some hundred times slower.
        command.env("PROPTEST_CASES", "4");
        passes(command)
    })
}

/// A nightly cargo with a build folder of its own; says what is missing if there is none.
fn nightly(root: &Path, folder: &str) -> Option<Command> {
    if !fuzz::works("rustup", &["run", "nightly", "rustc", "--version"]) {
        eprintln!("needs a nightly toolchain: rustup toolchain install nightly --component miri --component rust-src");
        return None;
    }
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from).join(folder);
    let mut command = Command::new("cargo");
    command.arg("+nightly").env("CARGO_TARGET_DIR", target).current_dir(root);
    // This process was started by a cargo of its own, of another toolchain.
    command.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO");
    Some(command)
}

fn passes(mut command: Command) -> bool {
    command.status().is_ok_and(|status| status.success())
}
