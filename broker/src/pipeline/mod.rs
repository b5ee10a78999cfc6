//! Between the broker and the graphs: the only place that speaks both messages and items.
//!
//! A graph is one more subscriber. Its messages are run through it by whoever brings them, so that nothing
//! crosses a thread; when somebody is in the graph already, they are left with him. Who is in a graph stays until what he
//! derived is published, so that nobody overtakes him. What waits inside a graph for its time goes on by a timer of its
//! own. A persisted graph takes its messages from the log ([`cursor`]). Remote systems are at the other end of [`bridges`].

pub mod bridges;
pub mod cursor;
mod exit;
pub mod origin;
mod out;
mod parcel;
mod report;
pub mod restore;
mod running;
pub mod samples;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use broker_core::Millis;
use broker_core::message::Message;
use broker_core::reorder::{Late, Order, Reorder};
use metrics::counter;
use parking_lot::{Condvar, Mutex};
use processing::runtime::GraphRuntime;
use tokio::sync::Notify;

use self::bridges::Bridges;
use self::cursor::{Cursor, Record};
pub use self::exit::Exit;
use self::origin::Origins;
use self::out::{Failed, Out};
use self::report::{Metrics, Warnings};
pub use self::running::Entrance;
use self::running::Running;
use self::samples::Samples;
use crate::broker::Broker;
use crate::clock;
use crate::operations::Operations;
use crate::ordered;
use crate::translate::{self, Carry, Letter};
use crate::turn::Turn;

/// Messages that may wait for a graph that is busy; beyond, they are dropped and counted.
const INBOX_MAX: usize = 10_000;
/// Messages that are run through a graph for others at a time: what they give must not wait for long.
const DRAIN_MAX: usize = 256;
/// A graph that was slow comes back to the inline path after so many fast messages in a row.
const FAST_MESSAGES: u32 = 256;
/// One message in so many is timed for the histogram.
const MEASURE_EVERY: u32 = 16;
/// The longest that a timer sleeps: the wall clock may be set while it does.
const SLEEP_MAX: Duration = Duration::from_secs(1);
/// How soon a timer looks again when somebody is in the graph.
const BUSY_WAIT: Duration = Duration::from_millis(1);
/// How soon a timer looks again when time waits for messages in the log, milliseconds.
const BEHIND_WAIT_MS: u64 = 10;
/// How long a crash of an operator is news.
const FAULT_IS_NEWS: Duration = Duration::from_secs(60);
/// How long the metrics wait for somebody who is in the graph.
const SHOW_WAIT: Duration = Duration::from_millis(20);
/// How long what is in front of a graph may take when it is stopped.
const STOP_WAIT: Duration = Duration::from_secs(5);
/// Later than any window closes.
const END_OF_TIME_MS: u64 = 1 << 48;
/// No time at which anything is due.
const NEVER: u64 = u64::MAX;

/// A running DataflowGraph: sources lead through graphs to destinations.
pub struct Dataflow {
    name: Box<str>,
    running: Mutex<Running>,
    /// Number of the turn that is in the graph; 0 for none.
    owner: AtomicU64,
    inbox: Mutex<VecDeque<Arrival>>,
    /// Its place in the log, when its messages are persisted.
    cursor: Option<Arc<Cursor>>,
    /// What leads to and from remote systems.
    pub bridges: Bridges,
    /// Whether items wait inside for their time.
    pub keeps_items: bool,
    /// It is stopped: its timer and its thread end.
    stopped: AtomicBool,
    /// Something was delivered to a remote system: what that was made of may be done.
    delivered: AtomicBool,
    /// Calls took longer than the inline budget: the graph runs on a thread of its own.
    offloaded: AtomicBool,
    /// Wakes that thread.
    work: Condvar,
    /// When something that waits inside is due next, milliseconds since the Unix epoch.
    due_ms: AtomicU64,
    /// Tells the timer that it is due earlier than thought.
    earlier: Notify,
    inline_budget: Duration,
    remark: Box<str>,
    /// What is wrong with it, although it runs.
    warning: Mutex<String>,
    /// The last time an operator crashed, and how.
    fault: Mutex<Option<(Instant, String)>>,
    warnings: Mutex<Warnings>,
    late: Late,
    broker: Weak<Broker>,
    metrics: Metrics,
    operations: Operations,
}

