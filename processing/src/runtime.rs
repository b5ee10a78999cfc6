//! Graphs, running: their modules instantiated, initialised and wired.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use processing_core::engine::{BuildError, Engine, Outlet, Stats};
use processing_core::graph::{
    End, Graph, JoinError, Joined, Link, Origin, ParameterError, Part, Start, Wiring,
};
use processing_core::item::Item;
use processing_core::operator::Operator;

use crate::host::Identity;
use crate::instance::{Configuration, Instance, ModuleSchema, StartError};
use crate::limits::Limits;
use crate::module::{ModuleError, Modules};

/// The feature of the host that modules get, declared or not (AIO.md §2.1).
const NN_FEATURE: &str = "wasi-nn";

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
    /// Graphs are connected in a way that they have no ends for.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The engine has nothing to run an operation with.
    #[error(transparent)]
    Build(#[from] BuildError),
}

impl GraphError {
    /// AIO's reason code (AIO.md §9.7).
    pub fn reason_code(&self) -> &'static str {
        match self {
            Self::Module { .. } | Self::Start { .. } => "DataflowGraphInstantiationFailed",
            Self::Parameter(_) | Self::Join(_) | Self::Build(_) => "DataflowGraphConfigurationFailed",
        }
    }
}

/// One graph artifact with everything that it runs with.
#[derive(Debug, Clone)]
pub struct Stage {
    /// Its name, unique in its flow.
    pub name: String,
    /// The graph.
    pub graph: Graph,
    /// The bytes of each module, by reference.
    pub modules: HashMap<String, Bytes>,
    /// The configured keys and values.
    pub settings: Vec<(String, String)>,
    /// The schemas of what comes in.
    pub schemas: Vec<ModuleSchema>,
}

/// Graph artifacts that run as one (AIO.md §5.1).
pub struct Flow {
    /// The name, in logs and metrics.
    pub name: String,
    /// The names of the sources.
    pub sources: Vec<String>,
    /// The graph artifacts.
    pub stages: Vec<Stage>,
    /// The names of the sinks.
    pub sinks: Vec<String>,
    /// How all these are connected: [`Start::Part`] and [`End::Part`] are stages. Those that are checked have a filter
    /// in `checks`.
    pub links: Vec<Link>,
    /// What checks the items of a link, by the link's place.
    pub checks: HashMap<usize, Box<dyn Operator>>,
}

impl Flow {
    /// A single graph, with one source and one sink.
    pub fn of(stage: Stage) -> Self {
        let link = |from, to| Link { from, to, checked: false };
        Self {
            name: stage.name.clone(),
            sources: vec!["source".to_owned()],
            sinks: vec!["sink".to_owned()],
            links: vec![link(Start::Source(0), End::Part(0)), link(Start::Part(0, None), End::Sink(0))],
            stages: vec![stage],
            checks: HashMap::new(),
        }
    }
}

/// A running graph. Items go in and come out with the caller's `C`.
pub struct GraphRuntime<C> {
    engine: Engine<C>,
    digests: HashMap<String, Arc<str>>,
}

/// A graph whose operators need no module.
impl<C> From<Engine<C>> for GraphRuntime<C> {
    fn from(engine: Engine<C>) -> Self {
        Self { engine, digests: HashMap::new() }
    }
}

impl<C: Clone> GraphRuntime<C> {
    /// Starts a single graph. `bytes` has the bytes of each module, by reference; `settings` are the configured keys
    /// and values. Compiles: not for the message path.
    ///
    /// # Errors
    /// The first operation that cannot be started, by name.
    pub fn start(
        modules: &Modules,
        graph: Graph,
        bytes: &HashMap<String, Bytes>,
        name: &str,
        settings: &[(String, String)],
        limits: &Limits,
    ) -> Result<Self, GraphError> {
        let stage = Stage {
            name: name.to_owned(),
            graph,
            modules: bytes.clone(),
            settings: settings.to_vec(),
            schemas: Vec::new(),
        };
        Self::start_flow(modules, Flow::of(stage), limits)
    }

