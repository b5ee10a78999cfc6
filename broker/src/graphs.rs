//! DataflowGraphs: fetched, compiled, started and subscribed; each by itself, so that none waits for another.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use broker_core::message::Message;
use broker_core::packet::QoS;
use broker_core::reorder::{LATENESS_MS_DEFAULT, LATENESS_MS_MAX, Late, Order};
use bytes::Bytes;
use config::resource::{LateMessages, Settings};
use config::{GraphPlan, Loaded, ResourceId, SourcePlan, StagePlan, System};
use metrics::{counter, gauge};
use parking_lot::Mutex;
use processing::host::{Host, HostError, OnOverrun, Options as HostOptions};
use processing::module::Modules;
use processing::registry::{Artifact, Digest, Endpoint, Registry, RegistryError};
use processing::runtime::{GraphError, GraphRuntime, Stage};
use processing::schema::{SchemaCheck, SchemaRef, SchemaRegistry};
use processing::state_store::{Quota, StateStore};
use processing_core::graph::{End, Start};
use processing_core::item::MessageSchema;
use processing_core::operator::Operator;
use tokio::runtime::{Handle, RuntimeFlavor};

use crate::broker::{Broker, split_share};
use crate::clock;
use crate::health::{Health, State};
use crate::identity;
use crate::pipeline::bridges::{Ends, Making};
use crate::pipeline::cursor::Cursor;
use crate::pipeline::restore::{self, Prepared, Routed};
use crate::pipeline::{Dataflow, Entrance, Parts, Source};
use crate::services::command_invoker::CommandInvokers;
use crate::translate::Carry;
use crate::turn::Turn;

/// The first wait before a registry is asked again; doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_secs(1);
/// The longest.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// Retained messages that are looked up at once.
const RETAINED_BATCH: usize = 256;

/// Everything that graphs are made with.
pub struct Graphs {
    pub(crate) broker: Arc<Broker>,
    modules: Arc<Modules>,
    pub(crate) registry: Registry,
    schemas: Arc<SchemaRegistry>,
    /// Tells this process from others in remote systems.
    process: String,
    /// Where the directories are that stand for volume claims.
    volumes: Option<PathBuf>,
    pub(crate) health: Arc<Health>,
    pub(crate) running: Mutex<Vec<RunningGraph>>,
    /// What was made ready for each graph that does not run yet, and what there is to say about it.
    pub(crate) prepared: Mutex<HashMap<ResourceId, (Prepared, String)>>,
    /// Held by who starts or stops graphs.
    pub(crate) changing: tokio::sync::Mutex<()>,
    /// Counts how often resources were read: what was begun for earlier ones is given up.
    pub(crate) generation: AtomicU64,
}

/// A graph that runs.
#[derive(Clone)]
pub(crate) struct RunningGraph {
    /// The resource.
    pub(crate) id: ResourceId,
    /// What it does.
    pub(crate) flow: Arc<Dataflow>,
    /// The resources that it was made of.
    pub(crate) loaded: Arc<Loaded>,
    /// The topics that lead to it.
    pub(crate) routes: Vec<Routed>,
    /// Its place in the log.
    pub(crate) cursor: Option<Arc<Cursor>>,
    /// What it was made of.
    pub(crate) pulled: Arc<Vec<Pulled>>,
    /// What the one before it was made of, if that was another version of the same.
    pub(crate) previous: Option<Arc<Vec<Pulled>>>,
    /// What is not to take its place: it was given up, or could not be begun.
    pub(crate) refused: Vec<Digest>,
}

/// An artifact that a graph was made of.
#[derive(Clone)]
pub(crate) struct Pulled {
    /// Where it is from.
    pub(crate) endpoint: Endpoint,
    /// As the graph names it.
    pub(crate) reference: String,
    /// What came.
    pub(crate) artifact: Artifact,
}

/// Why a graph does not run.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An artifact cannot be fetched.
    #[error("{0}")]
    Fetch(#[from] RegistryError),
    /// The graph definition is wrong.
    #[error("artifact {artifact} is no graph that can run:\n{findings}")]
    Definition {
        /// Its reference.
        artifact: String,
        /// A line each.
        findings: String,
    },
    /// A module or an operation cannot be started.
    #[error("{0}")]
    Graph(#[from] GraphError),
    /// An endpoint cannot be used as it is.
    #[error("{0}")]
    Endpoint(#[from] bridge::Unusable),
    /// Its windows would be in several instances, each with a part of the messages.
    #[error(
        "profile asks for {0} instances (`instanceCount`), but this graph keeps messages for a time (accumulate, delay, or in \
         order), and each instance would have a part of them only; give it a profile of one instance"
    )]
    Instances(u8),
    /// The work was cut off.
    #[error("starting it was cut off: {0}")]
    Cut(#[from] tokio::task::JoinError),
}

impl StartError {
    /// AIO's reason code (AIO.md §9.7).
    pub(crate) fn reason_code(&self) -> &'static str {
        match self {
            Self::Fetch(error) => error.reason_code(),
            Self::Definition { .. } | Self::Instances(_) => "DataflowGraphConfigurationFailed",
            Self::Graph(error) => error.reason_code(),
            Self::Endpoint(unusable) => unusable.code,
            Self::Cut(_) => "DataflowGraphProcessingFailed",
        }
    }
}

