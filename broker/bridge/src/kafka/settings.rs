//! What a DataflowEndpoint says of a Kafka cluster, in librdkafka's words.

use config::RemoteEndpoint;
use config::resource::common::OperationalMode;
use config::resource::endpoint::{
    Compression, EndpointSettings, KafkaAcks, KafkaAuthentication, KafkaSettings, SaslSettings, SaslType,
};
use rdkafka::ClientConfig;

use crate::{Instance, Unusable};

/// The user name that goes with a connection string of Azure Event Hubs.
const EVENT_HUBS_USER: &str = "$ConnectionString";

/// The settings of an endpoint.
pub fn of(endpoint: &RemoteEndpoint) -> Option<&KafkaSettings> {
    match &endpoint.settings {
        EndpointSettings::Kafka(settings) => Some(settings),
        _ => None,
    }
}

/// What producers and consumers have in common: where the cluster is, and who we are to it.
pub fn common(
    endpoint: &RemoteEndpoint,
    settings: &KafkaSettings,
    instance: &Instance,
    code: &'static str,
) -> Result<ClientConfig, Unusable> {
    let unusable = |why: String| Unusable { code, why: format!("{}: {why}", endpoint.id) };
    let mut config = ClientConfig::new();
    let host = settings.host.as_str();
    let host = host.split_once("://").map_or(host, |(_, rest)| rest);
    config.set(
        "bootstrap.servers",
        if settings.host.port().is_some() { host.to_owned() } else { format!("{host}:9093") },
    );
    config.set("client.id", format!("{}-{}-{}", instance.graph, instance.node, instance.process));
    // A cluster that comes back is noticed soon.
    config.set("reconnect.backoff.max.ms", "5000").set("socket.keepalive.enable", "true");
    let encrypted = settings.tls.mode == OperationalMode::Enabled;
    if encrypted && let Some(map) = &endpoint.trusted_cas {
        let pem = String::from_utf8_lossy(&map.joined()).into_owned();
        if !pem.contains("BEGIN CERTIFICATE") {
            return Err(unusable(
                "the ConfigMap of `tls.trustedCaCertificateConfigMapRef` holds no certificate".to_owned(),
            ));
        }
        config.set("ssl.ca.pem", pem);
    }
    let sasl = identify(endpoint, settings, encrypted, &mut config).map_err(unusable)?;
    config.set(
        "security.protocol",
        match (encrypted, sasl) {
            (true, true) => "sasl_ssl",
            (true, false) => "ssl",
            (false, true) => "sasl_plaintext",
            (false, false) => "plaintext",
        },
    );
    Ok(config)
}

/// Says who we are. Whether by SASL.
fn identify(
    endpoint: &RemoteEndpoint,
    settings: &KafkaSettings,
    encrypted: bool,
    config: &mut ClientConfig,
) -> Result<bool, String> {
    let azure = |method: &str| {
        Err(format!(
            "`authentication.method` is {method}, which only Azure can give; use Sasl or X509Certificate here"
        ))
    };
    match &settings.authentication {
        KafkaAuthentication::SystemAssignedManagedIdentity(_) => azure("SystemAssignedManagedIdentity"),
        KafkaAuthentication::UserAssignedManagedIdentity(_) => azure("UserAssignedManagedIdentity"),
        KafkaAuthentication::Anonymous(_) => Ok(false),
        KafkaAuthentication::X509Certificate(_) if !encrypted => {
            Err("a client certificate needs TLS, and `tls.mode` is Disabled".to_owned())
        }
        KafkaAuthentication::X509Certificate(_) => {
            let secret = endpoint.secret.as_ref().ok_or("the Secret of the client certificate is missing")?;
            let entry = |names: [&str; 2]| {
                let found = names.iter().find_map(|name| secret.text(name).ok());
                found.ok_or_else(|| format!("the Secret has neither `{}` nor `{}`", names[0], names[1]))
            };
            let mut chain = entry(["client_cert.pem", "tls.crt"])?.reveal().to_owned();
            if let Ok(more) = secret.text("client_intermediate_certs.pem") {
                chain = format!("{}\n{}", chain.trim_end(), more.reveal());
            }
            config.set("ssl.certificate.pem", chain);
            config.set("ssl.key.pem", entry(["client_key.pem", "tls.key"])?.reveal());
            Ok(false)
        }
        KafkaAuthentication::Sasl(sasl) => login(endpoint, sasl, config).map(|()| true),
    }
}

