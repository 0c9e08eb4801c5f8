//! Logins with tokens: what each client sees, on both transports, and what is counted.

use halley_protocol::halley::{JoinReply, JoinStatus, Kick, RefreshReply, RefreshStatus};
use halley_protocol::operation;
use serde_json::{Value, json};

use crate::reload::{reload, with_file};
use crate::support::{Client, Gateway, Heard, Transport, until};
use crate::tokens::{Platform, hs256, message, now_s, signed, with_defaults};

const BOTH: [Transport; 2] = [Transport::Tcp, Transport::WebSocket];

/// What the tokens of most tests allow.
fn phone() -> Value {
    json!({ "mid": 7, "key": "phone-*", "rooms": ["live://*"], "operations": [1000, 1001], "jti": "t" })
}

fn login(token: &str, rest: &Value) -> String {
    let mut login = rest.clone();
    login["token"] = token.into();
    login.to_string()
}

fn address(gateway: &Gateway, transport: Transport) -> std::net::SocketAddr {
    if transport == Transport::Tcp { gateway.tcp() } else { gateway.ws() }
}

/// A client that is in, as `phone-1`, with Halley's mark.
fn enter(gateway: &Gateway, transport: Transport, token: &str) -> Client {
    enter_as(gateway, transport, token, &json!({ "key": "phone-1", "halley": 1, "accepts": [1000] }))
}

fn enter_as(gateway: &Gateway, transport: Transport, token: &str, rest: &Value) -> Client {
    Client::login(address(gateway, transport), transport, &login(token, rest))
}

/// A login that is turned down, and the close code that a WebSocket client sees; over TCP nothing is said.
fn refused(gateway: &Gateway, transport: Transport, body: &str) {
    let mut client = Client::connect(address(gateway, transport), transport);
    client.send(operation::AUTH, 1, body.as_bytes());
    if transport == Transport::WebSocket {
        assert_eq!(client.close_code(), 4002, "{body}");
    } else {
        assert_eq!(client.hear(), Heard::End, "{body}");
    }
}

fn logins(gateway: &Gateway, result: &str) -> u64 {
    gateway.get("/v1/stats").json()["logins"][result].as_u64().unwrap_or(0)
}

#[test]
fn a_good_token_of_every_algorithm_lets_in_as_whom_it_says() {
    let platform = Platform::new();
    let gateway = Gateway::start(&platform.configuration());
    for kid in ["hs", "ed", "es", "rs"] {
        for transport in BOTH {
            let token = platform.token(kid, &json!({ "mid": 7, "key": "device", "rooms": ["live://1"] }));
            assert!(token.len() < 900, "{kid}: {} bytes", token.len());
            let login = json!({ "room_id": "live://1", "accepts": [1000] });
            let mut client = enter_as(&gateway, transport, &token, &login);
            for uri in [
                "/goim/push/keys?operation=1000&keys=device",
                "/goim/push/mids?operation=1000&mids=7",
                "/goim/push/room?operation=1000&type=live&room=1",
            ] {
                gateway.curl(uri, uri);
                client.expect_push(1000, uri);
            }
        }
    }
    assert_eq!(logins(&gateway, "admitted"), 8);
    // Tokens as they are written elsewhere: lists, fractions, claims that nobody here knows.
    let odd = json!({ "aud": ["web", "push"], "exp": 4_102_444_800.5_f64, "sub": "x", "roles": [1, { "a": null }] });
    enter_as(&gateway, Transport::Tcp, &platform.token("ed", &odd), &json!({}));
}

