//! A graph with everything it refers to: what has to be pulled, subscribed and published.

use crate::check::DEFAULT;
use crate::check::graph::connection_source;
use crate::finding::ResourceId;
use crate::load::Loaded;
use crate::read::Located;
use crate::resource::asset::Asset;
use crate::resource::common::OperationalMode;
use crate::resource::endpoint::{DataflowEndpoint, EndpointSettings, HostType, MqttSettings};
use crate::resource::graph::{
    ArtifactRef, DataflowGraph, DestinationSettings, GraphSettings, HeaderAction, NodeConnection,
    NodeSettings, OutputSchema, SourceSettings,
};
use crate::resource::profile::DataflowProfile;
use crate::resource::registry::{
    Credentials, RegistryAuthentication, RegistryEndpoint, RegistryHost, TrustedKey,
};
use crate::resource::secret::{ConfigMap, Secret};
use crate::resource::{Resource, Settings, find};
use crate::topic::{Template, TopicFilter};
use processing_core::graph::{Arm, End, Start};
use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

/// A graph that can run: sources, graphs and destinations, and how they are connected.
#[derive(Clone, Debug, PartialEq)]
pub struct GraphPlan<'a> {
    /// The resource; or an instance of it ([`ResourceId::instance`]), where there are several.
    pub id: ResourceId,
    /// How many instances there are.
    pub instances: u8,
    /// The sources, in the order in which they were written.
    pub sources: Vec<SourcePlan<'a>>,
    /// The graph artifacts, in that order.
    pub stages: Vec<StagePlan<'a>>,
    /// The destinations, in that order.
    pub destinations: Vec<DestinationPlan<'a>>,
    /// How all these are connected: their places in the lists above.
    pub links: Vec<LinkPlan<'a>>,
    /// The profile.
    pub profile: &'a DataflowProfile,
    /// The copies of messages that the profile asks for.
    pub samples: Option<SamplesPlan<'a>>,
    /// Whether the sources' subscriptions are to be persisted.
    pub request_disk_persistence: bool,
    /// This product's own settings.
    pub settings: &'a Settings,
}

/// Copies of messages that come in, for those who look for a fault (`debuggingSettings`, AIO.md §5.3).
#[derive(Clone, Debug, PartialEq)]
pub struct SamplesPlan<'a> {
    /// Every how manyth message is copied.
    pub nth: u32,
    /// Where the copies go: a topic of an MQTT broker.
    pub to: DestinationPlan<'a>,
}

/// One source.
#[derive(Clone, Debug, PartialEq)]
pub struct SourcePlan<'a> {
    /// The name of the source node.
    pub node: &'a str,
    /// What it reads, as written: topic filters, or the topics of Kafka.
    pub data_sources: Vec<String>,
    /// The topic filters when it reads from this broker; none otherwise.
    pub filters: Vec<TopicFilter>,
    /// Where it reads from.
    pub system: System<'a>,
    /// The schema of its messages, by its asset.
    pub schema_ref: Option<&'a str>,
}

/// What an endpoint is.
#[derive(Clone, Debug, PartialEq)]
pub enum System<'a> {
    /// This broker.
    Local(&'a MqttSettings),
    /// Another system.
    Remote(Box<RemoteEndpoint>),
}

/// An endpoint outside of this broker, with everything it refers to.
#[derive(Clone, Debug, PartialEq)]
pub struct RemoteEndpoint {
    /// The resource.
    pub id: ResourceId,
    /// What the settings are meant for; informative.
    pub host_type: Option<HostType>,
    /// The kind of system and how it is reached.
    pub settings: EndpointSettings,
    /// The Secret that the settings name.
    pub secret: Option<Secret>,
    /// The ConfigMap with certificates to trust that the settings name.
    pub trusted_cas: Option<ConfigMap>,
    /// The Secret with `username` and `password` that `forebay.dev/login` names.
    pub login: Option<Secret>,
    /// Where the token of a service account stands (`forebay.dev/token-file`).
    pub token_file: Option<PathBuf>,
    /// The directory that stands for a volume claim (`forebay.dev/directory`).
    pub directory: Option<PathBuf>,
    /// How long messages are gathered before they are written (`forebay.dev/batch-latency`), where it has no field for that.
    pub batch_latency: Option<Duration>,
}

/// One graph artifact.
#[derive(Clone, Debug, PartialEq)]
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

/// One connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkPlan<'a> {
    /// Where it begins.
    pub from: Start,
    /// Where it ends.
    pub to: End,
    /// The schema of what passes.
    pub schema_ref: Option<&'a str>,
}

