//! The HTTP server: accepts on control's runtime and serves the router with hyper.

use std::cell::Cell;
use std::io;
use std::net::TcpListener as StdListener;
use std::rc::Rc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::service::TowerToHyperService;
use monoio::net::{TcpListener, TcpStream};
use monoio_compat::StreamWrapper;
use monoio_compat::hyper::{MonoioIo, MonoioTimer};

/// Bytes of a request's head, which is also the size of a connection's read buffer.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// How long accepting pauses after the kernel refused, or at the maximum of connections.
const PAUSE: Duration = Duration::from_millis(20);

/// Maxima of the server.
#[derive(Clone, Copy, Debug)]
pub struct HttpLimits {
    /// Connections at a time.
    pub connections_max: u32,
    /// Time for a request's head to arrive, the wait for it included.
    pub head_max: Duration,
}

/// Accepts for as long as the runtime runs. Must be called within it.
pub fn spawn(listener: StdListener, router: Router, limits: HttpLimits) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    monoio::spawn(accept(listener, router, limits));
    Ok(())
}

async fn accept(listener: TcpListener, router: Router, limits: HttpLimits) {
    let open = Rc::new(Cell::new(0u32));
    loop {
        while open.get() >= limits.connections_max {
            monoio::time::sleep(PAUSE).await;
        }
        match listener.accept().await {
            Ok((stream, _)) => {
                let seat = Seat::take(&open);
                let router = router.clone();
                monoio::spawn(async move {
                    serve(stream, router, limits).await;
                    drop(seat);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the API cannot accept");
                monoio::time::sleep(PAUSE).await;
            }
        }
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

async fn serve(stream: TcpStream, router: Router, limits: HttpLimits) {
    let served = http1::Builder::new()
        .timer(MonoioTimer)
        .header_read_timeout(limits.head_max)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(MonoioIo::new(StreamWrapper::new(stream)), TowerToHyperService::new(router))
        .await;
    if let Err(error) = served
        && !error.is_incomplete_message()
    {
        // A caller's fault, told to it as far as HTTP can. One that just went is none.
        tracing::debug!(%error, "an API connection ended early");
    }
}
