//! What proxies say: the header of the PROXY protocol for any cut the same, and headers of HTTP read to their end.

use std::net::{IpAddr, SocketAddr};

use halley_protocol::forwarded::{ForwardedBy, client};
use halley_protocol::proxy::{HEADER_BYTES_MAX, LINE_BYTES_MAX, ProxyReject, parse};

use crate::{arrivals, cuts};

/// A header, what follows it, and the same bytes as a head of HTTP.
pub fn proxies(data: &[u8]) {
    let (sizes, stream) = cuts(data);
    let whole = parse(stream);
    let first = arrivals(&sizes, stream.len()).map(|end| parse(&stream[..end])).find(|judged| *judged != Ok(None));
    assert_eq!(first.unwrap_or(Ok(None)), whole, "the cut matters");
    match whole {
        Ok(Some(header)) => {
            assert!(header.bytes <= stream.len().min(HEADER_BYTES_MAX));
            assert_eq!(parse(&stream[..header.bytes]), whole, "what follows matters");
            assert_eq!(parse(&stream[..header.bytes - 1]), Ok(None), "it was whole before its end");
            if stream.starts_with(b"PROXY") {
                assert!(header.bytes <= LINE_BYTES_MAX && stream[..header.bytes].ends_with(b"\r\n"));
                line(&stream[..header.bytes], header.source);
            }
        }
        Ok(None) => assert!(stream.len() < HEADER_BYTES_MAX, "a header that never ends"),
        Err(reject) => assert!(ProxyReject::ALL.contains(&reject)),
    }
    for by in [ForwardedBy::XForwardedFor, ForwardedBy::Forwarded] {
        let peer = SocketAddr::from(([10, 0, 0, 1], 1));
        let all = client(stream, by, peer, |_| true);
        assert!(all == peer || stream.contains(&b':'), "an address from nowhere");
        // What a proxy puts behind it is what counts.
        let behind =
            format!("\n{}: {}\n", by.name(), if by == ForwardedBy::Forwarded { "for=192.0.2.1" } else { "192.0.2.1" });
        let head = [stream, behind.as_bytes()].concat();
        let proxy = |address: IpAddr| address.to_string() != "192.0.2.1";
        assert_eq!(client(&head, by, peer, proxy).ip().to_string(), "192.0.2.1");
    }
}

/// A line says what its words say.
fn line(line: &[u8], source: Option<SocketAddr>) {
    let text = std::str::from_utf8(line).expect("a line that is taken is text").trim_end();
    let words: Vec<&str> = text.split(' ').collect();
    match words[..] {
        ["PROXY", "TCP4" | "TCP6", address, _, port, _] => {
            let address: IpAddr = address.parse().expect("an address");
            assert_eq!(source, Some(SocketAddr::new(address, port.parse().expect("a port"))));
        }
        _ => assert!(text.starts_with("PROXY UNKNOWN") && source.is_none(), "{text}"),
    }
}
