//! What a service manager sees and gives: notifications on a datagram socket, and listening sockets.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Client, Gateway, LISTENERS, OPEN, PATIENCE, Transport, folder_with, halley, until_exit};

/// The service manager's end: every line that arrives until one says this, or patience ends.
fn hear_until(socket: &UnixDatagram, wanted: &str) -> Vec<String> {
    let since = Instant::now();
    let mut heard = Vec::new();
    let mut bytes = [0; 4096];
    while since.elapsed() < PATIENCE {
        let Ok(length) = socket.recv(&mut bytes) else { continue };
        heard.extend(String::from_utf8_lossy(&bytes[..length]).lines().map(str::to_owned));
        if heard.iter().any(|line| line == wanted) {
            return heard;
        }
    }
    panic!("no {wanted}: {heard:?}");
}

#[test]
fn a_service_manager_hears_ready_watchdog_reload_and_stop() {
    let folder = folder_with(&format!("{OPEN}{LISTENERS}"));
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).expect("a socket");
    manager.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
    let mut command = halley();
    command.arg("--config").arg("halley.toml").current_dir(folder.path());
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "400000");
    let mut gateway = Gateway::run(command, Some(folder));
    let ready = hear_until(&manager, "READY=1");
    assert!(ready.iter().all(|line| line != "WATCHDOG=1"), "not before it serves: {ready:?}");
    let status = |line: &String| line.starts_with("STATUS=");
    assert!(hear_until(&manager, "WATCHDOG=1").iter().any(status));
    hear_until(&manager, "WATCHDOG=1");

    gateway.signal(rustix::process::Signal::HUP);
    let reload = hear_until(&manager, "RELOADING=1");
    let reload = if reload.iter().any(|line| line.starts_with("MONOTONIC_USEC=")) {
        hear_until(&manager, "READY=1")
    } else {
        panic!("systemd 253 asks for the time of a reload: {reload:?}")
    };
    assert!(!reload.iter().any(|line| line == "STOPPING=1"), "{reload:?}");

    gateway.terminate();
    hear_until(&manager, "STOPPING=1");
    assert!(gateway.wait().success(), "{}", gateway.log());
}

/// `halley` as a service manager starts it: the sockets are its descriptors 3 and 4. Standard input and output carry
/// them over.
fn activated(sockets: &[&TcpListener; 2]) -> Command {
    let program = halley().get_program().to_owned();
    let mut command = Command::new("/bin/sh");
    let script = "exec 3<&0 4>&1 0</dev/null 1>/dev/null; LISTEN_PID=$$ LISTEN_FDS=2 exec \"$0\" --config halley.toml";
    command.args(["-c", script]).arg(program);
    let copy = |socket: &TcpListener| OwnedFd::from(socket.try_clone().expect("a copy"));
    command.stdin(Stdio::from(copy(sockets[0]))).stdout(Stdio::from(copy(sockets[1])));
    command
}

#[test]
fn a_restart_with_passed_sockets_refuses_no_connection() {
    let sockets = ["127.0.0.1:0", "127.0.0.1:0"].map(|address| TcpListener::bind(address).expect("a port"));
    let address = |socket: &TcpListener| socket.local_addr().expect("an address");
    let [clients, api] = sockets.each_ref().map(address);
    let configuration = format!(
        "connections_max = 64\nshards = 2\n[api]\nbind = \"{api}\"\nauth = \"none\"\n\
         [[listener]]\nbind = \"{clients}\"\nlogin = \"open\"\n"
    );
    let start = || {
        let folder = folder_with(&configuration);
        let mut command = activated(&[&sockets[0], &sockets[1]]);
        command.current_dir(folder.path());
        Gateway::run_with_output(command, Some(folder))
    };
    let login = r#"{"key":"k","room_id":"r","accepts":[1]}"#;
    for _ in 0..2 {
        let gateway = start();
        assert_eq!((gateway.tcp(), gateway.api), (clients, api));
        let mut before = Client::login(clients, Transport::Tcp, login);
        gateway.curl("/goim/push/all?operation=1", "hello");
        before.expect_push(1, "hello");
        gateway.stop();
        // Nobody serves now, and yet this connects; the next gateway takes it.
        let mut between = Client::connect(clients, Transport::Tcp);
        between.send(halley_protocol::operation::AUTH, 1, login.as_bytes());
        let gateway = start();
        between.expect(halley_protocol::operation::AUTH_REPLY, 1, b"");
        gateway.curl("/goim/push/all?operation=1", "again");
        between.expect_push(1, "again");
        gateway.stop();
    }
}

/// What the gateway says that must not start with two sockets of 127.0.0.1, and the address of the first.
fn refused(configuration: impl Fn(std::net::SocketAddr) -> String) -> (String, std::net::SocketAddr) {
    let sockets = ["127.0.0.1:0", "127.0.0.1:0"].map(|address| TcpListener::bind(address).expect("a port"));
    let address = sockets[0].local_addr().expect("an address");
    let folder = folder_with(&configuration(address));
    let mut command = activated(&[&sockets[0], &sockets[1]]);
    let mut child = command.current_dir(folder.path()).stderr(Stdio::piped()).spawn().expect("a shell");
    let status = until_exit(&mut child);
    let mut said = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().expect("piped"), &mut said).expect("text");
    assert_eq!(status.code(), Some(2), "{said}");
    assert!(said.contains(&address.to_string()) && said.contains("halley.socket"), "{said}");
    (said, address)
}

#[test]
fn a_passed_socket_that_no_listener_names_is_an_error_with_its_address() {
    let (said, _) = refused(|_| format!("{OPEN}{LISTENERS}").replace("127.0.0.1", "127.0.0.74"));
    assert!(said.contains("no listener has its address"), "{said}");
}

#[test]
fn a_passed_socket_with_another_address_than_the_listener_of_its_port_is_an_error_with_both() {
    // A wildcard there is what would make the port look taken.
    let of_port = |address: std::net::SocketAddr| format!("0.0.0.0:{}", address.port());
    let (said, address) = refused(|address| {
        let elsewhere = format!("{OPEN}{LISTENERS}").replace("127.0.0.1", "127.0.0.74");
        let first = "[[listener]]\nbind = \"127.0.0.74:0\"";
        elsewhere.replacen(first, &format!("[[listener]]\nbind = \"{}\"", of_port(address)), 1)
    });
    assert!(said.contains(&format!("the configuration has {}", of_port(address))), "{said}");
}
