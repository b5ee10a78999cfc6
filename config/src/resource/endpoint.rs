//! `DataflowEndpoint` (AIO.md §5.2): a system that data flows read from or write to.

use super::common::{
    Empty, Host, OperationalMode, SecretRef, ServiceAccountToken, SystemIdentity, Tls, UserIdentity,
};
use crate::finding::Report;
use crate::read::{Decode, Fields, Located, Path, choice, record, tagged};
use crate::yaml::Node;

/// The host name of AIO's own broker service: whoever names it means the local broker.
const LOCAL_BROKER_HOST: &str = "aio-broker";

/// Whether `<hostname>[:port]` is AIO's own broker service.
pub(crate) fn is_local_host(host: &str) -> bool {
    host.split(['.', ':', '/']).next() == Some(LOCAL_BROKER_HOST)
}

/// A system that data flows read from or write to.
#[derive(Clone, Debug, PartialEq)]
pub struct DataflowEndpoint {
    /// What the settings are meant for; informative, except for `LocalBroker`.
    pub host_type: Option<HostType>,
    /// The kind of system and how it is reached.
    pub settings: EndpointSettings,
}

impl DataflowEndpoint {
    /// Whether this endpoint is the broker itself, in process.
    pub fn is_local_broker(&self) -> bool {
        let EndpointSettings::Mqtt(mqtt) = &self.settings else { return false };
        if self.host_type == Some(HostType::LocalBroker) {
            return true;
        }
        mqtt.host.as_ref().is_none_or(|host| is_local_host(host.as_str()))
    }

    /// The endpoint `default`, which exists without a file.
    pub(crate) fn local_broker() -> Self {
        Self { host_type: None, settings: EndpointSettings::Mqtt(Box::new(MqttSettings::local())) }
    }
}

impl Decode for DataflowEndpoint {
    fn decode(node: &Node, path: &Path<'_>, report: &mut Report) -> Option<Self> {
        let mut fields = Fields::open(node, path, report)?;
        let host_type: Option<Option<HostType>> = fields.optional("hostType");
        let settings = EndpointSettings::from_fields(&mut fields);
        fields.close()?;
        Some(Self { host_type: host_type?, settings: settings? })
    }
}

choice! {
    /// What an endpoint's settings are meant for.
    pub enum HostType {
        /// Microsoft Fabric real-time intelligence.
        FabricRt = "FabricRT",
        /// Azure Event Grid.
        EventGrid = "EventGrid",
        /// The broker itself.
        LocalBroker = "LocalBroker",
        /// Azure Event Hubs.
        Eventhub = "Eventhub",
        /// Any MQTT broker.
        CustomMqtt = "CustomMqtt",
        /// Any Kafka cluster.
        CustomKafka = "CustomKafka",
    }
}

tagged! {
    /// The kind of system and how it is reached.
    pub enum EndpointSettings by "endpointType" {
        /// Azure Data Explorer.
        DataExplorer(DataExplorerSettings) = "DataExplorer", "dataExplorerSettings" required(),
        /// Azure Data Lake Storage.
        DataLakeStorage(DataLakeStorageSettings) = "DataLakeStorage", "dataLakeStorageSettings" required(),
        /// Microsoft Fabric OneLake.
        FabricOneLake(FabricOneLakeSettings) = "FabricOneLake", "fabricOneLakeSettings" required(),
        /// Kafka, or what speaks its protocol.
        Kafka(Box<KafkaSettings>) = "Kafka", "kafkaSettings" required(),
        /// A volume of this machine.
        LocalStorage(LocalStorageSettings) = "LocalStorage", "localStorageSettings" required(),
        /// An MQTT broker, this one included.
        Mqtt(Box<MqttSettings>) = "Mqtt", "mqttSettings" required(),
        /// OpenTelemetry.
        OpenTelemetry(OpenTelemetrySettings) = "OpenTelemetry", "openTelemetrySettings" required(),
    }
}

