//! The reactor over the kernel's io_uring.
//!
//! Rules it keeps, each with a test on the real kernel in `tests/`: a batch of sends is submitted from
//! an empty completion queue by an enter that runs no completions, and its failures are read before the
//! next batch; what is queued reaches the kernel only in `wait`; a close names every armed poll.

use std::cell::UnsafeCell;
use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use io_uring::types::{DestinationSlot, Fd, Fixed, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};

use crate::bell::{Bell, DOORBELL};
use crate::setup::{self, RingSettings, SetupError};
use crate::{
    ArmedPolls, Completion, Errno, RECV_BATCH_MAX, Received, RecvRequest, Ring, RingCounters, SEND_BATCH_MAX,
    SendFailure, Slot, Wait,
};

/// Operation classes in the top byte of `user_data`. Sends and receives carry their place in the
/// batch below it, everything else slot (24 bits) and generation (32 bits).
mod class {
    pub(super) const ACCEPT: u64 = 1;
    pub(super) const READABLE: u64 = 2;
    pub(super) const WRITABLE: u64 = 3;
    pub(super) const CLOSE: u64 = 4;
    pub(super) const CANCEL: u64 = 5;
    pub(super) const SEND: u64 = 6;
    pub(super) const RECV: u64 = 7;
    pub(super) const LISTENER: u64 = 8;
    pub(super) const EVENT: u64 = 9;
    pub(super) const NOTIFY: u64 = 10;
    pub(super) const DOORBELL: u64 = 15;
}

const _: () = assert!(class::DOORBELL << 56 == DOORBELL);

fn word(class: u64, slot: Slot, generation: u32) -> u64 {
    class << 56 | u64::from(slot.0) << 32 | u64::from(generation)
}

fn numbered(class: u64, number: u64) -> u64 {
    class << 56 | number
}

/// Completions wanted from a wait that must not sleep: so many that the kernel runs what is due instead of
/// its usual 20. What is still due then shows in the queue's flag, and the next wait does not sleep either.
const DRAIN_ALL: usize = 1024;

/// Where the kernel writes the address of an accepted peer.
struct AcceptPlace {
    address: UnsafeCell<libc::sockaddr_storage>,
    bytes: UnsafeCell<libc::socklen_t>,
}

/// The reactor of one shard. Make, use and drop it on one thread.
pub struct KernelRing {
    ring: IoUring,
    /// Entries for the next wait, in order.
    queued: Vec<squeue::Entry>,
    /// Completions read before their turn.
    early: VecDeque<(u64, i32)>,
    places: Box<[AcceptPlace]>,
    listeners: Vec<RawFd>,
    notify: Option<RawFd>,
    event: Arc<OwnedFd>,
    messages: bool,
    counters: RingCounters,
}

impl std::fmt::Debug for KernelRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KernelRing").field("counters", &self.counters).finish_non_exhaustive()
    }
}

impl KernelRing {
    /// Makes a ring and tries on it what the reactor relies on.
    pub fn new(settings: &RingSettings) -> Result<Self, SetupError> {
        let mut ring = setup::build(settings.slots)?;
        let messages = setup::probe(&mut ring)?;
        let places = (0..settings.accepts)
            .map(|_| {
                // SAFETY: an address of all zeros is a valid value of this plain C struct.
                let address = UnsafeCell::new(unsafe { std::mem::zeroed() });
                AcceptPlace { address, bytes: UnsafeCell::new(0) }
            })
            .collect();
        let mut ring = Self {
            ring,
            queued: Vec::with_capacity(4096),
            early: VecDeque::with_capacity(64),
            places,
            listeners: settings.listeners.clone(),
            notify: settings.notify,
            event: Arc::new(setup::event()?),
            messages,
            counters: RingCounters::default(),
        };
        ring.watch_event();
        Ok(ring)
    }

    fn watch_event(&mut self) {
        let poll = opcode::PollAdd::new(Fd(self.event.as_raw_fd()), libc::POLLIN as u32);
        self.queued.push(poll.build().user_data(numbered(class::EVENT, 0)));
    }

    /// Empties the eventfd and polls it again.
    fn answer_event(&mut self) {
        let mut count = 0u64;
        // SAFETY: reads 8 bytes into `count` from a non-blocking descriptor that `self.event` keeps open.
        let _ = unsafe { libc::read(self.event.as_raw_fd(), (&raw mut count).cast(), 8) };
        self.watch_event();
    }

