//! One Apache Kafka broker (`KRaft`: broker and controller in one) on loopback: for tests, and for trying Halley.
//!
//! The jars come from Maven Central into `target/kafka/lib` once, with a class archive that halves the start. A broker
//! lives in a folder: `server.properties`, `kafka.log`, `pid`, `port` and `data`. Started again in the same
//! folder, it has the same data and the same port.

mod jars;
mod wire;

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

pub use jars::{Jars, lacks, lacks_compiler};

/// Longest wait for a broker that starts or ends.
const PATIENCE: Duration = Duration::from_mins(1);

/// Starts before giving up on ports that others take between the look and the bind.
const ATTEMPTS: usize = 5;

/// What goes wrong with a broker, in one sentence.
pub type Result<T> = std::result::Result<T, String>;

/// A broker that runs.
#[derive(Debug)]
pub struct Broker {
    folder: PathBuf,
    port: u16,
    pid: u32,
    /// The process, if it is this one's child. One that was found running is not.
    child: Option<Child>,
    /// Kills the broker when this process is gone, however that comes about.
    guard: Option<Child>,
}

impl Broker {
    /// Starts the broker of this folder, made if it is not there, and waits until it serves; it goes on when this
    /// process ends. `properties` are further
    /// lines of its `server.properties`, in which `{PORT}` and `{CONTROLLER}` stand for its two ports.
    pub fn start(jars: &Jars, folder: &Path, properties: &str) -> Result<Self> {
        fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        if let Some(running) = Self::running(folder) {
            return Err(format!("a broker runs in {} already (pid {})", folder.display(), running.pid));
        }
        let fixed = read_number(&folder.join("port")).and_then(|port| u16::try_from(port).ok());
        for _ in 0..ATTEMPTS {
            let port = fixed.map_or_else(free_port, Ok)?;
            let mut broker = spawn(jars, folder, port, properties)?;
            if broker.wait_until_it_serves()? {
                return Ok(broker);
            }
        }
        Err(format!("no port to bind, see {}", folder.join("kafka.log").display()))
    }

    /// Binds its life to that of this process: for tests, which may end in any way.
    pub fn guarded(mut self) -> Result<Self> {
        let mut guard = Command::new("sh");
        guard.args(["-c", "read -r _; kill -9 \"$0\""]).arg(self.pid.to_string());
        guard.stdin(Stdio::piped()).stderr(Stdio::null()).process_group(0);
        self.guard = Some(guard.spawn().map_err(|error| format!("sh: {error}"))?);
        Ok(self)
    }

    /// The broker that runs in this folder.
    pub fn running(folder: &Path) -> Option<Self> {
        let pid = u32::try_from(read_number(&folder.join("pid"))?).ok()?;
        let port = u16::try_from(read_number(&folder.join("port"))?).ok()?;
        let broker = Self { folder: folder.into(), port, pid, child: None, guard: None };
        broker.lives().then_some(broker)
    }

    /// Where clients connect first.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Makes a topic, or says why not. One that is there already is left as it is.
    pub fn create_topic(&self, name: &str, partitions: u32) -> Result<()> {
        wire::create_topic(self.port, name, partitions)
    }

    /// Ends it with SIGTERM, and with SIGKILL if that takes too long.
    pub fn stop(mut self) -> Result<()> {
        self.signal("TERM")?;
        if !self.ends_within(PATIENCE) {
            self.signal("KILL")?;
        }
        self.gone()
    }

    /// Ends it with SIGKILL, as a crash does.
    pub fn kill(mut self) -> Result<()> {
        self.signal("KILL")?;
        self.gone()
    }

