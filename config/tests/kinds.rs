//! Every field of every kind is accepted, with the values and defaults of AIO (AIO.md §5, §6).
// Helpers of tests may fail as tests do.
#![allow(clippy::expect_used, clippy::panic)]

mod support;

use forebay_config::resource::access::{AuthenticationMethod, BrokerMethod, StateStoreMethod};
use forebay_config::resource::broker::{HighPriority, KeyAlgorithm, MemoryProfile, QueueStrategy};
use forebay_config::resource::common::{KeyType, OperationalMode, PersistenceMode};
use forebay_config::resource::endpoint::{
    CloudEventAttributes, Compression, EndpointSettings, KafkaAcks, KafkaAuthentication, MqttProtocol,
    PartitionStrategy, Retain,
};
use forebay_config::resource::graph::{ArtifactRef, HeaderAction, NodeSettings};
use forebay_config::resource::listener::{ListenerProtocol, ListenerTls, ServiceType};
use forebay_config::resource::registry::{RegistryAuthentication, TrustedKey};
use forebay_config::{Loaded, load_str};
use std::time::Duration;

const CONNECTIVITY: &str = "connectivity.iotoperations.azure.com";
const BROKER: &str = "mqttbroker.iotoperations.azure.com";

/// Loads one resource. Nothing may be wrong with it but what is not supported or not there yet.
#[track_caller]
fn load(group: &str, kind: &str, spec: &str) -> Loaded {
    let text = format!("apiVersion: {group}/v1\nkind: {kind}\nmetadata:\n  name: default\nspec:\n{spec}");
    let loaded = load_str("t.yaml", &text);
    let expected = ["not supported yet", "does not exist", "is for storage only"];
    let others = loaded.findings.iter().filter(|finding| finding.is_error());
    let others: Vec<_> = others.filter(|f| !expected.iter().any(|part| f.message.contains(part))).collect();
    assert_eq!(others, Vec::<&forebay_config::Finding>::new());
    loaded
}

