//! Bodies of Azure Resource Manager, as `az` and Bicep have them, read as what Kubernetes would have (AIO.md §5): `properties`
//! is `spec`, `type` says the kind, and `name` has the names of parents in front.

use crate::finding::Report;
use crate::yaml::{Key, Node, Value};

const PROVIDER: &str = "Microsoft.IoTOperations/instances/";
const CONNECTIVITY: &str = "connectivity.iotoperations.azure.com/v1";
const MQTT_BROKER: &str = "mqttbroker.iotoperations.azure.com/v1";

/// The types that are read: what stands behind `instances/`, the kind, and the `apiVersion`.
const TYPES: &[(&str, &str, &str)] = &[
    ("dataflowEndpoints", "DataflowEndpoint", CONNECTIVITY),
    ("dataflowProfiles", "DataflowProfile", CONNECTIVITY),
    ("dataflowProfiles/dataflowGraphs", "DataflowGraph", CONNECTIVITY),
    ("registryEndpoints", "RegistryEndpoint", CONNECTIVITY),
    ("brokers", "Broker", MQTT_BROKER),
    ("brokers/listeners", "BrokerListener", MQTT_BROKER),
    ("brokers/authentications", "BrokerAuthentication", MQTT_BROKER),
    ("brokers/authorizations", "BrokerAuthorization", MQTT_BROKER),
];

/// Whether a document is such a body.
pub(crate) fn is_body(document: &Node) -> bool {
    let Value::Map(entries) = &document.value else { return false };
    let has = |name: &str| entries.iter().any(|(key, _)| key.name == name);
    has("properties") && has("type") && !has("kind")
}

/// The document as Kubernetes has it; reported when it cannot be one.
pub(crate) fn to_kubernetes(document: &Node, report: &mut Report) -> Option<Node> {
    let Value::Map(entries) = &document.value else { return None };
    let find = |name: &str| entries.iter().find(|(key, _)| key.name == name).map(|(_, value)| value);
    let text = |name: &'static str, report: &mut Report| match find(name).map(|node| &node.value) {
        Some(Value::String(text)) => Some(text.clone()),
        _ => {
            report.error(document.position, name, format!("`{name}` is missing, or no text"));
            None
        }
    };
    for (key, _) in entries {
        if !KNOWN.contains(&key.name.as_str()) {
            report.error(
                key.position,
                &key.name,
                format!("unknown field `{}` in a body of Azure Resource Manager", key.name),
            );
        }
    }
    let (full_type, name) = (text("type", report)?, text("name", report)?);
    let known = full_type.strip_prefix(PROVIDER);
    let Some((short, kind, api)) =
        known.and_then(|known| TYPES.iter().find(|(short, ..)| short.eq_ignore_ascii_case(known)))
    else {
        let position = find("type").map_or(document.position, |node| node.position);
        let known: Vec<_> = TYPES.iter().map(|(short, ..)| *short).collect();
        let message = format!("`type` is `{full_type}`; known are {PROVIDER} with {}", known.join(", "));
        report.error(position, "type", message);
        return None;
    };
    let mut parts = name.rsplit('/');
    let own = parts.next().unwrap_or_default().to_owned();
    let parent = parts.next().map(ToOwned::to_owned);
    let mut spec = copy(find("properties")?);
    // The profile of a graph is its parent.
    if *short == "dataflowProfiles/dataflowGraphs"
        && let (Some(parent), Value::Map(fields)) = (parent, &mut spec.value)
        && !fields.iter().any(|(key, _)| key.name == "profileRef")
    {
        fields.push(entry("profileRef", string(&parent, document), document));
    }
    let metadata = Node {
        position: document.position,
        value: Value::Map(vec![entry("name", string(&own, document), document)]),
    };
    let fields = vec![
        entry("apiVersion", string(api, document), document),
        entry("kind", string(kind, document), document),
        entry("metadata", metadata, document),
        entry("spec", spec, document),
    ];
    Some(Node { position: document.position, value: Value::Map(fields) })
}

/// What such a body may have.
const KNOWN: &[&str] = &[
    "id",
    "name",
    "type",
    "apiVersion",
    "extendedLocation",
    "properties",
    "systemData",
    "dependsOn",
    "scale",
];

fn entry(name: &str, node: Node, at: &Node) -> (Key, Node) {
    (Key { name: name.to_owned(), position: at.position }, node)
}

fn string(text: &str, at: &Node) -> Node {
    Node { position: at.position, value: Value::String(text.to_owned()) }
}

fn copy(node: &Node) -> Node {
    let value = match &node.value {
        Value::Null => Value::Null,
        Value::Bool(value, text) => Value::Bool(*value, text.clone()),
        Value::Int(value, text) => Value::Int(*value, text.clone()),
        Value::Float(text) => Value::Float(text.clone()),
        Value::String(text) => Value::String(text.clone()),
        Value::List(items) => Value::List(items.iter().map(copy).collect()),
        Value::Map(entries) => {
            // Answered by Azure, and no part of what is wanted.
            let wanted =
                entries.iter().filter(|(key, _)| key.name != "provisioningState" && key.name != "status");
            Value::Map(
                wanted
                    .map(|(key, value)| (Key { name: key.name.clone(), position: key.position }, copy(value)))
                    .collect(),
            )
        }
    };
    Node { position: node.position, value }
}
