//! Why connections end, and what clients are told.

use halley_protocol::halley::Kick;
use halley_protocol::operation;

use crate::support::{Client, Gateway, Heard, LISTENERS, OPEN, Transport, connect, ended, halley, until};

#[test]
fn a_login_that_is_late_is_told_4001() {
    let gateway = Gateway::with_listener_keys("login_ms_max = 300");
    let mut ws = Client::connect(gateway.ws(), Transport::WebSocket);
    let mut tcp = Client::connect(gateway.tcp(), Transport::Tcp);
    tcp.send(operation::HEARTBEAT, 1, b"ignored before the login");
    assert_eq!(ws.close_code(), 4001);
    assert_eq!(tcp.hear(), Heard::End);
    let mut silent = Client::login(gateway.tcp(), Transport::Tcp, "{}");
    silent.expect_quiet();
    gateway.until_counter("/closes/login-late", 2);
}

#[test]
fn a_login_that_cannot_be_read_is_told_4002() {
    let gateway = Gateway::open();
    for (number, login) in ["", "{", "[]", r#"{"mid":"1"}"#, r#"{"mid":1} x"#].into_iter().enumerate() {
        let mut ws = Client::connect(gateway.ws(), Transport::WebSocket);
        ws.send(operation::AUTH, 1, login.as_bytes());
        assert_eq!(ws.close_code(), 4002, "{login}");
        let mut tcp = Client::connect(gateway.tcp(), Transport::Tcp);
        tcp.send(operation::AUTH, 1, login.as_bytes());
        assert_eq!(tcp.hear(), Heard::End, "{login}");
        gateway.until_counter("/closes/login-refused", 2 * (number as u64 + 1));
    }
}

#[test]
fn a_listener_that_refuses_logins_lets_nobody_in() {
    let configuration = format!("{OPEN}{}", LISTENERS.replacen("\"open\"", "\"refuse\"", 1));
    let gateway = Gateway::start(&configuration);
    let mut refused = Client::connect(gateway.tcp(), Transport::Tcp);
    refused.send(operation::AUTH, 1, b"{}");
    assert_eq!(refused.hear(), Heard::End);
    Client::login(gateway.ws(), Transport::WebSocket, "{}");
}