#[test]
fn a_graph_with_every_field() {
    let loaded = load(
        CONNECTIVITY,
        "DataflowGraph",
        "  profileRef: default
  mode: eNABLED
  requestDiskPersistence: Enabled
  nodes:
    - nodeType: Source
      name: a
      sourceSettings:
        endpointRef: default
        assetRef: asset
        dataSources: [x]
    - nodeType: Graph
      name: b
      graphSettings:
        registryEndpointRef: default
        artifact: path/graph@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
        configuration: [{key: k, value: v}]
    - nodeType: Destination
      name: c
      destinationSettings:
        endpointRef: default
        dataDestination: y
        headers:
          - {actionType: AddIfNotPresent, key: a, value: b}
          - {actionType: AddOrReplace, key: c, value: d}
          - {actionType: Remove, key: e}
        outputSchemaSettings: {serializationFormat: Delta, schemaRef: \"aio-sr://n/s:1\"}
  nodeConnections:
    - from: {name: a, schema: {serializationFormat: Avro, schemaRef: \"aio-sr://n/s:1\"}}
      to: {name: b}
    - from: {name: b}
      to: {name: c}
  fileStores:
    - {id: f, persistentVolumeClaimRef: pvc, subPath: a/b, readOnly: false}
",
    );
    let graph = &loaded.resources.graphs[0].spec;
    assert_eq!(graph.mode, OperationalMode::Enabled);
    assert!(!graph.file_stores[0].read_only);
    let NodeSettings::Graph(settings) = &graph.nodes[1].settings else { panic!("a graph node expected") };
    assert_eq!(ArtifactRef::parse(&settings.artifact.to_string()), Ok(settings.artifact.value.clone()));
    let NodeSettings::Destination(destination) = &graph.nodes[2].settings else {
        panic!("a destination expected")
    };
    assert_eq!(destination.headers[2], HeaderAction::Remove { key: "e".to_owned() });
    assert!(loaded.plans().is_empty(), "what is not supported keeps it from running");
}

#[test]
fn an_mqtt_endpoint_with_every_field() {
    let loaded = load(
        CONNECTIVITY,
        "DataflowEndpoint",
        "  endpointType: Mqtt
  hostType: EventGrid
  mqttSettings:
    host: ns.westeurope-1.ts.eventgrid.azure.net:443/mqtt
    authentication:
      method: UserAssignedManagedIdentity
      userAssignedManagedIdentitySettings: {clientId: a, tenantId: b, scope: c}
    protocol: WebSockets
    clientIdPrefix: p
    keepAliveSeconds: 0
    retain: Never
    maxInflightMessages: 65535
    qos: 0
    sessionExpirySeconds: 4294967295
    tls: {mode: disabled, trustedCaCertificateConfigMapRef: ca}
    cloudEventAttributes: CreateOrRemap
",
    );
    let EndpointSettings::Mqtt(mqtt) = &loaded.resources.endpoints[0].spec.settings else {
        panic!("MQTT expected")
    };
    assert_eq!((mqtt.protocol, mqtt.retain, mqtt.qos), (MqttProtocol::WebSockets, Retain::Never, Some(0)));
    assert_eq!(mqtt.cloud_event_attributes, Some(CloudEventAttributes::CreateOrRemap));
    assert_eq!(mqtt.tls.mode, OperationalMode::Disabled);
    assert!(!loaded.resources.endpoints[0].spec.is_local_broker());
}

#[test]
fn an_mqtt_endpoint_has_defaults() {
    let loaded = load(CONNECTIVITY, "DataflowEndpoint", "  endpointType: Mqtt\n  mqttSettings: {}\n");
    assert_eq!(loaded.findings, []);
    let EndpointSettings::Mqtt(mqtt) = &loaded.resources.endpoints[0].spec.settings else {
        panic!("MQTT expected")
    };
    assert_eq!((mqtt.keep_alive_seconds, mqtt.qos, mqtt.max_inflight_messages), (60, None, 100));
    assert_eq!((mqtt.session_expiry_seconds, mqtt.retain), (600, Retain::Keep));
    assert_eq!(mqtt.tls.mode, OperationalMode::Enabled);
}

#[test]
fn a_kafka_endpoint_with_every_field_and_with_defaults() {
    let spec = |more: &str| {
        format!(
            "  endpointType: Kafka
  kafkaSettings:
    host: broker.example:9093
    authentication:
      method: Sasl
      saslSettings: {{saslType: ScramSha512, secretRef: s}}
{more}"
        )
    };
    let every = "    consumerGroupId: g
    batching: {mode: Disabled, latencyMs: 65535, maxBytes: 1, maxMessages: 2}
    compression: Lz4
    kafkaAcks: One
    partitionStrategy: Property
    partitionKeyProperty: key
    copyMqttProperties: Disabled
    tls: {mode: Enabled}
    cloudEventAttributes: Propagate
";
    let kafka = |more: &str| match &load(CONNECTIVITY, "DataflowEndpoint", &spec(more)).resources.endpoints[0]
        .spec
        .settings
    {
        EndpointSettings::Kafka(kafka) => kafka.clone(),
        other => panic!("Kafka expected: {other:?}"),
    };
    let full = kafka(every);
    assert_eq!((full.compression, full.kafka_acks), (Compression::Lz4, KafkaAcks::One));
    assert_eq!((full.partition_strategy, full.batching.latency_ms), (PartitionStrategy::Property, 65535));
    assert!(matches!(full.authentication, KafkaAuthentication::Sasl(_)));
    let bare = kafka("");
    assert_eq!((bare.compression, bare.kafka_acks), (Compression::None, KafkaAcks::All));
    assert_eq!(bare.partition_strategy, PartitionStrategy::Default);
    assert_eq!(bare.copy_mqtt_properties, OperationalMode::Enabled);
    let batching = bare.batching;
    assert_eq!((batching.latency_ms, batching.max_bytes, batching.max_messages), (5, 1_000_000, 100_000));
}

#[test]
fn every_other_type_of_endpoint() {
    let identity = "    authentication: {method: SystemAssignedManagedIdentity, systemAssignedManagedIdentitySettings: {audience: x}}
    batching: {latencySeconds: 5, maxMessages: 7}
";
    let load = |spec: &str| {
        load(CONNECTIVITY, "DataflowEndpoint", spec).resources.endpoints[0].spec.settings.type_name()
    };
    for (name, settings) in [
        ("DataExplorer", "  dataExplorerSettings:\n    host: c.r.kusto.windows.net\n    database: d\n"),
        ("DataLakeStorage", "  dataLakeStorageSettings:\n    host: a.blob.core.windows.net\n"),
        (
            "FabricOneLake",
            "  hostType: FabricRT
  fabricOneLakeSettings:
    host: onelake.dfs.fabric.microsoft.com
    names: {workspaceName: w, lakehouseName: l}
    oneLakePathType: Tables
",
        ),
    ] {
        assert_eq!(load(&format!("  endpointType: {name}\n{settings}{identity}")), name);
    }
    let local = "  endpointType: LocalStorage\n  localStorageSettings: {persistentVolumeClaimRef: pvc}\n";
    assert_eq!(load(local), "LocalStorage");
    let telemetry = "  endpointType: OpenTelemetry
  openTelemetrySettings:
    host: https://collector:4317
    authentication: {method: Anonymous, anonymousSettings: {}}
    batching: {latencySeconds: 5}
    tls: {mode: Disabled}
";
    assert_eq!(load(telemetry), "OpenTelemetry");
}

#[test]
fn a_profile_with_every_field() {
    let loaded = load(
        CONNECTIVITY,
        "DataflowProfile",
        "  instanceCount: 20
  diagnostics:
    logs: {level: \"debug,hyper=off\"}
    metrics: {prometheusPort: 9601}
    debuggingSettings:
      destinationSettings: {endpointRef: default}
      samplingPolicy: {method: Count, countSettings: {nth: 10}}
",
    );
    let profile = &loaded.resources.profiles[0].spec;
    let diagnostics = profile.diagnostics.as_ref().expect("they were given");
    assert_eq!((profile.instance_count, diagnostics.metrics.prometheus_port), (20, 9601));
}

#[test]
fn a_registry_with_every_field() {
    let loaded = load(
        CONNECTIVITY,
        "RegistryEndpoint",
        "  host: acr.azurecr.io
  authentication:
    method: SystemAssignedManagedIdentity
    systemAssignedManagedIdentitySettings: {audience: a, extensionName: b, tenantId: c}
  trustSettings:
    trustedSigningKeys: {type: Secret, secretRef: key}
  codeSigningCas:
    - {type: ConfigMap, configMapRef: ca}
",
    );
    let registry = &loaded.resources.registries[0].spec;
    assert!(matches!(registry.authentication, RegistryAuthentication::SystemAssignedManagedIdentity(_)));
    assert!(matches!(&registry.code_signing_cas[0], TrustedKey::ConfigMap(name) if name.value == "ca"));
}

#[test]
fn a_broker_with_every_field() {
    let loaded = load(
        BROKER,
        "Broker",
        "  cardinality:
    frontend: {replicas: 16, workers: 16}
    backendChain: {partitions: 16, redundancyFactor: 5, workers: 16}
  memoryProfile: High
  advanced:
    clients:
      maxSessionExpirySeconds: 4294967295
      maxMessageExpirySeconds: 1
      maxPacketSizeBytes: 268435456
      subscriberQueueLimit: {length: 1000, strategy: DropOldest}
      maxReceiveMaximum: 65535
      maxKeepAliveSeconds: 0
    encryptInternalTraffic: Disabled
    internalCerts: {duration: 240h, renewBefore: 30m, privateKey: {algorithm: Ed25519, rotationPolicy: Never}}
  diskBackedMessageBuffer:
    maxSize: 10G
    ephemeralVolumeClaimSpec:
      storageClassName: x
      accessModes: [ReadWriteOnce]
      volumeMode: Filesystem
      resources: {requests: {storage: 10Gi}}
  generateResourceLimits: {cpu: Disabled}
  diagnostics:
    logs: {level: trace}
    metrics: {prometheusPort: 1}
    selfCheck: {mode: Enabled, intervalSeconds: 300, timeoutSeconds: 120}
    traces: {mode: Disabled, cacheSizeMegabytes: 128, selfTracing: {mode: Enabled, intervalSeconds: 1}, spanChannelCapacity: 1000}
  highPriorityMessagesBackpressureHandling: Reject
  persistence:
    maxSize: 10GiB
    persistentVolumeClaimSpec: {accessModes: [ReadWriteOncePod]}
    encryption: {mode: Disabled}
    dynamicSettings: {userPropertyKey: k, userPropertyValue: v}
    retain: {mode: Custom, retainSettings: {topics: [a/#], dynamic: {mode: Disabled}}}
    subscriberQueue: {mode: All, subscriberQueueSettings: {subscriberClientIds: [a*], topics: [b], dynamic: {}}}
    stateStore:
      mode: None
      stateStoreSettings:
        stateStoreResources: [{keyType: Binary, keys: [eA==]}]
        dynamic: {mode: Enabled}
",
    );
    let broker = &loaded.resources.brokers[0].spec;
    assert_eq!(broker.memory_profile, MemoryProfile::High);
    assert_eq!(broker.high_priority_messages_backpressure_handling, HighPriority::Reject);
    let advanced = broker.advanced.as_ref().expect("it was given");
    let limit = advanced.clients.as_ref().and_then(|clients| clients.subscriber_queue_limit.as_ref());
    assert_eq!(limit.map(|limit| limit.strategy), Some(QueueStrategy::DropOldest));
    let certs = advanced.internal_certs.as_ref().expect("they were given");
    assert_eq!(
        (certs.duration.0, certs.private_key.algorithm),
        (Duration::from_secs(864_000), KeyAlgorithm::Ed25519)
    );
    let persistence = broker.persistence.as_ref().expect("it was given");
    assert_eq!(persistence.max_size.0, 10 << 30);
    assert_eq!(persistence.subscriber_queue.as_ref().map(|queue| queue.mode), Some(PersistenceMode::All));
    let settings = persistence.state_store.as_ref().and_then(|state| state.state_store_settings.as_ref());
    assert_eq!(settings.map(|settings| settings.state_store_resources[0].key_type), Some(KeyType::Binary));
}

#[test]
fn an_empty_broker_has_defaults() {
    let loaded = load(BROKER, "Broker", "  {}\n");
    assert_eq!(loaded.findings, []);
    assert_eq!(loaded.resources.brokers[0].spec.memory_profile, MemoryProfile::Medium);
}

#[test]
fn a_listener_with_every_field() {
    let loaded = load(
        BROKER,
        "BrokerListener",
        "  brokerRef: default
  serviceName: s
  serviceType: LoadBalancer
  ports:
    - port: 1883
    - port: 8883
      nodePort: 30000
      protocol: WebSockets
      authenticationRef: default
      authorizationRef: rules
      tls:
        mode: Automatic
        certManagerCertificateSpec:
          issuerRef: {name: i, kind: ClusterIssuer, group: cert-manager.io}
          duration: 2160h
          renewBefore: 360h
          secretName: cert
          privateKey: {algorithm: Rsa4096, rotationPolicy: Always}
          san: {dns: [a.b], ip: [127.0.0.1]}
    - port: 8884
      tls: {mode: Manual, manual: {secretRef: cert}}
",
    );
    let listener = &loaded.resources.listeners[0].spec;
    assert_eq!(listener.service_type, ServiceType::LoadBalancer);
    assert_eq!(listener.ports[0].protocol, ListenerProtocol::Mqtt);
    assert!(matches!(listener.ports[1].tls, Some(ListenerTls::Automatic(_))));
}

#[test]
fn authentication_with_every_field() {
    let loaded = load(
        BROKER,
        "BrokerAuthentication",
        "  authenticationMethods:
    - method: Custom
      customSettings:
        endpoint: https://auth.example:8443/path
        caCertConfigMap: ca
        auth: {x509: {secretRef: cert}}
        headers: {a: b}
    - method: ServiceAccountToken
      serviceAccountTokenSettings: {audiences: [aio-internal]}
    - method: X509
      x509Settings:
        trustedClientCaCert: client-ca
        authorizationAttributes: {root: {subject: CN = x, attributes: {a: b}}}
        additionalValidation: AzureDeviceRegistry
    - method: X509
",
    );
    let methods = &loaded.resources.authentications[0].spec.authentication_methods;
    assert_eq!(methods.len(), 4);
    assert!(matches!(methods[1], AuthenticationMethod::ServiceAccountToken(_)));
}

#[test]
fn authorization_with_every_field() {
    let loaded = load(
        BROKER,
        "BrokerAuthorization",
        "  authorizationPolicies:
    cache: Disabled
    rules:
      - principals: {attributes: [{a: b, c: d}], clientIds: [x*], usernames: [u]}
        brokerResources:
          - {method: Connect, clientIds: [\"{principal.clientId}\"]}
          - {method: Publish, topics: [\"a/{principal.attributes.a}/#\"]}
          - {method: Subscribe, topics: [b]}
        stateStoreResources:
          - {method: ReadWrite, keyType: Pattern, keys: [\"*\"]}
",
    );
    let policies = &loaded.resources.authorizations[0].spec.authorization_policies;
    assert_eq!(policies.rules[0].broker_resources[1].method, BrokerMethod::Publish);
    assert_eq!(policies.rules[0].state_store_resources[0].method, StateStoreMethod::ReadWrite);
}

#[test]
fn both_api_versions_are_read() {
    for version in ["v1", "v1beta1"] {
        let text =
            format!("apiVersion: {BROKER}/{version}\nkind: Broker\nmetadata:\n  name: default\nspec: {{}}\n");
        assert_eq!(support::lines(&text), [""; 0]);
    }
}
