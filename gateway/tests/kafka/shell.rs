//! `halley push`, as a shell calls it.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use crate::support::Gateway;
use crate::world::{broker, client, gateway, topic};

pub(crate) fn push(arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_halley"));
    command.arg("push").args(arguments).env_remove("HALLEY_API").env_remove("HALLEY_TOKEN");
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().expect("the binary starts");
    // A call that is wrong does not read.
    let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
    child.wait_with_output().expect("its end")
}

pub(crate) fn said(output: &Output) -> (Option<i32>, String) {
    let text = [&output.stdout[..], &output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).trim_end().to_owned())
}

#[test]
fn a_message_or_a_pipe_of_them_is_pushed_through_the_api() {
    let gateway = Gateway::open();
    let mut client = client(&gateway, "k", "r");
    let api = format!("http://{}", gateway.api);
    let output = push(&["--api", &api, "key:k", "--text", "hi"], "");
    assert_eq!(said(&output), (Some(0), r#"{"results":[{"dispatched":1,"offline":0}]}"#.into()));
    client.expect_push(1000, "hi");
    assert_eq!(push(&["--api", &api, "room:r", "--lines", "--operation", "5"], "a\nb\n").status.code(), Some(0));
    client.expect_push(5, "a");
    client.expect_push(5, "b");
    let all = push(&["--api", &api, "all", "member:7"], "whole\ninput");
    assert_eq!(
        said(&all),
        (Some(0), r#"{"results":[{"dispatched":1,"offline":0},{"dispatched":1,"offline":0}]}"#.into())
    );
    client.expect_push(1000, "whole\ninput");
    client.expect_push(1000, "whole\ninput");
    assert_eq!(push(&["--api", &api, "nowhere"], "").status.code(), Some(2));
    assert_eq!(push(&["--api", "http://127.0.0.1:1", "all", "--text", ""], "").status.code(), Some(2));
    assert_eq!(push(&[], "").status.code(), Some(2));
    let file = gateway.folder().join("client.properties");
    let path = file.to_str().expect("text");
    for (text, wrong) in
        [("acks=1\n", "acks is Halley's"), ("# right\n\nnonsense\n", "client.properties:3: write name=value")]
    {
        std::fs::write(&file, text).expect("written");
        let (code, said) = said(&push(&["--kafka", "127.0.0.1:1/t", "--kafka-config", path, "all", "--text", ""], ""));
        assert!(code == Some(2) && said.contains(wrong), "{code:?} {said}");
    }
    assert!(said(&push(&["--help"], "")).1.contains("Exit codes: 0, every"), "the help says what they mean");
}

#[test]
fn a_pipe_of_messages_goes_straight_into_kafka() {
    let Some(broker) = broker() else { return };
    let topic = topic(broker, 1);
    let gateway = gateway(broker, &topic, "");
    let mut client = client(&gateway, "k", "r");
    let place = format!("{}/{topic}", broker.address());
    let lines = (0..1000).fold(String::new(), |lines, n| lines + &n.to_string() + "\n");
    let output = push(&["--kafka", &place, "room:r", "--lines"], &lines);
    assert_eq!(said(&output), (Some(0), r#"{"acknowledged":1000}"#.into()));
    for n in 0..1000 {
        client.expect_push(1000, &n.to_string());
    }
    let output = push(&["--kafka", &format!("{}/no-such-topic", broker.address()), "room:r", "--text", "x"], "");
    let (code, text) = said(&output);
    assert!(code == Some(1) && text.contains("no-such-topic does not acknowledge"), "{code:?} {text}");
}
