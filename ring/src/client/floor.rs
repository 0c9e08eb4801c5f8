//! The physical limit to measure a gateway against: the same bytes to every socket, one send
//! each, on bare rings, and nothing else.
//!
//! Sends name direct descriptors, run inside the call that submits them, and leave no completion
//! unless they fail; a batch is at most [`BATCH`] sends.

use std::io;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use io_uring::squeue::Flags;
use io_uring::{opcode, types};

use super::bare::Bare;

/// Sends submitted by one call.
pub const BATCH: usize = 256;

/// Accepts kept in flight; enough that connecting clients never wait for a turn.
const ACCEPTS: u32 = 64;

/// Sockets on bare rings, each with a class that says which bytes it gets.
pub struct Fan {
    rings: Vec<Ring>,
    files_max: u32,
    /// Sockets whose stream was torn by a short send or has died; they get nothing more.
    dead: u32,
}

struct Ring {
    bare: Bare,
    /// The class of the socket in each slot, none if it is dead.
    classes: Vec<Option<u8>>,
}

/// Connections to accept.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Where they come from.
    pub listener: &'a TcpListener,
    /// Which of the messages they get.
    pub class: u8,
    /// How many.
    pub sockets: u32,
}

/// What became of one message to all sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Sends of which the kernel took every byte.
    pub sent: u64,
    /// Sends refused because the socket's buffer was full.
    pub blocked: u64,
    /// Sockets lost to a short send or an error.
    pub died: u64,
}

impl Fan {
    /// A fan without sockets; a ring takes at most `files_max` of them.
    pub fn new(files_max: u32) -> Self {
        Self { rings: Vec::new(), files_max, dead: 0 }
    }

    /// Accepts all that is wanted, from every listener at once.
    ///
    /// # Errors
    /// If a ring cannot be made, an accept fails, or `deadline` passes first.
    pub fn accept(&mut self, wanted: &[Wanted<'_>], deadline: Instant) -> io::Result<()> {
        let mut wanted = wanted.to_vec();
        loop {
            let left: u32 = wanted.iter().map(|wanted| wanted.sockets).sum();
            let here = left.min(self.files_max);
            if here == 0 {
                return Ok(());
            }
            let bare = Bare::new(here, 1024)?;
            let mut ring = Ring { bare, classes: vec![None; here as usize] };
            let mut shares = Vec::new();
            let mut room = here;
            for wanted in &mut wanted {
                // A proportional share, rounded up, so that the table is filled.
                let share = u64::from(wanted.sockets) * u64::from(here);
                let share = u32::try_from(share.div_ceil(u64::from(left))).unwrap_or(here);
                let sockets = share.min(wanted.sockets).min(room);
                wanted.sockets -= sockets;
                room -= sockets;
                shares.push(Wanted { sockets, ..*wanted });
            }
            ring.accept(&shares, deadline)?;
            self.rings.push(ring);
        }
    }

    /// Sends `messages[class]` to every living socket of that class.
    ///
    /// # Errors
    /// Only if a ring is broken.
    pub fn send_to_all(&mut self, messages: &[&[u8]]) -> io::Result<Outcome> {
        let mut outcome = Outcome::default();
        for ring in &mut self.rings {
            ring.send_to_all(messages, &mut outcome)?;
        }
        self.dead += u32::try_from(outcome.died).unwrap_or(u32::MAX);
        Ok(outcome)
    }

    /// Sockets lost so far.
    pub fn dead(&self) -> u32 {
        self.dead
    }
}

impl Ring {
    fn accept(&mut self, shares: &[Wanted<'_>], deadline: Instant) -> io::Result<()> {
        let mut owners: Vec<usize> = Vec::new(); // of each slot asked for
        let mut asked = vec![0; shares.len()];
        let mut accepted = vec![0; shares.len()];
        let all: u32 = shares.iter().map(|share| share.sockets).sum();
        while accepted.iter().sum::<u32>() < all {
            for (owner, share) in shares.iter().enumerate() {
                while asked[owner] < share.sockets.min(accepted[owner] + ACCEPTS) {
                    let slot = u32::try_from(owners.len()).unwrap_or(u32::MAX);
                    self.ask(share.listener, slot)?;
                    owners.push(owner);
                    asked[owner] += 1;
                }
            }
            if Instant::now() > deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.bare.wait(1024, Duration::ZERO, Duration::from_millis(100))?;
            while let Some(completion) = self.bare.next() {
                if completion.result() < 0 {
                    return Err(io::Error::from_raw_os_error(-completion.result()));
                }
                let slot = usize::try_from(completion.user_data()).unwrap_or(usize::MAX);
                self.classes[slot] = Some(shares[owners[slot]].class);
                accepted[owners[slot]] += 1;
            }
        }
        Ok(())
    }

    fn ask(&mut self, listener: &TcpListener, slot: u32) -> io::Result<()> {
        let place = types::DestinationSlot::try_from_slot_target(slot).map_err(|_| io::ErrorKind::InvalidInput)?;
        let listener = types::Fd(listener.as_raw_fd());
        let entry = opcode::Accept::new(listener, std::ptr::null_mut(), std::ptr::null_mut())
            .file_index(Some(place))
            .build()
            .user_data(u64::from(slot));
        // SAFETY: the peer's address is not asked for, so the entry points to nothing.
        unsafe { self.bare.push(&entry) }
    }

    fn send_to_all(&mut self, messages: &[&[u8]], outcome: &mut Outcome) -> io::Result<()> {
        let mut start = 0;
        while start < self.classes.len() {
            let end = (start + BATCH).min(self.classes.len());
            let mut sends = 0;
            for slot in start..end {
                let Some(class) = self.classes[slot] else {
                    continue;
                };
                self.send(slot, messages[usize::from(class)])?;
                sends += 1;
            }
            self.bare.submit()?;
            outcome.sent += sends - self.failures(outcome);
            start = end;
        }
        Ok(())
    }

    fn send(&mut self, slot: usize, message: &[u8]) -> io::Result<()> {
        let flags = libc::MSG_DONTWAIT | libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
        #[allow(clippy::cast_possible_truncation, reason = "slots and messages are small")]
        let (file, bytes) = (types::Fixed(slot as u32), message.len() as u32);
        let entry = opcode::Send::new(file, message.as_ptr(), bytes)
            .flags(flags)
            .build()
            .flags(Flags::SKIP_SUCCESS)
            .user_data(slot as u64);
        // SAFETY: with MSG_DONTWAIT the kernel reads the message while it consumes the entry,
        // and `send_to_all`, which borrows the message, submits every batch before it returns.
        unsafe { self.bare.push(&entry) }
    }

    /// Reads the completions of a batch: only sends that failed or were short have one.
    fn failures(&mut self, outcome: &mut Outcome) -> u64 {
        let mut failures = 0;
        while let Some(completion) = self.bare.next() {
            failures += 1;
            if completion.result() == -libc::EAGAIN {
                outcome.blocked += 1;
            } else {
                outcome.died += 1;
                let slot = usize::try_from(completion.user_data()).unwrap_or(usize::MAX);
                self.classes[slot] = None;
            }
        }
        failures
    }
}
