//! `cargo xtask dist`: builds the programs, and has the `packaging` crate pack them.
use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

/// Builds with this profile of cargo; true if both packages were written.
pub(crate) fn run(root: &Path, profile: &str) -> bool {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    // cargo keeps `dev` in a folder of another name
    let programs = target.join(if profile == "dev" { "debug" } else { profile });
    let build = ["build", "--locked", "--profile", profile, "-p", "gateway", "-p", "tuning", "-p", "bench"];
    let pack = ["run", "--quiet", "--locked", "-p", "packaging", "--"];
    let out = target.join("dist").join("packages");
    cargo(root).args(build).status().is_ok_and(|status| status.success())
        && cargo(root).args(pack).arg(root).arg(programs).arg(out).status().is_ok_and(|status| status.success())
}

fn cargo(root: &Path) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root);
    command
}
