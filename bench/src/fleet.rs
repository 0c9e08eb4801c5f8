//! All clients of a run: threads, their orders, and the sum of what they saw.

use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::clients::{self, Counts, Gathered, Order, Progress};
use crate::clock;
use crate::enough::ring_failed;
use crate::fault::{Ends, FAULTS_SHOWN_MAX};
use crate::interrupt::Interrupt;
use crate::moves::{Movement, Seen};
use crate::offered::Offered;
use crate::plan::Plan;
use crate::schedule::Schedule;
use crate::series::Latencies;

/// The clients of a run, connected or connecting.
pub struct Fleet {
    threads: Vec<Thread>,
    plan: Arc<Plan>,
    numbers: Range<u32>,
}

struct Thread {
    orders: Sender<Order>,
    progress: Arc<Progress>,
    handle: JoinHandle<()>,
}

/// Sums over all threads at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    /// Clients with an answered login.
    pub ready: u64,
    /// Clients without a connection.
    pub gone: u64,
    /// Deliveries of the pass to clients that are not slow.
    pub delivered: u64,
    /// Deliveries of the pass to slow clients.
    pub slow_delivered: u64,
}

impl Fleet {
    /// Starts connecting the clients with these numbers, from at most `threads` threads.
    pub fn start(plan: &Arc<Plan>, numbers: Range<u32>, threads: u32) -> Self {
        let clients = numbers.end - numbers.start;
        let mut first = numbers.start;
        let mut fleet = Self { threads: Vec::new(), plan: Arc::clone(plan), numbers };
        let threads = threads.min(clients);
        for index in 0..threads {
            let count = clients / threads + u32::from(index < clients % threads);
            fleet.threads.push(Thread::start(plan, index, first, count));
            first += count;
        }
        fleet
    }

    /// Clients there should be.
    pub fn clients(&self) -> u32 {
        self.numbers.end - self.numbers.start
    }

    /// How many of them are slow.
    pub fn slow_clients(&self) -> u32 {
        let slow = self.numbers.clone().filter(|number| self.plan.is_slow(*number));
        u32::try_from(slow.count()).unwrap_or(u32::MAX)
    }

    /// Deliveries that a pass owes to the clients that are not slow.
    pub fn owed(&self, offered: &Offered) -> u64 {
        let owed = |number| offered.owed_in(self.plan.rooms.of_client(number));
        self.numbers.clone().filter(|number| !self.plan.is_slow(*number)).map(owed).sum()
    }

