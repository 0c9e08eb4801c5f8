//! The reactor's rules, each shown on the real kernel.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use halley_ring::{
    ArmedPolls, Completion, KernelRing, Received, RecvRequest, Ring, RingSettings, SendFailure, Slot, Wait,
};

struct Server {
    ring: KernelRing,
    listener: TcpListener,
}

impl Server {
    fn new(slots: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let settings = RingSettings { slots, listeners: vec![listener.as_raw_fd()], accepts: 16, notify: None };
        Self { ring: KernelRing::new(&settings).expect("io_uring"), listener }
    }

    fn address(&self) -> SocketAddr {
        self.listener.local_addr().expect("bound")
    }

    /// Waits for the next completion, for at most five seconds.
    fn next(&mut self) -> Completion {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            if let Some(completion) = self.ring.next() {
                return completion;
            }
            assert!(Instant::now() < deadline, "nothing completed");
            self.ring.wait(Wait::Sleep(Duration::from_millis(100)));
        }
    }

    /// Accepts one client into the slot.
    fn accept(&mut self, slot: Slot) -> TcpStream {
        self.ring.accept(0, 0, slot);
        let client = TcpStream::connect(self.address()).expect("connect");
        match self.next() {
            Completion::Accepted { place: 0, result: Ok(peer) } => {
                assert_eq!(peer, client.local_addr().expect("bound"));
            }
            other => panic!("{other:?}"),
        }
        client
    }

    fn recv(&mut self, slot: Slot, bytes: u32) -> (Received, Vec<u8>) {
        let mut buffer = vec![0; bytes as usize];
        let mut received = Vec::new();
        self.ring.recv(&mut buffer, &[RecvRequest { slot, start: 0, bytes }], &mut received);
        (received[0], buffer)
    }

    fn send(&mut self, slot: Slot, bytes: &[u8]) -> Vec<SendFailure> {
        let mut failures = Vec::new();
        self.ring.send(std::iter::once((slot, bytes)), &mut failures);
        failures
    }
}

#[test]
fn an_accept_goes_into_the_chosen_slot_and_names_the_peer() {
    let mut server = Server::new(8);
    let mut client = server.accept(Slot(5));
    assert_eq!(server.send(Slot(5), b"hello"), []);
    let mut got = [0; 5];
    client.read_exact(&mut got).expect("five bytes");
    assert_eq!(&got, b"hello");
}

#[test]
fn a_send_that_succeeds_leaves_no_completion() {
    let mut server = Server::new(8);
    let _client = server.accept(Slot(0));
    let before = server.ring.counters().completions;
    for _ in 0..10 {
        assert_eq!(server.send(Slot(0), b"0123456789"), []);
    }
    server.ring.wait(Wait::Poll);
    assert!(server.ring.next().is_none());
    assert_eq!(server.ring.counters().completions, before);
}

#[test]
fn a_full_socket_takes_a_part_and_then_nothing() {
    let mut server = Server::new(8);
    let mut client = server.accept(Slot(0));
    let big = vec![7; 64 << 20];
    let [SendFailure { place: 0, result: Ok(taken) }] = server.send(Slot(0), &big)[..] else {
        panic!("64 MiB cannot fit")
    };
    assert!(taken > 0);
    let mut total = taken as usize;
    // Loopback may move bytes on between two sends; in the end nothing more is taken.
    loop {
        match server.send(Slot(0), &big)[..] {
            [SendFailure { result: Ok(0), .. }] => break,
            [SendFailure { result: Ok(more), .. }] => total += more as usize,
            ref other => panic!("{other:?}"),
        }
    }
    server.ring.poll_writable(Slot(0), 3);
    server.ring.wait(Wait::Poll);
    assert!(server.ring.next().is_none(), "not writable while the peer does not read");
    let mut got = vec![0; total];
    client.read_exact(&mut got).expect("all that was taken");
    assert!(got.iter().all(|byte| *byte == 7));
    assert!(matches!(server.next(), Completion::Writable { slot: Slot(0), generation: 3 }));
}

#[test]
fn a_send_to_a_dead_peer_reports_it() {
    let mut server = Server::new(8);
    let client = server.accept(Slot(0));
    drop(client);
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        if let [SendFailure { result: Err(_), .. }] = server.send(Slot(0), b"x")[..] {
            break;
        }
        assert!(Instant::now() < deadline, "the peer's reset was never seen");
    }
}

