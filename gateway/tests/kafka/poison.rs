//! Records that are no jobs between records that are: each is counted, told, and buried as it was.

use std::collections::BTreeMap;

use halley_protocol::job::{Job, JobReject, JobTarget, envelope};
use rdkafka::message::{Message as _, OwnedMessage};
use serde_json::Value;

use crate::support::until;
use crate::world::{
    Wire, Writer, broker, client, gateway, headers, records, room_job, source, topic_of_large_records, until_dispatched,
};

const POISON: usize = 10_000;
const GOOD: usize = 100;

/// Bytes of most of the large ones, and how many of them lie there before the gateway starts: more than its producer takes
/// at a time.
const LARGE_BYTES: usize = 300_000;
const LARGE_AT_START: usize = 60;

/// The largest payload, as `docs/kafka.md` says it.
const PAYLOAD_BYTES_MAX: usize = 1 << 20;

type Kind = (&'static str, Wire);

fn value(bytes: &[u8]) -> Wire {
    Wire { value: Some(bytes.into()), ..Wire::default() }
}

fn plain(headers: &[(&'static str, &'static str)]) -> Wire {
    Wire { headers: headers.into(), ..value(b"{plain}") }
}

/// CRC-32C, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg()))
    })
}

/// An envelope with the right checksum around this.
fn sealed(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("short").to_le_bytes();
    let header = [b"\xffHJ0\x01\0\0\0", &length[..]].concat();
    let checksum = crc32c(&[&header, body].concat()).to_le_bytes();
    [&header, &checksum[..], body].concat()
}