impl EndpointSettings {
    /// The value of `endpointType`.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::DataExplorer(_) => "DataExplorer",
            Self::DataLakeStorage(_) => "DataLakeStorage",
            Self::FabricOneLake(_) => "FabricOneLake",
            Self::Kafka(_) => "Kafka",
            Self::LocalStorage(_) => "LocalStorage",
            Self::Mqtt(_) => "Mqtt",
            Self::OpenTelemetry(_) => "OpenTelemetry",
        }
    }

    /// Whether a source may use it.
    pub fn can_be_source(&self) -> bool {
        matches!(self, Self::Mqtt(_) | Self::Kafka(_))
    }

    /// Whether a destination may use it: all but Azure Data Explorer, which has no server here to be tried against.
    pub fn can_be_destination(&self) -> bool {
        !matches!(self, Self::DataExplorer(_))
    }

    /// Whether it is written in a format by a schema.
    pub fn is_storage(&self) -> bool {
        matches!(
            self,
            Self::DataLakeStorage(_) | Self::FabricOneLake(_) | Self::DataExplorer(_) | Self::LocalStorage(_)
        )
    }
}

record! {
    /// How an MQTT broker is reached.
    pub struct MqttSettings {
        /// `<hostname>:<port>`; without it, this broker.
        host: Option<Host> = "host" optional(),
        /// Who the data flow is to the broker.
        authentication: Option<MqttAuthentication> = "authentication" optional(),
        /// What carries MQTT.
        protocol: MqttProtocol = "protocol" or(MqttProtocol::Mqtt),
        /// What client ids begin with.
        client_id_prefix: Option<String> = "clientIdPrefix" optional(),
        /// The keep alive, in seconds.
        keep_alive_seconds: u16 = "keepAliveSeconds" or_in(60, 0..=65535),
        /// What becomes of the retain flag.
        retain: Retain = "retain" or(Retain::Keep),
        /// Receive maximum of a source; unacknowledged publishes of a destination.
        max_inflight_messages: u16 = "maxInflightMessages" or_in(100, 0..=65535),
        /// The QoS; without it, 1 towards other brokers, and that which messages have within this one.
        qos: Option<u8> = "qos" optional_in(0..=1),
        /// The session expiry, in seconds.
        session_expiry_seconds: u32 = "sessionExpirySeconds" or(600),
        /// TLS towards the broker.
        tls: Tls = "tls" or(Tls::default()),
        /// What becomes of CloudEvents attributes.
        cloud_event_attributes: Option<CloudEventAttributes> = "cloudEventAttributes" optional(),
    }
}

impl MqttSettings {
    fn local() -> Self {
        Self {
            host: None,
            authentication: None,
            protocol: MqttProtocol::Mqtt,
            client_id_prefix: None,
            keep_alive_seconds: 60,
            retain: Retain::Keep,
            max_inflight_messages: 100,
            qos: None,
            session_expiry_seconds: 600,
            tls: Tls::default(),
            cloud_event_attributes: None,
        }
    }
}

choice! {
    /// What carries MQTT.
    pub enum MqttProtocol {
        /// TCP.
        Mqtt = "Mqtt",
        /// WebSocket.
        WebSockets = "WebSockets",
    }
}

choice! {
    /// What becomes of the retain flag.
    pub enum Retain {
        /// It stays as it came.
        Keep = "Keep",
        /// It is cleared.
        Never = "Never",
    }
}

choice! {
    /// What becomes of CloudEvents attributes (AIO.md §7.4).
    pub enum CloudEventAttributes {
        /// They are passed on.
        Propagate = "Propagate",
        /// They are made anew, or mapped.
        CreateOrRemap = "CreateOrRemap",
    }
}

tagged! {
    /// Who the data flow is to an MQTT broker.
    pub enum MqttAuthentication by "method" {
        /// A Kubernetes service account.
        ServiceAccountToken(ServiceAccountToken) = "ServiceAccountToken", "serviceAccountTokenSettings"
            or(ServiceAccountToken { audience: "aio-internal".to_owned() }),
        /// A client certificate.
        X509Certificate(SecretRef) = "X509Certificate", "x509CertificateSettings" required(),
        /// A managed identity.
        SystemAssignedManagedIdentity(SystemIdentity) = "SystemAssignedManagedIdentity",
            "systemAssignedManagedIdentitySettings" or(SystemIdentity::unset()),
        /// A managed identity.
        UserAssignedManagedIdentity(UserIdentity) = "UserAssignedManagedIdentity",
            "userAssignedManagedIdentitySettings" required(),
        /// Nobody.
        Anonymous(Empty) = "Anonymous", "anonymousSettings" or(Empty {}),
    }
}

