//! Control's own state, and the tasks that drive it: reports, commands, the tick of a second.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_channel::{mpsc, oneshot};
use halley_protocol::operation;

use super::app::{Command, Tallies};
use super::bell::{self, Waiter};
use super::decide::{Control, Event, OrderSink as _, OutgoingQueues, Policy, Tokens, TooManyRevocations};
use super::hooks::{Answered, Hooks};
use super::memory::{self, Budget};
use crate::ids::ShardIndex;
use crate::link::{ControlBell, ShardLink};
use crate::order::{DrainPlan, Inspection, Order};
use crate::reason::CloseReason;
use crate::shard::Reloadable;
use crate::source::nodes::NodeCommand;

/// Reports of one shard in a row, so that a busy shard does not hold up the others.
const REPORTS_IN_A_ROW: usize = 64;

/// Reports of a round; then HTTP and timers get their turn.
const ROUND_REPORTS_MAX: usize = 4096;

/// Signatures that are checked in a round; then HTTP and timers get their turn.
const ROUND_SIGNATURES_MAX: u64 = 64;

/// How often orders that found a queue full are tried again.
const RETRY: Duration = Duration::from_millis(1);

/// How long a shard may take to answer an inspection.
const INSPECTION_MAX: Duration = Duration::from_secs(2);

/// Orders waiting for a place beyond which handlers' commands are turned down.
const WAITING_MAX: usize = 4096;

/// Control's state; all of it belongs to the control thread.
pub struct Machine {
    control: Control,
    outgoing: OutgoingQueues,
    links: Arc<[Arc<ShardLink>]>,
    bell: Arc<ControlBell>,
    tallies: Arc<Tallies>,
    hooks: Hooks,
    /// Taken by the task that waits for them.
    answers: Option<mpsc::UnboundedReceiver<Answered>>,
    inspections: HashMap<u64, Inspecting>,
    next_token: u64,
    /// Connections at the last tick, and when freed memory was last given back.
    connections_at_tick: u64,
    connections_at_give_back: u64,
    /// Bytes that the process may have in memory before accepts are held. 0: any.
    memory_bytes_max: u64,
    budget: Budget,
    /// Shards that have not said they are drained.
    serving: usize,
    drained: Option<oneshot::Sender<()>>,
}

/// A handler that waits for its shard's answer, and since when.
type Inspecting = (Instant, oneshot::Sender<Option<Box<Inspection>>>);

/// What a round over the report queues left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Round {
    /// Nothing: sleep until rung.
    Empty,
    /// Orders that found a queue full.
    Blocked,
    /// More reports than one round takes.
    More,
}

impl Machine {
    /// Control over shards that have been started.
    pub fn new(
        control: Control,
        links: Arc<[Arc<ShardLink>]>,
        bell: Arc<ControlBell>,
        tallies: Arc<Tallies>,
        (hooks, answers): (Hooks, mpsc::UnboundedReceiver<Answered>),
    ) -> Self {
        Self {
            outgoing: OutgoingQueues::new(Arc::clone(&links)),
            serving: links.len(),
            control,
            links,
            bell,
            tallies,
            hooks,
            answers: Some(answers),
            inspections: HashMap::new(),
            next_token: 0,
            connections_at_tick: 0,
            connections_at_give_back: 0,
            memory_bytes_max: 0,
            budget: Budget::default(),
            drained: None,
        }
    }

    /// Above so many bytes in memory no more connections are accepted; 0: there is no such budget.
    pub fn set_memory_max(&mut self, bytes: u64) {
        self.memory_bytes_max = bytes;
    }

    /// Lets in who has one of these tokens from now on.
    pub fn set_tokens(&mut self, tokens: Tokens) {
        self.control.set_tokens(tokens);
    }

    /// Goes on by another policy, and gives the shards other settings.
    pub fn reload(&mut self, policy: Policy, settings: &Arc<Reloadable>) {
        self.control.reload(policy, settings, &mut self.outgoing);
        self.wake_if_blocked();
    }

