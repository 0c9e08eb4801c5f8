//! What the cases are made of: settings of the namespace, the report's answer, and a gateway.
use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::Value;

/// Where clients connect.
pub(super) const TARGET: &str = "127.0.0.1:3101";
/// Where pushes and questions go.
pub(super) const API: &str = "127.0.0.1:3111";

/// Longest that anything may take.
const PATIENCE: Duration = Duration::from_mins(1);

/// Where the programs are.
pub(super) struct Programs(PathBuf);

impl Programs {
    pub(super) fn new(folder: &str) -> Self {
        Self(PathBuf::from(folder))
    }

    /// A program, by way of another that changes its limits or its group.
    pub(super) fn command(&self, program: &str, by_way_of: &[&str]) -> Command {
        let program = self.0.join(program);
        let Some((first, rest)) = by_way_of.split_first() else { return Command::new(program) };
        let mut command = Command::new(first);
        command.args(rest).arg(program);
        command
    }
}

/// The folder of the programs, built.
pub(super) fn build(root: &Path) -> Option<String> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["build", "--release", "--locked", "-p", "gateway", "-p", "tuning", "-p", "bench"]);
    let built = command.current_dir(root).status();
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), Into::into);
    built.is_ok_and(|status| status.success()).then(|| target.join("release").to_string_lossy().into_owned())
}

/// Runs a command that must work.
pub(super) fn call(line: &str) {
    let mut words = line.split(' ');
    let status = Command::new(words.next().unwrap_or_default()).args(words).status();
    assert!(status.is_ok_and(|status| status.success()), "{line}");
}

/// A setting of the kernel.
pub(super) fn setting(name: &str) -> String {
    fs::read_to_string(format!("/proc/sys/{name}")).unwrap_or_default().trim().to_owned()
}

/// A setting that is changed for the length of a case.
pub(super) struct Setting {
    name: &'static str,
    before: String,
}

impl Setting {
    pub(super) fn change(name: &'static str, value: &str) -> Result<Self, String> {
        let before = setting(name);
        write(name, value).map_err(|error| format!("{name} = {value}: {error}"))?;
        Ok(Self { name, before })
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        let _ = write(self.name, &self.before);
    }
}

/// An empty list is written as a line: a write of nothing changes nothing.
fn write(name: &str, value: &str) -> std::io::Result<()> {
    fs::write(format!("/proc/sys/{name}"), format!("{value}\n"))
}

fn answer(programs: &Programs, by_way_of: &[&str], arguments: &[&str]) -> Result<Value, String> {
    let mut command = programs.command("halley-tune", by_way_of);
    let output = command.args(["report", "--json"]).args(arguments).output().map_err(|error| error.to_string())?;
    let said = || String::from_utf8_lossy(&output.stderr).into_owned();
    serde_json::from_slice(&output.stdout).map_err(|error| format!("halley-tune: {error}: {}", said()))
}

/// How many connections the report predicts, and by what they are limited.
pub(super) fn report(programs: &Programs, by_way_of: &[&str], arguments: &[&str]) -> Result<(u64, String), String> {
    let report = answer(programs, by_way_of, &[&["--connections", "1"], arguments].concat())?;
    let fields = report["capacity"].as_u64().zip(report["limited_by"].as_str().map(str::to_owned));
    fields.ok_or_else(|| format!("no capacity in {report}"))
}

/// Whether a rule is met for so many connections.
pub(super) fn rule(programs: &Programs, connections: u64, id: &str) -> Result<bool, String> {
    let report = answer(programs, &[], &["--connections", &connections.to_string()])?;
    let rule = report["rules"].as_array().and_then(|rules| rules.iter().find(|rule| rule["id"] == id));
    rule.and_then(|rule| rule["ok"].as_bool()).ok_or_else(|| format!("no rule {id}"))
}