record! {
    /// How a Kafka cluster is reached.
    pub struct KafkaSettings {
        /// `<hostname>:<port>`.
        host: Host = "host" required(),
        /// Who the data flow is to the cluster.
        authentication: KafkaAuthentication = "authentication" required(),
        /// The consumer group; sources need it.
        consumer_group_id: Option<String> = "consumerGroupId" optional(),
        /// How messages are batched.
        batching: KafkaBatching = "batching" or(KafkaBatching::default()),
        /// How batches are compressed.
        compression: Compression = "compression" or(Compression::None),
        /// Which acknowledgements are waited for.
        kafka_acks: KafkaAcks = "kafkaAcks" or(KafkaAcks::All),
        /// How messages are spread over partitions.
        partition_strategy: PartitionStrategy = "partitionStrategy" or(PartitionStrategy::Default),
        /// The user property that names the partition key (`Property`).
        partition_key_property: Option<String> = "partitionKeyProperty" optional(),
        /// Whether MQTT properties become headers, and the reverse.
        copy_mqtt_properties: OperationalMode = "copyMqttProperties" or(OperationalMode::Enabled),
        /// TLS towards the cluster.
        tls: Tls = "tls" or(Tls::default()),
        /// What becomes of CloudEvents attributes.
        cloud_event_attributes: Option<CloudEventAttributes> = "cloudEventAttributes" optional(),
    }
}

tagged! {
    /// Who the data flow is to a Kafka cluster.
    pub enum KafkaAuthentication by "method" {
        /// A managed identity.
        SystemAssignedManagedIdentity(SystemIdentity) = "SystemAssignedManagedIdentity",
            "systemAssignedManagedIdentitySettings" or(SystemIdentity::unset()),
        /// A managed identity.
        UserAssignedManagedIdentity(UserIdentity) = "UserAssignedManagedIdentity",
            "userAssignedManagedIdentitySettings" required(),
        /// A name and password, or a token.
        Sasl(SaslSettings) = "Sasl", "saslSettings" required(),
        /// A client certificate.
        X509Certificate(SecretRef) = "X509Certificate", "x509CertificateSettings" required(),
        /// Nobody.
        Anonymous(Empty) = "Anonymous", "anonymousSettings" or(Empty {}),
    }
}

record! {
    /// SASL towards Kafka.
    pub struct SaslSettings {
        /// The mechanism.
        sasl_type: SaslType = "saslType" required(),
        /// The Secret with `username` and `password`, or `token`.
        secret_ref: Located<String> = "secretRef" required(),
    }
}

choice! {
    /// A SASL mechanism.
    pub enum SaslType {
        /// PLAIN.
        Plain = "Plain",
        /// SCRAM-SHA-256.
        ScramSha256 = "ScramSha256",
        /// SCRAM-SHA-512.
        ScramSha512 = "ScramSha512",
    }
}

record! {
    /// How messages to Kafka are batched.
    pub struct KafkaBatching {
        /// Whether they are.
        mode: OperationalMode = "mode" or(OperationalMode::Enabled),
        /// The longest wait for more, in milliseconds.
        latency_ms: u16 = "latencyMs" or_in(5, 0..=65535),
        /// The largest batch, in bytes.
        max_bytes: u32 = "maxBytes" or(1_000_000),
        /// The largest batch, in messages.
        max_messages: u32 = "maxMessages" or(100_000),
    }
}

impl Default for KafkaBatching {
    fn default() -> Self {
        let mode = OperationalMode::Enabled;
        Self { mode, latency_ms: 5, max_bytes: 1_000_000, max_messages: 100_000 }
    }
}

choice! {
    /// How batches are compressed.
    pub enum Compression {
        /// Not.
        None = "None",
        /// gzip.
        Gzip = "Gzip",
        /// Snappy.
        Snappy = "Snappy",
        /// LZ4.
        Lz4 = "Lz4",
    }
}

