//! The resources of AIO, and the Secrets and ConfigMaps they refer to, as Kubernetes writes them
//! (AIO.md §5, §6). This reads one document at a time; what they say about each other is `check`'s.

pub mod access;
pub mod asset;
pub mod broker;
pub mod common;
pub mod endpoint;
pub mod graph;
pub mod listener;
pub(crate) mod metadata;
mod mounted;
pub mod profile;
pub mod registry;
pub mod secret;

pub use metadata::{BrokerSettings, DEFAULT_NAMESPACE, LateMessages, Metadata, Settings, TokenKeys};

use crate::finding::{Position, Report, ResourceId, list, quoted};
use crate::pending::report_pending;
use crate::read::{Fields, Located, Path};
use crate::suggest::nearest;
use crate::yaml::{Node, Value};
use access::{BrokerAuthentication, BrokerAuthorization};
use asset::Asset;
use broker::Broker;
use endpoint::DataflowEndpoint;
use graph::DataflowGraph;
use listener::BrokerListener;
use profile::DataflowProfile;
use registry::RegistryEndpoint;
use secret::{ConfigMap, Secret};
use std::collections::BTreeMap;
use std::path;
use std::sync::Arc;

/// A resource: what it is called, where it stood, and what it says.
#[derive(Clone, Debug)]
pub struct Resource<T> {
    /// What it is called.
    pub id: ResourceId,
    /// Its metadata.
    pub meta: Metadata,
    /// The file it stands in.
    pub file: Arc<path::Path>,
    /// Where in the file it begins.
    pub position: Position,
    /// What it says.
    pub spec: T,
}

/// All resources that could be read, by kind, in the order in which they were read.
#[derive(Clone, Debug, Default)]
pub struct Resources {
    /// `DataflowGraph`.
    pub graphs: Vec<Resource<DataflowGraph>>,
    /// `DataflowEndpoint`.
    pub endpoints: Vec<Resource<DataflowEndpoint>>,
    /// `DataflowProfile`.
    pub profiles: Vec<Resource<DataflowProfile>>,
    /// `RegistryEndpoint`.
    pub registries: Vec<Resource<RegistryEndpoint>>,
    /// `Broker`.
    pub brokers: Vec<Resource<Broker>>,
    /// `BrokerListener`.
    pub listeners: Vec<Resource<BrokerListener>>,
    /// `BrokerAuthentication`.
    pub authentications: Vec<Resource<BrokerAuthentication>>,
    /// `BrokerAuthorization`.
    pub authorizations: Vec<Resource<BrokerAuthorization>>,
    /// `Secret`.
    pub secrets: Vec<Resource<Secret>>,
    /// `ConfigMap`.
    pub config_maps: Vec<Resource<ConfigMap>>,
    /// `Asset`.
    pub assets: Vec<Resource<Asset>>,
    /// Every resource that was named, read or not, and where.
    pub(crate) declared: BTreeMap<ResourceId, (Arc<path::Path>, Position)>,
}

impl Resources {
    /// Every resource that was named, whether it could be read or not.
    pub fn declared(&self) -> impl Iterator<Item = &ResourceId> {
        self.declared.keys()
    }
}

/// The resource of that name, in the same namespace.
pub(crate) fn find<'a, T>(list: &'a [Resource<T>], namespace: &str, name: &str) -> Option<&'a Resource<T>> {
    list.iter().find(|resource| resource.id.name == name && resource.id.namespace == namespace)
}

const CONNECTIVITY: &[&str] =
    &["connectivity.iotoperations.azure.com/v1", "connectivity.iotoperations.azure.com/v1beta1"];
const MQTT_BROKER: &[&str] =
    &["mqttbroker.iotoperations.azure.com/v1", "mqttbroker.iotoperations.azure.com/v1beta1"];
const DEVICE_REGISTRY: &[&str] = &[
    "deviceregistry.microsoft.com/v1",
    "deviceregistry.microsoft.com/v1beta1",
    "namespaces.deviceregistry.microsoft.com/v1",
    "namespaces.deviceregistry.microsoft.com/v1beta1",
];
const CORE: &[&str] = &["v1"];

/// The kinds that are read, and the `apiVersion`s of each.
const KINDS: &[(&str, &[&str])] = &[
    ("DataflowGraph", CONNECTIVITY),
    ("DataflowEndpoint", CONNECTIVITY),
    ("DataflowProfile", CONNECTIVITY),
    ("RegistryEndpoint", CONNECTIVITY),
    ("Broker", MQTT_BROKER),
    ("BrokerListener", MQTT_BROKER),
    ("BrokerAuthentication", MQTT_BROKER),
    ("BrokerAuthorization", MQTT_BROKER),
    ("Asset", DEVICE_REGISTRY),
    ("Secret", CORE),
    ("ConfigMap", CORE),
    ("List", CORE),
];

impl Resources {
    /// Reads one document and keeps the resource, if it is one.
    pub(crate) fn read(&mut self, document: &Node, report: &mut Report) {
        report.resource = None;
        self.read_at(document, &Path::ROOT, report);
        report.resource = None;
    }

