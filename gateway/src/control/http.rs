//! The HTTP server: accepts on control's runtime and serves the router with hyper.

use std::cell::Cell;
use std::future::Future as _;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use monoio::net::{TcpListener, TcpStream};
use monoio_compat::StreamWrapper;
use monoio_compat::hyper::{MonoioIo, MonoioTimer};
use rustls::ServerConfig;

use crate::tls::Secure;

/// Bytes of a request's head, which is also the size of a connection's read buffer.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// How long accepting pauses after the kernel refused, or at the maximum of connections.
const PAUSE: Duration = Duration::from_millis(20);

/// Time between two lines of the log that say the same.
const REPEAT: Duration = Duration::from_secs(1);

/// Maxima of the server.
#[derive(Clone, Copy, Debug)]
pub struct HttpLimits {
    /// Connections at a time.
    pub connections_max: u32,
    /// Time for a request's head to arrive, the wait for it included; and for a caller to take what is written to it.
    pub head_max: Duration,
}

/// Accepts for as long as the runtime runs. Must be called within it.
///
/// `tls` is asked at every connection; `None`: it is in the clear.
pub fn spawn(
    listener: StdListener,
    router: Router,
    limits: HttpLimits,
    tls: impl Fn() -> Option<Arc<ServerConfig>> + 'static,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    monoio::spawn(accept(listener, router, limits, tls));
    Ok(())
}

async fn accept(
    listener: TcpListener,
    router: Router,
    limits: HttpLimits,
    tls: impl Fn() -> Option<Arc<ServerConfig>>,
) {
    let open = Rc::new(Cell::new(0u32));
    let mut refusals = Refusals::default();
    loop {
        while open.get() >= limits.connections_max {
            monoio::time::sleep(PAUSE).await;
        }
        match listener.accept().await {
            Ok((stream, peer)) => {
                let seat = Seat::take(&open);
                let router = router.clone();
                let tls = tls();
                monoio::spawn(async move {
                    let known = Routes { router: TowerToHyperService::new(router), peer };
                    serve(stream, known, limits, tls).await;
                    drop(seat);
                });
            }
            Err(error) => {
                if let Some(times) = refusals.count(Instant::now()) {
                    tracing::warn!(%error, times, "the API cannot accept");
                }
                monoio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Refused accepts that the log has not told of.
#[derive(Default)]
struct Refusals {
    untold: u64,
    told: Option<Instant>,
}

impl Refusals {
    /// Counts one; how many to tell of, if it is time to.
    fn count(&mut self, now: Instant) -> Option<u64> {
        self.untold += 1;
        if self.told.is_some_and(|told| now.duration_since(told) < REPEAT) {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.untold))
    }
}

/// The address of the connection that a request came over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) SocketAddr);

/// The router, for the requests of one connection.
struct Routes {
    router: TowerToHyperService<Router>,
    peer: SocketAddr,
}

impl Service<Request<Incoming>> for Routes {
    type Response = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Response;
    type Error = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Error;
    type Future = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Future;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(Peer(self.peer));
        self.router.call(request)
    }
}

/// One of the connections there may be.
struct Seat(Rc<Cell<u32>>);

impl Seat {
    fn take(open: &Rc<Cell<u32>>) -> Self {
        open.set(open.get() + 1);
        Self(Rc::clone(open))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// A stream that breaks when the peer does not take what is written, or it would keep its seat for good.
///
/// The stream below it writes pieces of 8 KiB: the deadline is for each, so a slow reader gets a long answer.
struct Impatient<T> {
    stream: T,
    write_max: Duration,
    /// Armed while a write waits.
    late: Option<Pin<Box<monoio::time::Sleep>>>,
}

impl<T: Unpin> Impatient<T> {
    fn within<R>(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut T>, &mut Context<'_>) -> Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        if let Poll::Ready(done) = write(Pin::new(&mut self.stream), cx) {
            self.late = None;
            return Poll::Ready(done);
        }
        let late = self.late.get_or_insert_with(|| Box::pin(monoio::time::sleep(self.write_max)));
        late.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<T: Read + Unpin> Read for Impatient<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<T: Write + Unpin> Write for Impatient<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.within(cx, |stream, cx| stream.poll_write(cx, bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.within(cx, Write::poll_flush)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.within(cx, Write::poll_shutdown)
    }
}

async fn serve(stream: TcpStream, router: Routes, limits: HttpLimits, tls: Option<Arc<ServerConfig>>) {
    let stream = MonoioIo::new(StreamWrapper::new(stream));
    let stream = Impatient { stream, write_max: limits.head_max, late: None };
    let Some(config) = tls else { return serve_stream(stream, router, limits).await };
    match Secure::new(stream, config) {
        Ok(stream) => serve_stream(stream, router, limits).await,
        Err(error) => tracing::warn!(%error, "the API cannot begin a TLS connection"),
    }
}

async fn serve_stream(stream: impl Read + Write + Unpin + 'static, router: Routes, limits: HttpLimits) {
    let served = http1::Builder::new()
        .timer(MonoioTimer)
        .header_read_timeout(limits.head_max)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(stream, router)
        .await;
    if let Err(error) = served
        && !error.is_incomplete_message()
    {
        // A caller's fault, told to it as far as HTTP can. One that just went is none.
        tracing::debug!(%error, "an API connection ended early");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_accepts_are_told_once_a_second_and_none_goes_uncounted() {
        let (mut refusals, start) = (Refusals::default(), Instant::now());
        let told: Vec<_> = (0..=100).filter_map(|at| refusals.count(start + PAUSE * at)).collect();
        assert_eq!(told, [1, 50, 50]);
    }
}
