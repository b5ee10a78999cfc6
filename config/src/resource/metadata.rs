//! `metadata`: names, and this product's own settings among the annotations.

use super::common::{parse_bytes, parse_duration, parsed};
use super::registry::RegistryHost;
use crate::finding::{Report, quoted};
use crate::read::{Decode, Fields, Located, Path, Unread, mismatch, record};
use crate::suggest::nearest;
use crate::topic::check_topic;
use crate::yaml::{Key, Node, Value};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The namespace of resources that name none: AIO's own.
pub const DEFAULT_NAMESPACE: &str = "azure-iot-operations";

/// What Kubernetes itself writes into `metadata`; accepted and ignored.
const MANAGED: &[&str] = &[
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
    "generation",
    "selfLink",
    "finalizers",
];

/// The metadata of a resource.
#[derive(Clone, Debug, PartialEq)]
pub struct Metadata {
    /// The name.
    pub name: Located<String>,
    /// The namespace; [`DEFAULT_NAMESPACE`] when none is named.
    pub namespace: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations other than `forebay.dev/…`.
    pub annotations: BTreeMap<String, String>,
    /// What owns the resource.
    pub owners: Vec<OwnerReference>,
    /// This product's own settings, from the annotations `forebay.dev/…`.
    pub settings: Settings,
}

record! {
    /// What owns a resource.
    pub struct OwnerReference {
        /// The `apiVersion` of the owner.
        api_version: String = "apiVersion" required(),
        /// The kind of the owner.
        kind: String = "kind" required(),
        /// The name of the owner.
        name: Located<String> = "name" required(),
        /// The id of the owner.
        uid: Option<String> = "uid" optional(),
        /// For Kubernetes only.
        controller: Option<Unread> = "controller" optional(),
        /// For Kubernetes only.
        block_owner_deletion: Option<Unread> = "blockOwnerDeletion" optional(),
    }
}

/// This product's own settings of one resource, from the annotations `forebay.dev/…`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// `forebay.dev/call-deadline` of a graph: the longest that one call of an operator may take.
    pub call_deadline: Option<Duration>,
    /// `forebay.dev/inline-budget` of a graph: the longest that a call may hold up a connection.
    pub inline_budget: Option<Duration>,
    /// `forebay.dev/memory-limit` of a graph: the memory of one operator, in bytes.
    pub memory_limit: Option<u64>,
    /// `forebay.dev/memory-soft-limit` of a graph: with more memory than this an operator is begun anew, in bytes.
    pub memory_soft_limit: Option<u64>,
    /// `forebay.dev/nn-memory-limit` of a graph: the models and tensors of one operator, in bytes.
    pub nn_memory_limit: Option<u64>,
    /// `forebay.dev/table-limit` of a graph: the elements of one operator's tables.
    pub table_limit: Option<u32>,
    /// `forebay.dev/handle-limit` of a graph: the buffers and other resources that one operator holds.
    pub handle_limit: Option<u32>,
    /// `forebay.dev/log-limit` of a graph: the lines that one operator logs in a second.
    pub log_limit: Option<u32>,
    /// `forebay.dev/metric-limit` of a graph: the metrics (names with labels) that one operator has.
    pub metric_limit: Option<u32>,
    /// `forebay.dev/allowed-lateness` of a graph: how long after its end a window still takes messages.
    pub allowed_lateness: Option<Duration>,
    /// `forebay.dev/order-by: __ts` of a graph: what comes in comes in the order of that user property.
    pub order_by_timestamp: bool,
    /// `forebay.dev/max-lateness` of such a graph: how long a message waits for earlier ones.
    pub max_lateness: Option<Duration>,
    /// `forebay.dev/late-messages` of such a graph: what happens to those that come later still.
    pub late_messages: Option<LateMessages>,
    /// `forebay.dev/dead-letter-topic` of a graph: where messages go that cannot be processed.
    pub dead_letter_topic: Option<String>,
    /// `forebay.dev/bridge-queue-limit` of a graph: how much may wait in memory for each of its remote systems, in bytes.
    pub bridge_queue_limit: Option<u64>,
    /// `forebay.dev/login` of an endpoint: the Secret with the `username` and `password` to say to an MQTT broker.
    pub login: Option<String>,
    /// `forebay.dev/token-file` of an endpoint: where the token of the service account stands.
    pub token_file: Option<PathBuf>,
    /// `forebay.dev/batch-latency` of an endpoint for local storage: how long messages are gathered before they are written.
    pub batch_latency: Option<Duration>,
    /// `forebay.dev/plain-http` of a registry: HTTP without TLS also off loopback, or not even there.
    pub plain_http: Option<bool>,
    /// `forebay.dev/ca` of a registry: the ConfigMap with certificates that vouch for it, beside the system's own.
    pub ca: Option<String>,
    /// `forebay.dev/mirrors` of a registry: others with the same content that are asked before, without credentials.
    pub mirrors: Vec<RegistryHost>,
    /// `forebay.dev/schema` of a ConfigMap: its one entry is the document of the schema of this name,
    /// `aio-sr://<namespace>/<name>:<version>`. Of an Asset: the schema of all that it publishes.
    pub schema: Option<String>,
    /// What a Broker sets.
    pub broker: BrokerSettings,
    /// `forebay.dev/directory` of a Secret or ConfigMap: its entries are the files of this directory, as Kubernetes would
    /// mount them. Of an endpoint: the directory that stands for its volume claim.
    pub directory: Option<PathBuf>,
    /// `forebay.dev/address` of a listener: the address of this machine that its ports are bound to.
    pub address: Option<IpAddr>,
    /// `forebay.dev/allowed-origins` of a listener: the web pages that may connect by WebSocket; all when absent.
    pub allowed_origins: Option<Vec<String>>,
    /// `forebay.dev/password-file` of an authentication: users and passwords, which are asked before the methods.
    pub password_file: Option<PathBuf>,
    /// `forebay.dev/token-keys` of an authentication: the public keys of service account tokens, a JSON Web Key Set.
    pub token_keys: Option<TokenKeys>,
    /// `forebay.dev/token-issuer` of an authentication: who must have issued such tokens.
    pub token_issuer: Option<String>,
    /// `forebay.dev/kubernetes-api` of an authentication: the API server that reviews tokens.
    pub kubernetes_api: Option<String>,
    /// `forebay.dev/kubernetes-ca` of an authentication: the ConfigMap with the certificates of that server.
    pub kubernetes_ca: Option<String>,
    /// `forebay.dev/client-crl` of an authentication: the ConfigMap with lists of client certificates that are revoked.
    pub client_crl: Option<String>,
    /// `forebay.dev/kubernetes-token-file` of an authentication: the broker's own token for that server.
    pub kubernetes_token_file: Option<PathBuf>,
}

