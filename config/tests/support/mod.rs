//! What several tests use.
#![allow(dead_code)]

use forebay_config::{Loaded, load_str};

/// The findings of a text, one printed line each; the file is called `t.yaml`.
pub fn lines(text: &str) -> Vec<String> {
    load_str("t.yaml", text).findings.iter().map(ToString::to_string).collect()
}

/// Loads a text that must be without errors.
pub fn loads(text: &str) -> Loaded {
    let loaded = load_str("t.yaml", text);
    let errors: Vec<_> =
        loaded.findings.iter().filter(|finding| finding.is_error()).map(ToString::to_string).collect();
    assert_eq!(errors, Vec::<String>::new());
    loaded
}

/// A registry that every graph of these tests can name.
pub const REGISTRY: &str = "\
apiVersion: connectivity.iotoperations.azure.com/v1
kind: RegistryEndpoint
metadata:
  name: my-registry
spec:
  host: localhost:5000
  authentication:
    method: Anonymous
    anonymousSettings: {}
";

/// A graph that is right; lines 1 to 34.
pub const GRAPH: &str = "\
apiVersion: connectivity.iotoperations.azure.com/v1
kind: DataflowGraph
metadata:
  name: my-graph
spec:
  profileRef: default
  nodes:
    - nodeType: Source
      name: in
      sourceSettings:
        endpointRef: default
        dataSources:
          - sensor/raw
    - nodeType: Graph
      name: work
      graphSettings:
        registryEndpointRef: my-registry
        artifact: graph-simple:1.0.0
        configuration:
          - key: a
            value: b
    - nodeType: Destination
      name: out
      destinationSettings:
        endpointRef: default
        dataDestination: sensor/done
  nodeConnections:
    - from:
        name: in
      to:
        name: work
    - from:
        name: work
      to:
        name: out
";

/// The findings of [`GRAPH`] with one text replaced by another, and the registry behind it.
pub fn graph_with(old: &str, new: &str) -> Vec<String> {
    assert!(GRAPH.contains(old), "{old:?} is not in the graph");
    lines(&format!("{}---\n{REGISTRY}", GRAPH.replacen(old, new, 1)))
}
