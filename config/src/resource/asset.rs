//! `Asset` of Azure's device registry: what schema a device's messages have. Read as far as a data flow's `assetRef` needs it;
//! the rest of it is for whoever talks to the device.

use crate::read::{Decode, Fields, record};
use crate::topic::TopicFilter;
use crate::yaml::{Node, Value};

/// What a device publishes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Asset {
    /// Its data, set by set.
    pub datasets: Vec<Dataset>,
}

/// Data of one shape.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    /// What it is called.
    pub name: String,
    /// Where it is published, as far as that is said.
    pub topics: Vec<String>,
    /// Its schema, `aio-sr://<namespace>/<name>:<version>`.
    pub schema: Option<String>,
}

record! {
    /// A schema, as the status of an Asset names it.
    pub struct MessageSchemaReference {
        /// The name.
        schema_name: String = "schemaName" required(),
        /// The registry's namespace.
        schema_registry_namespace: String = "schemaRegistryNamespace" required(),
        /// The version.
        schema_version: String = "schemaVersion" required(),
    }
}

impl Asset {
    /// Reads the `spec` and `status` of an Asset document.
    pub(crate) fn from_fields(fields: &mut Fields<'_>) -> Option<Self> {
        let path = fields.path().key("status");
        let path = path.key("datasets");
        let (spec, status) = (fields.node("spec"), fields.node("status"));
        let default_topic = spec.and_then(|spec| text(at(at(spec, "defaultTopic")?, "path")?));
        let told = status.and_then(|status| items(status, "datasets")).unwrap_or_default();
        let mut datasets = Vec::new();
        for dataset in spec.and_then(|spec| items(spec, "datasets")).unwrap_or_default() {
            let Some(name) = at(dataset, "name").and_then(text) else { continue };
            let mut topics = topics_of(dataset);
            if topics.is_empty() {
                topics.extend(default_topic.clone());
            }
            datasets.push(Dataset { name, topics, schema: None });
        }
        for (index, dataset) in told.iter().enumerate() {
            let Some(reference) = at(dataset, "messageSchemaReference") else { continue };
            let path = path.item(index);
            let reference = MessageSchemaReference::decode(
                reference,
                &path.key("messageSchemaReference"),
                fields.report,
            )?;
            let schema = Some(reference.to_string());
            let name = at(dataset, "name").and_then(text).unwrap_or_default();
            match datasets.iter_mut().find(|known| known.name == name) {
                Some(known) => known.schema = schema,
                None => datasets.push(Dataset { name, topics: Vec::new(), schema }),
            }
        }
        Some(Self { datasets })
    }

    /// The schemas of what a source with these filters takes: of the sets that are published there or, when it is not said of
    /// any where it is published, of all.
    pub fn schemas_at(&self, filters: &[TopicFilter]) -> Vec<&str> {
        let is_there = |set: &&Dataset| {
            set.topics.iter().any(|topic| filters.iter().any(|filter| filter.matches(topic)))
        };
        let mut sets: Vec<&Dataset> = self.datasets.iter().filter(is_there).collect();
        if sets.is_empty() {
            sets = self.datasets.iter().collect();
        }
        let mut schemas: Vec<&str> = sets.iter().filter_map(|set| set.schema.as_deref()).collect();
        schemas.sort_unstable();
        schemas.dedup();
        schemas
    }
}

impl std::fmt::Display for MessageSchemaReference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { schema_name, schema_registry_namespace, schema_version } = self;
        write!(f, "aio-sr://{schema_registry_namespace}/{schema_name}:{schema_version}")
    }
}

/// Where a set is published: its own topic, or those of its destinations that are MQTT.
fn topics_of(dataset: &Node) -> Vec<String> {
    let own = at(dataset, "topic").and_then(|topic| text(at(topic, "path")?));
    let destinations = items(dataset, "destinations").unwrap_or_default().iter();
    let others = destinations.filter_map(|to| text(at(at(to, "configuration")?, "topic")?));
    own.into_iter().chain(others).collect()
}

fn at<'n>(node: &'n Node, name: &str) -> Option<&'n Node> {
    let Value::Map(entries) = &node.value else { return None };
    entries.iter().find(|(key, _)| key.name == name).map(|(_, value)| value)
}

fn items<'n>(node: &'n Node, name: &str) -> Option<&'n [Node]> {
    match &at(node, name)?.value {
        Value::List(items) => Some(items),
        _ => None,
    }
}

fn text(node: &Node) -> Option<String> {
    match &node.value {
        Value::String(text) => Some(text.clone()),
        _ => None,
    }
}
