//! Runs: what they join, how long they live, and where their pools end.

use super::*;
use halley_protocol::websocket::deflate::{Deflater, Inflater};

fn runs() -> Runs {
    Runs::new(4, 4096, [1000, 0])
}

#[test]
fn a_joined_run_is_its_messages_in_order_under_one_frame() {
    let mut runs = runs();
    let payloads = [Payload::encode(1000, b"one", Note::default()), Payload::encode(1001, b"three", Note::default())];
    let inner: Vec<u8> = payloads.iter().flat_map(|payload| payload.inner().to_vec()).collect();
    let run = runs.joined(u32::try_from(inner.len()).expect("small"), 2, payloads.iter(), false).expect("room");
    assert_eq!(runs.bytes(run, Class::Tcp), inner);
    let websocket = runs.bytes(run, Class::WebSocket);
    assert_eq!(websocket[..2], [0x82, 16 + u8::try_from(inner.len()).expect("small")]);
    assert_eq!(websocket[18..], inner);
    let first = u32::try_from(payloads[0].inner().len()).expect("small");
    assert_eq!(runs.messages_within(run, Class::Tcp, first - 1), 0);
    assert_eq!(runs.messages_within(run, Class::Tcp, first), 1);
    assert_eq!(runs.messages_within(run, Class::WebSocket, 18 + first), 1);
    assert_eq!(runs.messages_within(run, Class::WebSocket, 18 + first - 1), 0);
}

#[test]
fn what_is_deflated_is_joined_as_it_was_dispatched() {
    let mut runs = Runs::new(4, 1 << 16, [4000, 0]);
    let mut deflater = Deflater::new(6);
    let text = "again and again and again and again ".repeat(10);
    let mut encode = |body: &str| Payload::encode_deflated(1000, body.as_bytes(), Note::default(), &mut deflater);
    let payloads = [encode(&text), encode("short"), encode(&text)];
    assert_eq!(payloads.each_ref().map(|payload| payload.deflated().is_some()), [true, false, true]);
    let inner: Vec<u8> = payloads.iter().flat_map(|payload| payload.inner().to_vec()).collect();
    let bytes = u32::try_from(inner.len()).expect("small");
    let joined = runs.joined(bytes, 3, payloads.iter(), true).expect("room");
    let plain = runs.joined(bytes, 3, payloads.iter(), false).expect("room");
    let whole = runs.bytes(joined, Class::Deflate);
    assert_eq!(whole[0], 0xc2, "one compressed message");
    let mut out = vec![0; 8193];
    assert_eq!(Inflater::default().inflate(&whole[4..], &mut out), Ok(16 + inner.len()));
    assert_eq!(out[16..16 + inner.len()], inner);
    let length = u32::try_from(whole.len()).expect("small");
    assert!(whole.len() < inner.len());
    assert_eq!(runs.messages_within(joined, Class::Deflate, length - 1), 0, "of a part nothing can be read");
    assert_eq!(runs.messages_within(joined, Class::Deflate, length), 3);
    for class in [Class::Tcp, Class::WebSocket] {
        assert_eq!(runs.bytes(joined, class), runs.bytes(plain, class), "others get what they got before");
    }
    assert_eq!(runs.bytes(plain, Class::Deflate), runs.bytes(plain, Class::WebSocket), "nobody would read it");
    let pinned = [plain, joined].map(|run| {
        let before = runs.pinned_bytes();
        assert!(runs.pin(run));
        runs.pinned_bytes() - before
    });
    assert_eq!(pinned[1] - pinned[0], u64::from(length), "both forms are held");
    let [one, short, _] = payloads;
    let one = runs.message(one).expect("room");
    assert_eq!(runs.bytes(one, Class::Deflate)[0], 0xc2);
    let short = runs.message(short).expect("room");
    assert_eq!(runs.bytes(short, Class::Deflate), runs.bytes(short, Class::WebSocket), "it would not be smaller");
    for run in [plain, joined] {
        runs.unpin(run);
        runs.release(run);
    }
    runs.release(one);
    runs.release(short);
    assert_eq!((runs.live(), runs.pinned_bytes()), (0, 0));
}