#[test]
fn a_receive_completes_in_its_call_with_data_end_or_nothing() {
    let mut server = Server::new(8);
    let mut client = server.accept(Slot(0));
    assert_eq!(server.recv(Slot(0), 16).0, Received::Nothing);
    client.write_all(b"0123456789").expect("write");
    server.ring.poll_readable(Slot(0), 1);
    assert!(matches!(server.next(), Completion::Readable { slot: Slot(0), generation: 1 }));
    let (first, bytes) = server.recv(Slot(0), 4);
    assert_eq!((first, &bytes[..4]), (Received::Bytes { bytes: 4, more: true }, &b"0123"[..]));
    assert!(matches!(server.recv(Slot(0), 16).0, Received::Bytes { bytes: 6, more: false }));
    drop(client);
    server.ring.poll_readable(Slot(0), 1);
    assert!(matches!(server.next(), Completion::Readable { .. }));
    assert_eq!(server.recv(Slot(0), 16).0, Received::End);
}

#[test]
fn a_poll_armed_over_unread_bytes_answers_at_once() {
    let mut server = Server::new(8);
    let mut client = server.accept(Slot(0));
    client.write_all(b"01").expect("write");
    server.ring.poll_readable(Slot(0), 1);
    assert!(matches!(server.next(), Completion::Readable { .. }));
    assert!(matches!(server.recv(Slot(0), 1).0, Received::Bytes { bytes: 1, more: true }));
    server.ring.poll_readable(Slot(0), 2);
    assert!(matches!(server.next(), Completion::Readable { generation: 2, .. }));
}

#[test]
fn a_close_with_both_polls_armed_reaches_the_peer() {
    let mut server = Server::new(8);
    let mut client = server.accept(Slot(0));
    let big = vec![0; 64 << 20];
    server.send(Slot(0), &big);
    server.ring.poll_readable(Slot(0), 1);
    server.ring.poll_writable(Slot(0), 1);
    server.ring.wait(Wait::Poll);
    assert!(server.ring.next().is_none());
    server.ring.close(Slot(0), 1, ArmedPolls { readable: true, writable: true });
    let (mut readable, mut writable, mut closed) = (false, false, false);
    while !(readable && writable && closed) {
        match server.next() {
            Completion::Readable { .. } => readable = true,
            Completion::Writable { .. } => writable = true,
            Completion::Closed { slot: Slot(0), generation: 1 } => closed = true,
            other => panic!("{other:?}"),
        }
    }
    client.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).expect("the end of the stream, not a timeout");
}

#[test]
fn one_wait_takes_more_completions_than_the_kernel_runs_by_default() {
    let mut server = Server::new(256);
    let mut clients: Vec<_> = (0..200).map(|slot| server.accept(Slot(slot))).collect();
    for slot in 0..200 {
        server.ring.poll_readable(Slot(slot), 0);
    }
    server.ring.wait(Wait::Poll);
    assert!(server.ring.next().is_none());
    for client in &mut clients {
        client.write_all(b"x").expect("write");
    }
    server.ring.wait(Wait::Poll);
    let fired = std::iter::from_fn(|| server.ring.next()).count();
    assert_eq!(fired, 200);
}

#[test]
fn more_completions_than_the_queue_holds_do_not_hide_those_of_a_batch() {
    let mut server = Server::new(8);
    let mut client = server.accept(Slot(0));
    client.write_all(b"hello").expect("write");
    for _ in 0..18_000 {
        server.ring.close(Slot(1), 0, ArmedPolls::default());
    }
    server.ring.wait(Wait::Poll);
    let closed = std::iter::from_fn(|| server.ring.next()).count();
    assert_eq!(closed, 18_000);
    let deadline = Instant::now() + Duration::from_secs(5);
    while server.recv(Slot(0), 16).0 == Received::Nothing {
        assert!(Instant::now() < deadline, "the five bytes never came");
    }
}

