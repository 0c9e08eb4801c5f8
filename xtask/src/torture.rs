//! `cargo xtask torture`: the real server on real sockets, while links are cut, processes killed, stopped and starved.
//!
//! ```text
//! ┌─ network namespace ──────────────┐        ┌─ another ──────────────────┐
//! │ halley   proxy (delay, resets)   │ ─veth─ │ clients by the thousand    │
//! │ pusher, faults, checks           │        │ each checks what it gets   │
//! └──────────────────────────────────┘        └────────────────────────────┘
//! ```
mod clients;
mod proxy;
mod server;

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread::sleep,
    time::{Duration, Instant},
};

use server::Server;

pub(crate) use clients::run as clients;

const HELP: &str = "Usage: cargo xtask torture [--minutes M] [--server BINARY]";

/// Rooms that are pushed to.
const ROOMS: u64 = 8;
const SERVER_ADDRESS: &str = "10.77.0.1";
const CLIENTS_ADDRESS: &str = "10.77.0.2";

/// Builds the server and goes on in namespaces of its own; true if nothing was violated.
pub(crate) fn run(root: &Path, arguments: &[&str]) -> bool {
    let Some((minutes, binary)) = parse(arguments) else {
        eprintln!("{HELP}");
        return false;
    };
    let binary = binary.map(str::to_owned).or_else(|| build(root));
    let Some(binary) = binary else { return false };
    let this = std::env::current_exe().expect("this program has a path");
    let mut namespaces = Command::new("unshare");
    namespaces.args(["--user", "--map-root-user", "--net", "--fork", "--kill-child", "--"]).arg(this);
    match namespaces.args(["torture-inside", &minutes.to_string(), &binary]).status() {
        Ok(status) => status.success(),
        Err(error) => {
            eprintln!("torture needs unshare, ip, nsenter, prlimit and kill (util-linux, iproute2, procps): {error}");
            false
        }
    }
}

fn parse<'a>(arguments: &[&'a str]) -> Option<(u32, Option<&'a str>)> {
    let (mut minutes, mut binary) = (5, None);
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match *argument {
            "--minutes" => minutes = arguments.next()?.parse().ok()?,
            "--server" => binary = Some(*arguments.next()?),
            _ => return None,
        }
    }
    Some((minutes, binary))
}

fn build(root: &Path) -> Option<String> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let built = command.args(["build", "--release", "--locked", "--package", "gateway"]).current_dir(root).status();
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), Into::into);
    let binary = target.join("release/halley").to_string_lossy().into_owned();
    built.is_ok_and(|status| status.success()).then_some(binary)
}

/// What happens to the server, in turn.
#[derive(Clone, Copy, Debug)]
enum Fault {
    LinkCut,
    Stopped,
    Killed,
    Drained,
    NoFiles,
    NoMemory,
}

const FAULTS: [Fault; 6] =
    [Fault::LinkCut, Fault::Stopped, Fault::Drained, Fault::NoFiles, Fault::Killed, Fault::NoMemory];

/// The part within the namespaces: `MINUTES BINARY`.
pub(crate) fn inside(arguments: &[&str]) -> bool {
    let &[minutes, binary] = arguments else { return false };
    let minutes: u32 = minutes.parse().unwrap_or(1);
    let mut other = connect_namespaces();
    let mut server = Server::start(binary);
    let over = AtomicBool::new(false);
    let pushed = AtomicU64::new(0);
    let mut violations = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| proxy::run(&over));
        scope.spawn(|| push(&over, &pushed));
        let mut fleet = fleet(other.id());
        let until = Instant::now() + Duration::from_mins(1) * minutes;
        for (at, fault) in FAULTS.into_iter().cycle().enumerate() {
            if Instant::now() >= until {
                break;
            }
            let pause = Duration::from_millis(500 + 700 * (at as u64 % 5));
            violations.extend(suffer(&mut server, fault, pause).map(|what| format!("{fault:?}: {what}")));
            sleep(Duration::from_secs(2));
            violations.extend(server.law());
            println!("{fault:?} for {pause:?}: {}", server.summary());
        }
        over.store(true, Ordering::Relaxed);
        violations.extend(gather(&mut fleet));
    });
    violations.extend(server.end());
    println!("{} starts, {} pushes", server.starts, pushed.load(Ordering::Relaxed));
    let _ = other.kill();
    let _ = other.wait();
    for violation in &violations {
        println!("VIOLATION {violation}");
    }
    violations.is_empty()
}