    fn queue_cancel(&mut self, target: u64) {
        let cancel = opcode::AsyncCancel::new(target).build().user_data(numbered(class::CANCEL, 0));
        self.queued.push(cancel.flags(squeue::Flags::SKIP_SUCCESS));
    }

    /// Puts entries into the submission queue; the caller keeps their memory until they are submitted.
    fn fill<'e>(&mut self, entries: impl Iterator<Item = &'e squeue::Entry>) {
        let mut queue = self.ring.submission();
        for entry in entries {
            // SAFETY: entries are made in this file. Sends and receives borrow buffers that outlive the
            // `submit` that follows; accepts write to `places`, which live as long as the ring; the
            // others have no memory of ours.
            let pushed = unsafe { queue.push(entry) };
            assert!(pushed.is_ok(), "a batch is smaller than the submission queue");
        }
    }

    /// Hands `count` entries of the submission queue to the kernel, running no completions.
    fn submit(&mut self, count: usize) {
        let mut left = u32::try_from(count).unwrap_or(u32::MAX);
        while left > 0 {
            self.counters.enters += 1;
            // SAFETY: no argument is passed; the entries' memory is kept by the caller.
            match unsafe { self.ring.submitter().enter::<libc::sigset_t>(left, 0, 0, None) } {
                Ok(taken) => left -= u32::try_from(taken).unwrap_or(left).min(left),
                Err(error) if is_passing(&error) => {}
                Err(error) => panic!("io_uring_enter failed: {error}"),
            }
        }
    }

    /// Moves completions out of the kernel's queue to be handed out later.
    fn stash(&mut self) {
        for entry in self.ring.completion() {
            self.counters.completions += 1;
            self.early.push_back((entry.user_data(), entry.result()));
        }
    }

    fn sleep(&mut self, want: usize, time: Duration) {
        let time = Timespec::from(time);
        self.counters.enters += 1;
        match self.ring.submitter().submit_with_args(want, &SubmitArgs::new().timespec(&time)) {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::ETIME) || is_passing(&error) => {}
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => self.stash(),
            Err(error) => panic!("io_uring_enter failed: {error}"),
        }
    }

    /// Turns a kernel completion into one of ours; `None` for those that concern nobody.
    fn translate(&mut self, data: u64, result: i32) -> Option<Completion> {
        #[allow(clippy::cast_possible_truncation, reason = "the word's parts have these sizes")]
        let (slot, generation) = (Slot((data >> 32) as u32 & 0x00ff_ffff), data as u32);
        let number = usize::try_from(data & 0x00ff_ffff_ffff_ffff).unwrap_or(usize::MAX);
        match data >> 56 {
            class::ACCEPT => {
                let result = if result < 0 { Err(Errno(-result)) } else { Ok(self.peer(number)) };
                Some(Completion::Accepted { place: u16::try_from(number).unwrap_or(u16::MAX), result })
            }
            class::READABLE => Some(Completion::Readable { slot, generation }),
            class::WRITABLE => Some(Completion::Writable { slot, generation }),
            class::CLOSE => Some(Completion::Closed { slot, generation }),
            class::LISTENER => Some(Completion::ListenerReady { listener: number }),
            class::DOORBELL => Some(Completion::Doorbell),
            class::EVENT => {
                self.answer_event();
                Some(Completion::Doorbell)
            }
            // A poll that had fired before its cancellation came, and a wake-up of control that was
            // already due, fail harmlessly.
            class::CANCEL | class::NOTIFY => None,
            other => unreachable!("completion of class {other}"),
        }
    }

    /// The address that the kernel wrote for an accept that has completed.
    fn peer(&self, place: usize) -> SocketAddr {
        // SAFETY: the accept of this place has completed, so the kernel no longer writes here; a new
        // accept is armed only through `&mut self`.
        let storage = unsafe { &*self.places[place].address.get() };
        address(storage)
    }
}

/// Reads the two address families that listeners have; anything else is the unspecified address.
fn address(storage: &libc::sockaddr_storage) -> SocketAddr {
    let pointer: *const libc::sockaddr_storage = storage;
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: a storage of this family begins with a `sockaddr_in`, and is large and aligned enough for it.
            let v4 = unsafe { &*pointer.cast::<libc::sockaddr_in>() };
            (Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr)), u16::from_be(v4.sin_port)).into()
        }
        libc::AF_INET6 => {
            // SAFETY: as above, with `sockaddr_in6`.
            let v6 = unsafe { &*pointer.cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            (ip.to_canonical(), u16::from_be(v6.sin6_port)).into()
        }
        _ => (Ipv4Addr::UNSPECIFIED, 0).into(),
    }
}