/// A message in front of a graph.
pub struct Arrival {
    /// The source it goes in by.
    pub source: usize,
    /// The message.
    pub message: Arc<Message>,
    /// Where it is in the log.
    pub origins: Origins,
}

/// What comes out of a graph.
pub enum Outcome {
    /// A message to be published, and what is done when that is on disk, if it goes there.
    Message(Arc<Message>, Origins),
    /// What is to be published and written down, all at once.
    Record(Record),
}

/// Takes what comes out of a graph.
pub type Emit<'a> = &'a mut dyn FnMut(Outcome);

/// How somebody came into a graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entered {
    /// He is in it from now on, and must leave it.
    Now,
    /// He was in it already.
    Before,
    /// Somebody else is in it, to whom the message is left.
    Not,
}

/// The subscriptions of one source of a graph, as the router sees them.
pub struct Source {
    /// Its place among the graph's sources.
    place: usize,
    /// The graph, once it runs.
    flow: OnceLock<Arc<Dataflow>>,
    /// The graph's place in the log, when its messages are persisted.
    pub cursor: Option<Arc<Cursor>>,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = self.flow.get().map(|flow| &*flow.name);
        f.debug_tuple("Source").field(&name).field(&self.place).finish()
    }
}

impl Source {
    /// The source in this place among those of a graph.
    pub fn new(place: usize, cursor: Option<Arc<Cursor>>) -> Arc<Self> {
        Arc::new(Self { place, flow: OnceLock::new(), cursor })
    }

    /// The graph runs.
    pub fn attach(&self, flow: &Arc<Dataflow>) {
        let _ = self.flow.set(Arc::clone(flow));
    }

    /// Its place among the graph's sources.
    pub fn place(&self) -> usize {
        self.place
    }

    /// The graph, once it runs.
    pub fn flow(&self) -> Option<&Arc<Dataflow>> {
        self.flow.get()
    }

    /// Whether a message that is brought now is taken.
    pub fn takes(&self) -> bool {
        self.cursor.is_some() || self.flow.get().is_some_and(|flow| !flow.refuses())
    }

    /// No message is to be brought, for there is no room for what it would become.
    pub fn refuses(&self) -> bool {
        self.flow.get().is_some_and(|flow| flow.refuses())
    }
}

/// What a flow is made with.
pub struct Parts<'a> {
    /// Its name.
    pub name: &'a str,
    /// The graph.
    pub graph: GraphRuntime<Carry>,
    /// What comes in, by source.
    pub entrances: Vec<Entrance>,
    /// Where its sinks lead to.
    pub exits: Vec<Exit>,
    /// What comes in is copied now and then.
    pub samples: Option<Samples>,
    /// What leads to and from remote systems.
    pub bridges: Bridges,
    /// What comes in is to come in order.
    pub order: Option<Order>,
    /// Where messages go that cannot be processed.
    pub dead_letter_topic: Option<String>,
    /// The longest that a message may hold up the one who brings it.
    pub inline_budget: Duration,
    /// What there is to say about it while it runs.
    pub remark: String,
    /// Its place in the log, when its messages are persisted.
    pub cursor: Option<Arc<Cursor>>,
}

