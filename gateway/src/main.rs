//! The program `halley`: reads its command line and configuration, and starts the gateway.

mod admin;
mod caller;
mod cli;
mod log;
mod push;
mod token;

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use gateway::config::{Config, Host, Sources};
use gateway::control::reload::Outside;
use gateway::control::start;

use cli::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match &cli.command {
        Some(Command::Push(push)) => return push::run(push),
        Some(Command::Token(token)) => return token::run(token),
        Some(Command::Drain(admin)) => return admin::drain(admin),
        Some(Command::Reload(admin)) => return admin::reload(admin),
        None => {}
    }
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("halley: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(cli: &Cli) -> Result<(), Box<dyn std::error::Error>> {
    let host = Host::read()?;
    let config = Config::load(&sources(cli.config.as_deref(), cli.dev)?, &host)?;
    if cli.print_config {
        print!("{}", config.to_toml());
    } else if cli.check_config {
        println!(
            "the configuration is right: {} connections in {} shards",
            config.plan.connections_max, config.plan.shards
        );
    } else {
        let log = log::start(&config.settings.log);
        let (file, dev) = (cli.config.clone(), cli.dev);
        let outside = Outside {
            reread: Box::new(move || sources(file.as_deref(), dev)),
            host,
            set_log_level: Box::new({
                let log = log.clone();
                move |level| log.set_level(level)
            }),
            each_second: Box::new(move || log.tell_suppressed()),
        };
        start::run(config, outside, gateway::shard::run)?;
    }
    Ok(())
}

/// What the configuration is made of now: the file, or `--dev`, and the environment.
fn sources(config: Option<&Path>, dev: bool) -> Result<Sources, String> {
    let mut environment = Vec::new();
    for (name, value) in std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value))) {
        match value.into_string() {
            Ok(value) => environment.push((name, value)),
            Err(_) if name.starts_with("HALLEY__") => return Err(format!("environment {name}: is no UTF-8")),
            Err(_) => {}
        }
    }
    let file = match config {
        Some(path) => {
            let name = path.display().to_string();
            let text = std::fs::read_to_string(path).map_err(|cause| format!("cannot read {name}: {cause}"))?;
            Some((name, text))
        }
        None if dev => None,
        None => {
            return Err(
                "nothing to start: try it with `halley --dev`, or give a file with `halley --config FILE`".into()
            );
        }
    };
    Ok(Sources { file, environment })
}
