//! Resource files that tests write.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;

/// A directory of YAML files; there until the last clone is gone.
#[derive(Clone)]
pub struct Resources {
    dir: Arc<TempDir>,
}

impl Default for Resources {
    fn default() -> Self {
        Self { dir: Arc::new(TempDir::new().expect("a temporary directory")) }
    }
}

impl Resources {
    /// Adds a file.
    pub fn with(self, name: &str, text: &str) -> Self {
        std::fs::write(self.dir.path().join(name), text).expect("a file can be written");
        self
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// One of its files.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// A RegistryEndpoint `name` for an anonymous registry on loopback.
pub fn registry_endpoint(name: &str, addr: SocketAddr) -> String {
    format!(
        "apiVersion: connectivity.iotoperations.azure.com/v1
kind: RegistryEndpoint
metadata:
  name: {name}
  namespace: azure-iot-operations
spec:
  host: {addr}
  authentication:
    method: Anonymous
    anonymousSettings: {{}}
"
    )
}

/// A DataflowGraph `name` that runs `artifact` from `registry` between two topics.
pub fn dataflow_graph(name: &str, registry: &str, artifact: &str, from: &str, to: &str) -> String {
    format!(
        "apiVersion: connectivity.iotoperations.azure.com/v1
kind: DataflowGraph
metadata:
  name: {name}
  namespace: azure-iot-operations
spec:
  profileRef: default
  mode: Enabled
  nodes:
    - nodeType: Source
      name: source
      sourceSettings:
        endpointRef: default
        dataSources:
          - {from}
    - nodeType: Graph
      name: graph
      graphSettings:
        registryEndpointRef: {registry}
        artifact: {artifact}
    - nodeType: Destination
      name: destination
      destinationSettings:
        endpointRef: default
        dataDestination: {to}
  nodeConnections:
    - from:
        name: source
      to:
        name: graph
    - from:
        name: graph
      to:
        name: destination
"
    )
}

/// The same resource with a configuration for its graph.
pub fn configured(graph: &str, configuration: &[(&str, &str)]) -> String {
    let mut text = String::from("        configuration:\n");
    for (key, value) in configuration {
        text += &format!("          - key: {key}\n            value: {value}\n");
    }
    graph.replace("    - nodeType: Destination\n", &format!("{text}    - nodeType: Destination\n"))
}

/// The same definition with a parameter that its operation takes.
pub fn with_parameters(definition: &str, operation: &str, parameters: &[&str]) -> String {
    let mut text = format!("moduleConfigurations:\n  - name: {operation}\n    parameters:\n");
    for name in parameters {
        text += &format!("      {name}:\n        name: {name}\n");
    }
    definition.replace("operations:\n", &format!("{text}operations:\n"))
}

/// A graph definition with one map operation of `module`.
pub fn map_graph(operation: &str, module: &str) -> String {
    format!(
        "metadata:
  $schema: https://www.schemastore.org/aio-wasm-graph-config-1.0.0.json
  name: One map
  version: 1.0.0
moduleRequirements:
  apiVersion: 1.1.0
  runtimeVersion: 1.1.0
operations:
  - operationType: source
    name: source
  - operationType: map
    name: {operation}
    module: {module}
  - operationType: sink
    name: sink
connections:
  - from: {{name: source}}
    to: {{name: {operation}}}
  - from: {{name: {operation}}}
    to: {{name: sink}}
"
    )
}

/// Several documents in one file.
pub fn documents(parts: &[String]) -> String {
    parts.join("---\n")
}

/// A BrokerListener `default` with these ports, each given as its lines.
pub fn broker_listener(ports: &[String]) -> String {
    let mut text = String::from(
        "apiVersion: mqttbroker.iotoperations.azure.com/v1
kind: BrokerListener
metadata:
  name: default
  namespace: azure-iot-operations
  annotations:
    forebay.dev/address: 127.0.0.1
spec:
  brokerRef: default
  ports:
",
    );
    for port in ports {
        for (at, line) in port.lines().enumerate() {
            text += &format!("    {}{line}\n", if at == 0 { "- " } else { "  " });
        }
    }
    text
}

/// A BrokerAuthentication with these annotations and methods, each given as its lines.
pub fn broker_authentication(name: &str, annotations: &[(&str, &str)], methods: &[&str]) -> String {
    let mut text = format!(
        "apiVersion: mqttbroker.iotoperations.azure.com/v1
kind: BrokerAuthentication
metadata:
  name: {name}
  namespace: azure-iot-operations
"
    );
    if !annotations.is_empty() {
        text += "  annotations:\n";
    }
    for (key, value) in annotations {
        text += &format!("    forebay.dev/{key}: {value}\n");
    }
    text += "spec:\n  authenticationMethods:";
    text += if methods.is_empty() { " []\n" } else { "\n" };
    for method in methods {
        for (at, line) in method.lines().enumerate() {
            text += &format!("    {}{line}\n", if at == 0 { "- " } else { "  " });
        }
    }
    text
}

/// A BrokerAuthorization with these rules, as YAML below `rules`.
pub fn broker_authorization(name: &str, rules: &str) -> String {
    let mut text = format!(
        "apiVersion: mqttbroker.iotoperations.azure.com/v1
kind: BrokerAuthorization
metadata:
  name: {name}
  namespace: azure-iot-operations
spec:
  authorizationPolicies:
    rules:
"
    );
    for line in rules.lines() {
        text += &format!("      {line}\n");
    }
    text
}

/// A DataflowEndpoint `name` of an MQTT broker at `host`, with these lines below `mqttSettings` and annotations.
pub fn mqtt_endpoint(name: &str, host: &str, settings: &[&str], annotations: &[(&str, &str)]) -> String {
    let mut text = format!(
        "apiVersion: connectivity.iotoperations.azure.com/v1
kind: DataflowEndpoint
metadata:
  name: {name}
  namespace: azure-iot-operations
"
    );
    if !annotations.is_empty() {
        text += "  annotations:\n";
    }
    for (key, value) in annotations {
        text += &format!("    forebay.dev/{key}: {value}\n");
    }
    text += &format!("spec:\n  endpointType: Mqtt\n  mqttSettings:\n    host: {host}\n");
    for line in settings.iter().flat_map(|settings| settings.lines()) {
        text += &format!("    {line}\n");
    }
    text
}

/// The same graph with other endpoints for its source and its destination.
pub fn between(graph: &str, source: &str, destination: &str) -> String {
    graph.replacen("endpointRef: default", &format!("endpointRef: {source}"), 1).replacen(
        "endpointRef: default\n        dataDestination",
        &format!("endpointRef: {destination}\n        dataDestination"),
        1,
    )
}

/// The same graph with its messages persisted.
pub fn persisted(graph: &str) -> String {
    graph.replace("  mode: Enabled\n", "  mode: Enabled\n  requestDiskPersistence: Enabled\n")
}

/// A ConfigMap with one entry.
pub fn config_map(name: &str, key: &str, text: &str) -> String {
    let text = text.replace('\n', "\n    ");
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\n  namespace: azure-iot-operations\ndata:\n  {key}: |\n    {text}\n"
    )
}

/// A Secret with these texts, each of one line.
pub fn secret(name: &str, entries: &[(&str, &str)]) -> String {
    let mut text = format!(
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: {name}\n  namespace: azure-iot-operations\nstringData:\n"
    );
    for (key, value) in entries {
        text += &format!("  {key}: \"{value}\"\n");
    }
    text
}

/// A DataflowEndpoint `name` of a Kafka cluster at `host`, with these lines below `kafkaSettings`.
pub fn kafka_endpoint(name: &str, host: &str, settings: &[&str]) -> String {
    remote_endpoint(name, "Kafka", "kafkaSettings", host, settings)
}

/// A DataflowEndpoint `name` of an OpenTelemetry collector at `host`, with these lines below `openTelemetrySettings`.
pub fn telemetry_endpoint(name: &str, host: &str, settings: &[&str]) -> String {
    remote_endpoint(name, "OpenTelemetry", "openTelemetrySettings", host, settings)
}

fn remote_endpoint(name: &str, kind: &str, key: &str, host: &str, settings: &[&str]) -> String {
    let mut text = format!(
        "apiVersion: connectivity.iotoperations.azure.com/v1
kind: DataflowEndpoint
metadata:
  name: {name}
  namespace: azure-iot-operations
spec:
  endpointType: {kind}
  {key}:
    host: {host}
"
    );
    for line in settings.iter().flat_map(|settings| settings.lines()) {
        text += &format!("    {line}\n");
    }
    text
}
