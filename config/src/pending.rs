//! What is accepted but has no effect, here or not yet: one table, from which later work removes rows.

use crate::finding::{Position, Report, Severity};
use crate::read::Path;
use crate::resource::endpoint::is_local_host;
use crate::yaml::{Node, Value};

/// One field that has no effect.
struct Pending {
    kind: &'static str,
    /// The way to the field; `[]` stands for every item of a list.
    key: &'static [&'static str],
    /// Which values would change what happens.
    when: When,
    /// What becomes of a resource that sets it.
    effect: Effect,
    /// What is missing, or is so instead, in words that follow a colon.
    why: &'static str,
}

enum When {
    /// Anything but empty.
    Set,
    /// A scalar other than this default, in any case.
    Not(&'static str),
}

enum Effect {
    /// The resource is used without it: it means nothing to a broker that is one process without Kubernetes.
    Moot,
    /// The resource is used without it.
    Ignored,
    /// The resource is not used: without it, it would do something else than it says.
    Refused,
}

use Effect::{Ignored, Moot, Refused};
use When::{Not, Set};

const fn row(
    kind: &'static str,
    key: &'static [&'static str],
    when: When,
    effect: Effect,
    why: &'static str,
) -> Pending {
    Pending { kind, key, when, effect, why }
}

const GRAPH: &str = "DataflowGraph";
const ENDPOINT: &str = "DataflowEndpoint";
const PROFILE: &str = "DataflowProfile";
const BROKER: &str = "Broker";

/// Every field that has no effect.
static PENDING: &[Pending] = &[
    row(
        GRAPH,
        &["spec", "nodeConnections", "[]", "from", "schema", "serializationFormat"],
        Not("Json"),
        Ignored,
        "messages are passed on as they came",
    ),
    row(GRAPH, &["spec", "fileStores"], Set, Refused, "files for graph nodes"),
    row(
        ENDPOINT,
        &["spec", "mqttSettings", "clientIdPrefix"],
        Set,
        Moot,
        "graphs are no clients and have no client id",
    ),
    row(
        ENDPOINT,
        &["spec", "mqttSettings", "maxInflightMessages"],
        Not("100"),
        Moot,
        "graphs take messages within this process, with nothing in flight",
    ),
    row(
        ENDPOINT,
        &["spec", "mqttSettings", "sessionExpirySeconds"],
        Not("600"),
        Moot,
        "a graph is never away from this broker; its subscription lasts as long as its resource",
    ),
    row(
        PROFILE,
        &["spec", "diagnostics", "metrics", "prometheusPort"],
        Set,
        Moot,
        "metrics are served on the admin address",
    ),
    row(BROKER, &["spec", "cardinality"], Set, Moot, "one process serves everything"),
    row(BROKER, &["spec", "diskBackedMessageBuffer"], Set, Ignored, "queues stay in memory"),
    row(
        BROKER,
        &["spec", "diagnostics", "metrics", "prometheusPort"],
        Set,
        Moot,
        "metrics are served on the admin address",
    ),
    row(BROKER, &["spec", "diagnostics", "traces"], Set, Ignored, "no traces are made"),
    row(BROKER, &["spec", "persistence", "encryption"], Set, Ignored, "what is on disk is not encrypted"),
    row(
        BROKER,
        &["spec", "persistence", "subscriberQueue", "subscriberQueueSettings", "topics"],
        Set,
        Ignored,
        "queues are persisted by client",
    ),
    row(
        "BrokerListener",
        &["spec", "serviceName"],
        Set,
        Moot,
        "there is no service; certificates name it, though",
    ),
    row(
        "BrokerListener",
        &["spec", "serviceType"],
        Not("ClusterIp"),
        Moot,
        "there is no service; ports are bound on this machine",
    ),
    row(
        "BrokerListener",
        &["spec", "ports", "[]", "nodePort"],
        Set,
        Moot,
        "there is no node; `port` is bound",
    ),
    row(
        "BrokerListener",
        &["spec", "ports", "[]", "tls", "certManagerCertificateSpec", "issuerRef"],
        Set,
        Moot,
        "the broker's own certificate authority issues the certificate",
    ),
    row(
        "BrokerListener",
        &["spec", "ports", "[]", "tls", "certManagerCertificateSpec", "secretName"],
        Set,
        Moot,
        "the certificate is kept in memory",
    ),
    row(
        "BrokerListener",
        &["spec", "ports", "[]", "tls", "certManagerCertificateSpec", "privateKey", "rotationPolicy"],
        Not("Always"),
        Moot,
        "each certificate has a new key",
    ),
    row(
        "BrokerAuthentication",
        &["spec", "authenticationMethods", "[]", "x509Settings", "additionalValidation"],
        Not("None"),
        Refused,
        "asking the device registry",
    ),
];

