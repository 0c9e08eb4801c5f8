//! Project commands: `cargo xtask check` is everything that CI runs, `cargo xtask tidy` its last step alone.
mod broker;
mod check;
mod conformance;
mod dist;
mod forecast;
mod fuzz;
mod sim;
mod tidy;
mod torture;
mod watched;

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

const USAGE: &str = "\
Usage: cargo xtask COMMAND

Commands:
  check   formatting, clippy, every test, documentation, tidy; all failures together (exit 1 if any)
  conformance  RFC 6455 and goim's rules against the real server: [--full] [--target URL] [--write]
  fuzz    every fuzz target, or those named: [--seconds S] [TARGET]...
  dist    a tarball and a .deb in target/dist/packages: [--profile PROFILE] (dist; release and dev build faster)
  forecast  whether the report of halley-tune is right, with limits set on purpose: [--programs FOLDER] [--json FILE]
  kafka   a real broker on loopback: up [PROPERTY...], topic NAME PARTITIONS, down, fetch (what up needs)
  torture the real server under cut links, kills, stops and want: [--minutes M] [--server BINARY]
  sim     a whole gateway on a simulated kernel: --seed S (--events N | --seconds SIMULATED), --seeds N [--seconds …], --sabotage
  mutants the simulation and the tests against one change of the source at a time: [--seeds N] [--sample N,SEED] [--part K/N] [--list] [PATH]...
  asan    the gateway's tests and the real server under AddressSanitizer: [FILTER]...
  miri    the tests of what needs no kernel under Miri: [FILTER]...
  tidy    the rules of style that a program can check";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["check"] => exit(check::run(&root())),
        ["conformance", ref arguments @ ..] => exit(conformance::run(&root(), arguments)),
        ["fuzz", ref arguments @ ..] => exit(fuzz::run(&root(), arguments)),
        ["dist"] => exit(dist::run(&root(), "dist")),
        ["dist", "--profile", profile] => exit(dist::run(&root(), profile)),
        ["mutants", ref arguments @ ..] => exit(mutants(&root(), arguments)),
        ["kafka", ref arguments @ ..] => exit(broker::run(&root(), arguments)),
        ["asan", ref filters @ ..] => exit(watched::asan(&root(), filters)),
        ["miri", ref filters @ ..] => exit(watched::miri(&root(), filters)),
        ["forecast", ref arguments @ ..] => exit(forecast::run(&root(), arguments)),
        ["forecast-inside", ref arguments @ ..] => exit(forecast::inside(arguments)),
        ["torture", ref arguments @ ..] => exit(torture::run(&root(), arguments)),
        ["torture-inside", ref arguments @ ..] => exit(torture::inside(arguments)),
        ["torture-clients"] => exit(torture::clients()),
        ["sim", ref words @ ..] => exit(sim::run(&root(), words)),
        ["tidy"] => exit(tidy_alone(&root())),
        ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

/// A program of its own, for it reads Rust; this one builds in no time.
fn mutants(root: &Path, arguments: &[&str]) -> bool {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["run", "--quiet", "--locked", "--package", "mutation", "--"]).args(arguments).current_dir(root);
    command.status().is_ok_and(|status| status.success())
}

fn exit(passed: bool) -> ExitCode {
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn tidy_alone(root: &Path) -> bool {
    let complaints = tidy::complaints(root);
    for complaint in &complaints {
        println!("{complaint}");
    }
    complaints.is_empty()
}

/// The workspace's folder. Read at run time, so that a checkout that was moved after the build still works.
fn root() -> PathBuf {
    let xtask =
        env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    xtask.parent().map_or(xtask.clone(), Path::to_path_buf)
}
