//! The program `halley`: reads its command line and configuration, and starts the gateway.

mod cli;
mod log;
mod push;
mod token;

use std::process::ExitCode;

use clap::Parser;
use gateway::config::{Config, Host, Sources};
use gateway::control::start;

use cli::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match &cli.command {
        Some(Command::Push(push)) => return push::run(push),
        Some(Command::Token(token)) => return token::run(token),
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
    let config = Config::load(&sources(cli)?, &Host::read()?)?;
    if cli.print_config {
        print!("{}", config.to_toml());
    } else if cli.check_config {
        println!(
            "the configuration is right: {} connections in {} shards",
            config.plan.connections_max, config.plan.shards
        );
    } else {
        log::start(&config.settings.log);
        start::run(config, gateway::shard::run)?;
    }
    Ok(())
}

fn sources(cli: &Cli) -> Result<Sources, String> {
    let environment =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let file = match &cli.config {
        Some(path) => {
            let name = path.display().to_string();
            let text = std::fs::read_to_string(path).map_err(|cause| format!("cannot read {name}: {cause}"))?;
            Some((name, text))
        }
        None if cli.dev => None,
        None => {
            return Err(
                "nothing to start: try it with `halley --dev`, or give a file with `halley --config FILE`".into()
            );
        }
    };
    Ok(Sources { file, environment: environment.collect() })
}
