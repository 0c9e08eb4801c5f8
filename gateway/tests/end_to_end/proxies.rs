//! Clients behind proxies: whose addresses they have, who may say so, and that health checks make no noise.

use std::io::Write as _;

use halley_protocol::operation;
use halley_protocol::websocket::client as websocket;

use crate::support::{Client, Gateway, LISTENERS, OPEN, Transport, connect, ended, exchange};

const LINE: &[u8] = b"PROXY TCP4 203.0.113.7 10.0.0.1 40000 3101\r\n";
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

/// Both listeners believe these proxies, in this way.
fn behind(client_address: &str, trusted: &str) -> Gateway {
    let keys = format!("client_address = \"{client_address}\"\ntrusted_proxies = [\"{trusted}\"]\n");
    let listeners = LISTENERS.replace("login = \"open\"\n", &format!("login = \"open\"\n{keys}"));
    if client_address == "proxy-protocol" {
        return Gateway::start(&format!("{OPEN}{listeners}"));
    }
    // Headers of HTTP come over WebSocket, and to the API.
    Gateway::start(&format!("{OPEN}{keys}{}", listeners.replacen(&keys, "", 1)))
}

fn peer(gateway: &Gateway, key: &str) -> String {
    let found = gateway.get(&format!("/v1/connections/{key}")).json();
    found["connections"][0]["peer"].as_str().unwrap_or_else(|| panic!("{found}")).to_owned()
}

#[test]
fn a_client_behind_the_proxy_protocol_has_its_own_address() {
    let gateway = behind("proxy-protocol", "127.0.0.0/8");
    for (transport, address) in [(Transport::Tcp, gateway.tcp()), (Transport::WebSocket, gateway.ws())] {
        let mut stream = connect(address);
        stream.write_all(LINE).expect("taken");
        let mut client = Client::over(stream, transport);
        let key = format!("{transport:?}");
        client.send(operation::AUTH, 1, format!(r#"{{"key":"{key}"}}"#).as_bytes());
        client.expect(operation::AUTH_REPLY, 1, b"");
        assert_eq!(peer(&gateway, &key), "203.0.113.7:40000");
        client.expect_quiet();
    }
    let mut garbage = connect(gateway.tcp());
    garbage.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("taken");
    assert!(ended(&mut garbage), "without a word");
    assert_eq!(gateway.counter("/closes/proxy-malformed"), 1);
}

#[test]
fn health_checks_of_a_balancer_are_no_news() {
    let gateway = behind("proxy-protocol", "127.0.0.0/8");
    let before = gateway.log();
    for (at, hello) in [&b""[..], LOCAL, LINE, &LINE[..10]].iter().cycle().take(200).enumerate() {
        let mut check = connect(if at % 2 == 0 { gateway.tcp() } else { gateway.ws() });
        check.write_all(hello).expect("taken");
    }
    crate::support::until("all have come and gone", || {
        gateway.counter("/accepted") == 200 && gateway.counter("/connections") == 0
    });
    let ends = ["peer-closed", "peer-reset"].map(|reason| gateway.counter(&format!("/closes/{reason}")));
    assert_eq!(ends.iter().sum::<u64>(), 200);
    assert_eq!(gateway.log(), before, "not a line");
}

#[test]
fn who_is_no_proxy_of_the_list_is_refused() {
    let gateway = behind("proxy-protocol", "10.0.0.0/8");
    for address in [gateway.tcp(), gateway.ws()] {
        let mut stream = connect(address);
        // It may find the connection ended already.
        let _ = stream.write_all(LINE);
        assert!(ended(&mut stream));
    }
    assert_eq!(gateway.counter("/closes/proxy-untrusted"), 2);
    assert_eq!(gateway.get("/v1/stats").json()["logins"]["admitted"], 0);
}

/// A client that asks for its upgrade with these headers too.
fn upgraded(gateway: &Gateway, key: &str, headers: &str) {
    let head = websocket::request("localhost", "/sub", "dGhlIHNhbXBsZSBub25jZQ==");
    let mut stream = connect(gateway.ws());
    stream.write_all(head.replace("\r\n\r\n", &format!("\r\n{headers}\r\n\r\n")).as_bytes()).expect("taken");
    let mut login = Vec::new();
    let body = format!(r#"{{"key":"{key}"}}"#);
    let packet = halley_protocol::Packet { version: 1, operation: operation::AUTH, sequence: 1, body: body.as_bytes() };
    websocket::packet(&mut login, [1, 2, 3, 4], &packet);
    stream.write_all(&login).expect("taken");
    crate::support::until("its login", || gateway.get(&format!("/v1/connections/{key}")).status == 200);
    let seen = peer(gateway, key);
    drop(stream);
    let expected = key.strip_prefix("from-").expect("a key says the address");
    assert_eq!(seen.rsplit_once(':').map(|(ip, _)| ip), Some(expected), "{headers}");
}

#[test]
fn a_header_of_the_upgrade_says_the_address_and_one_of_a_client_does_not() {
    let gateway = behind("x-forwarded-for", "127.0.0.0/8");
    upgraded(&gateway, "from-203.0.113.7", "X-Forwarded-For: 9.9.9.9, 203.0.113.7, 127.0.0.2");
    upgraded(&gateway, "from-127.0.0.1", "Forwarded: for=203.0.113.7");
    let gateway = behind("forwarded", "127.0.0.0/8");
    upgraded(&gateway, "from-203.0.113.7", "Forwarded: for=203.0.113.7;proto=https");
    upgraded(&gateway, "from-127.0.0.1", "X-Forwarded-For: 203.0.113.7");
    let gateway = behind("x-forwarded-for", "10.0.0.0/8");
    upgraded(&gateway, "from-127.0.0.1", "X-Forwarded-For: 203.0.113.7");
}

#[test]
fn the_audit_log_has_the_callers_address_as_its_proxy_says_it() {
    let gateway = behind("x-forwarded-for", "127.0.0.0/8");
    let call = |headers: &str| gateway.call("DELETE", "/v1/connections/nobody", headers, "").status;
    assert_eq!(call("X-Forwarded-For: 9.9.9.9, 203.0.113.7\r\nForwarded: for=8.8.8.8\r\n"), 404);
    crate::support::until("the event", || gateway.log().contains(r#""from":"203.0.113.7:0""#));
    assert_eq!(call(""), 404);
    crate::support::until("the event", || gateway.log().contains(r#""from":"127.0.0.1:"#));
    assert!(exchange(gateway.api, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").starts_with("HTTP/1.1 200"));
}
