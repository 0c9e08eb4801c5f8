//! `cargo xtask kafka`: starts and ends the broker that a developer tries Halley with.
use std::path::Path;

use xtask::kafka::{Broker, Jars, Result};

const USAGE: &str = "\
Usage: cargo xtask kafka COMMAND

Commands:
  up [NAME=VALUE...]       start a broker (with these lines in its server.properties) and print its address
  topic NAME PARTITIONS    make a topic
  down                     stop the broker; what it holds stays for the next up
  fetch                    what up does first: get Kafka from Maven Central";

/// Does what the command line says; true if that worked.
pub(crate) fn run(root: &Path, arguments: &[&str]) -> bool {
    match command(root, arguments) {
        Ok(said) => {
            println!("{said}");
            true
        }
        Err(why) => {
            eprintln!("{why}");
            false
        }
    }
}

fn command(root: &Path, arguments: &[&str]) -> Result<String> {
    let folder = root.join("target/kafka/broker");
    let running = || Broker::running(&folder).ok_or("no broker runs; start one with: cargo xtask kafka up");
    match arguments {
        ["up", properties @ ..] => {
            if let Some(broker) = Broker::running(&folder) {
                return Ok(broker.address());
            }
            Ok(Broker::start(&Jars::fetch()?, &folder, &properties.join("\n"))?.address())
        }
        ["topic", name, partitions] => {
            let partitions = partitions.parse().map_err(|_| format!("{partitions} is no number of partitions"))?;
            running()?.create_topic(name, partitions).map(|()| format!("{name} is there"))
        }
        ["down"] => match Broker::running(&folder) {
            Some(broker) => broker.stop().map(|()| "stopped".into()),
            None => Ok("no broker runs".into()),
        },
        ["fetch"] => Jars::fetch().map(|_| "ready".into()),
        _ => Err(USAGE.into()),
    }
}
