//! `Broker` (AIO.md §5.6) and its persistence (AIO.md §6).

use super::common::{KeyType, Logs, Metrics, OperationalMode, PersistenceMode, Span, VolumeClaim, parsed};
use crate::finding::Report;
use crate::read::{Decode, Path, choice, record};
use crate::yaml::Node;

record! {
    /// The broker as a whole. There is one, named `default`.
    pub struct Broker {
        /// How many processes AIO would start.
        cardinality: Option<Cardinality> = "cardinality" optional(),
        /// How much memory the broker may take.
        memory_profile: MemoryProfile = "memoryProfile" or(MemoryProfile::Medium),
        /// Limits of clients, and encryption inside the cluster.
        advanced: Option<Advanced> = "advanced" optional(),
        /// A spill-over of full queues to disk.
        disk_backed_message_buffer: Option<DiskBackedMessageBuffer> = "diskBackedMessageBuffer" optional(),
        /// Resource limits of the processes.
        generate_resource_limits: Option<GenerateResourceLimits> = "generateResourceLimits" optional(),
        /// Logs, metrics, self checks and traces.
        diagnostics: Option<BrokerDiagnostics> = "diagnostics" optional(),
        /// What happens to high-priority messages under backpressure (2026-07-01).
        high_priority_messages_backpressure_handling: HighPriority =
            "highPriorityMessagesBackpressureHandling" or(HighPriority::Accept),
        /// What is kept on disk.
        persistence: Option<Persistence> = "persistence" optional(),
    }
}

impl Default for Broker {
    fn default() -> Self {
        Self {
            cardinality: None,
            memory_profile: MemoryProfile::Medium,
            advanced: None,
            disk_backed_message_buffer: None,
            generate_resource_limits: None,
            diagnostics: None,
            high_priority_messages_backpressure_handling: HighPriority::Accept,
            persistence: None,
        }
    }
}

record! {
    /// How many processes AIO would start.
    pub struct Cardinality {
        /// Those that clients connect to.
        frontend: Frontend = "frontend" required(),
        /// Those that keep messages.
        backend_chain: BackendChain = "backendChain" required(),
    }
}

record! {
    /// Processes that clients connect to.
    pub struct Frontend {
        /// How many.
        replicas: u8 = "replicas" required_in(1..=16),
        /// Threads of each.
        workers: u8 = "workers" or_in(2, 1..=16),
    }
}

record! {
    /// Processes that keep messages.
    pub struct BackendChain {
        /// How many parts the topics are divided into.
        partitions: u8 = "partitions" required_in(1..=16),
        /// How many copies there are.
        redundancy_factor: u8 = "redundancyFactor" required_in(1..=5),
        /// Threads of each.
        workers: u8 = "workers" or_in(1, 1..=16),
    }
}

choice! {
    /// How much memory the broker may take.
    pub enum MemoryProfile {
        /// The least.
        Tiny = "Tiny",
        /// Little.
        Low = "Low",
        /// The default.
        Medium = "Medium",
        /// Much.
        High = "High",
    }
}

choice! {
    /// What happens to high-priority messages under backpressure.
    pub enum HighPriority {
        /// They are accepted.
        Accept = "Accept",
        /// They are rejected.
        Reject = "Reject",
    }
}

record! {
    /// Limits of clients, and encryption inside the cluster.
    pub struct Advanced {
        /// Limits of clients.
        clients: Option<ClientLimits> = "clients" optional(),
        /// Whether traffic inside the cluster is encrypted.
        encrypt_internal_traffic: OperationalMode = "encryptInternalTraffic" or(OperationalMode::Enabled),
        /// Certificates inside the cluster.
        internal_certs: Option<InternalCerts> = "internalCerts" optional(),
    }
}

record! {
    /// Limits of clients.
    pub struct ClientLimits {
        /// The longest session expiry, in seconds.
        max_session_expiry_seconds: Option<u32> = "maxSessionExpirySeconds" optional_in(1..=u32::MAX),
        /// The longest message expiry, in seconds.
        max_message_expiry_seconds: Option<u32> = "maxMessageExpirySeconds" optional_in(1..=u32::MAX),
        /// The largest packet.
        max_packet_size_bytes: Option<u32> = "maxPacketSizeBytes" optional_in(1..=268_435_456),
        /// The longest queue of a subscriber.
        subscriber_queue_limit: Option<SubscriberQueueLimit> = "subscriberQueueLimit" optional(),
        /// The largest receive maximum.
        max_receive_maximum: Option<u16> = "maxReceiveMaximum" optional_in(1..=65535),
        /// The longest keep alive, in seconds.
        max_keep_alive_seconds: Option<u16> = "maxKeepAliveSeconds" optional(),
    }
}

