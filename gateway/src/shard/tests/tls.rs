//! TLS: the same connections with records under their packets, and what goes wrong with records.
//!
//! The clients are rustls's. Its keys and signatures are random, so these are no runs of a seed: what they assert holds
//! for any.

use std::sync::{Arc, OnceLock};

use halley_protocol::operation;
use halley_protocol::websocket::Opcode;
use halley_ring::sim::Weather;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring as provider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, ServerConfig, SignatureScheme, SupportedCipherSuite, version,
};

use super::client::{Client, Got};
use super::session::{BOTH, login, marked};
use super::steady;
use super::world::{Setup, World};
use crate::config::{CertificateFiles, Tls};
use crate::dispatch::Target;
use crate::reason::{CloseReason, DropReason, Handshake};
use crate::shard::{ListenerSettings, SlowPolicy, Transport};
use crate::tls::{Loaded, Speaks, load};

/// A certificate of its own, as an operator would load it.
pub(super) fn server() -> Loaded {
    server_with(&rcgen::PKCS_ECDSA_P256_SHA256)
}

/// All that it says in handshakes has the same lengths each time: so does a signature of Ed25519.
pub(super) fn steady_server() -> Arc<ServerConfig> {
    static SERVER: OnceLock<Arc<ServerConfig>> = OnceLock::new();
    Arc::clone(SERVER.get_or_init(|| server_with(&rcgen::PKCS_ED25519).config))
}

fn server_with(algorithm: &'static rcgen::SignatureAlgorithm) -> Loaded {
    let folder = tempfile::tempdir().expect("a folder");
    let key = rcgen::KeyPair::generate_for(algorithm).expect("a key");
    let mut certificate = rcgen::CertificateParams::new(["gateway".to_owned()]).expect("a name");
    certificate.serial_number = Some(vec![1; 8].into());
    let certificate = certificate.self_signed(&key);
    let put = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.display().to_string()
    };
    let files = CertificateFiles {
        certificate: put("a.pem", certificate.expect("signed").pem()),
        key: put("a.key", key.serialize_pem()),
    };
    load(&Tls { certificates: vec![files], ..Tls::default() }, Speaks::Packets, None).expect("loaded")
}

/// Such a server, or one that asks clients for a certificate.
pub(in crate::shard) fn trusting_server(asks: bool) -> Arc<ServerConfig> {
    if !asks {
        return one_server();
    }
    let key = rcgen::KeyPair::generate().expect("a key");
    let certificate = rcgen::CertificateParams::new(["ca".to_owned()]).expect("a name").self_signed(&key);
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.expect("signed").der().clone()).expect("a certificate");
    let provider = Arc::new(provider::default_provider());
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
    let config = config.with_client_cert_verifier(verifier.build().expect("right"));
    let mut config = config.with_cert_resolver(Arc::clone(&one_server().cert_resolver));
    config.enable_secret_extraction = true;
    Arc::new(config)
}

pub(super) fn one_server() -> Arc<ServerConfig> {
    static SERVER: OnceLock<Arc<ServerConfig>> = OnceLock::new();
    Arc::clone(SERVER.get_or_init(|| server().config))
}

/// A client that trusts anybody.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// A client that knows this cipher suite alone, and with it one version.
fn speaks(suite: SupportedCipherSuite) -> Arc<ClientConfig> {
    let mut provider = provider::default_provider();
    provider.cipher_suites = vec![suite];
    let versions = if suite.tls13().is_some() { &version::TLS13 } else { &version::TLS12 };
    let config = ClientConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(&[versions]);
    let config = config.expect("a version").dangerous().with_custom_certificate_verifier(Arc::new(Anybody));
    Arc::new(config.with_no_client_auth())
}

pub(in crate::shard) fn tls13() -> Arc<ClientConfig> {
    speaks(provider::cipher_suite::TLS13_AES_128_GCM_SHA256)
}

pub(in crate::shard) fn tls12() -> Arc<ClientConfig> {
    speaks(provider::cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384)
}

/// Every suite that the gateway speaks with a certificate for ECDSA.
fn suites() -> impl Iterator<Item = SupportedCipherSuite> {
    let suites = provider::default_provider().cipher_suites.into_iter();
    suites.filter(|suite| !format!("{suite:?}").contains("RSA"))
}

/// Both listeners have TLS.
pub(super) fn secure() -> Setup {
    Setup::new().listeners(|listener| listener.tls = Some(one_server()))
}