#[test]
fn what_v1_gets_is_made_once_and_counted_while_it_is_pinned() {
    let mut runs = runs();
    let payloads = [Payload::encode(1000, b"one", Note::default()), Payload::encode(1001, b"three", Note::default())];
    let bytes = payloads.iter().map(|payload| payload.inner().len()).sum::<usize>();
    let joined = runs.joined(u32::try_from(bytes).expect("small"), 2, payloads.iter(), false).expect("room");
    let [one, _] = payloads;
    let single = runs.message(one).expect("room");
    for run in [joined, single] {
        assert!(runs.pin(run));
        let before = runs.pinned_bytes();
        assert!(runs.translate(run) && runs.translate(run));
        assert_eq!(runs.pinned_bytes() - before, 10 + runs.bytes(run, Class::TcpV1).len() as u64);
    }
    let v1 = [&[0, 0, 0, 19, 0, 16, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0][..], b"one"].concat();
    assert_eq!(runs.bytes(single, Class::TcpV1), v1);
    assert_eq!(runs.bytes(single, Class::WebSocketV1), [&[0x82, 19][..], &v1].concat());
    assert_eq!(runs.bytes(joined, Class::WebSocketV1)[..21], [&[0x82, 40][..], &v1].concat());
    assert_eq!(runs.messages_within(joined, Class::WebSocketV1, 20), 0);
    assert_eq!(runs.messages_within(joined, Class::WebSocketV1, 21), 1);
    assert_eq!(runs.bytes(joined, Class::Tcp)[6..12], [0, 1, 0, 0, 3, 232], "v2 gets what it got before");
    for run in [joined, single] {
        runs.unpin(run);
        runs.release(run);
    }
    assert_eq!((runs.live(), runs.pinned_bytes()), (0, 0));
}

#[test]
fn what_v1_gets_has_an_end_too() {
    let mut runs = runs();
    let run = runs.message(Payload::encode(1, &[0; 500], Note::default())).expect("room");
    assert!(runs.pin(run));
    assert!(!runs.translate(run), "with it more bytes would be pinned than may be");
    runs.unpin(run);
    assert!(runs.translate(run));
    let big = runs.message(Payload::encode(1, &[0; 5000], Note::default())).expect("room");
    assert!(!runs.translate(big), "the array has no such block");
    runs.release(run);
    runs.release(big);
    assert_eq!(runs.live(), 0);
}

#[test]
fn a_run_lives_until_its_last_reference() {
    let mut runs = runs();
    let run = runs.message(Payload::encode(1, b"x", Note::default())).expect("room");
    assert!(runs.pin(run));
    assert!(runs.pin(run));
    let held = runs.pinned_bytes();
    assert!(held > 0);
    runs.release(run);
    runs.unpin(run);
    assert_eq!((runs.live(), runs.pinned_bytes()), (1, held));
    runs.unpin(run);
    assert_eq!((runs.live(), runs.pinned_bytes()), (0, 0));
}

#[test]
fn the_pool_the_array_and_the_pinned_bytes_have_an_end() {
    let mut runs = runs();
    let big = runs.message(Payload::encode(1, &[0; 990], Note::default())).expect("room");
    assert!(!runs.pin(big), "more than the bytes that may be pinned");
    assert!(runs.reply(&[0; 5000]).is_none());
    let held: Vec<_> = std::iter::from_fn(|| runs.reply(b"x")).collect();
    assert_eq!(held.len(), 3);
    assert!(runs.message(Payload::encode(1, b"x", Note::default())).is_err());
    for run in held {
        runs.release(run);
    }
    assert!(runs.message(Payload::encode(1, b"x", Note::default())).is_ok());
}
