//! The other end of a gateway: a reactor that holds many outgoing connections on one `io_uring`,
//! for load generators.
//!
//! Sockets are direct descriptors: their number is bounded by `RLIMIT_NOFILE` per reactor, not
//! per process, so a process takes as many reactors as it needs, one per thread. Receives are
//! multishot into a ring of provided buffers, because a generator's clients are busy together:
//! one call into the kernel brings hundreds of messages.
#![allow(unsafe_code, reason = "entries point to memory that the kernel reads and writes")]

mod address;
mod bare;
mod buffers;
pub mod floor;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use io_uring::squeue::Flags;
use io_uring::{cqueue, opcode, squeue, types};

use address::{Address, socket_length};
use bare::Bare;
use buffers::Buffers;

/// Bytes of queued sends between two calls into the kernel; a longer send is refused.
pub const SEND_BYTES_MAX: usize = 64 * 1024;

/// The most bytes that [`Actions::read`] takes at once.
pub const READ_BYTES_MAX: u32 = 2048;

/// Connections of one reactor; the kernel's bound on direct descriptors.
pub const CLIENTS_MAX: u32 = 1 << 20;

/// Completions that one call into the kernel waits for. The kernel may not be interrupted meanwhile: with
/// thousands, another thread of the generator on this CPU would let its message out 20 ms late.
const HARVEST_MAX: u32 = 256;

/// A connection of one reactor: its slot in the table of direct descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client(pub u32);

/// What happened to a connection. After `Closed` and `Failed` its slot is free again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// The connection is established; receiving has begun.
    Connected,
    /// Bytes have arrived, as the kernel cut them.
    Received(&'a [u8]),
    /// The peer has ended the stream.
    Closed,
    /// Connecting, receiving or sending failed with this `errno`. A send that the kernel does
    /// not take at once and whole counts as failed, with `EAGAIN`.
    Failed(i32),
}

/// Sizes of a reactor, fixed when it is made.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Slots for connections; above `RLIMIT_NOFILE` the reactor cannot be made.
    pub clients_max: u32,
    /// Receive buffers, a power of two; all of them are touched in turn.
    pub buffers: u16,
    /// Bytes of each receive buffer.
    pub buffer_bytes: u32,
    /// How long a reactor that has run out of work lets completions gather before it wakes for
    /// them (one that has slept longer wakes for the first); needs Linux 6.12, else it is zero.
    pub gather: Duration,
}

/// Connections, the ring they live on, and the buffers they receive into.
pub struct Reactor {
    actions: Actions,
    buffers: Buffers,
    /// Connections whose receive ended for want of a buffer.
    starved: Vec<u32>,
    harvest: u32,
    gather: Duration,
}

/// What can be done to connections, also while an event is being handled.
pub struct Actions {
    bare: Bare,
    slots: Vec<Slot>,
    /// Bytes of the sends that the kernel has not consumed yet. Never grows: entries point here.
    outgoing: Vec<u8>,
}

/// What the reactor remembers of a connection: 8 bytes.
#[derive(Clone, Copy, Default)]
struct Slot {
    /// Tells completions of an earlier connection in this slot from those of the present one.
    generation: u32,
    state: State,
    paused: bool,
    /// A multishot receive is in flight.
    armed: bool,
}

const _: () = assert!(size_of::<Slot>() == 8, "an idle client must stay cheap");

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Free,
    Connecting,
    Connected,
}

/// What a completion is about, in the top byte of its `user_data`.
#[derive(Clone, Copy)]
enum Kind {
    /// A step before connect: it completes only if it fails.
    Prepare = 1,
    Connect,
    Receive,
    Send,
    /// Cancel and close: nothing is waiting for them.
    Ignore,
}

