//! More clients than slots: who comes too early waits, and nobody is forgotten.

use halley_protocol::operation;

use crate::support::{Client, Gateway, Heard, LISTENERS, Transport, until};

/// Four slots in two shards.
fn small() -> Gateway {
    let open = crate::support::OPEN.replace("connections_max = 256", "connections_max = 4");
    Gateway::start(&format!(
        "{open}{}",
        LISTENERS.replace("login = \"open\"\n", "login = \"open\"\nlogin_ms_max = 60000\n")
    ))
}

/// Connects and sends a login, without waiting for the answer.
fn knock(gateway: &Gateway, key: &str) -> Client {
    let mut client = Client::connect(gateway.tcp(), Transport::Tcp);
    client.send(operation::AUTH, 1, format!(r#"{{"key":"{key}"}}"#).as_bytes());
    client
}

fn is_in(client: &mut Client) -> bool {
    match client.hear_within(std::time::Duration::from_millis(1)) {
        None => false,
        Some(Heard::Packet { operation: operation::AUTH_REPLY, .. }) => true,
        Some(other) => panic!("{other:?}"),
    }
}

fn quiet(clients: &mut [Client]) {
    for client in clients {
        client.expect_quiet();
    }
}

fn shard_of(gateway: &Gateway, key: &str) -> u64 {
    gateway.get(&format!("/v1/connections/{key}")).json()["connections"][0]["shard"].as_u64().expect("a shard")
}

#[test]
fn clients_beyond_the_maximum_wait_and_are_served_when_others_leave() {
    let gateway = small();
    let mut inside: Vec<Client> = (0..4)
        .map(|n| {
            let mut client = knock(&gateway, &format!("first{n}"));
            client.expect(operation::AUTH_REPLY, 1, b"");
            client
        })
        .collect();
    let mut waiting: Vec<Client> = (0..6).map(|n| knock(&gateway, &format!("second{n}"))).collect();
    // Everybody inside is served while others wait, and nobody of these is let in or turned away.
    quiet(&mut inside);
    assert!(!waiting.iter_mut().any(is_in));
    assert_eq!(gateway.counter("/connections"), 4);
    assert_eq!(gateway.counter("/accept_pauses"), 2, "each shard stopped accepting once");
    while !waiting.is_empty() {
        drop(inside.remove(0));
        until("one who waits to be let in", || {
            let Some(at) = waiting.iter_mut().position(is_in) else { return false };
            inside.push(waiting.remove(at));
            true
        });
    }
    quiet(&mut inside);
    assert_eq!(gateway.counter("/accepted"), 10);
    assert_eq!(gateway.counter("/rejects/accept-failed"), 0);
}

#[test]
fn a_full_shard_keeps_nobody_from_another_that_has_room() {
    let gateway = small();
    for round in 0..10 {
        let mut clients: Vec<(String, Client)> = (0..4)
            .map(|n| {
                let key = format!("r{round}-{n}");
                let mut client = knock(&gateway, &key);
                client.expect(operation::AUTH_REPLY, 1, b"");
                (key, client)
            })
            .collect();
        let shard = round % 2;
        clients.retain(|(key, _)| shard_of(&gateway, key) != shard);
        assert_eq!(clients.len(), 2, "two slots each");
        for n in 0..2 {
            // WebSocket and TCP share the slots.
            let login = format!(r#"{{"key":"late{round}-{n}"}}"#);
            let (address, transport) =
                if n == 0 { (gateway.tcp(), Transport::Tcp) } else { (gateway.ws(), Transport::WebSocket) };
            let client = Client::login(address, transport, &login);
            let key = format!("late{round}-{n}");
            assert_eq!(shard_of(&gateway, &key), shard);
            clients.push((key, client));
        }
        drop(clients);
        gateway.until_counter("/connections", 0);
    }
}

#[test]
fn waiting_for_a_slot_costs_no_turns() {
    let gateway = small();
    let mut inside: Vec<Client> = (0..4).map(|n| knock(&gateway, &format!("in{n}"))).collect();
    for client in &mut inside {
        client.expect(operation::AUTH_REPLY, 1, b"");
    }
    let waiting: Vec<Client> = (0..3).map(|n| knock(&gateway, &format!("out{n}"))).collect();
    let turns = gateway.counter("/turns");
    std::thread::sleep(std::time::Duration::from_secs(1));
    // Each of two shards wakes every 100 ms; a spin would be thousands.
    let spent = gateway.counter("/turns") - turns;
    assert!(spent < 200, "{spent} turns");
    drop(waiting);
}