impl Dataflow {
    /// A flow that is ready to run. When something may wait in it, [`Dataflow::keep_time`] must run beside it.
    pub fn new(parts: Parts<'_>, broker: &Arc<Broker>) -> Arc<Self> {
        let Parts { name, mut graph, entrances, exits, order, dead_letter_topic, .. } = parts;
        let Parts { samples, inline_budget, remark, cursor, bridges, .. } = parts;
        let sorting =
            |order: Order| Reorder::new(order.max_lateness_ms, broker_core::reorder::Limits::default());
        let operations = Operations::new(name, graph.engine());
        let keeps_items = graph.keeps_items();
        let running = Running {
            keeps_items,
            sorting: order.map(|order| entrances.iter().map(|_| sorting(order)).collect()),
            entrances,
            graph,
            exits,
            samples,
            dead_letter_topic,
            fast: 1,
            took: Duration::ZERO,
            measured: 0,
            entered: 0,
            out: Out::default(),
        };
        Arc::new(Self {
            name: name.into(),
            running: Mutex::new(running),
            owner: AtomicU64::new(0),
            inbox: Mutex::default(),
            cursor,
            bridges,
            keeps_items,
            stopped: AtomicBool::new(false),
            delivered: AtomicBool::new(false),
            offloaded: AtomicBool::new(false),
            work: Condvar::new(),
            due_ms: AtomicU64::new(NEVER),
            earlier: Notify::new(),
            inline_budget,
            remark: remark.into(),
            warning: Mutex::default(),
            fault: Mutex::default(),
            warnings: Mutex::default(),
            late: order.map(|order| order.late).unwrap_or_default(),
            broker: Arc::downgrade(broker),
            metrics: Metrics::new(name),
            operations,
        })
    }

    /// Runs a message through the graph and hands what comes out to `emit`; or leaves it with whoever is in the graph. Who
    /// has entered must [`Dataflow::leave`] when what came out is published. `turn` is the number of the caller's turn.
    pub fn push(self: &Arc<Self>, arrival: Arrival, turn: u64, broker: &Broker, emit: Emit<'_>) -> Entered {
        self.count_received(&arrival.message);
        let entered = self.enter(turn);
        if entered != Entered::Not {
            // Those that were left here while somebody else was in the graph go first.
            if self.drain(broker, emit) {
                self.pass(arrival, broker, emit);
                return entered;
            }
        }
        self.enqueue(arrival);
        match entered {
            // He may have left just now.
            Entered::Not => self.take_over(turn, broker, emit),
            entered => entered,
        }
    }

    /// Enters the graph for the messages that were left here, if nobody else is in it.
    pub fn take_over(self: &Arc<Self>, turn: u64, broker: &Broker, emit: Emit<'_>) -> Entered {
        if self.inbox.lock().is_empty() {
            return Entered::Not;
        }
        let entered = self.enter(turn);
        if entered != Entered::Not {
            self.drain(broker, emit);
        }
        entered
    }

    /// Whether he has left; if not, messages had been left here meanwhile, and what some of them gave is to be published, and
    /// written to sockets, first.
    pub fn leave(self: &Arc<Self>, turn: u64, broker: &Broker, emit: Emit<'_>) -> bool {
        if !self.is_offloaded() && !self.inbox.lock().is_empty() {
            self.drain(broker, emit);
            return false;
        }
        self.owner.store(0, Ordering::Release);
        if self.is_offloaded() {
            self.work.notify_one();
            return true;
        }
        // What came before the last line is nobody's.
        if self.take_over(turn, broker, emit) != Entered::Not {
            return false;
        }
        self.feed(broker);
        true
    }

    fn enter(&self, turn: u64) -> Entered {
        if self.is_offloaded() {
            return Entered::Not;
        }
        match self.owner.compare_exchange(0, turn, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => Entered::Now,
            Err(owner) if owner == turn => Entered::Before,
            Err(_) => Entered::Not,
        }
    }

    fn is_offloaded(&self) -> bool {
        self.offloaded.load(Ordering::Acquire)
    }

    /// Has more loaded of what waits in the log only, if there is room for it.
    fn feed(&self, broker: &Broker) {
        if let Some(cursor) = &self.cursor
            && cursor.wants_more()
            && let Some(persistence) = broker.persistence()
        {
            persistence.feed(cursor);
        }
    }

    /// The graph held its caller up for longer than the inline budget: from now on it runs on a thread of its
    /// own, and holds up nobody. Called by who is in the graph.
    fn move_off(self: &Arc<Self>) {
        let flow = Arc::clone(self);
        let thread = std::thread::Builder::new().name(format!("graph {}", self.name));
        self.offloaded.store(true, Ordering::Release);
        match thread.spawn(move || flow.run_apart()) {
            Ok(_) => {
                self.metrics.moves.increment(1);
                tracing::info!(graph = %self.name, "the graph is slow; it goes on in a thread of its own");
            }
            Err(error) => {
                self.offloaded.store(false, Ordering::Release);
                tracing::warn!(graph = %self.name, %error, "the graph is slow, and no thread can be had for it");
            }
        }
    }

