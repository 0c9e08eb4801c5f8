//! The broker's jars: fetched once by Maven, with a formatted data folder and an archive of loaded classes beside them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{Broker, Result};

/// Any 16 bytes in base64: the name of a cluster of one.
const CLUSTER: &str = "SGFsbGV5IGlzIGEgdGVzdA";

/// What a broker is started from.
#[derive(Clone, Debug)]
pub struct Jars {
    folder: PathBuf,
    /// Where the broker is to leave its class archive when it ends.
    recording: Option<PathBuf>,
}

/// Why this machine cannot run a broker.
pub fn lacks() -> Option<String> {
    let missing = ["java", "mvn"].into_iter().find(|program| {
        let run = Command::new(program).arg("-version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        !run.is_ok_and(|status| status.success())
    });
    missing.map(|program| format!("no {program} here (Debian: apt-get install default-jre-headless maven)"))
}

/// Why this machine's Java cannot run a program from its source. Debian's can, without packages for developers.
pub fn lacks_compiler() -> Option<String> {
    let output = Command::new("java").arg("--list-modules").stdin(Stdio::null()).stderr(Stdio::null()).output();
    let modules = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let found = modules.lines().any(|module| module.starts_with("jdk.compiler"));
    (!found).then(|| "java here has no module jdk.compiler (Debian: apt-get install default-jre-headless)".into())
}

impl Jars {
    /// The jars in the target folder that this program was built into, fetched if they are not there. One process
    /// fetches, others wait for it.
    pub fn fetch() -> Result<Self> {
        let home = target()?.join("kafka");
        fs::create_dir_all(&home).map_err(|error| format!("{}: {error}", home.display()))?;
        let jars = Self { folder: home.join("lib"), recording: None };
        let lock = File::create(home.join("lock")).map_err(|error| format!("lock: {error}"))?;
        lock.lock().map_err(|error| format!("lock: {error}"))?;
        if !jars.folder.exists() {
            jars.download(&home)?;
        }
        if !jars.archive().exists() {
            jars.make_archive(&home)?;
        }
        Ok(jars)
    }

    fn download(&self, home: &Path) -> Result<()> {
        if let Some(why) = lacks() {
            return Err(why);
        }
        let (pom, part) = (home.join("pom.xml"), home.join("lib.part"));
        let _ = fs::remove_dir_all(&part);
        fs::write(&pom, include_str!("pom.xml")).map_err(|error| format!("pom.xml: {error}"))?;
        let mut mvn = Command::new("mvn");
        mvn.args(["-q", "-B", "-f"]).arg(&pom);
        mvn.arg("org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies");
        mvn.arg(format!("-DoutputDirectory={}", part.display())).stdin(Stdio::null());
        let output = mvn.output().map_err(|error| format!("mvn: {error}"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stdout);
            return Err(format!("mvn could not fetch Kafka: {}", said.lines().take(5).collect::<Vec<_>>().join(" ")));
        }
        fs::rename(&part, &self.folder).map_err(|error| format!("lib: {error}"))
    }

    /// Classes as they lie in memory after a start, which saves the next start half of its time.
    fn make_archive(&self, home: &Path) -> Result<()> {
        let (folder, part) = (home.join("first"), home.join("classes.part"));
        let _ = fs::remove_dir_all(&folder);
        let recording = Self { folder: self.folder.clone(), recording: Some(part.clone()) };
        let broker = Broker::start(&recording, &folder, "")?;
        broker.create_topic("first", 1)?;
        broker.stop()?;
        let _ = fs::remove_dir_all(&folder);
        fs::rename(&part, self.archive()).map_err(|error| format!("the class archive: {error}"))
    }

    fn archive(&self) -> PathBuf {
        self.folder.join("classes.jsa")
    }

    /// The broker but for its properties.
    pub(super) fn broker(&self) -> Command {
        let mut java = self.java();
        if let Some(recording) = &self.recording {
            java.arg(format!("-XX:ArchiveClassesAtExit={}", recording.display()));
        }
        java.arg("kafka.Kafka");
        java
    }

    /// A program of one source file that uses Kafka's classes; its arguments follow.
    pub fn program(&self, source: &Path) -> Command {
        let mut java = self.java();
        // Its standard output is its own.
        java.args(["-Xlog:disable", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]).arg(source);
        java
    }

    /// Java with its options and the class path; the class and its arguments follow.
    fn java(&self) -> Command {
        let mut java = Command::new("java");
        java.args(["-Xms256m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"]);
        java.args(["-XX:+ExitOnOutOfMemoryError", "-Djava.awt.headless=true", "-Djava.net.preferIPv4Stack=true"]);
        java.arg("-Dorg.slf4j.simpleLogger.log.org.apache.kafka.common.config.AbstractConfig=warn");
        if self.archive().exists() {
            java.arg(format!("-XX:SharedArchiveFile={}", self.archive().display()));
        }
        java.arg("-cp").arg(self.folder.join("*"));
        java
    }

    /// Formats the broker's data folder if it is new. What is formatted knows no port: it is made once and copied.
    pub(super) fn format(&self, folder: &Path) -> Result<()> {
        let (data, formatted) = (folder.join("data"), self.folder.join("formatted"));
        if data.join("meta.properties").exists() {
            return Ok(());
        }
        if formatted.exists() {
            return copy(&formatted, &data).map_err(|error| format!("{}: {error}", data.display()));
        }
        let mut java = self.java();
        java.args(["kafka.tools.StorageTool", "format", "-t", CLUSTER, "-c"]).arg(folder.join("server.properties"));
        let output = java.stdin(Stdio::null()).output().map_err(|error| format!("java: {error}"))?;
        if !output.status.success() {
            return Err(format!("formatting: {}", String::from_utf8_lossy(&output.stderr)));
        }
        // The first broker of all is started while others wait at the lock: nobody sees half of it.
        copy(&data, &formatted).map_err(|error| format!("{}: {error}", formatted.display()))
    }
}

/// Copies a folder.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

/// The target folder that this program lies in, which cargo marks.
fn target() -> Result<PathBuf> {
    let program = std::env::current_exe().map_err(|error| format!("this program: {error}"))?;
    let target = program.ancestors().find(|folder| folder.join("CACHEDIR.TAG").exists());
    target.map(Path::to_path_buf).ok_or_else(|| format!("{} lies in no target folder", program.display()))
}