    /// Orders every shard to drain. The answer comes when all have.
    pub fn drain(&mut self, plan: DrainPlan) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        self.control.drain(plan, &mut self.outgoing);
        self.wake_if_blocked();
        self.drained = Some(sender);
        self.tell_if_drained();
        receiver
    }

    fn round(&mut self) -> Round {
        self.control.set_now(unix_s());
        let signatures_max = self.control.verified() + ROUND_SIGNATURES_MAX;
        if self.outgoing.waiting() <= WAITING_MAX && self.control.expire(&mut self.outgoing) {
            return Round::More;
        }
        let mut taken = 0;
        let mut idle = 0;
        for at in (0..self.links.len()).cycle() {
            let reports = self.take_reports(at);
            taken += reports;
            idle = if reports == 0 { idle + 1 } else { 0 };
            if taken >= ROUND_REPORTS_MAX || self.control.verified() >= signatures_max {
                return Round::More;
            }
            if idle == self.links.len() {
                break;
            }
        }
        if self.outgoing.waiting() > 0 { Round::Blocked } else { Round::Empty }
    }

    /// Takes reports of one shard, as long as what they lead to finds places in the shard's queue.
    fn take_reports(&mut self, at: usize) -> usize {
        let shard = ShardIndex(u8::try_from(at).expect("a shard's index is a byte"));
        let mut taken = 0;
        while taken < REPORTS_IN_A_ROW && self.outgoing.ready(shard) {
            let Some(report) = self.links[at].next_report() else { break };
            taken += 1;
            if let Some(event) = self.control.handle(shard, report, &mut self.outgoing) {
                self.tell(event);
            }
        }
        self.links[at].collect_debts();
        taken
    }

    fn tell(&mut self, event: Event) {
        match event {
            Event::Admitted { conn, peer, member, key, replaced } => {
                self.tallies.count_login("admitted");
                tracing::debug!(event = "login", ?conn, %peer, member, key = &*key.to_string(), replaced);
            }
            Event::Asks { token, question } => self.hooks.ask(token, &question),
            Event::Refused { conn, peer, operation, refusal } => {
                if operation == operation::AUTH {
                    self.tallies.count_login(refusal.name());
                }
                tracing::debug!(event = "refused", ?conn, %peer, operation, refusal = refusal.name());
            }
            Event::Gone { conn, peer, reason, stay } => {
                if let Some(stay) = stay {
                    self.hooks.tell_gone(&stay, peer, reason, unix_s());
                }
                tracing::debug!(event = "close", ?conn, %peer, reason = reason.name());
            }
            Event::Inspected { token, found } => {
                if let Some((_, answer)) = self.inspections.remove(&token) {
                    // The handler may have gone with its caller.
                    let _ = answer.send(found);
                }
            }
            Event::Drained { shard } => {
                tracing::debug!(event = "drained", shard = shard.0);
                self.serving -= 1;
                self.tell_if_drained();
            }
        }
    }

    /// What the platform has answered to a question.
    fn hook_answered(&mut self, (token, answer): Answered) {
        self.control.set_now(unix_s());
        if let Some(event) = self.control.hook_answered(token, answer, &mut self.outgoing) {
            self.tell(event);
        }
        self.wake_if_blocked();
    }

    fn tell_if_drained(&mut self) {
        if self.serving == 0
            && let Some(drained) = self.drained.take()
        {
            let _ = drained.send(());
        }
    }

    fn obey(&mut self, command: Command, now: Instant) {
        let full = self.outgoing.waiting() > WAITING_MAX;
        match command {
            Command::Certificates { listener, config } => {
                self.control.replace_certificates(listener, &config, &mut self.outgoing);
            }
            // A dropped sender tells the handler that there is no answer.
            _ if full => return,
            Command::Kick { key, answer } => {
                let _ = answer.send(self.control.kick(&key, CloseReason::Kicked, &mut self.outgoing));
            }
            Command::Revoke { what, until_s, answer } => {
                self.control.set_now(unix_s());
                let _ = answer.send(self.control.revoke(&what, until_s, &mut self.outgoing).ok());
            }
            Command::Inspect { conn, answer } => {
                self.next_token += 1;
                self.inspections.insert(self.next_token, (now, answer));
                self.control.inspect(conn, self.next_token, &mut self.outgoing);
            }
        }
        self.wake_if_blocked();
    }

    /// What another node asks for; false: not now, ask again.
    pub fn obey_node(&mut self, command: &NodeCommand) -> bool {
        if self.outgoing.waiting() > WAITING_MAX {
            return false;
        }
        match command {
            NodeCommand::Kick { key, reason } => {
                let closed = self.control.kick(key, CloseReason::Kicked, &mut self.outgoing);
                if closed > 0 {
                    tracing::info!(event = "kick", key, reason, closed, "another node was called");
                }
            }
            NodeCommand::Revoke { what, until_s } => {
                self.control.set_now(unix_s());
                match self.control.revoke(what, *until_s, &mut self.outgoing) {
                    Ok(closed) => tracing::info!(event = "revoke", ?what, closed, "another node was called"),
                    Err(TooManyRevocations) => {
                        tracing::error!(event = "revoke", ?what, "as many are revoked as can be");
                    }
                }
            }
        }
        self.wake_if_blocked();
        true
    }

    /// Orders that found a queue full are tried again by the task that takes reports, which may sleep.
    fn wake_if_blocked(&self) {
        if self.outgoing.waiting() > 0 {
            let _ = bell::ring(&self.bell);
        }
    }

    fn tick(&mut self, now: Instant) {
        self.control.publish_online(&self.links);
        self.control.set_now(unix_s());
        if self.control.is_due() {
            // Grants end in a round, which bounds how many at a time.
            let _ = bell::ring(&self.bell);
        }
        self.give_back();
        if self.memory_bytes_max > 0 || self.budget.held {
            self.keep_to_budget(memory::resident_bytes().unwrap_or(0));
        }
        self.inspections.retain(|_, (since, answer)| now - *since < INSPECTION_MAX && !answer.is_canceled());
    }

    /// Holds accepts while more is in memory than may be.
    fn keep_to_budget(&mut self, resident_bytes: u64) {
        let Some(hold) = self.budget.judge(resident_bytes, self.memory_bytes_max) else { return };
        let memory_bytes_max = self.memory_bytes_max;
        if hold {
            tracing::warn!(
                event = "accepts-held",
                resident_bytes,
                memory_bytes_max,
                "no more connections are accepted"
            );
        } else {
            tracing::info!(event = "accepts-resumed", resident_bytes, memory_bytes_max);
        }
        for at in 0..self.links.len() {
            let shard = ShardIndex(u8::try_from(at).expect("a shard's index is a byte"));
            self.outgoing.put(shard, Order::HoldAccepts { hold });
        }
        self.wake_if_blocked();
    }

    /// When connections have come or gone and the rush is over: tables have grown, or records are gone.
    fn give_back(&mut self) {
        let connections = self.control.directory().connections();
        if connections == self.connections_at_tick && connections != self.connections_at_give_back {
            self.connections_at_give_back = connections;
            crate::alloc::give_back();
        }
        self.connections_at_tick = connections;
    }

    fn has_reports(&self) -> bool {
        self.links.iter().any(|link| link.has_reports())
    }
}

