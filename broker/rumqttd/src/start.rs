//! Starts the graphs of resources inside a broker: fetches, compiles, subscribes.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use config::{GraphPlan, Loaded, StagePlan, System};
use processing::host::{Host, Options};
use processing::module::Modules;
use processing::registry::Registry;
use processing::runtime::{GraphRuntime, Stage};
use processing::schema::SchemaRegistry;
use processing::state_store::Quota;
use processing_core::graph::{End, Start};
use processing_core::item::MessageSchema;
use rumqttd::Broker;
use tokio::runtime::Runtime;

use crate::flow::{Flow, Running, Tally};

/// Why a graph does not run.
#[derive(Debug, thiserror::Error)]
#[error("graph {graph}: {why}")]
pub struct Fault {
    /// The graph.
    pub graph: String,
    /// What is wrong and what to do about it.
    pub why: String,
}

/// Something that a resource asks for and that there is not in this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Limitation {
    /// `requestDiskPersistence`.
    #[error("its messages are not persisted: this broker keeps nothing on disk")]
    Persistence,
    /// `forebay.dev/order-by`.
    #[error("its messages come in the order in which the broker has them, not in that of __ts")]
    Order,
    /// A connection names a schema.
    #[error("messages are not checked against schemas here")]
    Schemas,
    /// `headers` of a destination.
    #[error("headers of destinations are not changed here")]
    Headers,
}

/// A graph that runs.
#[derive(Debug)]
pub struct Started {
    /// Its name.
    pub graph: String,
    /// Where its messages come from.
    pub from: Vec<String>,
    /// Where what it derives goes.
    pub to: Vec<String>,
    /// What it asks for in vain.
    pub limitations: Vec<Limitation>,
    /// What it did so far.
    pub tally: Arc<Tally>,
}

/// What the clients of the broker speak. rumqttd 0.20 ends its port for 3.1.1, with every client on it, when a message with
/// properties is to go to one of them; so a broker with such a port is given none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// MQTT 5.
    V5,
    /// MQTT 3.1.1.
    V4,
}

/// The graphs' side of a broker.
pub struct Plugin {
    modules: Modules,
    registry: Registry,
    runtime: Runtime,
    protocol: Protocol,
}

impl Plugin {
    /// Sets up what graphs need in a broker whose clients speak `protocol`. `cache` keeps fetched artifacts and compiled
    /// components, if there is a place for them.
    ///
    /// # Errors
    /// WebAssembly, or the runtime that fetches artifacts, cannot be set up.
    pub fn new(protocol: Protocol, cache: Option<PathBuf>) -> Result<Self, String> {
        let host = Host::new(Options {
            on_overrun: None,
            schemas: Arc::new(SchemaRegistry::default()),
            invoker: None,
            quota: Quota { keys_max: Quota::KEYS_MAX_DEFAULT, bytes_max: Quota::BYTES_MAX_DEFAULT },
        });
        let host = host.map_err(|error| error.to_string())?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Ok(Self {
            modules: Modules::new(host, cache.as_ref().map(|dir| dir.join("compiled"))),
            registry: Registry::new(cache.map(|dir| dir.join("registry"))),
            runtime: runtime.map_err(|error| error.to_string())?,
            protocol,
        })
    }

    /// Starts every graph that can run. Each goes on in a thread of its own until the broker is gone.
    pub fn start(&self, broker: &Broker, loaded: &Loaded) -> Vec<Result<Started, Fault>> {
        // Of several instances the first one says that there are none here.
        let plans = loaded.plans();
        let graphs = plans.iter().filter(|plan| plan.id == plan.id.resource());
        graphs.map(|plan| self.start_one(broker, plan)).collect()
    }

