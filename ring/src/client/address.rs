//! Socket addresses in the kernel's form.

use std::net::SocketAddr;
use std::ptr;

/// A socket address as the kernel wants it.
pub(super) enum Address {
    V4(libc::sockaddr_in),
    V6(libc::sockaddr_in6),
}

impl Address {
    pub(super) fn pointer(&self) -> *const libc::sockaddr {
        match self {
            Self::V4(address) => ptr::from_ref(address).cast(),
            Self::V6(address) => ptr::from_ref(address).cast(),
        }
    }

    pub(super) fn bytes(&self) -> libc::socklen_t {
        match self {
            Self::V4(address) => socket_length(address),
            Self::V6(address) => socket_length(address),
        }
    }
}

#[allow(clippy::cast_possible_truncation, reason = "addresses and options are a few bytes")]
pub(super) fn socket_length<T>(value: &T) -> libc::socklen_t {
    size_of_val(value) as libc::socklen_t
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        match address {
            SocketAddr::V4(address) => Self::V4(libc::sockaddr_in {
                sin_family: family(libc::AF_INET),
                sin_port: address.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.ip().octets()) },
                sin_zero: [0; 8],
            }),
            SocketAddr::V6(address) => Self::V6(libc::sockaddr_in6 {
                sin6_family: family(libc::AF_INET6),
                sin6_port: address.port().to_be(),
                sin6_flowinfo: address.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: address.ip().octets() },
                sin6_scope_id: address.scope_id(),
            }),
        }
    }
}

#[allow(clippy::cast_possible_truncation, reason = "families are small numbers")]
fn family(number: libc::c_int) -> libc::sa_family_t {
    number.cast_unsigned() as libc::sa_family_t
}