/// Two namespaces joined by a pair of links; the child lives in the other one and holds it.
fn connect_namespaces() -> Child {
    let other = Command::new("unshare").args(["--net", "sleep", "infinity"]).spawn().expect("unshare and sleep");
    let pid = other.id().to_string();
    // The child's own namespace exists a moment after it does.
    sleep(Duration::from_millis(300));
    let own = format!("{SERVER_ADDRESS}/24");
    let others = format!("{CLIENTS_ADDRESS}/24");
    call("ip link set lo up");
    call("ip link add server type veth peer name clients");
    call(&format!("ip link set clients netns {pid}"));
    call(&format!("ip address add {own} dev server"));
    call("ip link set server up");
    call(&format!("nsenter --target {pid} --net ip address add {others} dev clients"));
    call(&format!("nsenter --target {pid} --net ip link set clients up"));
    call(&format!("nsenter --target {pid} --net ip link set lo up"));
    other
}

/// Runs a command that must work.
fn call(line: &str) {
    let mut words = line.split(' ');
    let status = Command::new(words.next().unwrap_or_default()).args(words).status();
    assert!(status.is_ok_and(|status| status.success()), "{line}");
}

fn fleet(namespace: u32) -> Child {
    let this = std::env::current_exe().expect("this program has a path");
    let mut command = Command::new("nsenter");
    command.args(["--target", &namespace.to_string(), "--net", "--"]).arg(this).arg("torture-clients");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("nsenter")
}

/// Ends the clients; what they complain of.
fn gather(fleet: &mut Child) -> Vec<String> {
    drop(fleet.stdin.take());
    let lines = BufReader::new(fleet.stdout.take().expect("piped")).lines().map_while(Result::ok);
    let mut violations = Vec::new();
    for line in lines {
        match line.strip_prefix("VIOLATION ") {
            Some(violation) => violations.push(violation.to_owned()),
            None => println!("{line}"),
        }
    }
    if !fleet.wait().is_ok_and(|status| status.success()) {
        violations.push("the clients ended badly".into());
    }
    violations
}

/// Numbered messages to every room in turn, each once, taken or not.
fn push(over: &AtomicBool, pushed: &AtomicU64) {
    let mut number = 0;
    while !over.load(Ordering::Relaxed) {
        let room = number % ROOMS;
        let uri = format!("/goim/push/room?operation=1000&type=torture&room={room}");
        if server::http("POST", &uri, &format!("torture://{room} {number}")).is_some() {
            pushed.fetch_add(1, Ordering::Relaxed);
        }
        number += 1;
        sleep(Duration::from_millis(3));
    }
}

/// One fault, and its end; what was violated.
fn suffer(server: &mut Server, fault: Fault, pause: Duration) -> Option<String> {
    match fault {
        Fault::LinkCut => {
            call("ip link set server down");
            sleep(pause);
            call("ip link set server up");
        }
        Fault::Stopped => {
            server.signal("STOP");
            sleep(pause);
            server.signal("CONT");
        }
        Fault::Killed => {
            server.signal("KILL");
            server.restart();
        }
        Fault::Drained => {
            server.signal("TERM");
            let status = server.wait();
            server.restart();
            if !status.success() {
                return Some(format!("a drain ended with {status}"));
            }
        }
        Fault::NoFiles => {
            server.limit("--nofile=8:");
            sleep(pause);
            server.unlimit("--nofile=");
        }
        Fault::NoMemory => {
            server.limit("--data=1048576:");
            sleep(pause);
            server.unlimit("--data=");
            // It may die of it, and then at once and as a whole.
            if server.has_ended() {
                server.restart();
            }
        }
    }
    (!Server::answers()).then(|| "the server does not answer".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minutes_and_the_binary_are_read_and_other_flags_refused() {
        assert_eq!(parse(&["--minutes", "3", "--server", "x"]), Some((3, Some("x"))));
        assert_eq!(parse(&[]), Some((5, None)));
        assert_eq!((parse(&["--minutes"]), parse(&["--hours", "1"])), (None, None));
    }
}
