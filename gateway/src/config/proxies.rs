//! Where the address of a client comes from, and whose word for it is taken.

use serde::{Deserialize, Serialize};

use crate::networks::Cidr;

/// `client_address` of a listener or of the API.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientAddress {
    /// It is that of the connection.
    #[default]
    Connection,
    /// A proxy says it in a header of the PROXY protocol, before all else.
    ProxyProtocol,
    /// A proxy says it in `X-Forwarded-For`.
    XForwardedFor,
    /// A proxy says it in `Forwarded`.
    Forwarded,
}

/// `trusted_proxies`: those who are believed.
pub type TrustedProxies = Vec<Cidr>;
