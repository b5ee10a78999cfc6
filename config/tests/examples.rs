//! The two examples of AIO's how-to, with only the placeholders filled in.

mod support;

use forebay_config::Loaded;
use forebay_config::resource::registry::{Credentials, RegistryHost};
use support::loads;

const REGISTRY_ENDPOINT: &str = "\
apiVersion: connectivity.iotoperations.azure.com/v1beta1
kind: RegistryEndpoint
metadata:
  name: my-registry
  namespace: azure-iot-operations
spec:
  host: ghcr.io/azure-samples/explore-iot-operations
  authentication:
    method: Anonymous
    anonymousSettings: {}
";

const EXAMPLE_1: &str = "\
apiVersion: connectivity.iotoperations.azure.com/v1beta1
kind: DataflowGraph
metadata:
  name: temperature-graph
  namespace: azure-iot-operations
spec:
  requestDiskPersistence: Enabled
  profileRef: default

  nodes:
    - nodeType: Source
      name: temperature-source
      sourceSettings:
        endpointRef: default
        dataSources:
          - sensor/temperature/raw

    - nodeType: Graph
      name: temperature-processor
      graphSettings:
        registryEndpointRef: my-registry
        artifact: graph-simple:1.0.0
        configuration:
          - key: conversion
            value: fahrenheit-to-celsius

    - nodeType: Destination
      name: temperature-destination
      destinationSettings:
        endpointRef: default
        dataDestination: sensor/temperature/processed

  nodeConnections:
    - from:
        name: temperature-source
      to:
        name: temperature-processor

    - from:
        name: temperature-processor
      to:
        name: temperature-destination
";

const EXAMPLE_2: &str = "\
apiVersion: connectivity.iotoperations.azure.com/v1beta1
kind: DataflowGraph
metadata:
  name: complex-graph
  namespace: azure-iot-operations
spec:
  requestDiskPersistence: Enabled
  profileRef: default

  nodes:
    - nodeType: Source
      name: sensor-source
      sourceSettings:
        endpointRef: default
        dataSources:
          - sensor/temperature/raw
          - sensor/humidity/raw
          - sensor/images/raw

    - nodeType: Graph
      name: sensor-processor
      graphSettings:
        registryEndpointRef: my-registry
        artifact: graph-complex:1.0.0
        configuration:
          - key: snapshot_topic
            value: sensor/images/raw

    - nodeType: Destination
      name: analytics-destination
      destinationSettings:
        endpointRef: default
        dataDestination: analytics/sensor/processed

  nodeConnections:
    - from:
        name: sensor-source
      to:
        name: sensor-processor

    - from:
        name: sensor-processor
      to:
        name: analytics-destination
";

fn load(graph: &str) -> Loaded {
    loads(&format!("{REGISTRY_ENDPOINT}---\n{graph}"))
}

#[test]
fn example_1_is_ready_to_run() {
    let loaded = load(EXAMPLE_1);
    let plans = loaded.plans();
    let [plan] = plans.as_slice() else { panic!("one plan expected: {plans:?}") };
    assert_eq!(plan.id.name, "temperature-graph");
    assert_eq!(plan.id.namespace, "azure-iot-operations");
    let [source] = plan.sources.as_slice() else { panic!("one source expected") };
    assert_eq!(source.filters[0].to_string(), "sensor/temperature/raw");
    let [stage] = plan.stages.as_slice() else { panic!("one stage expected") };
    assert_eq!(stage.artifact.to_string(), "graph-simple:1.0.0");
    assert_eq!(stage.configuration, [("conversion", "fahrenheit-to-celsius")]);
    assert_eq!(stage.registry.credentials, Credentials::Anonymous);
    let prefix = "azure-samples/explore-iot-operations".to_owned();
    assert_eq!(*stage.registry.host, RegistryHost::Remote { authority: "ghcr.io".to_owned(), prefix });
    assert_eq!(plan.destinations[0].topic.as_static(), Some("sensor/temperature/processed"));
    assert_eq!(plan.profile.instance_count, 1);
    assert!(plan.request_disk_persistence);
}

#[test]
fn nothing_is_to_be_said_about_example_1() {
    let findings: Vec<_> = load(EXAMPLE_1).findings.iter().map(ToString::to_string).collect();
    assert_eq!(findings, Vec::<String>::new());
}

#[test]
fn example_2_is_ready_to_run() {
    let loaded = load(EXAMPLE_2);
    let plans = loaded.plans();
    let [plan] = plans.as_slice() else { panic!("one plan expected: {plans:?}") };
    let filters: Vec<_> =
        plan.sources.iter().flat_map(|source| &source.filters).map(ToString::to_string).collect();
    assert_eq!(filters, ["sensor/temperature/raw", "sensor/humidity/raw", "sensor/images/raw"]);
    assert_eq!(plan.stages[0].configuration, [("snapshot_topic", "sensor/images/raw")]);
    assert_eq!(plan.destinations[0].node, "analytics-destination");
}

#[test]
fn the_quick_setup_with_a_managed_identity_is_that_of_the_machine() {
    let registry = "\
apiVersion: connectivity.iotoperations.azure.com/v1beta1
kind: RegistryEndpoint
metadata:
  name: my-registry
  namespace: azure-iot-operations
spec:
  host: myacr.azurecr.io
  authentication:
    method: SystemAssignedManagedIdentity
    systemAssignedManagedIdentitySettings:
      audience: https://management.azure.com/
";
    let loaded = forebay_config::load_str("t.yaml", &format!("{registry}---\n{EXAMPLE_1}"));
    assert!(!loaded.has_errors());
    let audience = Some("https://management.azure.com/".to_owned());
    let expected = Credentials::Identity { client_id: None, tenant: None, audience };
    assert_eq!(loaded.plans()[0].stages[0].registry.credentials, expected);
}
