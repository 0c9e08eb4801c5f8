//! Connections to an endpoint: its addresses, TCP, TLS, and HTTP over them.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_channel::oneshot;
use http_body_util::Full;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::rt::{Read, Write};
use monoio::net::TcpStream;
use monoio_compat::StreamWrapper;
use monoio_compat::hyper::MonoioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

use super::Url;
use crate::tls::Secure;

/// A connection that was not used for so long is not used again: the endpoint, or what is in between, is about to end it.
const IDLE: Duration = Duration::from_secs(20);

/// How long the addresses of a name are good.
const RESOLVED: Duration = Duration::from_secs(30);

/// Bytes of an answer's head, which is also the size of a connection's read buffer.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Where systems keep the certificates of those who sign servers.
const BUNDLES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// A connection on which a request may be sent. Dropping it ends it.
pub(super) struct Kept {
    pub(super) sender: SendRequest<Full<Bytes>>,
    pub(super) used: Instant,
    /// What moves its bytes goes on until this is dropped.
    _alive: oneshot::Sender<Infallible>,
}

impl Kept {
    pub(super) fn is_good(&self) -> bool {
        !self.sender.is_closed() && self.used.elapsed() < IDLE
    }
}

/// The addresses that the name of an endpoint stands for.
#[derive(Default)]
pub(super) struct Addresses(RefCell<Option<(Instant, Arc<[SocketAddr]>)>>);

impl Addresses {
    /// A new connection, to the first address that takes one.
    pub(super) async fn connect(&self, url: &Url, tls: Option<&Arc<ClientConfig>>) -> io::Result<Kept> {
        let addresses = self.of(url).await?;
        let mut failure = io::Error::new(io::ErrorKind::NotFound, "its name has no address");
        for address in addresses.iter() {
            match TcpStream::connect_addr(*address).await {
                Ok(stream) => return speak(stream, url, tls).await,
                Err(error) => failure = io::Error::new(error.kind(), format!("{address}: {error}")),
            }
        }
        // The name may stand for other addresses by now.
        self.0.take();
        Err(failure)
    }

    async fn of(&self, url: &Url) -> io::Result<Arc<[SocketAddr]>> {
        if let Ok(ip) = url.host().parse::<IpAddr>() {
            return Ok([SocketAddr::new(ip, url.port())].into());
        }
        if let Some((since, addresses)) = &*self.0.borrow()
            && since.elapsed() < RESOLVED
        {
            return Ok(Arc::clone(addresses));
        }
        let name = (url.host().to_owned(), url.port());
        let (answer, answered) = oneshot::channel();
        // The resolver blocks: on a thread beside the runtime's.
        drop(monoio::spawn_blocking(move || {
            let _ = answer.send(name.to_socket_addrs().map(Iterator::collect)); // the call may have ended
        }));
        let addresses: Arc<[SocketAddr]> =
            answered.await.map_err(|oneshot::Canceled| io::Error::from(io::ErrorKind::Interrupted))??;
        *self.0.borrow_mut() = Some((Instant::now(), Arc::clone(&addresses)));
        Ok(addresses)
    }
}

async fn speak(stream: TcpStream, url: &Url, tls: Option<&Arc<ClientConfig>>) -> io::Result<Kept> {
    stream.set_nodelay(true)?;
    let stream = MonoioIo::new(StreamWrapper::new(stream));
    if !url.is_secure() {
        return keep(stream).await;
    }
    let config = tls.ok_or_else(|| io::Error::other("no certificates to trust"))?;
    let name = ServerName::try_from(url.host().to_owned()).map_err(io::Error::other)?;
    let mut secure = Secure::to(stream, name, Arc::clone(config))?;
    poll_fn(|cx| secure.poll_shake(cx)).await?;
    keep(secure).await
}

async fn keep(stream: impl Read + Write + Unpin + 'static) -> io::Result<Kept> {
    let made = http1::Builder::new().max_buf_size(HEAD_BYTES_MAX).handshake(stream).await;
    let (sender, connection) = made.map_err(io::Error::other)?;
    let (alive, ended) = oneshot::channel::<Infallible>();
    monoio::spawn(async move {
        monoio::select! {
            // Whoever sends over it is told of an error too.
            _ = connection => {}
            _ = ended => {}
        }
    });
    Ok(Kept { sender, used: Instant::now(), _alive: alive })
}

/// How calls over TLS begin: with the certificates of this file, or of the system if its name is empty. The error is a
/// sentence without its subject.
pub fn tls(file: &str) -> Result<Arc<ClientConfig>, String> {
    let file = match file {
        "" => BUNDLES.into_iter().find(|path| Path::new(path).exists()).ok_or_else(|| {
            format!("is empty, and this system has none of {}: name a file in PEM", BUNDLES.join(", "))
        })?,
        named => named,
    };
    let text = std::fs::read(file).map_err(|cause| format!("cannot read {file}: {cause}"))?;
    let mut roots = RootCertStore::empty();
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&text).flatten().collect();
    // Bundles of systems hold one or the other that no strict reader takes.
    let (good, _) = roots.add_parsable_certificates(certificates);
    if good == 0 {
        return Err(format!("{file} holds no certificate in PEM"));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}
