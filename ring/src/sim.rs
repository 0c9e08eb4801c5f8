//! A simulated ring and network, in memory, seeded and deterministic.
// long: the ring and the network it simulates read each other's state; apart they would be two files of getters
//!
//! It keeps the kernel's split: receives and sends complete in their call, closes, polls, accepts and
//! doorbells only in `wait`, of which a sleep brings no more than the kernel runs at once. A close over unread input
//! is a reset that destroys what the client has not read. A hostile [`Weather`] cuts sends short, refuses them,
//! breaks connections, and delays and reorders completions; the same seed gives the same run. Nothing is allocated
//! once queues have grown, so that a test can count the allocations of a shard.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::bell::Bell;
use crate::{
    ArmedPolls, Completion, Errno, RECV_BATCH_MAX, Received, RecvRequest, Ring, RingCounters, SEND_BATCH_MAX,
    SendFailure, Slot, Wait,
};

/// How unkind the simulated kernel is: chances in 256 for each event.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// A send takes only a part.
    pub short_send: u8,
    /// A send takes nothing.
    pub blocked_send: u8,
    /// A receive gets only a part.
    pub short_recv: u8,
    /// A completion waits for a later `wait`, behind others.
    pub late: u8,
    /// An accept fails.
    pub failed_accept: u8,
    /// A poll fails when it is armed, which is told like readiness.
    pub failed_poll: u8,
    /// A send or receive finds the connection broken.
    pub broken: u8,
}

/// Why an accept fails: no file for the process or for the system, no memory, a client that was gone at once, a firewall.
const ACCEPT_ERRORS: [i32; 7] =
    [libc::ENFILE, libc::EMFILE, libc::ENOBUFS, libc::ENOMEM, libc::ECONNABORTED, libc::EPERM, libc::EPROTO];

/// Why a send or receive fails for good.
const BREAKS: [i32; 6] =
    [libc::ECONNRESET, libc::EPIPE, libc::ETIMEDOUT, libc::EHOSTUNREACH, libc::ENOBUFS, libc::ENOMEM];

/// A client of the simulated network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(pub usize);

/// Where the server's end of a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Server {
    Waiting,
    Accepted { ring: usize, slot: Slot },
    Closed,
}

#[derive(Debug)]
struct Endpoint {
    server: Server,
    to_server: VecDeque<u8>,
    to_client: VecDeque<u8>,
    /// Bytes `to_client` holds at most: the kernel's send buffer and the peer's window.
    window: usize,
    client_closed: bool,
    /// Broken by the client or on the way.
    reset: bool,
    /// Broken by the server: it closed over unread input.
    refused: bool,
}

/// The network that rings and clients share.
#[derive(Debug)]
pub struct Net {
    listeners: Vec<VecDeque<ClientId>>,
    /// Armed accepts (ring, place) of each listener: who came first is served first, as exclusive waiters are.
    waiters: Vec<VecDeque<(usize, u16)>>,
    endpoints: Vec<Endpoint>,
    rings: usize,
    random: Random,
    weather: Weather,
}

/// A handle to the network; clones share it.
#[derive(Clone, Debug)]
pub struct SimNet(Rc<RefCell<Net>>);

/// Bytes in flight to a client that does not read, unless changed.
const WINDOW: usize = 16384;

/// Completions that one sleep runs (Linux 6.13, `io_uring/io_uring.c`); the others wait for the next.
const SLEEP_COMPLETIONS_MAX: usize = 20;

impl SimNet {
    /// A network with so many listeners.
    pub fn new(listeners: usize, seed: u64, weather: Weather) -> Self {
        Self(Rc::new(RefCell::new(Net {
            listeners: vec![VecDeque::new(); listeners],
            waiters: vec![VecDeque::new(); listeners],
            endpoints: Vec::new(),
            rings: 0,
            random: Random(seed),
            weather,
        })))
    }

    /// A ring on this network.
    pub fn ring(&self, slots: u32, accepts: u16) -> SimRing {
        let mut net = self.0.borrow_mut();
        net.rings += 1;
        SimRing {
            net: self.clone(),
            index: net.rings - 1,
            slots: (0..slots).map(|_| Place::default()).collect(),
            accepts: vec![None; usize::from(accepts)],
            watched: vec![false; net.listeners.len()],
            queued: Vec::new(),
            due: VecDeque::new(),
            ready: VecDeque::new(),
            rung: Arc::new(AtomicBool::new(false)),
            notified: Rc::new(RefCell::new(0)),
            batch: 0,
            on_sleep: None,
            counters: RingCounters::default(),
            now_us: 0,
        }
    }

