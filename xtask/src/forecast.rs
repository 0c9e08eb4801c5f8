//! `cargo xtask forecast`: is the first line of `halley-tune report` right? Limits are set so that it predicts a number, then
//! that many clients connect and one more, in a network namespace of its own.
//!
//! | case | limit | so many | one more |
//! |---|---|---|---|
//! | files | `RLIMIT_NOFILE` × shards | all are in | waits unaccepted; a gateway for it does not start |
//! | ports | `ip_local_port_range` | all are in | EADDRNOTAVAIL |
//! | backlog | `somaxconn` | `ListenOverflows` 0 | more |
//! | memory | a memory control group | within 5 % | the kernel ends the gateway |
mod bench;
mod group;
mod parts;

use std::{path::Path, process::Command, time::Duration};

use serde_json::{Value, json};

use bench::Bench;
use group::Group;
use parts::{Gateway, Programs, Setting, report};

const HELP: &str = "Usage: cargo xtask forecast [--programs FOLDER] [--json FILE]";

/// How far memory may be from the forecast, percent.
const MEMORY_PERCENT: f64 = 5.0;

/// The memory of the last case: 58,000 connections, or 145,000 where sockets are not charged to the group.
const GROUP_BYTES: u64 = 256 << 20;

/// What came out of a case; a sentence if the forecast was wrong.
type Outcome = Result<Value, String>;

/// Sets limits, asks for the forecast, and tries it out.
type Case = fn(&Programs) -> Outcome;

/// Builds the programs and goes on in a namespace; true if every forecast was right.
pub(crate) fn run(root: &Path, arguments: &[&str]) -> bool {
    let Some((programs, json)) = parse(arguments) else {
        eprintln!("{HELP}");
        return false;
    };
    let Some(programs) = programs.map(str::to_owned).or_else(|| parts::build(root)) else { return false };
    let this = std::env::current_exe().expect("this program has a path");
    let mut namespaces = Command::new("unshare");
    namespaces.args(["--user", "--map-root-user", "--net", "--fork", "--kill-child", "--"]).arg(this);
    match namespaces.args(["forecast-inside", &programs, json.unwrap_or_default()]).status() {
        Ok(status) => status.success(),
        Err(error) => {
            eprintln!("forecast needs unshare, ip, prlimit and kill (util-linux, iproute2, procps): {error}");
            false
        }
    }
}

fn parse<'a>(arguments: &[&'a str]) -> Option<(Option<&'a str>, Option<&'a str>)> {
    let (mut programs, mut json) = (None, None);
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match *argument {
            "--programs" => programs = Some(*arguments.next()?),
            "--json" => json = Some(*arguments.next()?),
            _ => return None,
        }
    }
    Some((programs, json))
}

/// The part within the namespace: `PROGRAMS JSON`.
pub(crate) fn inside(arguments: &[&str]) -> bool {
    let &[folder, file] = arguments else { return false };
    parts::call("ip link set lo up");
    let programs = Programs::new(folder);
    let cases: [(&str, Case); 4] = [("files", files), ("ports", ports), ("backlog", backlog), ("memory", memory)];
    let mut record = json!({ "scenario": "forecast", "valid": true, "kernel": parts::setting("kernel/osrelease") });
    let mut right = true;
    for (name, case) in cases {
        match case(&programs) {
            Ok(found) => {
                println!("{name}: {found}");
                record[name] = found;
            }
            Err(sentence) => {
                println!("{name}: WRONG: {sentence}");
                right = false;
            }
        }
    }
    record["valid"] = right.into();
    if !file.is_empty() {
        let text = serde_json::to_string_pretty(&record).unwrap_or_default() + "\n";
        right &= std::fs::write(file, text).inspect_err(|error| eprintln!("{file}: {error}")).is_ok();
    }
    right
}

fn files(programs: &Programs) -> Outcome {
    let limit = ["prlimit", "--nofile=300:300"];
    let (predicted, limited_by) = report(programs, &limit, &["--shards", "3"])?;
    same("limited by", &limited_by, "limit.nofile")?;
    let gateway = Gateway::start(programs, &limit, "shards = 3")?;
    same("connections_max", &gateway.connections_max, &predicted)?;
    let all = Bench::run(programs, predicted, &[]);
    all.is_in()?;
    let more = Bench::run(programs, predicted + 1, &[]);
    more.is_short_of_one()?;
    drop(gateway);
    // Who asks for one more is told at start what stops it.
    let refused = Gateway::refused(programs, &limit, &format!("shards = 3\nconnections_max = {}", predicted + 1))?;
    if !refused.contains("RLIMIT_NOFILE 300") {
        return Err(format!("the gateway does not name RLIMIT_NOFILE: {refused}"));
    }
    // Without the name of a file that is gone.
    let at_start = refused.find("connections_max").map_or(refused.as_str(), |at| &refused[at..]);
    Ok(
        json!({ "predicted": predicted, "limited_by": limited_by, "connected": predicted, "one_more": more.said, "at_start": at_start }),
    )
}

