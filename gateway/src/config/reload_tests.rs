//! What a reload takes over, what it leaves to a restart, and what it never shows.

use std::collections::BTreeSet;

use super::tests::{OPEN, file, host};
use super::*;

fn load(text: &str) -> Config {
    Config::load(&file(text), &host()).expect("right")
}

/// The reload from one text to another: keys that applied, and those that need a restart.
fn reload(old: &str, new: &str) -> (Config, Vec<String>, Vec<String>) {
    let reload = load(old).reload(&load(new), &file(new)).expect("both are right");
    let lines = |changes: &[Change]| {
        changes.iter().map(|Change { key, old, new }| format!("{key}: {old} -> {new}")).collect::<Vec<_>>()
    };
    (reload.config, lines(&reload.applied), lines(&reload.restart))
}

const SECOND: &str = "[[listener]]\nbind = \"127.0.0.1:7\"\ntransport = \"ws\"\nlogin = \"open\"\n";

#[test]
fn a_reload_without_changes_has_none() {
    let text = format!("{OPEN}{SECOND}");
    let (config, applied, restart) = reload(&text, &text);
    assert_eq!((config, applied.len(), restart.len()), (load(&text), 0, 0));
}

#[test]
fn what_can_change_does_and_what_cannot_is_named_and_stays() {
    let new = format!(
        "shards = 1\ndrain_window_ms = 5\n{OPEN}login_ms_max = 700\nkeepalive_ms = 7\n[log]\nlevel = \"debug\""
    );
    let (config, applied, restart) = reload(OPEN, &new);
    assert_eq!(
        applied,
        ["drain_window_ms: 20000 -> 5", "log.level: \"info\" -> \"debug\"", "listener[0].login_ms_max: 5000 -> 700"]
    );
    assert_eq!(restart, ["connections_max: 40000 -> 20000", "shards: 2 -> 1", "listener[0].keepalive_ms: 60000 -> 7"]);
    let Settings { drain_window_ms, shards, ref listener, .. } = config.settings;
    assert_eq!((drain_window_ms, shards), (5, Shards::Count(2)));
    assert_eq!((listener[0].login_ms_max, listener[0].keepalive_ms), (700, 60_000));
    assert_eq!(config.plan, load(OPEN).plan);
}

#[test]
fn a_place_for_messages_comes_and_goes_with_a_restart_and_its_rates_change_without_one() {
    let upstream = |lines: &str| format!("{OPEN}[upstream]\nurl = \"http://127.0.0.1:1/\"\n{lines}");
    let (config, applied, restart) = reload(OPEN, &upstream("messages_burst_max = 3"));
    assert_eq!((config, applied.len()), (load(OPEN), 0));
    assert!(restart.iter().any(|line| line == "upstream.messages_burst_max: (none) -> 3"), "{restart:?}");
    let new = upstream("authorization = \"secret\"\nmessages_burst_max = 3\noperations = [4, \"1000-1999\"]");
    let (config, applied, restart) = reload(&upstream(""), &new);
    assert_eq!(applied, ["upstream.messages_burst_max: 50 -> 3", "upstream.operations: [4] -> [4, \"1000-1999\"]"]);
    assert_eq!(restart, ["upstream.authorization: \"\" -> \"(hidden)\""]);
    assert_eq!(config.settings.upstream.expect("it is there").messages_burst_max, 3);
}

#[test]
fn listeners_are_told_apart_by_their_addresses() {
    let swapped = format!("[api]\nauth = \"none\"\n{SECOND}origins = [\"https://a\"]\n{}", &OPEN[20..]);
    let (config, applied, restart) = reload(&format!("{OPEN}{SECOND}"), &swapped);
    assert_eq!(applied, ["listener[1].origins: [] -> [\"https://a\"]"]);
    assert_eq!(restart, [""; 0]);
    assert_eq!(config.settings.listener[1].origins, ["https://a"]);

    let moved = format!("{OPEN}{}", SECOND.replace(":7", ":8"));
    let (config, applied, restart) = reload(&format!("{OPEN}{SECOND}"), &moved);
    assert_eq!(applied, [""; 0]);
    assert_eq!(restart, ["listener[1].bind: \"127.0.0.1:7\" -> (none)", "listener[1].bind: (none) -> \"127.0.0.1:8\""]);
    assert_eq!(config, load(&format!("{OPEN}{SECOND}")), "no listener gets the settings of another");
}

