//! The echo dialect, driven by a WebSocket client that is not ours.

use std::net::{SocketAddr, TcpStream};

use tungstenite::protocol::{CloseFrame, WebSocketConfig, frame::coding::CloseCode};
use tungstenite::{Error, Message, WebSocket, client::client_with_config};

use crate::support::{Gateway, OPEN, connect};

const MESSAGE_BYTES_MAX: usize = 16 << 20;

const ECHO: &str = "[[listener]]\nbind = \"127.0.0.1:0\"\ntransport = \"ws\"\ndialect = \"echo\"\n";

fn client(address: SocketAddr, path: &str) -> Result<WebSocket<TcpStream>, String> {
    let config = WebSocketConfig::default()
        .max_message_size(None)
        .max_frame_size(None)
        .max_write_buffer_size(usize::MAX)
        .write_buffer_size(0);
    let client = client_with_config(format!("ws://{address}{path}"), connect(address), Some(config));
    client.map(|(client, _)| client).map_err(|error| error.to_string())
}

/// The close frame that ends what is read.
fn closed(client: &mut WebSocket<TcpStream>) -> Option<CloseFrame> {
    loop {
        match client.read() {
            Ok(Message::Close(frame)) => return frame,
            Ok(_) => {}
            Err(error) => panic!("the end without a close: {error}"),
        }
    }
}

#[test]
fn messages_up_to_16_mib_come_back_and_one_byte_more_is_1009() {
    let gateway = Gateway::start(&format!("{OPEN}{ECHO}"));
    let mut client = client(gateway.listeners[0], "/echo").expect("an upgrade");
    for bytes in [0, 1, 125, 126, 65_535, 65_536, 1 << 20, MESSAGE_BYTES_MAX] {
        let text = Message::text("x".repeat(bytes));
        let binary = Message::binary(vec![0xff; bytes]);
        for message in [text, binary] {
            // All of it is written before anything is read.
            client.send(message.clone()).expect("taken");
            assert!(client.read().expect("an echo") == message, "{bytes} bytes");
        }
    }
    // The gateway says so as soon as it has the frame's header, and the rest may not be taken.
    match client.send(Message::binary(vec![0; MESSAGE_BYTES_MAX + 1])) {
        Ok(()) | Err(Error::Io(_)) => {}
        Err(error) => panic!("{error}"),
    }
    gateway.until_counter("/closes/frame-too-big", 1);
    drop(client);
    gateway.until_counter("/connections", 0);
    gateway.until_counter("/pinned_bytes", 0);
    gateway.stop();
}

#[test]
fn a_close_is_answered_and_a_drain_is_told() {
    let gateway = Gateway::start(&format!("{OPEN}{ECHO}"));
    let address = gateway.listeners[0];
    let mut first = client(address, "/echo").expect("an upgrade");
    first.close(Some(CloseFrame { code: CloseCode::Normal, reason: "done".into() })).expect("sent");
    assert_eq!(closed(&mut first).map(|frame| frame.code), Some(CloseCode::Normal));
    let mut second = client(address, "/echo").expect("an upgrade");
    second.send(Message::text("before")).expect("taken");
    assert_eq!(second.read().expect("an echo"), Message::text("before"));
    gateway.terminate();
    assert_eq!(closed(&mut second).map(|frame| frame.code), Some(CloseCode::Restart));
}

#[test]
fn echo_has_its_path_in_developer_mode_and_none_without_being_asked_for() {
    let free = || SocketAddr::from(([127, 0, 0, 1], 0));
    let dev = Gateway::dev([free(), free(), free()]);
    let mut echo = client(dev.ws(), "/echo").expect("an upgrade");
    echo.send(Message::text("hello")).expect("taken");
    assert_eq!(echo.read().expect("an echo"), Message::text("hello"));
    client(dev.ws(), "/sub").expect("goim is there as well");
    let open = Gateway::open();
    assert!(client(open.ws(), "/echo").is_err_and(|error| error.contains("404")));
    let only = Gateway::start(&format!("{OPEN}{ECHO}path = \"/here\"\n"));
    client(only.listeners[0], "/here").expect("an upgrade");
    for path in ["/echo", "/sub"] {
        assert!(client(only.listeners[0], path).is_err_and(|error| error.contains("404")), "{path}");
    }
}
