//! Steps items through a graph, each to its end before the next: the same input gives the same output,
//! however it is cut into batches.
//!
//! Map, filter, branch and concatenate never keep an item. Delay and accumulate do, until the frontier has passed
//! its logical time: the frontier is the wall clock less the allowed lateness, told by [`Engine::advance`] and
//! [`Engine::push_at`]. What is due is worked off in the order of time and, for one time, from source to sink, so
//! that an accumulate fires when everything of its time has reached it.

mod held;

pub use held::Bounds;

use std::sync::Arc;

use crate::graph::{Graph, Kind};
use crate::item::{Data, Item};
use crate::operator::{Operator, OperatorError};
use crate::time::{Hlc, Time};
use held::{Held, Window};

/// How long after its end a window still takes messages, milliseconds, wherever nobody says otherwise: what runs a graph
/// tells it to [`Engine::set_lateness_ms`]. Many publishers stamp with whole seconds.
pub const ALLOWED_LATENESS_MS: u64 = 1_000;

/// The node id of a graph's logical time, unless it is given another.
const NODE: &str = "graph";
/// One call in so many is measured, when there is a clock.
const MEASURE_EVERY: u64 = 16;

/// Why an item went no further.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// A filter said so.
    Filtered,
    /// An operator had no result.
    Error(OperatorError),
    /// Its logical time was over already where items wait for theirs (AIO.md §4.2).
    Late,
    /// As many items wait as may.
    Full,
}

/// Takes what comes out of a graph.
pub trait Outlet<C> {
    /// An item reached a sink: the one in this place among the sinks of the graph.
    fn emit(&mut self, sink: usize, item: Item<C>);
    /// An item ended at `operation`. `carry` is the caller's own, of the item that went in.
    fn dropped(&mut self, operation: &str, cause: Cause, carry: &C);
    /// An accumulate made one item of several: what it carries for the earlier ones shall stand for `later`, too.
    /// Unless said otherwise, the latest stands for all.
    fn combine(&mut self, carry: &mut C, later: C) {
        *carry = later;
    }
    /// The window of `operation` that ends at `time` is closed, and goes on as one item with this carry.
    fn window_closed(&mut self, operation: &str, time: Time, carry: &mut C) {
        let _ = (operation, time, carry);
    }
}

/// What one operation has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Items that came in.
    pub received: u64,
    /// Items that went on.
    pub passed: u64,
    /// Items that a filter dropped.
    pub filtered: u64,
    /// Items that ended with an error.
    pub errors: u64,
    /// Items that came too late, or when too many waited.
    pub refused: u64,
    /// Calls of the operator that were measured.
    pub measured: u64,
    /// How long these took together, nanoseconds.
    pub measured_ns: u64,
}

/// The graph has an operation that nothing runs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// No operator for this operation.
    #[error("operation `{0}` has no operator")]
    NoOperator(String),
}

/// A graph with an operator for each of its operations.
pub struct Engine<C> {
    graph: Graph,
    operators: Vec<Option<Box<dyn Operator>>>,
    stats: Vec<Stats>,
    /// Items on their way, the next one last; reused from push to push.
    work: Vec<(usize, Item<C>)>,
    sources: Vec<usize>,
    sinks: Vec<usize>,
    held: Held<C>,
    observer: Option<Observer>,
    /// The node id of all logical time here; `None` where no operation is told the time.
    node: Option<Arc<str>>,
    lateness_ms: u64,
    clock: Option<Clock>,
}

/// A monotonic clock, in nanoseconds.
pub type Clock = fn() -> u64;

/// Is told how long a call took: of which node, and how many nanoseconds.
pub type Observer = Box<dyn FnMut(usize, u64) + Send>;

