//! `halley push`: a message from the shell, or a pipe of them, to any number of targets.

use std::fs;
use std::io::{self, BufRead as _, Read as _};
use std::path::Path;
use std::process::ExitCode;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use gateway::dispatch::Target;
use gateway::source;
use gateway::source::kafka::Pusher;
use halley_protocol::job::{self, Job};
use serde_json::{Value, json};

use crate::{caller, cli};

/// Pushes; 0: all were taken, 1: one was not, 2: the call is wrong.
pub(crate) fn run(options: &cli::Push) -> ExitCode {
    let mut way = match targets(&options.targets).and_then(|targets| Way::new(options, targets)) {
        Ok(way) => way,
        Err(problem) => return end(&problem, 2),
    };
    let pushed = each_message(options, |message| way.push(message)).and_then(|()| way.finish());
    pushed.map_or_else(|problem| end(&problem, 1), |()| ExitCode::SUCCESS)
}

fn end(problem: &str, code: u8) -> ExitCode {
    eprintln!("halley push: {problem}");
    ExitCode::from(code)
}

fn each_message(options: &cli::Push, mut push: impl FnMut(&[u8]) -> Result<(), String>) -> Result<(), String> {
    let broken = |error: io::Error| format!("standard input: {error}");
    if let Some(text) = &options.text {
        return push(text.as_bytes());
    }
    if options.lines {
        return io::stdin().lock().split(b'\n').try_for_each(|line| push(&line.map_err(broken)?));
    }
    let mut message = Vec::new();
    io::stdin().lock().read_to_end(&mut message).map_err(broken)?;
    push(&message)
}

/// Keys and members of one call are one push; every room is its own.
fn targets(words: &[String]) -> Result<Vec<Target>, String> {
    let (mut keys, mut members, mut targets) = (Vec::new(), Vec::new(), Vec::new());
    for word in words {
        match word.split_once(':') {
            Some(("room", room)) if !room.is_empty() => targets.push(Target::Room(room.into())),
            Some(("key", key)) if !key.is_empty() => keys.push(key.to_owned()),
            Some(("member", member)) => {
                members.push(member.parse().map_err(|_| format!("\"{member}\" is no member: it is a number"))?);
            }
            None if word == "all" => targets.push(Target::All),
            _ => return Err(format!("\"{word}\" is no target: use room:NAME, key:KEY, member:N or all")),
        }
    }
    targets.extend((!keys.is_empty()).then_some(Target::Keys(keys)));
    targets.extend((!members.is_empty()).then_some(Target::Members(members)));
    Ok(targets)
}

/// Where messages go.
enum Way {
    Api { stream: caller::Line, head: String, targets: Vec<Value>, operation: i32 },
    Kafka { pusher: Pusher, targets: Vec<Target>, operation: i32 },
}

impl Way {
    fn new(options: &cli::Push, targets: Vec<Target>) -> Result<Self, String> {
        let operation = options.operation;
        if let Some(place) = &options.kafka {
            let (brokers, topic) = place.rsplit_once('/').ok_or("--kafka: write BROKERS/TOPIC")?;
            let properties = options.kafka_config.as_deref().map_or(Ok(Vec::new()), properties)?;
            return Ok(Self::Kafka { pusher: Pusher::new(brokers, topic, properties)?, targets, operation });
        }
        let stream = caller::connect(&options.api, options.ca.as_deref())?;
        let head = caller::head("/v1/push", &options.api, options.token.as_deref())?;
        let targets = targets.iter().map(as_json).collect();
        Ok(Self::Api { stream, head, targets, operation })
    }

    fn push(&mut self, message: &[u8]) -> Result<(), String> {
        match self {
            Self::Api { stream, head, targets, operation } => {
                let payload = match str::from_utf8(message) {
                    Ok(text) => json!({ "text": text }),
                    Err(_) => json!({ "base64": BASE64_STANDARD.encode(message) }),
                };
                let push = |target: &Value| json!({"target": target, "operation": operation, "payload": payload});
                let body = Value::Array(targets.iter().map(push).collect()).to_string();
                println!("{}", taken(caller::call(stream, head, &body)?)?);
                Ok(())
            }
            Self::Kafka { pusher, targets, operation } => targets.iter().try_for_each(|target| {
                let job: Job<'_> = source::job(target.clone(), *operation, message);
                job::check(&job, &source::JOB_LIMITS).map_err(|reject| format!("no job: {}", reject.name()))?;
                pusher.push(&job)
            }),
        }
    }

    fn finish(&self) -> Result<(), String> {
        match self {
            Self::Api { .. } => Ok(()),
            Self::Kafka { pusher, .. } => {
                println!("{{\"acknowledged\":{}}}", pusher.finish()?);
                Ok(())
            }
        }
    }
}

/// Names and values from a file. What is wrong is said without them: they may be secrets.
fn properties(file: &Path) -> Result<Vec<(String, String)>, String> {
    let place = || format!("--kafka-config {}", file.display());
    let text = fs::read_to_string(file).map_err(|error| format!("{}: {error}", place()))?;
    let lines = text.lines().map(str::trim).enumerate();
    let said = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    said.map(|(at, line)| {
        let (name, value) = line.split_once('=').ok_or_else(|| format!("{}:{}: write name=value", place(), at + 1))?;
        Ok((name.trim().to_owned(), value.trim().to_owned()))
    })
    .collect()
}

fn as_json(target: &Target) -> Value {
    match target {
        Target::Room(room) => json!({ "room": room }),
        Target::Keys(keys) => json!({ "keys": keys }),
        Target::Members(members) => json!({ "members": members }),
        Target::All => json!({ "all": true }),
    }
}

/// The body of an answer if that is 200 and no result has an error.
fn taken((status, body): (String, String)) -> Result<String, String> {
    let answer: Value = serde_json::from_str(&body).unwrap_or_default();
    let refused = answer["results"].as_array().is_none_or(|results| results.iter().any(|one| one["error"].is_object()));
    if !status.starts_with("200") || refused {
        return Err(format!("refused: HTTP/1.1 {status} {body}"));
    }
    Ok(body)
}
