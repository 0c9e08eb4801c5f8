//! A server of a suite: started on its CPUs, awaited, started again where that is wanted, stopped.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;

use super::file::Server;
use crate::machine;

/// From SIGTERM to SIGKILL: a gateway with many clients takes its time to tell them.
const STOP_MAX: Duration = Duration::from_secs(20);

/// What stands for the placeholders.
#[derive(Clone, Debug)]
pub(super) struct Names(BTreeMap<&'static str, String>);

impl Names {
    /// Those known before any server: `{bin}` (folder of this program), `{suite}` (folder of the
    /// suite) and `{out}`.
    pub(super) fn new(suite: &Path, out: &Path) -> Result<Self, String> {
        let absolute = |path: &Path| std::path::absolute(path).map_err(|error| error.to_string());
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let folder = |path: &Path| path.parent().unwrap_or(Path::new("/")).display().to_string();
        let suite = folder(&absolute(suite)?);
        let out = absolute(out)?.display().to_string();
        Ok(Self(BTreeMap::from([("bin", folder(&program)), ("suite", suite), ("out", out)])))
    }

    /// Something in each place, to see whether flags can be read.
    pub(super) fn example() -> Self {
        let address = "127.0.0.1:1";
        let places = [
            ("bin", "/"),
            ("suite", "/"),
            ("out", "/"),
            ("config", "/"),
            ("pid", "1"),
            ("tcp", address),
            ("ws", address),
            ("api", address),
        ];
        Self(places.map(|(name, value)| (name, value.to_owned())).into())
    }

    /// Puts values into the places of a text. Braces around anything but a word are left alone.
    pub(super) fn fill(&self, text: &str) -> Result<String, String> {
        let mut filled = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            filled.push_str(before);
            let word = after
                .split_once('}')
                .filter(|(word, _)| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase()));
            match word.map(|(word, after)| (word, self.0.get(word), after)) {
                Some((_, Some(value), after)) => {
                    filled.push_str(value);
                    rest = after;
                }
                // Placeholders of the scenarios themselves.
                Some((word @ ("room" | "mark" | "key" | "n"), None, after)) => {
                    let _ = write!(filled, "{{{word}}}"); // a String takes everything
                    rest = after;
                }
                Some((word, None, _)) => return Err(format!("nothing stands for {{{word}}} here")),
                None => {
                    filled.push('{');
                    rest = after;
                }
            }
        }
        Ok(filled + rest)
    }
}

/// A server that serves.
pub(super) struct Running {
    child: Child,
    command: Vec<String>,
    cpus: Option<String>,
    log: PathBuf,
    comes_back: bool,
}

impl Running {
    /// Starts it and waits until it serves; then `names` has its process and addresses.
    pub(super) fn start(
        server: &Server,
        names: &mut Names,
        log: PathBuf,
        mut give_up: impl FnMut() -> bool,
    ) -> Result<Self, String> {
        if let Some(config) = &server.config {
            let path = log.with_extension("conf");
            std::fs::write(&path, names.fill(config)?)
                .map_err(|error| format!("{} cannot be written: {error}", path.display()))?;
            names
                .0
                .insert("config", std::path::absolute(&path).map_err(|error| error.to_string())?.display().to_string());
        }
        let command = server.command.iter().map(|word| names.fill(word)).collect::<Result<Vec<_>, _>>()?;
        File::create(&log).map_err(|error| format!("{} cannot be written: {error}", log.display()))?;
        let child = spawn(&command, server.cpus.as_deref(), &log)?;
        names.0.insert("pid", child.id().to_string());
        let mut running = Self { child, command, cpus: server.cpus.clone(), log, comes_back: server.respawn };
        let deadline = Instant::now() + Duration::from_secs_f64(server.patience);
        loop {
            if running.serves(server, names) {
                return Ok(running);
            }
            let ended = running.child.try_wait().map_err(|error| error.to_string())?;
            let why = match ended {
                Some(status) => format!("ended with {status}"),
                None if give_up() => "is not awaited any longer".to_owned(),
                None if Instant::now() > deadline => format!("did not serve within {} s", server.patience),
                None => {
                    std::thread::sleep(Duration::from_millis(20));
                    continue;
                }
            };
            let said = super::last_line(&running.log);
            running.stop();
            return Err(format!("the server {why}; {said}"));
        }
    }

    fn serves(&self, server: &Server, names: &mut Names) -> bool {
        if let Some(port) = &server.port {
            return TcpStream::connect(port).is_ok();
        }
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let Some(ready) = &server.ready else { return false };
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let Some(line) = whole.lines().find(|line| line.contains(ready.as_str())) else { return false };
        addresses(line, names);
        true
    }

    /// Starts it again if it has ended and is to come back.
    pub(super) fn respawn(&mut self) -> Result<(), String> {
        if self.comes_back && self.child.try_wait().map_err(|error| error.to_string())?.is_some() {
            self.child = spawn(&self.command, self.cpus.as_deref(), &self.log)?;
        }
        Ok(())
    }

    /// Ends it with all that it started.
    pub(super) fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let group = Pid::from_child(&self.child);
        let deadline = Instant::now() + STOP_MAX;
        let _ = kill_process_group(group, Signal::TERM); // it may have ended
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = kill_process_group(group, Signal::KILL);
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.end();
        }
    }
}

/// The addresses in Halley's ready line.
fn addresses(line: &str, names: &mut Names) {
    let Ok(line) = serde_json::from_str::<Value>(line) else { return };
    let mut put = |name, address: &Value| {
        if let Some(address) = address.as_str() {
            names.0.entry(name).or_insert_with(|| address.to_owned());
        }
    };
    put("api", &line["api"]);
    for listener in line["listeners"].as_array().into_iter().flatten() {
        let name = if listener["transport"] == "ws" { "ws" } else { "tcp" };
        put(name, &listener["address"]);
    }
}

/// Starts a process in a group of its own, on these CPUs, its output at the end of the log.
fn spawn(command: &[String], cpus: Option<&str>, log: &Path) -> Result<Child, String> {
    let failed = |error: std::io::Error| format!("{} cannot be started: {error}", command[0]);
    let output = OpenOptions::new().append(true).open(log).map_err(failed)?;
    let both = output.try_clone().map_err(failed)?;
    let mut process = Command::new(&command[0]);
    process.args(&command[1..]).stdin(Stdio::null()).stdout(output).stderr(both).process_group(0);
    // A child has the CPUs of the thread that started it.
    let start = || {
        cpus.map_or(Ok(()), machine::pin)?;
        process.spawn().map_err(failed)
    };
    std::thread::scope(|scope| scope.spawn(start).join()).unwrap_or_else(|_| Err("no thread could start it".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_filled_and_other_braces_stay() {
        let names = Names::example();
        assert_eq!(names.fill("tcp://{tcp}/{room}").unwrap(), "tcp://127.0.0.1:1/{room}");
        assert_eq!(names.fill(r#"{"a":{}} {pid}"#).unwrap(), r#"{"a":{}} 1"#);
        assert!(names.fill("{nobody}").is_err());
    }

    #[test]
    fn the_first_address_of_each_kind_counts() {
        let mut names = Names(BTreeMap::new());
        let line = r#"{"event":"ready","listeners":[{"transport":"tcp","address":"a:1"},{"transport":"tcp","address":"a:2"},
            {"transport":"ws","address":"a:3"}],"api":"a:4"}"#;
        addresses(line, &mut names);
        assert_eq!(names.fill("{tcp} {ws} {api}").unwrap(), "a:1 a:3 a:4");
        addresses("no JSON", &mut names);
    }
}