impl<C: Clone> Engine<C> {
    /// `operators` stand in the order of the graph's nodes; `None` for source, sink and concatenate.
    ///
    /// # Errors
    /// An operation that nothing runs.
    pub fn new(graph: Graph, operators: Vec<Option<Box<dyn Operator>>>) -> Result<Self, BuildError> {
        for (at, node) in graph.nodes().iter().enumerate() {
            if node.operation.kind.has_module() && !matches!(operators.get(at), Some(Some(_))) {
                return Err(BuildError::NoOperator(node.operation.name.clone()));
            }
        }
        let of = |wanted: &[Kind]| -> Vec<usize> {
            let kind = |at: &usize| graph.nodes()[*at].operation.kind;
            (0..graph.nodes().len()).filter(|at| wanted.contains(&kind(at))).collect()
        };
        let sources = of(&[Kind::Source]);
        let sinks = of(&[Kind::Sink]);
        let tells_time = !of(&[Kind::Branch, Kind::Delay, Kind::Accumulate]).is_empty();
        Ok(Self {
            stats: vec![Stats::default(); graph.nodes().len()],
            held: Held::new(graph.order()),
            node: tells_time.then(|| NODE.into()),
            graph,
            operators,
            work: Vec::new(),
            sources,
            sinks,
            lateness_ms: 0,
            clock: None,
            observer: None,
        })
    }

    /// The graph.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The node id of all logical time in this graph: windows of different publishers are one (AIO.md §4.1).
    pub fn set_node(&mut self, node: Arc<str>) {
        self.node = self.node.take().map(|_| node);
    }

    /// How long after its end a window still takes items, milliseconds; 0 unless set.
    pub fn set_lateness_ms(&mut self, lateness_ms: u64) {
        self.lateness_ms = lateness_ms;
    }

    /// How much may wait inside; what comes when it is full is dropped with [`Cause::Full`].
    pub fn set_bounds(&mut self, bounds: Bounds) {
        self.held.bounds = bounds;
    }

    /// With a clock, one call of an operator in sixteen is measured, and `observer` is told.
    pub fn set_clock(&mut self, clock: Clock, observer: Observer) {
        (self.clock, self.observer) = (Some(clock), Some(observer));
    }

    /// The memory that each operation's operator uses, bytes, by name; those that have an operator only.
    pub fn memory_bytes(&self) -> impl Iterator<Item = (&str, usize)> {
        let nodes = self.graph.nodes().iter().zip(&self.operators);
        nodes.filter_map(|(node, operator)| Some((&*node.operation.name, operator.as_ref()?.memory_bytes())))
    }

    /// What each operation has done, by name.
    pub fn stats(&self) -> impl Iterator<Item = (&str, Stats)> {
        self.graph.nodes().iter().zip(&self.stats).map(|(node, stats)| (node.operation.name.as_str(), *stats))
    }

    /// When something inside is due next, milliseconds since the Unix epoch: [`Engine::advance`] then has work.
    /// `None` when nothing waits.
    pub fn due_ms(&self) -> Option<u64> {
        // A time is over once the frontier is past it, not when it has just arrived there.
        let time = self.held.first_due()?;
        Some(time.to_millis_floor().saturating_add(1).saturating_add(self.lateness_ms))
    }

    /// How many items wait inside.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Bytes of content of the items that wait inside.
    pub fn held_bytes(&self) -> usize {
        self.held.len_bytes()
    }

    /// Feeds an item to every source and runs it to its end. Time stands still: a graph that keeps items wants
    /// [`Engine::push_at`], or [`Engine::advance`] beside this.
    pub fn push(&mut self, mut item: Item<C>, outlet: &mut impl Outlet<C>) {
        self.tell_node(&mut item);
        if let Some((first, others)) = self.sources.split_first() {
            for at in others.iter().rev() {
                self.work.push((*at, item.clone()));
            }
            self.work.push((*first, item));
        }
        self.run(outlet);
    }

    /// The same for one source: the one in this place among the sources of the graph.
    pub fn push_to(&mut self, source: usize, mut item: Item<C>, outlet: &mut impl Outlet<C>) {
        self.tell_node(&mut item);
        if let Some(at) = self.sources.get(source) {
            self.work.push((*at, item));
        }
        self.run(outlet);
    }

    /// Like [`Engine::push`], when it is `now_ms` milliseconds since the Unix epoch: what is due goes first.
    pub fn push_at(&mut self, item: Item<C>, now_ms: u64, outlet: &mut impl Outlet<C>) {
        self.advance(now_ms, outlet);
        self.push(item, outlet);
    }

    fn tell_node(&self, item: &mut Item<C>) {
        if let Some(node) = &self.node {
            item.time.node = Arc::clone(node);
        }
    }

