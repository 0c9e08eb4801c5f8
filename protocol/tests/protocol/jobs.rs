//! Jobs as they stand in a log: bytes of every format, what is refused, and that no bytes do harm.

use std::borrow::Cow;

use halley_protocol::job::plain::Headers;
use halley_protocol::job::{Format, Job, JobLimits, JobReject, JobTarget, Record, envelope, goim, read};
use proptest::prelude::*;

const LIMITS: JobLimits =
    JobLimits { payload_bytes_max: 1024, room_bytes_max: 256, key_bytes_max: 256, targets_max: 100 };

fn job(target: JobTarget, operation: i32, payload: &[u8]) -> Job<'_> {
    Job { target, operation, payload: Cow::Borrowed(payload) }
}

fn room(name: &str) -> JobTarget {
    JobTarget::Room(name.into())
}

fn value(value: &[u8], format: Format) -> Result<Job<'_>, JobReject> {
    read(&Record { value, ..Record::default() }, format, &LIMITS)
}

fn auto(bytes: &[u8]) -> Result<Job<'_>, JobReject> {
    value(bytes, Format::Auto)
}

/// goim's `PushMsg`, byte by byte: tag, then varint or length and bytes.
const V2_ROOM: &[u8] = b"\x08\x01\x10\xe8\x07\x2a\x0blive://1000\x3a\x02hi";
const V2_KEYS: &[u8] = b"\x10\xe8\x07\x22\x07comet-1\x32\x02k1\x32\x02k2\x3a\x02hi";
const V2_ALL: &[u8] = b"\x08\x02\x10\xe8\x07\x18\x64\x3a\x02hi";

#[test]
fn goims_protobuf_is_read_and_its_server_ignored() {
    assert_eq!(goim::v2::write_room("live://1000", 1000, b"hi"), V2_ROOM);
    assert_eq!(auto(V2_ROOM), Ok(job(room("live://1000"), 1000, b"hi")));
    assert_eq!(auto(V2_KEYS), Ok(job(JobTarget::Keys(vec!["k1".into(), "k2".into()]), 1000, b"hi")));
    assert_eq!(auto(V2_ALL), Ok(job(JobTarget::All, 1000, b"hi")));
}