#[test]
fn a_doorbell_wakes_a_sleeping_ring() {
    let mut server = Server::new(8);
    let bell = server.ring.bell();
    let ringer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        bell.ring();
    });
    let start = Instant::now();
    server.ring.wait(Wait::Sleep(Duration::from_secs(20)));
    assert!(matches!(server.ring.next(), Some(Completion::Doorbell)));
    assert!(start.elapsed() < Duration::from_secs(10), "the bell did not wake the ring");
    ringer.join().expect("no panic");
}

#[test]
fn the_eventfd_rings_again_and_again() {
    let mut server = Server::new(8);
    let halley_ring::Bell::Kernel { ring, event, .. } = server.ring.bell() else { panic!("a kernel ring") };
    let bell = halley_ring::Bell::Kernel { ring, event, messages: false };
    for _ in 0..3 {
        bell.ring();
        assert!(matches!(server.next(), Completion::Doorbell));
    }
}

#[test]
fn a_bell_rung_before_the_sleep_is_not_lost() {
    let mut server = Server::new(8);
    server.ring.bell().ring();
    let start = Instant::now();
    server.ring.wait(Wait::Sleep(Duration::from_secs(20)));
    assert!(start.elapsed() < Duration::from_secs(10));
    assert!(matches!(server.ring.next(), Some(Completion::Doorbell)));
}

#[test]
fn waiting_clients_are_shared_out_between_rings() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let settings = RingSettings { slots: 512, listeners: vec![listener.as_raw_fd()], accepts: 16, notify: None };
    let mut rings: Vec<_> = (0..3).map(|_| KernelRing::new(&settings).expect("io_uring")).collect();
    let mut taken = [0u32; 3];
    for (ring, taken) in rings.iter_mut().zip(&mut taken) {
        for place in 0..16 {
            ring.accept(0, place, Slot(*taken));
            *taken += 1;
        }
        ring.wait(Wait::Poll);
    }
    let address = listener.local_addr().expect("bound");
    let mut accepted = [0u32; 3];
    let mut clients = Vec::new();
    for _ in 0..30 {
        clients.extend((0..10).map(|_| TcpStream::connect(address).expect("connect")));
        for at in 0..3 {
            rings[at].wait(Wait::Poll);
            while let Some(Completion::Accepted { place, result }) = rings[at].next() {
                result.expect("an address");
                accepted[at] += 1;
                rings[at].accept(0, place, Slot(taken[at]));
                taken[at] += 1;
            }
            // A shard hands its accepts to the kernel in the same turn; one that is submitted over
            // waiting clients takes them past those who wait.
            rings[at].wait(Wait::Poll);
        }
    }
    for _ in 0..3 {
        for at in 0..3 {
            rings[at].wait(Wait::Poll);
            accepted[at] += u32::try_from(std::iter::from_fn(|| rings[at].next()).count()).expect("few");
        }
    }
    assert_eq!(accepted.iter().sum::<u32>(), 300, "{accepted:?}");
    assert!(accepted.iter().all(|share| *share > 0), "{accepted:?}");
}

#[test]
fn a_cancelled_accept_takes_nobody() {
    let mut server = Server::new(8);
    server.ring.accept(0, 3, Slot(1));
    server.ring.wait(Wait::Poll);
    server.ring.cancel_accept(3);
    assert!(matches!(server.next(), Completion::Accepted { place: 3, result: Err(halley_ring::Errno::CANCELED) }));
    server.ring.watch_listener(0);
    server.ring.wait(Wait::Poll);
    let _client = TcpStream::connect(server.address()).expect("connect");
    assert!(matches!(server.next(), Completion::ListenerReady { listener: 0 }));
    server.ring.accept(0, 3, Slot(1));
    assert!(matches!(server.next(), Completion::Accepted { place: 3, result: Ok(_) }));
}

#[test]
fn a_table_beyond_the_file_limit_is_refused_with_its_cause() {
    let settings = RingSettings { slots: 1 << 20, listeners: vec![], accepts: 1, notify: None };
    match KernelRing::new(&settings) {
        Ok(_) => {
            let limits = std::fs::read_to_string("/proc/self/limits").expect("limits");
            assert!(limits.lines().any(|line| line.starts_with("Max open files") && !line.contains(" 20000 ")));
        }
        Err(error) => assert!(error.to_string().contains("RLIMIT_NOFILE"), "{error}"),
    }
}
