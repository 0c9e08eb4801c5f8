//! Addresses to listen on.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};

use serde::{Deserialize, Serialize};

/// An address to listen on, as written and as resolved: `IP:port`, `host:port`, or `:port` for all addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Bind {
    text: String,
    /// The address; `None` where the key was left out.
    pub address: Option<SocketAddr>,
}

impl Bind {
    /// A port on the IPv4 loopback address.
    pub fn loopback(port: u16) -> Self {
        SocketAddr::from(([127, 0, 0, 1], port)).into()
    }

    /// Of a key that was left out.
    pub(super) fn missing() -> Self {
        Self { text: String::new(), address: None }
    }
}

impl From<SocketAddr> for Bind {
    fn from(address: SocketAddr) -> Self {
        Self { text: address.to_string(), address: Some(address) }
    }
}

impl From<Bind> for String {
    fn from(bind: Bind) -> Self {
        bind.text
    }
}

impl TryFrom<String> for Bind {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let full = if text.starts_with(':') { format!("[::]{text}") } else { text.clone() };
        let address = full.to_socket_addrs().ok().and_then(|mut addresses| addresses.next()).ok_or_else(|| {
            format!(
                "\"{text}\" is no address to listen on: write \"IP:port\", such as \"0.0.0.0:3101\" or \"[::]:3101\""
            )
        })?;
        Ok(Self { text, address: Some(address) })
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