fn login(endpoint: &RemoteEndpoint, sasl: &SaslSettings, config: &mut ClientConfig) -> Result<(), String> {
    let secret = endpoint.secret.as_ref().ok_or("the Secret of `saslSettings.secretRef` is missing")?;
    config.set(
        "sasl.mechanism",
        match sasl.sasl_type {
            SaslType::Plain => "PLAIN",
            SaslType::ScramSha256 => "SCRAM-SHA-256",
            SaslType::ScramSha512 => "SCRAM-SHA-512",
        },
    );
    if let Ok(token) = secret.text("token") {
        config.set("sasl.username", EVENT_HUBS_USER).set("sasl.password", token.reveal().trim());
        return Ok(());
    }
    let fault = |fault: String| format!("the Secret of `saslSettings.secretRef` {fault}, and no `token`");
    config.set("sasl.username", secret.text("username").map_err(fault)?.reveal());
    config.set("sasl.password", secret.text("password").map_err(fault)?.reveal());
    Ok(())
}

/// What a producer needs beyond that.
pub fn producing(settings: &KafkaSettings, config: &mut ClientConfig) {
    let batching = &settings.batching;
    match batching.mode {
        OperationalMode::Enabled => {
            config.set("linger.ms", batching.latency_ms.to_string());
            config.set("batch.size", batching.max_bytes.clamp(1, 100_000_000).to_string());
            config.set("batch.num.messages", batching.max_messages.clamp(1, 1_000_000).to_string());
        }
        OperationalMode::Disabled => drop(config.set("linger.ms", "0").set("batch.num.messages", "1")),
    }
    config.set(
        "compression.type",
        match settings.compression {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Snappy => "snappy",
            Compression::Lz4 => "lz4",
        },
    );
    match settings.kafka_acks {
        // Sent again without being doubled or overtaken.
        KafkaAcks::All => config.set("acks", "all").set("enable.idempotence", "true"),
        KafkaAcks::One => config.set("acks", "1").set("max.in.flight.requests.per.connection", "1"),
        KafkaAcks::Zero | KafkaAcks::None => {
            config.set("acks", "0").set("max.in.flight.requests.per.connection", "1")
        }
    };
    // Keys go where Java's clients put them; messages are tried for as long as it takes.
    config.set("partitioner", "murmur2_random").set("message.timeout.ms", "0");
    // What waits is bounded by the queue in front.
    config.set("queue.buffering.max.messages", "1000000").set("queue.buffering.max.kbytes", "1048576");
}

/// What a consumer needs beyond that.
pub fn consuming(group: &str, instance: &Instance, config: &mut ClientConfig) {
    config.set("group.id", group);
    // Who comes back soon gets the partitions that he had, without the others having to stop (static membership).
    let Instance { namespace, graph, node, process } = instance;
    config.set("group.instance.id", format!("{namespace}.{graph}.{node}.{process}"));
    config.set("enable.auto.commit", "false").set("enable.auto.offset.store", "false");
    config.set("auto.offset.reset", "earliest");
    config.set("max.poll.interval.ms", "15000");
    config.set("session.timeout.ms", "10000").set("heartbeat.interval.ms", "2000");
    // No more is fetched than the data flow can soon take.
    config.set("queued.max.messages.kbytes", "16384").set("queued.min.messages", "1000");
}
