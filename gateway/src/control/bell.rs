//! Control asleep and awake: an eventfd that shards write, polled by control's runtime.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream as StdStream;

use monoio::net::UnixStream;
use rustix::event::{EventfdFlags, eventfd};

use crate::link::ControlBell;

/// A bell that nobody rings yet.
pub fn new_bell() -> io::Result<ControlBell> {
    Ok(ControlBell::new(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?))
}

/// The side of the bell that control's runtime waits on.
#[derive(Debug)]
pub struct Waiter {
    /// A duplicate of the eventfd. The runtime polls descriptors only in the shape of its own types;
    /// this one is polled and never read as a stream.
    polled: UnixStream,
}

impl Waiter {
    /// Must be called within the runtime.
    pub fn new(bell: &ControlBell) -> io::Result<Self> {
        let duplicate = bell.file().try_clone_to_owned()?;
        Ok(Self { polled: UnixStream::from_std(StdStream::from(duplicate))? })
    }

    /// Waits until somebody has rung since the last call returned.
    pub async fn rung(&self, bell: &ControlBell) -> io::Result<()> {
        self.polled.readable(false).await?;
        let mut count = [0; 8];
        match rustix::io::read(bell.file(), &mut count) {
            Ok(_) | Err(rustix::io::Errno::AGAIN) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}

/// Makes the eventfd readable, as a shard's ring does.
pub fn ring(bell: &ControlBell) -> io::Result<()> {
    match rustix::io::write(bell.file().as_fd(), &1u64.to_ne_bytes()) {
        // A full counter is as good as success: the eventfd is readable.
        Ok(_) | Err(rustix::io::Errno::AGAIN) => Ok(()),
        Err(e) => Err(e.into()),
    }
}