/// Small records for every reason that a small one can have.
fn kinds() -> Vec<Kind> {
    let job = Job { target: JobTarget::Room("r".into()), operation: 1, payload: b"x"[..].into() };
    let whole = envelope::write(&job).expect("small");
    assert_eq!(sealed(&whole[16..]), whole, "what is changed below would be read");
    let mut changed = whole.clone();
    changed[20] ^= 1;
    let name: &'static str = "n".repeat(257).leak();
    vec![
        ("unknown-format", value(b"hello")),
        ("empty", value(b"")),
        ("empty", Wire::default()),
        ("json", value(b"{\"op\":1}")),
        ("json", value(br#"{"op":"broadcast","msg":"no base64!"}"#)),
        ("unknown-kind", value(b"\x08\x07")),
        ("unknown-kind", value(br#"{"op":"shout","msg":""}"#)),
        ("protobuf", value(b"\x2a\x7f")),
        ("envelope-length", value(&whole[..whole.len() - 1])),
        ("envelope-version", value(b"\xffHJ0\x02\0\0\0\0\0\0\0\0\0\0\0")),
        ("envelope-checksum", value(&changed)),
        ("envelope-body", value(&sealed(&[0xff; 24]))),
        ("no-target", value(b"\x08\x01")),
        ("no-target", value(br#"{"op":"multiple","subkeys":[],"msg":""}"#)),
        ("bad-name", plain(&[("halley-room", name)])),
        ("bad-name", plain(&[("halley-keys", "a,,b")])),
        ("header", plain(&[("halley-room", "r"), ("halley-room", "r")])),
        ("header", plain(&[("halley-room", "r"), ("halley-all", "")])),
        ("header", plain(&[("halley-room", "r"), ("halley-operation", "many"), ("other", "kept")])),
        ("header", plain(&[("halley-members", "7,seven")])),
    ]
}

/// The others.
fn large_kinds() -> Vec<Kind> {
    let filled = |begin: &[u8]| value(&[begin, &vec![b'x'; LARGE_BYTES]].concat());
    let too_large = vec![b'x'; PAYLOAD_BYTES_MAX + 1];
    vec![
        ("unknown-format", filled(b"hello")),
        ("json", filled(b"{")),
        ("protobuf", filled(b"\x2a")),
        ("envelope-length", filled(b"\xffHJ0\x01\0\0\0\0\0\0\0\0\0\0\0")),
        // Keys of one byte.
        ("too-many-targets", value(&b"\x32\x01k".repeat(10_001))),
        ("too-large", Wire { value: Some(too_large), ..plain(&[("halley-room", "r")]) }),
    ]
}

/// What is written, in the order of its offsets: with its reason, or a good one.
#[derive(Default)]
struct Topic(Vec<(Option<&'static str>, Wire)>);

impl Topic {
    fn put(&mut self, writer: &Writer, reason: Option<&'static str>, wire: &Wire) {
        writer.put(wire);
        self.0.push((reason, wire.clone()));
    }

    fn put_poison(&mut self, writer: &Writer, (reason, wire): &Kind) {
        let key = format!("key {}", self.0.len()).into_bytes();
        self.put(writer, Some(reason), &Wire { key: Some(key), ..wire.clone() });
    }

    fn poison(&self) -> impl Iterator<Item = (usize, &'static str, &Wire)> {
        self.0.iter().enumerate().filter_map(|(offset, (reason, wire))| Some((offset, (*reason)?, wire)))
    }
}

/// Each bad record is there once, in order, as it was, and says why and whence.
fn check_letters(topic: &str, written: &Topic, letters: &[OwnedMessage]) {
    assert_eq!(letters.len(), written.poison().count());
    for (letter, (offset, reason, wire)) in letters.iter().zip(written.poison()) {
        let what = format!("{reason} of offset {offset}");
        assert_eq!(letter.key(), wire.key.as_deref(), "{what}: the key");
        assert!(letter.payload() == wire.value.as_deref(), "{what}: the value");
        let from = format!("{topic}/0/{offset}");
        let ours = [("halley-reject", reason), ("halley-from", &*from)];
        let expected =
            wire.headers.iter().copied().chain(ours).map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(headers(letter), expected.collect::<Vec<_>>(), "{what}: headers");
    }
}

fn buried(source: &Value) -> [u64; 2] {
    ["dead_letters", "dead_letters_failed"].map(|key| source[key].as_u64().expect("a count"))
}

#[test]
fn ten_thousand_bad_records_stop_no_good_one_and_are_counted_told_and_buried() {
    let Some(broker) = broker() else { return };
    let [topic, letters] = [(); 2].map(|()| topic_of_large_records(broker));
    let large = [("compression.type", "lz4"), ("message.max.bytes", "4000000")];
    let (writer, mut written) = (Writer::with(&broker.address(), &topic, &large), Topic::default());
    let (kinds, large_kinds) = (kinds(), large_kinds());
    for n in 0..LARGE_AT_START {
        written.put_poison(&writer, &large_kinds[n % large_kinds.len()]);
    }
    writer.flush();
    // All of the large ones may be on their way at once.
    let room = "[kafka.client]\n\"queue.buffering.max.kbytes\" = 262144\n";
    let lines = format!("start = \"earliest\"\ndead_letter_topic = \"{letters}\"\n{room}");
    let gateway = gateway(broker, &topic, &lines);
    until(&format!("the first are buried: {}", source(&gateway)), || {
        buried(&source(&gateway)).iter().sum::<u64>() == LARGE_AT_START as u64
    });
    assert_eq!(buried(&source(&gateway)), [LARGE_AT_START as u64, 0]);

    let mut client = client(&gateway, "k", "r");
    for n in 0..POISON {
        let good = n / (POISON / GOOD);
        if n.is_multiple_of(POISON / GOOD) {
            written.put(&writer, None, &room_job("r", &good.to_string()));
        }
        let large = n.is_multiple_of(4 * POISON / GOOD);
        let kind = if large { &large_kinds[good / 4 % large_kinds.len()] } else { &kinds[n % kinds.len()] };
        written.put_poison(&writer, kind);
    }
    written.put(&writer, None, &room_job("r", "last"));
    writer.flush();
    for n in 0..GOOD {
        client.expect_push(1000, &n.to_string());
    }
    client.expect_push(1000, "last");
    until_dispatched(&gateway, GOOD as u64 + 1);
    let bad = written.poison().count() as u64;
    until("all buried", || buried(&source(&gateway)).iter().sum::<u64>() == bad);

    let source = source(&gateway);
    assert_eq!(buried(&source), [bad, 0], "{source}");
    let mut reasons = BTreeMap::<_, u64>::new();
    written.poison().for_each(|(_, reason, _)| *reasons.entry(reason).or_default() += 1);
    for reason in JobReject::ALL.map(JobReject::name) {
        assert!(reasons.contains_key(reason), "{reason} is among them");
        assert_eq!(source["rejects"][reason], reasons[reason], "{reason}: {source}");
    }
    check_letters(&topic, &written, &records(broker, &letters, 1));
    let log = gateway.log();
    let told = log.lines().filter(|line| line.contains("kafka-reject")).collect::<Vec<_>>();
    assert!((1..30).contains(&told.len()), "about once a second: {}", told.len());
    assert!(["\"topic\":", "\"partition\":0", "\"offset\":"].iter().all(|part| told[0].contains(part)), "{}", told[0]);
}
