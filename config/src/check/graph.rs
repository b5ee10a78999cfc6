//! Whether a data flow graph can run: its names, its connections, its topics.

use super::{Check, DEFAULT, Found};
use crate::finding::{Position, Report, ResourceId, list, quoted};
use crate::plan::asset_schemas;
use crate::read::Located;
use crate::resource::endpoint::{DataflowEndpoint, EndpointSettings, KafkaSettings};
use crate::resource::graph::{
    DataflowGraph, DestinationSettings, GraphSettings, NodeConnection, NodeSettings, SourceSettings,
};
use crate::resource::{Resource, find};
use crate::topic::{Template, TopicFilter};
use std::collections::{BTreeMap, BTreeSet};

impl<'a> Check<'a> {
    pub(super) fn graph(&mut self, graph: &'a Resource<DataflowGraph>) {
        self.profile(graph);
        for (index, node) in graph.spec.nodes.iter().enumerate() {
            let key = format!("spec.nodes[{index}]");
            match &node.settings {
                NodeSettings::Source(source) => self.source(graph, &key, source),
                NodeSettings::Graph(settings) => self.graph_node(graph, &key, settings),
                NodeSettings::Destination(destination) => self.destination(graph, &key, destination),
            }
        }
        self.tell(graph, |report| Topology::of(graph, report).check());
        let local = |name: &Located<String>| {
            let found = find(&self.resources.endpoints, &graph.id.namespace, name);
            found.is_none_or(|endpoint| endpoint.spec.is_local_broker())
        };
        let mut loops = Vec::new();
        find_loops(&graph.spec, local, |position, key, message| loops.push((position, key, message)));
        for (position, key, message) in loops {
            self.tell(graph, |report| report.warning(position, key, message));
        }
    }

    fn profile(&mut self, graph: &'a Resource<DataflowGraph>) {
        let owner = graph.meta.owners.iter().find(|owner| owner.kind == "DataflowProfile");
        match (&graph.spec.profile_ref, owner) {
            (Some(name), _) => {
                let _ = self.follow(graph, "spec.profileRef", name, "DataflowProfile", |r| &r.profiles, true);
            }
            (None, Some(owner)) => {
                let (key, name) = ("metadata.ownerReferences", &owner.name);
                let _ = self.follow(graph, key, name, "DataflowProfile", |r| &r.profiles, true);
            }
            (None, None) => {
                let message = format!(
                    "`spec.profileRef` is missing and no profile owns the graph; `{DEFAULT}` is used"
                );
                self.tell(graph, |report| report.warning(graph.position, "spec.profileRef", message));
                let name = Located { value: DEFAULT.to_owned(), position: graph.position };
                let _ =
                    self.follow(graph, "spec.profileRef", &name, "DataflowProfile", |r| &r.profiles, true);
            }
        }
    }

