//! One graph, running: its definition's modules instantiated, initialised and wired.

use std::collections::HashMap;
use std::sync::Arc;

use processing_core::engine::{BuildError, Engine, Outlet, Stats};
use processing_core::graph::{Graph, ParameterError};
use processing_core::item::Item;
use processing_core::operator::Operator;

use crate::host::Identity;
use crate::instance::{Instance, StartError};
use crate::limits::Limits;
use crate::module::{ModuleError, Modules};

/// A graph cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum GraphError {
    /// A module's bytes are no module.
    #[error("module `{module}`: {error}")]
    Module {
        /// Its reference.
        module: String,
        /// What is wrong with it.
        error: ModuleError,
    },
    /// An operation cannot be started.
    #[error("operation `{operation}` (module `{module}`): {error}")]
    Start {
        /// The operation's name.
        operation: String,
        /// Its module's reference.
        module: String,
        /// Why.
        error: StartError,
    },
    /// A parameter is missing.
    #[error(transparent)]
    Parameter(#[from] ParameterError),
    /// The engine has nothing to run an operation with.
    #[error(transparent)]
    Build(#[from] BuildError),
}

impl GraphError {
    /// AIO's reason code (AIO.md §9.7).
    pub fn reason_code(&self) -> &'static str {
        match self {
            Self::Module { .. } | Self::Start { .. } => "DataflowGraphInstantiationFailed",
            Self::Parameter(_) | Self::Build(_) => "DataflowGraphConfigurationFailed",
        }
    }
}

/// A running graph. Items go in and come out with the caller's `C`.
pub struct GraphRuntime<C> {
    engine: Engine<C>,
}

impl<C: Clone> GraphRuntime<C> {
    /// Starts `graph`. `bytes` has the bytes of each module, by reference; `settings` are the configured keys
    /// and values. Compiles: not for the message path.
    ///
    /// # Errors
    /// The first operation that cannot be started, by name.
    pub fn start(
        modules: &Modules,
        graph: Graph,
        bytes: &HashMap<String, bytes::Bytes>,
        name: &str,
        settings: &[(String, String)],
        limits: &Limits,
    ) -> Result<Self, GraphError> {
        let limits = Arc::new(limits.clone());
        let graph_name: Arc<str> = name.into();
        let mut operators: Vec<Option<Box<dyn Operator>>> = Vec::new();
        for node in graph.nodes() {
            let operation = &node.operation;
            let Some(reference) = &operation.module else {
                operators.push(None);
                continue;
            };
            let absent = || ModuleError::NotAComponent("it was not fetched".to_owned());
            let module = bytes
                .get(reference)
                .ok_or_else(absent)
                .and_then(|bytes| modules.load(bytes))
                .map_err(|error| GraphError::Module { module: reference.clone(), error })?;
            let identity =
                Identity { graph: Arc::clone(&graph_name), operation: operation.name.as_str().into() };
            let parameters = graph.parameters(&operation.name, settings)?;
            let limits = Arc::clone(&limits);
            let instance =
                Instance::start(modules.host(), &module, operation.kind, identity, limits, parameters)
                    .map_err(|error| GraphError::Start {
                        operation: operation.name.clone(),
                        module: reference.clone(),
                        error,
                    })?;
            operators.push(Some(Box::new(instance)));
        }
        Ok(Self { engine: Engine::new(graph, operators)? })
    }

    /// Runs an item through the graph, to its end.
    pub fn push(&mut self, item: Item<C>, outlet: &mut impl Outlet<C>) {
        self.engine.push(item, outlet);
    }

    /// The same, when it is `now_ms` milliseconds since the Unix epoch: windows that are over close first.
    pub fn push_at(&mut self, item: Item<C>, now_ms: u64, outlet: &mut impl Outlet<C>) {
        self.engine.push_at(item, now_ms, outlet);
    }

    /// It is `now_ms` milliseconds since the Unix epoch: windows that are over close.
    pub fn advance(&mut self, now_ms: u64, outlet: &mut impl Outlet<C>) {
        self.engine.advance(now_ms, outlet);
    }

    /// When [`GraphRuntime::advance`] has work next, milliseconds since the Unix epoch; `None` when nothing waits.
    pub fn due_ms(&self) -> Option<u64> {
        self.engine.due_ms()
    }

    /// What each operation has done so far, by name.
    pub fn stats(&self) -> impl Iterator<Item = (&str, Stats)> {
        self.engine.stats()
    }
}