#[test]
fn goim_v1s_json_is_read_as_operation_5() {
    let sample = br#"{"op":"broadcast_room","roomid":1,"msg":"aGk="}"#;
    assert_eq!(auto(sample), Ok(job(room("1"), 5, b"hi")));
    let keys = br#"{"op":"multiple","server":3,"subkeys":["7_1","7_2"],"msg":"aGk=","ensure":true}"#;
    assert_eq!(auto(keys), Ok(job(JobTarget::Keys(vec!["7_1".into(), "7_2".into()]), 5, b"hi")));
    assert_eq!(auto(br#"{"op":"broadcast","msg":"aGk="}"#), Ok(job(JobTarget::All, 5, b"hi")));
}

/// Files of version 1, written by the build that introduced it. They are read for ever.
const V1_GOLDEN: [(&[u8], &str); 4] = [
    (include_bytes!("golden/envelope-v1-room.bin"), "room"),
    (include_bytes!("golden/envelope-v1-keys.bin"), "keys"),
    (include_bytes!("golden/envelope-v1-members.bin"), "members"),
    (include_bytes!("golden/envelope-v1-all.bin"), "all"),
];

fn v1(name: &str) -> Job<'static> {
    let target = match name {
        "room" => room("live://1000"),
        "keys" => JobTarget::Keys(vec!["a".into(), "a key of more than eight bytes".into()]),
        "members" => JobTarget::Members(vec![-1, 0, i64::MAX]),
        _ => JobTarget::All,
    };
    job(target, -7, b"\0payload\xff")
}

#[test]
fn every_version_of_the_envelope_is_read_and_the_newest_written_as_it_was() {
    for (bytes, name) in V1_GOLDEN {
        assert_eq!(auto(bytes), Ok(v1(name)), "{name}");
        assert_eq!(envelope::write(&v1(name)).as_deref(), Some(bytes), "{name}");
    }
}

#[test]
fn an_envelopes_payload_is_read_in_place_wherever_it_lies() {
    for shift in 0..8 {
        let bytes = [&vec![0; shift][..], V1_GOLDEN[0].0].concat();
        let job = auto(&bytes[shift..]).expect("an envelope");
        assert!(matches!(job.payload, Cow::Borrowed(_)));
    }
}

#[test]
fn a_broken_envelope_says_what_is_broken() {
    let whole = V1_GOLDEN[0].0;
    for cut in 4..whole.len() {
        assert_eq!(auto(&whole[..cut]), Err(JobReject::EnvelopeLength), "cut at {cut}");
    }
    assert_eq!(auto(&[whole, b"x"].concat()), Err(JobReject::EnvelopeLength));
    for at in 0..whole.len() {
        let mut bytes = whole.to_vec();
        bytes[at] ^= 0x40;
        let reject = auto(&bytes).expect_err("a changed byte");
        let expected = match at {
            0..4 => JobReject::UnknownFormat,
            4..8 => JobReject::EnvelopeVersion,
            8..12 => JobReject::EnvelopeLength,
            _ => JobReject::EnvelopeChecksum,
        };
        assert_eq!(reject, expected, "byte {at}");
    }
}

#[test]
fn a_body_with_the_right_checksum_is_still_checked() {
    // An archive whose root points far outside.
    let body = [0xff; 32];
    let mut bytes = [&envelope::MAGIC[..], &1u32.to_le_bytes(), &32u32.to_le_bytes()].concat();
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&bytes), &body);
    bytes.extend(checksum.to_le_bytes());
    bytes.extend(body);
    assert_eq!(auto(&bytes), Err(JobReject::EnvelopeBody));
}

