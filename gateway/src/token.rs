//! `halley token`: a new token of the API, and what the configuration knows it by.

use std::process::ExitCode;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use gateway::config::{HashedToken, Scope, TokenHash};
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::cli;

/// How tokens begin, so that one in the wrong place is recognised.
const PREFIX: &str = "halley_";

/// Random bytes of a token: nobody guesses it, nor from its hash.
const RANDOM_BYTES: usize = 32;

/// Prints the token, and the entry of `api.tokens` under it.
pub(crate) fn run(options: &cli::Token) -> ExitCode {
    let mut random = [0; RANDOM_BYTES];
    if SystemRandom::new().fill(&mut random).is_err() {
        eprintln!("halley token: the system gives no random bytes");
        return ExitCode::from(2);
    }
    let token = format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(random));
    match entry(options, &token) {
        Ok(entry) => {
            println!("{token}\n{entry}");
            ExitCode::SUCCESS
        }
        Err(problem) => {
            eprintln!("halley token: {problem}");
            ExitCode::from(2)
        }
    }
}

/// The entry, if the configuration will take it.
fn entry(options: &cli::Token, token: &str) -> Result<String, String> {
    let mut scopes: Vec<Scope> = options.scopes.iter().map(|scope| of(*scope)).collect();
    scopes.dedup();
    let token = HashedToken { name: options.name.clone(), hash: TokenHash::of(token.as_bytes()), scopes };
    token.check()?;
    let HashedToken { name, hash, scopes } = token;
    let scopes: Vec<_> = scopes.iter().map(|scope| scope.name()).collect();
    Ok(format!("{{ name = {name:?}, hash = \"{hash}\", scopes = {scopes:?} }}"))
}

fn of(scope: cli::Scope) -> Scope {
    match scope {
        cli::Scope::Push => Scope::Push,
        cli::Scope::Read => Scope::Read,
        cli::Scope::Admin => Scope::Admin,
    }
}
