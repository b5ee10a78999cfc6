//! A graph with everything it refers to: what has to be pulled, subscribed and published.

use crate::check::DEFAULT;
use crate::check::graph::connection_source;
use crate::finding::ResourceId;
use crate::load::Loaded;
use crate::resource::common::OperationalMode;
use crate::resource::endpoint::{DataflowEndpoint, EndpointSettings, MqttSettings};
use crate::resource::graph::{ArtifactRef, DataflowGraph, NodeSettings};
use crate::resource::profile::DataflowProfile;
use crate::resource::registry::{Credentials, RegistryAuthentication, RegistryEndpoint, RegistryHost};
use crate::resource::{Resource, Settings, find};
use crate::topic::{Template, TopicFilter};
use std::sync::LazyLock;

/// A graph that can run: sources that lead into one chain of graph artifacts, and one destination.
#[derive(Clone, Debug)]
pub struct GraphPlan<'a> {
    /// The resource.
    pub id: &'a ResourceId,
    /// The subscriptions of all sources.
    pub sources: Vec<SourcePlan<'a>>,
    /// The graph artifacts, in the order in which a message passes them; at least one.
    pub stages: Vec<StagePlan<'a>>,
    /// Where messages go.
    pub destination: DestinationPlan<'a>,
    /// The profile.
    pub profile: &'a DataflowProfile,
    /// Whether the sources' subscriptions are to be persisted.
    pub request_disk_persistence: bool,
    /// This product's own settings.
    pub settings: &'a Settings,
}

/// One subscription.
#[derive(Clone, Debug)]
pub struct SourcePlan<'a> {
    /// The name of the source node.
    pub node: &'a str,
    /// The topic filter.
    pub filter: TopicFilter,
    /// The settings of the endpoint, which is this broker.
    pub endpoint: &'a MqttSettings,
}

/// One graph artifact.
#[derive(Clone, Debug)]
pub struct StagePlan<'a> {
    /// The name of the graph node.
    pub node: &'a str,
    /// The registry.
    pub registry: RegistryPlan<'a>,
    /// The graph artifact.
    pub artifact: &'a ArtifactRef,
    /// Keys and values for the parameters of the graph.
    pub configuration: Vec<(&'a str, &'a str)>,
}

/// How artifacts are pulled.
#[derive(Clone, Debug)]
pub struct RegistryPlan<'a> {
    /// The name of the RegistryEndpoint.
    pub name: &'a str,
    /// The registry.
    pub host: &'a RegistryHost,
    /// What is shown to it.
    pub credentials: Credentials,
    /// Whether HTTP without TLS was allowed by name; on loopback it is anyway.
    pub plain_http: bool,
}

/// Where messages go.
#[derive(Clone, Debug)]
pub struct DestinationPlan<'a> {
    /// The name of the destination node.
    pub node: &'a str,
    /// The topic.
    pub topic: Template,
    /// The settings of the endpoint, which is this broker.
    pub endpoint: &'a MqttSettings,
}

/// What exists without a file, by the name `default`.
struct BuiltIn {
    endpoint: DataflowEndpoint,
    profile: DataflowProfile,
    registry: RegistryEndpoint,
}

static BUILT_IN: LazyLock<BuiltIn> = LazyLock::new(|| BuiltIn {
    endpoint: DataflowEndpoint::local_broker(),
    profile: DataflowProfile::default(),
    registry: RegistryEndpoint::microsoft(),
});

impl<'a> GraphPlan<'a> {
    /// Nothing when the graph is disabled or has errors.
    pub(crate) fn of(graph: &'a Resource<DataflowGraph>, loaded: &'a Loaded) -> Option<Self> {
        if graph.spec.mode == OperationalMode::Disabled || loaded.findings_of(&graph.id).any(|f| f.is_error())
        {
            return None;
        }
        let planner = Planner { loaded, namespace: &graph.id.namespace };
        let mut sources = Vec::new();
        let mut destination = None;
        let mut next = None;
        for node in &graph.spec.nodes {
            match &node.settings {
                NodeSettings::Source(source) => {
                    let endpoint = planner.endpoint(&source.endpoint_ref)?;
                    for text in &source.data_sources {
                        let filter = TopicFilter::parse(text).ok()?;
                        sources.push(SourcePlan { node: &node.name, filter, endpoint });
                    }
                    next = next.or(successor(&graph.spec, &node.name));
                }
                NodeSettings::Destination(settings) => {
                    let topic = Template::parse(&settings.data_destination).ok()?;
                    let endpoint = planner.endpoint(&settings.endpoint_ref)?;
                    destination = Some(DestinationPlan { node: &node.name, topic, endpoint });
                }
                NodeSettings::Graph(_) => {}
            }
        }
        Some(Self {
            id: &graph.id,
            sources,
            stages: planner.stages(&graph.spec, next)?,
            destination: destination?,
            profile: planner.profile(graph),
            request_disk_persistence: graph.spec.request_disk_persistence == OperationalMode::Enabled,
            settings: &graph.meta.settings,
        })
    }
}