record! {
    /// The longest queue of a subscriber.
    pub struct SubscriberQueueLimit {
        /// In messages.
        length: Option<u64> = "length" optional_in(1..=u64::MAX),
        /// What happens when it is full.
        strategy: QueueStrategy = "strategy" or(QueueStrategy::None),
    }
}

choice! {
    /// What happens when a queue is full.
    pub enum QueueStrategy {
        /// Nothing is dropped.
        None = "None",
        /// The oldest message is.
        DropOldest = "DropOldest",
    }
}

record! {
    /// Certificates inside the cluster.
    pub struct InternalCerts {
        /// How long they are valid.
        duration: Span = "duration" required(),
        /// How long before the end they are renewed.
        renew_before: Span = "renewBefore" required(),
        /// Their keys.
        private_key: PrivateKey = "privateKey" required(),
    }
}

record! {
    /// How a private key is made.
    pub struct PrivateKey {
        /// The algorithm.
        algorithm: KeyAlgorithm = "algorithm" required(),
        /// When a new one is made.
        rotation_policy: RotationPolicy = "rotationPolicy" required(),
    }
}

choice! {
    /// The algorithm of a private key.
    pub enum KeyAlgorithm {
        /// P-256.
        Ec256 = "Ec256",
        /// P-384.
        Ec384 = "Ec384",
        /// P-521.
        Ec521 = "Ec521",
        /// Ed25519.
        Ed25519 = "Ed25519",
        /// RSA, 2048 bits.
        Rsa2048 = "Rsa2048",
        /// RSA, 4096 bits.
        Rsa4096 = "Rsa4096",
        /// RSA, 8192 bits.
        Rsa8192 = "Rsa8192",
    }
}

choice! {
    /// When a new private key is made.
    pub enum RotationPolicy {
        /// With each certificate.
        Always = "Always",
        /// Never.
        Never = "Never",
    }
}

record! {
    /// A spill-over of full queues to disk.
    pub struct DiskBackedMessageBuffer {
        /// Its size.
        max_size: BufferSize = "maxSize" required(),
        /// An ephemeral volume for it.
        ephemeral_volume_claim_spec: Option<VolumeClaim> = "ephemeralVolumeClaimSpec" optional(),
        /// A persistent volume for it.
        persistent_volume_claim_spec: Option<VolumeClaim> = "persistentVolumeClaimSpec" optional(),
    }
}

/// A size in AIO's strict form: digits and one of `K`, `M`, `G`, `T`, `P`, `E`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferSize(pub u64);

impl Decode for BufferSize {
    fn decode(node: &Node, path: &Path<'_>, report: &mut Report) -> Option<Self> {
        let text = String::decode(node, path, report)?;
        let strict = text.ends_with(['K', 'M', 'G', 'T', 'P', 'E']);
        let result = if strict { super::common::parse_bytes(&text) } else { Err(String::new()) };
        let result = result.map_err(|_| "must be digits and one of `K`, `M`, `G`, `T`, `P`, `E`".to_owned());
        parsed(result, &text, node.position, path, report).map(Self)
    }
}

record! {
    /// Resource limits of the processes.
    pub struct GenerateResourceLimits {
        /// Whether CPU limits are set.
        cpu: OperationalMode = "cpu" or(OperationalMode::Enabled),
    }
}

record! {
    /// Logs, metrics, self checks and traces.
    pub struct BrokerDiagnostics {
        /// Logging.
        logs: Logs = "logs" or(Logs::default()),
        /// Metrics.
        metrics: Metrics = "metrics" or(Metrics::default()),
        /// Probes of the broker by itself.
        self_check: Option<SelfCheck> = "selfCheck" optional(),
        /// Traces.
        traces: Option<Traces> = "traces" optional(),
    }
}

record! {
    /// Probes of the broker by itself.
    pub struct SelfCheck {
        /// Whether it probes.
        mode: OperationalMode = "mode" or(OperationalMode::Enabled),
        /// How often, in seconds.
        interval_seconds: u16 = "intervalSeconds" or_in(30, 30..=300),
        /// How long it waits, in seconds.
        timeout_seconds: u16 = "timeoutSeconds" or_in(15, 5..=120),
    }
}

record! {
    /// Traces.
    pub struct Traces {
        /// Whether traces are made.
        mode: OperationalMode = "mode" or(OperationalMode::Enabled),
        /// How much they may take in memory.
        cache_size_megabytes: u16 = "cacheSizeMegabytes" or_in(16, 1..=128),
        /// Traces of the broker's own probes.
        self_tracing: Option<SelfTracing> = "selfTracing" optional(),
        /// How many spans may wait.
        span_channel_capacity: u32 = "spanChannelCapacity" or_in(1000, 1000..=100_000),
    }
}