/// Reports the fields of a resource that do not work yet.
pub(crate) fn report_pending(kind: &str, document: &Node, report: &mut Report) {
    // These rows are about graphs on this broker, which have no client of their own.
    if kind == ENDPOINT && !means_local_broker(document) {
        return;
    }
    for pending in PENDING.iter().filter(|pending| pending.kind == kind) {
        visit(pending, pending.key, document, document.position, &Path::ROOT, report);
    }
}

/// Whether an endpoint is this broker; see [`DataflowEndpoint::is_local_broker`](crate::resource::endpoint::DataflowEndpoint).
fn means_local_broker(document: &Node) -> bool {
    let Some(spec) = child(document, "spec") else { return false };
    let text = |node: &Node| match &node.value {
        Value::String(text) => text.clone(),
        _ => String::new(),
    };
    let host = child(spec, "mqttSettings").and_then(|mqtt| child(mqtt, "host")).map(text);
    let local = child(spec, "hostType").map(text).is_some_and(|host_type| host_type == "LocalBroker");
    child(spec, "mqttSettings").is_some() && (local || host.is_none_or(|host| is_local_host(&host)))
}

fn child<'n>(node: &'n Node, name: &str) -> Option<&'n Node> {
    let Value::Map(entries) = &node.value else { return None };
    entries.iter().find(|(key, _)| key.name == name).map(|(_, value)| value)
}

fn visit(
    pending: &Pending,
    way: &[&'static str],
    node: &Node,
    position: Position,
    path: &Path<'_>,
    report: &mut Report,
) {
    match (way, &node.value) {
        ([], _) if pending.when.holds(node) => pending.tell(position, path, report),
        (["[]", rest @ ..], Value::List(items)) => {
            for (index, item) in items.iter().enumerate() {
                visit(pending, rest, item, item.position, &path.item(index), report);
            }
        }
        ([name, rest @ ..], Value::Map(entries)) => {
            if let Some((key, value)) = entries.iter().find(|(key, _)| key.name == *name) {
                visit(pending, rest, value, key.position, &path.key(name), report);
            }
        }
        _ => {}
    }
}

impl Pending {
    fn tell(&self, position: Position, path: &Path<'_>, report: &mut Report) {
        let why = self.why;
        let (severity, message) = match self.effect {
            Ignored => (Severity::NotInEffect, format!("`{path}` is accepted, but not yet in effect: {why}")),
            Moot => (Severity::NotInEffect, format!("`{path}` has no effect here: {why}")),
            Refused => (Severity::Error, format!("`{path}` is not supported yet: {why}")),
        };
        report.add(severity, position, path, message);
    }
}

impl When {
    fn holds(&self, node: &Node) -> bool {
        let text = match &node.value {
            Value::Null => return false,
            Value::List(items) => return !items.is_empty(),
            Value::Map(entries) => return !entries.is_empty(),
            Value::Bool(_, text) | Value::Int(_, text) | Value::Float(text) | Value::String(text) => text,
        };
        match self {
            Set => true,
            Not(default) => !text.eq_ignore_ascii_case(default),
        }
    }
}
