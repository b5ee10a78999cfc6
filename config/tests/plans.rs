//! What a graph that can run refers to, and which graphs can run.
// Helpers of tests may fail as tests do.
#![allow(clippy::expect_used, clippy::panic)]

mod support;

use forebay_config::resource::graph::HeaderAction;
use forebay_config::resource::registry::{Credentials, RegistryHost};
use forebay_config::{Loaded, System, TopicFilter, load_str};
use processing_core::graph::{Arm, End, Start};
use std::path::Path;
use std::time::Duration;
use support::{GRAPH, REGISTRY, loads};

fn registry_with(host: &str, secret: &str) -> String {
    format!(
        "apiVersion: connectivity.iotoperations.azure.com/v1
kind: RegistryEndpoint
metadata:
  name: my-registry
  annotations:
    forebay.dev/plain-http: \"true\"
spec:
  host: {host}
  authentication:
    method: ArtifactPullSecret
    artifactPullSecretSettings:
      secretRef: login
---
apiVersion: v1
kind: Secret
metadata:
  name: login
{secret}"
    )
}

fn credentials(host: &str, secret: &str) -> (String, String) {
    let loaded = loads(&format!("{GRAPH}---\n{}", registry_with(host, secret)));
    let plans = loaded.plans();
    let registry = &plans[0].stages[0].registry;
    assert_eq!(registry.plain_http, Some(true));
    match &registry.credentials {
        Credentials::Password { username, password } => (username.clone(), password.reveal().to_owned()),
        other => panic!("a password expected, not {other:?}"),
    }
}

#[test]
fn a_login_comes_from_an_opaque_secret() {
    let secret = "data:\n  username: bWU=\n  password: b2xk\nstringData:\n  password: \"p:w\"\n";
    assert_eq!(credentials("a.io", secret), ("me".to_owned(), "p:w".to_owned()));
}

#[test]
fn a_login_comes_from_a_docker_secret_by_the_host() {
    let json = r#"{"auths":{"b.io":{"auth":"eDp5"},"https://a.io:5000/v2/":{"auth":"bWU6cDp3"}}}"#;
    let secret =
        format!("type: kubernetes.io/dockerconfigjson\nstringData:\n  .dockerconfigjson: '{json}'\n");
    assert_eq!(credentials("a.io:5000/path", &secret), ("me".to_owned(), "p:w".to_owned()));
    let json = r#"{"auths":{"a.io":{"username":"me","password":"pw","email":"x"}}}"#;
    let secret =
        format!("type: kubernetes.io/dockerconfigjson\nstringData:\n  .dockerconfigjson: '{json}'\n");
    assert_eq!(credentials("a.io", &secret), ("me".to_owned(), "pw".to_owned()));
}

#[test]
fn nothing_that_prints_shows_a_password() {
    let loaded = loads(&registry_with("a.io", "stringData:\n  username: me\n  password: hunter2\n"));
    assert!(!format!("{loaded:?}").contains("hunter2"));
    let graph = format!(
        "{GRAPH}---\n{}",
        registry_with("a.io", "stringData:\n  username: me\n  password: hunter2\n")
    );
    assert!(!format!("{:?}", loads(&graph).plans()).contains("hunter2"));
}

#[test]
fn a_layout_is_relative_to_the_file_that_names_it() {
    let registry = REGISTRY.replace("localhost:5000", "\"oci-layout:registry\"");
    let loaded = load_str("some/where/t.yaml", &format!("{GRAPH}---\n{registry}"));
    let plans = loaded.plans();
    assert_eq!(
        *plans[0].stages[0].registry.host,
        RegistryHost::Layout(Path::new("some/where/registry").to_owned())
    );
}

#[test]
fn the_registry_default_is_microsofts() {
    let loaded = loads(&GRAPH.replace("my-registry", "default"));
    let plans = loaded.plans();
    assert_eq!(plans[0].stages[0].registry.host.to_string(), "mcr.microsoft.com");
}

#[test]
fn own_settings_come_with_the_plan() {
    let annotations = "  annotations:
    forebay.dev/call-deadline: 50ms
    forebay.dev/memory-limit: 64MiB
    other.example/key: value
spec:
";
    let loaded = loads(&format!("{}---\n{REGISTRY}", GRAPH.replace("spec:\n", annotations)));
    let plans = loaded.plans();
    assert_eq!(plans[0].settings.call_deadline, Some(Duration::from_millis(50)));
    assert_eq!(plans[0].settings.memory_limit, Some(64 << 20));
    assert_eq!(plans[0].settings.inline_budget, None);
}