/// Lets client and gateway talk until neither has anything to say.
pub(super) fn talk(world: &mut World, client: &mut Client) {
    loop {
        world.settle();
        if world.net.arrived(client.id) == 0 {
            return;
        }
        client.read(usize::MAX);
    }
}

pub(super) fn connect(world: &mut World, transport: Transport, config: &Arc<ClientConfig>) -> Client {
    let listener = usize::from(transport == Transport::WebSocket);
    let mut client = Client::connect_tls(&world.net, listener, transport, Arc::clone(config));
    talk(world, &mut client);
    client.upgrade();
    talk(world, &mut client);
    client
}

pub(super) fn enter(
    world: &mut World,
    transport: Transport,
    config: &Arc<ClientConfig>,
    key: &str,
    room: &str,
) -> Client {
    let mut client = connect(world, transport, config);
    client.login(&marked(key, room));
    talk(world, &mut client);
    assert!(matches!(client.take()[..], [Got::Reply { operation: operation::AUTH_REPLY, .. }]));
    client
}

pub(super) fn handshakes(world: &World, end: Handshake) -> u64 {
    world.sum(|stats| &stats.tls_handshakes[end.at()])
}

/// Who has nothing more to say leaves, and nothing of anybody is left.
pub(super) fn leave(mut world: World, client: &Client) {
    client.with_tls(|tls| tls.send_close_notify());
    client.half_close();
    world.advance(3000);
    assert!(client.is_closed());
    world.assert_empty();
}

#[test]
fn a_client_logs_in_and_gets_pushes_of_any_length_over_every_suite() {
    let mut seen = 0;
    for suite in suites() {
        for transport in BOTH {
            let mut world = secure().build();
            let mut client = enter(&mut world, transport, &speaks(suite), "key", "room");
            assert_eq!(handshakes(&world, Handshake::Full), 1);
            for bytes in [0, 1, 16_384 - 16, 16_384, 40_000, 1 << 20] {
                world.push_room("room", &"x".repeat(bytes));
                talk(&mut world, &mut client);
                assert_eq!(client.texts(), ["x".repeat(bytes)], "{bytes} over {suite:?}");
            }
            let (operation, _) = world.ask(&mut client, operation::HEARTBEAT, b"");
            assert_eq!(operation, operation::HEARTBEAT_REPLY);
            leave(world, &client);
        }
        seen += 1;
    }
    assert_eq!(seen, 6, "three of each version");
}

#[test]
fn input_may_come_byte_by_byte() {
    for config in [tls13(), tls12()] {
        let mut world = secure().build();
        let mut client = Client::connect_silent(&world.net, 0, Transport::Tcp);
        client.drips = true;
        client.begin_tls(Arc::clone(&config));
        client.login(&marked("key", ""));
        for _ in 0..10_000 {
            client.drip(1);
            world.round();
            client.read(usize::MAX);
        }
        assert!(!client.is_speaking());
        talk(&mut world, &mut client);
        assert!(matches!(client.take()[..], [Got::Reply { operation: operation::AUTH_REPLY, .. }]));
        leave(world, &client);
    }
}

#[test]
fn what_the_kernel_does_not_take_goes_first_and_unchanged_however_little_it_took() {
    for config in [tls13(), tls12()] {
        for transport in BOTH {
            let mut world = secure().build();
            let mut client = enter(&mut world, transport, &config, "key", "room");
            for window in 0..180 {
                client.set_window(window);
                world.push_room("room", &format!("first {}", "x".repeat(60)));
                world.push_room("room", "second");
                client.read(usize::MAX);
                client.set_window(usize::MAX);
                world.push_room("room", "third");
                talk(&mut world, &mut client);
                let texts = client.texts();
                assert_eq!(texts, [&format!("first {}", "x".repeat(60)), "second", "third"], "window {window}");
            }
            assert_eq!(world.sum(|stats| &stats.queued), 0);
            leave(world, &client);
        }
    }
}

