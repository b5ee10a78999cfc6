//! A graph, run under a clock that is moved by hand.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use broker_core::Millis;
use broker_core::hlc::{Clock, Timestamp, TimestampError};
use bytes::Bytes;
use processing::host::{Host, HostError};
use processing::instance::ModuleSchema;
use processing::limits::Limits;
use processing::module::Modules;
use processing::runtime::{Flow, GraphRuntime, Stage};
use processing::state_store::{Set, StateStore};
use processing_core::engine::{ALLOWED_LATENESS_MS, Cause, Outlet};
use processing_core::graph::Graph;
use processing_core::item::{self, Data, Item};
use processing_core::time::Hlc;

use super::envelope::{Incoming, Outgoing};
use super::operators::Operators;

/// The time when the first message has none: 2026-01-01T00:00:01Z, so that windows of whole seconds have just
/// begun.
const START_MS: u64 = 1_767_225_601_000;
/// The user property that carries a message's timestamp (AIO.md §4.2).
const TIMESTAMP: &str = "__ts";

/// Where an item comes from.
#[derive(Debug, Clone)]
pub struct Origin {
    /// Which message it was, from 1.
    pub number: u64,
    /// Its topic.
    pub topic: Arc<str>,
}

/// Takes what becomes of messages.
pub trait Observer {
    /// A message came out.
    fn came_out(&mut self, message: Outgoing);
    /// A message ended at an operation, or before the first (`None`).
    fn ended(&mut self, origin: &Origin, operation: Option<&str>, end: &End);
}

/// Why a message went no further.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// A filter said so.
    Filtered,
    /// It could not be processed; why.
    Dropped(String),
}

/// Compiled operators, shared by graphs that have nothing else in common.
pub struct Workshop {
    modules: Modules,
}

impl Workshop {
    /// Sets WebAssembly up.
    ///
    /// # Errors
    /// It cannot be set up.
    pub fn new() -> Result<Self, HostError> {
        Ok(Self { modules: Modules::new(Host::new(processing::host::Options::default())?, None) })
    }
}

/// What a graph is started with.
pub struct Setup {
    /// Where the definition lies.
    pub file: PathBuf,
    /// The graph.
    pub graph: Graph,
    /// Configured keys and values.
    pub settings: Vec<(String, String)>,
    /// What its state store holds.
    pub state: Vec<(String, String)>,
    /// The schemas that operators get at `init`.
    pub schemas: Vec<ModuleSchema>,
}

/// A running graph and its clock.
pub struct Trial {
    runtime: GraphRuntime<Origin>,
    clock: Clock,
    now_ms: Option<u64>,
    /// Messages so far.
    count: u64,
}

impl Trial {
    /// Starts a graph with a state store of its own.
    ///
    /// # Errors
    /// Why it does not start, in a sentence or more.
    pub fn start(workshop: &Workshop, operators: &Operators, setup: Setup) -> Result<Self, String> {
        let Setup { file, graph, settings, state, schemas } = setup;
        let store = StateStore::default();
        for (key, value) in &state {
            let set = Set { key: key.as_bytes(), value: value.as_bytes(), ..Set::default() };
            store
                .set(&set, Duration::from_millis(START_MS))
                .map_err(|error| format!("the state store does not take the key `{key}`: {error}"))?;
        }
        let bytes = operators.of(&graph, &file)?;
        // A crashed operator is back for the next message, however soon that comes.
        let limits = Limits { restart_wait_min: Duration::ZERO, ..Limits::default() };
        let name = match graph.name() {
            "" => file.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
            name => name.to_owned(),
        };
        let modules = workshop.modules.with_state_store(Arc::new(store));
        let flow = Flow::of(Stage { name, graph, modules: bytes, settings, schemas });
        let mut runtime: GraphRuntime<Origin> =
            GraphRuntime::start_flow(&modules, flow, &limits).map_err(|error| error.to_string())?;
        // What is late here shall be late in a broker, and nothing else.
        runtime.engine().set_lateness_ms(ALLOWED_LATENESS_MS);
        Ok(Self { runtime, clock: Clock::new("forebay"), now_ms: None, count: 0 })
    }

    /// How many messages went in.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// How many items wait inside.
    pub fn held(&mut self) -> usize {
        self.runtime.engine().held()
    }

    /// Moves the clock to the message's timestamp, unless it is past it already, and runs the message through.
    pub fn push(&mut self, message: Incoming, observer: &mut impl Observer) {
        self.count += 1;
        let origin = Origin { number: self.count, topic: message.topic.as_str().into() };
        let stamp = match self.stamp(&message) {
            Ok(stamp) => stamp,
            Err(error) => {
                let why = format!("its user property __ts cannot be used: {error}");
                return observer.ended(&origin, None, &End::Dropped(why));
            }
        };
        let time = Hlc { counter: stamp.counter, ..Hlc::from_millis(stamp.ms, stamp.node) };
        let copy = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        let data = Data::Message(item::Message {
            timestamp: time.clone(),
            topic: copy(&message.topic),
            content_type: message.content_type.as_deref().map(copy),
            payload: message.payload,
            user_properties: message.user_properties.iter().map(|(k, v)| (copy(k), copy(v))).collect(),
            schema: None,
        });
        let now_ms = self.now_ms.unwrap_or(START_MS);
        self.runtime.push_at(Item { time, data, carry: origin }, now_ms, &mut Adapter(observer));
    }

    /// The message's own timestamp, or one of now. The clock goes on to it, never back.
    fn stamp(&mut self, message: &Incoming) -> Result<Timestamp, TimestampError> {
        let carried = message.user_properties.iter().find(|(key, _)| key == TIMESTAMP);
        let own = match carried {
            Some((_, text)) => Some(Timestamp::parse(text)?),
            None => message.timestamp.clone(),
        };
        let Some(stamp) = own else {
            let now_ms = *self.now_ms.get_or_insert(START_MS);
            return Ok(self.clock.now(Millis(now_ms)));
        };
        let now_ms = self.now_ms.unwrap_or(0).max(stamp.ms);
        self.clock.observe(&stamp, Millis(now_ms))?;
        self.now_ms = Some(now_ms);
        Ok(stamp)
    }

    /// Moves the clock to the next moment at which something inside is due. False when nothing is.
    pub fn advance(&mut self, observer: &mut impl Observer) -> bool {
        // What lies so far ahead that no clock comes there is never due.
        let Some(due_ms) = self.runtime.due_ms().filter(|due_ms| self.now_ms.is_none_or(|now| now < *due_ms))
        else {
            return false;
        };
        self.now_ms = Some(due_ms);
        self.runtime.advance(due_ms, &mut Adapter(observer));
        true
    }
}

/// The engine's outlet.
struct Adapter<'a, O>(&'a mut O);

impl<O: Observer> Outlet<Origin> for Adapter<'_, O> {
    fn emit(&mut self, _sink: usize, item: Item<Origin>) {
        self.0.came_out(Outgoing::of(item.data, &item.time, &item.carry.topic));
    }

    fn dropped(&mut self, operation: &str, cause: Cause, origin: &Origin) {
        let end = match cause {
            Cause::Filtered => End::Filtered,
            Cause::Error(error) => End::Dropped(error.to_string()),
            Cause::Late => End::Dropped("it is late: its window has closed".to_owned()),
            Cause::Full => End::Dropped("too much waits for windows to close".to_owned()),
        };
        self.0.ended(origin, Some(operation), &end);
    }
}