    /// Sends a signal (`STOP`, `CONT`) to its process and no other.
    pub fn signal(&self, name: &str) -> Result<()> {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.pid.to_string()).status();
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("kill -{name} {}: {status}", self.pid)),
            Err(error) => Err(format!("kill: {error}")),
        }
    }

    fn gone(&mut self) -> Result<()> {
        if let Some(mut guard) = self.guard.take() {
            // Its process id must not be killed once it means another process.
            let _ = guard.kill();
            let _ = guard.wait();
        }
        if !self.ends_within(PATIENCE) {
            return Err(format!("pid {} does not end", self.pid));
        }
        // Only a note for whoever looks for a running broker.
        let _ = fs::remove_file(self.folder.join("pid"));
        Ok(())
    }

    fn ends_within(&mut self, time: Duration) -> bool {
        let since = Instant::now();
        while self.lives() {
            if let Some(child) = &mut self.child {
                // A child stays in the table until somebody asks for its status.
                let _ = child.try_wait();
            }
            if since.elapsed() > time {
                return false;
            }
            sleep(Duration::from_millis(10));
        }
        true
    }

    /// Whether its process is there and is a broker of this folder.
    fn lives(&self) -> bool {
        let line = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        let properties = self.folder.join("server.properties");
        line.split(|byte| *byte == 0).any(|argument| argument == properties.as_os_str().as_encoded_bytes())
    }

    /// False if it ended because its port was taken.
    fn wait_until_it_serves(&mut self) -> Result<bool> {
        let since = Instant::now();
        while !wire::serves(self.port) {
            let ended = self.child.as_mut().is_some_and(|child| child.try_wait().is_ok_and(|status| status.is_some()));
            let log = || fs::read_to_string(self.folder.join("kafka.log")).unwrap_or_default();
            if ended {
                let text = log();
                if text.contains("BindException") || text.contains("failed to bind") {
                    return Ok(false);
                }
                return Err(format!("the broker ended: {}", last_lines(&text)));
            }
            if since.elapsed() > PATIENCE {
                let _ = self.signal("KILL");
                return Err(format!("the broker does not serve: {}", last_lines(&log())));
            }
            sleep(Duration::from_millis(50));
        }
        Ok(true)
    }
}

fn spawn(jars: &Jars, folder: &Path, port: u16, properties: &str) -> Result<Broker> {
    let text = server_properties(folder, port, properties)?;
    fs::write(folder.join("server.properties"), text).map_err(named("server.properties"))?;
    jars.format(folder)?;
    let log = File::create(folder.join("kafka.log")).map_err(named("kafka.log"))?;
    let errors = log.try_clone().map_err(named("kafka.log"))?;
    let mut command = jars.broker();
    command.arg(folder.join("server.properties")).stdin(Stdio::null()).stdout(log).stderr(errors);
    // A group of its own: an interrupt at the terminal is not for the broker.
    let child = command.process_group(0).spawn().map_err(named("java"))?;
    let broker = Broker { folder: folder.into(), port, pid: child.id(), child: Some(child), guard: None };
    fs::write(folder.join("pid"), broker.pid.to_string()).map_err(named("pid"))?;
    fs::write(folder.join("port"), port.to_string()).map_err(named("port"))?;
    Ok(broker)
}

fn named(what: &'static str) -> impl Fn(io::Error) -> String {
    move |error| format!("{what}: {error}")
}

/// Small, quick to start and to be let in again after a crash, and nothing made or removed that nobody asked for: tests write
/// records with the timestamps of old ones.
fn server_properties(folder: &Path, port: u16, further: &str) -> Result<String> {
    let controller = free_port()?;
    let further = further.replace("{PORT}", &port.to_string()).replace("{CONTROLLER}", &controller.to_string());
    let data = folder.join("data");
    // A further line of the same name counts: Java's properties take the last.
    Ok(format!(
        "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:{controller}\n\
         listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{port}\ncontroller.listener.names=CONTROLLER\n\
         listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT\n\
         log.dirs={}\nauto.create.topics.enable=false\noffsets.topic.num.partitions=1\n\
         offsets.topic.replication.factor=1\ntransaction.state.log.num.partitions=1\n\
         transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n\
         group.initial.rebalance.delay.ms=0\nnum.network.threads=2\nnum.io.threads=2\nbackground.threads=2\n\
         broker.heartbeat.interval.ms=200\nbroker.session.timeout.ms=2000\nlog.cleaner.dedupe.buffer.size=4194304\n\
         log.index.size.max.bytes=1048576\nlog.segment.bytes=268435456\nlog.retention.ms=-1\n{further}\n",
        data.display()
    ))
}

/// A port that the kernel picks.
fn free_port() -> Result<u16> {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    socket.map(|address| address.port()).map_err(|error| format!("no free port: {error}"))
}

fn read_number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}
