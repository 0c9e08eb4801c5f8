//! The program as a child process: started on ports that the kernel picks, ended by its own process id.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use serde_json::Value;
use tempfile::TempDir;

use super::PATIENCE;

/// Two shards, an API without a token, and one listener of each transport that lets everybody in.
pub(crate) const OPEN: &str = "\
connections_max = 256
shards = 2
[api]
bind = \"127.0.0.1:0\"
auth = \"none\"
";

/// TCP first, WebSocket second; what a test appends belongs to the second.
pub(crate) const LISTENERS: &str = "\
[[listener]]
bind = \"127.0.0.1:0\"
transport = \"tcp\"
login = \"open\"
[[listener]]
bind = \"127.0.0.1:0\"
transport = \"ws\"
login = \"open\"
";

/// A gateway that serves, until it is stopped or dropped.
pub(crate) struct Gateway {
    child: Child,
    /// Addresses of the listeners in the order of the configuration.
    pub(crate) listeners: Vec<SocketAddr>,
    pub(crate) api: SocketAddr,
    /// goim v1's.
    pub(crate) api_v1: Option<SocketAddr>,
    /// Standard error so far.
    log: Arc<Mutex<String>>,
    folder: Option<TempDir>,
}

impl Gateway {
    /// One of each transport, two shards, everybody let in.
    pub(crate) fn open() -> Self {
        Self::start(&format!("{OPEN}{LISTENERS}"))
    }

    /// The same with further keys for both listeners.
    pub(crate) fn with_listener_keys(keys: &str) -> Self {
        Self::start(&format!("{OPEN}{}", listeners_with(keys)))
    }

    /// A gateway with this configuration file.
    pub(crate) fn start(configuration: &str) -> Self {
        let folder = folder_with(configuration);
        let mut command = halley();
        command.arg("--config").arg("halley.toml").current_dir(folder.path());
        Self::run(command, Some(folder))
    }

    /// `halley --dev` on these addresses: TCP, WebSocket, API.
    pub(crate) fn dev(addresses: [SocketAddr; 3]) -> Self {
        let mut command = halley();
        for (name, address) in ["HALLEY__DEV__TCP", "HALLEY__DEV__WS", "HALLEY__API__BIND"].into_iter().zip(addresses) {
            command.env(name, address.to_string());
        }
        command.arg("--dev");
        Self::run(command, None)
    }

    /// Runs what `command` starts, in its folder.
    pub(crate) fn run(mut command: Command, folder: Option<TempDir>) -> Self {
        command.stdout(Stdio::null());
        Self::run_with_output(command, folder)
    }

    /// The same with the command's own standard output.
    pub(crate) fn run_with_output(mut command: Command, folder: Option<TempDir>) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the binary starts");
        let log = Arc::<Mutex<String>>::default();
        let ready = follow(&mut child, &log).recv_timeout(PATIENCE);
        let Ok(ready) = ready else {
            let _ = child.kill();
            let why = if ready == Err(RecvTimeoutError::Timeout) { "is not ready in time" } else { "ended" };
            panic!("the gateway {why}: {}", log.lock().expect("a reader that lives"));
        };
        let address = |value: &Value| value.as_str().expect("an address").parse::<SocketAddr>().expect("an address");
        let listeners = ready["listeners"].as_array().expect("listeners");
        Self {
            listeners: listeners.iter().map(|listener| address(&listener["address"])).collect(),
            api: address(&ready["api"]),
            api_v1: ready.get("api_v1").map(address),
            child,
            log,
            folder,
        }
    }

    /// Where its configuration lies.
    #[allow(dead_code, reason = "some of the tests write it again")]
    pub(crate) fn folder(&self) -> &std::path::Path {
        self.folder.as_ref().expect("started with a file").path()
    }

    pub(crate) fn tcp(&self) -> SocketAddr {
        self.listeners[0]
    }

    pub(crate) fn ws(&self) -> SocketAddr {
        self.listeners[1]
    }

    /// Standard error so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().expect("a reader that lives").clone()
    }

    /// The first line of this event, once it is there.
    #[allow(dead_code, reason = "some of the tests read lines")]
    pub(crate) fn log_line(&self, event: &str) -> Value {
        let mut found = None;
        super::until(event, || {
            let log = self.log();
            let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            found = lines.find(|line| line["event"] == event);
            found.is_some()
        });
        found.expect("it was found")
    }

    /// Sends SIGTERM to this process and no other.
    pub(crate) fn terminate(&self) {
        self.signal(rustix::process::Signal::TERM);
    }

    /// Sends a signal to this process and no other.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw).expect("a process id");
        rustix::process::kill_process(pid, signal).expect("the child is there");
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        until_exit(&mut self.child)
    }

    /// SIGTERM, and its end with exit code 0.
    pub(crate) fn stop(mut self) {
        self.terminate();
        let status = self.wait();
        assert!(status.success(), "{status}: {}", self.log());
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It has ended already, unless the test failed or did not care.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for a child's end; one that does not come is killed.
pub(crate) fn until_exit(child: &mut Child) -> ExitStatus {
    let since = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("a child of this process") {
            return status;
        }
        if since.elapsed() > PATIENCE {
            let _ = child.kill();
            panic!("the process does not end");
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// Runs `halley` with a configuration that must not start, and says how it ended.
pub(crate) fn output(configuration: &str, wrapper: Option<&str>) -> Output {
    let folder = folder_with(configuration);
    // A shell that sets something and becomes the gateway.
    let mut command = wrapper.map_or_else(halley, |script| {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("{script}; exec \"$0\" \"$@\"")).arg(env!("CARGO_BIN_EXE_halley"));
        clean(shell)
    });
    command.args(["--config", "halley.toml"]);
    command.current_dir(folder.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary starts");
    let status = until_exit(&mut child);
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    child.stdout.take().expect("piped").read_to_end(&mut stdout).expect("its output");
    child.stderr.take().expect("piped").read_to_end(&mut stderr).expect("its output");
    Output { status, stdout, stderr }
}

pub(crate) fn halley() -> Command {
    clean(Command::new(env!("CARGO_BIN_EXE_halley")))
}

/// Without what the caller's environment may say about a gateway.
fn clean(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HALLEY__") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

pub(crate) fn folder_with(configuration: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("halley.toml"), configuration).expect("a writable folder");
    folder
}

fn listeners_with(keys: &str) -> String {
    LISTENERS.replace("login = \"open\"\n", &format!("login = \"open\"\n{keys}\n"))
}

/// Reads standard error to its end on a thread of its own; the ready line comes out of the channel.
fn follow(child: &mut Child, log: &Arc<Mutex<String>>) -> Receiver<Value> {
    let (found, ready) = channel();
    let (stderr, log) = (child.stderr.take().expect("piped"), Arc::clone(log));
    std::thread::spawn(move || {
        let mut found = Some(found);
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            let value = serde_json::from_str::<Value>(&line).unwrap_or_default();
            log.lock().expect("a test that lives").extend([&*line, "\n"]);
            if value["event"] == "ready"
                && let Some(found) = found.take()
            {
                let _ = found.send(value);
            }
        }
    });
    ready
}