    /// The life of that thread: until the graph is fast again, or stopped.
    fn run_apart(self: Arc<Self>) {
        let mut derived = Vec::new();
        loop {
            let arrival = self.wait();
            let Some(broker) = self.broker.upgrade() else { return };
            if arrival.is_none() && self.stopped.load(Ordering::Acquire) {
                return;
            }
            let comes_back = self.run_some(arrival, &broker, &mut |outcome| derived.push(outcome));
            let mut turn = Turn::begin(&broker, clock::monotonic());
            turn.publish_outcomes(derived.drain(..));
            if comes_back {
                self.offloaded.store(false, Ordering::Release);
                tracing::info!(graph = %self.name, "the graph is fast again; it runs in the message path");
                turn.run(&self);
            }
            turn.finish();
            self.feed(&broker);
            if comes_back {
                self.earlier.notify_one();
                return;
            }
        }
    }

    /// A message, and those behind it as long as that is no longer than one may take; without one, time passes. Whether the graph is
    /// fast again: what waits, run through it for others some at a time, holds nobody up for longer than one message may.
    fn run_some(&self, arrival: Option<Arrival>, broker: &Broker, emit: Emit<'_>) -> bool {
        let begun = Instant::now();
        let mut running = self.running.lock();
        match arrival {
            Some(arrival) => self.step(&mut running, arrival, broker, emit),
            None => self.tick(&mut running, broker, emit),
        }
        let mut left = DRAIN_MAX - 1;
        while left > 0 && begun.elapsed() < self.inline_budget {
            let Some(arrival) = self.inbox.lock().pop_front() else { break };
            self.step(&mut running, arrival, broker, emit);
            left -= 1;
        }
        let for_others = u32::try_from(self.backlog().min(DRAIN_MAX)).unwrap_or(u32::MAX);
        running.fast >= FAST_MESSAGES && running.took.saturating_mul(for_others) <= self.inline_budget
    }

    /// The next message; none when something inside is due first. Not before he has left who was in the graph when it moved
    /// here.
    fn wait(&self) -> Option<Arrival> {
        let mut inbox = self.inbox.lock();
        loop {
            let wait = match self.owner.load(Ordering::Acquire) {
                0 => match inbox.pop_front() {
                    Some(arrival) => return Some(arrival),
                    None if self.stopped.load(Ordering::Acquire) => return None,
                    None => self.until_due().unwrap_or(SLEEP_MAX).min(SLEEP_MAX),
                },
                _ => BUSY_WAIT,
            };
            if wait.is_zero() {
                return None;
            }
            self.work.wait_for(&mut inbox, wait);
        }
    }

    /// Leaves a message for whoever is in the graph next. When too many wait, one that is in memory only is dropped and
    /// counted.
    fn enqueue(&self, arrival: Arrival) {
        let mut inbox = self.inbox.lock();
        if inbox.len() >= INBOX_MAX && arrival.origins.is_none() {
            self.metrics.busy.increment(1);
            return;
        }
        inbox.push_back(arrival);
        if self.is_offloaded() {
            self.work.notify_one();
        }
    }

    /// Leaves a message of the log in front of the graph: [`Turn::run`] must follow.
    pub fn leave_message(&self, arrival: Arrival) {
        self.count_received(&arrival.message);
        self.enqueue(arrival);
    }

    /// Leaves the graph to others, whatever waits: for who cannot go on.
    pub fn abandon(&self) {
        self.owner.store(0, Ordering::Release);
    }

    /// How many messages wait in front of the graph.
    pub fn backlog(&self) -> usize {
        self.inbox.lock().len()
    }

    fn count_received(&self, message: &Message) {
        self.metrics.received.count(message.payload().len());
    }

    /// Runs messages through that were left here, some at a time. Whether that were all, and the graph is still here. Called
    /// by who is in it.
    fn drain(self: &Arc<Self>, broker: &Broker, emit: Emit<'_>) -> bool {
        for _ in 0..DRAIN_MAX {
            if self.is_offloaded() {
                return false;
            }
            let Some(arrival) = self.inbox.lock().pop_front() else { return true };
            self.pass(arrival, broker, emit);
        }
        false
    }