/// Where the public keys of tokens are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenKeys {
    /// In a file.
    File(PathBuf),
    /// At an address that begins with `https://`.
    Url(String),
}

/// This product's own settings of a Broker: limits that AIO has no field for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BrokerSettings {
    /// `forebay.dev/message-memory`: bytes of all messages in memory, beside retained ones.
    pub message_memory: Option<u64>,
    /// `forebay.dev/retained-bytes`: bytes of all retained messages.
    pub retained_bytes: Option<u64>,
    /// `forebay.dev/retained-messages`: how many there may be.
    pub retained_messages: Option<u32>,
    /// `forebay.dev/queue-bytes`: bytes of messages that wait for one client.
    pub queue_bytes: Option<u64>,
    /// `forebay.dev/outbox-bytes`: encoded bytes that wait for one client's socket before QoS 0 messages are dropped.
    pub outbox_bytes: Option<u64>,
    /// `forebay.dev/inflight-messages`: QoS 1 and 2 messages on their way to one client at once.
    pub inflight_messages: Option<u16>,
    /// `forebay.dev/subscriptions`: of one client.
    pub subscriptions: Option<u32>,
    /// `forebay.dev/topic-levels`: of a topic name or filter.
    pub topic_levels: Option<u32>,
    /// `forebay.dev/topic-aliases`: of one connection, in each direction.
    pub topic_aliases: Option<u16>,
    /// `forebay.dev/user-properties`: of one packet.
    pub user_properties: Option<u32>,
    /// `forebay.dev/sys-interval`: how often `$SYS/broker/#` is published; 0 for never.
    pub sys_interval: Option<Duration>,
}

/// What happens to a message that comes too late to be in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LateMessages {
    /// It is passed on at once, marked as late.
    Deliver,
    /// It is dropped and counted.
    Drop,
}

/// The longest that messages may wait for earlier ones.
const LATENESS_MAX: Duration = Duration::from_secs(600);

const OWN_PREFIX: &str = "forebay.dev/";

/// The annotations that name a file or directory.
pub(crate) const PATHS: &[&str] = &[
    "forebay.dev/directory",
    "forebay.dev/kubernetes-token-file",
    "forebay.dev/password-file",
    "forebay.dev/token-file",
    "forebay.dev/token-keys",
];

