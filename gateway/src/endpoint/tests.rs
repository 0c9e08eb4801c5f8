//! Calls to endpoints of all kinds: what becomes of each, and that none outlives its time.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use super::*;
use crate::control::start;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";

/// Long enough for whatever must happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// An endpoint that does this with each connection, told its number. What it has read comes out of the channel.
fn endpoint(serve: impl Fn(usize, &mut Peer) + Send + Sync + 'static) -> (SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (told, heard) = channel();
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let mut peer = Peer { stream: stream.unwrap(), told: told.clone() };
            let serve = Arc::clone(&serve);
            thread::spawn(move || serve(number, &mut peer));
        }
    });
    (address, heard)
}

struct Peer {
    stream: TcpStream,
    told: std::sync::mpsc::Sender<String>,
}

impl Peer {
    /// Reads one request; whether there was one.
    fn hear(&mut self) -> bool {
        let mut text = String::new();
        let mut bytes = [0; 4096];
        loop {
            let Ok(read @ 1..) = self.stream.read(&mut bytes) else { return false };
            text.push_str(std::str::from_utf8(&bytes[..read]).unwrap());
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next()).unwrap();
                if body.len() >= length.parse().unwrap() {
                    let _ = self.told.send(text);
                    return true;
                }
            }
        }
    }

    fn say(&mut self, text: &str) {
        let _ = self.stream.write_all(text.as_bytes());
    }

    /// Until the other end has closed.
    fn linger(&mut self) {
        let _ = self.stream.read(&mut [0]);
    }
}

fn rules(address: SocketAddr) -> Rules {
    Rules {
        url: Url::parse(&format!("http://{address}/hook?a=b")).unwrap(),
        tls: None,
        kind: Kind::Question { subject: "login", key: None },
        call_max: PATIENCE,
        calls_max: 2,
        answer_bytes_max: 1000,
    }
}

fn delivery(address: SocketAddr) -> Rules {
    let authorization = Some(HeaderValue::from_static("Bearer of news"));
    Rules { kind: Kind::Delivery { authorization }, ..rules(address) }
}

/// Calls so often, one after the other.
fn call(rules: Rules, times: usize) -> Vec<Result<Bytes, CallFailure>> {
    try_calls(rules, times).into_iter().map(|result| result.map_err(|error| error.failure)).collect()
}

/// The same, with the causes.
fn try_calls(rules: Rules, times: usize) -> Vec<Result<Bytes, CallError>> {
    start::runtime().unwrap().block_on(async {
        let endpoint = Endpoint::new(rules);
        let mut results = Vec::new();
        for _ in 0..times {
            results.push(endpoint.call(Bytes::from_static(b"[1]")).await);
        }
        assert_eq!(endpoint.load(), (0, 0), "every place is free again");
        results
    })
}

/// What becomes of one call to an endpoint that answers each request so, and then waits.
fn answered(answer: &'static str) -> Result<Bytes, CallFailure> {
    let (address, _heard) = endpoint(move |_, peer| {
        peer.hear();
        peer.say(answer);
        peer.linger();
    });
    call(rules(address), 1).pop().unwrap()
}

#[test]
fn calls_share_a_connection_and_say_what_they_are_for() {
    let (address, heard) = endpoint(|_, peer| {
        while peer.hear() {
            peer.say(OK);
        }
    });
    let results = call(rules(address), 3);
    assert!(results.iter().all(|result| result.as_deref() == Ok(b"{}")), "{results:?}");
    let requests: Vec<_> = (0..3).map(|_| heard.recv().unwrap()).collect();
    for part in [
        "POST /hook?a=b HTTP/1.1\r\n",
        &format!("\r\nhost: {address}\r\n"),
        "\r\ncontent-type: application/json\r\n",
        "\r\nhalley-hook: login\r\n",
        "\r\n\r\n[1]",
    ] {
        assert!(requests.iter().all(|request| request.contains(part)), "{part}: {requests:?}");
    }
    assert!(!requests[0].contains(SIGNATURE), "nothing signs it");
}