/// A graph that can run, and is not connected yet.
pub(crate) struct Ready {
    graph: GraphRuntime<Carry>,
    /// What leads to and from remote systems, and where its sinks lead to.
    ends: Ends,
    order: Option<Order>,
    inline_budget: Duration,
    /// What there is to say about it while it runs.
    remark: String,
    /// What it is made of.
    pub(crate) pulled: Arc<Vec<Pulled>>,
}

impl Graphs {
    /// Sets up what graphs need. `data_dir` keeps fetched artifacts and compiled components.
    ///
    /// # Errors
    /// WebAssembly cannot be set up.
    pub fn new(
        broker: &Arc<Broker>,
        data_dir: Option<&Path>,
        schemas: Arc<SchemaRegistry>,
        quota: Quota,
        health: Arc<Health>,
    ) -> Result<Self, HostError> {
        processing::registry::describe_metrics();
        bridge::describe_metrics();
        let on_overrun: OnOverrun = Arc::new(step_aside);
        let host = Host::new(HostOptions {
            on_overrun: Some(on_overrun),
            schemas: Arc::clone(&schemas),
            invoker: Some(CommandInvokers::new(broker)),
            quota,
        })?;
        let modules = Arc::new(Modules::new(host, data_dir.map(|dir| dir.join("compiled"))));
        let registry = Registry::new(data_dir.map(|dir| dir.join("registry")));
        let (broker, running, prepared) = (Arc::clone(broker), Mutex::default(), Mutex::default());
        let process = identity::of(data_dir);
        let volumes = data_dir.map(|dir| dir.join("volumes"));
        let (generation, changing) = (AtomicU64::new(0), tokio::sync::Mutex::default());
        Ok(Self {
            broker,
            modules,
            registry,
            schemas,
            process,
            volumes,
            health,
            running,
            prepared,
            changing,
            generation,
        })
    }

    /// The schemas that connections and operators ask for.
    pub fn schemas(&self) -> &SchemaRegistry {
        &self.schemas
    }

    /// The store that operators share with clients.
    pub fn state_store(&self) -> &Arc<StateStore> {
        self.modules.host().state_store()
    }

    /// Brings up to date what is shown of graphs: the metrics of their operations, and how they fare.
    pub fn observe(&self) {
        let running = self.running.lock().clone();
        for RunningGraph { id, flow, .. } in &running {
            flow.show();
            flow.bridges.show(&id.name);
            let crash = || flow.fault().map(|fault| ("DataflowGraphModuleRuntimeFault", fault));
            let old = || flow.warning().map(|warning| ("DataflowGraphConfigurationFailed", warning));
            match flow.bridges.fault().or_else(crash).or_else(old) {
                Some((code, fault)) => self.health.set(id, State::Degraded, Some(code), fault),
                None => self.health.set(id, State::Available, None, flow.remark().to_owned()),
            }
        }
    }

    /// Stops what leads to and from remote systems; what waits there is delivered if that is soon done.
    pub async fn stop_bridges(&self) {
        let flows: Vec<_> = self.running.lock().iter().map(|graph| Arc::clone(&graph.flow)).collect();
        let mut stopping = tokio::task::JoinSet::new();
        for flow in flows {
            stopping.spawn(async move { flow.bridges.stop().await });
        }
        while stopping.join_next().await.is_some() {}
    }

    /// Finds the places in the log of those graphs whose messages are persisted: from now on their messages are taken,
    /// whether they run or not. To be called before anybody can publish. Says what is lost of graphs that are gone.
    pub fn prepare(&self, loaded: &Loaded) -> Vec<String> {
        let mut all = self.prepared.lock();
        for plan in loaded.plans() {
            let (prepared, why) = restore::prepare(&self.broker, &plan, &[]);
            let remark = why.map(|why| why.to_string()).unwrap_or_default();
            if !remark.is_empty() {
                tracing::warn!(graph = %plan.id.name, "{remark}");
            }
            all.insert(plan.id.clone(), (prepared, remark));
        }
        restore::end_others(&self.broker, loaded)
    }