fn plain<'a>(key: Option<&'a str>, headers: &[(&str, &'a str)], format: Format) -> Result<Job<'a>, JobReject> {
    let mut taken = Headers::default();
    for (name, value) in headers {
        taken.add(name, Some(value.as_bytes()));
    }
    read(&Record { key: key.map(str::as_bytes), value: b"{\"score\":1}", headers: taken }, format, &LIMITS)
}

#[test]
fn a_header_makes_any_value_a_payload() {
    let payload = b"{\"score\":1}";
    let by = |headers: &[(&str, &'static str)]| plain(Some("k"), headers, Format::Auto);
    assert_eq!(by(&[("halley-room", "live://1"), ("trace", "x")]), Ok(job(room("live://1"), 1000, payload)));
    assert_eq!(by(&[("halley-all", ""), ("halley-operation", "7")]), Ok(job(JobTarget::All, 7, payload)));
    assert_eq!(by(&[("halley-members", "1,-2")]), Ok(job(JobTarget::Members(vec![1, -2]), 1000, payload)));
    assert_eq!(by(&[("halley-keys", "a,b")]), Ok(job(JobTarget::Keys(vec!["a".into(), "b".into()]), 1000, payload)));
    assert_eq!(by(&[("halley-room", "a"), ("halley-all", "")]), Err(JobReject::Header));
    assert_eq!(by(&[("halley-room", "a"), ("halley-room", "b")]), Err(JobReject::Header));
    assert_eq!(by(&[("halley-room", "a"), ("halley-operation", "many")]), Err(JobReject::Header));
    assert_eq!(by(&[("halley-members", "")]), Err(JobReject::Header));
    assert_eq!(by(&[("halley-keys", "a,")]), Err(JobReject::BadName));
}

#[test]
fn the_key_names_the_target_on_a_plain_topic() {
    let by = |key| plain(Some(key), &[], Format::Plain).map(|job| job.target);
    assert_eq!(by("live://1000"), Ok(room("live://1000")));
    assert_eq!(by("room:live://1000"), Ok(room("live://1000")));
    assert_eq!(by("key:a:b"), Ok(JobTarget::Keys(vec!["a:b".into()])));
    assert_eq!(by("member:7"), Ok(JobTarget::Members(vec![7])));
    assert_eq!(by("all"), Ok(JobTarget::All));
    assert_eq!(by("member:x"), Err(JobReject::BadName));
    assert_eq!(by(""), Err(JobReject::BadName));
    assert_eq!(plain(None, &[], Format::Plain), Err(JobReject::NoTarget));
}

#[test]
fn what_names_nobody_or_too_many_or_is_too_large_is_refused() {
    assert_eq!(auto(b""), Err(JobReject::Empty));
    assert_eq!(auto(b"hello"), Err(JobReject::UnknownFormat));
    assert_eq!(auto(b"{}"), Err(JobReject::Json));
    assert_eq!(auto(br#"{"op":"else","msg":""}"#), Err(JobReject::UnknownKind));
    assert_eq!(auto(br#"{"op":"multiple","msg":""}"#), Err(JobReject::NoTarget));
    assert_eq!(auto(b"\x08\x01\x10\x01"), Err(JobReject::NoTarget), "a room without a name");
    assert_eq!(auto(b"\x08\x09"), Err(JobReject::UnknownKind));
    assert_eq!(auto(b"\x10\x01"), Err(JobReject::NoTarget), "keys without a key");
    assert_eq!(auto(b"\x2a\xff\xff"), Err(JobReject::Protobuf));
    let write = |target| envelope::write(&job(target, 1, b"")).expect("small");
    assert_eq!(auto(&write(room(""))), Err(JobReject::BadName));
    assert_eq!(auto(&write(room(&"r".repeat(257)))), Err(JobReject::BadName));
    assert_eq!(auto(&write(JobTarget::Members(vec![1; 101]))), Err(JobReject::TooManyTargets));
    let large = envelope::write(&job(JobTarget::All, 1, &[0; 1025])).expect("small");
    assert_eq!(auto(&large), Err(JobReject::TooLarge));
}

#[test]
fn a_declared_format_takes_no_other() {
    let json: &[u8] = br#"{"op":"broadcast","msg":""}"#;
    for (format, good, bad) in [
        (Format::Envelope, V1_GOLDEN[0].0, V2_ROOM),
        (Format::GoimV1, json, V1_GOLDEN[0].0),
        (Format::GoimV2, V2_ROOM, V1_GOLDEN[0].0),
        (Format::GoimV2, V2_ROOM, json),
    ] {
        assert!(value(good, format).is_ok(), "{format:?}");
        assert!(value(bad, format).is_err(), "{format:?}");
    }
}

fn targets() -> impl Strategy<Value = JobTarget> {
    prop_oneof![
        "[ -~]{1,40}".prop_map(JobTarget::Room),
        prop::collection::vec("\\PC{1,20}", 1..9).prop_map(JobTarget::Keys),
        prop::collection::vec(any::<i64>(), 1..9).prop_map(JobTarget::Members),
        Just(JobTarget::All),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(target in targets(), operation: i32, payload in prop::collection::vec(any::<u8>(), 0..200)) {
        let job = job(target, operation, &payload);
        let bytes = envelope::write(&job).expect("small");
        prop_assert_eq!(auto(&bytes), Ok(job));
    }

    #[test]
    fn no_bytes_do_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for format in [Format::Auto, Format::Envelope, Format::GoimV2, Format::GoimV1, Format::Plain] {
            let _ = value(&bytes, format);
        }
    }

    #[test]
    fn no_body_does_harm_behind_a_right_checksum(body in prop::collection::vec(any::<u8>(), 0..80)) {
        let length = u32::try_from(body.len()).expect("short");
        let mut bytes = [&envelope::MAGIC[..], &1u32.to_le_bytes(), &length.to_le_bytes()].concat();
        bytes.extend(crc32c::crc32c_append(crc32c::crc32c(&bytes), &body).to_le_bytes());
        bytes.extend(&body);
        let _ = auto(&bytes);
    }
}
