//! Opening handshakes: for any cut the same, and answered as tungstenite does where both take them.

use std::io;

use halley_protocol::websocket::handshake::{HEAD_BYTES_MAX, RESPONSE_BYTES, Rules, parse, response};

use crate::stream::Memory;
use crate::{arrivals, cuts};

/// The head of a request.
pub fn handshake(data: &[u8]) {
    let (sizes, request) = cuts(data);
    let origins = ["https://example.org".to_owned()];
    let rules = |path, origins, deflate| Rules { path, origins, deflate };
    for rules in [rules("/sub", &[], false), rules("/", &origins[..], false), rules("/sub", &[], true)] {
        let whole = parse(request, &rules);
        let judged = arrivals(&sizes, request.len()).map(|end| parse(&request[..end], &rules));
        let first = judged.into_iter().find(|judged| *judged != Ok(None)).unwrap_or(Ok(None));
        assert_eq!(first, whole, "the cut matters");
        let Ok(Some(upgrade)) = whole else { continue };
        assert!(upgrade.head_bytes <= request.len().min(HEAD_BYTES_MAX));
        assert!(request[..upgrade.head_bytes].ends_with(b"\n"), "a head ends with an empty line");
        let mut out = [0; RESPONSE_BYTES];
        response(&upgrade.accept, &mut out);
        let memory = Memory(io::Cursor::new(request[..upgrade.head_bytes].to_vec()), Vec::new());
        if let Ok(socket) = tungstenite::accept(memory) {
            let line = b"Sec-WebSocket-Accept: ";
            let value = |text: &[u8]| {
                let at = text.windows(line.len()).position(|here| here.eq_ignore_ascii_case(line))? + line.len();
                text.get(at..at + upgrade.accept.len()).map(<[u8]>::to_vec)
            };
            assert_eq!(value(&socket.get_ref().1), value(&out), "the accept value");
        }
    }
}