    fn start_one(&self, broker: &Broker, plan: &GraphPlan<'_>) -> Result<Started, Fault> {
        let name = &plan.id.name;
        let fault = |why: String| Fault { graph: name.clone(), why };
        check(plan).map_err(fault)?;
        let mut stages = Vec::new();
        for stage in &plan.stages {
            stages.push(self.runtime.block_on(self.fetch(stage)).map_err(fault)?);
        }
        let graph = GraphRuntime::start_flow(
            &self.modules,
            hosting::flow(plan, stages, HashMap::new()),
            &hosting::limits(plan),
        );
        let mut graph = graph.map_err(|error| fault(error.to_string()))?;
        graph.engine().set_lateness_ms(hosting::lateness_ms(plan.settings));
        let tally = Arc::new(Tally::default());
        let flow = Flow {
            name: name.clone(),
            graph,
            sources: sources(plan),
            destinations: plan.destinations.iter().map(|destination| destination.topic.clone()).collect(),
            dead_letter_topic: plan.settings.dead_letter_topic.clone(),
            protocol: self.protocol,
            tally: Arc::clone(&tally),
        };
        let link = broker.link(&format!("forebay.{}.{name}", plan.id.namespace));
        let (mut sender, receiver) =
            link.map_err(|error| fault(format!("the broker gives no link: {error}")))?;
        let from: Vec<String> =
            plan.sources.iter().flat_map(|it| &it.filters).map(ToString::to_string).collect();
        for filter in &from {
            sender.subscribe(filter.clone()).map_err(|error| fault(format!("{filter}: {error}")))?;
        }
        let thread = thread::Builder::new().name(format!("graph {name}"));
        let started = thread.spawn(move || Running::new(flow, sender).run(receiver));
        started.map_err(|error| fault(format!("it has no thread: {error}")))?;
        let to = plan.destinations.iter().map(|destination| destination.topic.to_string()).collect();
        Ok(Started { graph: name.clone(), from, to, limitations: limitations(plan), tally })
    }

    /// Fetches a graph artifact and its modules.
    async fn fetch(&self, stage: &StagePlan<'_>) -> Result<Stage, String> {
        let endpoint = hosting::endpoint(&stage.registry);
        let pull = async |reference: &str| {
            self.registry.pull(&endpoint, reference).await.map_err(|error| error.to_string())
        };
        let artifact = pull(&stage.artifact.to_string()).await?;
        let text =
            std::str::from_utf8(&artifact.bytes).map_err(|_| "the graph definition is no UTF-8 text")?;
        let checked = config::graph_definition(&artifact.reference, text)
            .map_err(|findings| findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
        let mut modules = HashMap::new();
        for reference in checked.graph.modules() {
            modules.insert(reference.to_owned(), pull(reference).await?.bytes);
        }
        let settings = stage.configuration.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Ok(Stage {
            name: stage.node.to_owned(),
            graph: checked.graph,
            modules,
            settings,
            schemas: Vec::new(),
        })
    }
}

/// Whether a graph is between topics of this broker, and once.
fn check(plan: &GraphPlan<'_>) -> Result<(), String> {
    if plan.instances > 1 {
        return Err(format!(
            "its profile asks for {} instances; in this broker a graph has one",
            plan.instances
        ));
    }
    let ends = plan.sources.iter().map(|source| (source.node, &source.system));
    let ends =
        ends.chain(plan.destinations.iter().map(|destination| (destination.node, &destination.system)));
    for (node, system) in ends {
        if let System::Remote(endpoint) = system {
            return Err(format!(
                "its node {node} names {}; here graphs are between topics of this broker only",
                endpoint.id
            ));
        }
    }
    Ok(())
}

fn limitations(plan: &GraphPlan<'_>) -> Vec<Limitation> {
    let asked = [
        (plan.request_disk_persistence, Limitation::Persistence),
        (plan.settings.order_by_timestamp, Limitation::Order),
        (plan.links.iter().any(|link| link.schema_ref.is_some()), Limitation::Schemas),
        (plan.destinations.iter().any(|destination| !destination.headers.is_empty()), Limitation::Headers),
    ];
    asked.into_iter().filter(|(asked, _)| *asked).map(|(_, limitation)| limitation).collect()
}

/// The filters of each source, and the schema that its messages are said to have.
fn sources(plan: &GraphPlan<'_>) -> Vec<(Vec<config::TopicFilter>, Option<MessageSchema>)> {
    let schema = |place: usize| {
        let mut links = plan.links.iter().filter(|link| link.from == Start::Source(place));
        let reference = links.find_map(|link| link.schema_ref.filter(|_| matches!(link.to, End::Part(_))));
        reference.map(|text| MessageSchema::RegistryReference(text.as_bytes().to_vec().into()))
    };
    plan.sources.iter().enumerate().map(|(place, source)| (source.filters.clone(), schema(place))).collect()
}