/// The annotations that each kind knows.
const OWN: &[(&str, &[&str])] = &[
    (
        "DataflowGraph",
        &[
            "forebay.dev/call-deadline",
            "forebay.dev/inline-budget",
            "forebay.dev/memory-limit",
            "forebay.dev/memory-soft-limit",
            "forebay.dev/nn-memory-limit",
            "forebay.dev/table-limit",
            "forebay.dev/handle-limit",
            "forebay.dev/log-limit",
            "forebay.dev/metric-limit",
            "forebay.dev/allowed-lateness",
            "forebay.dev/order-by",
            "forebay.dev/max-lateness",
            "forebay.dev/late-messages",
            "forebay.dev/dead-letter-topic",
            "forebay.dev/bridge-queue-limit",
        ],
    ),
    (
        "DataflowEndpoint",
        &[
            "forebay.dev/login",
            "forebay.dev/token-file",
            "forebay.dev/directory",
            "forebay.dev/batch-latency",
        ],
    ),
    ("RegistryEndpoint", &["forebay.dev/plain-http", "forebay.dev/ca", "forebay.dev/mirrors"]),
    (
        "Broker",
        &[
            "forebay.dev/message-memory",
            "forebay.dev/retained-bytes",
            "forebay.dev/retained-messages",
            "forebay.dev/queue-bytes",
            "forebay.dev/outbox-bytes",
            "forebay.dev/inflight-messages",
            "forebay.dev/subscriptions",
            "forebay.dev/topic-levels",
            "forebay.dev/topic-aliases",
            "forebay.dev/user-properties",
            "forebay.dev/sys-interval",
        ],
    ),
    ("Asset", &["forebay.dev/schema"]),
    ("ConfigMap", &["forebay.dev/schema", "forebay.dev/directory"]),
    ("Secret", &["forebay.dev/directory"]),
    ("BrokerListener", &["forebay.dev/address", "forebay.dev/allowed-origins"]),
    (
        "BrokerAuthentication",
        &[
            "forebay.dev/password-file",
            "forebay.dev/token-keys",
            "forebay.dev/token-issuer",
            "forebay.dev/kubernetes-api",
            "forebay.dev/kubernetes-ca",
            "forebay.dev/kubernetes-token-file",
            "forebay.dev/client-crl",
        ],
    ),
];

impl Metadata {
    /// Reads `metadata` of a resource of that kind.
    pub(crate) fn from_fields(kind: &str, document: &mut Fields<'_>) -> Option<Self> {
        let path = document.path().key("metadata");
        let Some(node) = document.node("metadata") else {
            return document.required::<Unread>("metadata").and(None);
        };
        let mut fields = Fields::open(node, &path, document.report)?;
        fields.ignore(MANAGED);
        let name = fields.required::<Located<String>>("name");
        let name = name.and_then(|name| check_name(kind, name, &path.key("name"), fields.report));
        let namespace = fields.or("namespace", DEFAULT_NAMESPACE.to_owned());
        let labels = fields.or("labels", BTreeMap::new());
        let owners = fields.or("ownerReferences", Vec::new());
        let annotations = match fields.node("annotations") {
            Some(node) => read_annotations(kind, node, &path.key("annotations"), fields.report),
            None => Some((BTreeMap::new(), Settings::default())),
        };
        fields.close()?;
        let (annotations, settings) = annotations?;
        let (namespace, labels, owners) = (namespace?, labels?, owners?);
        Some(Self { name: name?, namespace, labels, annotations, owners, settings })
    }
}

/// Checks a name: AIO's rule (AIO.md §5), or that of Kubernetes for its own kinds.
fn check_name(
    kind: &str,
    name: Located<String>,
    path: &Path<'_>,
    report: &mut Report,
) -> Option<Located<String>> {
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let edges = edge(name.bytes().next()) && edge(name.bytes().last());
    let inner = |dot: bool| {
        name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || (dot && b == b'.'))
    };
    let (right, rule) = match kind {
        "Secret" | "ConfigMap" => (
            edges && inner(true) && name.len() <= 253,
            "must be at most 253 lower-case letters, digits, `-` or `.`, with a letter or digit at both ends",
        ),
        _ => (
            edges && inner(false) && (3..=63).contains(&name.len()),
            "must be 3 to 63 lower-case letters, digits or `-`, with a letter or digit at both ends",
        ),
    };
    if !right {
        report.error(name.position, path, format!("`{path}` is {}, but {rule}", quoted(&name)));
        return None;
    }
    Some(name)
}

