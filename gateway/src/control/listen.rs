//! The sockets that clients and callers connect to.

use std::io;
use std::net::{Ipv6Addr, Shutdown, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

use super::passed::Passed;
use crate::config::{Bind, Listener, Settings, Transport};

/// How long a port that is taken is tried, and how often.
const PORT_PATIENCE: Duration = Duration::from_secs(1);
const PORT_RETRY: Duration = Duration::from_millis(20);

/// Seconds between two probes of a silent peer, and how many unanswered ones end the connection.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 6;

/// The addresses that were bound, ports filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// In the order of the configuration.
    pub listeners: Vec<(Transport, SocketAddr)>,
    /// The HTTP API.
    pub api: SocketAddr,
    /// goim v1's.
    pub api_v1: Option<SocketAddr>,
}

/// The sockets, listening.
#[derive(Debug)]
pub struct Sockets {
    /// In the order of the configuration, for the shards.
    pub listeners: Vec<TcpListener>,
    /// For control.
    pub api: TcpListener,
    /// For control, if goim v1's calls are served.
    pub api_v1: Option<TcpListener>,
    /// Those that end with this process. What the service manager passed goes on listening for the next one.
    pub own: Own,
}

/// Sockets that this process has made itself, by a second name: the shards' rings have the first.
#[derive(Debug, Default)]
pub struct Own {
    listeners: Vec<TcpListener>,
    apis: Vec<TcpListener>,
}

impl Own {
    /// Clients are refused from here on, those that wait to be accepted too: they find another node, or wait for the
    /// next process, instead of waiting for this one.
    pub fn refuse_clients(&self) {
        self.listeners.iter().for_each(silence);
    }

    /// The same for callers. The kernel takes control's ring down some time after the process has ended; its accept
    /// would hold the port until then, and whoever starts the gateway anew would find it taken.
    pub fn refuse_callers(&self) {
        self.apis.iter().for_each(silence);
    }
}

/// Ends listening, whoever else names the socket.
fn silence(socket: &TcpListener) {
    let _ = socket2::SockRef::from(socket).shutdown(Shutdown::Both); // one that listens no more has nothing to end
}

/// Why a socket does not listen; the text is one sentence for an operator.
#[derive(Debug, thiserror::Error)]
#[error("{key}: cannot listen on {address}: {}", why(.cause, .address))]
pub struct ListenError {
    key: String,
    address: SocketAddr,
    cause: io::Error,
}

fn why(cause: &io::Error, address: &SocketAddr) -> String {
    match cause.kind() {
        io::ErrorKind::AddrInUse => {
            let port = address.port();
            format!("the port is taken: stop what holds it (`ss -ltnp sport = :{port}` shows it) or choose another")
        }
        io::ErrorKind::PermissionDenied => {
            "permission denied: ports below 1024 need CAP_NET_BIND_SERVICE; choose a higher one or grant it".into()
        }
        io::ErrorKind::AddrNotAvailable => {
            "the address does not belong to this machine: use one of its own, or 0.0.0.0 or [::]".into()
        }
        _ => cause.to_string(),
    }
}

impl Sockets {
    /// Binds and listens on everything, or on nothing. Sockets that the service manager passed are used where the
    /// configuration names their addresses.
    pub fn listen(settings: &Settings) -> Result<Self, ListenError> {
        let mut all = settings.listener.iter().map(|listener| listener.bind.address).collect::<Vec<_>>();
        all.push(settings.api.bind.address);
        all.extend(settings.api_v1.as_ref().map(|api_v1| api_v1.bind.address));
        let mut given = passed(&all)?;
        let dual_stack = |address: SocketAddr| {
            // Where the configuration also names the port's IPv4 side, the IPv6 socket leaves it alone.
            !all.iter().flatten().any(|other| other.is_ipv4() && other.port() == address.port() && address.port() != 0)
        };
        let mut listeners = Vec::with_capacity(settings.listener.len());
        let mut own = Own::default();
        for (at, listener) in settings.listener.iter().enumerate() {
            let address = listener.bind.address.expect("checked: every listener has an address");
            let given = given[at].take();
            let is_own = given.is_none();
            let socket = match given {
                Some(socket) => adopt(socket, |socket| set_inherited(socket, listener)),
                None => patiently(|| {
                    let socket = bind_to(address, dual_stack(address))?;
                    set_inherited(&socket, listener)?;
                    listen(socket)
                }),
            };
            let named_twice = |socket: TcpListener| {
                own.listeners.extend(if is_own { Some(socket.try_clone()?) } else { None });
                Ok(socket)
            };
            listeners.push(socket.and_then(named_twice).map_err(|cause| ListenError {
                key: format!("listener[{at}].bind"),
                address,
                cause,
            })?);
        }
        let mut given = given.split_off(listeners.len()).into_iter();
        let mut door = |key: &str, bind: &Bind| {
            let address = bind.address.expect("an API has an address by default");
            let given = given.next().flatten();
            let passed = given.is_some();
            let socket = match given {
                Some(socket) => adopt(socket, |socket| socket.set_tcp_nodelay(true)),
                None => patiently(|| {
                    let socket = bind_to(address, dual_stack(address))?;
                    socket.set_tcp_nodelay(true)?;
                    listen(socket)
                }),
            };
            let named_twice = |socket: TcpListener| {
                own.apis.extend(if passed { None } else { Some(socket.try_clone()?) });
                Ok(socket)
            };
            socket.and_then(named_twice).map_err(|cause| ListenError { key: key.into(), address, cause })
        };
        let api = door("api.bind", &settings.api.bind)?;
        let api_v1 = settings.api_v1.as_ref().map(|api_v1| door("api_v1.bind", &api_v1.bind)).transpose()?;
        Ok(Self { listeners, api, api_v1, own })
    }

