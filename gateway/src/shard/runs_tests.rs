//! Runs: what they join, how long they live, and where their pools end.

use super::*;

fn runs() -> Runs {
    Runs::new(4, 4096, [1000, 0])
}

#[test]
fn a_joined_run_is_its_messages_in_order_under_one_frame() {
    let mut runs = runs();
    let payloads = [Payload::encode(1000, b"one", 0), Payload::encode(1001, b"three", 0)];
    let inner: Vec<u8> = payloads.iter().flat_map(|payload| payload.inner().to_vec()).collect();
    let run = runs.joined(u32::try_from(inner.len()).expect("small"), 2, payloads.iter()).expect("room");
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
fn what_v1_gets_is_made_once_and_counted_while_it_is_pinned() {
    let mut runs = runs();
    let payloads = [Payload::encode(1000, b"one", 0), Payload::encode(1001, b"three", 0)];
    let bytes = payloads.iter().map(|payload| payload.inner().len()).sum::<usize>();
    let joined = runs.joined(u32::try_from(bytes).expect("small"), 2, payloads.iter()).expect("room");
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
    let run = runs.message(Payload::encode(1, &[0; 500], 0)).expect("room");
    assert!(runs.pin(run));
    assert!(!runs.translate(run), "with it more bytes would be pinned than may be");
    runs.unpin(run);
    assert!(runs.translate(run));
    let big = runs.message(Payload::encode(1, &[0; 5000], 0)).expect("room");
    assert!(!runs.translate(big), "the array has no such block");
    runs.release(run);
    runs.release(big);
    assert_eq!(runs.live(), 0);
}

#[test]
fn a_run_lives_until_its_last_reference() {
    let mut runs = runs();
    let run = runs.message(Payload::encode(1, b"x", 0)).expect("room");
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
    let big = runs.message(Payload::encode(1, &[0; 990], 0)).expect("room");
    assert!(!runs.pin(big), "more than the bytes that may be pinned");
    assert!(runs.reply(&[0; 5000]).is_none());
    let held: Vec<_> = std::iter::from_fn(|| runs.reply(b"x")).collect();
    assert_eq!(held.len(), 3);
    assert!(runs.message(Payload::encode(1, b"x", 0)).is_err());
    for run in held {
        runs.release(run);
    }
    assert!(runs.message(Payload::encode(1, b"x", 0)).is_ok());
}