fn read_annotations(
    kind: &str,
    node: &Node,
    path: &Path<'_>,
    report: &mut Report,
) -> Option<(BTreeMap<String, String>, Settings)> {
    let Value::Map(entries) = &node.value else {
        mismatch(node, path, report, "a mapping");
        return None;
    };
    let mut clean = true;
    let mut annotations = BTreeMap::new();
    let mut settings = Settings::default();
    for (key, value) in entries {
        let path = path.key(&key.name);
        let text = if key.name.starts_with(OWN_PREFIX) {
            read_setting(kind, key, value, &path, report, &mut settings).map(|()| None)
        } else {
            String::decode(value, &path, report).map(Some)
        };
        match text {
            Some(Some(text)) => drop(annotations.insert(key.name.clone(), text)),
            Some(None) => {}
            None => clean = false,
        }
    }
    if entries.iter().all(|(key, _)| key.name != "forebay.dev/order-by") {
        for needy in ["forebay.dev/max-lateness", "forebay.dev/late-messages"] {
            let Some((key, _)) = entries.iter().find(|(key, _)| key.name == needy) else { continue };
            let message = format!("`{needy}` needs `forebay.dev/order-by: __ts` beside it");
            report.error(key.position, path.key(needy), message);
            clean = false;
        }
    }
    clean.then_some((annotations, settings))
}

fn read_setting(
    kind: &str,
    key: &Key,
    value: &Node,
    path: &Path<'_>,
    report: &mut Report,
    settings: &mut Settings,
) -> Option<()> {
    let known = OWN.iter().find(|(name, _)| *name == kind).map_or(&[][..], |(_, known)| known);
    if !known.contains(&key.name.as_str()) {
        let hint = match nearest(&key.name, known.iter().copied()) {
            Some(known) => format!(", did you mean `{known}`?"),
            None => String::new(),
        };
        let message = format!("unknown annotation {} for {kind}{hint}", quoted(&key.name));
        report.error(key.position, path, message);
        return None;
    }
    let text = String::decode(value, path, report)?;
    let result = match kind {
        "Broker" => apply_to_broker(&key.name, &text, &mut settings.broker),
        _ => apply(&key.name, &text, settings),
    };
    parsed(result, &text, value.position, path, report)
}

fn count(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| "must be a whole number, such as \"1000\"".to_owned())
}

fn path(text: &str) -> Result<PathBuf, String> {
    match text.is_empty() {
        true => Err("must name a file or directory".to_owned()),
        false => Ok(text.into()),
    }
}

fn https(text: &str) -> Result<String, String> {
    let authority = text.strip_prefix("https://").and_then(|rest| rest.split('/').next());
    let authority = authority.ok_or("must begin with `https://`")?;
    super::common::check_authority(authority)?;
    Ok(text.to_owned())
}

/// A number that fits and is not 0: what none of may pass would be no broker.
fn some<T: TryFrom<u64>>(number: u64, max: u64) -> Result<Option<T>, String> {
    match T::try_from(number) {
        Ok(fits) if (1..=max).contains(&number) => Ok(Some(fits)),
        _ => Err(format!("must be from 1 to {max}")),
    }
}

fn apply_to_broker(key: &str, text: &str, settings: &mut BrokerSettings) -> Result<(), String> {
    const WINDOW_MAX: u64 = 32_767;
    let number = || count(text).map(u64::from);
    match key.strip_prefix(OWN_PREFIX).unwrap_or_default() {
        "message-memory" => settings.message_memory = some(parse_bytes(text)?, u64::MAX)?,
        "retained-bytes" => settings.retained_bytes = some(parse_bytes(text)?, u64::MAX)?,
        "retained-messages" => settings.retained_messages = some(number()?, u32::MAX.into())?,
        "queue-bytes" => settings.queue_bytes = some(parse_bytes(text)?, u64::MAX)?,
        "outbox-bytes" => settings.outbox_bytes = some(parse_bytes(text)?, u64::MAX)?,
        "inflight-messages" => settings.inflight_messages = some(number()?, WINDOW_MAX)?,
        "subscriptions" => settings.subscriptions = some(number()?, u32::MAX.into())?,
        "topic-levels" => settings.topic_levels = some(number()?, 65_535)?,
        "topic-aliases" => match number()?.try_into() {
            Ok(aliases) => settings.topic_aliases = Some(aliases),
            Err(_) => return Err("must be from 0 to 65535".to_owned()),
        },
        "user-properties" => settings.user_properties = Some(count(text)?),
        "sys-interval" => settings.sys_interval = Some(parse_duration(text)?),
        _ => return Err("is not known".to_owned()),
    }
    Ok(())
}

