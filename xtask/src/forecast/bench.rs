//! `halley-bench` as the one that connects.
use std::process::{Child, Command, Output, Stdio};

use super::parts::{API, Programs, TARGET};

/// A run that is over.
pub(super) struct Bench {
    wanted: u64,
    /// Everybody was in, and messages came through.
    pub(super) right: bool,
    /// Its last sentence, if not.
    pub(super) said: String,
}

/// A run that goes on.
pub(super) struct Running(Child);

impl Bench {
    /// So many clients, a message to them, and the end.
    pub(super) fn run(programs: &Programs, connections: u64, arguments: &[&str]) -> Self {
        let output = command(programs, connections, &[&["--patience", "6"], arguments].concat()).output();
        let output = output.expect("halley-bench runs");
        // 3: the machine was too busy for its latencies to mean anything, which nobody asks for here.
        let right = matches!(output.status.code(), Some(0 | 3)) && all_in(&output, connections);
        let said = String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default().trim().to_owned();
        Self { wanted: connections, right, said }
    }

    pub(super) fn start(programs: &Programs, connections: u64, arguments: &[&str]) -> Running {
        let mut command = command(programs, connections, arguments);
        Running(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("halley-bench runs"))
    }

    pub(super) fn is_in(&self) -> Result<(), String> {
        if self.right { Ok(()) } else { Err(format!("{} clients are not all in: {}", self.wanted, self.said)) }
    }

    /// All but one were in, and the run said so.
    pub(super) fn is_short_of_one(&self) -> Result<(), String> {
        let all_but_one = format!("{} of {}", self.wanted - 1, self.wanted);
        let short = !self.right && self.said.contains(&all_but_one);
        if short { Ok(()) } else { Err(format!("not {all_but_one} clients: {}", self.said)) }
    }
}

impl Running {
    pub(super) fn has_ended(&mut self) -> bool {
        self.0.try_wait().ok().flatten().is_some()
    }

    pub(super) fn stop(mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn command(programs: &Programs, connections: u64, arguments: &[&str]) -> Command {
    let mut command = programs.command("halley-bench", &[]);
    command.args(["broadcast", "--rate", "1", "--duration", "1", "--warmup", "0", "--settle", "0"]);
    command.args(["--target", &format!("tcp://{TARGET}"), "--push", &format!("http://{API}")]);
    command.args(["--connections", &connections.to_string(), "--threads", "1"]).args(arguments);
    command
}

/// Whether the table that it prints has every delivery.
fn all_in(output: &Output, connections: u64) -> bool {
    let table = String::from_utf8_lossy(&output.stdout).replace(',', "");
    table.split_whitespace().any(|word| word == connections.to_string())
}