#[test]
fn tables_that_come_and_go_need_a_restart() {
    let kafka =
        format!("{OPEN}[kafka]\nbrokers = [\"127.0.0.1:1\"]\n[kafka.client]\n\"sasl.password\" = \"open sesame\"");
    let v1 = format!("{OPEN}[api_v1]\nauth = \"none\"\nbind = \"127.0.0.1:0\"\n");
    for (old, new) in [(OPEN, v1.as_str()), (v1.as_str(), OPEN)] {
        let (config, applied, restart) = reload(old, new);
        assert_eq!((config, applied.len(), restart.len()), (load(old), 0, 2), "{restart:?}");
    }
    for (old, new) in [(OPEN, kafka.as_str()), (kafka.as_str(), OPEN)] {
        let (config, applied, restart) = reload(old, new);
        assert_eq!((config, applied.len()), (load(old), 0));
        assert!(restart.iter().any(|line| line.starts_with("kafka.brokers: ")), "{restart:?}");
        assert!(!restart.concat().contains("sesame"), "{restart:?}");
    }
}

#[test]
fn keys_of_tokens_and_who_may_call_change_at_once() {
    let key = |kid: &str| {
        format!("[[jwt.keys]]\nkid = \"{kid}\"\nalgorithm = \"HS256\"\nsecret = \"0123456789abcdef0123456789abcdef\"\n")
    };
    let token = OPEN.replace("auth = \"none\"", "tokens = [\"0123456789abcdef\"]");
    let old = format!("{OPEN}[jwt]\nissuer = \"a\"\n{}", key("old"));
    let new = format!("{token}[jwt]\nissuer = \"b\"\n{}{}", key("old"), key("new"));
    let (config, applied, restart) = reload(&old, &new);
    assert_eq!(config, load(&new));
    assert_eq!(restart, [""; 0]);
    let keys: Vec<_> = applied.iter().filter_map(|line| line.split(": ").next()).collect();
    assert_eq!(keys, ["api.auth", "api.tokens", "jwt.issuer", "jwt.keys"]);
    assert!(!applied.concat().contains("0123456789abcdef"), "secrets are hidden: {applied:?}");
}

#[test]
fn of_kafka_the_credentials_change_at_once_where_there_were_some() {
    let kafka = |age: u32, client: &str| {
        format!("{OPEN}[kafka]\nbrokers = [\"127.0.0.1:1\"]\njob_age_ms_max = {age}\n[kafka.client]\n{client}")
    };
    let old = kafka(0, "\"sasl.username\" = \"u\"\n\"sasl.password\" = \"old sesame\"\n\"client.id\" = \"a\"\n");
    let new = kafka(5, "\"sasl.username\" = \"v\"\n\"sasl.password\" = \"new sesame\"\n\"client.id\" = \"b\"\n");
    let (config, applied, restart) = reload(&old, &new);
    let names = |lines: &[String]| {
        lines.iter().filter_map(|line| Some(line.split_once(": ")?.0.to_owned())).collect::<Vec<_>>()
    };
    let taken = ["kafka.client.sasl.password", "kafka.client.sasl.username", "kafka.job_age_ms_max"];
    assert_eq!(
        (names(&applied), names(&restart)),
        (taken.map(String::from).to_vec(), vec!["kafka.client.client.id".to_owned()])
    );
    assert!(!applied.concat().contains("sesame"), "{applied:?}");
    assert_eq!(config, load(&new.replace("\"b\"", "\"a\"")));
    let (_, applied, restart) = reload(&kafka(0, ""), &old);
    assert_eq!((applied.len(), restart.len()), (0, 3), "without any the client asks for none: {restart:?}");
}

#[test]
fn secrets_change_and_are_not_shown() {
    let old = OPEN.replace("auth = \"none\"", "tokens = [\"0123456789abcdef\"]");
    let (config, applied, restart) = reload(&old, &old.replace("0123", "4567"));
    assert_eq!(config.settings.api.tokens, [Token::Plain("4567456789abcdef".into())]);
    assert_eq!(restart, [""; 0]);
    assert_eq!(applied, [format!("api.tokens: [\"{HIDDEN}\"] -> [\"{HIDDEN}\"]")]);
}

#[test]
fn a_change_that_fits_only_after_a_restart_is_refused_with_its_reason() {
    let new = format!("{OPEN}outbox_bytes_max = 80000000\n[shard]\npinned_bytes_max = 90000000");
    let error = load(OPEN).reload(&load(&new), &file(&new)).expect_err("the pinned bytes stay as they are");
    assert!(error.to_string().contains("shard.pinned_bytes_max"), "{error}");
    assert!(error.to_string().contains("restart"), "{error}");
}

#[test]
fn keys_that_reload_are_keys_and_the_page_lists_them() {
    let keys: BTreeSet<_> = KEYS.iter().map(|key| key.name).collect();
    let unknown: Vec<_> = RELOADS.iter().filter(|name| !keys.contains(**name)).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    let page = include_str!("../../../docs/configuration.md");
    assert!(page.contains(&reload_list()), "docs/configuration.md needs this list:\n{}", reload_list());
}
