//! TLS from outside: rustls and openssl as clients, certificates replaced under them, the API over HTTPS.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use halley_protocol::packet::decode_within;
use halley_protocol::{client as packets, operation};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::json;

use super::page::{drive, works};
use crate::support::{Gateway, OPEN, PATIENCE, connect, folder_with, halley, output, until};

/// Writes a certificate for a name that signs itself, and its key.
fn certificate(folder: &Path, file: &str, name: &str, change: impl FnOnce(&mut rcgen::CertificateParams)) {
    let mut params = rcgen::CertificateParams::new([name.to_owned()]).expect("a name");
    change(&mut params);
    let key = rcgen::KeyPair::generate().expect("a key");
    let certificate = params.self_signed(&key).expect("signed");
    fs::write(folder.join(format!("{file}.pem")), certificate.pem()).expect("written");
    fs::write(folder.join(format!("{file}.key")), key.serialize_pem()).expect("written");
}

const TLS: &str =
    r#"tls = { certificates = [{ certificate = "a.pem", key = "a.key" }, { certificate = "b.pem", key = "b.key" }] }"#;

fn listeners(tls: &str) -> String {
    let listener = |transport| {
        format!("[[listener]]\nbind = \"127.0.0.1:0\"\ntransport = \"{transport}\"\nlogin = \"open\"\n{tls}\n")
    };
    format!("{}{}", listener("tcp"), listener("ws"))
}

/// A gateway with certificates for `a.test` and `b.test` in its folder, which goes with it.
fn start(configuration: &str) -> (Gateway, std::path::PathBuf) {
    let folder = folder_with(configuration);
    certificate(folder.path(), "a", "a.test", |_| ());
    certificate(folder.path(), "b", "b.test", |_| ());
    let mut command = halley();
    command.arg("--config").arg("halley.toml").current_dir(folder.path());
    let path = folder.path().to_owned();
    (Gateway::run(command, Some(folder)), path)
}

/// A client that trusts these files.
fn trusting(folder: &Path, files: &[&str]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for file in files {
        roots.add(read(&folder.join(format!("{file}.pem")))).expect("a certificate");
    }
    builder().with_root_certificates(roots).with_no_client_auth()
}

fn builder() -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions")
}

fn read(path: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(path).expect("a certificate")
}

type Stream = StreamOwned<ClientConnection, TcpStream>;

fn secure(address: SocketAddr, name: &str, config: ClientConfig) -> Stream {
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).expect("right"), connect(address))
}

/// The next packet on TCP: its operation and body.
fn hear(stream: &mut Stream) -> (i32, Vec<u8>) {
    let mut bytes = vec![0; 16];
    stream.read_exact(&mut bytes).expect("a header");
    let length = u32::from_be_bytes(bytes[..4].try_into().expect("4 bytes")) as usize;
    bytes.resize(length, 0);
    stream.read_exact(&mut bytes[16..]).expect("a body");
    let packet = decode_within(&bytes, 2 << 20).expect("sound").expect("whole");
    (packet.operation, packet.body.to_vec())
}

fn login(address: SocketAddr, config: ClientConfig, key: &str) -> Stream {
    let mut stream = secure(address, "a.test", config);
    let login = format!(r#"{{"mid":1,"key":"{key}","room_id":"test://1"}}"#);
    stream.write_all(&packets::packet(operation::AUTH, 1, login.as_bytes())).expect("taken");
    assert_eq!(hear(&mut stream).0, operation::AUTH_REPLY);
    stream
}

fn push(gateway: &Gateway, text: &str) {
    gateway.push(&json!({"target": {"room": "test://1"}, "operation": 1000, "payload": {"text": text}}));
}

fn shown(stream: &Stream) -> CertificateDer<'static> {
    stream.conn.peer_certificates().expect("shown")[0].clone().into_owned()
}

