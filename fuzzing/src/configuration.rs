//! `halley.toml`: refused in one sentence, or printed and read back as itself.

use std::net::SocketAddr;

use gateway::config::{Config, Host, Sources, Token};
use toml::{Table, Value};

/// A file of any text.
pub fn configuration(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let names = text.parse::<Table>().map(|table| names_hosts(&Value::Table(table)));
    // Names would be looked up in the network.
    if names.unwrap_or(text.contains("bind")) {
        return;
    }
    match load(text) {
        Err(error) => assert!(!error.contains('\n'), "not one sentence: {error:?}"),
        Ok(config) => {
            let mut shown = config.clone();
            shown.settings.api.tokens.retain(|token| matches!(token, Token::Hashed(_)));
            let printed = config.to_toml();
            if shown == config {
                let again = load(&printed).expect("what is printed can be read");
                assert_eq!(again, config, "{printed}");
            }
        }
    }
}

fn load(text: &str) -> Result<Config, String> {
    let host = Host { cpus: vec![0, 1], files_max: 20_000, memory_bytes: 16 << 30 };
    let sources = Sources { file: Some(("halley.toml".into(), text.into())), environment: Vec::new() };
    Config::load(&sources, &host).map_err(|error| error.to_string())
}

/// Whether an address is a name.
fn names_hosts(value: &Value) -> bool {
    let is_name = |text: &str| text.parse::<SocketAddr>().is_err() && !text.starts_with(':');
    match value {
        Value::Table(table) => table.iter().any(|(key, value)| match value {
            Value::String(text) => key == "bind" && is_name(text),
            value => names_hosts(value),
        }),
        Value::Array(items) => items.iter().any(names_hosts),
        _ => false,
    }
}