#[test]
fn a_long_message_is_cut_into_records_and_counted_when_its_last_byte_has_left() {
    let mut world = secure().build();
    let mut client = enter(&mut world, Transport::Tcp, &tls13(), "key", "room");
    let overhead = 5 + 1 + 16;
    for window in
        [16_383, 16_384 + overhead - 1, 16_384 + overhead, 2 * (16_384 + overhead), 40_000 + 3 * overhead + 15]
    {
        let sent = world.sum(|stats| &stats.sent);
        client.set_window(window);
        world.push_room("room", &"y".repeat(40_000));
        assert_eq!((world.sum(|stats| &stats.sent), world.sum(|stats| &stats.queued)), (sent, 1), "window {window}");
        client.set_window(usize::MAX);
        talk(&mut world, &mut client);
        assert_eq!(client.texts(), ["y".repeat(40_000)]);
        assert_eq!((world.sum(|stats| &stats.sent), world.sum(|stats| &stats.queued)), (sent + 1, 0));
    }
    leave(world, &client);
}

#[test]
fn who_takes_a_byte_of_its_records_in_the_stated_time_is_not_closed_as_stalled() {
    let mut world = secure().listeners(|l| (l.stall_ms_max, l.linger_ms_max) = (2000, 500)).build();
    let stalled = enter(&mut world, Transport::Tcp, &tls13(), "stalled", "room");
    let mut slow = enter(&mut world, Transport::Tcp, &tls13(), "slow", "room");
    [&stalled, &slow].iter().for_each(|client| client.set_window(10));
    for text in ["one", "two", "three"] {
        world.push_room("room", text);
    }
    for step in 1..120 {
        world.advance(1500);
        slow.read(1);
        world.settle();
        assert_eq!(world.closes(CloseReason::Stalled), u64::from(step > 1), "step {step}");
    }
    assert!(stalled.is_closed() && !slow.is_closed());
    slow.set_window(usize::MAX);
    talk(&mut world, &mut slow);
    assert_eq!(slow.texts(), ["one", "two", "three"]);
}

#[test]
fn a_slow_client_misses_whole_messages_and_its_records_stay_sound() {
    for policy in [SlowPolicy::DropNewest, SlowPolicy::DropOldest] {
        let setup = secure().listeners(|l| (l.outbox_bytes_max, l.slow_policy) = (400, policy));
        let mut world = setup.build();
        let mut client = enter(&mut world, Transport::WebSocket, &tls13(), "key", "room");
        client.set_window(50);
        for number in 0..50 {
            world.push_room("room", &format!("{number:0>60}"));
        }
        client.set_window(usize::MAX);
        talk(&mut world, &mut client);
        let numbers: Vec<u32> = client.texts().iter().map(|text| text.parse().expect("a number")).collect();
        assert!(numbers.is_sorted() && numbers[0] == 0, "in order, and what had begun first: {numbers:?}");
        let newest = if policy == SlowPolicy::DropOldest { 49 } else { 5 };
        assert!(numbers.len() < 10 && *numbers.last().expect("some") <= newest, "{numbers:?}");
        let dropped = world.dropped(DropReason::SlowNewest) + world.dropped(DropReason::SlowOldest);
        assert_eq!(dropped, 50 - numbers.len() as u64);
        leave(world, &client);
    }
}

#[test]
fn in_bad_weather_every_message_arrives_in_order() {
    for seed in 1..6 {
        let weather = Weather { short_send: 60, blocked_send: 40, short_recv: 100, late: 60, ..Weather::default() };
        let setup = secure().listeners(|listener| listener.outbox_bytes_max = 2 << 20);
        let mut world = Setup { seed, ..setup }.build();
        let mut clients: Vec<_> = (0..6)
            .map(|at| {
                let config = if at % 3 == 0 { tls12() } else { tls13() };
                enter(&mut world, BOTH[at % 2], &config, &format!("key-{at}"), "room")
            })
            .collect();
        world.net.set_weather(weather);
        for number in 0..60 {
            for _ in 0..3 {
                world.dispatch(&Target::Room("room".into()), 1000, &number.to_string()).expect("places");
            }
            let bytes = 997 * number % 20_000;
            let target = Target::Keys((0..6).map(|at| format!("key-{at}")).collect());
            world.dispatch(&target, 1000, &"z".repeat(bytes)).expect("places");
            world.round();
            clients.iter_mut().for_each(|client| client.read(usize::MAX));
        }
        world.net.set_weather(Weather::default());
        for client in &mut clients {
            talk(&mut world, client);
            let (long, short): (Vec<_>, Vec<_>) = client.texts().into_iter().partition(|text| !is_number(text));
            let expected: Vec<_> = (0..180).map(|at| (at / 3).to_string()).collect();
            assert_eq!(short.len(), 180);
            assert!(short.iter().eq(expected.iter()), "a room's order");
            let lengths: Vec<_> = long.iter().map(String::len).collect();
            let all: Vec<_> = (0..60).map(|number| 997 * number % 20_000).collect();
            assert_eq!(lengths, all, "the order of pushes to keys");
        }
    }
}

