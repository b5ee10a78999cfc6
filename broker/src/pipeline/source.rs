//! Where messages come into a graph: its sources, as the router sees them.

use std::sync::{Arc, OnceLock};

use broker_core::message::Message;

use super::Dataflow;
use super::cursor::Cursor;
use super::origin::Origins;

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

/// A message in front of a graph.
pub struct Arrival {
    /// The source it goes in by.
    pub source: usize,
    /// The message.
    pub message: Arc<Message>,
    /// Where it is in the log.
    pub origins: Origins,
}