#[test]
fn only_heartbeats_keep_a_connection_beyond_its_deadline() {
    let gateway = Gateway::with_listener_keys("heartbeat_ms_max = 1000");
    let mut silent = Client::login(gateway.ws(), Transport::WebSocket, r#"{"key":"silent"}"#);
    let mut alive = Client::login(gateway.ws(), Transport::WebSocket, r#"{"key":"alive"}"#);
    let mut told = None;
    until("the silent one's end", || {
        alive.send(operation::HEARTBEAT, 3, b"");
        silent.send(operation::SEND_MESSAGE, 3, b"not a heartbeat");
        std::thread::sleep(std::time::Duration::from_millis(50));
        while let Some(heard) = silent.hear_within(std::time::Duration::from_millis(1)) {
            if let Heard::Close { code } = heard {
                told = Some(code);
                return true;
            }
        }
        false
    });
    assert_eq!(told, Some(4003));
    while let Some(heard) = alive.hear_within(std::time::Duration::from_millis(1)) {
        assert!(matches!(heard, Heard::Packet { operation: operation::HEARTBEAT_REPLY, .. }), "{heard:?}");
    }
    alive.expect_quiet();
    gateway.until_counter("/closes/heartbeat-missed", 1);
}

#[test]
fn a_newer_connection_of_a_key_replaces_the_older_one() {
    let gateway = Gateway::open();
    let login = r#"{"key":"k","accepts":[1],"halley":1}"#;
    let mut old = Client::login(gateway.ws(), Transport::WebSocket, login);
    let mut new = Client::login(gateway.tcp(), Transport::Tcp, login);
    let Heard::Packet { operation: operation::KICK, body, .. } = old.hear() else { panic!("no kick") };
    assert_eq!(Kick::parse(&body).map(|kick| kick.code), Some(4004));
    assert_eq!(old.close_code(), 4004);
    gateway.curl("/goim/push/keys?operation=1&keys=k", "x");
    new.expect_push(1, "x");
    gateway.until_counter("/closes/replaced", 1);
}

#[test]
fn a_key_may_refuse_further_connections_or_share_its_pushes() {
    let gateway = Gateway::start(&format!("key_policy = \"refuse\"\n{OPEN}{LISTENERS}"));
    let mut first = Client::login(gateway.ws(), Transport::WebSocket, r#"{"key":"k"}"#);
    let mut second = Client::connect(gateway.ws(), Transport::WebSocket);
    second.send(operation::AUTH, 1, br#"{"key":"k"}"#);
    assert_eq!(second.close_code(), 4002);
    first.expect_quiet();
    drop(first);
    gateway.until_counter("/closes/peer-closed", 1);
    until("the key to be free", || gateway.get("/v1/connections/k").status == 404);
    Client::login(gateway.ws(), Transport::WebSocket, r#"{"key":"k"}"#);
    gateway.stop();

    let policy = "key_policy = \"share\"\nkey_connections_max = 2\n";
    let gateway = Gateway::start(&format!("{policy}{OPEN}{LISTENERS}"));
    let login = r#"{"key":"k","accepts":[1]}"#;
    let mut shared = [(); 2].map(|()| Client::login(gateway.tcp(), Transport::Tcp, login));
    let mut third = Client::connect(gateway.ws(), Transport::WebSocket);
    third.send(operation::AUTH, 1, login.as_bytes());
    assert_eq!(third.close_code(), 4002);
    gateway.curl("/goim/push/keys?operation=1&keys=k", "to both");
    for client in &mut shared {
        client.expect_push(1, "to both");
    }
}

#[test]
fn a_stopping_gateway_says_so_to_probes_and_clients_and_ends_well() {
    let mut gateway = Gateway::open();
    let mut ws = Client::login(gateway.ws(), Transport::WebSocket, r#"{"key":"ws"}"#);
    let mut marked = Client::login(gateway.tcp(), Transport::Tcp, r#"{"key":"marked","halley":1}"#);
    let mut plain = Client::login(gateway.tcp(), Transport::Tcp, r#"{"key":"plain"}"#);
    assert_eq!(gateway.get("/readyz").status, 200);
    gateway.terminate();
    // None of these clients ends its side, so the drain goes on until `linger_ms_max`.
    until("readyz to say no", || gateway.get("/readyz").status == 503);
    assert_eq!(gateway.get("/healthz").status, 200);
    assert_eq!(ws.close_code(), 1012);
    let Heard::Packet { operation: operation::KICK, body, .. } = marked.hear() else { panic!("no kick") };
    assert_eq!(Kick::parse(&body), Some(Kick { code: 1012, text: "drain" }));
    drop((ws, marked));
    assert_eq!(plain.hear(), Heard::End, "goim's clients see the end");
    let status = gateway.wait();
    assert_eq!(status.code(), Some(0), "{}", gateway.log());
    assert!(gateway.log().contains("\"stopped\""), "{}", gateway.log());
    assert!(!gateway.log().contains("WARN"), "{}", gateway.log());
}

#[test]
fn a_gateway_without_clients_stops_at_once() {
    let since = std::time::Instant::now();
    Gateway::start(&format!("drain_ms_max = 60000\n{OPEN}{LISTENERS}")).stop();
    assert!(since.elapsed().as_secs() < 30, "it waits for the deadline of the drain");
}

#[test]
fn what_waits_for_a_client_is_sent_before_it_is_closed_by_a_drain() {
    const MESSAGES: usize = 200;
    let mut gateway = Gateway::with_listener_keys("send_buffer_bytes = 4096\noutbox_bytes_max = 1048576");
    let mut slow = Client::login(gateway.ws(), Transport::WebSocket, r#"{"key":"k","room_id":"r","accepts":[1]}"#);
    let text = "x".repeat(4000);
    let one = serde_json::json!({ "target": { "room": "r" }, "operation": 1, "payload": { "text": text } });
    gateway.push(&serde_json::json!(vec![one; MESSAGES]));
    gateway.until_counter("/offered", MESSAGES as u64);
    assert!(gateway.counter("/queued") > 0, "some wait in its outbox");
    gateway.terminate();
    until("the drain", || gateway.get("/readyz").status == 503);
    for _ in 0..MESSAGES {
        slow.expect_push(1, &text);
    }
    assert_eq!(slow.close_code(), 1012);
    drop(slow);
    assert_eq!(gateway.wait().code(), Some(0));
}

#[test]
fn a_connection_that_ends_leaves_nothing_behind() {
    let gateway = Gateway::open();
    for round in 1..=20u64 {
        let login = format!(r#"{{"mid":{round},"key":"k{round}","room_id":"live://{round}"}}"#);
        let tcp = Client::login(gateway.tcp(), Transport::Tcp, &login);
        let mut ws = Client::login(gateway.ws(), Transport::WebSocket, &login.replace("\"k", "\"w"));
        ws.frame(halley_protocol::websocket::Opcode::Close, &1000u16.to_be_bytes());
        assert_eq!(ws.close_code(), 1000, "the code comes back");
        assert!(ended(&mut ws.stream));
        drop(tcp);
        gateway.until_counter("/closes/peer-closed", 2 * round);
    }
    until("the directory to be empty", || {
        let stats = gateway.get("/v1/stats").json();
        stats["online"] == 0 && stats["rooms"] == 0 && stats["addresses"] == 0
    });
    gateway.until_counter("/connections", 0);
    drop(connect(gateway.tcp()));
    gateway.until_counter("/accepted", 41);
}

/// `halley drain` for this gateway, and what it printed.
fn drain_command(gateway: &Gateway) -> std::process::Output {
    let mut command = halley();
    command.args(["drain", "--api", &format!("http://{}", gateway.api)]);
    command.output().expect("the binary starts")
}

#[test]
fn a_drain_ordered_by_command_spreads_its_clients_and_serves_those_who_are_still_there() {
    let open = OPEN.replace("= 256", "= 1024");
    let listeners = LISTENERS.replace("login = \"open\"\n", "login = \"open\"\nlinger_ms_max = 60000\n");
    let mut gateway = Gateway::start(&format!("drain_ms_max = 600000\n{open}{listeners}"));
    let login = |n: usize| format!(r#"{{"key":"k{n}","accepts":[1]}}"#);
    let mut clients: Vec<Client> = (0..600).map(|n| Client::login(gateway.tcp(), Transport::Tcp, &login(n))).collect();
    // It does not end its side: the drain waits for it.
    let mut stays = Client::login(gateway.ws(), Transport::WebSocket, &login(600));
    let output = drain_command(&gateway);
    assert!(output.status.success(), "{output:?}");
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&said["begun"], &said["connections"], &said["window_ms"]), (&true.into(), &601.into(), &20_000.into()));
    assert_eq!(gateway.get("/readyz").status, 503);
    let again = drain_command(&gateway);
    assert!(again.status.success() && String::from_utf8_lossy(&again.stdout).contains("\"begun\":false"), "{again:?}");
    // Pushed all the time: a thousand a second go, so that some hear more of it than others.
    while gateway.counter("/closes/drain") < 601 {
        gateway.curl("/goim/push/all?operation=1", "x");
    }
    let mut heard: Vec<usize> = Vec::new();
    for client in &mut clients {
        let pushes = std::iter::from_fn(|| Some(client.hear())).take_while(|heard| *heard != Heard::End);
        heard.push(pushes.count());
    }
    assert!(heard.iter().max() > heard.iter().min(), "not all at once: {heard:?}");
    while matches!(stays.hear(), Heard::Packet { .. }) {}
    drop(stays);
    assert_eq!(gateway.wait().code(), Some(0), "{}", gateway.log());
    let away = drain_command(&gateway);
    assert_eq!(away.status.code(), Some(2), "nobody is there: {away:?}");
}

#[test]
fn a_drain_refuses_newcomers_and_a_signal_joins_it_before_a_second_one_ends_it() {
    let keys = "linger_ms_max = 60000";
    let mut gateway = Gateway::start(&format!(
        "drain_ms_max = 600000\ndrain_grace_ms = 300\n{OPEN}{}",
        LISTENERS.replace("login = \"open\"\n", &format!("login = \"open\"\n{keys}\n"))
    ));
    let mut stays = Client::login(gateway.ws(), Transport::WebSocket, "{}");
    assert_eq!(gateway.call("POST", "/v1/drain", "", "").status, 202);
    assert_eq!(gateway.get("/readyz").status, 503);
    // In its grace it takes whoever comes.
    drop(Client::login(gateway.tcp(), Transport::Tcp, "{}"));
    assert_eq!(stays.close_code(), 1012);
    until("newcomers to be refused", || std::net::TcpStream::connect(gateway.tcp()).is_err());
    gateway.terminate();
    until("the signal to be heard", || gateway.log().contains("\"signals\":1"));
    assert_eq!(gateway.get("/healthz").status, 200, "one signal joins the drain");
    gateway.terminate();
    assert_eq!(gateway.wait().code(), Some(1), "{}", gateway.log());
}