choice! {
    /// Which acknowledgements are waited for.
    pub enum KafkaAcks {
        /// None.
        Zero = "Zero",
        /// None (as the documentation writes it).
        None = "None",
        /// The leader's.
        One = "One",
        /// Those of all in-sync replicas.
        All = "All",
    }
}

choice! {
    /// How messages are spread over partitions.
    pub enum PartitionStrategy {
        /// In turn.
        Default = "Default",
        /// By the number of the instance.
        Static = "Static",
        /// By topic.
        Topic = "Topic",
        /// By a user property.
        Property = "Property",
    }
}

record! {
    /// How messages to storage are batched.
    pub struct StorageBatching {
        /// The longest wait for more, in seconds.
        latency_seconds: u16 = "latencySeconds" or_in(60, 0..=65535),
        /// The largest batch, in messages.
        max_messages: u32 = "maxMessages" or(100_000),
    }
}

impl Default for StorageBatching {
    fn default() -> Self {
        Self { latency_seconds: 60, max_messages: 100_000 }
    }
}

record! {
    /// How Azure Data Lake Storage is reached.
    pub struct DataLakeStorageSettings {
        /// `<account>.blob.core.windows.net`.
        host: Host = "host" required(),
        /// Who the data flow is to the store.
        authentication: DataLakeAuthentication = "authentication" required(),
        /// How messages are batched.
        batching: StorageBatching = "batching" or(StorageBatching::default()),
    }
}

tagged! {
    /// Who the data flow is to Azure Data Lake Storage.
    pub enum DataLakeAuthentication by "method" {
        /// A managed identity.
        SystemAssignedManagedIdentity(SystemIdentity) = "SystemAssignedManagedIdentity",
            "systemAssignedManagedIdentitySettings" or(SystemIdentity::unset()),
        /// A managed identity.
        UserAssignedManagedIdentity(UserIdentity) = "UserAssignedManagedIdentity",
            "userAssignedManagedIdentitySettings" required(),
        /// A shared access signature.
        AccessToken(SecretRef) = "AccessToken", "accessTokenSettings" required(),
    }
}

tagged! {
    /// Who the data flow is to Fabric and Data Explorer.
    pub enum ManagedIdentity by "method" {
        /// A managed identity.
        SystemAssignedManagedIdentity(SystemIdentity) = "SystemAssignedManagedIdentity",
            "systemAssignedManagedIdentitySettings" or(SystemIdentity::unset()),
        /// A managed identity.
        UserAssignedManagedIdentity(UserIdentity) = "UserAssignedManagedIdentity",
            "userAssignedManagedIdentitySettings" required(),
    }
}

record! {
    /// How Microsoft Fabric OneLake is reached.
    pub struct FabricOneLakeSettings {
        /// `<name>.fabric.microsoft.com`.
        host: Host = "host" required(),
        /// Workspace and lakehouse.
        names: FabricNames = "names" required(),
        /// Files or tables.
        one_lake_path_type: OneLakePathType = "oneLakePathType" required(),
        /// Who the data flow is to the store.
        authentication: ManagedIdentity = "authentication" required(),
        /// How messages are batched.
        batching: StorageBatching = "batching" or(StorageBatching::default()),
    }
}

record! {
    /// Where in OneLake.
    pub struct FabricNames {
        /// The workspace.
        workspace_name: String = "workspaceName" required(),
        /// The lakehouse.
        lakehouse_name: String = "lakehouseName" required(),
    }
}

choice! {
    /// What is written to a lakehouse.
    pub enum OneLakePathType {
        /// Files.
        Files = "Files",
        /// Tables.
        Tables = "Tables",
    }
}

record! {
    /// How Azure Data Explorer is reached.
    pub struct DataExplorerSettings {
        /// `<cluster>.<region>.kusto.windows.net`.
        host: Host = "host" required(),
        /// The database.
        database: String = "database" required(),
        /// Who the data flow is to the cluster.
        authentication: ManagedIdentity = "authentication" required(),
        /// How messages are batched.
        batching: StorageBatching = "batching" or(StorageBatching::default()),
    }
}