    /// One message through the graph, by who is in it; or left for its thread, when it is slow.
    fn pass(self: &Arc<Self>, arrival: Arrival, broker: &Broker, emit: Emit<'_>) {
        let mut running = self.running.lock();
        self.step(&mut running, arrival, broker, emit);
        if running.fast == 0 && !self.is_offloaded() {
            self.move_off();
        }
    }

    /// One message through the graph. The arrival is gone when what came out is looked at: an entry of the log that nothing in
    /// the graph is made of any more is done by that.
    fn step(&self, running: &mut Running, arrival: Arrival, broker: &Broker, emit: Emit<'_>) {
        let wall = clock::wall();
        let begun = Instant::now();
        let Arrival { source, message, origins } = arrival;
        if let Some(samples) = &mut running.samples {
            samples.look(&message, emit);
        }
        let time = self.time(&message, &origins, wall);
        match running.sorting.as_mut().and_then(|sources| sources.get_mut(source)) {
            None => running.enter(source, &message, origins, broker, time),
            Some(sorting) => {
                let stamp = ordered::stamp(&message, time);
                let (size, now) = (message.size(), clock::monotonic());
                if let Err((message, origins)) = sorting.push(stamp, (message, origins), size, now, wall) {
                    running.come_late(source, &message, origins, self.late, broker, time);
                }
                running.release(broker, time);
            }
        }
        self.hand_out(running, broker, wall, emit);
        let took = begun.elapsed() / std::mem::take(&mut running.entered).max(1);
        running.measured = running.measured.wrapping_add(1);
        if running.measured.is_multiple_of(MEASURE_EVERY) {
            self.metrics.latency.record(took.as_secs_f64() * 1000.0);
        }
        running.took = took;
        running.fast = if took > self.inline_budget { 0 } else { running.fast.saturating_add(1) };
    }

    /// The time that it is in the graph when a message enters: for one of the log, when it arrived, so that it does not matter
    /// how long it has waited there.
    fn time(&self, message: &Message, origins: &Origins, wall: Millis) -> Millis {
        let Some(cursor) = &self.cursor else { return wall };
        if !origins.is_logged() {
            return Millis(cursor.time_ms(wall.0, self.backlog()));
        }
        let arrived_ms = cursor::arrived_ms(message).min(wall.0);
        cursor.entered(arrived_ms);
        Millis(arrived_ms)
    }

    /// What waits inside and is due goes on.
    fn tick(&self, running: &mut Running, broker: &Broker, emit: Emit<'_>) {
        self.delivered.store(false, Ordering::Release);
        let (wall, begun) = (clock::wall(), Instant::now());
        let time = self.cursor.as_ref().map_or(wall, |it| Millis(it.time_ms(wall.0, self.backlog())));
        running.release(broker, time);
        running.graph.advance(time.0, &mut running.out);
        self.hand_out(running, broker, wall, emit);
        if begun.elapsed() / std::mem::take(&mut running.entered).max(1) > self.inline_budget {
            running.fast = 0;
        }
    }

    /// The timer of the graph: what is due goes on, unless somebody else is in the graph.
    pub fn pass_time(self: &Arc<Self>, turn: u64, broker: &Broker, emit: Emit<'_>) -> Entered {
        let entered = self.enter(turn);
        if entered != Entered::Not {
            let mut running = self.running.lock();
            self.tick(&mut running, broker, emit);
            if running.fast == 0 && !self.is_offloaded() {
                self.move_off();
            }
        }
        entered
    }