    /// What the endpoint is, if a node may use it so; reported if not.
    fn endpoint_of(
        &mut self,
        graph: &'a Resource<DataflowGraph>,
        key: &str,
        name: &Located<String>,
        may: fn(&EndpointSettings) -> bool,
        side: &str,
    ) -> Option<Kind<'a>> {
        let list_of = |resources: &'a crate::resource::Resources| resources.endpoints.as_slice();
        match self.follow::<DataflowEndpoint, _>(graph, key, name, "DataflowEndpoint", list_of, true) {
            Found::BuiltIn => Some(Kind::Local),
            Found::Nothing => None,
            Found::Resource(endpoint) if endpoint.spec.is_local_broker() => Some(Kind::Local),
            Found::Resource(endpoint) if may(&endpoint.spec.settings) => {
                Some(Kind::Remote(&endpoint.spec.settings))
            }
            Found::Resource(endpoint) => {
                let kind = endpoint.spec.settings.type_name();
                let message = format!(
                    "`{key}` names {}, but an endpoint of type {kind} cannot be a {side}",
                    endpoint.id
                );
                self.tell(graph, |report| report.error(name.position, key, message));
                None
            }
        }
    }

    fn source(&mut self, graph: &'a Resource<DataflowGraph>, key: &str, source: &SourceSettings) {
        let key = format!("{key}.sourceSettings");
        let (at, name) = (format!("{key}.endpointRef"), &source.endpoint_ref);
        self.asset(graph, &key, source);
        let Some(kind) = self.endpoint_of(graph, &at, name, EndpointSettings::can_be_source, "source") else {
            return;
        };
        self.tell(graph, |report| {
            if source.data_sources.is_empty() {
                let key = format!("{key}.dataSources");
                report.error(
                    source.endpoint_ref.position,
                    &key,
                    format!("`{key}` is empty; name a topic filter"),
                );
            }
            if let Kind::Remote(EndpointSettings::Kafka(kafka)) = kind {
                return kafka_source(kafka, &key, source, report);
            }
            for (index, filter) in source.data_sources.iter().enumerate() {
                if let Err(fault) = TopicFilter::parse(filter) {
                    let key = format!("{key}.dataSources[{index}]");
                    let message = format!("`{key}` is {}, but {fault}", quoted(filter));
                    report.error(filter.position, key, message);
                }
            }
        });
    }

    /// An asset gives a source its schema, when it names exactly one.
    fn asset(&mut self, graph: &'a Resource<DataflowGraph>, key: &str, source: &SourceSettings) {
        let Some(name) = &source.asset_ref else { return };
        let key = format!("{key}.assetRef");
        let is_there = |id: &ResourceId| {
            id.kind == "Asset" && id.namespace == graph.id.namespace && id.name == name.value
        };
        // Assets are often kept elsewhere.
        if !self.resources.declared().any(is_there) {
            let message = format!(
                "`{key}` names the Asset {}, which is not among the resources: no schema is taken from it",
                quoted(name)
            );
            return self.tell(graph, |report| report.warning(name.position, key, message));
        }
        let Found::Resource(asset) = self.follow(graph, &key, name, "Asset", |r| &r.assets, false) else {
            return;
        };
        let message = match &asset_schemas(asset, source)[..] {
            [_] => return,
            [] => format!(
                "`{key}` names {}, which has no schema: neither does its status name one (`messageSchemaReference`) nor \
                 its annotation `forebay.dev/schema`",
                asset.id
            ),
            several => format!(
                "`{key}` names {}, which has several schemas for these topics: {}; say which with `schemaRef` of the \
                 connection",
                asset.id,
                list(several)
            ),
        };
        self.tell(graph, |report| report.warning(name.position, key, message));
    }

    fn graph_node(&mut self, graph: &'a Resource<DataflowGraph>, key: &str, settings: &GraphSettings) {
        let key = format!("{key}.graphSettings");
        let (at, name) = (format!("{key}.registryEndpointRef"), &settings.registry_endpoint_ref);
        self.follow(graph, &at, name, "RegistryEndpoint", |r| &r.registries, true);
        let mut seen = BTreeSet::new();
        for (index, parameter) in settings.configuration.iter().enumerate() {
            if !seen.insert(parameter.key.as_str()) {
                let key = format!("{key}.configuration[{index}].key");
                let message = format!("the configuration key {} stands twice", quoted(&parameter.key));
                self.tell(graph, |report| report.error(parameter.key.position, key, message));
            }
        }
    }

    fn destination(
        &mut self,
        graph: &'a Resource<DataflowGraph>,
        key: &str,
        destination: &DestinationSettings,
    ) {
        let key = format!("{key}.destinationSettings");
        let (at, name) = (format!("{key}.endpointRef"), &destination.endpoint_ref);
        let may = EndpointSettings::can_be_destination;
        let Some(kind) = self.endpoint_of(graph, &at, name, may, "destination") else { return };
        self.output_schema(graph, &key, destination, &kind);
        let topic = &destination.data_destination;
        if !matches!(kind, Kind::Local | Kind::Remote(EndpointSettings::Mqtt(_))) {
            if topic.contains("${") {
                let key = format!("{key}.dataDestination");
                let message = format!(
                    "`{key}` is {}, but variables are for MQTT only; what is written elsewhere has one name",
                    quoted(topic)
                );
                self.tell(graph, |report| report.error(topic.position, key, message));
            }
            return;
        }
        if let Err(fault) = Template::parse(topic) {
            let key = format!("{key}.dataDestination");
            let message = format!("`{key}` is {}, but {fault}", quoted(topic));
            self.tell(graph, |report| report.error(topic.position, key, message));
        }
    }
}

impl<'a> Check<'a> {
    /// Storage is written in a format by a schema; nothing else is (AIO.md §7.3).
    fn output_schema(
        &mut self,
        graph: &'a Resource<DataflowGraph>,
        key: &str,
        destination: &DestinationSettings,
        kind: &Kind<'_>,
    ) {
        let at = format!("{key}.outputSchemaSettings");
        let is_storage = matches!(kind, Kind::Remote(settings) if settings.is_storage());
        let message = match (&destination.output_schema_settings, is_storage) {
            (None, false) => return,
            (Some(output), true) if output.schema_ref.is_some() => return,
            (Some(_), true) => format!("`{at}.schemaRef` is missing; storage is written by a schema"),
            (None, true) => format!("`{at}` is missing; storage is written as Parquet or Delta, by a schema"),
            (Some(_), false) => {
                format!("`{at}` is for storage only; messages go out as the graph makes them")
            }
        };
        self.tell(graph, |report| report.error(destination.endpoint_ref.position, at, message));
    }
}