/// The time that tokens are measured by.
fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Starts the tasks. Must be called within the runtime.
pub fn spawn(machine: &Rc<RefCell<Machine>>, commands: mpsc::UnboundedReceiver<Command>) -> io::Result<()> {
    let bell = Arc::clone(&machine.borrow().bell);
    let waiter = Waiter::new(&bell)?;
    monoio::spawn(pump(Rc::clone(machine), Arc::clone(&bell), waiter));
    monoio::spawn(obey(Rc::clone(machine), commands));
    machine.borrow_mut().hooks.start();
    let answers = machine.borrow_mut().answers.take().expect("spawned once");
    monoio::spawn(hear(Rc::clone(machine), answers));
    monoio::spawn(tick(Rc::clone(machine), bell));
    Ok(())
}

/// Takes reports as they come.
async fn pump(machine: Rc<RefCell<Machine>>, bell: Arc<ControlBell>, waiter: Waiter) {
    loop {
        let round = machine.borrow_mut().round();
        match round {
            // Through the kernel and back: a task that wakes itself would starve all others.
            Round::More => {
                let _ = bell::ring(&bell);
                wait(&waiter, &bell).await;
            }
            Round::Blocked => monoio::time::sleep(RETRY).await,
            Round::Empty => {
                bell.park();
                if machine.borrow().has_reports() {
                    bell.unpark();
                    continue;
                }
                wait(&waiter, &bell).await;
                bell.unpark();
            }
        }
    }
}

async fn wait(waiter: &Waiter, bell: &ControlBell) {
    if let Err(error) = waiter.rung(bell).await {
        tracing::error!(%error, "cannot wait for shards; asking them instead");
        monoio::time::sleep(RETRY).await;
    }
}

async fn obey(machine: Rc<RefCell<Machine>>, mut commands: mpsc::UnboundedReceiver<Command>) {
    while let Ok(command) = commands.recv().await {
        machine.borrow_mut().obey(command, Instant::now());
    }
}

/// Takes the platform's answers as they come.
async fn hear(machine: Rc<RefCell<Machine>>, mut answers: mpsc::UnboundedReceiver<Answered>) {
    while let Ok(answer) = answers.recv().await {
        machine.borrow_mut().hook_answered(answer);
    }
}

/// Once a second what is due then. It also looks for reports, so that a lost bell is a delay and not a hang.
async fn tick(machine: Rc<RefCell<Machine>>, bell: Arc<ControlBell>) {
    let mut interval = monoio::time::interval(Duration::from_secs(1));
    loop {
        interval.tick().await;
        machine.borrow_mut().tick(Instant::now());
        if machine.borrow().has_reports() {
            let _ = bell::ring(&bell);
        }
    }
}
