//! Sockets that the service manager has opened for us (`sd_listen_fds(3)`): a restart keeps them, and refuses nobody.

use std::net::{SocketAddr, TcpListener};

use listenfd::ListenFd;

/// Passed sockets that no listener has taken yet.
#[derive(Debug, Default)]
pub(super) struct Passed {
    sockets: Vec<(SocketAddr, TcpListener)>,
}

impl Passed {
    /// Takes the sockets over from the environment. What is no listening TCP socket is left out.
    pub(super) fn take() -> Self {
        let mut passed = ListenFd::from_env();
        let sockets = (0..passed.len()).filter_map(|at| {
            let socket = passed.take_tcp_listener(at).ok()??;
            Some((socket.local_addr().ok()?, socket))
        });
        Self { sockets: sockets.collect() }
    }

    /// The socket for an address of the configuration. A port of 0 takes any port of the address.
    pub(super) fn for_address(&mut self, address: SocketAddr) -> Option<TcpListener> {
        let fits =
            |bound: &SocketAddr| bound.ip() == address.ip() && (bound.port() == address.port() || address.port() == 0);
        let at = self.sockets.iter().position(|(bound, _)| fits(bound))?;
        Some(self.sockets.remove(at).1)
    }

    /// The address of a socket that nothing in the configuration names.
    pub(super) fn left(&self) -> Option<SocketAddr> {
        self.sockets.first().map(|(bound, _)| *bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_given_to_the_addresses_they_are_bound_to() {
        let sockets = ["127.0.0.1:0", "127.0.0.2:0"].map(|address| TcpListener::bind(address).expect("a port"));
        let bound = sockets.each_ref().map(|socket| socket.local_addr().expect("an address"));
        let mut passed = Passed { sockets: bound.into_iter().zip(sockets).collect() };
        let of = |socket: Option<TcpListener>| socket.map(|socket| socket.local_addr().expect("an address"));
        assert_eq!(of(passed.for_address("127.0.0.3:0".parse().expect("an address"))), None);
        assert_eq!(of(passed.for_address(bound[1])), Some(bound[1]));
        assert_eq!(of(passed.for_address(bound[1])), None, "it is taken");
        assert_eq!(passed.left(), Some(bound[0]));
        assert_eq!(of(passed.for_address("127.0.0.1:0".parse().expect("an address"))), Some(bound[0]));
        assert_eq!(passed.left(), None);
    }
}