record! {
    /// A volume of this machine.
    pub struct LocalStorageSettings {
        /// The volume claim.
        persistent_volume_claim_ref: String = "persistentVolumeClaimRef" required(),
    }
}

record! {
    /// How an OpenTelemetry collector is reached.
    pub struct OpenTelemetrySettings {
        /// `<hostname>:<port>`, with or without `http://` or `https://`.
        host: Host = "host" required(),
        /// Who the data flow is to the collector.
        authentication: OpenTelemetryAuthentication = "authentication" required(),
        /// How messages are batched.
        batching: StorageBatching = "batching" or(StorageBatching::default()),
        /// TLS towards the collector.
        tls: Tls = "tls" or(Tls::default()),
    }
}

tagged! {
    /// Who the data flow is to a collector.
    pub enum OpenTelemetryAuthentication by "method" {
        /// A Kubernetes service account.
        ServiceAccountToken(ServiceAccountToken) = "ServiceAccountToken", "serviceAccountTokenSettings"
            or(ServiceAccountToken { audience: "aio-internal".to_owned() }),
        /// A client certificate.
        X509Certificate(SecretRef) = "X509Certificate", "x509CertificateSettings" required(),
        /// Nobody.
        Anonymous(Empty) = "Anonymous", "anonymousSettings" or(Empty {}),
    }
}

impl DataflowEndpoint {
    /// The ConfigMap with certificates to trust that the settings name, with the key that names it.
    pub(crate) fn trusted_cas_ref(&self) -> Option<(&'static str, &Located<String>)> {
        const MQTT: &str = "spec.mqttSettings.tls.trustedCaCertificateConfigMapRef";
        const KAFKA: &str = "spec.kafkaSettings.tls.trustedCaCertificateConfigMapRef";
        const TELEMETRY: &str = "spec.openTelemetrySettings.tls.trustedCaCertificateConfigMapRef";
        let (key, tls) = match &self.settings {
            EndpointSettings::Mqtt(mqtt) => (MQTT, &mqtt.tls),
            EndpointSettings::Kafka(kafka) => (KAFKA, &kafka.tls),
            EndpointSettings::OpenTelemetry(telemetry) => (TELEMETRY, &telemetry.tls),
            _ => return None,
        };
        Some((key, tls.trusted_ca_certificate_config_map_ref.as_ref()?))
    }

    /// The Secret that the settings name, with the key that names it.
    pub(crate) fn secret_ref(&self) -> Option<(&'static str, &Located<String>)> {
        const SASL: &str = "spec.kafkaSettings.authentication.saslSettings.secretRef";
        const KAFKA: &str = "spec.kafkaSettings.authentication.x509CertificateSettings.secretRef";
        const MQTT: &str = "spec.mqttSettings.authentication.x509CertificateSettings.secretRef";
        const LAKE: &str = "spec.dataLakeStorageSettings.authentication.accessTokenSettings.secretRef";
        const TELEMETRY: &str = "spec.openTelemetrySettings.authentication.x509CertificateSettings.secretRef";
        match &self.settings {
            EndpointSettings::Mqtt(mqtt) => match &mqtt.authentication {
                Some(MqttAuthentication::X509Certificate(certificate)) => {
                    Some((MQTT, &certificate.secret_ref))
                }
                _ => None,
            },
            EndpointSettings::Kafka(kafka) => match &kafka.authentication {
                KafkaAuthentication::Sasl(sasl) => Some((SASL, &sasl.secret_ref)),
                KafkaAuthentication::X509Certificate(certificate) => Some((KAFKA, &certificate.secret_ref)),
                _ => None,
            },
            EndpointSettings::DataLakeStorage(lake) => match &lake.authentication {
                DataLakeAuthentication::AccessToken(token) => Some((LAKE, &token.secret_ref)),
                _ => None,
            },
            EndpointSettings::OpenTelemetry(telemetry) => match &telemetry.authentication {
                OpenTelemetryAuthentication::X509Certificate(certificate) => {
                    Some((TELEMETRY, &certificate.secret_ref))
                }
                _ => None,
            },
            _ => None,
        }
    }
}