    /// Starts every graph of `loaded` that can run, all at once. Returns when each has been tried; those whose
    /// registry is away are tried again in the background.
    pub async fn start(self: Arc<Self>, loaded: Arc<Loaded>) {
        let _changing = self.changing.lock().await;
        gauge!("aio_dataflow_graphs").set(loaded.plans().len() as f64);
        gauge!("aio_dataflow_version", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        let mut starting = tokio::task::JoinSet::new();
        for at in 0..loaded.plans().len() {
            let (graphs, loaded) = (Arc::clone(&self), Arc::clone(&loaded));
            starting.spawn(async move {
                if graphs.try_start(&loaded, at).await {
                    tokio::spawn(graphs.try_again(loaded, at));
                }
            });
        }
        while starting.join_next().await.is_some() {}
    }

    pub(crate) async fn try_again(self: Arc<Self>, loaded: Arc<Loaded>, at: usize) {
        let mut wait = RETRY_MIN;
        let generation = self.generation.load(Ordering::Acquire);
        loop {
            tokio::time::sleep(wait).await;
            let is_old = generation != self.generation.load(Ordering::Acquire);
            if is_old || !self.try_start(&loaded, at).await {
                return;
            }
            wait = (wait * 2).min(RETRY_MAX);
        }
    }

    /// Starts one graph and says how it went. True when it is worth another try.
    pub(crate) async fn try_start(&self, loaded: &Arc<Loaded>, at: usize) -> bool {
        let plans = loaded.plans();
        let Some(plan) = plans.get(at) else { return false };
        match self.make_ready(plan, &[]).await {
            Ok(ready) => {
                let graph = self.connect(loaded, plan, ready, None);
                graph.flow.bridges.start(&graph.flow);
                self.running.lock().push(graph);
                say_running(plan);
                gauge!("aio_dataflow_active_dataflow_graphs").set(self.running.lock().len() as f64);
                false
            }
            Err(error) => {
                self.say_failed(plan, &error);
                matches!(error, StartError::Fetch(_))
            }
        }
    }

    /// Says why a graph does not run.
    pub(crate) fn say_failed(&self, plan: &GraphPlan<'_>, error: &StartError) {
        let (name, code) = (&plan.id.name, error.reason_code());
        self.health.set(&plan.id, State::Unavailable, Some(code), error.to_string());
        eprintln!("graph {name}: not running ({code}): {error}");
        counter!("aio_dataflow_graph_errors", "dataflow_id" => name.clone(), "error_code" => code)
            .increment(1);
    }

    /// Fetches, compiles and begins what a graph is made of; it is not connected yet. What is among `pinned` is not fetched.
    pub(crate) async fn make_ready(
        &self,
        plan: &GraphPlan<'_>,
        pinned: &[Pulled],
    ) -> Result<Ready, StartError> {
        let limits = hosting::limits(plan);
        let making = Making {
            plan,
            process: &self.process,
            schemas: &self.schemas,
            broker: &self.broker,
            volumes: self.volumes.as_deref(),
        };
        let ends = Ends::new(&making)?;
        let (mut stages, mut pulled) = (Vec::new(), Vec::new());
        for stage in &plan.stages {
            stages.push(self.fetch_stage(plan, stage, pinned, &mut pulled).await?);
        }
        let (checks, remark) = self.checks(plan, &mut stages);
        let flow = hosting::flow(plan, stages, checks);
        let (modules, budget) = (Arc::clone(&self.modules), limits.inline_budget);
        // Compiling takes tens of milliseconds and more.
        let started = tokio::task::spawn_blocking(move || GraphRuntime::start_flow(&modules, flow, &limits));
        let mut graph: GraphRuntime<Carry> = started.await??;
        // What waits for its turn comes later by that.
        let order = order(plan.settings);
        if plan.instances > 1 && (graph.keeps_items() || order.is_some()) {
            return Err(StartError::Instances(plan.instances));
        }
        let waits_ms = order.map_or(0, |order| u64::from(order.max_lateness_ms));
        graph.engine().set_lateness_ms(hosting::lateness_ms(plan.settings).saturating_add(waits_ms));
        Ok(Ready { graph, ends, order, inline_budget: budget, remark, pulled: Arc::new(pulled) })
    }

    /// What checks the connections that name a schema, and what there is to say about those whose schema is not known
    /// here: they let everything pass. The graphs that these connections lead to are told the schemas.
    fn checks(
        &self,
        plan: &GraphPlan<'_>,
        stages: &mut [Stage],
    ) -> (HashMap<usize, Box<dyn Operator>>, String) {
        let mut checks: HashMap<usize, Box<dyn Operator>> = HashMap::new();
        let mut remarks = Vec::new();
        for (place, link) in plan.links.iter().enumerate() {
            let Some(reference) = link.schema_ref else { continue };
            let found = SchemaRef::parse(reference).and_then(|reference| self.schemas.get(&reference));
            let schema = match found {
                Ok(schema) => schema,
                Err(error) => {
                    let remark = format!("{error}: messages of that connection are not checked");
                    tracing::warn!(graph = %plan.id.name, "{remark}");
                    remarks.push(remark);
                    continue;
                }
            };
            if let End::Part(stage) = link.to
                && let Some(stage) = stages.get_mut(stage)
            {
                stage.schemas.push(schema.for_module());
            }
            checks.insert(place, Box::new(SchemaCheck::new(schema, reference)));
        }
        (checks, remarks.join("; "))
    }

    /// Connects a graph that is ready to the topics of its sources and destinations, in place of one that had these
    /// topics before, if there was one. Its bridges do not run yet.
    pub(crate) fn connect(
        &self,
        loaded: &Arc<Loaded>,
        plan: &GraphPlan<'_>,
        ready: Ready,
        before: Option<&RunningGraph>,
    ) -> RunningGraph {
        let Ready { graph, ends: Ends { bridges, exits, samples }, order, inline_budget, remark, pulled } =
            ready;
        let may_wait = graph.keeps_items() || order.is_some() || bridges.lead_out();
        let had = before.map_or(&[][..], |before| &before.routes);
        let (mut prepared, more) = self.prepared.lock().remove(&plan.id).unwrap_or_else(|| {
            let (prepared, why) = restore::prepare(&self.broker, plan, had);
            (prepared, why.map(|why| why.to_string()).unwrap_or_default())
        });
        let asked = plan.profile.instance_count;
        let one = match asked > plan.instances {
            true => format!("its profile asks for {asked} instances; persisted, it has one"),
            false => String::new(),
        };
        let remark = [remark, more, one].into_iter().filter(|remark| !remark.is_empty()).collect::<Vec<_>>();
        let parts = Parts {
            name: &plan.id.name,
            graph,
            entrances: entrances(plan),
            exits,
            samples,
            bridges,
            order,
            dead_letter_topic: plan.settings.dead_letter_topic.clone(),
            inline_budget,
            remark: remark.join("; "),
            cursor: prepared.cursor.clone(),
        };
        let flow = Dataflow::new(parts, &self.broker);
        if may_wait {
            tokio::spawn(Arc::clone(&flow).keep_time());
        }
        prepared.sources.iter().for_each(|source| source.attach(&flow));
        match &prepared.cursor {
            Some(cursor) => {
                cursor.attach(&flow);
                self.broker.persistence().into_iter().for_each(|persistence| persistence.feed(cursor));
            }
            None => prepared.routes = restore::route(&self.broker, plan, &prepared.sources, had),
        }
        if prepared.is_new && before.is_none() {
            for (from, source) in plan.sources.iter().zip(&prepared.sources) {
                self.feed_retained(from.filters.iter().map(ToString::to_string), source);
            }
        }
        let (id, loaded) = (plan.id.clone(), Arc::clone(loaded));
        RunningGraph {
            id,
            flow,
            loaded,
            routes: prepared.routes,
            cursor: prepared.cursor,
            pulled,
            previous: None,
            refused: Vec::new(),
        }
    }

    /// Like any new subscriber, a source gets the retained messages of its topics [MQTT-3.3.1-9]; once, also when several
    /// of its filters match.
    fn feed_retained(&self, filters: impl Iterator<Item = String>, source: &Arc<Source>) {
        let mut turn = Turn::begin(&self.broker, clock::monotonic());
        let mut fed = HashSet::new();
        for filter in filters.filter(|filter| split_share(filter).0.is_none()) {
            // A graph takes them as they come: there is no socket to wait for.
            let mut after: Option<Arc<Message>> = None;
            loop {
                let behind = after.as_ref().map(|message| message.topic());
                let batch = self.broker.retained(&filter, behind, turn.now, RETAINED_BATCH);
                let Some(last) = batch.last() else { break };
                after = Some(Arc::clone(last));
                for message in batch {
                    if fed.insert(message.topic().to_owned()) {
                        turn.feed(source, message);
                    }
                }
            }
        }
        turn.finish();
    }

    /// Fetches a graph artifact and its modules.
    async fn fetch_stage(
        &self,
        plan: &GraphPlan<'_>,
        stage: &StagePlan<'_>,
        pinned: &[Pulled],
        pulled: &mut Vec<Pulled>,
    ) -> Result<Stage, StartError> {
        let endpoint = hosting::endpoint(&stage.registry);
        let artifact = self.fetch(&endpoint, &stage.artifact.to_string(), pinned, pulled).await?;
        let graph = definition(&artifact.reference, &artifact.bytes)?;
        let mut modules = HashMap::new();
        for reference in graph.modules() {
            let module = self.fetch(&endpoint, reference, pinned, pulled).await?;
            modules.insert(reference.to_owned(), module.bytes);
        }
        let settings: Vec<(String, String)> =
            stage.configuration.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        for key in graph.unused(&settings) {
            tracing::warn!(graph = %plan.id.name, "no operator has a parameter `{key}`; its value is not used");
        }
        Ok(Stage { name: stage.node.to_owned(), graph, modules, settings, schemas: Vec::new() })
    }

    async fn fetch(
        &self,
        endpoint: &Endpoint,
        reference: &str,
        pinned: &[Pulled],
        pulled: &mut Vec<Pulled>,
    ) -> Result<Artifact, RegistryError> {
        let pin =
            pinned.iter().find(|it| it.reference == reference && it.endpoint.location == endpoint.location);
        let artifact = match pin {
            Some(pin) => pin.artifact.clone(),
            None => self.registry.pull(endpoint, reference).await?,
        };
        if let Some(why) = &artifact.fallback {
            tracing::warn!(
                "{}: taken from the cache, since the registry does not answer: {why}",
                artifact.reference
            );
        }
        let (endpoint, reference) = (endpoint.clone(), reference.to_owned());
        pulled.push(Pulled { endpoint, reference, artifact: artifact.clone() });
        Ok(artifact)
    }
}

/// Says that a graph runs.
pub(crate) fn say_running(plan: &GraphPlan<'_>) {
    let from: Vec<String> = plan.sources.iter().map(ToString::to_string).collect();
    let to: Vec<String> = plan.destinations.iter().map(ToString::to_string).collect();
    println!("graph {}: running, {} → {}", plan.id.name, from.join(", "), to.join(", "));
}

/// What is known of the messages that come in, by source.
fn entrances(plan: &GraphPlan<'_>) -> Vec<Entrance> {
    let schema = |place: usize| {
        let mut links = plan.links.iter().filter(|link| link.from == Start::Source(place));
        let reference = links.find_map(|link| link.schema_ref)?;
        Some(MessageSchema::RegistryReference(Bytes::copy_from_slice(reference.as_bytes())))
    };
    let qos_max = |source: &SourcePlan<'_>| match &source.system {
        System::Local(settings) => settings.qos.and_then(QoS::from_bits),
        System::Remote(_) => None,
    };
    let entrance = |(place, source)| Entrance { schema: schema(place), qos_max: qos_max(source) };
    plan.sources.iter().enumerate().map(entrance).collect()
}