    /// Changes how unkind the network is from now on.
    pub fn set_weather(&self, weather: Weather) {
        self.0.borrow_mut().weather = weather;
    }

    /// Begins a new sequence of accidents: what happens from here on does not depend on how many there were before.
    pub fn reseed(&self, seed: u64) {
        self.0.borrow_mut().random = Random(seed);
    }

    /// Connects a client; it waits in the listener's queue until a ring accepts it.
    pub fn connect(&self, listener: usize) -> ClientId {
        let mut net = self.0.borrow_mut();
        let id = ClientId(net.endpoints.len());
        net.endpoints.push(Endpoint {
            server: Server::Waiting,
            to_server: VecDeque::new(),
            to_client: VecDeque::new(),
            window: WINDOW,
            client_closed: false,
            reset: false,
            refused: false,
        });
        net.listeners[listener].push_back(id);
        id
    }

    /// Sends bytes to the server.
    pub fn send(&self, client: ClientId, bytes: &[u8]) {
        self.0.borrow_mut().endpoints[client.0].to_server.extend(bytes);
    }

    /// Reads at most `max` of what has arrived.
    pub fn recv(&self, client: ClientId, max: usize) -> Vec<u8> {
        let mut net = self.0.borrow_mut();
        let arrived = &mut net.endpoints[client.0].to_client;
        let bytes = arrived.len().min(max);
        arrived.drain(..bytes).collect()
    }

    /// Sets how many unread bytes the client's side takes.
    pub fn set_window(&self, client: ClientId, bytes: usize) {
        self.0.borrow_mut().endpoints[client.0].window = bytes;
    }

    /// The client ends its sending side.
    pub fn close(&self, client: ClientId) {
        self.0.borrow_mut().endpoints[client.0].client_closed = true;
    }

    /// The client breaks the connection.
    pub fn reset(&self, client: ClientId) {
        self.0.borrow_mut().endpoints[client.0].reset = true;
    }

    /// Whether the server has closed its side. Unread bytes are still to be had.
    pub fn server_closed(&self, client: ClientId) -> bool {
        self.0.borrow().endpoints[client.0].server == Server::Closed
    }

    /// Whether the server closed over unread input: what the client had not read is gone.
    pub fn server_reset(&self, client: ClientId) -> bool {
        self.0.borrow().endpoints[client.0].refused
    }

    /// Bytes that the client can read.
    pub fn arrived(&self, client: ClientId) -> usize {
        self.0.borrow().endpoints[client.0].to_client.len()
    }

    /// Clients that no ring has accepted yet.
    pub fn waiting(&self, listener: usize) -> usize {
        self.0.borrow().listeners[listener].len()
    }

    /// The address that the server sees.
    pub fn address(&self, client: ClientId) -> SocketAddr {
        peer(client)
    }

    fn fails_a_poll(&self) -> bool {
        let net = &mut *self.0.borrow_mut();
        net.random.chance(net.weather.failed_poll)
    }

    /// Which ring accepted the client.
    pub fn accepted_by(&self, client: ClientId) -> Option<usize> {
        match self.0.borrow().endpoints[client.0].server {
            Server::Accepted { ring, .. } => Some(ring),
            _ => None,
        }
    }
}

/// `SplitMix64`: enough to choose the weather.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn chance(&mut self, in_256: u8) -> bool {
        in_256 > 0 && self.next() % 256 < u64::from(in_256)
    }

    fn error(&mut self, of: &[i32]) -> Errno {
        let at = self.part(of.len());
        Errno(of[at])
    }

    /// A part of `whole`, less than all of it.
    fn part(&mut self, whole: usize) -> usize {
        usize::try_from(self.next()).unwrap_or(usize::MAX) % whole.max(1)
    }
}

/// One place of the simulated table.
#[derive(Debug, Default)]
struct Place {
    endpoint: Option<ClientId>,
    /// Generation of the armed poll for reading.
    readable: Option<u32>,
    /// Generation of the armed poll for writing.
    writable: Option<u32>,
    /// The last batch that held a send to it.
    batch: u64,
    /// Completions of its connection that the shard has not taken yet.
    untaken: u8,
    /// Closed while a poll that nobody cancelled was armed: the socket lives on, as in the kernel.
    leaked: bool,
}

#[derive(Clone, Copy, Debug)]
enum Queued {
    Accept { listener: usize, place: u16, slot: Slot },
    CancelAccept(u16),
    Watch(usize),
    Unwatch(usize),
    Readable(Slot, u32),
    Writable(Slot, u32),
    Close(Slot, u32, ArmedPolls),
}

