//! Clients that say messages and remember what they were answered.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::SocketAddr;
use std::ops::Range;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use halley_protocol::{client as packets, operation};

use super::{Client, Heard, Transport};

/// Longest that a place may be away: a broker that was killed takes its time to come back.
const OUTAGE_MAX: Duration = Duration::from_mins(1);

/// What became of one client's messages.
#[derive(Debug)]
pub(crate) struct Talked {
    pub(crate) key: String,
    /// Sequences, in the order of the answers.
    pub(crate) acknowledged: Vec<i32>,
    /// Sequences and bodies of refusals.
    pub(crate) refused: Vec<(i32, String)>,
    /// Said and not answered.
    pub(crate) open: usize,
}

/// The message of this sequence of this client.
pub(crate) fn text(key: &str, sequence: i32) -> String {
    format!("{key} {sequence}")
}

/// A client over TCP that says these messages, this many at a time, until all are answered or the gateway is gone. After a
/// refusal it waits a little.
pub(crate) fn talk(gateway: SocketAddr, key: String, sequences: Range<i32>, at_a_time: usize) -> JoinHandle<Talked> {
    let login = format!(r#"{{"mid":7,"key":"{key}","room_id":"room","accepts":[]}}"#);
    let mut client = Client::login(gateway, Transport::Tcp, &login);
    thread::spawn(move || {
        let mut talked = Talked { key: key.clone(), acknowledged: Vec::new(), refused: Vec::new(), open: 0 };
        let mut open = BTreeSet::new();
        let mut left = sequences;
        loop {
            while open.len() < at_a_time
                && let Some(sequence) = left.next()
            {
                let packet = packets::packet(operation::SEND_MESSAGE, sequence, text(&key, sequence).as_bytes());
                // Of a gateway that is gone the end is heard below.
                let _ = client.stream.write_all(&packet);
                open.insert(sequence);
            }
            if open.is_empty() {
                return talked;
            }
            match client.hear_within(OUTAGE_MAX) {
                Some(Heard::Packet { operation: operation::SEND_MESSAGE_REPLY, sequence, body }) => {
                    assert!(open.remove(&sequence), "{key}: {sequence} is answered once");
                    if body.is_empty() {
                        talked.acknowledged.push(sequence);
                    } else {
                        talked.refused.push((sequence, String::from_utf8(body).expect("JSON")));
                        thread::sleep(Duration::from_millis(20));
                    }
                }
                Some(Heard::End) => {
                    talked.open = open.len();
                    return talked;
                }
                other => panic!("{key}: {other:?} instead of answers to {open:?}"),
            }
        }
    })
}

/// Checks that the place has everything that was acknowledged, each client's in the order in which it was said. `found` are
/// key and sequence of all that it has, in its order.
pub(crate) fn check(talked: &[Talked], found: &[(String, i32)]) {
    for Talked { key, acknowledged, .. } in talked {
        let of_key = found.iter().filter(|(of, _)| of == key);
        let there: Vec<i32> = of_key.map(|(_, sequence)| *sequence).collect();
        assert!(there.is_sorted(), "{key}: {there:?}");
        let there: BTreeSet<_> = there.into_iter().collect();
        let lost: Vec<_> = acknowledged.iter().filter(|sequence| !there.contains(sequence)).collect();
        assert!(lost.is_empty(), "{key}: {lost:?} were acknowledged and are not there");
    }
}
