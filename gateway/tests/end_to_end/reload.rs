//! A configuration read anew while clients are there: what changes, what stays, and what a broken file does.

use std::path::PathBuf;
use std::process::Output;

use halley_protocol::operation;
use rustix::process::Signal;

use crate::support::{Client, Gateway, Heard, LISTENERS, OPEN, Transport, folder_with, halley, until};

/// A gateway whose file can be written again.
pub(super) fn with_file(configuration: &str) -> (Gateway, PathBuf) {
    let folder = folder_with(configuration);
    let path = folder.path().join("halley.toml");
    let mut command = halley();
    command.arg("--config").arg("halley.toml").current_dir(folder.path());
    (Gateway::run(command, Some(folder)), path)
}

/// `halley reload` for this gateway, and what it printed.
pub(super) fn reload(gateway: &Gateway) -> (Option<i32>, String) {
    let mut command = halley();
    command.args(["reload", "--api", &format!("http://{}", gateway.api)]);
    let Output { status, stdout, stderr } = command.output().expect("the binary starts");
    (status.code(), String::from_utf8([stdout, stderr].concat()).expect("text"))
}

#[test]
fn a_reload_changes_what_can_change_names_the_rest_and_drops_nobody() {
    let text = format!("{OPEN}{LISTENERS}");
    let (gateway, path) = with_file(&text);
    let mut clients: Vec<Client> = [(gateway.tcp(), Transport::Tcp), (gateway.ws(), Transport::WebSocket)]
        .map(|(address, transport)| Client::login(address, transport, r#"{"room_id":"r"}"#))
        .into();
    assert_eq!(reload(&gateway), (Some(0), "nothing has changed\n".into()));
    let new = text.replace("login = \"open\"\n", "login = \"open\"\nlogin_ms_max = 300\n");
    let new = format!("drain_window_ms = 7\n{}", new.replace("shards = 2", "shards = 1"));
    std::fs::write(&path, new).expect("written");
    let (code, said) = reload(&gateway);
    assert_eq!(
        (code, said.as_str()),
        (
            Some(0),
            "drain_window_ms: 20000 → 7\nlistener[0].login_ms_max: 5000 → 300\nlistener[1].login_ms_max: 5000 → 300\n\
             needs a restart: shards: 2 → 1\n"
        )
    );
    // Newcomers are judged by the new deadline, and who was there is still there.
    assert_eq!(Client::connect(gateway.ws(), Transport::WebSocket).close_code(), 4001);
    gateway.curl("/goim/push/room?operation=1&type=a&room=b", "nobody");
    gateway.push(&serde_json::json!({ "target": { "room": "r" }, "operation": 1, "payload": { "text": "x" } }));
    for client in &mut clients {
        client.expect_push(1, "x");
        client.expect_quiet();
    }
    assert!(gateway.log().contains("\"event\":\"reload\""), "{}", gateway.log());
    drop(clients);
    gateway.stop();
}

#[test]
fn a_broken_file_changes_nothing_and_says_so_once_everywhere() {
    let text = format!("{OPEN}{LISTENERS}");
    let (gateway, path) = with_file(&text);
    let mut client = Client::login(gateway.tcp(), Transport::Tcp, r#"{"room_id":"r"}"#);
    std::fs::write(&path, format!("drain_window_ms = 7\n{text}login_ms_max = 1\n")).expect("written");
    let sentence = "halley.toml:15: listener[1].login_ms_max: 1 is out of range: use 100 to 86400000";
    gateway.signal(Signal::HUP);
    until("the log to say it", || gateway.log().contains(sentence));
    assert_eq!(reload(&gateway), (Some(1), format!("halley reload: {sentence}\n")));
    let answer = gateway.call("POST", "/v1/reload", "", "");
    assert_eq!((answer.status, answer.json()["error"]["message"].as_str()), (400, Some(sentence)));
    std::fs::remove_file(&path).expect("removed");
    assert!(reload(&gateway).1.contains("cannot read halley.toml"), "{:?}", reload(&gateway));
    // Also what was right in it is not in force.
    std::fs::write(&path, &text).expect("written");
    assert_eq!(reload(&gateway), (Some(0), "nothing has changed\n".into()));
    client.send(operation::HEARTBEAT, 1, b"");
    client.expect(operation::HEARTBEAT_REPLY, 1, &1_i32.to_be_bytes());
}

#[test]
fn tokens_policies_and_the_level_of_the_log_follow_the_file() {
    let first = "first-token-0123456";
    let text = format!("{OPEN}{LISTENERS}").replace("auth = \"none\"", &format!("tokens = [\"{first}\"]"));
    let (gateway, path) = with_file(&text);
    let bearer = |token: &str| format!("Authorization: Bearer {token}\r\n");
    let keeps = Client::login(gateway.tcp(), Transport::Tcp, r#"{"key":"k"}"#);
    let second = "second-token-012345";
    let new = text.replace(first, second) + "[log]\nlevel = \"debug\"\n";
    std::fs::write(&path, format!("key_policy = \"refuse\"\n{new}")).expect("written");
    let answer = gateway.call("POST", "/v1/reload", &bearer(first), "");
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(!answer.body.contains(first) && !answer.body.contains(second), "{}", answer.body);
    assert_eq!(gateway.call("GET", "/v1/stats", &bearer(first), "").status, 401);
    assert_eq!(gateway.call("GET", "/v1/stats", &bearer(second), "").status, 200);
    let mut late = Client::connect(gateway.tcp(), Transport::Tcp);
    late.send(operation::AUTH, 1, br#"{"key":"k"}"#);
    assert_eq!(late.hear(), Heard::End, "the key is in use");
    until("the log to be more talkative", || gateway.log().contains("key-in-use"));
    drop(keeps);
}

#[test]
fn above_its_memory_budget_a_gateway_accepts_nobody_and_serves_those_who_are_in() {
    let text = format!("{OPEN}{LISTENERS}");
    let (gateway, path) = with_file(&text);
    let mut inside = Client::login(gateway.tcp(), Transport::Tcp, r#"{"room_id":"r"}"#);
    std::fs::write(&path, format!("memory_bytes_max = 1048576\n{text}")).expect("written");
    assert_eq!(reload(&gateway).0, Some(0));
    gateway.until_counter("/accept_memory_pauses", 2);
    let mut waits = Client::connect(gateway.tcp(), Transport::Tcp);
    waits.send(operation::AUTH, 1, b"{}");
    gateway.push(&serde_json::json!({ "target": { "room": "r" }, "operation": 1, "payload": { "text": "x" } }));
    inside.expect_push(1, "x");
    assert_eq!(waits.hear_within(std::time::Duration::from_millis(50)), None);
    assert_eq!(gateway.counter("/connections"), 1);
    std::fs::write(&path, &text).expect("written");
    assert_eq!(reload(&gateway).0, Some(0));
    waits.expect(operation::AUTH_REPLY, 1, b"");
}

#[test]
fn a_gateway_that_drains_reads_nothing_anew() {
    let mut gateway = Gateway::start(&format!("drain_grace_ms = 60000\ndrain_ms_max = 90000\n{OPEN}{LISTENERS}"));
    assert_eq!(gateway.call("POST", "/v1/drain", "", "").status, 202);
    let answer = gateway.call("POST", "/v1/reload", "", "");
    assert_eq!((answer.status, answer.json()["error"]["code"].as_str()), (409, Some("draining")), "{}", answer.body);
    gateway.signal(Signal::HUP);
    until("the log to say it", || gateway.log().contains("the gateway drains and reads nothing anew"));
    gateway.terminate();
    until("the signal to be heard", || gateway.log().contains("\"signals\":1"));
    gateway.terminate();
    assert_eq!(gateway.wait().code(), Some(1), "{}", gateway.log());
}

#[test]
fn reloads_under_load_drop_nobody_and_lose_nothing() {
    const PUSHES: usize = 600;
    let text = format!("{OPEN}{LISTENERS}");
    let (gateway, path) = with_file(&text);
    let mut clients: Vec<Client> = (0..20)
        .map(|n| {
            let login = format!(r#"{{"key":"key-{n}","room_id":"r","accepts":[1]}}"#);
            let (address, transport) =
                if n % 2 == 0 { (gateway.tcp(), Transport::Tcp) } else { (gateway.ws(), Transport::WebSocket) };
            Client::login(address, transport, &login)
        })
        .collect();
    let over = std::sync::atomic::AtomicBool::new(false);
    let reloads = std::thread::scope(|scope| {
        let reloads = scope.spawn(|| {
            let mut reloads = 0;
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                reloads += 1;
                let keys =
                    format!("run_messages_max = {}\nsends_per_turn_max = {}\n", 1 + reloads % 9, 256 + reloads % 7);
                std::fs::write(&path, format!("{text}[shard]\n{keys}")).expect("written");
                assert_eq!(gateway.call("POST", "/v1/reload", "", "").status, 200);
            }
            reloads
        });
        for number in 0..PUSHES {
            let target = if number.is_multiple_of(3) { "key" } else { "room" };
            let target =
                if target == "key" { serde_json::json!({ "all": true }) } else { serde_json::json!({ "room": "r" }) };
            let payload = serde_json::json!({ "text": number.to_string() });
            gateway.push(&serde_json::json!({ "target": target, "operation": 1, "payload": payload }));
        }
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        reloads.join().expect("no panic")
    });
    assert!(reloads > 3, "{reloads} reloads");
    for client in &mut clients {
        let (mut room, mut all) = (Vec::new(), Vec::new());
        for _ in 0..PUSHES {
            let Heard::Packet { operation: 1, body, .. } = client.hear() else { panic!("a push") };
            let number: usize = String::from_utf8(body).expect("text").parse().expect("a number");
            if number.is_multiple_of(3) { all.push(number) } else { room.push(number) }
        }
        assert!(room.is_sorted() && all.is_sorted(), "in order");
        assert_eq!(room.len() + all.len(), PUSHES);
    }
    assert_eq!((gateway.counter("/connections"), gateway.counter("/dropped/slow-newest")), (20, 0));
    gateway.settled();
}

#[test]
fn whether_the_api_asks_for_tokens_follows_the_file() {
    let text = format!("{OPEN}{LISTENERS}");
    let (gateway, path) = with_file(&text);
    assert_eq!(gateway.get("/v1/stats").status, 200);
    let token = "a-token-of-the-api-01";
    std::fs::write(&path, text.replace("auth = \"none\"", &format!("tokens = [\"{token}\"]"))).expect("written");
    let (code, said) = reload(&gateway);
    assert!(code == Some(0) && said.contains("api.auth: \"none\" → \"token\""), "{said}");
    assert_eq!(gateway.get("/v1/stats").status, 401);
    assert_eq!(gateway.call("GET", "/v1/stats", &format!("Authorization: Bearer {token}\r\n"), "").status, 200);
}
