//! Which module speaks to which system.

use std::path::PathBuf;
use std::sync::Arc;

use config::RemoteEndpoint;
use config::resource::endpoint::EndpointSettings;

use crate::{Destination, Instance, Source};

/// What a destination writes to.
#[derive(Clone, Debug)]
pub struct Outward {
    /// The system.
    pub endpoint: RemoteEndpoint,
    /// The `dataDestination`: a topic, container, table or folder. MQTT brokers take each parcel's own topic.
    pub target: String,
    /// Format and schema of what is written to storage.
    pub output: Option<Output>,
    /// Who writes.
    pub instance: Instance,
    /// Where the directories are that stand for volume claims.
    pub volumes: Option<PathBuf>,
}

/// Format and schema of what is written to storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// The format.
    pub format: config::resource::graph::OutputFormat,
    /// The name of the schema, such as `aio-sr://namespace/name:1`.
    pub reference: String,
    /// The document of the schema, JSON.
    pub schema: Arc<str>,
}

/// What a source reads from.
#[derive(Clone, Debug)]
pub struct Inward {
    /// The system.
    pub endpoint: RemoteEndpoint,
    /// The `dataSources`: topic filters, or topics of Kafka.
    pub data_sources: Vec<String>,
    /// Who reads.
    pub instance: Instance,
}

/// Why an endpoint cannot be used as it is: nothing but other resources or another build changes that.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Unusable {
    /// AIO's reason code (AIO.md §9.7).
    pub code: &'static str,
    /// What is wrong and what to do about it; names the key.
    pub why: String,
}

#[cfg(not(all(feature = "kafka", feature = "mqtt", feature = "otlp", feature = "storage")))]
impl Unusable {
    fn not_built(endpoint: &RemoteEndpoint, feature: &str) -> Self {
        let kind = endpoint.settings.type_name();
        Self {
            code: "DataflowGraphConfigurationFailed",
            why: format!(
                "{} is of type {kind}, which this build of forebay does not speak; one made with `--features {feature}` does",
                endpoint.id
            ),
        }
    }
}

/// A destination that speaks to the system of `outward`.
///
/// # Errors
/// The endpoint cannot be used as it is.
pub fn destination(outward: Outward) -> Result<Box<dyn Destination>, Unusable> {
    match &outward.endpoint.settings {
        #[cfg(feature = "mqtt")]
        EndpointSettings::Mqtt(_) => Ok(Box::new(crate::mqtt::MqttDestination::new(&outward)?)),
        #[cfg(not(feature = "mqtt"))]
        EndpointSettings::Mqtt(_) => Err(Unusable::not_built(&outward.endpoint, "mqtt")),
        #[cfg(feature = "kafka")]
        EndpointSettings::Kafka(_) => Ok(Box::new(crate::kafka::KafkaDestination::new(&outward)?)),
        #[cfg(not(feature = "kafka"))]
        EndpointSettings::Kafka(_) => Err(Unusable::not_built(&outward.endpoint, "kafka")),
        #[cfg(feature = "otlp")]
        EndpointSettings::OpenTelemetry(_) => Ok(Box::new(crate::otlp::OtlpDestination::new(&outward)?)),
        #[cfg(not(feature = "otlp"))]
        EndpointSettings::OpenTelemetry(_) => Err(Unusable::not_built(&outward.endpoint, "otlp")),
        #[cfg(feature = "storage")]
        _ => Ok(Box::new(crate::storage::StorageDestination::new(&outward)?)),
        #[cfg(not(feature = "storage"))]
        _ => Err(Unusable::not_built(&outward.endpoint, "storage")),
    }
}

/// A source that speaks to the system of `inward`.
///
/// # Errors
/// The endpoint cannot be used as it is.
pub fn source(inward: Inward) -> Result<Box<dyn Source>, Unusable> {
    match &inward.endpoint.settings {
        #[cfg(feature = "kafka")]
        EndpointSettings::Kafka(_) => Ok(Box::new(crate::kafka::KafkaSource::new(&inward)?)),
        #[cfg(not(feature = "kafka"))]
        EndpointSettings::Kafka(_) => Err(Unusable::not_built(&inward.endpoint, "kafka")),
        #[cfg(feature = "mqtt")]
        _ => Ok(Box::new(crate::mqtt::MqttSource::new(&inward)?)),
        #[cfg(not(feature = "mqtt"))]
        _ => Err(Unusable::not_built(&inward.endpoint, "mqtt")),
    }
}

/// The kind of system as AIO's metrics call it (AIO.md §9.6).
pub fn service_type(endpoint: &RemoteEndpoint) -> &'static str {
    use config::resource::endpoint::HostType;
    match (&endpoint.settings, endpoint.host_type) {
        (_, Some(HostType::FabricRt)) => "Fabric RTI",
        (_, Some(HostType::EventGrid)) => "Event Grid",
        (_, Some(HostType::Eventhub)) => "Event Hubs",
        (EndpointSettings::Mqtt(_), _) => "Unknown Mqtt Broker",
        (EndpointSettings::Kafka(_), _) => "Unknown Kafka Broker",
        (EndpointSettings::OpenTelemetry(_), _) => "Open Telemetry",
        (EndpointSettings::LocalStorage(_), _) => "Local Storage",
        (EndpointSettings::DataLakeStorage(_), _) => "Blob Storage",
        (EndpointSettings::FabricOneLake(_), _) => "Fabric OneLake",
        (EndpointSettings::DataExplorer(_), _) => "Data Explorer",
    }
}