    /// Starts graphs that run as one. Compiles: not for the message path.
    ///
    /// # Errors
    /// The first operation that cannot be started, by name.
    pub fn start_flow(modules: &Modules, mut flow: Flow, limits: &Limits) -> Result<Self, GraphError> {
        let part = |stage: &Stage| Part { name: stage.name.clone(), graph: stage.graph.clone() };
        let wiring = Wiring {
            sources: flow.sources,
            parts: flow.stages.iter().map(part).collect(),
            sinks: flow.sinks,
            links: flow.links,
        };
        let Joined { graph, origins } = wiring.join()?;
        let starter = Starter { modules, limits: Arc::new(limits.clone()), flow: flow.name.as_str().into() };
        let mut digests = HashMap::new();
        let mut operators: Vec<Option<Box<dyn Operator>>> = Vec::new();
        for (origin, node) in origins.iter().zip(graph.nodes()) {
            let name = &node.operation.name;
            operators.push(match *origin {
                Origin::Part(stage, place) => {
                    starter.start(&flow.stages[stage], place, name)?.map(|(operator, digest)| {
                        digests.insert(name.clone(), digest);
                        operator
                    })
                }
                Origin::Check(link) => flow.checks.remove(&link),
                Origin::Source(_) | Origin::Sink(_) => None,
            });
        }
        Ok(Self { engine: Engine::new(graph, operators)?, digests })
    }

    /// The digest of the module that an operation runs, by the operation's name.
    pub fn digest(&self, operation: &str) -> Option<&str> {
        self.digests.get(operation).map(|digest| &**digest)
    }

    /// The engine's settings.
    pub fn engine(&mut self) -> &mut Engine<C> {
        &mut self.engine
    }

    /// Whether items wait inside for time to pass: [`GraphRuntime::advance`] must be called.
    pub fn keeps_items(&self) -> bool {
        self.engine.graph().keeps_items()
    }

    /// Runs an item through the graph from one of its sources, to its end.
    pub fn push_to(&mut self, source: usize, item: Item<C>, outlet: &mut impl Outlet<C>) {
        self.engine.push_to(source, item, outlet);
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

/// An operator, and the digest of its module.
type Started = (Box<dyn Operator>, Arc<str>);

/// What the operators of a flow are started with.
struct Starter<'a> {
    modules: &'a Modules,
    limits: Arc<Limits>,
    flow: Arc<str>,
}

impl Starter<'_> {
    /// Starts the operator of an operation of a stage, which goes by `name`; none for a concatenate. With it comes
    /// the digest of its module.
    fn start(&self, stage: &Stage, place: usize, name: &str) -> Result<Option<Started>, GraphError> {
        let operation = &stage.graph.nodes()[place].operation;
        let Some(reference) = &operation.module else { return Ok(None) };
        let absent = || ModuleError::NotAComponent("it was not fetched".to_owned());
        let module = stage
            .modules
            .get(reference)
            .ok_or_else(absent)
            .and_then(|bytes| self.modules.load(bytes))
            .map_err(|error| GraphError::Module { module: reference.clone(), error })?;
        if module.wants_nn() && !stage.graph.declares(NN_FEATURE) {
            tracing::warn!(graph = %self.flow, operation = name,
                "its module uses {NN_FEATURE}, and gets it; the graph's moduleRequirements.features does not name it");
        }
        let configuration = Configuration {
            properties: stage.graph.parameters(&operation.name, &stage.settings)?,
            schemas: stage.schemas.clone(),
        };
        let identity = Identity { graph: Arc::clone(&self.flow), operation: name.into() };
        let limits = Arc::clone(&self.limits);
        let host = self.modules.host();
        let instance = Instance::start(host, &module, operation.kind, identity, limits, configuration);
        let failed =
            |error| GraphError::Start { operation: name.to_owned(), module: reference.clone(), error };
        Ok(Some((Box::new(instance.map_err(failed)?), module.digest)))
    }
}
