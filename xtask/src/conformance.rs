//! `cargo xtask conformance`: the executable lists of requirements, against this server or another one.
use std::{path::Path, process::Command};

const HELP: &str = "\
Usage: cargo xtask conformance [--full] [--target ws://HOST:PORT/PATH] [--write]

  --full    cut every case at every position, not only up to 512 and at 100 beyond
  --target  run RFC 6455's list against that server, which must echo messages at the path
  --write   write docs/testing/*-conformance.md anew";

/// Runs the lists; true if nothing failed.
pub(crate) fn run(root: &Path, arguments: &[&str]) -> bool {
    let Some(call) = call(arguments) else {
        eprintln!("{HELP}");
        return false;
    };
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args([
        "test",
        "--locked",
        "--release",
        "--package",
        "gateway",
        "--test",
        "conformance",
        "--",
        "--nocapture",
    ]);
    let ended = command.args(call.filter).envs(call.environment).current_dir(root).status();
    ended.is_ok_and(|status| status.success())
}

#[derive(Debug, Default, PartialEq)]
struct Call {
    filter: Option<&'static str>,
    environment: Vec<(&'static str, String)>,
}

fn call(arguments: &[&str]) -> Option<Call> {
    let mut call = Call::default();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match *argument {
            "--full" => call.environment.push(("HALLEY_CONFORMANCE_FULL", "1".into())),
            "--write" => call.environment.push(("HALLEY_CONFORMANCE_WRITE", "1".into())),
            "--target" => {
                call.environment.push(("HALLEY_CONFORMANCE_TARGET", (*arguments.next()?).to_owned()));
                call.filter = Some("rfc_6455");
            }
            _ => return None,
        }
    }
    Some(call)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_takes_only_its_list_and_what_is_unknown_is_refused() {
        let target = call(&["--target", "ws://h/", "--full"]).unwrap();
        assert_eq!(target.filter, Some("rfc_6455"));
        assert_eq!(target.environment.len(), 2);
        assert_eq!(call(&[]), Some(Call::default()));
        assert_eq!((call(&["--target"]), call(&["--fast"])), (None, None));
    }
}
