//! Between the broker and the graphs: the only place that speaks both messages and items.
//!
//! A graph is one more subscriber. Its messages are run through it by whoever brings them, so that nothing
//! crosses a thread; when somebody is in the graph already, they are left with him. What waits inside a graph for its
//! time goes on by a timer of its own.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use broker_core::Millis;
use broker_core::message::Message;
use broker_core::reorder::{Late, Order, Reorder};
use bytes::Bytes;
use metrics::{Counter, Histogram, counter, histogram};
use parking_lot::{Condvar, Mutex};
use processing::runtime::GraphRuntime;
use processing_core::engine::{Cause, Outlet};
use processing_core::item::{Item, MessageSchema};
use tokio::sync::Notify;

use crate::broker::Broker;
use crate::clock;
use crate::operations::Operations;
use crate::ordered;
use crate::translate::{self, Carry, Letter, Refused};
use crate::turn::Turn;

/// Messages that may wait for a graph that is busy; beyond, they are dropped and counted.
const INBOX_MAX: usize = 10_000;
/// A graph that was slow comes back to the inline path after so many fast messages in a row.
const FAST_MESSAGES: u32 = 256;
/// One message in so many is timed for the histogram.
const MEASURE_EVERY: u32 = 16;
/// The longest that a timer sleeps: the wall clock may be set while it does.
const SLEEP_MAX: Duration = Duration::from_secs(1);
/// How soon a timer looks again when somebody is in the graph.
const BUSY_WAIT: Duration = Duration::from_millis(1);
/// How long a crash of an operator is news.
const FAULT_IS_NEWS: Duration = Duration::from_secs(60);
/// How long the metrics wait for somebody who is in the graph.
const SHOW_WAIT: Duration = Duration::from_millis(20);
/// Dropped messages that are told one by one, each second.
const WARNINGS_MAX: u32 = 10;
/// No time at which anything is due.
const NEVER: u64 = u64::MAX;

/// A running DataflowGraph: sources lead through graphs to destinations.
pub struct Dataflow {
    name: Box<str>,
    running: Mutex<Running>,
    inbox: Mutex<VecDeque<(usize, Arc<Message>)>>,
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
    /// The last time an operator crashed, and how.
    fault: Mutex<Option<(Instant, String)>>,
    warnings: Mutex<Warnings>,
    late: Late,
    broker: Weak<Broker>,
    metrics: Metrics,
    operations: Operations,
}

/// What only one at a time works on.
struct Running {
    graph: GraphRuntime<Carry>,
    /// Whether items wait inside.
    keeps_items: bool,
    /// The schema of what comes in, by source.
    schemas: Vec<Option<MessageSchema>>,
    /// What comes in by a source waits here for its turn, when it is to come in order.
    sorting: Option<Vec<Sorting>>,
    destinations: Vec<config::Template>,
    dead_letter_topic: Option<String>,
    /// Fast messages in a row, while offloaded.
    fast: u32,
    measured: u32,
    /// Messages that entered in this step.
    entered: u32,
    /// What came out, reused from message to message.
    out: Out,
}

/// Messages of one source that wait for their turn.
type Sorting = Reorder<Arc<Message>>;

/// What comes out of a graph.
#[derive(Default)]
struct Out {
    items: Vec<(usize, Item<Carry>)>,
    failed: Vec<Failed>,
    filtered: u64,
}

/// An item that ended at an operation.
struct Failed {
    operation: String,
    reason: &'static str,
    why: String,
    carry: Carry,
}

struct Metrics {
    received: [Counter; 2],
    received_bytes: Counter,
    sent: [Counter; 2],
    sent_bytes: Counter,
    busy: Counter,
    filtered: Counter,
    errors: Counter,
    expired: Counter,
    dead_letters: Counter,
    moves: Counter,
    latency: Histogram,
}