/// How artifacts are pulled.
#[derive(Clone, Debug, PartialEq)]
pub struct RegistryPlan<'a> {
    /// The name of the RegistryEndpoint.
    pub name: &'a str,
    /// The registry.
    pub host: &'a RegistryHost,
    /// What is shown to it.
    pub credentials: Credentials,
    /// Whether HTTP without TLS was allowed or forbidden; where nothing is said it is for loopback.
    pub plain_http: Option<bool>,
    /// Certificates that vouch for it (`forebay.dev/ca`).
    pub trusted_cas: Option<ConfigMap>,
    /// Certificates and public keys (PEM) of which one must vouch for what is pulled (`codeSigningCas`, `trustSettings`).
    pub signers: Option<Vec<u8>>,
    /// Others with the same content (`forebay.dev/mirrors`).
    pub mirrors: &'a [RegistryHost],
}

/// Where messages go.
#[derive(Clone, Debug, PartialEq)]
pub struct DestinationPlan<'a> {
    /// The name of the destination node.
    pub node: &'a str,
    /// The topic; for systems other than MQTT brokers, that which the graph gives each message.
    pub topic: Template,
    /// What is written, as it stands there: a topic, a container, a table or a folder.
    pub data_destination: Cow<'a, str>,
    /// Where it writes.
    pub system: System<'a>,
    /// What is done to the user properties or headers of what goes there, in that order.
    pub headers: &'a [HeaderAction],
    /// Format and schema of what is written to storage.
    pub output_schema: Option<&'a OutputSchema>,
}

/// What it reads, and of which endpoint when that is not this broker.
impl fmt::Display for SourcePlan<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.data_sources.join(", "))?;
        self.system.fmt(f)
    }
}

/// Where it writes, and of which endpoint when that is not this broker.
impl fmt::Display for DestinationPlan<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.data_destination)?;
        self.system.fmt(f)
    }
}

/// Nothing for this broker.
impl fmt::Display for System<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(_) => Ok(()),
            Self::Remote(endpoint) => write!(f, " of {}", endpoint.id.name),
        }
    }
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
        let (mut sources, mut stages, mut destinations) = (Vec::new(), Vec::new(), Vec::new());
        for node in &graph.spec.nodes {
            match &node.settings {
                NodeSettings::Source(source) => {
                    let system = planner.system(&source.endpoint_ref)?;
                    let filters = match &system {
                        System::Local(_) => {
                            let parsed = source.data_sources.iter().map(|text| TopicFilter::parse(text).ok());
                            parsed.collect::<Option<_>>()?
                        }
                        System::Remote(_) => Vec::new(),
                    };
                    let data_sources = source.data_sources.iter().map(|text| text.value.clone()).collect();
                    let schema_ref = planner.asset_schema(source);
                    sources.push(SourcePlan { node: &node.name, data_sources, filters, system, schema_ref });
                }
                NodeSettings::Graph(settings) => stages.push(planner.stage(&node.name, settings)?),
                NodeSettings::Destination(settings) => {
                    destinations.push(planner.destination(&node.name, settings)?);
                }
            }
        }
        let profile = planner.profile(graph);
        let names = Names { sources: &sources, stages: &stages, destinations: &destinations };
        let links = graph.spec.node_connections.iter().map(|connection| names.link(connection));
        Some(Self {
            id: graph.id.clone(),
            instances: 1,
            links: links.collect::<Option<_>>()?,
            sources,
            stages,
            destinations,
            profile,
            samples: planner.samples(profile, &graph.id.name)?,
            request_disk_persistence: graph.spec.request_disk_persistence == OperationalMode::Enabled,
            settings: &graph.meta.settings,
        })
    }

    /// An instance for each that the profile asks for. They share the messages of their sources; a persisted graph has one, for
    /// what waits for one that is taken away would be lost.
    pub(crate) fn instances(self) -> Vec<Self> {
        let count = if self.request_disk_persistence { 1 } else { self.profile.instance_count };
        if count == 1 {
            return vec![self];
        }
        let group = format!("forebay.{}.{}", self.id.namespace, self.id.name);
        let instance = |number| {
            let mut plan = Self { id: self.id.instance(number), instances: count, ..self.clone() };
            plan.sources.iter_mut().for_each(|source| source.share(&group));
            plan
        };
        (1..=count).map(instance).collect()
    }
}

impl SourcePlan<'_> {
    /// Shares the messages with others of that group. Kafka has groups of its own.
    fn share(&mut self, group: &str) {
        self.filters.iter_mut().for_each(|filter| *filter = filter.shared_by(group));
        if let System::Remote(endpoint) = &self.system
            && !matches!(endpoint.settings, EndpointSettings::Mqtt(_))
        {
            return;
        }
        for text in &mut self.data_sources {
            if let Ok(filter) = TopicFilter::parse(text) {
                *text = filter.shared_by(group).to_string();
            }
        }
    }
}

