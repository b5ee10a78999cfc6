//! `DataflowGraph` (AIO.md §5.1): sources, graphs and destinations, and how they are connected.

use super::common::{OperationalMode, parsed};
use crate::finding::Report;
use crate::read::{Decode, Fields, Located, Path, choice, record, tagged};
use crate::yaml;
use std::fmt;

record! {
    /// A data flow graph: where messages come from, which graph artifacts work on them, where they go.
    pub struct DataflowGraph {
        /// The profile; without it an owner reference to a profile is expected.
        profile_ref: Option<Located<String>> = "profileRef" optional(),
        /// Whether the graph runs.
        mode: OperationalMode = "mode" or(OperationalMode::Enabled),
        /// Whether the subscription of the sources is persisted.
        request_disk_persistence: OperationalMode = "requestDiskPersistence" or(OperationalMode::Disabled),
        /// The nodes, named uniquely.
        nodes: Vec<GraphNode> = "nodes" required(),
        /// How the nodes are connected.
        node_connections: Vec<NodeConnection> = "nodeConnections" required(),
        /// Files that the graph nodes may see (2026-11-01-preview).
        file_stores: Vec<FileStore> = "fileStores" or(Vec::new()),
    }
}

/// One node of a data flow graph.
#[derive(Clone, Debug, PartialEq)]
pub struct GraphNode {
    /// The name, unique within the graph.
    pub name: Located<String>,
    /// What kind of node it is.
    pub settings: NodeSettings,
}

impl Decode for GraphNode {
    fn decode(node: &yaml::Node, path: &Path<'_>, report: &mut Report) -> Option<Self> {
        let mut fields = Fields::open(node, path, report)?;
        let name: Option<Located<String>> = fields.required("name");
        let settings = NodeSettings::from_fields(&mut fields);
        fields.close()?;
        Some(Self { name: name?, settings: settings? })
    }
}

tagged! {
    /// What a node does.
    pub enum NodeSettings by "nodeType" {
        /// Subscribes.
        Source(SourceSettings) = "Source", "sourceSettings" required(),
        /// Runs a graph artifact.
        Graph(GraphSettings) = "Graph", "graphSettings" required(),
        /// Publishes.
        Destination(DestinationSettings) = "Destination", "destinationSettings" required(),
    }
}

record! {
    /// Where messages come from.
    pub struct SourceSettings {
        /// The endpoint; `default` is this broker.
        endpoint_ref: Located<String> = "endpointRef" required(),
        /// Topic filters (MQTT) or topics (Kafka).
        data_sources: Vec<Located<String>> = "dataSources" required(),
        /// The asset that the schema is taken from.
        asset_ref: Option<Located<String>> = "assetRef" optional(),
    }
}

record! {
    /// Which graph artifact runs, and with which configuration.
    pub struct GraphSettings {
        /// The registry that the artifact and its modules are pulled from.
        registry_endpoint_ref: Located<String> = "registryEndpointRef" required(),
        /// The graph artifact.
        artifact: Located<ArtifactRef> = "artifact" required(),
        /// Values for the parameters of the graph.
        configuration: Vec<Parameter> = "configuration" or(Vec::new()),
    }
}

record! {
    /// A value for a parameter of the graph.
    pub struct Parameter {
        /// The parameter's id, or else its name.
        key: Located<String> = "key" required(),
        /// The value.
        value: String = "value" required(),
    }
}

record! {
    /// Where messages go.
    pub struct DestinationSettings {
        /// The endpoint; `default` is this broker.
        endpoint_ref: Located<String> = "endpointRef" required(),
        /// For MQTT a topic, see [`crate::Template`]; for others a topic, container, table or folder.
        data_destination: Located<String> = "dataDestination" required(),
        /// What is done to the user properties or headers on the way out.
        headers: Vec<HeaderAction> = "headers" or(Vec::new()),
        /// How the output is serialised.
        output_schema_settings: Option<OutputSchema> = "outputSchemaSettings" optional(),
    }
}

/// One change to the user properties or headers of an outgoing message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderAction {
    /// Adds the header unless the message has one of that key.
    AddIfNotPresent {
        /// The key.
        key: String,
        /// The value.
        value: String,
    },
    /// Adds the header, in place of those of that key.
    AddOrReplace {
        /// The key.
        key: String,
        /// The value.
        value: String,
    },
    /// Removes the headers of that key.
    Remove {
        /// The key.
        key: String,
    },
}

choice! {
    /// The name of a header action.
    pub enum HeaderActionType {
        /// See [`HeaderAction::AddIfNotPresent`].
        AddIfNotPresent = "AddIfNotPresent",
        /// See [`HeaderAction::AddOrReplace`].
        AddOrReplace = "AddOrReplace",
        /// See [`HeaderAction::Remove`].
        Remove = "Remove",
    }
}

impl Decode for HeaderAction {
    fn decode(node: &yaml::Node, path: &Path<'_>, report: &mut Report) -> Option<Self> {
        let mut fields = Fields::open(node, path, report)?;
        let action: Option<HeaderActionType> = fields.required("actionType");
        let key: Option<String> = fields.required("key");
        let value = match action {
            Some(HeaderActionType::Remove) => {
                fields.forbid("value", "actionType is `Remove`").map(|()| String::new())
            }
            Some(_) => fields.required("value"),
            None => fields.optional("value")?,
        };
        fields.close()?;
        let (key, value) = (key?, value?);
        Some(match action? {
            HeaderActionType::AddIfNotPresent => Self::AddIfNotPresent { key, value },
            HeaderActionType::AddOrReplace => Self::AddOrReplace { key, value },
            HeaderActionType::Remove => Self::Remove { key },
        })
    }
}