/// The node that a connection leads to from `name`.
fn successor<'a>(graph: &'a DataflowGraph, name: &str) -> Option<&'a str> {
    let is_node = |name: &str| graph.nodes.iter().any(|node| node.name.value == name);
    let connections = graph.node_connections.iter();
    let mut from =
        connections.filter(|connection| connection_source(&connection.from.name, is_node).0 == name);
    from.next().map(|connection| connection.to.name.as_str())
}

struct Planner<'a> {
    loaded: &'a Loaded,
    namespace: &'a str,
}

impl<'a> Planner<'a> {
    /// The chain of graph nodes that begins at `next`.
    fn stages(&self, graph: &'a DataflowGraph, mut next: Option<&'a str>) -> Option<Vec<StagePlan<'a>>> {
        let mut stages = Vec::new();
        while let Some(name) = next {
            let node = graph.nodes.iter().find(|node| node.name.value == name)?;
            let NodeSettings::Graph(settings) = &node.settings else { break };
            // Checked graphs have no cycle; this keeps an unchecked one from going round for ever.
            if stages.len() > graph.nodes.len() {
                return None;
            }
            stages.push(StagePlan {
                node: &node.name,
                registry: self.registry(&settings.registry_endpoint_ref)?,
                artifact: &settings.artifact.value,
                configuration: settings
                    .configuration
                    .iter()
                    .map(|parameter| (parameter.key.as_str(), parameter.value.as_str()))
                    .collect(),
            });
            next = successor(graph, name);
        }
        (!stages.is_empty()).then_some(stages)
    }

    fn endpoint(&self, name: &str) -> Option<&'a MqttSettings> {
        let found =
            find(&self.loaded.resources.endpoints, self.namespace, name).map(|endpoint| &endpoint.spec);
        let endpoint = found.or((name == DEFAULT).then(|| &BUILT_IN.endpoint))?;
        match &endpoint.settings {
            EndpointSettings::Mqtt(mqtt) if endpoint.is_local_broker() => Some(mqtt),
            _ => None,
        }
    }

    fn profile(&self, graph: &'a Resource<DataflowGraph>) -> &'a DataflowProfile {
        let owner = graph.meta.owners.iter().find(|owner| owner.kind == "DataflowProfile");
        let name = graph.spec.profile_ref.as_ref().or(owner.map(|owner| &owner.name));
        let name = name.map_or(DEFAULT, |name| name.as_str());
        let found = find(&self.loaded.resources.profiles, self.namespace, name);
        found.map_or(&BUILT_IN.profile, |profile| &profile.spec)
    }

    fn registry(&self, name: &'a str) -> Option<RegistryPlan<'a>> {
        let Some(found) = find(&self.loaded.resources.registries, self.namespace, name) else {
            let host = &BUILT_IN.registry.host;
            let plan = RegistryPlan { name, host, credentials: Credentials::Anonymous, plain_http: false };
            return (name == DEFAULT).then_some(plan);
        };
        let host = &found.spec.host;
        let credentials = match &found.spec.authentication {
            RegistryAuthentication::Anonymous(_) => Credentials::Anonymous,
            RegistryAuthentication::ArtifactPullSecret(settings) => {
                let secret = find(&self.loaded.resources.secrets, self.namespace, &settings.secret_ref)?;
                Credentials::from_secret(&secret.spec, host).ok()?
            }
            // Said at loading: without an identity the registry is asked as anybody would.
            RegistryAuthentication::SystemAssignedManagedIdentity(_)
            | RegistryAuthentication::UserAssignedManagedIdentity(_) => Credentials::Anonymous,
        };
        Some(RegistryPlan { name, host, credentials, plain_http: found.meta.settings.plain_http })
    }
}