impl Ring for KernelRing {
    fn accept(&mut self, listener: usize, place: u16, slot: Slot) {
        let target = &self.places[usize::from(place)];
        let bytes = target.bytes.get();
        let room = libc::socklen_t::try_from(size_of::<libc::sockaddr_storage>()).expect("128 bytes");
        // SAFETY: no accept of this place is in flight (the trait's rule), so nobody else uses the length.
        unsafe { bytes.write(room) };
        let into = DestinationSlot::try_from_slot_target(slot.0).expect("a slot of the table");
        let accept = opcode::Accept::new(Fd(self.listeners[listener]), target.address.get().cast(), bytes)
            .file_index(Some(into))
            .build();
        self.queued.push(accept.user_data(numbered(class::ACCEPT, u64::from(place))));
    }

    fn cancel_accept(&mut self, place: u16) {
        self.queue_cancel(numbered(class::ACCEPT, u64::from(place)));
    }

    fn watch_listener(&mut self, listener: usize) {
        let poll = opcode::PollAdd::new(Fd(self.listeners[listener]), libc::POLLIN as u32).build();
        self.queued.push(poll.user_data(numbered(class::LISTENER, listener as u64)));
    }

    fn unwatch_listener(&mut self, listener: usize) {
        self.queue_cancel(numbered(class::LISTENER, listener as u64));
    }

    fn poll_readable(&mut self, slot: Slot, generation: u32) {
        let events = (libc::POLLIN | libc::POLLRDHUP) as u32;
        let poll = opcode::PollAdd::new(Fixed(slot.0), events).build();
        self.queued.push(poll.user_data(word(class::READABLE, slot, generation)));
    }

    fn poll_writable(&mut self, slot: Slot, generation: u32) {
        let poll = opcode::PollAdd::new(Fixed(slot.0), libc::POLLOUT as u32).build();
        self.queued.push(poll.user_data(word(class::WRITABLE, slot, generation)));
    }

    fn close(&mut self, slot: Slot, generation: u32, armed: ArmedPolls) {
        if armed.readable {
            self.queue_cancel(word(class::READABLE, slot, generation));
        }
        if armed.writable {
            self.queue_cancel(word(class::WRITABLE, slot, generation));
        }
        let close = opcode::Close::new(Fixed(slot.0)).build();
        self.queued.push(close.user_data(word(class::CLOSE, slot, generation)));
    }

    fn notify(&mut self) {
        static ONE: u64 = 1;
        if let Some(file) = self.notify {
            let write = opcode::Write::new(Fd(file), (&raw const ONE).cast(), 8).build();
            let write = write.user_data(numbered(class::NOTIFY, 0)).flags(squeue::Flags::SKIP_SUCCESS);
            self.queued.push(write);
        }
    }

    fn recv(&mut self, buffer: &mut [u8], requests: &[RecvRequest], received: &mut Vec<Received>) {
        assert!(requests.len() <= RECV_BATCH_MAX, "at most {RECV_BATCH_MAX} receives");
        // All are looked at before the first is queued: a panic must not leave pointers behind.
        let fits = |request: &RecvRequest| request.start + request.bytes as usize <= buffer.len();
        assert!(requests.iter().all(fits), "receives lie within the buffer");
        received.clear();
        received.resize(requests.len(), Received::Nothing);
        {
            let mut queue = self.ring.submission();
            for (place, request) in requests.iter().enumerate() {
                let into = &mut buffer[request.start..request.start + request.bytes as usize];
                let recv = opcode::Recv::new(Fixed(request.slot.0), into.as_mut_ptr(), request.bytes)
                    .flags(libc::MSG_DONTWAIT)
                    .build()
                    .user_data(numbered(class::RECV, place as u64));
                // SAFETY: with MSG_DONTWAIT the receive finishes within the `submit` below, and `buffer`
                // stays mutably borrowed until then.
                let pushed = unsafe { queue.push(&recv) };
                assert!(pushed.is_ok(), "a batch is smaller than the submission queue");
            }
        }
        self.submit(requests.len());
        for entry in self.ring.completion() {
            self.counters.completions += 1;
            let (data, result) = (entry.user_data(), entry.result());
            if data >> 56 == class::RECV {
                let place = usize::try_from(data & 0xffff).unwrap_or(usize::MAX);
                received[place] = outcome(result, cqueue::sock_nonempty(entry.flags()));
            } else {
                self.early.push_back((data, result));
            }
        }
    }