fn ports(programs: &Programs) -> Outcome {
    let _range = Setting::change("net/ipv4/ip_local_port_range", "20000 20599")?;
    let _reserved = Setting::change("net/ipv4/ip_local_reserved_ports", "20100-20109")?;
    let (predicted, limited_by) = report(programs, &[], &["--profile", "loadgen"])?;
    same("limited by", &limited_by, "net.ipv4.ip_local_port_range")?;
    let gateway = Gateway::start(programs, &[], "shards = 2\nconnections_max = 2000")?;
    // Slowly, and with a pause between: the port of a connection that has just ended is free again after a second.
    let slowly = ["--connect-rate", "200"];
    let all = Bench::run(programs, predicted, &slowly);
    all.is_in()?;
    std::thread::sleep(Duration::from_secs(3));
    let more = Bench::run(programs, predicted + 1, &slowly);
    drop(gateway);
    if more.right || !more.said.contains("Cannot assign requested address") {
        return Err(format!("one more does not fail with EADDRNOTAVAIL: {}", more.said));
    }
    Ok(json!({ "predicted": predicted, "limited_by": limited_by, "connected": predicted, "one_more": more.said }))
}

fn backlog(programs: &Programs) -> Outcome {
    const QUEUE: u64 = 200;
    let _queue = Setting::change("net/core/somaxconn", &QUEUE.to_string())?;
    let enough = |connections: u64| parts::rule(programs, connections, "net.core.somaxconn");
    same("a burst as long as the queue", &enough(QUEUE)?, &true)?;
    same("a burst that is longer", &enough(QUEUE + 1)?, &false)?;
    let gateway = Gateway::start(programs, &[], "shards = 2\nconnections_max = 2000")?;
    gateway.stop();
    let mut clients = parts::connect(QUEUE);
    let below = parts::listen_overflows();
    same("clients that the queue holds", &(clients.len() as u64), &QUEUE)?;
    same("ListenOverflows below", &below, &0)?;
    clients.extend(parts::connect(20));
    let above = parts::listen_overflows();
    gateway.signal("CONT");
    drop(clients);
    drop(gateway);
    if above == 0 {
        return Err("20 more than the queue holds are no overflow".to_owned());
    }
    Ok(json!({ "predicted": QUEUE, "overflows_at": below, "overflows_20_above": above }))
}

fn memory(programs: &Programs) -> Outcome {
    let group = match Group::new(GROUP_BYTES) {
        Ok(group) => group,
        Err(error) => return Ok(json!({ "skipped": format!("no memory control group can be made here: {error}") })),
    };
    let within = group.enter();
    let within: Vec<&str> = within.iter().map(String::as_str).collect();
    let (predicted, limited_by) = report(programs, &within, &[])?;
    same("limited by", &limited_by, "cgroup.memory.max")?;
    let wanted = predicted * 11 / 10;
    let mut gateway = Gateway::start(programs, &within, &format!("connections_max = {wanted}"))?;
    let mut bench = Bench::start(programs, wanted, &["--connect-rate", "6000", "--patience", "90"]);
    let (reached, ended) = gateway.most_connections(|| bench.has_ended());
    bench.stop();
    #[allow(clippy::cast_precision_loss, reason = "some ten thousand connections")]
    let off = (reached as f64 / predicted as f64 - 1.0) * 100.0;
    let found = json!({ "predicted": predicted, "limited_by": limited_by, "connected": reached, "off_percent": off, "end": ended });
    if off.abs() > MEMORY_PERCENT { Err(format!("more than {MEMORY_PERCENT} % off: {found}")) } else { Ok(found) }
}

/// An error if they differ.
fn same<T: PartialEq<U> + std::fmt::Debug, U: std::fmt::Debug + ?Sized>(
    what: &str,
    found: &T,
    wanted: &U,
) -> Result<(), String> {
    if found == wanted { Ok(()) } else { Err(format!("{what}: {found:?} instead of {wanted:?}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folder_and_file_are_read_and_other_flags_refused() {
        assert_eq!(parse(&["--programs", "x", "--json", "y"]), Some((Some("x"), Some("y"))));
        assert_eq!(parse(&[]), Some((None, None)));
        assert_eq!((parse(&["--json"]), parse(&["--minutes", "1"])), (None, None));
    }
}