/// A simulated reactor.
pub struct SimRing {
    net: SimNet,
    index: usize,
    slots: Vec<Place>,
    accepts: Vec<Option<(usize, Slot)>>,
    watched: Vec<bool>,
    queued: Vec<Queued>,
    /// Completions that the kernel holds back.
    due: VecDeque<Completion>,
    ready: VecDeque<Completion>,
    rung: Arc<AtomicBool>,
    notified: Rc<RefCell<u64>>,
    batch: u64,
    on_sleep: Option<Box<dyn FnMut()>>,
    counters: RingCounters,
    now_us: u64,
}

impl SimRing {
    /// What time it is from now on.
    pub fn set_now_us(&mut self, now_us: u64) {
        self.now_us = now_us;
    }

    /// Calls `act` each time the ring falls asleep: what other threads do meanwhile.
    pub fn on_sleep(&mut self, act: impl FnMut() + 'static) {
        self.on_sleep = Some(Box::new(act));
    }

    /// How often control was notified; shared with the ring.
    pub fn notified(&self) -> Rc<RefCell<u64>> {
        Rc::clone(&self.notified)
    }

    /// Hands what is queued to the kernel, as a ring does that falls asleep; `wait` is the end of the sleep.
    pub fn fall_asleep(&mut self) {
        self.submit_queued();
    }

    /// Whether something has completed, or somebody rang, that ends a sleep.
    pub fn is_woken(&mut self) -> bool {
        self.progress();
        self.rung.load(Ordering::SeqCst) || !self.due.is_empty() || !self.ready.is_empty()
    }

    /// Sockets that stay open because a poll was left armed over their close.
    pub fn leaked(&self) -> usize {
        self.slots.iter().filter(|place| place.leaked).count()
    }

    fn submit_queued(&mut self) {
        let mut queued = std::mem::take(&mut self.queued);
        queued.drain(..).for_each(|operation| self.start(operation));
        self.queued = queued;
    }

    fn start(&mut self, operation: Queued) {
        match operation {
            Queued::Accept { listener, place, slot } => {
                let into = &self.slots[slot.at()];
                assert!(into.endpoint.is_none(), "an accept into a used slot replaces it");
                assert!(into.readable.is_none() && into.writable.is_none(), "a poll of the connection before is armed");
                assert_eq!(into.untaken, 0, "the connection before is not over until all its completions are taken");
                let before = self.accepts[usize::from(place)].replace((listener, slot));
                assert!(before.is_none(), "one accept per place");
                // As in the kernel, a client that waits already is taken at once, whoever else waits for one.
                let net = Rc::clone(&self.net.0);
                let net = &mut *net.borrow_mut();
                if net.listeners[listener].is_empty() {
                    net.waiters[listener].push_back((self.index, place));
                } else {
                    self.take_client(net, place);
                }
            }
            Queued::CancelAccept(place) => {
                if let Some((listener, _)) = self.accepts[usize::from(place)].take() {
                    self.net.0.borrow_mut().waiters[listener].retain(|waiter| *waiter != (self.index, place));
                    self.due.push_back(Completion::Accepted { place, result: Err(Errno::CANCELED) });
                }
            }
            Queued::Watch(listener) => self.watched[listener] = true,
            Queued::Unwatch(listener) => {
                if std::mem::take(&mut self.watched[listener]) {
                    self.due.push_back(Completion::ListenerReady { listener });
                }
            }
            Queued::Readable(slot, generation) => {
                assert!(self.slots[slot.at()].endpoint.is_some(), "a poll of an open slot");
                let place = &mut self.slots[slot.at()];
                let before = place.readable.replace(generation);
                assert!(before.is_none(), "one poll for reading per slot");
                if self.net.fails_a_poll() {
                    place.readable = None;
                    place.untaken += 1;
                    self.due.push_back(Completion::Readable { slot, generation });
                }
            }
            Queued::Writable(slot, generation) => {
                assert!(self.slots[slot.at()].endpoint.is_some(), "a poll of an open slot");
                let place = &mut self.slots[slot.at()];
                let before = place.writable.replace(generation);
                assert!(before.is_none(), "one poll for writing per slot");
                if self.net.fails_a_poll() {
                    place.writable = None;
                    place.untaken += 1;
                    self.due.push_back(Completion::Writable { slot, generation });
                }
            }
            Queued::Close(slot, generation, armed) => self.close_now(slot, generation, armed),
        }
    }

