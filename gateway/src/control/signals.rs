//! Signals, as bytes on a stream that control's runtime reads.

use std::io;
use std::os::unix::net::UnixStream as StdStream;

use monoio::io::AsyncReadRent;
use monoio::net::UnixStream;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// `SIGTERM` or `SIGINT`.
    Stop,
    /// `SIGHUP`.
    Reload,
}

/// The signals of this process, from its making on.
#[derive(Debug)]
pub struct Signals {
    stop: StdStream,
    reload: StdStream,
}

impl Signals {
    /// Takes the signals over from their defaults.
    pub fn register() -> io::Result<Self> {
        let (stop, stop_written) = StdStream::pair()?;
        for signal in [SIGTERM, SIGINT] {
            pipe::register(signal, stop_written.try_clone()?)?;
        }
        let (reload, reload_written) = StdStream::pair()?;
        pipe::register(SIGHUP, reload_written)?;
        Ok(Self { stop, reload })
    }

    /// Calls `each` for every signal, as long as the runtime runs.
    pub fn spawn(self, each: impl Fn(Signal) + Clone + 'static) -> io::Result<()> {
        for (stream, signal) in [(self.stop, Signal::Stop), (self.reload, Signal::Reload)] {
            let (stream, each) = (UnixStream::from_std(stream)?, each.clone());
            monoio::spawn(read(stream, signal, each));
        }
        Ok(())
    }
}

async fn read(mut stream: UnixStream, signal: Signal, each: impl Fn(Signal)) {
    let mut buffer = vec![0u8; 16];
    loop {
        let (read, returned) = stream.read(buffer).await;
        buffer = returned;
        match read {
            Ok(bytes) if bytes > 0 => (0..bytes).for_each(|_| each(signal)),
            _ => return,
        }
    }
}
