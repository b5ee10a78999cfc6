//! Between the broker and the graphs: the only place that speaks both messages and items.
//!
//! A graph is one more subscriber. Its messages are run through it by whoever brings them, so that nothing
//! crosses a thread; when somebody is in the graph already, they are left with him.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use broker_core::message::Message;
use metrics::{Counter, Histogram, counter, histogram};
use parking_lot::{Condvar, Mutex, MutexGuard};
use processing::runtime::GraphRuntime;
use processing_core::engine::{Cause, Outlet};
use processing_core::item::Item;

use crate::broker::Broker;
use crate::clock;
use crate::translate::{self, Refused};
use crate::turn::Turn;

/// Messages that may wait for a graph that is busy; beyond, they are dropped and counted.
const INBOX_MAX: usize = 10_000;
/// A graph that was slow comes back to the inline path after so many fast messages in a row.
const FAST_MESSAGES: u32 = 256;

/// What every item carries through the graphs: the message it was derived from.
pub type Carry = Arc<Message>;

/// A running DataflowGraph: sources lead into a chain of graphs, and that to a destination.
pub struct Dataflow {
    name: Box<str>,
    stages: Mutex<Stages>,
    inbox: Mutex<VecDeque<Arc<Message>>>,
    /// Calls took longer than the inline budget: the graph runs on a thread of its own.
    offloaded: AtomicBool,
    /// Wakes that thread.
    work: Condvar,
    inline_budget: Duration,
    broker: Weak<Broker>,
    metrics: Metrics,
}

struct Stages {
    graphs: Vec<GraphRuntime<Carry>>,
    destination: config::Template,
    /// Fast messages in a row, while offloaded.
    fast: u32,
    /// Reused from message to message.
    items: Vec<Item<Carry>>,
    next: Vec<Item<Carry>>,
}

struct Metrics {
    received: Counter,
    sent: Counter,
    busy: Counter,
    filtered: Counter,
    errors: Counter,
    expired: Counter,
    moves: Counter,
    latency: Histogram,
}

impl Metrics {
    fn new(name: &str) -> Self {
        let of = |metric: &'static str| counter!(metric, "dataflow_id" => name.to_owned());
        Self {
            received: of("aio_dataflow_messages_received"),
            sent: of("aio_dataflow_messages_sent"),
            busy: of("aio_dataflow_messages_dropped_when_busy"),
            filtered: of("aio_dataflow_messages_filtered"),
            errors: of("aio_dataflow_messages_dropped_processing_errors"),
            expired: of("aio_dataflow_messages_expired"),
            moves: of("forebay_graph_moved_off_total"),
            latency: histogram!("aio_dataflow_processing_latency", "dataflow_id" => name.to_owned()),
        }
    }
}

/// A graph's subscription, as the router sees it.
pub struct Source(Arc<Dataflow>);

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Source").field(&self.0.name).finish()
    }
}

impl Source {
    /// A subscription of `dataflow`.
    pub fn new(dataflow: Arc<Dataflow>) -> Arc<Self> {
        Arc::new(Self(dataflow))
    }

    /// Runs a message through the graph and hands what comes out to `emit`; or leaves it with whoever is in
    /// the graph.
    pub fn push(&self, message: &Arc<Message>, broker: &Broker, emit: &mut dyn FnMut(Arc<Message>)) {
        self.0.push(message, broker, emit);
    }
}