impl Metrics {
    fn new(name: &str) -> Self {
        let of = |metric: &'static str| counter!(metric, "dataflow_id" => name.to_owned());
        Self {
            // AIO counts them for the data flow and for its graph (AIO.md §9.6).
            received: [of("aio_dataflow_messages_received"), of("aio_dataflow_graph_messages_received")],
            received_bytes: of("aio_dataflow_bytes_received"),
            sent: [of("aio_dataflow_messages_sent"), of("aio_dataflow_graph_messages_sent")],
            sent_bytes: of("aio_dataflow_bytes_sent"),
            busy: of("aio_dataflow_messages_dropped_when_busy"),
            filtered: of("aio_dataflow_messages_filtered"),
            errors: of("aio_dataflow_messages_dropped_processing_errors"),
            expired: of("aio_dataflow_messages_expired"),
            dead_letters: of("forebay_graph_dead_letters_total"),
            moves: of("forebay_graph_moved_off_total"),
            latency: histogram!("aio_dataflow_processing_latency", "dataflow_id" => name.to_owned()),
        }
    }
}

/// The subscriptions of one source of a graph, as the router sees them.
pub struct Source {
    flow: Arc<Dataflow>,
    /// Its place among the graph's sources.
    place: usize,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Source").field(&self.flow.name).field(&self.place).finish()
    }
}

impl Source {
    /// The source in this place among those of `flow`.
    pub fn new(flow: Arc<Dataflow>, place: usize) -> Arc<Self> {
        Arc::new(Self { flow, place })
    }

    /// Runs a message through the graph and hands what comes out to `emit`; or leaves it with whoever is in
    /// the graph.
    pub fn push(&self, message: &Arc<Message>, broker: &Broker, emit: &mut dyn FnMut(Arc<Message>)) {
        self.flow.push(self.place, message, broker, emit);
    }
}

/// What a flow is made with.
pub struct Parts<'a> {
    /// Its name.
    pub name: &'a str,
    /// The graph.
    pub graph: GraphRuntime<Carry>,
    /// The reference of the schema of what comes in, by source.
    pub schemas: Vec<Option<&'a str>>,
    /// The topics of its sinks.
    pub destinations: Vec<config::Template>,
    /// What comes in is to come in order.
    pub order: Option<Order>,
    /// Where messages go that cannot be processed.
    pub dead_letter_topic: Option<String>,
    /// The longest that a message may hold up the one who brings it.
    pub inline_budget: Duration,
    /// What there is to say about it while it runs.
    pub remark: String,
}

impl Dataflow {
    /// A flow that is ready to run. When something may wait in it, [`Dataflow::keep_time`] must run beside it.
    pub fn new(parts: Parts<'_>, broker: &Arc<Broker>) -> Arc<Self> {
        let Parts { name, mut graph, schemas, destinations, order, dead_letter_topic, inline_budget, remark } =
            parts;
        let sorting =
            |order: Order| Reorder::new(order.max_lateness_ms, broker_core::reorder::Limits::default());
        let operations = Operations::new(name, graph.engine());
        let reference =
            |text: &str| MessageSchema::RegistryReference(Bytes::copy_from_slice(text.as_bytes()));
        let running = Running {
            keeps_items: graph.keeps_items(),
            sorting: order.map(|order| schemas.iter().map(|_| sorting(order)).collect()),
            schemas: schemas.into_iter().map(|schema| schema.map(reference)).collect(),
            graph,
            destinations,
            dead_letter_topic,
            fast: 1,
            measured: 0,
            entered: 0,
            out: Out::default(),
        };
        Arc::new(Self {
            name: name.into(),
            running: Mutex::new(running),
            inbox: Mutex::default(),
            offloaded: AtomicBool::new(false),
            work: Condvar::new(),
            due_ms: AtomicU64::new(NEVER),
            earlier: Notify::new(),
            inline_budget,
            remark: remark.into(),
            fault: Mutex::default(),
            warnings: Mutex::default(),
            late: order.map(|order| order.late).unwrap_or_default(),
            broker: Arc::downgrade(broker),
            metrics: Metrics::new(name),
            operations,
        })
    }

