//! The HTTP server on a real socket: requests that come slowly, break off, or come all at once.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use gateway::control::http::{self, HttpLimits};

use crate::harness::{OPEN, config, run};

/// Serves on a free port while `client` runs on its own thread, and returns what it returns.
fn serve<T: Send + 'static>(connections_max: u32, client: impl FnOnce(SocketAddr) -> T + Send + 'static) -> T {
    let mut result = None;
    run(config(&OPEN.replace("auth", "request_ms_max = 300\nauth")), async |gateway| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let limits = HttpLimits { connections_max, head_max: Duration::from_millis(300) };
        http::spawn(listener, gateway.router.clone(), limits, || None).expect("serving");
        let thread = thread::spawn(move || client(address));
        while !thread.is_finished() {
            monoio::time::sleep(Duration::from_millis(5)).await;
        }
        result = Some(thread.join().expect("the client's own asserts hold"));
    });
    result.expect("the client ran")
}

/// Sends `head` and reads until the server closes.
fn exchange(address: SocketAddr, bytes: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("accepted");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("an option");
    stream.write_all(bytes.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the server closes");
    answer
}

#[test]
fn a_call_over_a_socket_is_answered() {
    let answer = serve(8, |address| exchange(address, "GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"));
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with(r#"{"status":"ok"}"#), "{answer}");
}

#[test]
fn a_body_that_does_not_come_is_408() {
    let head =
        "POST /goim/push/all?operation=1 HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 100\r\n\r\nabc";
    let answer = serve(8, move |address| exchange(address, head));
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("api.request_ms_max"), "{answer}");
}

#[test]
fn a_head_that_does_not_come_closes_the_connection() {
    let answer = serve(8, |address| exchange(address, "GET /heal"));
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

#[test]
fn a_head_above_its_limit_is_431() {
    let head = format!("GET /healthz HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "x".repeat(20_000));
    let answer = serve(8, move |address| exchange(address, &head));
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

#[test]
fn callers_beyond_the_maximum_wait_and_are_served() {
    let answers = serve(2, |address| {
        let ask = move || exchange(address, "GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        let callers: Vec<_> = (0..6).map(|_| thread::spawn(ask)).collect();
        callers.into_iter().map(|caller| caller.join().expect("served")).collect::<Vec<_>>()
    });
    assert_eq!(answers.len(), 6);
    assert!(answers.iter().all(|answer| answer.starts_with("HTTP/1.1 200 ")), "{answers:?}");
}

#[test]
fn callers_who_do_not_take_their_answers_lose_their_places() {
    let answer = serve(2, |address| {
        let deaf: Vec<_> = (0..2).map(|_| fill(address)).collect();
        let answer = exchange(address, "GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        drop(deaf);
        answer
    });
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

/// Sends calls and reads no answer until the server takes no more.
fn fill(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("accepted");
    stream.set_write_timeout(Some(Duration::from_millis(100))).expect("an option");
    let calls = "GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n".repeat(2000);
    let refused = loop {
        if let Err(error) = stream.write(calls.as_bytes()) {
            break error.kind();
        }
    };
    assert!(matches!(refused, ErrorKind::WouldBlock | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{refused}");
    stream
}