    /// Waits until every client is logged in.
    ///
    /// # Errors
    /// A sentence, if a client fails, `patience` runs out or the user interrupts.
    pub fn wait_ready(
        &self,
        patience: Duration,
        interrupt: &Interrupt,
        mut show: impl FnMut(u64),
    ) -> Result<(), String> {
        let deadline = Instant::now() + patience;
        loop {
            let totals = self.totals();
            show(totals.ready);
            if totals.ready == u64::from(self.clients()) {
                return Ok(());
            }
            if let Some(failure) = self.failure() {
                return Err(failure);
            }
            if interrupt.is_set() {
                return Err("interrupted while connecting".to_owned());
            }
            if Instant::now() > deadline {
                return Err(format!(
                    "only {} of {} clients were logged in after {} s",
                    totals.ready,
                    self.clients(),
                    patience.as_secs()
                ));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sums over all threads now.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for Thread { progress, .. } in &self.threads {
            totals.ready += progress.ready.load(Ordering::Relaxed);
            totals.gone += progress.gone.load(Ordering::Relaxed);
            totals.delivered += progress.delivered.load(Ordering::Relaxed);
            totals.slow_delivered += progress.slow_delivered.load(Ordering::Relaxed);
        }
        totals
    }

    /// Whether no client has a connection, and none will have one again.
    pub fn is_deserted(&self) -> bool {
        self.totals().gone == u64::from(self.clients())
    }

    /// The first thing that went wrong.
    pub fn failure(&self) -> Option<String> {
        let failure_of =
            |thread: &Thread| thread.progress.failure.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.threads.iter().find_map(failure_of)
    }

    /// Slow clients read so many bytes a second, 0: none; or (none) as others do.
    pub fn slow_down(&self, bytes_per_second: Option<u32>) {
        self.tell(|| Order::SlowDown(bytes_per_second));
    }

    /// From now on messages of this pass count; returns when every thread knows.
    pub fn measure(&self, schedule: Schedule) {
        self.tell(|| Order::Measure(schedule));
        self.gather(Offered::default()); // orders are obeyed one after the other
    }

    /// What all clients have received of the pass.
    pub fn gather(&self, offered: Offered) -> Gathered {
        let (answer, answers) = channel();
        let offered = Arc::new(offered);
        self.tell(|| Order::Collect(Arc::clone(&offered), answer.clone()));
        drop(answer);
        let mut sum = Gathered::default();
        let mut answered = 0;
        while let Ok(part) = answers.recv() {
            sum.add(part);
            answered += 1;
        }
        sum.silent_threads = self.threads.len() - answered;
        sum
    }

    /// From now on clients come, leave and come back; returns when every thread knows.
    pub fn set_moving(&self, movement: &Movement) {
        self.tell(|| Order::Move(movement.clone()));
        self.look();
    }

    /// What became of logins since the clients began to move, or since the pass began.
    pub fn look(&self) -> Seen {
        let (answer, answers) = channel();
        self.tell(|| Order::Look(answer.clone()));
        drop(answer);
        let mut sum = Seen::default();
        while let Ok(part) = answers.recv() {
            sum.add(&part);
        }
        sum
    }

    /// Waits until the clients that are not slow have `expected` deliveries, `patience` ends or no
    /// connection is left. Answers when the last of them came, in nanoseconds of [`clock`].
    pub fn drain(&self, expected: u64, patience: Duration) -> u64 {
        let deadline = Instant::now() + patience;
        let mut last = (self.totals().delivered, clock::now_ns());
        loop {
            let delivered = self.totals().delivered;
            if delivered != last.0 {
                last = (delivered, clock::now_ns());
            }
            if delivered >= expected || self.is_deserted() || Instant::now() > deadline {
                return last.1;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until clients that come and go have all they are owed, or `patience` ends.
    pub fn drain_owed(&self, offered: &Offered, patience: Duration) {
        let deadline = Instant::now() + patience;
        while self.gather(offered.clone()).counts.lost > 0 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until no slow client has received anything for half a second, or `patience` ends.
    pub fn drain_slow(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let mut last = (self.totals().slow_delivered, Instant::now());
        while last.1.elapsed() < Duration::from_millis(500) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
            let now = self.totals().slow_delivered;
            if now != last.0 {
                last = (now, Instant::now());
            }
        }
    }

    /// Closes all connections and ends the threads.
    pub fn stop(self) {
        self.tell(|| Order::Stop);
        for thread in self.threads {
            let _ = thread.handle.join(); // a panic has been printed already
        }
    }

    fn tell(&self, mut order: impl FnMut() -> Order) {
        for thread in &self.threads {
            let _ = thread.orders.send(order()); // a thread that failed has said so
        }
    }
}

impl Thread {
    fn start(plan: &Arc<Plan>, index: u32, first: u32, count: u32) -> Self {
        let progress = Arc::new(Progress::default());
        let (orders, received) = channel();
        let (plan, shown) = (Arc::clone(plan), Arc::clone(&progress));
        let work = move || {
            if let Err(error) = clients::run(&plan, first, count, &shown, &received) {
                let mut failure = shown.failure.lock().unwrap_or_else(PoisonError::into_inner);
                *failure = Some(ring_failed(&error));
            }
        };
        #[allow(clippy::expect_used, reason = "without threads there is no run")]
        let handle =
            std::thread::Builder::new().name(format!("clients-{index}")).spawn(work).expect("a thread can be started");
        Self { orders, progress, handle }
    }
}

impl Default for Gathered {
    fn default() -> Self {
        Self {
            silent_threads: 0,
            owed: None,
            counts: Counts::default(),
            latencies: Latencies::new(0),
            means_us: Vec::new(),
            slow: Vec::new(),
            faults: Vec::new(),
            ends: Ends::default(),
        }
    }
}

impl Gathered {
    fn add(&mut self, part: Gathered) {
        let (sum, counts) = (&mut self.counts, part.counts);
        sum.delivered += counts.delivered;
        sum.lost += counts.lost;
        sum.duplicates += counts.duplicates;
        sum.reordered += counts.reordered;
        sum.refused_but_delivered += counts.refused_but_delivered;
        sum.misrouted += counts.misrouted;
        sum.stray += counts.stray;
        sum.unowed += counts.unowed;
        sum.malformed += counts.malformed;
        sum.closed += counts.closed;
        sum.slow_closed += counts.slow_closed;
        self.latencies.add(part.latencies);
        self.means_us.extend(part.means_us);
        self.owed = self.owed.zip(part.owed).map(|(sum, part)| sum + part).or(self.owed).or(part.owed);
        self.slow.extend(part.slow);
        self.faults.extend(part.faults);
        self.faults.truncate(FAULTS_SHOWN_MAX);
        self.ends.join(part.ends);
    }
}