/// Topics of Kafka have exact names, and who reads them belongs to a group.
fn kafka_source(kafka: &KafkaSettings, key: &str, source: &SourceSettings, report: &mut Report) {
    if kafka.consumer_group_id.is_none() {
        let key = format!("{key}.endpointRef");
        let message = "Kafka type source endpoints must have a consumerGroupId defined".to_owned();
        report.error(source.endpoint_ref.position, key, message);
    }
    for (index, topic) in source.data_sources.iter().enumerate() {
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if topic.is_empty() || topic.len() > 249 || !topic.bytes().all(legal) {
            let key = format!("{key}.dataSources[{index}]");
            let message = format!(
                "`{key}` is {}, but a topic of Kafka has 1 to 249 letters, digits, `.`, `_` and `-`",
                quoted(topic)
            );
            report.error(topic.position, key, message);
        }
    }
}

/// What an endpoint is.
enum Kind<'a> {
    /// This broker.
    Local,
    /// Another system.
    Remote(&'a EndpointSettings),
}

/// Tells where a graph subscribes to what it publishes.
fn find_loops(
    graph: &DataflowGraph,
    local: impl Fn(&Located<String>) -> bool,
    mut tell: impl FnMut(Position, String, String),
) {
    let filters: Vec<(&str, TopicFilter)> = graph
        .nodes
        .iter()
        .filter_map(|node| match &node.settings {
            NodeSettings::Source(source) => local(&source.endpoint_ref).then_some(&source.data_sources),
            _ => None,
        })
        .flatten()
        .filter_map(|text| Some((text.as_str(), TopicFilter::parse(text).ok()?)))
        .collect();
    for (index, node) in graph.nodes.iter().enumerate() {
        let NodeSettings::Destination(destination) = &node.settings else { continue };
        let topic = &destination.data_destination;
        if !local(&destination.endpoint_ref) {
            continue;
        }
        let Ok(template) = Template::parse(topic) else { continue };
        let Some(name) = template.as_static() else { continue };
        if let Some((text, _)) = filters.iter().find(|(_, filter)| filter.matches(name)) {
            let key = format!("spec.nodes[{index}].destinationSettings.dataDestination");
            let message = format!(
                "a loop: the graph publishes to {}, which its own source {} matches",
                quoted(name),
                quoted(text)
            );
            tell(topic.position, key, message);
        }
    }
}

/// The name that the beginning of a connection means, and the arm of a branching graph, if any.
pub(crate) fn connection_source(name: &str, is_node: impl Fn(&str) -> bool) -> (&str, Option<bool>) {
    // A node may be called so itself.
    if is_node(name) {
        return (name, None);
    }
    for (suffix, arm) in [(".output.true", true), (".output.false", false)] {
        if let Some(node) = name.strip_suffix(suffix) {
            return (node, Some(arm));
        }
    }
    (name, None)
}

/// More than this is no graph that somebody wrote, and the checks below take the square of it.
const PARTS_MAX: usize = 1000;

/// The connections of a graph, node by node.
struct Topology<'g, 'r> {
    graph: &'g DataflowGraph,
    /// Where the graph begins in its file.
    position: Position,
    report: &'r mut Report,
    /// Index of each node by name; the first of that name.
    index: BTreeMap<&'g str, usize>,
    /// Connections that are legal: from, to, where.
    edges: Vec<(usize, usize, Position)>,
    /// The outputs that they begin at, beside the edges.
    outputs: Vec<Option<bool>>,
}

impl<'g, 'r> Topology<'g, 'r> {
    fn of(graph: &'g Resource<DataflowGraph>, report: &'r mut Report) -> Self {
        let (graph, position) = (&graph.spec, graph.position);
        Self { graph, position, report, index: BTreeMap::new(), edges: Vec::new(), outputs: Vec::new() }
    }

    fn check(mut self) {
        let parts = self.graph.nodes.len().max(self.graph.node_connections.len());
        if parts > PARTS_MAX {
            let message = format!("a graph may have at most {PARTS_MAX} nodes and connections");
            return self.report.error(self.position, "spec.nodes", message);
        }
        self.names();
        self.presence();
        for (index, connection) in self.graph.node_connections.iter().enumerate() {
            self.connection(index, connection);
        }
        // A fault above makes faults below that would vanish with it.
        if self.report.findings.is_empty() {
            self.ends();
            self.cycles();
        }
    }

    fn error_at_node(&mut self, node: usize, message: String) {
        let position = self.graph.nodes[node].name.position;
        self.report.error(position, format!("spec.nodes[{node}].name"), message);
    }

    fn name(&self, node: usize) -> String {
        quoted(&self.graph.nodes[node].name)
    }