    fn close_now(&mut self, slot: Slot, generation: u32, armed: ArmedPolls) {
        let place = &mut self.slots[slot.at()];
        let client = place.endpoint.take().expect("a close of an open slot");
        if armed.readable
            && let Some(generation) = place.readable.take()
        {
            place.untaken += 1;
            self.due.push_back(Completion::Readable { slot, generation });
        }
        if armed.writable
            && let Some(generation) = place.writable.take()
        {
            place.untaken += 1;
            self.due.push_back(Completion::Writable { slot, generation });
        }
        if place.readable.is_some() || place.writable.is_some() {
            place.leaked = true;
        } else {
            let end = &mut self.net.0.borrow_mut().endpoints[client.0];
            end.server = Server::Closed;
            if !end.to_server.is_empty() {
                end.refused = true;
                end.to_client.clear();
            }
        }
        place.untaken += 1;
        self.due.push_back(Completion::Closed { slot, generation });
    }

    /// Completes an armed accept with the client that waits longest.
    fn take_client(&mut self, net: &mut Net, place: u16) {
        let (listener, slot) = self.accepts[usize::from(place)].take().expect("an armed accept");
        if net.random.chance(net.weather.failed_accept) {
            let error = net.random.error(&ACCEPT_ERRORS);
            self.due.push_back(Completion::Accepted { place, result: Err(error) });
            return;
        }
        let client = net.listeners[listener].pop_front().expect("a client that waits");
        net.endpoints[client.0].server = Server::Accepted { ring: self.index, slot };
        self.slots[slot.at()].endpoint = Some(client);
        self.due.push_back(Completion::Accepted { place, result: Ok(peer(client)) });
    }

    /// Completes what the network allows.
    fn progress(&mut self) {
        let net = Rc::clone(&self.net.0);
        let net = &mut *net.borrow_mut();
        for place in 0..self.accepts.len() {
            let Some((listener, _)) = self.accepts[place] else { continue };
            let place = u16::try_from(place).expect("few accepts");
            let ahead = net.waiters[listener].iter().position(|waiter| *waiter == (self.index, place));
            if let Some(ahead) = ahead.filter(|ahead| *ahead < net.listeners[listener].len()) {
                net.waiters[listener].remove(ahead);
                self.take_client(net, place);
            }
        }
        for (listener, watched) in self.watched.iter_mut().enumerate() {
            if *watched && !net.listeners[listener].is_empty() {
                *watched = false;
                self.due.push_back(Completion::ListenerReady { listener });
            }
        }
        for (at, place) in self.slots.iter_mut().enumerate() {
            let Some(client) = place.endpoint else { continue };
            let end = &net.endpoints[client.0];
            let slot = Slot(u32::try_from(at).expect("slots are u32"));
            let readable = !end.to_server.is_empty() || end.client_closed || end.reset;
            if readable && let Some(generation) = place.readable.take() {
                place.untaken += 1;
                self.due.push_back(Completion::Readable { slot, generation });
            }
            let writable = end.to_client.len() < end.window || end.reset;
            if writable && let Some(generation) = place.writable.take() {
                place.untaken += 1;
                self.due.push_back(Completion::Writable { slot, generation });
            }
        }
    }

    /// Lets due completions through, in the order and number that the weather allows.
    fn release(&mut self, most: usize) {
        let mut net = self.net.0.borrow_mut();
        for _ in 0..self.due.len().min(most) {
            let Some(completion) = self.due.pop_front() else { break };
            let late = net.weather.late;
            if net.random.chance(late) {
                self.due.push_back(completion);
            } else {
                self.ready.push_back(completion);
            }
        }
    }
}

/// The address of a simulated client: its own, of either family.
fn peer(client: ClientId) -> SocketAddr {
    let number = u32::try_from(client.0).unwrap_or(u32::MAX);
    let [_, b, c, d] = number.to_be_bytes();
    if number % 4 == 3 {
        ([0xfd00, 0, 0, 0, 0, 0, u16::from(b), u16::from_be_bytes([c, d])], 40000).into()
    } else {
        ([10, b, c, d], 40000).into()
    }
}

impl Ring for SimRing {
    fn accept(&mut self, listener: usize, place: u16, slot: Slot) {
        self.queued.push(Queued::Accept { listener, place, slot });
    }

    fn cancel_accept(&mut self, place: u16) {
        self.queued.push(Queued::CancelAccept(place));
    }

    fn watch_listener(&mut self, listener: usize) {
        self.queued.push(Queued::Watch(listener));
    }

    fn unwatch_listener(&mut self, listener: usize) {
        self.queued.push(Queued::Unwatch(listener));
    }

