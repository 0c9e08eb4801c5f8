//! The tortured process: started, signalled, starved, asked for its counters.
use std::{
    fs::File,
    io::{Read as _, Write as _},
    net::TcpStream,
    process::{Child, Command, ExitStatus, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{SERVER_ADDRESS, call};

pub(super) const TCP_PORT: u16 = 3101;
pub(super) const WS_PORT: u16 = 3102;
const API_PORT: u16 = 3111;

/// Longest that anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

const CONFIGURATION: &str = "\
connections_max = 600
shards = 3
drain_ms_max = 3000
[api]
bind = \"10.77.0.1:3111\"
auth = \"none\"
[[listener]]
bind = \"10.77.0.1:3101\"
login = \"open\"
stall_ms_max = 2000
outbox_bytes_max = 16384
linger_ms_max = 500
[[listener]]
bind = \"10.77.0.1:3102\"
transport = \"ws\"
login = \"open\"
slow_policy = \"drop-oldest\"
linger_ms_max = 500
";

/// A call of the API on a connection of its own; its body if it was 200.
pub(super) fn http(method: &str, uri: &str, body: &str) -> Option<String> {
    let address = format!("{SERVER_ADDRESS}:{API_PORT}").parse().ok()?;
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(8))).ok()?;
    let length = body.len();
    let request =
        format!("{method} {uri} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.starts_with("HTTP/1.1 200").then(|| body.to_owned())
}

pub(super) struct Server {
    binary: String,
    child: Child,
    pub(super) starts: u32,
    folder: std::path::PathBuf,
}

impl Server {
    pub(super) fn start(binary: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("halley-torture-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a temporary folder");
        std::fs::write(folder.join("halley.toml"), CONFIGURATION).expect("a writable folder");
        let child = spawn(binary, &folder);
        let server = Self { binary: binary.into(), child, starts: 1, folder };
        assert!(Self::answers(), "{}", server.log());
        server
    }

    /// Starts it again, once the one before has ended.
    pub(super) fn restart(&mut self) {
        self.wait();
        self.child = spawn(&self.binary, &self.folder);
        self.starts += 1;
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    pub(super) fn signal(&self, name: &str) {
        call(&format!("kill -{name} {}", self.child.id()));
    }

    /// Lowers a soft limit of the running process.
    pub(super) fn limit(&self, limit: &str) {
        call(&format!("prlimit --pid {} {limit}", self.child.id()));
    }

    /// Raises it to the hard one again; the process may be gone.
    pub(super) fn unlimit(&self, limit: &str) {
        let pid = self.child.id().to_string();
        let name = limit.trim_matches(['-', '=']).to_owned();
        let shown = Command::new("prlimit")
            .args(["--pid", &pid, &format!("--{name}"), "--output=HARD", "--noheadings", "--raw"])
            .output();
        let hard = shown.map(|shown| String::from_utf8_lossy(&shown.stdout).trim().to_owned()).unwrap_or_default();
        if !hard.is_empty() {
            let _ = Command::new("prlimit").args(["--pid", &pid, &format!("{limit}{hard}:{hard}")]).status();
        }
    }

    pub(super) fn has_ended(&mut self) -> bool {
        self.child.try_wait().ok().flatten().is_some()
    }

    pub(super) fn wait(&mut self) -> ExitStatus {
        let since = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child of this process") {
                return status;
            }
            if since.elapsed() > PATIENCE {
                let _ = self.child.kill();
            }
            sleep(Duration::from_millis(10));
        }
    }

    /// Waits for an answer of `/readyz`.
    pub(super) fn answers() -> bool {
        within(|| http("GET", "/readyz", "").is_some())
    }

    fn shards() -> Vec<Value> {
        let stats = http("GET", "/v1/stats", "").and_then(|text| serde_json::from_str::<Value>(&text).ok());
        stats.and_then(|stats| stats["shards"].as_array().cloned()).unwrap_or_default()
    }

    /// The law, shard by shard, as published between two turns; what breaks it.
    pub(super) fn law(&self) -> Vec<String> {
        let mut shards = Vec::new();
        if !within(|| {
            shards = Self::shards();
            !shards.is_empty()
        }) {
            return vec![format!("no counters: {}", self.log())];
        }
        let sum = |shard: &Value| {
            let dropped = shard["dropped"].as_object().into_iter().flatten().filter_map(|(_, count)| count.as_u64());
            dropped.sum::<u64>() + shard["sent"].as_u64().unwrap_or(0) + shard["queued"].as_u64().unwrap_or(0)
        };
        let broken = shards.iter().filter(|shard| shard["offered"].as_u64() != Some(sum(shard)));
        broken.map(|shard| format!("the law: {shard}")).collect()
    }

    fn total(name: &str) -> Option<u64> {
        let shards = Self::shards();
        (!shards.is_empty()).then(|| shards.iter().filter_map(|shard| shard[name].as_u64()).sum())
    }

    pub(super) fn summary(&self) -> String {
        let of = |name| Self::total(name).map_or_else(|| "?".into(), |total| total.to_string());
        format!(
            "start {}, connections {}, offered {}, queued {}",
            self.starts,
            of("connections"),
            of("offered"),
            of("queued")
        )
    }

    /// Everybody has left: nothing may be left of them, and the process ends well.
    pub(super) fn end(&mut self) -> Vec<String> {
        let mut violations = self.law();
        for name in ["connections", "queued", "blocked", "pinned_bytes"] {
            if !within(|| Self::total(name) == Some(0)) {
                violations.push(format!("{name} are left: {:?}", Self::total(name)));
            }
        }
        self.signal("TERM");
        let status = self.wait();
        if !status.success() {
            violations.push(format!("the end: {status}"));
        }
        if self.log().contains("panicked") {
            violations.push(self.log());
        }
        let _ = std::fs::remove_dir_all(&self.folder);
        violations
    }
}

fn within(mut so: impl FnMut() -> bool) -> bool {
    let since = Instant::now();
    while !so() {
        if since.elapsed() > PATIENCE {
            return false;
        }
        sleep(Duration::from_millis(20));
    }
    true
}

fn spawn(binary: &str, folder: &std::path::Path) -> Child {
    let log = File::options().create(true).append(true).open(folder.join("log")).expect("a log");
    let mut command = Command::new(binary);
    command.args(["--config", "halley.toml"]).current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(log).spawn().expect("the server starts")
}
