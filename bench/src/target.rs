//! Where clients connect to: `tcp://host:port` or `ws://host:port/path`, over TLS `tls://` and `wss://`.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How packets travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// goim packets as they are.
    Tcp,
    /// goim packets in binary WebSocket messages.
    Ws,
}

/// One address that clients connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// How packets travel.
    pub transport: Transport,
    /// Over TLS.
    pub secure: bool,
    /// Host and port as given.
    pub host: String,
    /// The path of a WebSocket request.
    pub path: String,
    /// What the host resolved to, first answer.
    pub address: SocketAddr,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(url: &str) -> Result<Self, String> {
        let (transport, secure, rest) = match url.split_once("://") {
            Some(("tcp", rest)) => (Transport::Tcp, false, rest),
            Some(("tls", rest)) => (Transport::Tcp, true, rest),
            Some(("ws", rest)) => (Transport::Ws, false, rest),
            Some(("wss", rest)) => (Transport::Ws, true, rest),
            _ => return Err("write tcp://HOST:PORT or ws://HOST:PORT/PATH, or tls:// and wss://".to_owned()),
        };
        let (host, path) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, if transport == Transport::Ws { "/sub" } else { "" }),
        };
        if transport == Transport::Tcp && !path.is_empty() {
            return Err("a tcp target has no path".to_owned());
        }
        let address = resolve(host)?;
        Ok(Self { transport, secure, host: host.to_owned(), path: path.to_owned(), address })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match (self.transport, self.secure) {
            (Transport::Tcp, false) => "tcp",
            (Transport::Tcp, true) => "tls",
            (Transport::Ws, false) => "ws",
            (Transport::Ws, true) => "wss",
        };
        write!(out, "{scheme}://{}{}", self.host, self.path)
    }
}

/// The first address of `host:port`.
pub fn resolve(host: &str) -> Result<SocketAddr, String> {
    let mut addresses = host.to_socket_addrs().map_err(|error| format!("{host} is no HOST:PORT: {error}"))?;
    addresses.next().ok_or_else(|| format!("{host} has no address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_and_written_alike() {
        for url in [
            "tcp://127.0.0.1:3101",
            "ws://127.0.0.1:3102/sub",
            "ws://[::1]:80/other?x=1",
            "tls://127.0.0.1:1",
            "wss://127.0.0.1:3/sub",
        ] {
            assert_eq!(url.parse::<Target>().unwrap().to_string(), url);
        }
        let target: Target = "ws://127.0.0.1:3102".parse().unwrap();
        assert_eq!(target.path, "/sub");
    }

    #[test]
    fn what_is_no_target_is_refused_with_what_would_be() {
        for url in ["http://127.0.0.1:1", "127.0.0.1:1", "tcp://127.0.0.1", "tcp://127.0.0.1:1/x"] {
            assert!(url.parse::<Target>().is_err(), "{url}");
        }
    }
}
