//! DataflowGraphs: fetched, compiled, started and subscribed; each by itself, so that none waits for another.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use broker_core::packet::QoS;
use broker_core::router::Options;
use config::resource::registry::{Credentials, RegistryHost};
use config::{GraphPlan, Loaded, RegistryPlan};
use metrics::{counter, gauge};
use processing::host::{Host, HostError, Options as HostOptions};
use processing::limits::Limits;
use processing::module::Modules;
use processing::registry::{Auth, Endpoint, Location, PlainHttp, Registry, RegistryError};
use processing::runtime::{GraphError, GraphRuntime};
use tokio::runtime::{Handle, RuntimeFlavor};

use crate::broker::Broker;
use crate::pipeline::{Carry, Dataflow, Source};

/// The first wait before a registry is asked again; doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_secs(1);
/// The longest.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// Everything that graphs are made with.
pub struct Graphs {
    broker: Arc<Broker>,
    modules: Arc<Modules>,
    registry: Registry,
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
    /// The work was cut off.
    #[error("starting it was cut off: {0}")]
    Cut(#[from] tokio::task::JoinError),
}

impl StartError {
    /// AIO's reason code (AIO.md §9.7).
    fn reason_code(&self) -> &'static str {
        match self {
            Self::Fetch(error) => error.reason_code(),
            Self::Definition { .. } => "DataflowGraphConfigurationFailed",
            Self::Graph(error) => error.reason_code(),
            Self::Cut(_) => "DataflowGraphProcessingFailed",
        }
    }
}

impl Graphs {
    /// Sets up what graphs need. `data_dir` keeps fetched artifacts and compiled components.
    ///
    /// # Errors
    /// WebAssembly cannot be set up.
    pub fn new(broker: &Arc<Broker>, data_dir: Option<&Path>) -> Result<Self, HostError> {
        processing::registry::describe_metrics();
        let host = Host::new(HostOptions { on_overrun: Some(Arc::new(step_aside)) })?;
        let modules = Arc::new(Modules::new(host, data_dir.map(|dir| dir.join("compiled"))));
        let registry = Registry::new(data_dir.map(|dir| dir.join("registry")));
        Ok(Self { broker: Arc::clone(broker), modules, registry })
    }

    /// Starts every graph of `loaded` that can run, all at once. Returns when each has been tried; those whose
    /// registry is away are tried again in the background.
    pub async fn start(self: Arc<Self>, loaded: Arc<Loaded>) {
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

    async fn try_again(self: Arc<Self>, loaded: Arc<Loaded>, at: usize) {
        let mut wait = RETRY_MIN;
        loop {
            tokio::time::sleep(wait).await;
            if !self.try_start(&loaded, at).await {
                return;
            }
            wait = (wait * 2).min(RETRY_MAX);
        }
    }

    /// Starts one graph and says how it went. True when it is worth another try.
    async fn try_start(&self, loaded: &Loaded, at: usize) -> bool {
        let plans = loaded.plans();
        let Some(plan) = plans.get(at) else { return false };
        let name = &plan.id.name;
        match self.start_one(plan).await {
            Ok(()) => {
                let from: Vec<String> = plan.sources.iter().map(|s| s.filter.to_string()).collect();
                println!("graph {name}: running, {} → {}", from.join(", "), plan.destination.topic);
                gauge!("aio_dataflow_active_dataflow_graphs").increment(1.0);
                false
            }
            Err(error) => {
                let code = error.reason_code();
                eprintln!("graph {name}: not running ({code}): {error}");
                counter!("aio_dataflow_graph_errors", "dataflow_id" => name.clone(), "error_code" => code)
                    .increment(1);
                matches!(error, StartError::Fetch(_))
            }
        }
    }

    async fn start_one(&self, plan: &GraphPlan<'_>) -> Result<(), StartError> {
        let limits = limits(plan);
        let mut stages: Vec<GraphRuntime<Carry>> = Vec::new();
        for stage in &plan.stages {
            let endpoint = endpoint(&stage.registry);
            let artifact = self.fetch(&endpoint, &stage.artifact.to_string()).await?;
            let graph = definition(&artifact.reference, &artifact.bytes)?;
            let mut bytes = HashMap::new();
            for reference in graph.modules() {
                let module = self.fetch(&endpoint, reference).await?;
                bytes.insert(reference.to_owned(), module.bytes);
            }
            let settings: Vec<(String, String)> =
                stage.configuration.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            for key in graph.unused(&settings) {
                tracing::warn!(graph = %plan.id.name, "no operator has a parameter `{key}`; its value is not used");
            }
            let (modules, limits, name) = (Arc::clone(&self.modules), limits.clone(), plan.id.name.clone());
            // Compiling takes tens of milliseconds and more.
            let started = tokio::task::spawn_blocking(move || {
                GraphRuntime::start(&modules, graph, &bytes, &name, &settings, &limits)
            });
            stages.push(started.await??);
        }
        let topic = plan.destination.topic.clone();
        let flow = Dataflow::new(&plan.id.name, stages, topic, limits.inline_budget, &self.broker);
        let source = Source::new(flow);
        let id = self.broker.number();
        for from in &plan.sources {
            let options = Options {
                qos: QoS::ExactlyOnce,
                no_local: false,
                retain_as_published: true,
                identifier: None,
            };
            self.broker.subscribe_graph(&from.filter.to_string(), id, &source, options);
        }
        Ok(())
    }

    async fn fetch(
        &self,
        endpoint: &Endpoint,
        reference: &str,
    ) -> Result<processing::registry::Artifact, RegistryError> {
        let artifact = self.registry.pull(endpoint, reference).await?;
        if let Some(why) = &artifact.fallback {
            tracing::warn!(
                "{}: taken from the cache, since the registry does not answer: {why}",
                artifact.reference
            );
        }
        Ok(artifact)
    }
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

fn endpoint(plan: &RegistryPlan<'_>) -> Endpoint {
    let mut endpoint = Endpoint::new(match plan.host {
        RegistryHost::Layout(path) => Location::Layout(path.clone()),
        RegistryHost::Remote { authority, prefix } => Location::Remote {
            host: authority.clone(),
            path_prefix: (!prefix.is_empty()).then(|| prefix.clone()),
        },
    });
    if let Credentials::Password { username, password } = &plan.credentials {
        endpoint.auth = Auth::Basic { user: username.clone(), password: password.reveal().to_owned() };
    }
    if plan.plain_http {
        endpoint.plain_http = PlainHttp::Allowed;
    }
    endpoint
}

fn limits(plan: &GraphPlan<'_>) -> Limits {
    let mut limits = Limits::default();
    if let Some(max) = plan.settings.call_deadline {
        limits.call_max = max;
    }
    if let Some(budget) = plan.settings.inline_budget {
        limits.inline_budget = budget;
    }
    if let Some(max) = plan.settings.memory_limit {
        limits.memory_bytes_max = usize::try_from(max).unwrap_or(usize::MAX);
    }
    limits
}

/// A guest holds this thread up: hands the thread's other tasks to another one. Once that is done, doing it
/// again costs nothing.
fn step_aside() {
    if Handle::try_current().is_ok_and(|handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread) {
        // Long enough for the other thread to take over.
        tokio::task::block_in_place(|| std::thread::sleep(Duration::from_micros(100)));
    }
}
