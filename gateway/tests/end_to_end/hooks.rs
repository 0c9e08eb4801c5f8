//! Hooks: what clients see of a platform's endpoint that answers, refuses, is slow, down, or out of its mind.

use std::time::{Duration, Instant};

use halley_protocol::halley::{JoinReply, JoinStatus, Kick};
use halley_protocol::operation;
use ring::hmac;
use serde_json::{Value, json};

use crate::endpoint::{Does, Endpoint, nobody};
use crate::support::{Client, Gateway, Heard, LISTENERS, OPEN, PATIENCE, Transport, until};

const BOTH: [Transport; 2] = [Transport::Tcp, Transport::WebSocket];

/// Two listeners that ask the platform, and one of TCP that lets everybody in.
fn configuration(hooks: &str) -> String {
    let asking = LISTENERS.replace("open", "hook");
    let open = "[[listener]]\nbind = \"127.0.0.1:0\"\ntransport = \"tcp\"\nlogin = \"open\"\n";
    format!("{OPEN}[hooks]\n{hooks}\n{asking}{open}")
}

fn login_url(address: impl std::fmt::Display) -> String {
    format!("login_url = \"http://{address}/login\"")
}

fn connect(gateway: &Gateway, transport: Transport) -> Client {
    let at = usize::from(transport == Transport::WebSocket);
    Client::connect(gateway.listeners[at], transport)
}

fn enter(gateway: &Gateway, transport: Transport, login: &Value) -> Client {
    let at = usize::from(transport == Transport::WebSocket);
    Client::login(gateway.listeners[at], transport, &login.to_string())
}

/// A client of the listener that asks nobody.
fn enter_openly(gateway: &Gateway, key: &str) -> Client {
    Client::login(gateway.listeners[2], Transport::Tcp, &json!({ "key": key, "accepts": [1000] }).to_string())
}

/// A login that is turned down, and the code that a WebSocket client sees; over TCP nothing is said.
fn refused(gateway: &Gateway, code: u16) {
    for transport in BOTH {
        let mut client = connect(gateway, transport);
        client.send(operation::AUTH, 1, b"{}");
        match transport {
            Transport::WebSocket => assert_eq!(client.close_code(), code),
            Transport::Tcp => assert_eq!(client.hear(), Heard::End),
        }
    }
}

fn calls(gateway: &Gateway, hook: &str, result: &str) -> u64 {
    let sample = format!("halley_hook_calls_total{{hook=\"{hook}\",result=\"{result}\"}} ");
    let metrics = gateway.get("/metrics").body;
    let line = metrics.lines().find_map(|line| line.strip_prefix(&sample)).unwrap_or_else(|| panic!("no {sample}"));
    line.parse().expect("a number")
}

fn logins(gateway: &Gateway, result: &str) -> u64 {
    gateway.get("/v1/stats").json()["logins"][result].as_u64().unwrap_or(0)
}

