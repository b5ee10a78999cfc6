//! Between the broker and the graphs: the only place that speaks both messages and items.
//!
//! A graph is one more subscriber. Its messages are run through it by whoever brings them, so that nothing
//! crosses a thread; when somebody is in the graph already, they are left with him. Who is in a graph stays until what he
//! derived is published, so that nobody overtakes him. What waits inside a graph for its time goes on by a timer of its
//! own. A persisted graph takes its messages from the log ([`cursor`]). Remote systems are at the other end of [`bridges`].

mod apart;
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
mod source;
mod step;
mod timer;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

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
use self::out::Out;
use self::report::{Metrics, Warnings};
pub use self::running::Entrance;
use self::running::Running;
use self::samples::Samples;
pub use self::source::{Arrival, Source};
use crate::broker::Broker;
use crate::clock;
use crate::operations::Operations;
use crate::translate::{self, Carry};
use crate::turn::Turn;

/// Messages that may wait for a graph that is busy; beyond, they are dropped and counted.
const INBOX_MAX: usize = 10_000;
/// Messages that are run through a graph for others at a time: what they give must not wait for long.
const DRAIN_MAX: usize = 256;
/// The longest that a timer sleeps: the wall clock may be set while it does.
const SLEEP_MAX: Duration = Duration::from_secs(1);
/// How soon a timer looks again when somebody is in the graph.
const BUSY_WAIT: Duration = Duration::from_millis(1);
/// How long a crash of an operator is news.
const FAULT_IS_NEWS: Duration = Duration::from_secs(60);
/// How long the metrics wait for somebody who is in the graph.
const SHOW_WAIT: Duration = Duration::from_millis(20);
/// How long what is in front of a graph may take when it is stopped.
const STOP_WAIT: Duration = Duration::from_secs(5);
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

    /// Has more loaded of what waits in the log only, if there is room for it.
    fn feed(&self, broker: &Broker) {
        if let Some(cursor) = &self.cursor
            && cursor.wants_more()
            && let Some(persistence) = broker.persistence()
        {
            persistence.feed(cursor);
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
}