#[test]
fn graph_nodes_may_be_chained() {
    let second = "    - nodeType: Graph
      name: more
      graphSettings:
        registryEndpointRef: my-registry
        artifact: other:2
    - nodeType: Destination
";
    let graph = GRAPH
        .replace("    - nodeType: Destination\n", second)
        .replace("name: work\n      to:\n        name: out", "name: more\n      to:\n        name: out")
        + "    - from:\n        name: work\n      to:\n        name: more\n";
    let loaded = loads(&format!("{graph}---\n{REGISTRY}"));
    let plans = loaded.plans();
    let stages: Vec<_> = plans[0].stages.iter().map(|stage| stage.node).collect();
    assert_eq!(stages, ["work", "more"]);
    let links: Vec<_> = plans[0].links.iter().map(|link| (link.from, link.to)).collect();
    assert_eq!(
        links,
        [
            (Start::Source(0), End::Part(0)),
            (Start::Part(1, None), End::Sink(0)),
            (Start::Part(0, None), End::Part(1)),
        ]
    );
}

#[test]
fn a_graph_may_have_two_outputs_for_two_destinations() {
    let second = "    - nodeType: Destination
      name: out2
      destinationSettings:
        endpointRef: default
        dataDestination: sensor/other
  nodeConnections:
";
    let graph = GRAPH
        .replace("  nodeConnections:\n", second)
        .replace("        name: work\n      to:", "        name: work.output.true\n      to:")
        + "    - from:\n        name: work.output.false\n        schema:\n          schemaRef: aio-sr://ns/a:1\n      to:\n        name: out2\n";
    let loaded = load_str("t.yaml", &format!("{graph}---\n{REGISTRY}"));
    let plans = loaded.plans();
    let links: Vec<_> = plans[0].links.iter().map(|link| (link.from, link.to, link.schema_ref)).collect();
    assert_eq!(
        links,
        [
            (Start::Source(0), End::Part(0), None),
            (Start::Part(0, Some(Arm::True)), End::Sink(0), None),
            (Start::Part(0, Some(Arm::False)), End::Sink(1), Some("aio-sr://ns/a:1")),
        ]
    );
}