    fn send<'a>(&mut self, batch: impl ExactSizeIterator<Item = (Slot, &'a [u8])>, failures: &mut Vec<SendFailure>) {
        failures.clear();
        let count = batch.len();
        assert!(count <= SEND_BATCH_MAX, "at most {SEND_BATCH_MAX} sends");
        {
            let mut queue = self.ring.submission();
            for (place, (slot, bytes)) in batch.enumerate() {
                // What is beyond would be left over, as with any send that is taken in part.
                let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                let send = opcode::Send::new(Fixed(slot.0), bytes.as_ptr(), length)
                    .flags(libc::MSG_DONTWAIT | libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
                    .build()
                    .flags(squeue::Flags::SKIP_SUCCESS)
                    .user_data(numbered(class::SEND, place as u64));
                // SAFETY: with MSG_DONTWAIT the send never waits for the socket, so the kernel is done with
                // the bytes when it has consumed the entry, which the `submit` below waits for; `'a` outlives it.
                let pushed = unsafe { queue.push(&send) };
                assert!(pushed.is_ok(), "a batch is smaller than the submission queue");
            }
        }
        self.submit(count);
        for entry in self.ring.completion() {
            self.counters.completions += 1;
            let (data, result) = (entry.user_data(), entry.result());
            if data >> 56 == class::SEND {
                let place = u16::try_from(data & 0xffff).unwrap_or(u16::MAX);
                let result = match result {
                    taken if taken >= 0 => Ok(taken.unsigned_abs()),
                    error if error == -libc::EAGAIN => Ok(0),
                    error => Err(Errno(-error)),
                };
                failures.push(SendFailure { place, result });
            } else {
                self.early.push_back((data, result));
            }
        }
    }

    fn wait(&mut self, how: Wait) {
        let queued = std::mem::take(&mut self.queued);
        let room = self.ring.params().sq_entries() as usize;
        let mut chunks = queued.chunks(room).peekable();
        while let Some(chunk) = chunks.next() {
            self.fill(chunk.iter());
            if chunks.peek().is_some() {
                self.submit(chunk.len());
            }
        }
        let due = self.ring.submission().taskrun() || !self.early.is_empty();
        match how {
            Wait::Sleep(time) if !due => self.sleep(1, time),
            _ => self.sleep(DRAIN_ALL, Duration::ZERO),
        }
        // An interrupted enter may have left entries behind: they must not mix with a batch.
        let left = self.ring.submission().len();
        self.submit(left);
        self.queued = queued;
        self.queued.clear();
    }

    fn next(&mut self) -> Option<Completion> {
        loop {
            let (data, result) = if let Some(early) = self.early.pop_front() {
                early
            } else {
                let Some(entry) = self.ring.completion().next() else {
                    if !self.ring.submission().cq_overflow() {
                        return None;
                    }
                    // More completed than the queue holds: the rest must come before the next batch.
                    self.sleep(0, Duration::ZERO);
                    continue;
                };
                self.counters.completions += 1;
                (entry.user_data(), entry.result())
            };
            if let Some(completion) = self.translate(data, result) {
                return Some(completion);
            }
        }
    }

    fn bell(&self) -> Bell {
        Bell::Kernel { ring: self.ring.as_raw_fd(), event: Arc::clone(&self.event), messages: self.messages }
    }

    fn counters(&self) -> RingCounters {
        self.counters
    }

    fn now_us(&self) -> u64 {
        crate::now_us()
    }
}

/// Whether a failed enter need only be tried again.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN))
}

/// What a receive's result means.
fn outcome(result: i32, more: bool) -> Received {
    match result {
        0 => Received::End,
        bytes if bytes > 0 => Received::Bytes { bytes: bytes.unsigned_abs(), more },
        error if error == -libc::EAGAIN || error == -libc::EINTR => Received::Nothing,
        error => Received::Broken(Errno(-error)),
    }
}
