//! Real shards with the limits that they have by default: what a room loses that gets more than they can send, that it is
//! counted, and that no other room loses anything.

use std::collections::BTreeSet;
use std::io::{BufReader, Read as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use halley_protocol::packet::HEADER_BYTES;
use rustix::process::Signal;

use crate::support::{Client, Gateway, LISTENERS, OPEN, Transport};
use crate::world::{Writer, broker, room_job, source, topic, until_dispatched, until_state};

/// Jobs for the hot room: 32 MiB, eight times what may wait in a room.
const JOBS: usize = 128;
const JOB_BYTES: usize = 256 << 10;

/// Its members that read as fast as they can. To send a job to all of them takes longer than to read the next ones.
const MEMBERS: usize = 64;

/// Rooms with a client each, which get a small job after each of the hot room's.
const CALM: usize = 8;

/// The numbers of a client's jobs, up to "end". They are not heard before `begin`.
///
/// Not with [`Client::hear`], which copies what it has with every piece that comes.
fn hear(client: Client, begin: Arc<AtomicBool>) -> JoinHandle<Vec<usize>> {
    thread::spawn(move || {
        while !begin.load(Ordering::Acquire) {
            thread::sleep(Duration::from_millis(5));
        }
        client.stream.set_read_timeout(Some(Duration::from_secs(30))).expect("an option");
        let mut stream = BufReader::with_capacity(1 << 18, client.stream);
        let mut numbers = Vec::new();
        loop {
            let mut header = [0; HEADER_BYTES];
            stream.read_exact(&mut header).unwrap_or_else(|error| panic!("{error} after {numbers:?}"));
            let bytes = u32::from_be_bytes(*header.first_chunk().expect("a length")) as usize;
            let mut body = vec![0; bytes - HEADER_BYTES];
            stream.read_exact(&mut body).expect("all of it");
            if body == b"end" {
                return numbers;
            }
            numbers.push(str::from_utf8(&body[..8]).expect("digits").parse().expect("a number"));
        }
    })
}

/// Two listeners as they are by default, and one whose clients may be as late as they like.
fn patient_gateway(address: &str, topic: &str) -> Gateway {
    let patient = "[[listener]]\nbind = \"127.0.0.1:0\"\ntransport = \"tcp\"\nlogin = \"open\"\noutbox_bytes_max = 67108864\nsend_buffer_bytes = 1048576\n";
    let kafka = format!("[kafka]\nbrokers = [\"{address}\"]\ntopic = \"{topic}\"\n");
    let gateway = Gateway::start(&format!("{OPEN}{LISTENERS}{patient}{kafka}"));
    until_state(&gateway, "consuming");
    gateway
}

#[test]
fn a_room_beyond_what_may_wait_loses_what_is_counted_and_no_other_room_loses_anything() {
    let Some(broker) = broker() else { return };
    let topic = topic(broker, 1);
    let gateway = patient_gateway(&broker.address(), &topic);
    let member = |listener: usize, key: &str| {
        let login = format!(r#"{{"key":"{key}","room_id":"hot","accepts":[1000]}}"#);
        Client::login(gateway.listeners[listener], Transport::Tcp, &login)
    };
    let [now, later] = [true, false].map(|begin| Arc::new(AtomicBool::new(begin)));
    let hot: Vec<_> = (0..MEMBERS).map(|n| hear(member(2, &n.to_string()), Arc::clone(&now))).collect();
    // One that does not read, on a listener as it is by default.
    let sleeper = hear(member(0, "sleeper"), Arc::clone(&later));
    let mut calm: Vec<_> = (0..CALM)
        .map(|n| {
            let transport = [Transport::Tcp, Transport::WebSocket][n % 2];
            let login = format!(r#"{{"key":"calm-{n}","room_id":"calm-{n}","accepts":[1000]}}"#);
            Client::login(gateway.listeners[n % 2], transport, &login)
        })
        .collect();

    // All of it is there at once when the process goes on.
    gateway.signal(Signal::STOP);
    let writer = Writer::with(&broker.address(), &topic, &[("compression.type", "lz4")]);
    let filling = "x".repeat(JOB_BYTES);
    for n in 0..JOBS {
        writer.put(&room_job("hot", &format!("{n:08}{filling}")));
        (0..CALM).for_each(|room| writer.put(&room_job(&format!("calm-{room}"), &n.to_string())));
    }
    writer.flush();
    gateway.signal(Signal::CONT);
    let jobs = JOBS * (1 + CALM);
    until_dispatched(&gateway, jobs as u64);
    for client in &mut calm {
        (0..JOBS).for_each(|n| client.expect_push(1000, &n.to_string()));
    }
    later.store(true, Ordering::Release);
    // What waits in rooms is not offered yet.
    gateway.until_counter("/pools/push-bytes/used", 0);
    gateway.settled();
    writer.put(&room_job("hot", "end"));
    writer.flush();

    let hot: Vec<Vec<usize>> = hot.into_iter().map(|member| member.join().expect("it hears")).collect();
    let sleeper = sleeper.join().expect("it hears");
    for numbers in hot.iter().chain([&sleeper]) {
        assert!(numbers.is_sorted_by(|a, b| a < b), "in order, and none twice: {numbers:?}");
    }
    calm.iter_mut().for_each(Client::expect_quiet);
    let lists: BTreeSet<_> = hot.iter().collect();
    assert!(lists.len() <= 2, "what a room loses on a shard, all of its members lose");
    let heard = hot.iter().chain([&sleeper]).map(Vec::len).sum::<usize>();
    let stats = gateway.settled();
    let count = |path: &str| usize::try_from(gateway.counter(path)).expect("few");
    let (behind, slow) = (count("/dropped/room-behind"), count("/dropped/slow-newest"));
    assert!(behind > 0 && slow > 0, "{stats}");
    let ends = MEMBERS + 1;
    assert_eq!(count("/offered"), JOBS * (MEMBERS + 1 + CALM) + ends, "{stats}");
    assert_eq!(count("/sent"), heard + JOBS * CALM + ends, "{stats}");
    assert_eq!(heard + behind + slow, JOBS * (MEMBERS + 1), "heard or counted: {stats}");
    let lost = hot.iter().map(|numbers| JOBS - numbers.len()).sum::<usize>();
    assert!((lost..=lost + JOBS).contains(&behind), "those who read lost it as `room-behind` alone: {lost}, {behind}");
    let source = source(&gateway);
    assert_eq!((&source["repeats"], &source["limited"]), (&0.into(), &0.into()), "{source}");
}