#[test]
fn a_client_checks_the_name_that_it_asked_for_and_gets_its_pushes() {
    let (gateway, folder) = start(&format!("{OPEN}{}", listeners(TLS)));
    let mut stream = login(gateway.tcp(), trusting(&folder, &["a"]), "key");
    for bytes in [3, 20_000, 300_000] {
        push(&gateway, &"x".repeat(bytes));
        assert_eq!(hear(&mut stream), (1000, "x".repeat(bytes).into_bytes()));
    }
    let mut other = secure(gateway.tcp(), "b.test", trusting(&folder, &["b"]));
    other.write_all(b"").expect("no bytes");
    other.conn.complete_io(&mut other.sock).expect("b.test is there too");
    assert_eq!(shown(&other), read(&folder.join("b.pem")));
    gateway.until_counter("/tls_handshakes/full", 2);
    let metrics = gateway.get("/metrics").body;
    assert!(metrics.contains("halley_tls_handshakes_total{result=\"full\"} 2"), "{metrics}");
    let nodes = gateway.get("/goim/nodes/weighted").json();
    assert_eq!(nodes["data"]["wss_port"], gateway.ws().port(), "{nodes}");
    assert_eq!((&nodes["data"]["ws_port"], &nodes["data"]["tcp_port"]), (&json!(null), &json!(null)), "{nodes}");
    let instances = gateway.get("/goim/nodes/instances").body;
    assert!(instances.contains(&format!("tls://{}", gateway.tcp())) && instances.contains("wss://"), "{instances}");
    gateway.stop();
}

#[test]
fn openssl_makes_a_websocket_of_it_in_both_versions() {
    if Command::new("openssl").arg("version").output().is_err() {
        eprintln!("there is no openssl here");
        return;
    }
    let (gateway, folder) = start(&format!("{OPEN}{}", listeners(TLS)));
    for (version, expected) in [("-tls1_2", Some("TLSv1.2")), ("-tls1_3", Some("TLSv1.3")), ("-tls1_1", None)] {
        let mut child = Command::new("openssl")
            .args(["s_client", version, "-servername", "b.test", "-CAfile", "b.pem", "-verify_return_error"])
            .args(["-alpn", "http/1.1", "-ign_eof", "-connect", &gateway.ws().to_string()])
            .current_dir(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl runs");
        let request = "GET /sub HTTP/1.1\r\nHost: b.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        // A masked close frame, so that the gateway ends the connection, and openssl with it.
        let close = [0x88, 0x82, 0, 0, 0, 0, 3, 0xe8];
        let mut stdin = child.stdin.take().expect("piped");
        // Who does not get in has ended already.
        let _ = stdin.write_all(request.as_bytes()).and_then(|()| stdin.write_all(&close));
        let mut said = Vec::new();
        child.stdout.take().expect("piped").read_to_end(&mut said).expect("read");
        let _ = child.wait();
        let said = String::from_utf8_lossy(&said);
        assert_eq!(expected.is_some(), said.contains("101 Switching Protocols"), "{version}: {said}");
        if let Some(name) = expected {
            assert!(said.contains("Verify return code: 0 (ok)") || said.contains("Verification: OK"), "{said}");
            assert!(said.contains(name) && said.contains("ALPN protocol: http/1.1"), "{said}");
        }
    }
    until("the one too old is counted", || gateway.counter("/tls_handshakes/failed") == 1);
    assert_eq!(gateway.counter("/closes/tls-handshake"), 1);
    gateway.stop();
}

#[test]
fn certificates_are_replaced_and_nobody_is_lost() {
    let (gateway, folder) = start(&format!("{OPEN}{}", listeners(TLS)));
    let mut old: Vec<_> =
        (0..100).map(|at| login(gateway.tcp(), trusting(&folder, &["a"]), &format!("key-{at}"))).collect();
    let reload = |what: &str, times: usize| {
        gateway.signal(rustix::process::Signal::HUP);
        until(what, || gateway.log().matches(what).count() == times);
    };

    // A key of another certificate: everything stays as it was.
    let key = fs::read(folder.join("a.key")).expect("the key");
    fs::copy(folder.join("b.key"), folder.join("a.key")).expect("copied");
    reload("reload-refused", 1);
    assert!(gateway.log().contains("listener[0].tls.certificates[0].key"), "{}", gateway.log());
    fs::write(folder.join("a.key"), key).expect("written");
    let before = login(gateway.tcp(), trusting(&folder, &["a"]), "before");

    certificate(&folder, "a", "a.test", |_| ());
    reload("\"event\":\"reload\"", 1);
    let mut new = login(gateway.tcp(), trusting(&folder, &["a"]), "new");
    assert_ne!(shown(&before), shown(&new));
    drop(before);

    push(&gateway, "to all of them");
    for stream in old.iter_mut().chain([&mut new]) {
        assert_eq!(hear(stream), (1000, b"to all of them".to_vec()));
    }
    assert_eq!(gateway.counter("/closes/peer-reset") + gateway.counter("/closes/tls-record"), 0);
    gateway.stop();
}

#[test]
fn where_a_certificate_is_required_nobody_gets_in_without_a_good_one() {
    let tls = r#"tls = { certificates = [{ certificate = "a.pem", key = "a.key" }], client_auth = "required", client_ca = "ca.pem" }"#;
    let folder = folder_with(&format!("{OPEN}{}", listeners(tls)));
    certificate(folder.path(), "a", "a.test", |_| ());
    let authority = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::new([]).expect("no names");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let signed = params.self_signed(&authority).expect("signed");
    fs::write(folder.path().join("ca.pem"), signed.pem()).expect("written");
    let issuer = rcgen::Issuer::new(params, authority);
    let key = rcgen::KeyPair::generate().expect("a key");
    let good = rcgen::CertificateParams::new(["phone".to_owned()]).expect("a name").signed_by(&key, &issuer);
    let good = good.expect("signed").der().clone();

    let path = folder.path().to_owned();
    let mut command = halley();
    command.arg("--config").arg("halley.toml").current_dir(&path);
    let gateway = Gateway::run(command, Some(folder));
    let with = |certificate: CertificateDer<'static>, key: &rcgen::KeyPair| {
        let mut roots = RootCertStore::empty();
        roots.add(read(&path.join("a.pem"))).expect("a certificate");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        builder().with_root_certificates(roots).with_client_auth_cert(vec![certificate], key).expect("right")
    };
    let stranger = rcgen::KeyPair::generate().expect("a key");
    let strange = rcgen::CertificateParams::new(["phone".to_owned()]).expect("a name").self_signed(&stranger);
    let strange = strange.expect("signed").der().clone();

    let mut stream = login(gateway.tcp(), with(good, &key), "key");
    push(&gateway, "in");
    assert_eq!(hear(&mut stream), (1000, b"in".to_vec()));
    for refused in [trusting(&path, &["a"]), with(strange, &stranger)] {
        let mut stream = secure(gateway.tcp(), "a.test", refused);
        let _ = stream.write_all(&packets::packet(operation::AUTH, 1, b"{}"));
        let error = stream.read(&mut [0; 100]).expect_err("an alert");
        assert!(error.to_string().contains("fatal alert"), "{error}");
    }
    until("both are counted", || gateway.counter("/closes/tls-handshake") == 2);
    gateway.stop();
}