    /// It is `now_ms` milliseconds since the Unix epoch: everything whose logical time is over goes on. Time that
    /// goes back is no news.
    pub fn advance(&mut self, now_ms: u64, outlet: &mut impl Outlet<C>) {
        let frontier = Time::from_millis(now_ms.saturating_sub(self.lateness_ms));
        while let Some((at, time)) = self.held.pop_due(frontier) {
            match self.graph.nodes()[at].operation.kind {
                Kind::Accumulate => self.fire(at, time, outlet),
                _ => self.release(at, time, outlet),
            }
            self.run(outlet);
        }
        self.held.close(frontier);
    }

    fn run(&mut self, outlet: &mut impl Outlet<C>) {
        while let Some((at, item)) = self.work.pop() {
            self.step(at, item, outlet);
        }
    }

    fn step(&mut self, at: usize, mut item: Item<C>, outlet: &mut impl Outlet<C>) {
        self.stats[at].received += 1;
        let kind = self.graph.nodes()[at].operation.kind;
        let arm = match self.apply(at, kind, &mut item) {
            Ok(Outcome::Goes(arm)) => arm,
            Ok(Outcome::Stays(time)) => {
                let held = match kind {
                    Kind::Accumulate => self.gather(at, item, outlet),
                    _ => self.held.hold(at, time, item),
                };
                if let Err((cause, carry)) = held {
                    self.drop_item(at, cause, &carry, outlet);
                }
                return;
            }
            Err(cause) => return self.drop_item(at, cause, &item.carry, outlet),
        };
        self.stats[at].passed += 1;
        if kind == Kind::Sink {
            outlet.emit(self.sinks.iter().position(|sink| *sink == at).unwrap_or_default(), item);
        } else {
            self.forward(at, arm, item);
        }
    }

    /// What the operation does with an item that comes in.
    fn apply(&mut self, at: usize, kind: Kind, item: &mut Item<C>) -> Result<Outcome, Cause> {
        let Some(operator) = &mut self.operators[at] else { return Ok(Outcome::Goes(false)) };
        if kind == Kind::Accumulate {
            // Its operator is called with many items at once, later.
            return Ok(Outcome::Stays(item.time.time()));
        }
        let begun = measure(&self.stats[at], self.clock);
        let outcome = match kind {
            Kind::Map => {
                let data = std::mem::replace(&mut item.data, Data::Bytes(bytes::Bytes::new()));
                operator.map(data).map(|data| {
                    item.data = data;
                    Some(Outcome::Goes(false))
                })
            }
            Kind::Filter => operator.filter(&item.data).map(|goes| goes.then_some(Outcome::Goes(false))),
            Kind::Branch => operator.branch(&item.time, &item.data).map(|arm| Some(Outcome::Goes(arm))),
            _ => {
                operator.delay(&item.data, &item.time).and_then(|time| later(&mut item.time, &time).map(Some))
            }
        };
        self.measured(at, begun);
        outcome.map_err(Cause::Error)?.ok_or(Cause::Filtered)
    }

    /// Puts an item on its way to all that the operation leads to.
    fn forward(&mut self, at: usize, arm: bool, item: Item<C>) {
        let node = &self.graph.nodes()[at];
        let next = if arm { &node.next_true } else { &node.next };
        // The last one written is the last one run, so that the order is that of the definition.
        if let Some((first, others)) = next.split_first() {
            for to in others.iter().rev() {
                self.work.push((*to, item.clone()));
            }
            self.work.push((*first, item));
        }
    }

    fn drop_item(&mut self, at: usize, cause: Cause, carry: &C, outlet: &mut impl Outlet<C>) {
        let stats = &mut self.stats[at];
        match cause {
            Cause::Filtered => stats.filtered += 1,
            Cause::Error(_) => stats.errors += 1,
            Cause::Late | Cause::Full => stats.refused += 1,
        }
        outlet.dropped(&self.graph.nodes()[at].operation.name, cause, carry);
    }

    /// The wait of a delay's items of one time is over.
    fn release(&mut self, at: usize, time: Time, outlet: &mut impl Outlet<C>) {
        for item in self.held.release(at, time) {
            self.stats[at].passed += 1;
            self.forward(at, false, item);
            // One at a time, so that they stay in their order.
            self.run(outlet);
        }
    }

