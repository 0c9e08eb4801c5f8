//! TLS under HTTP: a stream whose bytes rustls seals and opens.

use std::io::{self, Read as _, Write as _};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};

/// Bytes that are read or handed on at once.
const PIECE_BYTES: usize = 4096;

/// A stream that speaks TLS; the handshake is made by whoever reads first.
pub(crate) struct Secure<T> {
    stream: T,
    tls: Connection,
}

impl<T: Read + Write + Unpin> Secure<T> {
    pub(crate) fn new(stream: T, config: Arc<ServerConfig>) -> io::Result<Self> {
        Ok(Self { stream, tls: ServerConnection::new(config).map_err(io::Error::other)?.into() })
    }

    /// The other end: a client of a server of this name.
    pub(crate) fn to(stream: T, name: ServerName<'static>, config: Arc<ClientConfig>) -> io::Result<Self> {
        Ok(Self { stream, tls: ClientConnection::new(config, name).map_err(io::Error::other)?.into() })
    }

    /// Goes on with the handshake until it is complete.
    pub(crate) fn poll_shake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.tls.is_handshaking() {
            ready!(self.poll_send(cx))?;
            if self.tls.is_handshaking() && !ready!(self.poll_receive(cx))? {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        self.poll_send(cx)
    }

    /// Hands on what TLS wants to send.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.tls.wants_write() {
            let mut into = Outgoing { stream: &mut self.stream, cx };
            match self.tls.write_tls(&mut into) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Gives TLS what the peer has sent; whether there was anything, which at the end of the stream there is not.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut piece = [0; PIECE_BYTES];
        let mut buffer = ReadBuf::new(&mut piece);
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer.unfilled()))?;
        let mut received = buffer.filled();
        let any = !received.is_empty();
        loop {
            let read = self.tls.read_tls(&mut received)?;
            if let Err(error) = self.tls.process_new_packets() {
                // The peer is told, as far as that goes at once.
                let _ = self.poll_send(cx);
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
            }
            // Behind the peer's close nothing is taken.
            if received.is_empty() || read == 0 {
                return Poll::Ready(Ok(any));
            }
        }
    }
}

/// A stream as `write_tls` wants it.
struct Outgoing<'a, 'c, T> {
    stream: &'a mut T,
    cx: &'a mut Context<'c>,
}

impl<T: Write + Unpin> io::Write for Outgoing<'_, '_, T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match Pin::new(&mut *self.stream).poll_write(self.cx, bytes) {
            Poll::Ready(written) => written,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<T: Read + Write + Unpin> Read for Secure<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, mut into: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            let mut piece = [0; PIECE_BYTES];
            let most = into.remaining().min(PIECE_BYTES);
            match this.tls.reader().read(&mut piece[..most]) {
                Ok(bytes) => {
                    into.put_slice(&piece[..bytes]);
                    return Poll::Ready(Ok(()));
                }
                // Requests and answers say how long they are: a stream that ends without a close is one that ends.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Poll::Ready(Ok(())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
            if let Poll::Ready(Err(error)) = this.poll_send(cx) {
                return Poll::Ready(Err(error));
            }
            ready!(this.poll_receive(cx))?;
        }
    }
}

impl<T: Read + Write + Unpin> Write for Secure<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        // What was taken before leaves first, so that no more than one piece of an answer is held here.
        ready!(self.poll_send(cx))?;
        let written = self.tls.writer().write(bytes)?;
        match self.poll_send(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(written)),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_send(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tls.send_close_notify();
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