fn apply(key: &str, text: &str, settings: &mut Settings) -> Result<(), String> {
    let positive = |duration: Duration| match duration {
        Duration::ZERO => Err("must be longer than nothing".to_owned()),
        _ => Ok(duration),
    };
    match key.strip_prefix(OWN_PREFIX).unwrap_or_default() {
        "call-deadline" => settings.call_deadline = Some(parse_duration(text).and_then(positive)?),
        "inline-budget" => settings.inline_budget = Some(parse_duration(text)?),
        "memory-limit" => {
            settings.memory_limit = match parse_bytes(text)? {
                // A component cannot even begin with less than one page of WebAssembly memory.
                0..65_536 => return Err("must be at least 64KiB".to_owned()),
                bytes => Some(bytes),
            }
        }
        "memory-soft-limit" => settings.memory_soft_limit = Some(parse_bytes(text)?),
        "nn-memory-limit" => settings.nn_memory_limit = Some(parse_bytes(text)?),
        "table-limit" => settings.table_limit = Some(count(text)?),
        "handle-limit" => settings.handle_limit = Some(count(text)?),
        "log-limit" => settings.log_limit = Some(count(text)?),
        "metric-limit" => settings.metric_limit = Some(count(text)?),
        "batch-latency" => settings.batch_latency = Some(parse_duration(text)?),
        "allowed-lateness" => settings.allowed_lateness = Some(parse_duration(text)?),
        "order-by" => match text {
            "__ts" => settings.order_by_timestamp = true,
            _ => return Err("must be `__ts`".to_owned()),
        },
        "max-lateness" => {
            let lateness = parse_duration(text)?;
            if lateness > LATENESS_MAX {
                return Err("must be at most 10m".to_owned());
            }
            settings.max_lateness = Some(lateness);
        }
        "late-messages" => {
            settings.late_messages = match text {
                "deliver" => Some(LateMessages::Deliver),
                "drop" => Some(LateMessages::Drop),
                _ => return Err("must be `deliver` or `drop`".to_owned()),
            }
        }
        "dead-letter-topic" => {
            check_topic(text)?;
            settings.dead_letter_topic = Some(text.to_owned());
        }
        "bridge-queue-limit" => settings.bridge_queue_limit = some(parse_bytes(text)?, u64::MAX)?,
        "login" => settings.login = Some(text.to_owned()),
        "token-file" => settings.token_file = Some(path(text)?),
        "schema" => settings.schema = Some(text.to_owned()),
        "directory" => settings.directory = Some(path(text)?),
        "address" => {
            let address = text.parse().map_err(|_| "must be an IP address, such as 0.0.0.0".to_owned())?;
            settings.address = Some(address);
        }
        "allowed-origins" => {
            let origins = text.split(',').map(|origin| origin.trim().trim_end_matches('/').to_owned());
            settings.allowed_origins = Some(origins.filter(|origin| !origin.is_empty()).collect());
            if settings.allowed_origins.as_ref().is_some_and(Vec::is_empty) {
                return Err("must name at least one origin, such as https://example.com".to_owned());
            }
        }
        "password-file" => settings.password_file = Some(path(text)?),
        "token-keys" => {
            settings.token_keys = Some(match text.split_once("://") {
                Some(("https", _)) => TokenKeys::Url(https(text)?),
                Some(_) => return Err("must be a file or begin with `https://`".to_owned()),
                None => TokenKeys::File(path(text)?),
            });
        }
        "ca" => settings.ca = Some(text.to_owned()),
        "mirrors" => {
            let hosts = text.split(',').map(|host| RegistryHost::parse(host.trim()));
            settings.mirrors = hosts.collect::<Result<_, _>>()?;
            if settings.mirrors.iter().any(|host| matches!(host, RegistryHost::Layout(_))) {
                return Err("must name registries, not directories".to_owned());
            }
        }
        "token-issuer" => settings.token_issuer = Some(text.to_owned()),
        "kubernetes-api" => settings.kubernetes_api = Some(https(text)?),
        "kubernetes-ca" => settings.kubernetes_ca = Some(text.to_owned()),
        "client-crl" => settings.client_crl = Some(text.to_owned()),
        "kubernetes-token-file" => settings.kubernetes_token_file = Some(path(text)?),
        "plain-http" => {
            settings.plain_http = match text {
                "true" => Some(true),
                "false" => Some(false),
                _ => return Err("must be \"true\" or \"false\"".to_owned()),
            }
        }
        _ => return Err("is not known".to_owned()),
    }
    Ok(())
}
