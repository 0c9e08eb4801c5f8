//! The file of a suite: read, and refused as a whole before anything is started.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use clap::Parser;
use serde::Deserialize;

use super::server::Names;
use crate::cli::Cli;

/// A suite.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suite {
    /// The heading of the page, and the folder of the results.
    pub name: String,
    /// Runs of each case.
    #[serde(default = "three")]
    pub repeat: u32,
    /// Servers by name.
    #[serde(default)]
    pub server: BTreeMap<String, Server>,
    /// What is measured, in this order.
    pub case: Vec<Case>,
}

/// A server that is started for each run.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Written to a file whose path is `{config}`.
    pub config: Option<String>,
    /// CPUs that it may use, such as `0`.
    pub cpus: Option<String>,
    /// Text in a line of its output that says that it serves. If that line is JSON with `listeners`
    /// and `api`, as Halley writes it, `{tcp}`, `{ws}` and `{api}` are its addresses.
    pub ready: Option<String>,
    /// Address that takes connections when it serves.
    pub port: Option<String>,
    /// Seconds until that must have come.
    #[serde(default = "half_a_minute")]
    pub patience: f64,
    /// Started again if it ends during a run, for runs that kill it.
    #[serde(default)]
    pub respawn: bool,
}

/// A scenario with its flags.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// Names the files of its runs.
    pub name: String,
    /// Command of this program.
    pub scenario: String,
    /// The server it needs.
    pub server: Option<String>,
    /// Flags, with placeholders.
    #[serde(default)]
    pub flags: Vec<String>,
    /// CPUs of the generator.
    pub cpus: Option<String>,
    /// Runs, if not as many as of the others.
    pub repeat: Option<u32>,
}

fn three() -> u32 {
    3
}

fn half_a_minute() -> f64 {
    30.0
}

impl Suite {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// A sentence that names the file.
    pub fn read(path: &Path) -> Result<Self, String> {
        let in_file = |sentence: String| format!("{}: {sentence}", path.display());
        let text = std::fs::read_to_string(path).map_err(|error| in_file(error.to_string()))?;
        Self::parse(&text).map_err(in_file)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let suite: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        let mut seen = BTreeSet::new();
        for case in &suite.case {
            let in_case = |sentence: String| format!("case {}: {sentence}", case.name);
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            if !case.name.bytes().all(is_plain) || !case.name.starts_with(|first: char| first.is_ascii_alphanumeric()) {
                return Err(in_case("a name of letters, digits, - _ and . is needed: files are called so".to_owned()));
            }
            if !seen.insert(&case.name) {
                return Err(in_case("the name is taken".to_owned()));
            }
            if let Some(server) = &case.server
                && !suite.server.contains_key(server)
            {
                return Err(in_case(format!("there is no [server.{server}]")));
            }
            case.check().map_err(in_case)?;
        }
        for (name, server) in &suite.server {
            if server.command.is_empty() || server.ready.is_none() == server.port.is_none() {
                return Err(format!("server {name}: a command is needed, and either `ready` or `port`"));
            }
        }
        Ok(suite)
    }
}

impl Case {
    /// Whether the program would take the flags, as far as can be known before a server runs.
    fn check(&self) -> Result<(), String> {
        if !self.scenario.starts_with(|first: char| first.is_ascii_lowercase())
            || ["suite", "report"].contains(&self.scenario.as_str())
        {
            return Err(format!("{} is no scenario", self.scenario));
        }
        let names = Names::example();
        let flags = self.flags.iter().map(|flag| names.fill(flag)).collect::<Result<Vec<_>, _>>()?;
        let words = ["halley-bench".to_owned(), self.scenario.clone()].into_iter().chain(flags);
        Cli::try_parse_from(words)
            .map(drop)
            .map_err(|error| error.to_string().lines().next().unwrap_or_default().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        name = "s"
        [server.halley]
        command = ["{bin}/halley", "--dev"]
        ready = "ready"
        [[case]]
        name = "a"
        scenario = "broadcast"
        server = "halley"
        flags = ["--target=tcp://{tcp}", "--push=http://{api}", "--server-pid={pid}"]
    "#;

    #[test]
    fn a_suite_has_three_runs_a_case_if_nobody_says_otherwise() {
        let suite = Suite::parse(GOOD).unwrap();
        assert_eq!((suite.repeat, suite.case[0].repeat), (3, None));
    }

    #[test]
    fn what_would_fail_after_an_hour_is_refused_at_once() {
        for (from, to, said) in [
            ("--push=http", "--pusch=http", "--pusch"),
            ("{api}", "{apy}", "{apy}"),
            ("\"broadcast\"", "\"broadcat\"", "broadcat"),
            ("\"broadcast\"", "\"suite\"", "no scenario"),
            ("server = \"halley\"", "server = \"bun\"", "[server.bun]"),
            ("name = \"a\"", "name = \"../a\"", "letters"),
            ("ready = \"ready\"", "", "`ready` or `port`"),
            ("flags =", "flgas =", "flgas"),
        ] {
            let failure = Suite::parse(&GOOD.replace(from, to)).unwrap_err();
            assert!(failure.contains(said), "{said} is not in: {failure}");
        }
        let twice = format!("{GOOD}\n[[case]]\nname = \"a\"\nscenario = \"floor\"");
        assert!(Suite::parse(&twice).unwrap_err().contains("taken"));
    }

    #[test]
    fn every_suite_of_the_repository_can_be_run() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("suites");
        let files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
        assert!(!files.is_empty());
        for file in files {
            Suite::read(&file).unwrap();
        }
    }
}