    fn read_at(&mut self, document: &Node, path: &Path<'_>, report: &mut Report) -> Option<()> {
        if is_graph_definition(document) {
            let message =
                "this is a graph definition, not a resource, and is left out; it belongs into a registry";
            report.warning(document.position, "", message);
            return None;
        }
        if crate::arm::is_body(document) {
            let document = crate::arm::to_kubernetes(document, report)?;
            return self.read_at(&document, path, report);
        }
        let mut fields = Fields::open(document, path, report)?;
        let api_version: Option<Located<String>> = fields.required("apiVersion");
        let kind: Option<Located<String>> = fields.required("kind");
        let (api_version, kind) = (api_version?, kind?);
        check_kind(&api_version, &kind, fields.report)?;
        if kind.value == "List" {
            return self.read_list(fields);
        }
        let id = identify(&kind, document);
        fields.report.resource.clone_from(&id);
        let first = self.declare(id, &kind, fields.report);
        let meta = Metadata::from_fields(&kind, &mut fields);
        self.read_kind(&kind, first.and(meta), fields)?;
        report_pending(&kind, document, report);
        Some(())
    }

    /// The items of a `List`, as `kubectl get -o yaml` prints them.
    fn read_list(&mut self, mut fields: Fields<'_>) -> Option<()> {
        fields.ignore(&["metadata"]);
        let path = fields.path().key("items");
        if let Some(node) = fields.node("items") {
            match &node.value {
                Value::List(items) => {
                    for (index, item) in items.iter().enumerate() {
                        self.read_at(item, &path.item(index), fields.report);
                        fields.report.resource = None;
                    }
                }
                _ => crate::read::mismatch(node, &path, fields.report, "a list"),
            }
        }
        fields.close()
    }

    /// Remembers the name; `None` when it was there before.
    fn declare(&mut self, id: Option<ResourceId>, kind: &Located<String>, report: &mut Report) -> Option<()> {
        let id = id?;
        if let Some((file, position)) = self.declared.get(&id) {
            let place = format!("{}:{}:{}", file.display(), position.line, position.column);
            report.error(kind.position, "metadata.name", format!("{id} is defined twice; first at {place}"));
            return None;
        }
        self.declared.insert(id, (report.file.clone(), kind.position));
        Some(())
    }

    /// Reads what the kind says and keeps it.
    fn read_kind(&mut self, kind: &str, meta: Option<Metadata>, mut fields: Fields<'_>) -> Option<()> {
        fields.ignore(&["status"]);
        let keep = Keep { meta, position: fields.position() };
        match kind {
            "DataflowGraph" => keep.spec(fields.required("spec"), fields, &mut self.graphs),
            "DataflowEndpoint" => keep.spec(fields.required("spec"), fields, &mut self.endpoints),
            "DataflowProfile" => {
                keep.spec(fields.or("spec", DataflowProfile::default()), fields, &mut self.profiles)
            }
            "RegistryEndpoint" => keep.spec(fields.required("spec"), fields, &mut self.registries),
            "Broker" => keep.spec(fields.or("spec", Broker::default()), fields, &mut self.brokers),
            "BrokerListener" => keep.spec(fields.required("spec"), fields, &mut self.listeners),
            "BrokerAuthentication" => keep.spec(fields.required("spec"), fields, &mut self.authentications),
            "BrokerAuthorization" => keep.spec(fields.required("spec"), fields, &mut self.authorizations),
            "Asset" => keep.spec(Asset::from_fields(&mut fields), fields, &mut self.assets),
            "Secret" => keep.spec(Secret::from_fields(&mut fields), fields, &mut self.secrets),
            "ConfigMap" => keep.spec(ConfigMap::from_fields(&mut fields), fields, &mut self.config_maps),
            _ => None,
        }
    }
}

/// What is known of a resource before its spec.
struct Keep {
    meta: Option<Metadata>,
    position: Position,
}

impl Keep {
    fn spec<T>(self, spec: Option<T>, fields: Fields<'_>, list: &mut Vec<Resource<T>>) -> Option<()> {
        let (id, file) = (fields.report.resource.clone(), fields.report.file.clone());
        fields.close()?;
        list.push(Resource { id: id?, meta: self.meta?, file, position: self.position, spec: spec? });
        Some(())
    }
}

fn check_kind(api_version: &Located<String>, kind: &Located<String>, report: &mut Report) -> Option<()> {
    let Some((_, versions)) = KINDS.iter().find(|(name, _)| *name == kind.value) else {
        let names = || KINDS.iter().map(|(name, _)| *name);
        let hint = match nearest(kind, names()) {
            Some(name) => format!("did you mean `{name}`?"),
            None => format!("known are {}", list(names().filter(|name| *name != "List"))),
        };
        report.error(kind.position, "kind", format!("the kind {} is not known; {hint}", quoted(kind)));
        return None;
    };
    if !versions.contains(&api_version.as_str()) {
        let (found, kind) = (quoted(api_version), quoted(kind));
        let message =
            format!("`apiVersion` is {found}, but for {kind} it must be one of {}", list(*versions));
        report.error(api_version.position, "apiVersion", message);
        return None;
    }
    Some(())
}

/// Which resource a document is, if it says so, before its metadata is known to be right.
fn identify(kind: &str, document: &Node) -> Option<ResourceId> {
    let metadata = child(document, "metadata")?;
    let text = |key| match &child(metadata, key)?.value {
        Value::String(text) => Some(text.clone()),
        _ => None,
    };
    let namespace = text("namespace").unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
    Some(ResourceId { kind: kind.to_owned(), namespace, name: text("name")? })
}

fn child<'a>(node: &'a Node, name: &str) -> Option<&'a Node> {
    match &node.value {
        Value::Map(entries) => entries.iter().find(|(key, _)| key.name == name).map(|(_, value)| value),
        _ => None,
    }
}

/// Whether a document is what `definition` reads, which people keep beside their resources.
fn is_graph_definition(document: &Node) -> bool {
    child(document, "apiVersion").is_none()
        && ["moduleRequirements", "operations", "connections"]
            .iter()
            .all(|key| child(document, key).is_some())
}
