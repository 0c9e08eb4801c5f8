//! Compression with a client that is not ours: a browser's own WebSocket; skipped where there is none.

use std::path::Path;

use serde_json::json;

use super::page::{drive, works};
use crate::support::{Client, Gateway, LISTENERS, OPEN, Transport};

#[test]
fn a_browser_agrees_to_compression_and_reads_and_says_compressed_messages() {
    let gateway = Gateway::start(&format!("{OPEN}{LISTENERS}compression = true\n"));
    let mut plain = Client::login(gateway.ws(), Transport::WebSocket, r#"{"room_id":"room"}"#);
    let clients = format!("ws://{}/sub", gateway.ws());
    let page = format!("http://{}/healthz", gateway.api);
    let Some(driver) = drive("compression", &page, &["--clients", &clients]) else { return };
    let text = |n: usize| format!("{n} {}", "again and again ".repeat(40));
    let said = works(driver, |line, _| {
        if line == "push please" {
            for n in 0..3 {
                let payload = json!({ "text": text(n) });
                gateway.push(&json!({ "target": { "room": "room" }, "operation": 1000, "payload": payload }));
            }
        }
    });
    assert!(said.contains("push please"), "{said}");
    (0..3).for_each(|n| plain.expect_push(1000, &text(n)));
    let metrics = gateway.get("/metrics").body;
    let value = |name: &str| {
        let line = metrics.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        line.and_then(|value| value.parse::<u64>().ok()).unwrap_or_else(|| panic!("no {name}: {metrics}"))
    };
    assert_eq!(value("halley_deflated_total{result=\"smaller\"}"), 3, "once each, whoever got it");
    assert!(value("halley_deflate_out_bytes_total") * 3 < value("halley_deflate_in_bytes_total"));
    assert!(value("halley_inflated_total") >= 2, "its login and its list");
    assert!(value("halley_inflate_in_bytes_total") < value("halley_inflate_out_bytes_total"));
    gateway.stop();
}

#[test]
fn a_listener_without_websocket_or_goim_v2_has_no_compression() {
    let folder =
        crate::support::folder_with(&format!("{OPEN}{}", LISTENERS.replacen("tcp\"", "tcp\"\ncompression = true", 1)));
    let mut command = crate::support::halley();
    command.args(["--check-config", "--config"]).arg(Path::new(folder.path()).join("halley.toml"));
    let output = command.output().expect("the binary starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success() && said.contains("listener[0].compression"), "{said}");
}
