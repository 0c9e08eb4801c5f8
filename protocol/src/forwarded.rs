//! What proxies say of their client in a header of HTTP: `X-Forwarded-For`, and `Forwarded` of RFC 7239.
//!
//! ```text
//! X-Forwarded-For: 203.0.113.7, 198.51.100.2        each hop adds who came to it, at the end
//! Forwarded: for=203.0.113.7, for="[2001:db8::1]:4711";proto=https
//! ```
//!
//! Whoever comes first may write anything, so the list is believed from its end, as far as those who wrote it are trusted.

use core::net::{IpAddr, Ipv6Addr, SocketAddr};
use core::str::FromStr;

/// Which header is believed; another one may be the client's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ForwardedBy {
    /// `X-Forwarded-For`.
    XForwardedFor,
    /// `Forwarded`.
    Forwarded,
}

impl ForwardedBy {
    /// The header's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::XForwardedFor => "x-forwarded-for",
            Self::Forwarded => "forwarded",
        }
    }
}

/// The address that the last trusted hop says of who came to it, that of a whole head of HTTP whose connection has the
/// address `peer`, which is trusted. Where a hop says no address, as `unknown` or a made-up name, it is the hop's own.
pub fn client(head: &[u8], by: ForwardedBy, peer: SocketAddr, is_trusted: impl Fn(IpAddr) -> bool) -> SocketAddr {
    client_of(values(head, by.name()), by, peer, is_trusted)
}

/// The same of the header's values, in their order.
pub fn client_of<'a>(
    values: impl Iterator<Item = &'a [u8]>,
    by: ForwardedBy,
    peer: SocketAddr,
    is_trusted: impl Fn(IpAddr) -> bool,
) -> SocketAddr {
    let mut chain = Chain::default();
    for value in values {
        match by {
            ForwardedBy::XForwardedFor => {
                value.split(|byte| *byte == b',').for_each(|hop| chain.add(address(hop.trim_ascii()), &is_trusted));
            }
            ForwardedBy::Forwarded => each_for(value, |hop| chain.add(hop, &is_trusted)),
        }
    }
    chain.client(peer)
}

/// A list of hops, read from its begin.
#[derive(Clone, Copy, Debug, Default)]
struct Chain {
    /// The last hop that is not trusted, if it says an address.
    client: Option<SocketAddr>,
    /// The first hop behind it.
    after: Option<SocketAddr>,
}

impl Chain {
    fn add(&mut self, hop: Option<SocketAddr>, is_trusted: impl Fn(IpAddr) -> bool) {
        match hop {
            Some(address) if is_trusted(address.ip()) => self.after = self.after.or(hop),
            _ => *self = Self { client: hop, after: None },
        }
    }

    fn client(self, peer: SocketAddr) -> SocketAddr {
        self.client.or(self.after).unwrap_or(peer)
    }
}

/// The values of a header in a whole head.
fn values<'a>(head: &'a [u8], name: &'static str) -> impl Iterator<Item = &'a [u8]> {
    head.split(|byte| *byte == b'\n').filter_map(move |line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        line[..colon].eq_ignore_ascii_case(name.as_bytes()).then(|| line[colon + 1..].trim_ascii())
    })
}

/// An address with or without a port, one of IPv6 with or without brackets.
fn address(text: &[u8]) -> Option<SocketAddr> {
    let text = core::str::from_utf8(text).ok()?;
    if let Ok(ip) = IpAddr::from_str(text) {
        return Some(SocketAddr::new(ip, 0));
    }
    if let Some(ip) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return Some(SocketAddr::new(Ipv6Addr::from_str(ip).ok()?.into(), 0));
    }
    SocketAddr::from_str(text).ok()
}

/// Calls `each` for every element of a value of `Forwarded`, with what its `for` says.
fn each_for(value: &[u8], mut each: impl FnMut(Option<SocketAddr>)) {
    for element in split(value, b',') {
        let pairs = split(element, b';').filter_map(|pair| {
            let equals = pair.iter().position(|byte| *byte == b'=')?;
            Some((pair[..equals].trim_ascii(), pair[equals + 1..].trim_ascii()))
        });
        let mut named = pairs.filter(|(name, _)| name.eq_ignore_ascii_case(b"for"));
        let hop = named.next().and_then(|(_, value)| address(unquoted(value)));
        // Who says it twice says nothing.
        each(hop.filter(|_| named.next().is_none()));
    }
}

fn unquoted(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(value)
}

/// Splits at a byte outside of quotes.
fn split(value: &[u8], at: u8) -> impl Iterator<Item = &[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    value.split(move |byte| {
        match *byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            byte => return byte == at && !quoted,
        }
        false
    })
}