record! {
    /// Traces of the broker's own probes.
    pub struct SelfTracing {
        /// Whether they are made.
        mode: OperationalMode = "mode" or(OperationalMode::Enabled),
        /// How often, in seconds.
        interval_seconds: u16 = "intervalSeconds" or_in(30, 1..=300),
    }
}

record! {
    /// What is kept on disk.
    pub struct Persistence {
        /// The largest size on disk.
        max_size: PersistenceSize = "maxSize" required(),
        /// The volume.
        persistent_volume_claim_spec: Option<VolumeClaim> = "persistentVolumeClaimSpec" optional(),
        /// Encryption on disk.
        encryption: Option<Encryption> = "encryption" optional(),
        /// Whether clients may ask for it (2025-07-01-preview).
        dynamic_settings: Option<DynamicSettings> = "dynamicSettings" optional(),
        /// Retained messages.
        retain: Option<RetainPersistence> = "retain" optional(),
        /// Queues of subscribers.
        subscriber_queue: Option<QueuePersistence> = "subscriberQueue" optional(),
        /// Keys of the state store.
        state_store: Option<StatePersistence> = "stateStore" optional(),
    }
}

/// A size on disk, more than 100 MB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PersistenceSize(pub u64);

impl Decode for PersistenceSize {
    fn decode(node: &Node, path: &Path<'_>, report: &mut Report) -> Option<Self> {
        let text = String::decode(node, path, report)?;
        let size = super::common::parse_bytes(&text).and_then(|size| match size {
            0..=100_000_000 => Err("must be more than 100 MB".to_owned()),
            _ => Ok(size),
        });
        parsed(size, &text, node.position, path, report).map(Self)
    }
}

record! {
    /// Encryption on disk.
    pub struct Encryption {
        /// Whether everything is encrypted.
        mode: OperationalMode = "mode" or(OperationalMode::Enabled),
    }
}

record! {
    /// The user property by which clients ask for persistence.
    pub struct DynamicSettings {
        /// Its key.
        user_property_key: String = "userPropertyKey" or("aio-persistence".to_owned()),
        /// Its value.
        user_property_value: String = "userPropertyValue" or("true".to_owned()),
    }
}

record! {
    /// Whether clients may ask for persistence.
    pub struct Dynamic {
        /// Whether they may.
        mode: OperationalMode = "mode" or(OperationalMode::Enabled),
    }
}

record! {
    /// Which retained messages are kept on disk.
    pub struct RetainPersistence {
        /// None, all or some.
        mode: PersistenceMode = "mode" required(),
        /// Which, for `Custom`.
        retain_settings: Option<RetainSettings> = "retainSettings" optional(),
    }
}

record! {
    /// Which retained messages are kept on disk.
    pub struct RetainSettings {
        /// Topic filters.
        topics: Vec<String> = "topics" or(Vec::new()),
        /// Whether clients may ask for it.
        dynamic: Option<Dynamic> = "dynamic" optional(),
    }
}

record! {
    /// Which queues are kept on disk.
    pub struct QueuePersistence {
        /// None, all or some.
        mode: PersistenceMode = "mode" required(),
        /// Which, for `Custom`.
        subscriber_queue_settings: Option<QueueSettings> = "subscriberQueueSettings" optional(),
    }
}

record! {
    /// Which queues are kept on disk.
    pub struct QueueSettings {
        /// Client ids, with `*` as wildcard.
        subscriber_client_ids: Vec<String> = "subscriberClientIds" or(Vec::new()),
        /// Topic filters (preview).
        topics: Vec<String> = "topics" or(Vec::new()),
        /// Whether clients may ask for it.
        dynamic: Option<Dynamic> = "dynamic" optional(),
    }
}

record! {
    /// Which keys of the state store are kept on disk.
    pub struct StatePersistence {
        /// None, all or some.
        mode: PersistenceMode = "mode" required(),
        /// Which, for `Custom`.
        state_store_settings: Option<StateSettings> = "stateStoreSettings" optional(),
    }
}

record! {
    /// Which keys of the state store are kept on disk.
    pub struct StateSettings {
        /// The keys.
        state_store_resources: Vec<StateKeys> = "stateStoreResources" or(Vec::new()),
        /// Whether clients may ask for it.
        dynamic: Option<Dynamic> = "dynamic" optional(),
    }
}

record! {
    /// Keys of the state store.
    pub struct StateKeys {
        /// How they are matched.
        key_type: KeyType = "keyType" required(),
        /// The keys.
        keys: Vec<String> = "keys" required(),
    }
}
