//! The seccomp profile for containers, as a filter of the kernel: the gateway serves under it, and not without io_uring.

mod gateway;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;
use std::{env, fs, thread};

use seccompiler::{BpfProgram, TargetArch};
use serde_json::{Value, json};

use gateway::{Running, halley, workspace};

/// What the profile allows on this architecture, less the system calls with these words in their names.
fn filter(without: &str) -> BpfProgram {
    let text = fs::read_to_string(workspace().join("packaging/seccomp.json")).expect("the profile");
    let profile: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
    let rules = profile["syscalls"].as_array().expect("rules");
    assert!(rules.iter().all(|rule| rule["action"] == "SCMP_ACT_ALLOW" && rule.get("args").is_none()), "{rules:?}");
    let names = rules.iter().flat_map(|rule| rule["names"].as_array().expect("names"));
    let names = names.filter_map(Value::as_str).filter(|name| without.is_empty() || !name.contains(without));
    let allowed: Vec<Value> = names.map(|name| json!({"syscall": name})).collect();
    let errno = &profile["defaultErrnoRet"];
    let filters = json!({"it": {"mismatch_action": {"errno": errno}, "match_action": "allow", "filter": allowed}});
    let target = TargetArch::try_from(env::consts::ARCH).expect("an architecture that seccomp is known for");
    let mut programs: BTreeMap<String, BpfProgram> =
        seccompiler::compile_from_json(filters.to_string().as_bytes(), target).expect("a filter").into_iter().collect();
    programs.remove("it").expect("the filter")
}

/// The gateway under a filter: of a thread of its own, which the child inherits it from.
fn start(filter: BpfProgram) -> Running {
    let mut command = Command::new(halley());
    command.arg("--dev").env("HALLEY__CONNECTIONS_MAX", "100");
    for key in ["DEV__TCP", "DEV__WS", "API__BIND"] {
        command.env(format!("HALLEY__{key}"), "127.0.0.1:0");
    }
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let started = thread::spawn(move || {
        seccompiler::apply_filter(&filter).expect("the kernel takes the filter");
        Running(command.spawn().expect("it starts"))
    });
    started.join().expect("a child")
}

fn call(api: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(api).expect("the API listens");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

#[test]
fn the_gateway_serves_under_the_profile() {
    let mut gateway = start(filter(""));
    let lines = BufReader::new(gateway.0.stderr.take().expect("piped")).lines().map_while(Result::ok);
    let ready =
        lines.filter_map(|line| serde_json::from_str::<Value>(&line).ok()).find(|line| line["event"] == "ready");
    let ready = ready.expect("it is ready");
    let address = |value: &Value| value.as_str().and_then(|text| text.parse::<SocketAddr>().ok()).expect("an address");
    let listeners = ready["listeners"].as_array().expect("listeners");
    let tcp = listeners.iter().find(|listener| listener["transport"] == "tcp").expect("a TCP listener");

    // A login of goim's: length 16 + body, header 16, version 1, operation 7, sequence 1.
    let body = br#"{"mid":1,"key":"k","room_id":"live://1","platform":"test","accepts":[1000]}"#;
    let mut client = TcpStream::connect(address(&tcp["address"])).expect("it accepts");
    client.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    let length = u32::try_from(16 + body.len()).expect("short");
    let header = [&length.to_be_bytes()[..], &[0, 16, 0, 1, 0, 0, 0, 7, 0, 0, 0, 1]].concat();
    client.write_all(&[&header[..], body].concat()).expect("a login");
    let mut reply = [0; 16];
    client.read_exact(&mut reply).expect("a reply");
    assert_eq!(reply[11], 8, "admitted");

    let api = address(&ready["api"]);
    let push =
        "POST /goim/push/all?operation=1000 HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello";
    assert!(call(api, push).starts_with("HTTP/1.1 200"));
    let mut message = [0; 16 + 5];
    client.read_exact(&mut message).expect("a push, which over TCP is the inner packet");
    assert!(message.ends_with(b"hello"));
    let metrics = call(api, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(metrics.contains("halley_sent_total 1\n"), "{metrics}");

    let pid = gateway.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().is_ok_and(|status| status.success()));
    assert!(gateway.0.wait().expect("it ends").success(), "it drains and ends in order");
}

#[test]
fn without_io_uring_it_says_what_is_missing() {
    let mut gateway = start(filter("io_uring"));
    let mut said = String::new();
    gateway.0.stderr.take().expect("piped").read_to_string(&mut said).expect("text");
    assert_eq!(gateway.0.wait().expect("it ends").code(), Some(2), "{said}");
    assert!(said.contains("io_uring is not permitted"), "{said}");
}