fn is_number(text: &str) -> bool {
    text.parse::<u32>().is_ok()
}

#[test]
fn a_record_may_hold_more_packets_than_a_chunk_and_more_than_a_turn_serves() {
    for transport in BOTH {
        let mut world = secure().build();
        let mut client = enter(&mut world, transport, &tls13(), "key", "room");
        let mut bytes = Vec::new();
        for _ in 0..2000 {
            bytes.extend(client.packet_bytes(operation::HEARTBEAT, b""));
        }
        client.say(&bytes);
        talk(&mut world, &mut client);
        assert_eq!(client.take().len(), 2000);
        // More than fits a question's buffer pool, each of which waits for control.
        for at in 0..200 {
            client.send(operation::CHANGE_ROOM, format!("room-{at}").as_bytes());
        }
        talk(&mut world, &mut client);
        assert_eq!(client.take().len(), 200);
        leave(world, &client);
    }
}

#[test]
fn many_small_records_are_answered_in_few_sends() {
    for config in [tls13(), tls12()] {
        for transport in BOTH {
            let mut world = secure().build();
            let mut client = enter(&mut world, transport, &config, "key", "room");
            let before = world.sum(|stats| &stats.sends);
            for _ in 0..150 {
                client.send(operation::HEARTBEAT, b"");
                if transport == Transport::WebSocket {
                    client.frame(true, Opcode::Ping, b"");
                }
            }
            talk(&mut world, &mut client);
            let answers = if transport == Transport::WebSocket { 300 } else { 150 };
            assert_eq!(client.take().len(), answers);
            let sends = world.sum(|stats| &stats.sends) - before;
            assert!((1..=6).contains(&sends), "{sends} sends");
            leave(world, &client);
        }
    }
}

#[test]
fn a_long_message_is_echoed_over_tls() {
    let setup = secure().listeners(|l| l.paths = vec![("/sub".into(), crate::shard::Dialect::Echo)]);
    let mut world = setup.build();
    let mut client = connect(&mut world, Transport::WebSocket, &tls13());
    let body: Vec<u8> = (0..300_000_u32).map(|at| at.to_le_bytes()[0]).collect();
    client.frame(true, Opcode::Binary, &body);
    client.set_window(5000);
    let mut heard = Vec::new();
    for _ in 0..2000 {
        world.round();
        heard.extend(client.read_stream());
    }
    assert_eq!(heard.len(), body.len() + 10);
    assert_eq!(heard[10..], body);
}

#[test]
fn a_shard_under_load_allocates_nothing_for_messages_over_tls() {
    let mut world = secure().build();
    let mut clients: Vec<_> =
        (0..40).map(|at| enter(&mut world, BOTH[at % 2], &tls13(), &format!("key-{at}"), "room")).collect();
    for _ in 0..6 {
        steady::load(&mut world, &mut clients);
    }
    let before = world.sum(|stats| &stats.sent);
    let allocated: u64 = (0..6).map(|_| steady::load(&mut world, &mut clients)).sum();
    assert!(world.sum(|stats| &stats.sent) - before > 1000);
    assert_eq!(allocated, 0);
}

#[test]
fn listeners_with_and_without_tls_share_a_shard() {
    let mut setup = Setup::new();
    setup.listeners.push(ListenerSettings { tls: Some(one_server()), ..ListenerSettings::new(Transport::Tcp) });
    let mut world = setup.build();
    let mut plain = world.enter(Transport::Tcp, &login("plain", "room"));
    let mut sealed = Client::connect_tls(&world.net, 2, Transport::Tcp, tls13());
    talk(&mut world, &mut sealed);
    sealed.login(&marked("sealed", "room"));
    talk(&mut world, &mut sealed);
    sealed.take();
    world.push_room("room", "to both");
    talk(&mut world, &mut sealed);
    assert_eq!((plain.texts(), sealed.texts()), (vec!["to both".to_owned()], vec!["to both".to_owned()]));
    plain.half_close();
    leave(world, &sealed);
}