choice! {
    /// How storage destinations are written.
    pub enum OutputFormat {
        /// Parquet files.
        Parquet = "Parquet",
        /// A Delta table.
        Delta = "Delta",
    }
}

record! {
    /// How the output is serialised.
    pub struct OutputSchema {
        /// The format.
        serialization_format: OutputFormat = "serializationFormat" required(),
        /// The schema in the schema registry.
        schema_ref: Option<String> = "schemaRef" optional(),
    }
}

record! {
    /// A connection from one node to another.
    pub struct NodeConnection {
        /// Where it begins.
        from: ConnectionFrom = "from" required(),
        /// Where it ends.
        to: ConnectionTo = "to" required(),
    }
}

record! {
    /// The beginning of a connection.
    pub struct ConnectionFrom {
        /// A node, or `<node>.output.true` or `<node>.output.false` of a graph node that branches.
        name: Located<String> = "name" required(),
        /// What flows through the connection.
        schema: Option<ConnectionSchema> = "schema" optional(),
    }
}

record! {
    /// The end of a connection.
    pub struct ConnectionTo {
        /// A node.
        name: Located<String> = "name" required(),
    }
}

choice! {
    /// How messages on a connection are serialised.
    pub enum SerializationFormat {
        /// Delta.
        Delta = "Delta",
        /// JSON.
        Json = "Json",
        /// Parquet.
        Parquet = "Parquet",
        /// Avro.
        Avro = "Avro",
    }
}

record! {
    /// What flows through a connection.
    pub struct ConnectionSchema {
        /// The format.
        serialization_format: Option<SerializationFormat> = "serializationFormat" optional(),
        /// The schema in the schema registry.
        schema_ref: Option<String> = "schemaRef" optional(),
    }
}

record! {
    /// A volume with files for the graph nodes.
    pub struct FileStore {
        /// The name under which the graph sees it.
        id: String = "id" required(),
        /// The volume.
        persistent_volume_claim_ref: String = "persistentVolumeClaimRef" required(),
        /// A folder of the volume.
        sub_path: Option<SubPath> = "subPath" optional(),
        /// Whether the graph may only read.
        read_only: bool = "readOnly" or(true),
    }
}

/// A relative path that cannot climb out of where it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubPath(pub String);

impl Decode for SubPath {
    fn decode(node: &yaml::Node, path: &Path<'_>, report: &mut Report) -> Option<Self> {
        let text = String::decode(node, path, report)?;
        let climbs =
            text.is_empty() || text.starts_with('/') || text.split(['/', '\\']).any(|part| part == "..");
        let result = if climbs { Err("must be a relative path without `..`".to_owned()) } else { Ok(()) };
        parsed(result, &text, node.position, path, report)?;
        Some(Self(text))
    }
}

/// A reference to an artifact, relative to the host of a registry: `<repository>:<tag>` or
/// `<repository>@<digest>`. Prints as written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ArtifactRef {
    /// The repository, with any path before it.
    pub repository: String,
    /// The tag, or the digest (`sha256:…`).
    pub reference: String,
}

impl ArtifactRef {
    /// Reads a reference.
    ///
    /// # Errors
    /// Says what is wrong with it, in words that follow "`x` is `text`, but".
    pub fn parse(text: &str) -> Result<Self, String> {
        let is_component = |part: &str| {
            let allowed =
                |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
            let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
            part.bytes().all(allowed) && edge(part.bytes().next()) && edge(part.bytes().last())
        };
        let (repository, reference) = match text.split_once('@') {
            Some((repository, digest)) => {
                let hex = digest.strip_prefix("sha256:").unwrap_or_default();
                if hex.len() != 64 || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
                    return Err(
                        "the digest behind `@` must be `sha256:` and 64 hexadecimal digits".to_owned()
                    );
                }
                (repository, digest)
            }
            None => {
                let (repository, tag) = text
                    .rsplit_once(':')
                    .ok_or("must have the form `<name>:<version>`; the version is missing")?;
                let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
                let first = tag.bytes().next().is_some_and(word);
                if tag.len() > 128 || !first || !tag.bytes().all(|b| word(b) || matches!(b, b'.' | b'-')) {
                    return Err("the version behind `:` is no valid tag".to_owned());
                }
                (repository, tag)
            }
        };
        if repository.len() > 255 || !repository.split('/').all(is_component) {
            let rule = "the name may hold lower-case letters, digits, `.`, `_`, `-` and `/` only";
            return Err(format!("{rule} (the registry's host stands in the RegistryEndpoint)"));
        }
        Ok(Self { repository: repository.to_owned(), reference: reference.to_owned() })
    }
}

impl fmt::Display for ArtifactRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = if self.reference.contains(':') { '@' } else { ':' };
        write!(f, "{}{separator}{}", self.repository, self.reference)
    }
}

impl Decode for ArtifactRef {
    fn decode(node: &yaml::Node, path: &Path<'_>, report: &mut Report) -> Option<Self> {
        let text = String::decode(node, path, report)?;
        parsed(Self::parse(&text), &text, node.position, path, report)
    }
}
