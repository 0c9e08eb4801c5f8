//! Stories of proxies: whose word is taken for a client's address, and what becomes of others.

use std::net::IpAddr;

use halley_protocol::forwarded::ForwardedBy;
use halley_protocol::operation;

use super::client::{Client, Got, KEY};
use super::session::{BOTH, login, marked};
use super::tls::{one_server, talk, tls13};
use super::world::{Setup, World};
use crate::control::decide::Event;
use crate::networks::Cidr;
use crate::reason::CloseReason;
use crate::shard::ClientAddress;
use crate::shard::Transport::{self, Tcp, WebSocket};

const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\0\x71\x07\x0a\0\0\x01\x9c\x40\x0c\x1d";
const V1: &[u8] = b"PROXY TCP4 203.0.113.7 10.0.0.1 40000 3101\r\n";
/// Of a client that has no address, and of the proxy itself.
const NOBODY: [&[u8]; 2] = [b"PROXY UNKNOWN\r\n", b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"];

/// Clients of IPv4 are trusted proxies: in the simulated network three of four in a row, and not the fourth.
fn behind(address: ClientAddress) -> Setup {
    let trusted = vec![Cidr::try_from("10.0.0.0/8".to_owned()).expect("a network")];
    Setup::new().listeners(|l| (l.client_address, l.trusted_proxies) = (address, trusted.clone()))
}

fn connect(world: &World, transport: Transport) -> Client {
    Client::connect_silent(&world.net, usize::from(transport == WebSocket), transport)
}

/// The address of the last login.
fn admitted(world: &World) -> String {
    let admitted = world.events.iter().rev().find_map(|event| match event {
        Event::Admitted { peer, .. } => Some(*peer),
        _ => None,
    });
    admitted.expect("a login").to_string()
}

fn is_in(client: &mut Client) -> bool {
    matches!(client.take()[..], [Got::Reply { operation: operation::AUTH_REPLY, .. }])
}

#[test]
fn a_header_says_the_clients_address_wherever_it_is_cut() {
    for (transport, header) in BOTH.into_iter().flat_map(|transport| [(transport, V1), (transport, V2)]) {
        for cut in 0..=header.len() {
            let mut world = behind(ClientAddress::ProxyProtocol).build();
            let mut client = connect(&world, transport);
            client.say(&header[..cut]);
            world.settle();
            client.say(&header[cut..]);
            if cut % 2 == 0 {
                world.settle();
            }
            client.upgrade();
            client.login(&login("key", "room"));
            world.settle();
            assert!(is_in(&mut client), "cut at {cut}");
            assert_eq!(admitted(&world), "203.0.113.7:40000");
            world.push_room("room", "x");
            assert_eq!(client.texts(), ["x"]);
            client.half_close();
            world.advance(2500);
            world.assert_empty();
        }
    }
}

#[test]
fn a_client_without_an_address_has_its_proxys() {
    for header in NOBODY {
        let mut world = behind(ClientAddress::ProxyProtocol).build();
        let mut client = connect(&world, Tcp);
        client.say(header);
        client.login(&login("key", ""));
        world.settle();
        assert!(is_in(&mut client));
        assert_eq!(admitted(&world), world.net.address(client.id).to_string());
    }
}

#[test]
fn tls_begins_behind_the_header() {
    for cut in [0, 5, V2.len()] {
        for transport in BOTH {
            let setup = behind(ClientAddress::ProxyProtocol).listeners(|listener| listener.tls = Some(one_server()));
            let mut world = setup.build();
            let mut client = connect(&world, transport);
            client.say(&V2[..cut]);
            world.settle();
            client.say(&V2[cut..]);
            client.begin_tls(tls13());
            talk(&mut world, &mut client);
            client.upgrade();
            talk(&mut world, &mut client);
            client.login(&marked("key", ""));
            talk(&mut world, &mut client);
            assert!(is_in(&mut client));
            assert_eq!(admitted(&world), "203.0.113.7:40000");
            client.reset();
            world.settle();
            world.assert_empty();
        }
    }
}

#[test]
fn who_is_no_trusted_proxy_is_closed_without_a_word() {
    for (transport, secure) in BOTH.into_iter().flat_map(|transport| [(transport, false), (transport, true)]) {
        let tls = secure.then(one_server);
        let mut world =
            behind(ClientAddress::ProxyProtocol).listeners(|listener| listener.tls.clone_from(&tls)).build();
        let mut clients: Vec<_> = (0..4).map(|_| connect(&world, transport)).collect();
        clients[3].say(V2);
        world.settle();
        assert_eq!(clients.iter().map(Client::is_closed).collect::<Vec<_>>(), [false, false, false, true]);
        assert_eq!((clients[3].take(), world.closes(CloseReason::ProxyUntrusted)), (vec![], 1));
        clients.iter().for_each(Client::half_close);
        world.settle();
        assert_eq!(world.closes(CloseReason::PeerClosed), 3, "who connects and goes is no more than that");
        world.assert_empty();
    }
}

#[test]
fn what_is_no_header_ends_the_connection_without_a_word() {
    let long = [&V2[..14], &[0xff, 0xff]].concat();
    let line = [&b"PROXY TCP4 "[..], &[b'1'; 100]].concat();
    for bytes in [&b"GET /sub HTTP/1.1\r\n\r\n"[..], &[0; 20], &long, &line, b"PROXY TCP4 x y 1 2\r\n"] {
        for secure in [false, true] {
            let tls = secure.then(one_server);
            let setup = behind(ClientAddress::ProxyProtocol).listeners(|listener| listener.tls.clone_from(&tls));
            let mut world = setup.build();
            let mut client = connect(&world, WebSocket);
            client.say(bytes);
            world.settle();
            assert!(client.is_closed());
            assert_eq!((client.take(), world.closes(CloseReason::ProxyMalformed)), (vec![], 1));
            world.assert_empty();
        }
    }
}

#[test]
fn a_header_has_as_long_as_a_login() {
    for secure in [false, true] {
        let tls = secure.then(one_server);
        let setup = behind(ClientAddress::ProxyProtocol).listeners(|listener| listener.tls.clone_from(&tls));
        let mut world = setup.build();
        let (silent, slow) = (connect(&world, Tcp), connect(&world, Tcp));
        for byte in &V1[..10] {
            slow.say(&[*byte]);
            world.advance(400);
        }
        world.advance(1200);
        assert_eq!(world.closes(CloseReason::LoginLate), 2);
        [silent, slow].iter().for_each(Client::half_close);
        world.advance(2500);
        world.assert_empty();
    }
}

#[test]
fn networks_are_those_of_the_clients() {
    for transport in BOTH {
        let mut world = behind(ClientAddress::ProxyProtocol).networks(2).build();
        let enter = |world: &mut World, last: u8| {
            let mut client = connect(world, transport);
            if world.net.address(client.id).is_ipv6() {
                // Not a proxy: the next one is.
                client = connect(world, transport);
            }
            client.say(&V1.iter().map(|byte| if *byte == b'7' { last } else { *byte }).collect::<Vec<_>>());
            client.upgrade();
            client.login(&login(&client.id.0.to_string(), ""));
            world.settle();
            client
        };
        let mut clients: Vec<_> = [b'6', b'7', b'8'].map(|last| enter(&mut world, last)).into();
        let got: Vec<_> = clients.iter_mut().map(Client::take).collect();
        assert!(got[..2].iter().all(|got| matches!(got[..], [Got::Reply { .. }])), "{got:?}");
        let refused = if transport == WebSocket { vec![Got::Http("429".into())] } else { vec![] };
        assert_eq!((&got[2], world.closes(CloseReason::NetworkFull)), (&refused, 1));
        assert_eq!(
            world.shards[0].counted(),
            ["203.0.113.6", "203.0.113.7"].map(|ip| ip.parse::<IpAddr>().expect("an address"))
        );
        clients[0].reset();
        world.settle();
        clients.push(enter(&mut world, b'9'));
        assert!(is_in(clients.last_mut().expect("one")), "there is a place again");
        clients.iter().for_each(Client::half_close);
        world.advance(2500);
        world.assert_empty();
    }
}

fn ask(client: &Client, lines: &str) {
    let head = halley_protocol::websocket::client::request("gateway", "/sub", KEY);
    client.say(head.replace("\r\n\r\n", &format!("\r\n{lines}\r\n\r\n")).as_bytes());
}

#[test]
fn a_header_of_the_upgrade_counts_from_trusted_proxies_only() {
    let by = ClientAddress::Forwarded(ForwardedBy::XForwardedFor);
    let mut world = behind(by).networks(1).build();
    let lines = "X-Forwarded-For: 1.1.1.1, 203.0.113.7, 10.0.0.77\r\nForwarded: for=2.2.2.2";
    let mut clients: Vec<_> = (0..4).map(|_| connect(&world, WebSocket)).collect();
    let mut seen = Vec::new();
    for (at, client) in clients.iter_mut().enumerate() {
        let lines = if at == 1 { lines.replace("113.7", "9.9") } else { lines.into() };
        ask(client, &lines);
        client.login(&login(&at.to_string(), ""));
        world.settle();
        let got = client.take();
        seen.push(if let [Got::Http(status)] = &got[..] { status.clone() } else { admitted(&world) });
    }
    let own = world.net.address(clients[3].id).to_string();
    assert_eq!(seen, ["203.0.113.7:0", "203.0.9.9:0", "429", &own], "the first network is full for the third");
    clients.iter().for_each(Client::half_close);
    world.advance(2500);
    world.assert_empty();
}

#[test]
fn a_tcp_listener_has_no_headers_and_its_clients_their_own_addresses() {
    let mut world = behind(ClientAddress::Forwarded(ForwardedBy::Forwarded)).build();
    let client = world.enter(Tcp, &login("key", ""));
    assert_eq!(admitted(&world), world.net.address(client.id).to_string());
}
