//! A gateway that goes and comes back on the same ports.

use crate::support::{Client, Gateway, LISTENERS, OPEN, Transport};

#[test]
fn clients_of_a_gateway_that_was_restarted_log_in_again_and_receive() {
    let login = |n: usize| format!(r#"{{"key":"k{n}","room_id":"r","accepts":[1]}}"#);
    // An address of its own: on 127.0.0.1 a client of another test could get a port while the gateway is away.
    let listeners = LISTENERS.replace("127.0.0.1", "127.0.0.72");
    let mut gateway = Gateway::start(&format!("{OPEN}{listeners}"));
    let ports = [gateway.tcp(), gateway.ws()];
    let at = |gateway: &Gateway, n: usize| match n % 2 {
        0 => Client::login(gateway.tcp(), Transport::Tcp, &login(n)),
        _ => Client::login(gateway.ws(), Transport::WebSocket, &login(n)),
    };
    let mut clients: Vec<Client> = (0..20).map(|n| at(&gateway, n)).collect();
    gateway.curl("/goim/push/all?operation=1", "before");
    for client in &mut clients {
        client.expect_push(1, "before");
    }
    gateway.terminate();
    for (n, client) in clients.into_iter().enumerate() {
        let mut client = client;
        if n % 2 == 1 {
            assert_eq!(client.close_code(), 1012);
        }
        drop(client);
    }
    assert!(gateway.wait().success(), "{}", gateway.log());

    let mut listeners = listeners;
    for address in ports {
        listeners = listeners.replacen("127.0.0.72:0", &address.to_string(), 1);
    }
    let gateway = Gateway::start(&format!("{OPEN}{listeners}"));
    assert_eq!([gateway.tcp(), gateway.ws()], ports);
    let mut clients: Vec<Client> = (0..20).map(|n| at(&gateway, n)).collect();
    gateway.curl("/goim/push/all?operation=1", "after");
    for client in &mut clients {
        client.expect_push(1, "after");
        client.expect_quiet();
    }
    drop(clients);
    gateway.stop();
}

#[test]
fn a_gateway_can_be_started_again_as_soon_as_it_has_ended() {
    let address = std::net::SocketAddr::from(([127, 0, 0, 73], 0));
    let mut gateway = Gateway::dev([address; 3]);
    for _ in 0..10 {
        let addresses = [gateway.tcp(), gateway.ws(), gateway.api];
        let clients = [gateway.tcp(), gateway.api].map(crate::support::connect);
        gateway.stop();
        gateway = Gateway::dev(addresses);
        drop(clients);
    }
    gateway.stop();
}