impl Reactor {
    /// Makes a reactor, to be used by the calling thread only.
    ///
    /// # Errors
    /// What the kernel says: `EMFILE` if `clients_max` is above `RLIMIT_NOFILE`, `ENOMEM` if
    /// `RLIMIT_MEMLOCK` is too low, `EINVAL` on kernels before 6.1, `EPERM` or `ENOSYS` where
    /// `io_uring` is forbidden.
    pub fn new(sizes: Sizes) -> io::Result<Self> {
        if sizes.clients_max > CLIENTS_MAX || !sizes.buffers.is_power_of_two() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let completions = (u32::from(sizes.buffers) * 2).max(4096);
        let bare = Bare::new(sizes.clients_max, completions)?;
        let buffers = Buffers::register(&bare.submitter(), sizes.buffers, sizes.buffer_bytes)?;
        let slots = vec![Slot::default(); sizes.clients_max as usize];
        let outgoing = Vec::with_capacity(SEND_BYTES_MAX);
        Ok(Self {
            actions: Actions { bare, slots, outgoing },
            buffers,
            starved: Vec::new(),
            // One harvest cannot use up the buffers, or receives would end all the time.
            harvest: u32::from(sizes.buffers / 2).clamp(1, HARVEST_MAX),
            gather: sizes.gather,
        })
    }

    /// What can be done to connections between turns.
    pub fn actions(&mut self) -> &mut Actions {
        &mut self.actions
    }