    fn push(
        self: &Arc<Self>,
        source: usize,
        message: &Arc<Message>,
        broker: &Broker,
        emit: &mut dyn FnMut(Arc<Message>),
    ) {
        self.metrics.received.iter().for_each(|counter| counter.increment(1));
        self.metrics.received_bytes.increment(message.payload().len() as u64);
        if !self.offloaded.load(Ordering::Acquire)
            && let Some(mut running) = self.running.try_lock()
        {
            // Those that were left here while somebody else was in the graph go first.
            self.drain(&mut running, broker, emit);
            self.step(&mut running, source, message, broker, emit);
            self.drain(&mut running, broker, emit);
            if running.fast == 0 {
                self.move_off();
            }
        } else {
            self.enqueue(source, message);
        }
        self.rescue(broker, emit);
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
            let message = self.wait();
            let Some(broker) = self.broker.upgrade() else { return };
            let mut running = self.running.lock();
            let emit = &mut |message| derived.push(message);
            match message {
                Some((source, message)) => self.step(&mut running, source, &message, &broker, emit),
                None => self.tick(&mut running, &broker, emit),
            }
            let comes_back = running.fast >= FAST_MESSAGES && self.inbox.lock().is_empty();
            if comes_back {
                self.offloaded.store(false, Ordering::Release);
            }
            drop(running);
            publish(&broker, &mut derived);
            if comes_back {
                tracing::info!(graph = %self.name, "the graph is fast again; it runs in the message path");
                self.rescue(&broker, &mut |message| derived.push(message));
                publish(&broker, &mut derived);
                self.earlier.notify_one();
                return;
            }
        }
    }

    /// The next message; none when something inside is due first.
    fn wait(&self) -> Option<(usize, Arc<Message>)> {
        let mut inbox = self.inbox.lock();
        loop {
            if let Some(message) = inbox.pop_front() {
                return Some(message);
            }
            let wait = self.until_due().unwrap_or(SLEEP_MAX).min(SLEEP_MAX);
            if wait.is_zero() {
                return None;
            }
            self.work.wait_for(&mut inbox, wait);
        }
    }

    fn enqueue(&self, source: usize, message: &Arc<Message>) {
        let mut inbox = self.inbox.lock();
        if inbox.len() >= INBOX_MAX {
            self.metrics.busy.increment(1);
            return;
        }
        inbox.push_back((source, Arc::clone(message)));
        if self.offloaded.load(Ordering::Acquire) {
            self.work.notify_one();
        }
    }

    /// A message left behind just as the one who was in the graph went away is nobody's: take it.
    fn rescue(self: &Arc<Self>, broker: &Broker, emit: &mut dyn FnMut(Arc<Message>)) {
        while !self.offloaded.load(Ordering::Acquire) && !self.inbox.lock().is_empty() {
            let Some(mut running) = self.running.try_lock() else { return };
            self.drain(&mut running, broker, emit);
        }
    }

    fn drain(&self, running: &mut Running, broker: &Broker, emit: &mut dyn FnMut(Arc<Message>)) {
        loop {
            if self.offloaded.load(Ordering::Acquire) {
                return;
            }
            let Some((source, message)) = self.inbox.lock().pop_front() else { return };
            self.step(running, source, &message, broker, emit);
        }
    }

    /// One message through the graph.
    fn step(
        &self,
        running: &mut Running,
        source: usize,
        message: &Arc<Message>,
        broker: &Broker,
        emit: &mut dyn FnMut(Arc<Message>),
    ) {
        let wall = clock::wall();
        let begun = Instant::now();
        match running.sorting.as_mut().and_then(|sources| sources.get_mut(source)) {
            None => running.enter(source, message, broker, wall),
            Some(sorting) => {
                let stamp = ordered::stamp(message, wall);
                let (size, now) = (message.size(), clock::monotonic());
                if sorting.push(stamp, Arc::clone(message), size, now, wall).is_err() {
                    running.come_late(source, message, self.late, broker, wall);
                }
                running.release(broker, wall);
            }
        }
        self.hand_out(running, broker, wall, emit);
        let took = begun.elapsed() / std::mem::take(&mut running.entered).max(1);
        running.measured = running.measured.wrapping_add(1);
        if running.measured.is_multiple_of(MEASURE_EVERY) {
            self.metrics.latency.record(took.as_secs_f64() * 1000.0);
        }
        running.fast = if took > self.inline_budget { 0 } else { running.fast.saturating_add(1) };
    }

    /// What waits inside and is due goes on.
    fn tick(&self, running: &mut Running, broker: &Broker, emit: &mut dyn FnMut(Arc<Message>)) {
        let (wall, begun) = (clock::wall(), Instant::now());
        running.release(broker, wall);
        running.graph.advance(wall.0, &mut running.out);
        self.hand_out(running, broker, wall, emit);
        if begun.elapsed() / std::mem::take(&mut running.entered).max(1) > self.inline_budget {
            running.fast = 0;
        }
    }

    /// Makes messages of what came out of the graph.
    fn hand_out(
        &self,
        running: &mut Running,
        broker: &Broker,
        wall: Millis,
        emit: &mut dyn FnMut(Arc<Message>),
    ) {
        let Running { graph, destinations, out, dead_letter_topic, .. } = running;
        for (sink, item) in out.items.drain(..) {
            let carry = item.carry.clone();
            let Some(destination) = destinations.get(sink) else { continue };
            match translate::message(item, destination, broker, wall) {
                Ok(derived) => {
                    self.metrics.sent.iter().for_each(|counter| counter.increment(1));
                    self.metrics.sent_bytes.increment(derived.payload().len() as u64);
                    emit(Arc::new(derived));
                }
                Err(refused) => out.failed.push(Failed::of(carry, &refused)),
            }
        }
        for failed in out.failed.drain(..) {
            let digest = graph.digest(&failed.operation);
            self.give_up(&failed, digest, dead_letter_topic.as_deref(), emit);
        }
        self.metrics.filtered.increment(std::mem::take(&mut out.filtered));
        if running.may_wait() {
            self.arm(running.due_ms(wall));
        }
    }

    /// A message that cannot be processed is counted and explained, and kept where the graph names a topic for that.
    fn give_up(
        &self,
        failed: &Failed,
        digest: Option<&str>,
        dead_letter_topic: Option<&str>,
        emit: &mut dyn FnMut(Arc<Message>),
    ) {
        let Failed { operation, reason, why, carry } = failed;
        if *reason == translate::EXPIRED {
            return self.metrics.expired.increment(1);
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
        let Some(dead_letter_topic) = dead_letter_topic else { return };
        let letter = Letter { graph: &self.name, operation, reason, why, digest };
        match translate::dead_letter(&carry.origin, dead_letter_topic, &letter) {
            Ok(message) => {
                self.metrics.dead_letters.increment(1);
                emit(Arc::new(message));
            }
            Err(refused) => tracing::warn!(graph = %self.name, topic, "it cannot be kept either: {refused}"),
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
    fn until_due(&self) -> Option<Duration> {
        let due_ms = self.due_ms.load(Ordering::Acquire);
        (due_ms != NEVER).then(|| Duration::from_millis(due_ms.saturating_sub(clock::wall().0)))
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

    /// Brings the metrics of its operations up to date, unless somebody is in the graph for long.
    pub fn show_operations(self: &Arc<Self>) {
        if let Some(mut running) = self.running.try_lock_for(SHOW_WAIT) {
            self.operations.show(running.graph.engine());
        }
        // Whoever brought a message meanwhile found the graph busy, and left it here.
        let Some(broker) = self.broker.upgrade() else { return };
        let mut derived = Vec::new();
        self.rescue(&broker, &mut |message| derived.push(message));
        publish(&broker, &mut derived);
    }

    /// Lets time pass inside the graph, for as long as the broker runs.
    pub async fn keep_time(self: Arc<Self>) {
        let mut derived = Vec::new();
        loop {
            let offloaded = self.offloaded.load(Ordering::Acquire);
            let wait = if offloaded { None } else { self.until_due() };
            match wait {
                None => self.earlier.notified().await,
                Some(wait) if !wait.is_zero() => {
                    let _ = tokio::time::timeout(wait.min(SLEEP_MAX), self.earlier.notified()).await;
                }
                Some(_) => {
                    let Some(broker) = self.broker.upgrade() else { return };
                    let Some(mut running) = self.running.try_lock() else {
                        tokio::time::sleep(BUSY_WAIT).await;
                        continue;
                    };
                    self.tick(&mut running, &broker, &mut |message| derived.push(message));
                    if running.fast == 0 && !self.offloaded.load(Ordering::Acquire) {
                        self.move_off();
                    }
                    drop(running);
                    self.rescue(&broker, &mut |message| derived.push(message));
                    publish(&broker, &mut derived);
                }
            }
        }
    }
}

impl Running {
    /// A message enters the graph.
    fn enter(&mut self, source: usize, message: &Arc<Message>, broker: &Broker, wall: Millis) {
        self.entered += 1;
        let schema = self.schemas.get(source).and_then(Option::as_ref);
        match translate::item(message, schema, broker, wall) {
            Ok(item) => {
                if self.keeps_items {
                    self.graph.advance(wall.0, &mut self.out);
                }
                self.graph.push_to(source, item, &mut self.out);
            }
            Err(refused) => self.out.refuse(Carry::of(message), &refused),
        }
    }

    /// A message comes after one with a later stamp has entered.
    fn come_late(
        &mut self,
        source: usize,
        message: &Arc<Message>,
        late: Late,
        broker: &Broker,
        wall: Millis,
    ) {
        match ordered::too_late(message, late) {
            Some(marked) => self.enter(source, &marked, broker, wall),
            None => self.out.refuse(Carry::of(message), &Refused::OutOfOrder),
        }
    }

    /// Messages whose turn it is enter.
    fn release(&mut self, broker: &Broker, wall: Millis) {
        let now = clock::monotonic();
        for source in 0..self.sorting.as_ref().map_or(0, Vec::len) {
            while let Some(message) = self.sorting.as_mut().and_then(|s| s.get_mut(source)?.release(now)) {
                self.enter(source, &message, broker, wall);
            }
        }
        for sorting in self.sorting.iter_mut().flatten() {
            ordered::count_forced(&mut sorting.forced);
        }
    }

    /// Whether anything ever waits inside for its time.
    fn may_wait(&self) -> bool {
        self.keeps_items || self.sorting.is_some()
    }

    /// When something that waits is due, milliseconds since the Unix epoch.
    fn due_ms(&mut self, wall: Millis) -> Option<u64> {
        let now = clock::monotonic();
        let sorted = self.sorting.iter().flatten().filter_map(Reorder::due).min();
        let sorted = sorted.map(|due| wall.plus(due.since(now)).0);
        let inside = if self.keeps_items { self.graph.due_ms() } else { None };
        sorted.into_iter().chain(inside).min()
    }
}

impl Outlet<Carry> for Out {
    fn emit(&mut self, sink: usize, item: Item<Carry>) {
        self.items.push((sink, item));
    }

    fn dropped(&mut self, operation: &str, cause: Cause, carry: &Carry) {
        let (reason, why) = match &cause {
            Cause::Filtered => return self.filtered += 1,
            Cause::Error(error) => (error.reason(), error.to_string()),
            Cause::Late => ("late", "its time was over already".to_owned()),
            Cause::Full => ("full", "as much as may waits for its time".to_owned()),
        };
        self.failed.push(Failed { operation: operation.to_owned(), reason, why, carry: carry.clone() });
    }

    fn combine(&mut self, carry: &mut Carry, later: Carry) {
        carry.combine(later);
    }
}

impl Out {
    fn refuse(&mut self, carry: Carry, refused: &Refused) {
        self.failed.push(Failed::of(carry, refused));
    }
}

impl Failed {
    /// A message that did not get in, or an item that did not get out.
    fn of(carry: Carry, refused: &Refused) -> Self {
        Self { operation: String::new(), reason: refused.reason(), why: refused.to_string(), carry }
    }
}

/// Keeps the log readable when every message is dropped.
#[derive(Default)]
struct Warnings {
    second: Option<Instant>,
    told: u32,
    kept_back: u64,
}

impl Warnings {
    /// Whether one more may be told in this second; tells first how many were not.
    fn one_more(&mut self, graph: &str) -> bool {
        if self.second.is_none_or(|second| second.elapsed() >= Duration::from_secs(1)) {
            let kept_back = std::mem::take(&mut self.kept_back);
            if kept_back > 0 {
                tracing::warn!(graph, "{kept_back} more messages were dropped; the metrics say why");
            }
            (self.second, self.told) = (Some(Instant::now()), 0);
        }
        self.told += 1;
        self.kept_back += u64::from(self.told > WARNINGS_MAX);
        self.told <= WARNINGS_MAX
    }
}

fn publish(broker: &Broker, derived: &mut Vec<Arc<Message>>) {
    if derived.is_empty() {
        return;
    }
    let mut turn = Turn::begin(broker, clock::monotonic());
    for message in derived.drain(..) {
        turn.publish_derived(&message);
    }
    turn.finish();
}