impl Dataflow {
    /// A flow that is ready to run.
    pub fn new(
        name: &str,
        graphs: Vec<GraphRuntime<Carry>>,
        destination: config::Template,
        inline_budget: Duration,
        broker: &Arc<Broker>,
    ) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            stages: Mutex::new(Stages { graphs, destination, fast: 1, items: Vec::new(), next: Vec::new() }),
            inbox: Mutex::default(),
            offloaded: AtomicBool::new(false),
            work: Condvar::new(),
            inline_budget,
            broker: Arc::downgrade(broker),
            metrics: Metrics::new(name),
        })
    }

    fn push(self: &Arc<Self>, message: &Arc<Message>, broker: &Broker, emit: &mut dyn FnMut(Arc<Message>)) {
        self.metrics.received.increment(1);
        if !self.offloaded.load(Ordering::Acquire)
            && let Some(mut stages) = self.stages.try_lock()
        {
            // Those that were left here while somebody else was in the graph go first.
            self.drain(&mut stages, broker, emit);
            self.step(&mut stages, message, broker, emit);
            self.drain(&mut stages, broker, emit);
            if stages.fast == 0 {
                self.move_off(&mut stages);
            }
        } else {
            self.enqueue(message);
        }
        self.rescue(broker, emit);
    }

    /// The graph held its caller up for longer than the inline budget: from now on it runs on a thread of its
    /// own, and holds up nobody.
    fn move_off(self: &Arc<Self>, _stages: &mut MutexGuard<'_, Stages>) {
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
            let mut stages = self.stages.lock();
            self.step(&mut stages, &message, &broker, &mut |message| derived.push(message));
            let comes_back = stages.fast >= FAST_MESSAGES && self.inbox.lock().is_empty();
            if comes_back {
                self.offloaded.store(false, Ordering::Release);
            }
            drop(stages);
            publish(&broker, &mut derived);
            if comes_back {
                tracing::info!(graph = %self.name, "the graph is fast again; it runs in the message path");
                self.rescue(&broker, &mut |message| derived.push(message));
                publish(&broker, &mut derived);
                return;
            }
        }
    }

    fn wait(&self) -> Arc<Message> {
        let mut inbox = self.inbox.lock();
        loop {
            if let Some(message) = inbox.pop_front() {
                return message;
            }
            self.work.wait(&mut inbox);
        }
    }

    fn enqueue(&self, message: &Arc<Message>) {
        let mut inbox = self.inbox.lock();
        if inbox.len() >= INBOX_MAX {
            self.metrics.busy.increment(1);
            return;
        }
        inbox.push_back(Arc::clone(message));
        if self.offloaded.load(Ordering::Acquire) {
            self.work.notify_one();
        }
    }

    /// A message left behind just as the one who was in the graph went away is nobody's: take it.
    fn rescue(&self, broker: &Broker, emit: &mut dyn FnMut(Arc<Message>)) {
        while !self.offloaded.load(Ordering::Acquire) && !self.inbox.lock().is_empty() {
            let Some(mut stages) = self.stages.try_lock() else { return };
            self.drain(&mut stages, broker, emit);
        }
    }

    fn drain(&self, stages: &mut Stages, broker: &Broker, emit: &mut dyn FnMut(Arc<Message>)) {
        loop {
            if self.offloaded.load(Ordering::Acquire) {
                return;
            }
            let Some(message) = self.inbox.lock().pop_front() else { return };
            self.step(stages, &message, broker, emit);
        }
    }

    /// One message through all stages.
    fn step(
        &self,
        stages: &mut Stages,
        message: &Arc<Message>,
        broker: &Broker,
        emit: &mut dyn FnMut(Arc<Message>),
    ) {
        let wall = clock::wall();
        let begun = Instant::now();
        match translate::item(message, broker, wall) {
            Ok(item) => stages.items.push(item),
            Err(refused) => return self.refuse(message, &refused),
        }
        let Stages { graphs, destination, items, next, .. } = stages;
        for graph in graphs {
            for item in items.drain(..) {
                let mut outlet = Collect { flow: self, out: next };
                graph.push(item, &mut outlet);
            }
            std::mem::swap(items, next);
        }
        for item in items.drain(..) {
            match translate::message(item, destination, broker, wall) {
                Ok(derived) => {
                    self.metrics.sent.increment(1);
                    emit(Arc::new(derived));
                }
                Err(refused) => self.refuse(message, &refused),
            }
        }
        let took = begun.elapsed();
        self.metrics.latency.record(took.as_secs_f64() * 1000.0);
        stages.fast = if took > self.inline_budget { 0 } else { stages.fast.saturating_add(1) };
    }

    fn refuse(&self, message: &Message, refused: &Refused) {
        if *refused == Refused::Expired {
            self.metrics.expired.increment(1);
            return;
        }
        self.metrics.errors.increment(1);
        counter!("aio_dataflow_errors", "dataflow_id" => self.name.to_string(), "reason" => refused.reason())
            .increment(1);
        tracing::warn!(graph = %self.name, topic = message.topic(), "a message is dropped: {refused}");
    }
}

/// Takes what comes out of one graph, for the next one.
struct Collect<'a> {
    flow: &'a Dataflow,
    out: &'a mut Vec<Item<Carry>>,
}

impl Outlet<Carry> for Collect<'_> {
    fn emit(&mut self, item: Item<Carry>) {
        self.out.push(item);
    }

    fn dropped(&mut self, operation: &str, cause: Cause, carry: &Carry) {
        let (reason, why) = match &cause {
            Cause::Filtered => return self.flow.metrics.filtered.increment(1),
            Cause::Error(error) => (error.reason(), error.to_string()),
            Cause::Late => ("late", "its window has closed".to_owned()),
            Cause::Full => ("full", "too much waits for windows to close".to_owned()),
        };
        self.flow.metrics.errors.increment(1);
        counter!("aio_dataflow_errors", "dataflow_id" => self.flow.name.to_string(), "reason" => reason)
            .increment(1);
        tracing::warn!(graph = %self.flow.name, operation, topic = carry.topic(), "a message is dropped: {why}");
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
