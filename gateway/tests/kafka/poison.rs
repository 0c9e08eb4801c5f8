//! Records that are no jobs between records that are.

use crate::world::{Wire, Writer, broker, client, gateway, room_job, source, topic, until_dispatched};

const POISON: u64 = 10_000;
const GOOD: u64 = 100;

#[test]
fn ten_thousand_bad_records_stop_no_good_one_and_are_counted_told_and_buried() {
    let Some(broker) = broker() else { return };
    let (topic, letters) = (topic(broker, 1), topic(broker, 1));
    let gateway = gateway(broker, &topic, &format!("dead_letter_topic = \"{letters}\"\n"));
    let mut client = client(&gateway, "k", "r");
    let writer = Writer::new(broker, &topic);
    let kinds: [&[u8]; 8] = [
        b"hello",
        b"",
        b"{\"op\":1}",
        b"\x08\x07",
        b"\x2a\x7f",
        b"\xffHJ0\x01\0\0\0\0\0\0\0\0\0\0\0",
        b"\x08\x01",
        b"\xffHJ0\x02\0\0\0\0\0\0\0\0\0\0\0",
    ];
    for n in 0..POISON {
        if n.is_multiple_of(POISON / GOOD) {
            writer.put(&room_job("r", &(n / (POISON / GOOD)).to_string()));
        }
        let kind = kinds[usize::try_from(n).expect("small") % kinds.len()];
        writer.put(&Wire { key: Some(b"k".to_vec()), value: Some(kind.into()), ..Wire::default() });
    }
    // A tombstone.
    writer.put(&Wire { key: Some(b"k".to_vec()), ..Wire::default() });
    writer.flush();
    for n in 0..GOOD {
        client.expect_push(1000, &n.to_string());
    }
    until_dispatched(&gateway, GOOD);
    crate::support::until("all buried", || source(&gateway)["dead_letters"] == POISON + 1);
    let source = source(&gateway);
    let each = POISON / 8;
    for (reason, count) in [
        ("unknown-format", each),
        ("empty", each + 1),
        ("json", each),
        ("unknown-kind", each),
        ("protobuf", each),
        ("envelope-checksum", each),
        ("no-target", each),
        ("envelope-version", each),
    ] {
        assert_eq!(source["rejects"][reason], count, "{reason}: {source}");
    }
    let log = gateway.log();
    let told = log.lines().filter(|line| line.contains("kafka-reject")).collect::<Vec<_>>();
    assert!((1..20).contains(&told.len()), "about once a second: {}", told.len());
    assert!(["\"topic\":", "\"partition\":0", "\"offset\":"].iter().all(|part| told[0].contains(part)), "{}", told[0]);
}