#[test]
fn several_sources_may_lead_into_the_chain() {
    let second = "    - nodeType: Source
      name: in2
      sourceSettings:
        endpointRef: default
        dataSources: [\"$shared/g/b\", c/#]
    - nodeType: Destination
";
    let graph = GRAPH.replace("    - nodeType: Destination\n", second)
        + "    - from:\n        name: in2\n      to:\n        name: work\n";
    let loaded = loads(&format!("{graph}---\n{REGISTRY}"));
    let plans = loaded.plans();
    let filters: Vec<_> =
        plans[0].sources.iter().map(|source| (source.node, texts(&source.filters))).collect();
    assert_eq!(filters, [("in", "sensor/raw".to_owned()), ("in2", "$share/g/b c/#".to_owned())]);
}

fn texts(filters: &[TopicFilter]) -> String {
    filters.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

fn names(loaded: &Loaded) -> Vec<String> {
    loaded.plans().into_iter().map(|plan| plan.id.name).collect()
}

#[test]
fn a_disabled_graph_does_not_run() {
    assert_eq!(
        names(&loads(&format!("{}---\n{REGISTRY}", GRAPH.replace("spec:\n", "spec:\n  mode: disabled\n")))),
        [""; 0]
    );
}

#[test]
fn a_graph_with_errors_leaves_the_others_running() {
    let broken = GRAPH.replace("my-graph", "broken").replace("sensor/done", "a/#");
    let unread = GRAPH.replace("my-graph", "unread").replace("nodeType: Graph", "nodeType: Grahp");
    let loaded = load_str("t.yaml", &format!("{GRAPH}---\n{broken}---\n{unread}---\n{REGISTRY}"));
    assert!(loaded.has_errors());
    assert_eq!(names(&loaded), ["my-graph"]);
    let broken = loaded.resources.graphs.iter().find(|graph| graph.id.name == "broken").expect("it was read");
    assert_eq!(loaded.findings_of(&broken.id).count(), 1);
}

#[test]
fn a_graph_does_not_run_on_what_has_errors() {
    let loaded = load_str("t.yaml", &format!("{GRAPH}---\n{}", REGISTRY.replace("localhost:5000", "a b")));
    assert_eq!(names(&loaded), [""; 0]);
    let errors: Vec<_> = loaded.findings.iter().map(ToString::to_string).collect();
    assert_eq!(
        errors,
        [
            "t.yaml:17:30: error: `spec.nodes[1].graphSettings.registryEndpointRef` names RegistryEndpoint \
             `my-registry`, which has errors of its own",
            "t.yaml:42:9: error: `spec.host` is `a b`, but this is no host name",
        ]
    );
}

#[test]
fn an_endpoint_that_means_this_broker_is_as_good_as_the_default() {
    let graph = GRAPH.replace("endpointRef: default", "endpointRef: mine");
    let endpoint = |settings: &str| {
        format!(
            "{graph}---\n{REGISTRY}---\napiVersion: connectivity.iotoperations.azure.com/v1\nkind: DataflowEndpoint\n\
             metadata:\n  name: mine\nspec:\n  endpointType: Mqtt\n{settings}"
        )
    };
    for local in [
        "  mqttSettings: {}\n",
        "  mqttSettings:\n    host: aio-broker:18883\n    authentication:\n      method: ServiceAccountToken\n      \
         serviceAccountTokenSettings:\n        audience: aio-internal\n    tls:\n      mode: Enabled\n      \
         trustedCaCertificateConfigMapRef: azure-iot-operations-aio-ca-trust-bundle\n",
        "  hostType: LocalBroker\n  mqttSettings:\n    host: here:1883\n",
    ] {
        assert_eq!(names(&loads(&endpoint(local))), ["my-graph"], "{local}");
    }
    let remote = load_str("t.yaml", &endpoint("  mqttSettings:\n    host: elsewhere.example:8883\n"));
    assert_eq!(names(&remote), ["my-graph"]);
    let plans = remote.plans();
    let System::Remote(endpoint) = &plans[0].sources[0].system else { panic!("{:?}", plans[0].sources) };
    assert_eq!(endpoint.settings.type_name(), "Mqtt");
    assert!(plans[0].sources[0].filters.is_empty() && !plans[0].sources[0].data_sources.is_empty());
}

#[test]
fn an_owner_reference_names_the_profile() {
    let owner = "  ownerReferences:
    - apiVersion: connectivity.iotoperations.azure.com/v1
      kind: DataflowProfile
      name: big
      uid: 0-0
spec:
";
    let profile = "apiVersion: connectivity.iotoperations.azure.com/v1\nkind: DataflowProfile\nmetadata:\n  name: big\nspec:\n  instanceCount: 4\n";
    let graph = GRAPH.replace("  profileRef: default\n", "").replace("spec:\n", owner);
    let loaded = loads(&format!("{graph}---\n{REGISTRY}---\n{profile}"));
    let plans = loaded.plans();
    let told: Vec<(&str, String)> =
        plans.iter().map(|plan| (plan.id.name.as_str(), plan.sources[0].filters[0].to_string())).collect();
    let shared = |name| (name, "$share/forebay.azure-iot-operations.my-graph/sensor/raw".to_owned());
    assert_eq!(told, ["my-graph", "my-graph.2", "my-graph.3", "my-graph.4"].map(shared));
    assert!(plans.iter().all(|plan| plan.instances == 4 && plan.id.resource() == plans[0].id));
    let kept = graph.replace("spec:\n", "spec:\n  requestDiskPersistence: Enabled\n");
    assert_eq!(loads(&format!("{kept}---\n{REGISTRY}---\n{profile}")).plans().len(), 1);
}

#[test]
fn names_are_looked_up_in_the_same_namespace() {
    let elsewhere = REGISTRY.replace("  name: my-registry\n", "  name: my-registry\n  namespace: other\n");
    let loaded = load_str("t.yaml", &format!("{GRAPH}---\n{elsewhere}"));
    assert_eq!(names(&loaded), [""; 0]);
    let both = load_str("t.yaml", &format!("{GRAPH}---\n{elsewhere}---\n{REGISTRY}"));
    assert_eq!(names(&both), ["my-graph"]);
}

#[test]
fn what_is_done_to_headers_is_part_of_the_plan_in_its_order() {
    let headers = "dataDestination: sensor/done\n        headers:\n          - {actionType: Remove, key: a}\n          \
                   - {actionType: AddOrReplace, key: b, value: c}";
    let loaded = loads(&format!("{}---\n{REGISTRY}", GRAPH.replace("dataDestination: sensor/done", headers)));
    let plans = loaded.plans();
    let (key, value) = ("b".to_owned(), "c".to_owned());
    let expected = [HeaderAction::Remove { key: "a".to_owned() }, HeaderAction::AddOrReplace { key, value }];
    assert_eq!(plans[0].destinations[0].headers, expected);
}
