//! Manual pages and completions, from the command lines themselves.
use std::io;

use clap::{Command, CommandFactory as _};
use clap_complete::Shell;

use crate::files::File;

/// The gateway's command line alone: all of the gateway would have to be built for it otherwise.
#[path = "../../gateway/src/cli.rs"]
#[allow(dead_code, reason = "only its description is read here")]
mod gateway;

/// Where each shell looks for what it completes.
const COMPLETIONS: [(Shell, &str, &str); 3] = [
    (Shell::Bash, "usr/share/bash-completion/completions/", ""),
    (Shell::Zsh, "usr/share/zsh/vendor-completions/_", ""),
    (Shell::Fish, "usr/share/fish/vendor_completions.d/", ".fish"),
];

/// Pages and completions of every program.
pub(crate) fn manuals() -> io::Result<Vec<File>> {
    let commands = [gateway::Cli::command(), tuning::cli::Cli::command(), bench::cli::Cli::command()];
    let mut files = Vec::new();
    for mut command in commands {
        let program = command.get_name().to_owned();
        for (shell, before, after) in COMPLETIONS {
            let mut bytes = Vec::new();
            clap_complete::generate(shell, &mut command, program.clone(), &mut bytes);
            files.push(File::plain(format!("{before}{program}{after}"), bytes));
        }
        // Gives subcommands the names of their pages.
        command.build();
        files.push(page(&command)?);
        for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set() && inner.get_name() != "help") {
            files.push(page(inner)?);
        }
    }
    Ok(files)
}

fn page(command: &Command) -> io::Result<File> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let mut bytes = Vec::new();
    clap_mangen::Man::new(command.clone().version(crate::VERSION)).render(&mut bytes)?;
    Ok(File::plain(format!("usr/share/man/man1/{name}.1.gz"), crate::archives::packed(&bytes)?))
}