#[test]
fn a_connection_that_the_endpoint_has_ended_costs_no_call() {
    let (address, _heard) = endpoint(|_, peer| {
        // Each connection serves one request, and says so only by its end.
        peer.hear();
        peer.say(OK);
    });
    let results = call(rules(address), 5);
    assert!(results.iter().all(Result::is_ok), "{results:?}");
}

#[test]
fn every_kind_of_bad_answer_has_its_name() {
    for (answer, failure, down) in [
        ("nonsense\r\n\r\n", CallFailure::Malformed, false),
        ("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", CallFailure::Status(500), true),
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", CallFailure::Status(404), false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n", CallFailure::TooBig, false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n", CallFailure::TooBig, false),
    ] {
        assert_eq!(answered(answer), Err(failure), "{answer}");
        assert_eq!(failure.is_down(), down, "{answer}");
    }
}

#[test]
fn an_answer_that_says_no_length_is_cut_off_at_its_maximum() {
    let (ended, end) = channel();
    let (address, _heard) = endpoint(move |_, peer| {
        peer.hear();
        peer.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        // Goes on until the gateway has closed the connection.
        while peer.stream.write_all(b"100\r\n").is_ok() {
            peer.say(&"x".repeat(256));
            peer.say("\r\n");
        }
        ended.send(()).unwrap();
    });
    assert_eq!(call(rules(address), 1), [Err(CallFailure::TooBig)]);
    end.recv_timeout(PATIENCE).expect("the connection is closed");
}

#[test]
fn an_endpoint_that_ends_in_the_middle_is_told_from_one_that_is_not_there() {
    for part in ["", "HTTP/1.1 200", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{\"a\""] {
        let (address, _heard) = endpoint(move |_, peer| {
            peer.hear();
            peer.say(part);
        });
        assert_eq!(call(rules(address), 1), [Err(CallFailure::Broken)], "{part}");
    }
}

#[test]
fn an_endpoint_that_is_down_is_not_tried_at_every_call() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let results = call(rules(address), 20);
    let tried = results.iter().take_while(|result| **result == Err(CallFailure::Unreachable)).count();
    assert!((8..20).contains(&tried), "{results:?}");
    assert!(results[tried..].iter().all(|result| *result == Err(CallFailure::Rests)), "{results:?}");
    let [Err(error)] = &try_calls(rules(address), 1)[..] else { panic!("nobody listens") };
    let text = error.to_string();
    assert!(text.contains(&address.to_string()) && text.contains("refused"), "{text}");
}

#[test]
fn what_is_delivered_is_sent_once_and_the_status_alone_says_whether_it_arrived() {
    let (address, heard) = endpoint(|number, peer| {
        // The first connection ends with its second request read, and no answer.
        peer.hear();
        peer.say(OK);
        if number == 0 {
            peer.hear();
        } else {
            peer.linger();
        }
    });
    let results = call(delivery(address), 3);
    assert_eq!(results, [Ok(Bytes::new()), Err(CallFailure::Broken), Ok(Bytes::new())]);
    let requests: Vec<_> = (0..3).map(|_| heard.recv().unwrap()).collect();
    assert!(heard.try_recv().is_err(), "none was sent again");
    let authorized = |request: &String| request.contains("\r\nauthorization: Bearer of news\r\n");
    assert!(requests.iter().all(|request| authorized(request) && !request.contains(SUBJECT)), "{requests:?}");
    for (answer, result) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n", Ok(Bytes::new())),
        ("HTTP/1.1 503 Oops\r\nContent-Length: 10000000\r\n\r\n", Err(CallFailure::Status(503))),
    ] {
        let (address, _heard) = endpoint(move |_, peer| {
            peer.hear();
            peer.say(answer);
            peer.linger();
        });
        assert_eq!(call(delivery(address), 2), [result.clone(), result], "{answer}");
    }
}

#[test]
fn an_answer_that_never_ends_holds_up_no_delivery_that_arrived() {
    let (address, _heard) = endpoint(|_, peer| {
        peer.hear();
        peer.say("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{");
        peer.linger();
    });
    let rules = Rules { call_max: Duration::from_millis(300), ..delivery(address) };
    assert_eq!(call(rules, 1), [Ok(Bytes::new())]);
}