    /// Submits what is queued, sleeps at most `sleep` if nothing has happened, and hands every
    /// event to `handle`. Answers how many completions there were.
    ///
    /// # Errors
    /// Only if the ring itself is broken; what befalls a connection is an event.
    pub fn turn(
        &mut self,
        sleep: Duration,
        mut handle: impl FnMut(&mut Actions, Client, Event<'_>),
    ) -> io::Result<u32> {
        self.actions.bare.wait(self.harvest, self.gather, sleep)?;
        let mut seen = 0;
        while let Some(completion) = self.actions.bare.next() {
            self.complete(&completion, &mut handle)?;
            seen += 1;
        }
        self.buffers.publish();
        for index in std::mem::take(&mut self.starved) {
            self.actions.arm(index)?;
        }
        Ok(seen)
    }

    fn complete(
        &mut self,
        completion: &cqueue::Entry,
        handle: &mut impl FnMut(&mut Actions, Client, Event<'_>),
    ) -> io::Result<()> {
        let (kind, index, generation) = unpack(completion.user_data());
        let result = completion.result();
        let current = self.actions.slots[index as usize].generation == generation;
        let client = Client(index);
        match kind {
            Kind::Ignore => {}
            Kind::Receive => return self.received(completion, client, current, handle),
            _ if !current => {}
            Kind::Connect if result == 0 => {
                self.actions.slots[index as usize].state = State::Connected;
                self.actions.arm(index)?;
                handle(&mut self.actions, client, Event::Connected);
            }
            Kind::Prepare | Kind::Connect => {
                self.actions.close(client)?;
                handle(&mut self.actions, client, Event::Failed(-result));
            }
            Kind::Send => {
                let errno = if result < 0 { -result } else { libc::EAGAIN };
                self.actions.close(client)?;
                handle(&mut self.actions, client, Event::Failed(errno));
            }
        }
        Ok(())
    }

    fn received(
        &mut self,
        completion: &cqueue::Entry,
        client: Client,
        current: bool,
        handle: &mut impl FnMut(&mut Actions, Client, Event<'_>),
    ) -> io::Result<()> {
        let result = completion.result();
        let more = cqueue::more(completion.flags());
        if current && !more {
            self.actions.slots[client.0 as usize].armed = false;
        }
        if let Some(buffer) = cqueue::buffer_select(completion.flags()) {
            if let (true, Ok(filled @ 1..)) = (current, usize::try_from(result)) {
                // SAFETY: this completion has just been read, its buffer is given back below.
                let bytes = unsafe { self.buffers.filled(buffer, filled) };
                handle(&mut self.actions, client, Event::Received(bytes));
            }
            self.buffers.give_back(buffer);
        }
        let slot = self.actions.slots[client.0 as usize];
        // Also after the handler: it may have closed or even reconnected this slot.
        let still = current && slot.generation == unpack(completion.user_data()).2;
        if !still || more {
            return Ok(());
        }
        match -result {
            0 => {
                self.actions.close(client)?;
                handle(&mut self.actions, client, Event::Closed);
            }
            libc::ENOBUFS => self.starved.push(client.0),
            errno if errno < 0 || errno == libc::ECANCELED => self.actions.arm(client.0)?,
            errno => {
                self.actions.close(client)?;
                handle(&mut self.actions, client, Event::Failed(errno));
            }
        }
        Ok(())
    }
}

impl Drop for Reactor {
    fn drop(&mut self) {
        Buffers::unregister(&self.actions.bare.submitter());
    }
}

impl Actions {
    /// Starts a connection in a free slot, from `source` if one is given (its port is ignored).
    ///
    /// # Errors
    /// `EBUSY` if the slot is taken, `EINVAL` if it does not exist; else the ring is broken.
    pub fn connect(&mut self, client: Client, target: SocketAddr, source: Option<SocketAddr>) -> io::Result<()> {
        let slot = self.slots.get_mut(client.0 as usize).ok_or(io::ErrorKind::InvalidInput)?;
        if slot.state != State::Free {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        slot.state = State::Connecting;
        let place = types::DestinationSlot::try_from_slot_target(client.0).map_err(|_| io::ErrorKind::InvalidInput)?;
        let domain = if target.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        let prepare = self.user_data(Kind::Prepare, client.0);
        let step = |entry: squeue::Entry| entry.flags(Flags::IO_LINK | Flags::SKIP_SUCCESS).user_data(prepare);
        let file = types::Fixed(client.0);
        let address = Address::from(target);
        let socket = opcode::Socket::new(domain, libc::SOCK_STREAM, 0).file_index(Some(place));
        let connect = opcode::Connect::new(file, address.pointer(), address.bytes())
            .build()
            .user_data(self.user_data(Kind::Connect, client.0));
        let Some(source) = source else {
            // SAFETY: the address is copied when the entry is consumed, and that is before
            // `address` goes out of scope, in `submit`.
            return unsafe {
                self.bare.push_chain(&[step(socket.build()), connect])?;
                self.bare.submit()
            };
        };
        let source = Address::from(SocketAddr::new(source.ip(), 0));
        let option = opcode::SetSockOpt::new(
            file,
            libc::IPPROTO_IP.cast_unsigned(),
            libc::IP_BIND_ADDRESS_NO_PORT.cast_unsigned(),
            (&raw const ON).cast(),
            socket_length(&ON),
        );
        let bind = opcode::Bind::new(file, source.pointer(), source.bytes());
        // SAFETY: both addresses are copied when their entries are consumed, before they go out
        // of scope, in `submit`; the option's value is read later, and is a static.
        unsafe {
            self.bare.push_chain(&[step(socket.build()), step(option.build()), step(bind.build()), connect])?;
            self.bare.submit()
        }
    }

    /// Sends bytes, which are copied. Meant for the few bytes a client says: what the kernel
    /// does not take at once and whole ends the connection with `Event::Failed`.
    ///
    /// # Errors
    /// `EINVAL` above `SEND_BYTES_MAX`; else the ring is broken.
    pub fn send(&mut self, client: Client, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() > SEND_BYTES_MAX {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if self.outgoing.len() + bytes.len() > SEND_BYTES_MAX {
            self.bare.submit()?;
        }
        if self.bare.unsubmitted() == 0 {
            self.outgoing.clear(); // nothing in the queue points here any more
        }
        let length = u32::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let start = self.outgoing.len();
        self.outgoing.extend_from_slice(bytes);
        let flags = libc::MSG_DONTWAIT | libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
        let entry = opcode::Send::new(types::Fixed(client.0), self.outgoing[start..].as_ptr(), length)
            .flags(flags)
            .build()
            .flags(Flags::SKIP_SUCCESS)
            .user_data(self.user_data(Kind::Send, client.0));
        // SAFETY: the bytes stay in place (the vector never outgrows its capacity) until the
        // queue is seen empty; with MSG_DONTWAIT the kernel reads them while it consumes the entry.
        unsafe { self.bare.push(&entry) }
    }

    /// Stops reading: a slow client. Bytes on their way may still arrive.
    ///
    /// # Errors
    /// Only if the ring is broken.
    pub fn pause(&mut self, client: Client) -> io::Result<()> {
        let slot = &mut self.slots[client.0 as usize];
        slot.paused = true;
        if slot.armed { self.cancel(Kind::Receive, client.0) } else { Ok(()) }
    }

    /// Reads at most so many bytes once, of a connection that is paused; nothing if such a read is
    /// still waiting for bytes. Never more than a buffer, nor than `READ_BYTES_MAX`.
    ///
    /// # Errors
    /// Only if the ring is broken.
    pub fn read(&mut self, client: Client, bytes: u32) -> io::Result<()> {
        let slot = &mut self.slots[client.0 as usize];
        if slot.state != State::Connected || !slot.paused || slot.armed {
            return Ok(());
        }
        slot.armed = true;
        let bytes = bytes.clamp(1, READ_BYTES_MAX); // 0 would be a whole buffer
        let entry = opcode::Recv::new(types::Fixed(client.0), std::ptr::null_mut(), bytes)
            .buf_group(buffers::GROUP)
            .build()
            .flags(Flags::BUFFER_SELECT)
            .user_data(self.user_data(Kind::Receive, client.0));
        // SAFETY: the entry points to nothing; its buffer comes from the registered group.
        unsafe { self.bare.push(&entry) }
    }

    /// Reads again after `pause`.
    ///
    /// # Errors
    /// Only if the ring is broken.
    pub fn resume(&mut self, client: Client) -> io::Result<()> {
        self.slots[client.0 as usize].paused = false;
        self.arm(client.0)
    }

    /// Closes a connection, whatever its state; no event follows, the slot is free at once.
    ///
    /// # Errors
    /// Only if the ring is broken.
    pub fn close(&mut self, client: Client) -> io::Result<()> {
        let slot = self.slots[client.0 as usize];
        match slot.state {
            State::Free => return Ok(()),
            State::Connecting => self.cancel(Kind::Connect, client.0)?,
            State::Connected if slot.armed => self.cancel(Kind::Receive, client.0)?,
            State::Connected => {}
        }
        let entry = opcode::Close::new(types::Fixed(client.0))
            .build()
            .flags(Flags::SKIP_SUCCESS)
            .user_data(self.user_data(Kind::Ignore, client.0));
        self.slots[client.0 as usize] = Slot { generation: slot.generation.wrapping_add(1), ..Slot::default() };
        // SAFETY: the entry points to nothing.
        unsafe { self.bare.push(&entry) }
    }

    /// Starts the multishot receive if the connection should read and does not.
    fn arm(&mut self, index: u32) -> io::Result<()> {
        let slot = &mut self.slots[index as usize];
        if slot.state != State::Connected || slot.paused || slot.armed {
            return Ok(());
        }
        slot.armed = true;
        let entry = opcode::RecvMulti::new(types::Fixed(index), buffers::GROUP)
            .build()
            .user_data(self.user_data(Kind::Receive, index));
        // SAFETY: the entry points to nothing; buffers come from the registered group.
        unsafe { self.bare.push(&entry) }
    }

    fn cancel(&mut self, kind: Kind, index: u32) -> io::Result<()> {
        let entry = opcode::AsyncCancel::new(self.user_data(kind, index))
            .build()
            .flags(Flags::SKIP_SUCCESS)
            .user_data(self.user_data(Kind::Ignore, index));
        // SAFETY: the entry points to nothing.
        unsafe { self.bare.push(&entry) }
    }

    /// kind 8 bits, slot 24, generation 32.
    fn user_data(&self, kind: Kind, index: u32) -> u64 {
        let generation = self.slots[index as usize].generation;
        (kind as u64) << 56 | u64::from(index) << 32 | u64::from(generation)
    }
}

#[allow(clippy::cast_possible_truncation, reason = "takes the word apart into its fields")]
fn unpack(user_data: u64) -> (Kind, u32, u32) {
    let kind = match user_data >> 56 {
        1 => Kind::Prepare,
        2 => Kind::Connect,
        3 => Kind::Receive,
        4 => Kind::Send,
        _ => Kind::Ignore,
    };
    (kind, (user_data >> 32) as u32 & 0x00ff_ffff, user_data as u32)
}

/// Value of the socket option that leaves the choice of a port to connect.
static ON: libc::c_int = 1;

#[cfg(test)]
mod tests;