/// The nodes by name.
struct Names<'n, 'a> {
    sources: &'n [SourcePlan<'a>],
    stages: &'n [StagePlan<'a>],
    destinations: &'n [DestinationPlan<'a>],
}

impl<'a> Names<'_, 'a> {
    fn link(&self, connection: &'a NodeConnection) -> Option<LinkPlan<'a>> {
        let source = |name: &str| self.sources.iter().position(|node| node.node == name);
        let stage = |name: &str| self.stages.iter().position(|node| node.node == name);
        let destination = |name: &str| self.destinations.iter().position(|node| node.node == name);
        let is_node = |name: &str| source(name).or(stage(name)).or(destination(name)).is_some();
        let (name, arm) = connection_source(&connection.from.name, is_node);
        let arm = arm.map(|arm| if arm { Arm::True } else { Arm::False });
        let from = source(name).map(Start::Source).or(stage(name).map(|at| Start::Part(at, arm)))?;
        let name = connection.to.name.as_str();
        let to = stage(name).map(End::Part).or(destination(name).map(End::Sink))?;
        let named = connection.from.schema.as_ref().and_then(|schema| schema.schema_ref.as_deref());
        let of_asset = || match from {
            Start::Source(at) => self.sources[at].schema_ref,
            Start::Part(..) => None,
        };
        let schema_ref = named.or_else(of_asset);
        Some(LinkPlan { from, to, schema_ref })
    }
}

/// The schemas that an asset has for what a source takes; for what it names none for, that of its annotation.
pub(crate) fn asset_schemas<'a>(asset: &'a Resource<Asset>, source: &SourceSettings) -> Vec<&'a str> {
    let parse = |filter: &Located<String>| TopicFilter::parse(filter).ok();
    let filters: Vec<TopicFilter> = source.data_sources.iter().filter_map(parse).collect();
    let schemas = asset.spec.schemas_at(&filters);
    match schemas.is_empty() {
        true => asset.meta.settings.schema.as_deref().into_iter().collect(),
        false => schemas,
    }
}

/// The topic that a graph gave a message.
const OUTPUT_TOPIC: &str = "${outputTopic}";

struct Planner<'a> {
    loaded: &'a Loaded,
    namespace: &'a str,
}