#[test]
fn a_delivery_is_tried_each_time() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let results = call(delivery(address), 20);
    assert!(results.iter().all(|result| *result == Err(CallFailure::Unreachable)), "{results:?}");
}

#[test]
fn calls_end_in_time_whether_they_have_a_place_or_wait_for_one() {
    let (address, heard) = endpoint(|_, peer| {
        peer.hear();
        peer.linger();
    });
    let rules = Rules { call_max: Duration::from_millis(300), ..rules(address) };
    let results = start::runtime().unwrap().block_on(async {
        let endpoint = Endpoint::new(rules);
        let calls: Vec<_> = (0..6)
            .map(|_| {
                let endpoint = endpoint.clone();
                monoio::spawn(async move { endpoint.call(Bytes::from_static(b"[1]")).await })
            })
            .collect();
        monoio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(endpoint.load(), (2, 4), "two under way, the others wait");
        let mut results = Vec::new();
        for call in calls {
            results.push(call.await);
        }
        assert_eq!(endpoint.load(), (0, 0));
        results
    });
    let late = |result: &Result<Bytes, CallError>| result.as_ref().is_err_and(|it| it.failure == CallFailure::Late);
    assert!(results.iter().all(late), "{results:?}");
    assert!(heard.try_iter().count() <= 4, "two places, and who got one in the last moment");
}

#[test]
fn a_signed_call_shows_who_made_it_and_when() {
    let (address, heard) = endpoint(|_, peer| {
        while peer.hear() {
            peer.say(OK);
        }
    });
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"a secret of both");
    let kind = Kind::Question { subject: "login", key: Some(key.clone()) };
    call(Rules { kind, ..rules(address) }, 1);
    let request = heard.recv().unwrap();
    let header = |name: &str| {
        let line = request.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
        line.unwrap_or_else(|| panic!("no {name}: {request}"))
    };
    let digits = header(SIGNATURE).strip_prefix("sha256=").unwrap();
    let tag: Vec<u8> =
        (0..digits.len() / 2).map(|at| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).unwrap()).collect();
    let message = format!("{}.[1]", header(TIMESTAMP));
    assert!(hmac::verify(&key, message.as_bytes(), &tag).is_ok(), "{request}");
}

#[test]
fn an_endpoint_over_tls_must_have_a_certificate_that_is_trusted() {
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, key) = (signed.cert.der().clone(), signed.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = builder.with_no_client_auth().with_single_cert(vec![certificate], key.try_into().unwrap()).unwrap();
    let config = Arc::new(config);
    let (address, _heard) = endpoint(move |_, peer| {
        let mut tls = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
        let mut stream = rustls::Stream::new(&mut tls, &mut peer.stream);
        let mut bytes = [0; 4096];
        let mut request = Vec::new();
        while let Ok(read @ 1..) = stream.read(&mut bytes) {
            request.extend_from_slice(&bytes[..read]);
            if request.ends_with(b"[1]") {
                request.clear();
                stream.write_all(OK.as_bytes()).unwrap();
            }
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let trusted = folder.path().join("ca.pem");
    std::fs::write(&trusted, signed.cert.pem()).unwrap();
    let other = folder.path().join("other.pem");
    std::fs::write(&other, rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap().cert.pem()).unwrap();
    let url = Url::parse(&format!("https://localhost:{}/", address.port())).unwrap();
    let with =
        |file: &Path| Rules { tls: Some(tls(file.to_str().unwrap()).unwrap()), url: url.clone(), ..rules(address) };
    let results = call(with(&trusted), 2);
    assert!(results.iter().all(|result| result.as_deref() == Ok(b"{}")), "{results:?}");
    let [Err(error)] = &try_calls(with(&other), 1)[..] else { panic!("its certificate is not trusted") };
    assert_eq!(error.failure, CallFailure::Unreachable);
    assert!(error.to_string().contains("certificate"), "{error}");
    let refused = tls(folder.path().join("none.pem").to_str().unwrap());
    assert!(refused.is_err_and(|problem| problem.contains("cannot read")), "a file that is not there");
}
