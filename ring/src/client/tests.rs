//! The reactor against listeners of the standard library, on the real kernel.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::time::Instant;

use super::*;

/// Connections of the test with many.
const CLIENTS: u32 = 200;

const PATIENCE: Duration = Duration::from_secs(20);

/// What a connection has seen so far.
#[derive(Default)]
struct Seen {
    connected: bool,
    bytes: Vec<u8>,
    end: Option<Result<(), i32>>,
}

fn reactor(clients_max: u32, buffers: u16) -> Reactor {
    Reactor::new(Sizes { clients_max, buffers, buffer_bytes: 256, gather: Duration::from_micros(100) }).unwrap()
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Turns until `done`, panicking when that takes too long.
fn run(reactor: &mut Reactor, seen: &mut [Seen], mut done: impl FnMut(&[Seen]) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done(seen) {
        assert!(Instant::now() < deadline, "nothing happened for {PATIENCE:?}");
        turn(reactor, seen, Duration::from_millis(50));
    }
}

fn turn(reactor: &mut Reactor, seen: &mut [Seen], sleep: Duration) {
    reactor
        .turn(sleep, |_, client, event| {
            let seen = &mut seen[client.0 as usize];
            match event {
                Event::Connected => seen.connected = true,
                Event::Received(bytes) => seen.bytes.extend_from_slice(bytes),
                Event::Closed => seen.end = Some(Ok(())),
                Event::Failed(errno) => seen.end = Some(Err(errno)),
            }
        })
        .unwrap();
}

fn connected(reactor: &mut Reactor, listener: &TcpListener) -> (Seen, TcpStream) {
    let target = listener.local_addr().unwrap();
    reactor.actions().connect(Client(0), target, None).unwrap();
    let mut seen = [Seen::default()];
    run(reactor, &mut seen, |seen| seen[0].connected);
    let [seen] = seen;
    (seen, listener.accept().unwrap().0)
}

#[test]
fn many_clients_are_echoed_what_they_sent() {
    let (listener, address) = listener();
    let server = std::thread::spawn(move || {
        let mut streams: Vec<TcpStream> = (0..CLIENTS).map(|_| listener.accept().unwrap().0).collect();
        for stream in &mut streams {
            let mut word = [0; 4];
            stream.read_exact(&mut word).unwrap();
            stream.write_all(&word).unwrap();
        }
        streams
    });
    let mut reactor = reactor(CLIENTS, 64);
    for index in 0..CLIENTS {
        reactor.actions().connect(Client(index), address, None).unwrap();
    }
    let mut seen: Vec<Seen> = (0..CLIENTS).map(|_| Seen::default()).collect();
    run(&mut reactor, &mut seen, |seen| seen.iter().all(|seen| seen.connected));
    for index in 0..CLIENTS {
        reactor.actions().send(Client(index), &index.to_be_bytes()).unwrap();
    }
    run(&mut reactor, &mut seen, |seen| seen.iter().all(|seen| seen.bytes.len() == 4));
    for (index, seen) in seen.iter().enumerate() {
        assert_eq!(seen.bytes, u32::try_from(index).unwrap().to_be_bytes());
    }
    drop(server.join().unwrap());
    run(&mut reactor, &mut seen, |seen| seen.iter().all(|seen| seen.end == Some(Ok(()))));
}

#[test]
fn a_burst_larger_than_all_buffers_arrives_whole_and_in_order() {
    let (listener, _) = listener();
    let mut reactor = reactor(1, 4);
    let (seen, mut stream) = connected(&mut reactor, &listener);
    let burst: Vec<u8> = (0..1_000_000_u32).map(|n| n.to_le_bytes()[0] ^ 0x5a).collect();
    let expected = burst.clone();
    let server = std::thread::spawn(move || stream.write_all(&burst));
    let mut seen = [seen];
    run(&mut reactor, &mut seen, |seen| seen[0].bytes.len() >= expected.len());
    assert!(seen[0].bytes == expected);
    server.join().unwrap().unwrap();
}

#[test]
fn a_refused_connection_fails_with_its_errno_and_frees_the_slot() {
    let (listener, address) = listener();
    drop(listener);
    let mut reactor = reactor(1, 4);
    let mut seen = [Seen::default()];
    for source in [None, Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9)), 0))] {
        seen[0].end = None;
        reactor.actions().connect(Client(0), address, source).unwrap();
        run(&mut reactor, &mut seen, |seen| seen[0].end.is_some());
        assert_eq!(seen[0].end, Some(Err(libc::ECONNREFUSED)));
    }
}