fn definition(reference: &str, bytes: &[u8]) -> Result<processing_core::graph::Graph, StartError> {
    let wrong = |findings: String| StartError::Definition { artifact: reference.to_owned(), findings };
    let text = std::str::from_utf8(bytes).map_err(|_| wrong("the file is not UTF-8 text".to_owned()))?;
    let checked = config::graph_definition(reference, text).map_err(|findings| {
        let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
        wrong(lines.join("\n"))
    })?;
    for warning in &checked.warnings {
        tracing::warn!("{warning}");
    }
    Ok(checked.graph)
}

/// The order that a graph wants its messages in.
fn order(settings: &Settings) -> Option<Order> {
    let max_lateness_ms = match settings.max_lateness {
        Some(lateness) => u32::try_from(lateness.as_millis()).unwrap_or(LATENESS_MS_MAX),
        None => LATENESS_MS_DEFAULT,
    };
    let late = match settings.late_messages {
        Some(LateMessages::Drop) => Late::Drop,
        Some(LateMessages::Deliver) | None => Late::Deliver,
    };
    settings.order_by_timestamp.then_some(Order { max_lateness_ms, late })
}

/// A guest holds this thread up: hands the thread's other tasks to another one. Once that is done, doing it
/// again costs nothing.
fn step_aside() {
    if Handle::try_current().is_ok_and(|handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread) {
        // Long enough for the other thread to take over.
        tokio::task::block_in_place(|| std::thread::sleep(Duration::from_micros(100)));
    }
}