    fn names(&mut self) {
        for (number, node) in self.graph.nodes.iter().enumerate() {
            if self.index.contains_key(node.name.as_str()) {
                self.error_at_node(number, format!("the node name {} stands twice", self.name(number)));
            } else {
                self.index.insert(&node.name, number);
            }
        }
    }

    fn presence(&mut self) {
        let has =
            |wanted: fn(&NodeSettings) -> bool| self.graph.nodes.iter().any(|node| wanted(&node.settings));
        let missing: Vec<_> = [
            ("Source", has(|s| matches!(s, NodeSettings::Source(_)))),
            ("Graph", has(|s| matches!(s, NodeSettings::Graph(_)))),
            ("Destination", has(|s| matches!(s, NodeSettings::Destination(_)))),
        ]
        .into_iter()
        .filter(|(_, present)| !present)
        .map(|(name, _)| name)
        .collect();
        if !missing.is_empty() {
            let position = self.graph.nodes.first().map_or(self.position, |node| node.name.position);
            let message = format!("the graph has no node of type {}", list(missing));
            self.report.error(position, "spec.nodes", message);
        }
    }

    fn connection(&mut self, number: usize, connection: &'g NodeConnection) {
        let key = |end: &str| format!("spec.nodeConnections[{number}].{end}.name");
        let (from, arm) = connection_source(&connection.from.name, |name| self.index.contains_key(name));
        let position = connection.from.name.position;
        let from = self.node(key("from"), from, position);
        let to = self.node(key("to"), &connection.to.name, connection.to.name.position);
        let (Some(from), Some(to)) = (from, to) else { return };
        let ends = (&self.graph.nodes[from].settings, &self.graph.nodes[to].settings);
        if arm.is_some() && !matches!(ends.0, NodeSettings::Graph(_)) {
            let message = format!("{} is no Graph node and has no `.output.…`", self.name(from));
            return self.report.error(position, key("from"), message);
        }
        let legal = matches!(
            ends,
            (NodeSettings::Source(_) | NodeSettings::Graph(_), NodeSettings::Graph(_))
                | (NodeSettings::Graph(_), NodeSettings::Destination(_))
        );
        if !legal {
            let (from, to) = (describe(ends.0), describe(ends.1));
            let message = format!(
                "a {from} cannot be connected to a {to}; the way is from Source by Graph to Destination"
            );
            return self.report.error(position, key("from"), message);
        }
        let mut before = self.edges.iter().zip(&self.outputs);
        if before.any(|(edge, output)| (edge.0, edge.1, *output) == (from, to, arm)) {
            let message = format!("{} and {} are connected twice", self.name(from), self.name(to));
            return self.report.error(position, key("from"), message);
        }
        self.edges.push((from, to, position));
        self.outputs.push(arm);
    }

    fn node(&mut self, key: String, name: &str, position: Position) -> Option<usize> {
        if let Some(index) = self.index.get(name) {
            return Some(*index);
        }
        let known = list(self.index.keys());
        let message =
            format!("`{key}` names the node {}, which does not exist; known are {known}", quoted(name));
        self.report.error(position, key, message);
        None
    }

    /// Every node must lie on a way from a source to a destination.
    fn ends(&mut self) {
        for node in 0..self.graph.nodes.len() {
            let has_input = self.edges.iter().any(|edge| edge.1 == node);
            let has_output = self.edges.iter().any(|edge| edge.0 == node);
            let settings = &self.graph.nodes[node].settings;
            if !has_input && !matches!(settings, NodeSettings::Source(_)) {
                self.error_at_node(node, format!("no connection leads to the node {}", self.name(node)));
            }
            if !has_output && !matches!(settings, NodeSettings::Destination(_)) {
                self.error_at_node(node, format!("no connection leads from the node {}", self.name(node)));
            }
        }
    }

    /// Graph nodes may be chained, but not to themselves.
    fn cycles(&mut self) {
        let mut open: Vec<_> = self.edges.clone();
        loop {
            // Edges into nodes that nothing leads on from are on no cycle.
            let leading: BTreeSet<_> = open.iter().map(|edge| edge.0).collect();
            let before = open.len();
            open.retain(|edge| leading.contains(&edge.1));
            if open.len() == before {
                break;
            }
        }
        let entered: BTreeSet<_> = open.iter().map(|edge| edge.1).collect();
        if let Some(edge) = open.iter().find(|edge| entered.contains(&edge.0)) {
            let message = format!("the connection from {} closes a cycle", self.name(edge.0));
            self.report.error(edge.2, "spec.nodeConnections", message);
        }
    }
}

fn describe(settings: &NodeSettings) -> &'static str {
    match settings {
        NodeSettings::Source(_) => "Source",
        NodeSettings::Graph(_) => "Graph",
        NodeSettings::Destination(_) => "Destination",
    }
}