#[test]
fn a_source_that_is_not_ours_fails_with_its_errno() {
    let (_listener, address) = listener();
    let foreign = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 0);
    let mut reactor = reactor(1, 4);
    reactor.actions().connect(Client(0), address, Some(foreign)).unwrap();
    let mut seen = [Seen::default()];
    run(&mut reactor, &mut seen, |seen| seen[0].end.is_some());
    assert_eq!(seen[0].end, Some(Err(libc::EADDRNOTAVAIL)));
}

#[test]
fn a_connection_comes_from_the_source_it_was_given() {
    let (listener, address) = listener();
    let source = IpAddr::V4(Ipv4Addr::new(127, 0, 7, 9));
    let mut reactor = reactor(1, 4);
    reactor.actions().connect(Client(0), address, Some(SocketAddr::new(source, 0))).unwrap();
    let mut seen = [Seen::default()];
    run(&mut reactor, &mut seen, |seen| seen[0].connected);
    assert_eq!(listener.accept().unwrap().1.ip(), source);
}

#[test]
fn a_paused_client_reads_as_many_bytes_as_it_is_told_to() {
    let (listener, _) = listener();
    let mut reactor = reactor(1, 16);
    let (seen, mut stream) = connected(&mut reactor, &listener);
    let mut seen = [seen];
    reactor.actions().pause(Client(0)).unwrap();
    for _ in 0..5 {
        turn(&mut reactor, &mut seen, Duration::from_millis(20));
    }
    stream.write_all(&[7; 1000]).unwrap();
    for step in 1..=3 {
        reactor.actions().read(Client(0), 100).unwrap();
        reactor.actions().read(Client(0), 100).unwrap(); // the first is still under way
        run(&mut reactor, &mut seen, |seen| seen[0].bytes.len() == step * 100);
    }
    for _ in 0..3 {
        turn(&mut reactor, &mut seen, Duration::from_millis(20));
    }
    assert_eq!(seen[0].bytes.len(), 300);
    reactor.actions().resume(Client(0)).unwrap();
    run(&mut reactor, &mut seen, |seen| seen[0].bytes.len() == 1000);
}

#[test]
fn a_paused_client_receives_nothing_until_it_resumes() {
    let (listener, _) = listener();
    let mut reactor = reactor(1, 16);
    let (seen, mut stream) = connected(&mut reactor, &listener);
    let mut seen = [seen];
    stream.write_all(b"one").unwrap();
    run(&mut reactor, &mut seen, |seen| seen[0].bytes == b"one");
    reactor.actions().pause(Client(0)).unwrap();
    turn(&mut reactor, &mut seen, Duration::from_millis(20));
    stream.write_all(b"two").unwrap();
    for _ in 0..5 {
        turn(&mut reactor, &mut seen, Duration::from_millis(20));
    }
    assert_eq!(seen[0].bytes, b"one");
    reactor.actions().resume(Client(0)).unwrap();
    run(&mut reactor, &mut seen, |seen| seen[0].bytes == b"onetwo");
}