    /// The addresses as bound.
    pub fn bound(&self, settings: &Settings) -> io::Result<Bound> {
        let listeners = settings.listener.iter().zip(&self.listeners);
        let listeners = listeners.map(|(listener, socket)| Ok((listener.transport, socket.local_addr()?)));
        let api_v1 = self.api_v1.as_ref().map(TcpListener::local_addr).transpose()?;
        Ok(Bound { listeners: listeners.collect::<io::Result<_>>()?, api: self.api.local_addr()?, api_v1 })
    }
}

/// The socket that the service manager passed for each address, those of the APIs last. One that none of them names is an error:
/// its clients would wait for ever.
fn passed(all: &[Option<SocketAddr>]) -> Result<Vec<Option<TcpListener>>, ListenError> {
    let mut passed = Passed::take();
    let given = all.iter().map(|address| passed.for_address((*address)?)).collect();
    let Some(address) = passed.left() else { return Ok(given) };
    let of_port = |other: &SocketAddr| other.port() == address.port();
    let instead = match all.iter().flatten().find(|other| of_port(other)) {
        Some(other) => format!("the configuration has {other}"),
        None => "no listener has its address".into(),
    };
    let cause = io::Error::other(format!(
        "the service manager passed this socket, but {instead}: make halley.socket and halley.toml say the same"
    ));
    Err(ListenError { key: "listener".into(), address, cause })
}

/// Tries again for a while when the port is taken: the rings of a process that was killed hold its
/// sockets for a moment after it is gone.
fn patiently(open: impl Fn() -> io::Result<TcpListener>) -> io::Result<TcpListener> {
    let deadline = Instant::now() + PORT_PATIENCE;
    loop {
        match open() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                std::thread::sleep(PORT_RETRY);
            }
            result => return result,
        }
    }
}

/// A socket that was passed gets the options that one of our own has, and the longest queue.
fn adopt(socket: TcpListener, set: impl FnOnce(&Socket) -> io::Result<()>) -> io::Result<TcpListener> {
    let socket = Socket::from(socket);
    set(&socket)?;
    listen(socket)
}

fn bind_to(address: SocketAddr, dual_stack: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.cloexec(), Some(Protocol::TCP))?;
    // Connections of an earlier process in TIME_WAIT do not keep the port.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(!(dual_stack && address.ip() == Ipv6Addr::UNSPECIFIED))?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Options that accepted sockets inherit, so that no call per connection is needed.
fn set_inherited(socket: &Socket, listener: &Listener) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_send_buffer_size(listener.send_buffer_bytes as usize)?;
    if listener.tcp_user_timeout_ms > 0 {
        socket.set_tcp_user_timeout(Some(Duration::from_millis(listener.tcp_user_timeout_ms.into())))?;
    }
    if listener.keepalive_ms > 0 {
        // The kernel counts in seconds.
        let idle = Duration::from_millis(listener.keepalive_ms.into()).max(Duration::from_secs(1));
        let keepalive =
            TcpKeepalive::new().with_time(idle).with_interval(KEEPALIVE_INTERVAL).with_retries(KEEPALIVE_RETRIES);
        socket.set_tcp_keepalive(&keepalive)?;
    }
    Ok(())
}

/// Listens with the longest queue that the system allows.
fn listen(socket: Socket) -> io::Result<TcpListener> {
    let somaxconn =
        std::fs::read_to_string("/proc/sys/net/core/somaxconn").ok().and_then(|text| text.trim().parse().ok());
    socket.listen(somaxconn.unwrap_or(4096))?;
    Ok(socket.into())
}