    /// Makes messages of what came out of the graph.
    fn hand_out(&self, running: &mut Running, broker: &Broker, wall: Millis, emit: Emit<'_>) {
        let Running { graph, exits, out, dead_letter_topic, .. } = running;
        // What was derived from entries of the log, which are done by that.
        let mut kept: Vec<(Arc<Message>, Origins)> = Vec::new();
        let mut tell = |message: Message, origins: &Origins| match origins.is_logged() {
            false => emit(Outcome::Message(Arc::new(message), origins.clone())),
            true => kept.push((Arc::new(message), origins.clone())),
        };
        for (sink, item) in out.items.drain(..) {
            let carry = item.carry.clone();
            let Some(exit) = exits.get(sink) else { continue };
            match translate::message(item, exit, broker, wall) {
                Ok(derived) => {
                    let derived = exit.dress(derived);
                    self.metrics.sent.count(derived.payload().len());
                    match &exit.queue {
                        None => tell(derived, &carry.origins),
                        Some(queue) if exit::ship(queue, &derived, &carry.origins) => {}
                        Some(_) => self.metrics.busy.increment(1),
                    }
                }
                Err(refused) => out.failed.push(Failed::of(carry, &refused)),
            }
        }
        for failed in out.failed.drain(..) {
            let digest = graph.digest(&failed.operation);
            if let Some(letter) = self.give_up(&failed, digest, dead_letter_topic.as_deref()) {
                tell(letter, &failed.carry.origins);
            }
        }
        if let Some(record) = self.cursor.as_ref().and_then(|cursor| cursor.record(kept)) {
            emit(Outcome::Record(record));
        }
        let filtered = std::mem::take(&mut out.filtered);
        if filtered > 0 {
            self.metrics.filtered.increment(filtered);
        }
        if running.may_wait() {
            let due_ms = running.due_ms(wall);
            let waits = |cursor: &Arc<Cursor>| cursor.time_ms(wall.0, self.backlog()) < wall.0;
            let earliest_ms =
                if self.cursor.as_ref().is_some_and(waits) { wall.0 + BEHIND_WAIT_MS } else { 0 };
            self.arm(due_ms.map(|due_ms| due_ms.max(earliest_ms)));
        }
    }

    /// A message that cannot be processed is counted and explained, and kept where the graph names a topic for that.
    fn give_up(
        &self,
        failed: &Failed,
        digest: Option<&str>,
        dead_letter_topic: Option<&str>,
    ) -> Option<Message> {
        let Failed { operation, reason, why, carry } = failed;
        if *reason == translate::EXPIRED {
            self.metrics.expired.increment(1);
            return None;
        }
        self.metrics.errors.increment(1);
        counter!("aio_dataflow_errors", "dataflow_id" => self.name.to_string(), "reason" => *reason)
            .increment(1);
        let topic = carry.origin.topic();
        if self.warnings.lock().one_more(&self.name) {
            tracing::warn!(graph = %self.name, %operation, topic, "a message is dropped: {why}");
        }
        if matches!(*reason, "trap" | "deadline" | "memory") {
            *self.fault.lock() = Some((Instant::now(), format!("{operation}: {why}")));
        }
        let letter = Letter { graph: &self.name, operation, reason, why, digest };
        match translate::dead_letter(&carry.origin, dead_letter_topic?, &letter) {
            Ok(message) => {
                self.metrics.dead_letters.increment(1);
                Some(message)
            }
            Err(refused) => {
                tracing::warn!(graph = %self.name, topic, "it cannot be kept either: {refused}");
                None
            }
        }
    }

    /// Sees to it that somebody looks when what waits inside is due.
    fn arm(&self, due_ms: Option<u64>) {
        let due_ms = due_ms.unwrap_or(NEVER);
        let before = self.due_ms.swap(due_ms, Ordering::AcqRel);
        if due_ms < before {
            self.earlier.notify_one();
        }
    }

    /// How long until something inside is due; `None` when nothing waits.
    pub fn until_due(&self) -> Option<Duration> {
        if self.delivered.load(Ordering::Acquire) {
            return Some(Duration::ZERO);
        }
        let due_ms = self.due_ms.load(Ordering::Acquire);
        (due_ms != NEVER).then(|| Duration::from_millis(due_ms.saturating_sub(clock::wall().0)))
    }

    /// Something was delivered to a remote system: what that was made of is to be written off, and there is room for more.
    pub fn hear_of_delivery(&self) {
        if self.cursor.is_some() && !self.delivered.swap(true, Ordering::AcqRel) {
            self.earlier.notify_one();
            if self.is_offloaded() {
                self.work.notify_one();
            }
        }
    }

    /// A remote system has so much waiting for it that no more is to be made.
    pub fn is_full(&self) -> bool {
        self.bridges.is_full()
    }