    /// An item joins the window of its time; a full batch is combined at once.
    fn gather(&mut self, at: usize, item: Item<C>, outlet: &mut impl Outlet<C>) -> Result<(), (Cause, C)> {
        let time = item.time.time();
        if self.held.gather(at, item)? {
            self.combine(at, time, outlet);
        }
        Ok(())
    }

    /// Everything of this time has come: what the window holds becomes one item.
    fn fire(&mut self, at: usize, time: Time, outlet: &mut impl Outlet<C>) {
        self.combine(at, time, outlet);
        let Some(Window { staged: Some((data, mut carry)), .. }) = self.held.take_window(at, time) else {
            return;
        };
        outlet.window_closed(&self.graph.nodes()[at].operation.name, time, &mut carry);
        self.stats[at].passed += 1;
        self.forward(at, false, Item { time: self.at_node(time), data, carry });
    }

    /// Combines the waiting batch of a window with what was combined before. When the operator fails, the batch is
    /// dropped and what was combined before is kept.
    fn combine(&mut self, at: usize, time: Time, outlet: &mut impl Outlet<C>) {
        let hlc = self.at_node(time);
        let Some((batch, carries)) = self.held.take_batch(at, time) else { return };
        let (Some(operator), Some(window)) = (&mut self.operators[at], self.held.window(at, time)) else {
            return;
        };
        let first = Data::Message(crate::item::Message::empty(hlc));
        let staged = window.staged.as_ref().map_or(&first, |(data, _)| data);
        let begun = measure(&self.stats[at], self.clock);
        let result = operator.accumulate(staged, &batch);
        let took = begun.zip(self.clock).map(|(begun, clock)| clock().saturating_sub(begun));
        match result {
            Ok(data) => {
                let before = window.staged.take().map(|(_, carry)| carry);
                let mut all = before.into_iter().chain(carries);
                let Some(mut carry) = all.next() else { return };
                all.for_each(|later| outlet.combine(&mut carry, later));
                window.staged = Some((data, carry));
                self.held.recount(at, time);
            }
            Err(error) => {
                for carry in carries {
                    self.drop_item(at, Cause::Error(error.clone()), &carry, outlet);
                }
            }
        }
        self.observe(at, took);
    }

    fn measured(&mut self, at: usize, begun: Option<u64>) {
        let took = begun.zip(self.clock).map(|(begun, clock)| clock().saturating_sub(begun));
        self.observe(at, took);
    }

    fn observe(&mut self, at: usize, took: Option<u64>) {
        let Some(took) = took else { return };
        self.stats[at].measured += 1;
        self.stats[at].measured_ns += took;
        if let Some(observer) = &mut self.observer {
            observer(at, took);
        }
    }

    fn at_node(&self, time: Time) -> Hlc {
        time.at(self.node.clone().unwrap_or_else(|| NODE.into()))
    }
}

/// What became of an item.
enum Outcome {
    /// It goes on; for a branch, whether by the arm "True".
    Goes(bool),
    /// It waits for this time.
    Stays(Time),
}

/// Moves `time` on to what a delay said. Time only goes forward (AIO.md §4.1); within one moment the counter may be set
/// back, as a window does that begins its count anew: the frontier knows moments only.
fn later(time: &mut Hlc, new: &Hlc) -> Result<Outcome, OperatorError> {
    if (new.secs, new.nanos) < (time.secs, time.nanos) {
        return Err(OperatorError::Invalid("a delay may only move an item to a later time".to_owned()));
    }
    if new.nanos >= 1_000_000_000 {
        return Err(OperatorError::Invalid("a timestamp has less than 1,000,000,000 nanoseconds".to_owned()));
    }
    (time.secs, time.nanos, time.counter) = (new.secs, new.nanos, new.counter);
    Ok(Outcome::Stays(new.time()))
}

/// The time, if this call is one to measure.
fn measure(stats: &Stats, clock: Option<Clock>) -> Option<u64> {
    clock.filter(|_| stats.received % MEASURE_EVERY == 1).map(|clock| clock())
}

#[cfg(test)]
mod tests;