impl<'a> Planner<'a> {
    fn stage(&self, node: &'a str, settings: &'a GraphSettings) -> Option<StagePlan<'a>> {
        let configuration = settings.configuration.iter();
        Some(StagePlan {
            node,
            registry: self.registry(&settings.registry_endpoint_ref)?,
            artifact: &settings.artifact.value,
            configuration: configuration
                .map(|parameter| (&*parameter.key.value, &*parameter.value))
                .collect(),
        })
    }

    /// The schema that a source's asset names for what it takes.
    fn asset_schema(&self, source: &SourceSettings) -> Option<&'a str> {
        let asset = find(&self.loaded.resources.assets, self.namespace, source.asset_ref.as_deref()?)?;
        match asset_schemas(asset, source)[..] {
            [schema] => Some(schema),
            _ => None,
        }
    }

    fn destination(&self, node: &'a str, settings: &'a DestinationSettings) -> Option<DestinationPlan<'a>> {
        let system = self.system(&settings.endpoint_ref)?;
        let topic = match &system {
            System::Remote(remote) if !matches!(remote.settings, EndpointSettings::Mqtt(_)) => OUTPUT_TOPIC,
            _ => settings.data_destination.as_str(),
        };
        Some(DestinationPlan {
            node,
            topic: Template::parse(topic).ok()?,
            data_destination: settings.data_destination.as_str().into(),
            system,
            headers: &settings.headers,
            output_schema: settings.output_schema_settings.as_ref(),
        })
    }

    fn system(&self, name: &str) -> Option<System<'a>> {
        let Some(found) = find(&self.loaded.resources.endpoints, self.namespace, name) else {
            let EndpointSettings::Mqtt(local) = &BUILT_IN.endpoint.settings else { return None };
            return (name == DEFAULT).then_some(System::Local(local));
        };
        match &found.spec.settings {
            EndpointSettings::Mqtt(mqtt) if found.spec.is_local_broker() => Some(System::Local(mqtt)),
            _ => self.remote(found).map(Box::new).map(System::Remote),
        }
    }

    fn remote(&self, endpoint: &Resource<DataflowEndpoint>) -> Option<RemoteEndpoint> {
        let resources = &self.loaded.resources;
        let secret = match endpoint.spec.secret_ref() {
            Some((_, name)) => Some(find(&resources.secrets, self.namespace, name)?.whole()),
            None => None,
        };
        let trusted_cas = match endpoint.spec.trusted_cas_ref() {
            Some((_, name)) => Some(find(&resources.config_maps, self.namespace, name)?.whole()),
            None => None,
        };
        let login = match &endpoint.meta.settings.login {
            Some(name) => Some(find(&resources.secrets, self.namespace, name)?.whole()),
            None => None,
        };
        Some(RemoteEndpoint {
            id: endpoint.id.clone(),
            host_type: endpoint.spec.host_type,
            settings: endpoint.spec.settings.clone(),
            secret,
            trusted_cas,
            login,
            token_file: endpoint.meta.settings.token_file.as_deref().map(|path| endpoint.beside(path)),
            directory: endpoint.meta.settings.directory.as_deref().map(|path| endpoint.beside(path)),
            batch_latency: endpoint.meta.settings.batch_latency,
        })
    }

    fn profile(&self, graph: &'a Resource<DataflowGraph>) -> &'a DataflowProfile {
        let owner = graph.meta.owners.iter().find(|owner| owner.kind == "DataflowProfile");
        let name = graph.spec.profile_ref.as_ref().or(owner.map(|owner| &owner.name));
        let name = name.map_or(DEFAULT, |name| name.as_str());
        let found = find(&self.loaded.resources.profiles, self.namespace, name);
        found.map_or(&BUILT_IN.profile, |profile| &profile.spec)
    }

    /// Nothing at all when the endpoint cannot be used.
    fn samples(&self, profile: &'a DataflowProfile, graph: &str) -> Option<Option<SamplesPlan<'a>>> {
        let Some(debugging) = profile.debugging() else { return Some(None) };
        let topic = format!("diagnostics/{graph}");
        let to = DestinationPlan {
            node: "debuggingSettings",
            topic: Template::parse(&topic).ok()?,
            data_destination: topic.into(),
            system: self.system(debugging.endpoint())?,
            headers: &[],
            output_schema: None,
        };
        Some(Some(SamplesPlan { nth: debugging.every(), to }))
    }

    fn registry(&self, name: &'a str) -> Option<RegistryPlan<'a>> {
        let Some(found) = find(&self.loaded.resources.registries, self.namespace, name) else {
            let host = &BUILT_IN.registry.host;
            let credentials = Credentials::Anonymous;
            let plan = RegistryPlan {
                name,
                host,
                credentials,
                plain_http: None,
                trusted_cas: None,
                signers: None,
                mirrors: &[],
            };
            return (name == DEFAULT).then_some(plan);
        };
        let host = &found.spec.host;
        let credentials = match &found.spec.authentication {
            RegistryAuthentication::Anonymous(_) => Credentials::Anonymous,
            RegistryAuthentication::ArtifactPullSecret(settings) => {
                let secret = find(&self.loaded.resources.secrets, self.namespace, &settings.secret_ref)?;
                Credentials::from_secret(&secret.whole(), host).ok()?
            }
            RegistryAuthentication::SystemAssignedManagedIdentity(identity) => Credentials::Identity {
                client_id: None,
                tenant: identity.tenant_id.clone(),
                audience: identity.audience.clone(),
            },
            RegistryAuthentication::UserAssignedManagedIdentity(identity) => Credentials::Identity {
                client_id: Some(identity.client_id.clone()),
                tenant: Some(identity.tenant_id.clone()),
                audience: identity.scope.as_ref().map(|scope| scope.trim_end_matches(".default").to_owned()),
            },
        };
        let own = &found.meta.settings;
        let trusted_cas = match &own.ca {
            Some(name) => Some(find(&self.loaded.resources.config_maps, self.namespace, name)?.whole()),
            None => None,
        };
        let (plain_http, mirrors) = (own.plain_http, own.mirrors.as_slice());
        let signers = self.signers(&found.spec)?;
        Some(RegistryPlan { name, host, credentials, plain_http, trusted_cas, signers, mirrors })
    }

    /// The certificates and keys that a registry's content must be signed by; nothing inside when it need not be signed,
    /// nothing at all when some cannot be found.
    fn signers(&self, registry: &RegistryEndpoint) -> Option<Option<Vec<u8>>> {
        let preview = registry.trust_settings.iter().map(|trust| &trust.trusted_signing_keys);
        let bundles = preview.chain(&registry.code_signing_cas).map(|key| match key {
            TrustedKey::Secret(name) => {
                find(&self.loaded.resources.secrets, self.namespace, name).map(|found| found.whole().joined())
            }
            TrustedKey::ConfigMap(name) => find(&self.loaded.resources.config_maps, self.namespace, name)
                .map(|found| found.whole().joined()),
        });
        let bundles = bundles.collect::<Option<Vec<_>>>()?;
        Some((!bundles.is_empty()).then(|| bundles.join(&b'\n')))
    }
}