#[test]
fn pausing_and_resuming_in_one_breath_goes_on_reading() {
    let (listener, _) = listener();
    let mut reactor = reactor(1, 16);
    let (seen, mut stream) = connected(&mut reactor, &listener);
    let mut seen = [seen];
    for _ in 0..3 {
        reactor.actions().pause(Client(0)).unwrap();
        reactor.actions().resume(Client(0)).unwrap();
    }
    stream.write_all(b"still here").unwrap();
    run(&mut reactor, &mut seen, |seen| seen[0].bytes == b"still here");
}

#[test]
fn a_closed_client_says_goodbye_and_its_slot_serves_another() {
    let (listener, address) = listener();
    let mut reactor = reactor(1, 4);
    let (seen, mut stream) = connected(&mut reactor, &listener);
    let mut seen = [seen];
    reactor.actions().close(Client(0)).unwrap();
    reactor.actions().connect(Client(0), address, None).unwrap();
    seen[0].connected = false;
    run(&mut reactor, &mut seen, |seen| seen[0].connected);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0, "the first connection has ended");
    let (mut second, _) = listener.accept().unwrap();
    second.write_all(b"second").unwrap();
    run(&mut reactor, &mut seen, |seen| seen[0].bytes == b"second");
    assert_eq!(seen[0].end, None);
}

#[test]
fn a_send_that_the_kernel_does_not_take_fails_the_client() {
    let (listener, _) = listener();
    let mut reactor = reactor(1, 4);
    let (seen, _stream) = connected(&mut reactor, &listener);
    let mut seen = [seen];
    let block = vec![0; SEND_BYTES_MAX];
    while seen[0].end.is_none() {
        reactor.actions().send(Client(0), &block).unwrap();
        turn(&mut reactor, &mut seen, Duration::ZERO);
    }
    assert_eq!(seen[0].end, Some(Err(libc::EAGAIN)));
}

#[test]
fn what_a_reactor_cannot_do_is_an_error_and_not_a_panic() {
    let sizes =
        Sizes { clients_max: CLIENTS_MAX + 1, buffers: 4, buffer_bytes: 256, gather: Duration::from_micros(100) };
    assert!(Reactor::new(sizes).is_err());
    let mut reactor = reactor(1, 4);
    let (_listener, address) = listener();
    assert!(reactor.actions().connect(Client(1), address, None).is_err());
    reactor.actions().connect(Client(0), address, None).unwrap();
    assert!(reactor.actions().connect(Client(0), address, None).is_err());
    assert!(reactor.actions().send(Client(0), &vec![0; SEND_BYTES_MAX + 1]).is_err());
}

#[test]
fn a_fan_sends_each_class_its_bytes_and_counts_who_is_blocked() {
    let (listener, address) = listener();
    let (other, other_address) = self::listener();
    let clients: Vec<TcpStream> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
    let mut other_client = TcpStream::connect(other_address).unwrap();
    let mut fan = floor::Fan::new(2); // four sockets need a second ring
    let tcp = floor::Wanted { listener: &listener, class: 0, sockets: 3 };
    let websocket = floor::Wanted { listener: &other, class: 1, sockets: 1 };
    fan.accept(&[tcp, websocket], Instant::now() + PATIENCE).unwrap();

    let outcome = fan.send_to_all(&[b"tcp", b"websocket"]).unwrap();
    assert_eq!(outcome, floor::Outcome { sent: 4, blocked: 0, died: 0 });
    let mut word = [0; 9];
    other_client.read_exact(&mut word).unwrap();
    assert_eq!(&word, b"websocket");
    for mut client in &clients {
        client.read_exact(&mut word[..3]).unwrap();
        assert_eq!(&word[..3], b"tcp");
    }

    let block = vec![0; 1 << 20];
    let mut outcome = floor::Outcome::default();
    for _ in 0..64 {
        let sent = fan.send_to_all(&[&block, b""]).unwrap();
        outcome.blocked += sent.blocked;
        outcome.died += sent.died;
    }
    assert!(outcome.blocked + outcome.died > 0, "64 MiB do not fit into a socket's buffer");
    assert_eq!(u64::from(fan.dead()), outcome.died);
}