    /// A message that it would take in memory only is not to be taken: there is no room for what it would become.
    pub fn refuses(&self) -> bool {
        self.cursor.is_none() && self.is_full()
    }

    /// A message of a remote system that is none that a graph can take.
    pub fn refuse(&self, topic: &str, refused: &translate::Refused) {
        self.metrics.errors.increment(1);
        let reason = refused.reason();
        counter!("aio_dataflow_errors", "dataflow_id" => self.name.to_string(), "reason" => reason)
            .increment(1);
        if self.warnings.lock().one_more(&self.name) {
            tracing::warn!(graph = %self.name, topic, "a message is dropped: {refused}");
        }
    }

    /// A message is dropped for want of room.
    pub fn count_busy(&self) {
        self.metrics.busy.increment(1);
    }

    /// Ends its timer and its thread, once what was left in front of it is through, and lets out what waits inside unless that
    /// is in the log and comes again. Who is in it still goes on.
    pub async fn stop(self: &Arc<Self>) {
        let idle = || self.backlog() == 0 && self.owner.load(Ordering::Acquire) == 0;
        let deadline = Instant::now() + STOP_WAIT;
        while !idle() && Instant::now() < deadline {
            tokio::time::sleep(BUSY_WAIT).await;
        }
        self.stopped.store(true, Ordering::Release);
        self.earlier.notify_one();
        self.work.notify_one();
        if self.cursor.is_none()
            && self.keeps_items
            && let Some(broker) = self.broker.upgrade()
        {
            let mut turn = Turn::begin(&broker, clock::monotonic());
            turn.publish_outcomes(self.let_out(&broker));
            turn.finish();
        }
    }

    /// Everything that waits inside, as if its time had come.
    fn let_out(&self, broker: &Broker) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        let mut running = self.running.lock();
        let inside = &mut *running;
        inside.graph.advance(END_OF_TIME_MS, &mut inside.out);
        self.hand_out(&mut running, broker, clock::wall(), &mut |outcome| outcomes.push(outcome));
        outcomes
    }

    /// The last crash of an operator, while it is news.
    pub fn fault(&self) -> Option<String> {
        let fault = self.fault.lock();
        fault.as_ref().filter(|(at, _)| at.elapsed() < FAULT_IS_NEWS).map(|(_, fault)| fault.clone())
    }

    /// What there is to say about it while it runs.
    pub fn remark(&self) -> &str {
        &self.remark
    }

    /// Something is wrong with it, although it runs; nothing any more when this is empty.
    pub fn warn(&self, warning: String) {
        *self.warning.lock() = warning;
    }

    /// What is wrong with it, although it runs.
    pub fn warning(&self) -> Option<String> {
        Some(self.warning.lock().clone()).filter(|warning| !warning.is_empty())
    }

    /// Brings its metrics up to date; those of its operations unless somebody is in the graph for long.
    pub fn show(&self) {
        self.metrics.received.show();
        self.metrics.sent.show();
        if let Some(mut running) = self.running.try_lock_for(SHOW_WAIT) {
            self.operations.show(running.graph.engine());
        }
    }

    /// What is due inside goes on, and more is loaded if there is room for it. False when somebody else is in the graph.
    pub fn go_on(self: &Arc<Self>, broker: &Broker) -> bool {
        let mut turn = Turn::begin(broker, clock::monotonic());
        let passed = turn.pass_time(self);
        turn.finish();
        self.feed(broker);
        passed
    }

    /// Lets time pass inside the graph, for as long as the broker runs.
    pub async fn keep_time(self: Arc<Self>) {
        while !self.stopped.load(Ordering::Acquire) {
            let wait = if self.is_offloaded() { None } else { self.until_due() };
            match wait {
                None => self.earlier.notified().await,
                Some(wait) if !wait.is_zero() => {
                    let _ = tokio::time::timeout(wait.min(SLEEP_MAX), self.earlier.notified()).await;
                }
                Some(_) => {
                    let Some(broker) = self.broker.upgrade() else { return };
                    if !self.go_on(&broker) {
                        tokio::time::sleep(BUSY_WAIT).await;
                    }
                }
            }
        }
    }
}