#[test]
fn the_platform_is_told_who_comes_and_says_who_that_is() {
    const SECRET: &str = "a secret of this test, long enough";
    let endpoint =
        Endpoint::saying(&json!({ "allowed": true, "mid": 7, "key": "tv", "room_id": "live://1", "rooms": ["a*"] }));
    let gateway = Gateway::start(&configuration(&format!(
        "{}\nsecret = \"{SECRET}\"",
        login_url(format_args!("localhost:{}", endpoint.address.port()))
    )));
    for (number, transport) in (1..).zip(BOTH) {
        let login =
            json!({ "mid": 1, "key": "k", "token": "opaque", "platform": "web", "accepts": [1000], "halley": 1 });
        let mut client = enter(&gateway, transport, &login);
        for uri in [
            "/goim/push/keys?operation=1000&keys=tv",
            "/goim/push/mids?operation=1000&mids=7",
            "/goim/push/room?operation=1000&type=live&room=1",
        ] {
            gateway.curl(uri, uri);
            client.expect_push(1000, uri);
        }
        let status = |reply: Vec<u8>| JoinReply::parse(&reply).expect("a reply").status;
        assert_eq!(status(client.ask(operation::JOIN, b"a1")), JoinStatus::Joined);
        assert_eq!(status(client.ask(operation::JOIN, b"b1")), JoinStatus::Refused);
        let asked = endpoint.asked();
        assert_eq!(asked.len(), number, "once for each login");
        let question = asked[number - 1].json();
        for (field, said) in login.as_object().expect("an object") {
            assert_eq!(&question[field], said, "{field}");
        }
        let peer = client.stream.local_addr().expect("an address").to_string();
        let listener = client.stream.peer_addr().expect("an address").to_string();
        assert_eq!((&question["peer"], &question["listener"]), (&json!(peer), &json!(listener)));
        let transport = if transport == Transport::Tcp { "tcp" } else { "ws" };
        assert_eq!((&question["transport"], &question["tls"]), (&json!(transport), &json!(false)));
        let last = &asked[number - 1];
        assert_eq!(last.header("halley-hook"), Some("login"));
        let message = format!("{}.{}", last.header("halley-timestamp").expect("a time"), last.body);
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()), message.as_bytes());
        let digits = tag.as_ref().iter().fold("sha256=".to_owned(), |digits, byte| format!("{digits}{byte:02x}"));
        assert_eq!(last.header("halley-signature"), Some(&*digits));
    }
    assert_eq!((calls(&gateway, "login", "allowed"), logins(&gateway, "admitted")), (2, 2));
    gateway.stop();
}

#[test]
fn a_platform_that_says_no_is_told_as_4002() {
    let endpoint = Endpoint::saying(&json!({ "allowed": false, "reason": "banned" }));
    let gateway = Gateway::start(&configuration(&login_url(endpoint.address)));
    refused(&gateway, 4002);
    assert_eq!((calls(&gateway, "login", "refused"), logins(&gateway, "hook-refused")), (2, 2));
    assert_eq!(gateway.counter("/closes/login-refused"), 2);
}

/// Endpoints that give no answer: what it is counted as, whether it counts as down, and what the log says of it.
fn bad_endpoints() -> Vec<(&'static str, String, bool, &'static str)> {
    let long = format!("{{\"allowed\":true,\"key\":\"{}\"}}", "x".repeat(10_000_000));
    let status = |line: &str| Does::Blurt(format!("HTTP/1.1 {line}\r\nContent-Length: 0\r\n\r\n").into_bytes());
    let each = [
        ("late", Does::Hang, true, "not answer in time"),
        ("status", status("503 Service Unavailable"), true, "503 Service Unavailable"),
        ("status", status("404 Not Found"), false, "404 Not Found"),
        ("nonsense", Does::Say("<html>It works!</html>".into()), false, "expected value"),
        ("nonsense", Does::Say("{\"allowed\":\"yes\"}".into()), false, "expected a boolean"),
        ("nonsense", Does::Blurt(b"SSH-2.0-OpenSSH_9.6\r\n\r\n".to_vec()), false, "no HTTP: "),
        ("too-big", Does::Say(long), false, "too long"),
        (
            "broken",
            Does::Blurt(b"HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n{\"allowed\":".to_vec()),
            true,
            "connection ended",
        ),
        ("broken", Does::Blurt(Vec::new()), true, "connection ended"),
    ];
    let mut endpoints: Vec<_> = each
        .into_iter()
        .map(|(result, does, down, problem)| {
            (result, Endpoint::start(move |_| does.clone()).address.to_string(), down, problem)
        })
        .collect();
    endpoints.push(("unreachable", nobody().to_string(), true, "refused"));
    endpoints
}