/// How often a full queue has turned somebody away in this namespace.
pub(super) fn listen_overflows() -> u64 {
    let text = fs::read_to_string("/proc/net/netstat").unwrap_or_default();
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:")).map(|line| line.split(' '));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else { return 0 };
    let found = names.zip(values).find(|(name, _)| *name == "ListenOverflows");
    found.and_then(|(_, value)| value.parse().ok()).unwrap_or(0)
}

/// As many of so many connections as are made.
pub(super) fn connect(count: u64) -> Vec<TcpStream> {
    let target = TARGET.parse().expect("an address");
    (0..count).filter_map(|_| TcpStream::connect_timeout(&target, Duration::from_millis(300)).ok()).collect()
}

/// A gateway that serves.
pub(super) struct Gateway {
    child: Child,
    /// As it said when it was ready.
    pub(super) connections_max: u64,
}

impl Gateway {
    /// With these lines in front of its configuration.
    pub(super) fn start(programs: &Programs, by_way_of: &[&str], head: &str) -> Result<Self, String> {
        let mut child = spawn(programs, by_way_of, head)?;
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines().map_while(Result::ok);
        let mut said = Vec::new();
        while let Some(line) = lines.next() {
            if let Ok(ready) = serde_json::from_str::<Value>(&line)
                && ready["event"] == "ready"
            {
                // Read on, so that the gateway never waits for a reader.
                std::thread::spawn(move || lines.for_each(drop));
                return Ok(Self { child, connections_max: ready["connections_max"].as_u64().unwrap_or(0) });
            }
            said.push(line);
        }
        let _ = child.wait();
        Err(format!("the gateway did not start: {}", said.join("\n")))
    }

    /// What it says when it does not start.
    pub(super) fn refused(programs: &Programs, by_way_of: &[&str], head: &str) -> Result<String, String> {
        let output = spawn(programs, by_way_of, head)?.wait_with_output().map_err(|error| error.to_string())?;
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        if output.status.code() == Some(2) {
            Ok(said)
        } else {
            Err(format!("not refused but {}: {said}", output.status))
        }
    }

    pub(super) fn signal(&self, name: &str) {
        call(&format!("kill -{name} {}", self.child.id()));
    }

    /// Stops every thread of it, and waits until they stand: those that do not yet would go on accepting.
    pub(super) fn stop(&self) {
        self.signal("STOP");
        let stands = |thread: fs::DirEntry| {
            let state = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            state.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with('T'))
        };
        let threads = format!("/proc/{}/task", self.child.id());
        let all = || fs::read_dir(&threads).into_iter().flatten().flatten().all(stands);
        let since = Instant::now();
        while !all() && since.elapsed() < PATIENCE {
            sleep(Duration::from_millis(5));
        }
    }

    /// The most connections it said it had until it, or the clients, ended or came to a stop; and how it ended.
    pub(super) fn most_connections(&mut self, mut over: impl FnMut() -> bool) -> (u64, String) {
        let (mut most, mut since) = (0, Instant::now());
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return (most, format!("the gateway ended: {status}"));
            }
            let now = connections().unwrap_or(0);
            if now > most {
                (most, since) = (now, Instant::now());
            }
            if over() || since.elapsed() > Duration::from_secs(10) {
                return (most, "no more came in".to_owned());
            }
            sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(programs: &Programs, by_way_of: &[&str], head: &str) -> Result<Child, String> {
    let file = std::env::temp_dir().join(format!("halley-forecast-{}.toml", std::process::id()));
    let text = format!(
        "{head}\n[api]\nbind = \"{API}\"\nauth = \"none\"\n[[listener]]\nbind = \"{TARGET}\"\nlogin = \"open\"\n"
    );
    fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))?;
    let mut command = programs.command("halley", by_way_of);
    command.arg("--config").arg(file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command.spawn().map_err(|error| format!("halley: {error}"))
}

/// Connections, as the gateway counts them.
fn connections() -> Option<u64> {
    let mut stream = TcpStream::connect_timeout(&API.parse().ok()?, Duration::from_secs(1)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.lines().find_map(|line| line.strip_prefix("halley_connections ")?.trim().parse().ok())
}