#[test]
fn a_browser_speaks_it_for_the_page_and_for_its_websocket() {
    let open = OPEN.replace("auth = \"none\"\n", &format!("auth = \"none\"\n{TLS}\n"));
    let (gateway, folder) = start(&format!("{open}{}", listeners(TLS)));
    let (page, clients) = (format!("https://{}/healthz", gateway.api), format!("wss://{}/sub", gateway.ws()));
    let Some(driver) = drive("tls", &page, &["--clients", &clients]) else { return };
    let push = "POST /goim/push/room?operation=1000&type=live&room=1 HTTP/1.1\r\nHost: a.test\r\nContent-Length: 8\r\n\r\nover TLS";
    let said = works(driver, |line, _| {
        if line == "push please" {
            let mut api = secure(gateway.api, "a.test", trusting(&folder, &["a"]));
            api.write_all(push.as_bytes()).expect("taken");
            let mut answer = [0; 12];
            api.read_exact(&mut answer).expect("an answer");
            assert_eq!(&answer, b"HTTP/1.1 200");
        }
    });
    assert!(said.contains("push please"), "{said}");
    gateway.stop();
}

#[test]
fn the_command_line_calls_an_api_over_https_and_says_what_a_plain_call_lacks() {
    let open = OPEN.replace("auth = \"none\"\n", &format!("auth = \"none\"\n{TLS}\n"));
    let (gateway, folder) = start(&format!("{open}{}", listeners("")));
    certificate(&folder, "a", "localhost", |_| ());
    gateway.signal(rustix::process::Signal::HUP);
    let said = |scheme: &str, words: &[&str]| {
        let api = format!("{scheme}://localhost:{}", gateway.api.port());
        let output = halley().args(words).args(["--ca", "a.pem", "--api", &api]).current_dir(&folder).output();
        let output = output.expect("it starts");
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    let push = |scheme: &str| said(scheme, &["push", "all", "--text", "x"]);
    until("it is the new certificate", || push("https").contains("\"results\""));
    assert!(push("http").contains("write https://"), "{}", push("http"));
    let reload = said("https", &["reload"]);
    assert!(reload.contains("nothing has changed"), "{reload}");
    gateway.stop();
}

#[test]
fn the_api_speaks_https_and_nothing_else() {
    let open = OPEN.replace("auth = \"none\"\n", &format!("auth = \"none\"\n{TLS}\n"));
    let (gateway, folder) = start(&format!("{open}{}", listeners("")));
    let call = |stream: &mut Stream, uri: &str, body: &str| {
        let length = body.len();
        let head = format!("POST {uri} HTTP/1.1\r\nHost: a.test\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).expect("taken");
        stream.write_all(body.as_bytes()).expect("taken");
        let mut answer = Vec::new();
        while !String::from_utf8_lossy(&answer).contains("\"code\":0") {
            let mut bytes = [0; 1000];
            let read = stream.read(&mut bytes).expect("an answer");
            assert!(read > 0, "{}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&bytes[..read]);
        }
        String::from_utf8(answer).expect("text")
    };
    let mut stream = secure(gateway.api, "a.test", trusting(&folder, &["a"]));
    // More than a record, and twice on one connection.
    for _ in 0..2 {
        let heard = call(&mut stream, "/goim/push/all?operation=1000", &"x".repeat(100_000));
        assert!(heard.starts_with("HTTP/1.1 200 "), "{heard}");
    }
    // A close with something behind it.
    let mut closing = secure(gateway.api, "a.test", trusting(&folder, &["a"]));
    closing.conn.complete_io(&mut closing.sock).expect("a handshake");
    closing.conn.send_close_notify();
    closing.conn.complete_io(&mut closing.sock).expect("taken");
    let _ = closing.sock.write_all(&[23, 3, 3, 0, 1, 0]);
    let mut plain = connect(gateway.api);
    plain.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").expect("taken");
    let mut heard = Vec::new();
    let _ = plain.read_to_end(&mut heard);
    assert!(!String::from_utf8_lossy(&heard).contains("HTTP/"), "{heard:?}");

    certificate(&folder, "a", "a.test", |_| ());
    gateway.signal(rustix::process::Signal::HUP);
    until("it is reloaded", || gateway.log().contains("\"event\":\"reload\""));
    let mut new = secure(gateway.api, "a.test", trusting(&folder, &["a"]));
    call(&mut new, "/goim/push/all?operation=1000", "x");
    assert_ne!(shown(&stream), shown(&new));
    drop(stream);
    drop(new);
    gateway.stop();
}

#[test]
fn what_is_wrong_with_a_certificate_is_said_at_start() {
    let said = output(&format!("{OPEN}{}", listeners(TLS)), None);
    assert_eq!(said.status.code(), Some(2));
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    for part in ["halley.toml:10: listener[0].tls.certificates[0].certificate", "cannot read a.pem", "No such file"] {
        assert!(said.contains(part), "{said:?} lacks {part:?}");
    }
    let folder = folder_with(&format!("{OPEN}{}", listeners(TLS)));
    certificate(folder.path(), "a", "a.test", |params| {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    });
    certificate(folder.path(), "b", "b.test", |_| ());
    let mut command = halley();
    command.arg("--config").arg("halley.toml").current_dir(folder.path());
    let gateway = Gateway::run(command, Some(folder));
    until("a warning", || gateway.log().contains("listener[0].tls.certificates[0].certificate: a.pem expired"));
    gateway.stop();
}

#[test]
fn dev_opens_a_third_port_when_it_is_given_a_certificate() {
    let folder = tempfile::tempdir().expect("a folder");
    certificate(folder.path(), "a", "a.test", |_| ());
    let mut command = halley();
    command.arg("--dev").current_dir(folder.path());
    for (name, value) in [
        ("TCP", "127.0.0.1:0"),
        ("WS", "127.0.0.1:0"),
        ("WSS", "127.0.0.1:0"),
        ("CERTIFICATE", "a.pem"),
        ("KEY", "a.key"),
    ] {
        command.env(format!("HALLEY__DEV__{name}"), value);
    }
    command.env("HALLEY__API__BIND", "127.0.0.1:0");
    let path = folder.path().to_owned();
    let gateway = Gateway::run(command, Some(folder));
    assert_eq!(gateway.listeners.len(), 3);
    let nodes = gateway.get("/goim/nodes/weighted").json();
    assert_eq!(nodes["data"]["wss_port"], gateway.listeners[2].port(), "{nodes}");
    let mut stream = secure(gateway.listeners[2], "a.test", trusting(&path, &["a"]));
    stream.write_all(b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n").expect("taken");
    let mut said = String::new();
    stream.sock.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.read_to_string(&mut said).expect("an answer, and a close behind it");
    assert!(said.starts_with("HTTP/1.1 404 "), "{said}");
    gateway.stop();
}