#[test]
fn an_endpoint_without_an_answer_is_told_as_1013_unless_who_is_there_may_come_in() {
    for (result, address, down, problem) in bad_endpoints() {
        let with = |when_down: &str| {
            let url = format!("login_url = \"http://{address}/login?token=secret\"");
            let hooks = format!("{url}\ncall_ms_max = 400\nwhen_down = \"{when_down}\"");
            Gateway::start(&configuration(&hooks))
        };
        let gateway = with("refuse");
        refused(&gateway, 1013);
        let name = if down { "hook-down" } else { "hook-nonsense" };
        assert_eq!((calls(&gateway, "login", result), logins(&gateway, name)), (2, 2), "{result} of {address}");
        assert_eq!(gateway.counter("/closes/hook-failed"), 2);
        let line = gateway.log_line("hook-failed");
        assert_eq!((&line["hook"], &line["outcome"]), (&json!("login"), &json!(result)), "{line}");
        assert_eq!(line["url"], format!("http://{address}/login?…"), "{line}");
        assert!(!gateway.log().contains("secret"), "{}", gateway.log());
        let told = line["problem"].as_str().expect("a sentence");
        assert!(told.contains(problem), "{told:?} does not say {problem:?}");
        let gateway = with("allow");
        if down {
            let mut client = enter(&gateway, Transport::Tcp, &json!({ "key": "phone", "mid": 7, "accepts": [1000] }));
            gateway.curl("/goim/push/mids?operation=1000&mids=7", "in");
            client.expect_push(1000, "in");
        } else {
            refused(&gateway, 1013);
        }
    }
}

#[test]
fn an_endpoint_that_hangs_delays_nobody_but_those_who_wait_for_it() {
    let endpoint = Endpoint::start(|_| Does::Hang);
    let hooks = format!("{}\ncall_ms_max = 4000\ncalls_max = 4\npending_max = 100", login_url(endpoint.address));
    let gateway = Gateway::start(&configuration(&hooks));
    let mut old = enter_openly(&gateway, "old");
    let mut waiting: Vec<_> = (0..100).map(|at| connect(&gateway, BOTH[at % 2])).collect();
    for client in &mut waiting {
        client.send(operation::AUTH, 1, b"{}");
    }
    let waits = "halley_hook_waiting{hook=\"login\"} 96";
    until("96 wait for a place", || gateway.get("/metrics").body.contains(waits));
    let since = Instant::now();
    for number in 0..50 {
        let key = format!("new-{number}");
        let mut new = enter_openly(&gateway, &key);
        for (client, key) in [(&mut old, "old"), (&mut new, &*key)] {
            gateway.curl(&format!("/goim/push/keys?operation=1000&keys={key}"), "prompt");
            client.expect_push(1000, "prompt");
        }
    }
    assert_eq!((logins(&gateway, "admitted"), logins(&gateway, "hook-down")), (51, 0), "all while others waited");
    // Beyond those who may wait: at once, and not after their time.
    refused(&gateway, 1013);
    assert_eq!(logins(&gateway, "hook-busy"), 2);
    assert!(since.elapsed() < Duration::from_secs(4), "this test is too slow to say anything");
    for (client, transport) in waiting.iter_mut().zip(BOTH.into_iter().cycle()) {
        match transport {
            Transport::WebSocket => assert_eq!(client.close_code(), 1013),
            Transport::Tcp => assert_eq!(client.hear(), Heard::End),
        }
    }
    assert_eq!(logins(&gateway, "hook-down"), 100);
    gateway.stop();
}

#[test]
fn an_endpoint_that_comes_back_is_asked_again() {
    let address = nobody();
    let gateway = Gateway::start(&configuration(&login_url(address)));
    for _ in 0..10 {
        refused(&gateway, 1013);
    }
    assert!(calls(&gateway, "login", "rests") > 0, "not every login tries");
    let listener = std::net::TcpListener::bind(address).expect("the port is still free");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            use std::io::{Read as _, Write as _};
            while stream.read(&mut [0; 4096]).is_ok_and(|read| read > 0) {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n{\"allowed\":true}");
            }
        }
    });
    until("somebody is let in", || {
        let mut client = connect(&gateway, Transport::Tcp);
        client.send(operation::AUTH, 1, b"{}");
        matches!(client.hear(), Heard::Packet { operation: operation::AUTH_REPLY, .. })
    });
}

