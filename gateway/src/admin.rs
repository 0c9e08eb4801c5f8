//! `halley drain` and `halley reload`: what an operator tells a running gateway, over its API.

use std::process::ExitCode;

use gateway::config::{Config, Host, Token};
use serde_json::Value;

use crate::{caller, cli};

/// Where the running gateway's API is unless something says otherwise.
const API: &str = "http://127.0.0.1:3111";

/// Begins to drain, and prints how it is going to be.
pub(crate) fn drain(options: &cli::Admin) -> ExitCode {
    run("drain", options, |body| println!("{body}"))
}

/// Reloads, and prints a line for each key that differs.
pub(crate) fn reload(options: &cli::Admin) -> ExitCode {
    run("reload", options, |body| {
        let answer: Value = serde_json::from_str(body).unwrap_or_default();
        let lines = |list: &str, before: &str| {
            let changes = answer[list].as_array().cloned().unwrap_or_default();
            for change in &changes {
                let text = |name: &str| change[name].as_str().unwrap_or_default().to_owned();
                println!("{before}{}: {} → {}", text("key"), text("old"), text("new"));
            }
            changes.len()
        };
        if lines("applied", "") + lines("needs_restart", "needs a restart: ") == 0 {
            println!("nothing has changed");
        }
    })
}

/// Calls; 0: done, 1: refused, 2: the call is wrong, or there is no connection to the API.
fn run(name: &str, options: &cli::Admin, print: impl Fn(&str)) -> ExitCode {
    let end = |problem: &str, code: u8| {
        eprintln!("halley {name}: {problem}");
        ExitCode::from(code)
    };
    let call = |(api, token): (String, Option<String>)| {
        ask(&format!("/v1/{name}"), &api, token.as_deref(), options.ca.as_deref())
    };
    let (status, body) = match place(options).and_then(call) {
        Ok(answer) => answer,
        Err(problem) => return end(&problem, 2),
    };
    if !status.starts_with('2') {
        let answer: Value = serde_json::from_str(&body).unwrap_or_default();
        if status.starts_with("401") {
            return end("the API asks for a token with the scope admin: --token, or HALLEY_TOKEN", 1);
        }
        return end(answer["error"]["message"].as_str().unwrap_or(&format!("{status} {body}")), 1);
    }
    print(&body);
    ExitCode::SUCCESS
}

fn ask(path: &str, api: &str, token: Option<&str>, ca: Option<&str>) -> Result<(String, String), String> {
    caller::call(&mut caller::connect(api, ca)?, &caller::head(path, api, token)?, "")
}

/// Address and token of the API: as the command line has them, else as the configuration does.
fn place(options: &cli::Admin) -> Result<(String, Option<String>), String> {
    let (mut api, mut token) = (options.api.clone(), options.token.clone());
    if let Some(path) = &options.config {
        let host = Host::read().map_err(|error| error.to_string())?;
        let mut sources = crate::sources(Some(path), false)?;
        if token.is_some() {
            // Those of the gateway may be where only the gateway reads them.
            sources.environment.push(("HALLEY__API__TOKENS".into(), "['from-the-command-line']".into()));
        }
        let config = Config::load(&sources, &host).map_err(|error| error.to_string())?;
        let theirs = &config.settings.api;
        if let Some(mut address) = theirs.bind.address {
            if address.ip().is_unspecified() {
                address.set_ip(if address.is_ipv4() {
                    [127, 0, 0, 1].into()
                } else {
                    std::net::Ipv6Addr::LOCALHOST.into()
                });
            }
            let scheme = if theirs.tls.is_some() { "https" } else { "http" };
            api.get_or_insert_with(|| format!("{scheme}://{address}"));
        }
        let plain = |token: &Token| if let Token::Plain(token) = token { Some(token.clone()) } else { None };
        token = token.or_else(|| theirs.tokens.iter().find_map(plain));
    }
    Ok((api.unwrap_or_else(|| API.into()), token))
}