    fn poll_readable(&mut self, slot: Slot, generation: u32) {
        self.queued.push(Queued::Readable(slot, generation));
    }

    fn poll_writable(&mut self, slot: Slot, generation: u32) {
        self.queued.push(Queued::Writable(slot, generation));
    }

    fn close(&mut self, slot: Slot, generation: u32, armed: ArmedPolls) {
        self.queued.push(Queued::Close(slot, generation, armed));
    }

    fn notify(&mut self) {
        *self.notified.borrow_mut() += 1;
    }

    fn recv(&mut self, buffer: &mut [u8], requests: &[RecvRequest], received: &mut Vec<Received>) {
        received.clear();
        self.counters.enters += 1;
        let mut net = self.net.0.borrow_mut();
        let net = &mut *net;
        assert!(requests.len() <= RECV_BATCH_MAX, "a batch of receives");
        for request in requests {
            let client = self.slots[request.slot.at()].endpoint.expect("a receive on an open slot");
            let into = &mut buffer[request.start..request.start + request.bytes as usize];
            let end = &mut net.endpoints[client.0];
            end.reset |= net.random.chance(net.weather.broken);
            let mut bytes = into.len().min(end.to_server.len());
            if bytes > 1 && net.random.chance(net.weather.short_recv) {
                bytes = 1 + net.random.part(bytes);
            }
            for (target, byte) in into.iter_mut().zip(end.to_server.drain(..bytes)) {
                *target = byte;
            }
            received.push(match bytes {
                _ if end.reset => Received::Broken(net.random.error(&BREAKS)),
                0 if end.client_closed => Received::End,
                0 => Received::Nothing,
                _ => Received::Bytes {
                    bytes: u32::try_from(bytes).expect("requests are u32"),
                    more: !end.to_server.is_empty() || end.client_closed,
                },
            });
        }
        self.counters.completions += requests.len() as u64;
    }

    fn send<'a>(&mut self, batch: impl ExactSizeIterator<Item = (Slot, &'a [u8])>, failures: &mut Vec<SendFailure>) {
        failures.clear();
        self.counters.enters += 1;
        let mut net = self.net.0.borrow_mut();
        let net = &mut *net;
        self.batch += 1;
        for (place, (slot, bytes)) in batch.enumerate() {
            let before = std::mem::replace(&mut self.slots[slot.at()].batch, self.batch);
            assert_ne!(before, self.batch, "two sends to one connection in a batch");
            assert!(place < SEND_BATCH_MAX && !bytes.is_empty(), "a batch of sends, each of something");
            let place = u16::try_from(place).expect("a batch is small");
            let client = self.slots[slot.at()].endpoint.expect("a send on an open slot");
            let end = &mut net.endpoints[client.0];
            end.reset |= net.random.chance(net.weather.broken);
            if end.reset {
                failures.push(SendFailure { place, result: Err(net.random.error(&BREAKS)) });
                continue;
            }
            let mut taken = bytes.len().min(end.window.saturating_sub(end.to_client.len()));
            if net.random.chance(net.weather.blocked_send) {
                taken = 0;
            } else if net.random.chance(net.weather.short_send) {
                taken = net.random.part(taken + 1);
            }
            end.to_client.extend(&bytes[..taken]);
            if taken < bytes.len() {
                self.counters.completions += 1;
                failures.push(SendFailure { place, result: Ok(u32::try_from(taken).expect("a run is small")) });
            }
        }
    }

    fn wait(&mut self, how: Wait) {
        self.counters.enters += 1;
        self.submit_queued();
        if how != Wait::Poll
            && let Some(act) = &mut self.on_sleep
        {
            act();
        }
        self.progress();
        if self.rung.swap(false, Ordering::SeqCst) {
            self.due.push_back(Completion::Doorbell);
        }
        self.release(if how == Wait::Poll { usize::MAX } else { SLEEP_COMPLETIONS_MAX });
    }

    fn next(&mut self) -> Option<Completion> {
        let completion = self.ready.pop_front()?;
        self.counters.completions += 1;
        if let Completion::Readable { slot, .. } | Completion::Writable { slot, .. } | Completion::Closed { slot, .. } =
            completion
        {
            self.slots[slot.at()].untaken -= 1;
        }
        Some(completion)
    }

    fn bell(&self) -> Bell {
        Bell::Flag(Arc::clone(&self.rung))
    }

    fn counters(&self) -> RingCounters {
        self.counters
    }

    fn now_us(&self) -> u64 {
        self.now_us
    }
}