#[test]
fn a_client_that_leaves_while_it_waits_leaves_nothing() {
    let endpoint = Endpoint::start(|_| {
        std::thread::sleep(Duration::from_millis(300));
        Does::Say("{\"allowed\":true}".into())
    });
    let gateway = Gateway::start(&configuration(&login_url(endpoint.address)));
    for transport in BOTH {
        let mut client = connect(&gateway, transport);
        client.send(operation::AUTH, 1, br#"{"key":"phone","room_id":"a"}"#);
    }
    until("both were asked about", || endpoint.asked().len() == 2);
    until("nobody is left", || {
        let stats = gateway.get("/v1/stats").json();
        stats["online"] == 0 && gateway.counter("/connections") == 0 && calls(&gateway, "login", "allowed") == 2
    });
    assert!(gateway.get("/v1/rooms").json()["rooms"].as_array().is_some_and(Vec::is_empty));
    enter(&gateway, Transport::Tcp, &json!({ "key": "phone" }));
}

#[test]
fn a_drain_does_not_wait_for_an_endpoint_that_hangs() {
    let endpoint = Endpoint::start(|_| Does::Hang);
    let hooks = format!("{}\ncall_ms_max = 60000", login_url(endpoint.address));
    let text = configuration(&hooks).replace("login = \"hook\"", "login = \"hook\"\nlogin_ms_max = 60000");
    let mut gateway = Gateway::start(&text);
    let mut client = connect(&gateway, Transport::WebSocket);
    client.send(operation::AUTH, 1, b"{}");
    until("it is asked about", || endpoint.asked().len() == 1);
    let since = Instant::now();
    gateway.terminate();
    assert_eq!(client.close_code(), 1012);
    drop(client);
    assert!(gateway.wait().success(), "{}", gateway.log());
    assert!(since.elapsed() < PATIENCE, "and not after its minute");
}

#[test]
fn rooms_are_asked_about_one_by_one() {
    let endpoint = Endpoint::start(|asked| {
        let room = asked.json()["room"].as_str().unwrap_or_default().to_owned();
        match room.as_str() {
            "hangs" => Does::Hang,
            _ => Does::Say(json!({ "allowed": !room.starts_with("closed"), "reason": "closed" }).to_string()),
        }
    });
    let hooks = format!("join_url = \"http://{}/join\"\ncall_ms_max = 500", endpoint.address);
    let gateway = Gateway::start(&configuration(&format!("{hooks}\n{}", login_url(endpoint.address))));
    for transport in BOTH {
        let login = json!({ "mid": 7, "key": "k", "halley": 1, "accepts": [1000] });
        let mut client = enter(&gateway, transport, &login);
        let mut status = |room: &str| JoinReply::parse(&client.ask(operation::JOIN, room.as_bytes())).expect("a reply");
        assert_eq!(status("lobby"), JoinReply { status: JoinStatus::Joined, members: 1 });
        assert_eq!(status("closed-1"), JoinReply { status: JoinStatus::Refused, members: 0 });
        assert_eq!(status("hangs"), JoinReply { status: JoinStatus::Refused, members: 0 });
        let question = endpoint.asked().last().expect("it was asked").json();
        assert_eq!((&question["mid"], &question["key"], &question["room"]), (&json!(7), &json!("k"), &json!("hangs")));
        assert_eq!(client.ask(operation::CHANGE_ROOM, b"live://1"), b"live://1");
        client.send(operation::CHANGE_ROOM, 9, b"closed-2");
        let Heard::Packet { operation: operation::KICK, body, .. } = client.hear() else { panic!("a kick") };
        assert_eq!(Kick::parse(&body).map(|kick| kick.code), Some(4002));
    }
    // Who logs in elsewhere is asked about its room too.
    let mut open = Client::connect(gateway.listeners[2], Transport::Tcp);
    open.send(operation::AUTH, 1, br#"{"key":"o","room_id":"closed-3"}"#);
    assert_eq!(open.hear(), Heard::End);
    let login = json!({ "key": "o", "room_id": "show://1", "accepts": [1000] }).to_string();
    let mut open = Client::login(gateway.listeners[2], Transport::Tcp, &login);
    gateway.curl("/goim/push/room?operation=1000&type=show&room=1", "to the room");
    open.expect_push(1000, "to the room");
    assert_eq!(calls(&gateway, "join", "refused"), 5);
    assert_eq!(calls(&gateway, "join", "late"), 2);
}

/// The blocks of this language in `docs/hooks.md`.
fn example(language: &str) -> String {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/hooks.md");
    let page = std::fs::read_to_string(page).expect("the page");
    let (_, block) = page.split_once(&format!("```{language}\n")).expect("a block");
    block.split_once("\n```").expect("its end").0.to_owned()
}

/// A process that ends with its test.
struct Ends(std::process::Child);

impl Drop for Ends {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_example_of_the_documents_is_an_endpoint() {
    const SECRET: &str = "a secret of this test, long enough";
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("hooks.py"), example("python")).expect("written");
    let port = nobody().port();
    let mut python = std::process::Command::new("python3");
    python.args(["hooks.py", &port.to_string()]).current_dir(folder.path()).env("HOOKS_SECRET", SECRET);
    let Ok(python) = python.stderr(std::process::Stdio::null()).spawn() else {
        println!("skipped: there is no python3 to run the example with");
        return;
    };
    let _python = Ends(python);
    until("it listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    let address = format!("127.0.0.1:{port}");
    let hooks = format!("{}\njoin_url = \"http://{address}/join\"", login_url(&address));
    let gateway = Gateway::start(&configuration(&format!("{hooks}\nsecret = \"{SECRET}\"")));
    let let_in = json!({ "token": "let me in", "halley": 1, "accepts": [1000] });
    let mut client = enter(&gateway, Transport::WebSocket, &let_in);
    gateway.curl("/goim/push/mids?operation=1000&mids=7", "in");
    client.expect_push(1000, "in");
    for (room, status) in [("live://1", JoinStatus::Joined), ("other", JoinStatus::Refused)] {
        let reply = client.ask(operation::JOIN, room.as_bytes());
        assert_eq!(JoinReply::parse(&reply).map(|reply| reply.status), Some(status), "{room}");
    }
    refused(&gateway, 4002);
    // Who does not know the secret is told nothing.
    let stranger = Gateway::start(&configuration(&hooks));
    refused(&stranger, 1013);
}

/// Every entry that an endpoint was told, in the order it came.
fn gone(endpoint: &Endpoint) -> Vec<Value> {
    let calls = endpoint.asked();
    let entries = calls.iter().flat_map(|asked| asked.json()["gone"].as_array().expect("entries").clone());
    entries.collect()
}

#[test]
fn who_is_gone_is_told_in_order_with_why_and_where_it_was() {
    let endpoint = Endpoint::saying(&json!({}));
    let hooks = format!("gone_url = \"http://{}/gone\"", endpoint.address);
    let gateway = Gateway::start(&configuration(&hooks).replace("login = \"hook\"", "login = \"open\""));
    let login = json!({ "mid": 7, "key": "phone", "room_id": "live://1", "halley": 1 });
    let mut client = enter(&gateway, Transport::Tcp, &login);
    client.ask(operation::JOIN, b"chat://1");
    client.ask(operation::JOIN, b"chat://2");
    client.ask(operation::LEAVE, b"chat://1");
    client.ask(operation::CHANGE_ROOM, b"live://2");
    let peer = client.stream.local_addr().expect("an address").to_string();
    // Who never was in is not gone either.
    let mut nobody = connect(&gateway, Transport::Tcp);
    nobody.send(operation::AUTH, 1, b"nonsense");
    assert_eq!(nobody.hear(), Heard::End);
    drop(client);
    until("the first is told", || gone(&endpoint).len() == 1);
    let _tablet = enter(&gateway, Transport::Tcp, &json!({ "key": "tablet" }));
    assert_eq!(gateway.call("DELETE", "/v1/connections/tablet", "", "").status, 200);
    until("the second is told", || gone(&endpoint).len() == 2);
    let mut last = enter(&gateway, Transport::WebSocket, &json!({ "key": "tv" }));
    let told = gone(&endpoint);
    let expected = json!({
        "number": 1, "mid": 7, "key": "phone", "rooms": ["live://2", "chat://2"], "reason": "peer-closed",
        "seconds": told[0]["seconds"], "peer": peer,
    });
    assert_eq!(told[0], expected);
    assert!(told[0]["seconds"].as_u64().is_some_and(|seconds| seconds < 60));
    let second = (&told[1]["number"], &told[1]["key"], &told[1]["rooms"], &told[1]["reason"], &told[1]["mid"]);
    assert_eq!(second, (&json!(2), &json!("tablet"), &json!([]), &json!("kicked"), &Value::Null));
    let metrics = gateway.get("/metrics").body;
    assert!(metrics.contains("halley_hook_gone_total{result=\"told\"} 2"), "{metrics}");
    // Whom a drain ends is told of before the process is.
    gateway.terminate();
    assert_eq!(last.close_code(), 1012);
    drop(last);
    let mut gateway = gateway;
    assert!(gateway.wait().success());
    let told = gone(&endpoint);
    assert_eq!((told.len(), &told[2]["key"], &told[2]["reason"]), (3, &json!("tv"), &json!("drain")));
    let runs: Vec<_> = endpoint.asked().iter().map(|asked| asked.json()["run"].clone()).collect();
    assert!(runs.iter().all(|run| run == &runs[0] && run.is_string()), "{runs:?}");
}

#[test]
fn who_is_gone_while_the_endpoint_is_away_is_told_later_in_order_and_what_is_lost_is_counted() {
    let away = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let still = std::sync::Arc::clone(&away);
    let endpoint = Endpoint::start(move |_| {
        if still.load(std::sync::atomic::Ordering::Relaxed) {
            Does::Blurt(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n".to_vec())
        } else {
            Does::Say("{}".into())
        }
    });
    let hooks = format!(
        "gone_url = \"http://{}/gone\"\ngone_batch_max = 3\ngone_queue_max = 8\ngone_tries_max = 4",
        endpoint.address
    );
    let gateway = Gateway::start(&configuration(&hooks).replace("login = \"hook\"", "login = \"open\""));
    let come_and_go = |number: usize| {
        drop(enter(&gateway, Transport::Tcp, &json!({ "key": format!("phone-{number}") })));
        until("it is gone", || gateway.get("/v1/stats").json()["online"] == 0);
    };
    let counted = |result: &str, count: u64| {
        let sample = format!("halley_hook_gone_total{{result=\"{result}\"}} {count}\n");
        gateway.get("/metrics").body.contains(&sample)
    };
    come_and_go(1);
    until("the first was tried", || !endpoint.asked().is_empty());
    for number in 2..=10 {
        come_and_go(number);
    }
    assert!(counted("dropped", 2), "8 may wait, and 10 are gone: {}", gateway.get("/metrics").body);
    until("the first was tried often enough", || counted("lost", 1));
    away.store(false, std::sync::atomic::Ordering::Relaxed);
    until("the others are told", || counted("told", 7));
    let number = |entry: &Value| entry["number"].as_u64().expect("a number");
    let calls = endpoint.asked();
    let mut calls: Vec<Vec<u64>> = calls
        .iter()
        .map(|asked| asked.json()["gone"].as_array().expect("entries").iter().map(number).collect())
        .collect();
    assert!(calls.iter().all(|call| call.len() <= 3), "no more than a batch");
    // A call that failed is made again as it was.
    calls.dedup();
    assert_eq!(calls.concat(), (1..=8).collect::<Vec<_>>(), "9 and 10 were dropped, and a gap will say so");
    come_and_go(11);
    until("the next one is told", || gone(&endpoint).last().is_some_and(|entry| entry["number"] == 11));
}