#[test]
fn a_token_that_is_not_good_is_refused_and_counted_by_its_mistake() {
    let platform = Platform::new();
    let gateway = Gateway::start(&platform.configuration());
    let claims = with_defaults(&json!({}));
    let of = |claims: Value| platform.token("ed", &claims);
    let header = |algorithm: &str, kid: &str| json!({ "alg": algorithm, "kid": kid });
    let unsigned = |algorithm: &str, kid: &str| message(&header(algorithm, kid), &claims);
    let swapped = |kid: &str, secret: &[u8]| {
        let message = unsigned("HS256", kid);
        signed(&message, &hs256(secret, message.as_bytes()))
    };
    let pem = std::fs::read(platform.file("rs")).expect("a public key");
    let ed = std::fs::read(platform.file("ed")).expect("a public key");
    let good = of(json!({}));
    let (start, signature) = good.rsplit_once('.').expect("three parts");
    let forged_claims = message(&header("EdDSA", "ed"), &with_defaults(&json!({ "mid": 1 })));
    let crit = message(&json!({ "alg": "EdDSA", "kid": "ed", "crit": ["b64"], "b64": false }), &claims);
    let cases = [
        (String::new(), "token-missing"),
        ("nonsense".into(), "token-malformed"),
        (format!("{good}.x"), "token-malformed"),
        (start.to_owned(), "token-malformed"),
        (format!("{start}.!"), "token-malformed"),
        (platform.sign("ed", &crit), "token-malformed"),
        (of(json!({ "exp": now_s() - 60 })), "token-expired"),
        (of(json!({ "nbf": now_s() + 60 })), "token-early"),
        (of(json!({ "exp": null })), "token-claims"),
        (of(json!({ "exp": "tomorrow" })), "token-claims"),
        (of(json!({ "rooms": "live://*" })), "token-claims"),
        (of(json!({ "rooms": vec!["r"; 65] })), "token-claims"),
        (of(json!({ "iss": "somebody" })), "token-issuer"),
        (of(json!({ "iss": null })), "token-issuer"),
        (of(json!({ "aud": "web" })), "token-audience"),
        (of(json!({ "aud": null })), "token-audience"),
        (signed(start, &[7; 64]), "token-signature"),
        (format!("{forged_claims}.{signature}"), "token-signature"),
        (platform.sign("es", &unsigned("EdDSA", "ed")), "token-signature"),
        (format!("{}.", unsigned("EdDSA", "ed")), "token-signature"),
        (format!("{}.", unsigned("none", "ed")), "token-algorithm"),
        (format!("{}.", unsigned("None", "hs")), "token-algorithm"),
        (format!("{}.{signature}", unsigned("none", "ed")), "token-algorithm"),
        (platform.sign("ed", &unsigned("ES256", "ed")), "token-algorithm"),
        (platform.sign("rs", &unsigned("RS512", "rs")), "token-algorithm"),
        (platform.sign("hs", &unsigned("HS512", "hs")), "token-algorithm"),
        (swapped("rs", &pem), "token-algorithm"),
        (swapped("rs", pem.trim_ascii_end()), "token-algorithm"),
        (swapped("ed", &ed), "token-algorithm"),
        (platform.sign("ed", &unsigned("EdDSA", "nobodys")), "token-key-unknown"),
        (platform.sign("ed", &message(&json!({ "alg": "EdDSA" }), &claims)), "token-key-unknown"),
    ];
    let mut counted = std::collections::BTreeMap::new();
    for (token, result) in &cases {
        for transport in BOTH {
            refused(&gateway, transport, &login(token, &json!({ "key": "phone-1" })));
        }
        *counted.entry(*result).or_insert(0) += 2;
        assert_eq!(logins(&gateway, result), counted[result], "{result}: {token}");
    }
    refused(&gateway, Transport::WebSocket, r#"{"key":"as before"}"#);
    refused(&gateway, Transport::WebSocket, r#"{"token":7}"#);
    assert_eq!(logins(&gateway, "token-missing"), counted["token-missing"] + 2, "clients of old have none");
    assert_eq!(logins(&gateway, "admitted"), 0);
    let metrics = gateway.get("/metrics").body;
    assert!(metrics.contains("halley_logins_total{result=\"token-algorithm\"} 18"), "{metrics}");
}

#[test]
fn a_token_beyond_a_packet_is_told_1009_like_every_long_packet() {
    let platform = Platform::new();
    let gateway = Gateway::start(&platform.configuration());
    let with = |bytes: usize| platform.token("hs", &json!({ "filler": "x".repeat(bytes) }));
    for transport in BOTH {
        enter_as(&gateway, transport, &with(2700), &json!({}));
        let mut client = Client::connect(address(&gateway, transport), transport);
        client.send(operation::AUTH, 1, login(&with(3100), &json!({})).as_bytes());
        match transport {
            Transport::Tcp => assert_eq!(client.hear(), Heard::End),
            Transport::WebSocket => assert_eq!(client.close_code(), 1009),
        }
    }
}

#[test]
fn a_login_beyond_its_token_is_refused_and_so_is_the_key_of_another() {
    let platform = Platform::new();
    let gateway = Gateway::start(&platform.configuration());
    let token = platform.token("ed", &phone());
    let nobody = platform.token("ed", &json!({}));
    for (token, rest, result) in [
        (&token, json!({ "key": "phone-1", "mid": 8 }), "member-not-granted"),
        (&token, json!({ "key": "tablet-1" }), "key-not-granted"),
        (&token, json!({}), "key-not-granted"),
        (&token, json!({ "key": "phone-1", "room_id": "chat://1" }), "room-not-granted"),
        (&token, json!({ "key": "phone-1", "accepts": [1000, 1002] }), "operation-not-granted"),
        (&nobody, json!({ "key": "phone-1" }), "key-not-granted"),
        (&nobody, json!({ "mid": 7 }), "member-not-granted"),
        (&nobody, json!({ "room_id": "live://1" }), "room-not-granted"),
    ] {
        let before = logins(&gateway, result);
        for transport in BOTH {
            refused(&gateway, transport, &login(token, &rest));
        }
        assert_eq!(logins(&gateway, result), before + 2, "{rest}");
    }
    assert_eq!(gateway.get("/v1/stats").json()["online"], 0);
    for rest in
        [json!({ "key": "phone-1", "mid": 7, "room_id": "live://1", "accepts": [1001] }), json!({ "key": "phone-2" })]
    {
        enter_as(&gateway, Transport::Tcp, &token, &rest);
    }
    enter_as(&gateway, Transport::Tcp, &nobody, &json!({ "accepts": [4, 5] }));
}

#[test]
fn rooms_and_operations_are_those_of_the_token_after_the_login_too() {
    let platform = Platform::new();
    let gateway = Gateway::start(&platform.configuration());
    for transport in BOTH {
        let mut client = enter(&gateway, transport, &platform.token("ed", &phone()));
        let join = |client: &mut Client, room: &[u8]| JoinReply::parse(&client.ask(operation::JOIN, room));
        let joined = |status, members| Some(JoinReply { status, members });
        assert_eq!(join(&mut client, b"live://2"), joined(JoinStatus::Joined, 1));
        assert_eq!(join(&mut client, b"chat://2"), joined(JoinStatus::Refused, 0));
        client.ask(operation::SUBSCRIBE, b"1002");
        client.ask(operation::SUBSCRIBE, b"1001,1002");
        client.ask(operation::SUBSCRIBE, b"one");
        client.ask(operation::SUBSCRIBE, b"1001");
        let shown = gateway.get("/v1/connections/phone-1").json()["connections"][0].clone();
        assert_eq!((&shown["accepts"], &shown["rooms"]), (&json!([1000, 1001]), &json!(["live://2"])));
        client.ask(operation::UNSUBSCRIBE, b"1000");
        client.ask(operation::CHANGE_ROOM, b"live://3");
        client.ask(operation::CHANGE_ROOM, b"");
        client.send(operation::CHANGE_ROOM, 9, b"chat://3");
        let Heard::Packet { operation: operation::KICK, body, .. } = client.hear() else { panic!("a kick") };
        assert_eq!(Kick::parse(&body).map(|kick| kick.code), Some(4002));
    }
    assert_eq!(gateway.counter("/rejects/not-granted"), 4);
    assert!(gateway.get("/v1/rooms").json()["rooms"].as_array().is_some_and(Vec::is_empty));
}

#[test]
fn a_grant_ends_with_its_token_unless_it_was_refreshed() {
    let platform = Platform::new();
    let gateway = Gateway::start(&platform.configuration());
    let short = |key: &str| platform.token("ed", &json!({ "mid": 7, "key": key, "exp": now_s() + 3, "rooms": ["*"] }));
    let plain = json!({ "accepts": [1] });
    let mut quiet = enter_as(&gateway, Transport::Tcp, &short("a"), &plain);
    let mut seen = enter_as(&gateway, Transport::WebSocket, &short("b"), &plain);
    let mut told = enter_as(&gateway, Transport::Tcp, &short("c"), &json!({ "halley": 1 }));
    let mut stays = enter_as(&gateway, Transport::WebSocket, &short("d"), &json!({ "halley": 1 }));
    let refresh = |client: &mut Client, token: &str| {
        RefreshReply::parse(&client.ask(operation::REFRESH, token.as_bytes())).expect("a reply")
    };
    // Of another member, for another key, expired, forged: nothing changes.
    for wrong in [
        platform.token("ed", &json!({ "mid": 8, "key": "d" })),
        platform.token("ed", &json!({ "mid": 7, "key": "e" })),
        platform.token("ed", &json!({ "mid": 7, "key": "d", "exp": now_s() - 9 })),
        "nonsense".into(),
    ] {
        let reply = refresh(&mut stays, &wrong);
        assert!(reply.status == RefreshStatus::Refused && (0..=4).contains(&reply.seconds), "{reply:?}");
    }
    let longer = json!({ "mid": 7, "key": "d", "exp": now_s() + 600, "rooms": ["live://*"] });
    let reply = refresh(&mut stays, &platform.token("es", &longer));
    assert!(reply.status == RefreshStatus::Refreshed && (590..=601).contains(&reply.seconds), "{reply:?}");
    let status = |reply: Vec<u8>| JoinReply::parse(&reply).expect("a reply").status;
    assert_eq!(status(stays.ask(operation::JOIN, b"chat://1")), JoinStatus::Refused, "measured by the new token");

    assert_eq!(quiet.hear(), Heard::End);
    assert_eq!(seen.close_code(), 4007);
    let Heard::Packet { operation: operation::KICK, body, .. } = told.hear() else { panic!("a kick") };
    assert_eq!(Kick::parse(&body), Some(Kick { code: 4007, text: "grant-expired" }));
    gateway.until_counter("/closes/grant-expired", 3);
    stays.expect_quiet();
    until("one is left", || gateway.get("/v1/stats").json()["online"] == 1);
    // Who does not carry the mark says an upstream message.
    let mut goim = enter_as(&gateway, Transport::Tcp, &short("f"), &plain);
    goim.send(operation::REFRESH, 5, b"x");
    goim.expect(operation::REFRESH, 5, b"");
}

#[test]
fn a_revocation_closes_who_is_there_and_refuses_who_comes_with_an_older_token() {
    let platform = Platform::new();
    let gateway = Gateway::start(&platform.configuration());
    let revoke =
        |body: &Value| gateway.call("POST", "/v1/revocations", "Content-Type: application/json\r\n", &body.to_string());
    let of = |mid: i64, key: &str, id: &str| {
        platform.token("ed", &json!({ "mid": mid, "key": key, "jti": id, "iat": now_s() - 5 }))
    };
    for (what, mid, key, id) in [
        (json!({ "token": "stolen" }), 1, "a", "stolen"),
        (json!({ "member": 2 }), 2, "b", "good-2"),
        (json!({ "key": "c" }), 3, "c", "good-3"),
    ] {
        let token = of(mid, key, id);
        let mut bystander = enter_as(&gateway, Transport::Tcp, &of(9, "bystander", "good"), &json!({}));
        let mut client = enter_as(&gateway, Transport::WebSocket, &token, &json!({}));
        let until = now_s() + 100;
        let mut body = what.clone();
        body["until"] = until.into();
        let answer = revoke(&body);
        assert_eq!((answer.status, answer.json()), (200, json!({ "closed": 1, "until": until })), "{what}");
        assert_eq!(client.close_code(), 4007, "{what}");
        for transport in BOTH {
            refused(&gateway, transport, &login(&token, &json!({})));
        }
        bystander.expect_quiet();
    }
    assert_eq!(logins(&gateway, "token-revoked"), 6);
    assert_eq!(gateway.counter("/closes/grant-revoked"), 3);
    let newer = platform.token("ed", &json!({ "mid": 2, "key": "b2", "iat": now_s() + 1 }));
    enter_as(&gateway, Transport::Tcp, &newer, &json!({}));
    for (body, part) in [
        (json!({}), "exactly one"),
        (json!({ "token": "a", "key": "b" }), "exactly one"),
        (json!({ "token": "" }), "1 to 256"),
        (json!({ "member": 0 }), "above 0"),
        (json!({ "key": "a", "until": 7 }), "has passed"),
        (json!({ "keys": ["a"] }), "unknown field"),
    ] {
        let answer = revoke(&body);
        assert!(answer.status == 400 && answer.body.contains(part), "{body}: {}", answer.body);
    }
    assert!(gateway.log().contains("\"subject\":\"token stolen\""), "it is in the audit log");
}

#[test]
fn keys_rotate_by_reloads_and_nobody_is_dropped() {
    let platform = Platform::new();
    let old = platform.configuration();
    let without = |kid: &str| {
        let mut tables = old.split("[[jwt.keys]]");
        let first = tables.next().expect("what comes before the keys").to_owned();
        let named = format!("kid = \"{kid}\"");
        tables.filter(|table| !table.contains(&named)).fold(first, |all, table| all + "[[jwt.keys]]" + table)
    };
    let (gateway, path) = with_file(&without("es"));
    let token = |kid: &str, key: &str| platform.token(kid, &json!({ "mid": 7, "key": key, "rooms": ["live://*"] }));
    let wants = json!({ "room_id": "live://1", "accepts": [1000], "halley": 1 });
    let mut clients: Vec<Client> =
        BOTH.map(|transport| enter_as(&gateway, transport, &token("ed", &format!("{transport:?}")), &wants)).into();
    let with_new = token("es", "new");
    refused(&gateway, Transport::Tcp, &login(&with_new, &wants));
    let read_anew = |text: &str, said: &str| {
        std::fs::write(&path, text).expect("written");
        let (code, answer) = reload(&gateway);
        assert!(code == Some(0) && answer.contains(said), "{code:?} {answer}");
    };
    read_anew(&old, "jwt.keys: ");
    clients.push(enter_as(&gateway, Transport::Tcp, &with_new, &wants));
    read_anew(&without("ed"), "jwt.keys: ");
    refused(&gateway, Transport::WebSocket, &login(&token("ed", "late"), &wants));
    // Whoever is in by the old key is still there, with what its token gave, and goes on with a token of the new one.
    gateway.curl("/goim/push/room?operation=1000&type=live&room=1", "to all");
    for client in &mut clients {
        client.expect_push(1000, "to all");
    }
    for (client, transport) in clients.iter_mut().zip(BOTH) {
        let joined = JoinReply::parse(&client.ask(operation::JOIN, b"live://2")).expect("a reply");
        assert_eq!(joined.status, JoinStatus::Joined);
        let renewed = client.ask(operation::REFRESH, token("es", &format!("{transport:?}")).as_bytes());
        assert_eq!(RefreshReply::parse(&renewed).expect("a reply").status, RefreshStatus::Refreshed);
    }
    // A file of keys that is written over counts with the next reload, though the configuration is the same.
    let secret = platform.file("hs");
    let before = std::fs::read(&secret).expect("a secret");
    std::fs::write(&secret, "another secret of this test, long enough").expect("written");
    read_anew(&without("ed"), "nothing has changed");
    refused(&gateway, Transport::Tcp, &login(&token("hs", "hs"), &wants));
    std::fs::write(&secret, "short").expect("written");
    let (code, said) = reload(&gateway);
    assert!(code == Some(1) && said.contains("secret_file") && said.lines().count() == 1, "{said}");
    std::fs::write(&secret, before).expect("written");
    read_anew(&without("ed"), "nothing has changed");
    clients.push(enter_as(&gateway, Transport::Tcp, &token("hs", "hs"), &wants));
    assert_eq!(gateway.counter("/connections"), 4);
    drop(clients);
    gateway.stop();
}
