//! What nodes tell each other: bytes of every record, what is refused, and that no bytes do harm.

use halley_protocol::job::JobReject;
use halley_protocol::node::{Beat, Command, Key, Rooms, V1, read, write};
use proptest::prelude::*;

/// Files of version 1, written by the build that introduced it. They are read for ever.
const GOLDEN: [(&[u8], &str); 3] = [
    (include_bytes!("golden/node-v1-beat.bin"), "beat"),
    (include_bytes!("golden/node-v1-rooms.bin"), "rooms"),
    (include_bytes!("golden/node-v1-command.bin"), "command"),
];

fn record(name: &str) -> V1 {
    match name {
        "beat" => V1::Beat(Beat {
            sequence: 7,
            connections: 1 << 40,
            addresses: 3,
            rooms: 2,
            left_out: 1,
            lag: 9,
            draining: true,
            instance: "{\"hostname\":\"gateway-1\"}".into(),
        }),
        "rooms" => V1::Rooms(rooms(&[("a", 1), ("live://a room of more than eight bytes", u32::MAX)])),
        _ => V1::Command(Command { until_ms: -1, body: "{\"kick\":{\"key\":\"k\"}}".into() }),
    }
}

fn rooms(members: &[(&str, u32)]) -> Rooms {
    Rooms { sequence: 8, members: members.iter().map(|(name, members)| ((*name).into(), *members)).collect() }
}

#[test]
fn every_version_of_a_nodes_record_is_read_and_the_newest_written_as_it_was() {
    for (bytes, name) in GOLDEN {
        assert_eq!(read(bytes), Ok(record(name)), "{name}");
        assert_eq!(write(&record(name)).as_deref(), Some(bytes), "{name}");
    }
}

#[test]
fn a_changed_byte_or_a_cut_is_refused() {
    for (whole, name) in GOLDEN {
        for cut in 0..whole.len() {
            assert_eq!(read(&whole[..cut]), Err(JobReject::EnvelopeLength), "{name} cut at {cut}");
        }
        for at in 0..whole.len() {
            let mut bytes = whole.to_vec();
            bytes[at] ^= 0x40;
            assert!(read(&bytes).is_err(), "{name}, byte {at}");
        }
    }
}

#[test]
fn rooms_are_in_order_each_once_and_named() {
    let refused = |members: &[(&str, u32)]| read(&write(&V1::Rooms(rooms(members))).expect("small"));
    assert_eq!(refused(&[("b", 1), ("a", 1)]), Err(JobReject::EnvelopeBody));
    assert_eq!(refused(&[("a", 1), ("a", 1)]), Err(JobReject::EnvelopeBody));
    assert_eq!(refused(&[("", 1)]), Err(JobReject::BadName));
    assert_eq!(refused(&[(&"x".repeat(257), 1)]), Err(JobReject::BadName));
    let names: Vec<String> = (0..8193).map(|n| format!("{n:05}")).collect();
    let many: Vec<_> = names.iter().map(|name| (&**name, 1)).collect();
    assert_eq!(refused(&many), Err(JobReject::TooManyTargets));
    assert!(refused(&many[1..]).is_ok());
    let long = V1::Command(Command { until_ms: 0, body: "x".repeat(65_537) });
    assert_eq!(read(&write(&long).expect("small")), Err(JobReject::TooLarge));
}

#[test]
fn a_key_is_read_as_it_is_written_and_nothing_else_is_one() {
    for key in [Key::Beat("gateway-1-00ff"), Key::Rooms("n", 255), Key::Command("n", u64::MAX)] {
        assert_eq!(Key::read(key.write().as_bytes()), Some(key));
    }
    for wrong in ["", "beat", "beat/", "beat/a/b", "rooms/n", "rooms/n/256", "rooms//1", "command/n/x", "other/n"] {
        assert_eq!(Key::read(wrong.as_bytes()), None, "{wrong}");
    }
    assert_eq!(Key::read(b"beat/\xff"), None);
    assert_eq!(Key::read(format!("beat/{}", "x".repeat(321)).as_bytes()), None);
}

proptest! {
    #[test]
    fn any_bytes_are_a_record_or_a_reject(body in prop::collection::vec(any::<u8>(), 0..200)) {
        // With the right header, so that the archive itself is looked at.
        let mut bytes = [&halley_protocol::node::MAGIC[..], &1u32.to_le_bytes()].concat();
        bytes.extend(u32::try_from(body.len()).unwrap().to_le_bytes());
        bytes.extend(crc32c::crc32c_append(crc32c::crc32c(&bytes), &body).to_le_bytes());
        bytes.extend(&body);
        if let Ok(record) = read(&bytes) {
            prop_assert_eq!(read(&write(&record).unwrap()), Ok(record));
        }
        let _ = (read(&body), Key::read(&body));
    }
}
