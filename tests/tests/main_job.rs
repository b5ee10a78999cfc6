//! The main job, end to end: a Fahrenheit reading is published, an operator pulled from a registry converts it inside the
//! broker, a subscriber reads Celsius.

use forebay_tests::artifact::{Artifact, SHAPES, Shape};
use forebay_tests::forebay::{Forebay, Serve};
use forebay_tests::mosquitto::{self, Subscriber, VERSIONS};
use forebay_tests::mqtt::{Client, Connect, user_property};
use forebay_tests::operators;
use forebay_tests::pki::Authority;
use forebay_tests::place::wait_reason;
use forebay_tests::registry::Registry;
use forebay_tests::resources::{
    Resources, config_map, dataflow_graph, documents, map_graph, registry_endpoint,
};

const RAW: &str = "sensor/temperature/raw";
const PROCESSED: &str = "sensor/temperature/processed";
const READING: &str = r#"{"temperature":{"value":100.0,"unit":"F"}}"#;

/// Publishes a reading with every property that a response needs, and checks what the subscriber gets.
fn converts(broker: &Forebay, version: &str, qos: u8) {
    let mut subscriber = Subscriber::start(broker.addr, version, PROCESSED, 2, &[]);
    let properties = [
        ["-D", "publish", "user-property", "line", "7"].as_slice(),
        &["-D", "publish", "user-property", "oven", "top"],
        &["-D", "publish", "content-type", "application/json"],
        &["-D", "publish", "response-topic", "sensor/answers"],
        &["-D", "publish", "correlation-data", "reading-1"],
    ]
    .concat();
    let properties = if version == "mqttv5" { properties.as_slice() } else { &[] };
    mosquitto::publish(broker.addr, version, RAW, READING, qos, properties);

    let message = subscriber.receive();
    let what = format!("{version} QoS {qos}: {message:?}");
    assert_eq!(message.topic, PROCESSED, "{what}");
    assert!(!message.retain, "{what}");
    let json = message.json();
    let reading = &json["temperature"];
    // The text, not only the number: the operator's own formatting reaches the subscriber.
    assert!(message.payload.contains(r#""value":37.77777777777778"#), "{what}");
    assert_eq!(reading["value"].as_f64(), Some(37.77777777777778), "{what}");
    assert_eq!(reading["unit"], "C", "{what}");
    if version == "mqttv5" {
        for part in [
            r#""line":"7","oven":"top""#,
            r#""content-type":"application/json""#,
            r#""response-topic":"sensor/answers""#,
            r#""correlation-data":"reading-1""#,
        ] {
            assert!(message.properties.contains(part), "{part} in {what}");
        }
    }
}

fn converts_everything(broker: &Forebay) {
    for version in VERSIONS {
        for qos in 0..3 {
            converts(broker, version, qos);
        }
    }
}

#[test]
fn the_sample_registry_of_the_repository_converts_fahrenheit_for_every_version_and_qos() {
    let broker = Serve::new().file("config/samples/fahrenheit.yaml").start();
    converts_everything(&broker);
}

#[test]
fn an_operator_built_from_source_and_pulled_from_a_registry_converts_for_every_version_and_qos() {
    let registry = operators::sample_registry();
    let broker = Serve::new().resources(&example(&registry, "graph-simple:1.0.0")).start();
    converts_everything(&broker);
}

#[test]
fn a_celsius_reading_passes_with_its_bytes_unchanged() {
    let broker = Serve::new().file("config/samples/fahrenheit.yaml").start();
    let mut subscriber = Client::connect(broker.addr, &Connect::v5("subscriber"));
    subscriber.subscribe(PROCESSED, 1);
    let text = br#"{ "temperature" : {"unit":"C",  "value":21.50} }"#;
    let mut publisher = Client::connect(broker.addr, &Connect::v5("publisher"));
    publisher.publish_with(RAW, 1, false, &user_property("test_property_key", "old"), text);
    let message = subscriber.receive();
    assert_eq!(message.payload, text);
    let property = user_property("test_property_key", "new_value");
    assert!(message.properties.windows(property.len()).any(|window| window == property), "{message:?}");
}

#[test]
fn order_is_kept_through_the_graph() {
    let broker = Serve::new().file("config/samples/fahrenheit.yaml").start();
    let mut subscriber = Client::connect(broker.addr, &Connect::v5("subscriber"));
    subscriber.subscribe(PROCESSED, 0);
    let publisher = &mut Client::connect(broker.addr, &Connect::v4("publisher"));
    let mut batch = Vec::new();
    for n in 0..500 {
        let reading = format!(r#"{{"temperature":{{"value":{n}.0,"unit":"F"}}}}"#);
        batch.extend(publisher.publish_bytes(RAW, 0, false, &[], reading.as_bytes()));
    }
    publisher.send(&batch);
    for n in 0..500 {
        let text = subscriber.receive().text();
        // As text: reading it back into a number could lose its last digit.
        let value = format!(r#""value":{:?},"#, (f64::from(n) - 32.0) * 5.0 / 9.0);
        assert!(text.contains(&value), "reading {n}: {value} in {text}");
    }
}

#[test]
fn every_shape_in_which_artifacts_are_pushed_is_pulled() {
    let registry = Registry::start();
    let component = operators::component("temperature");
    let mut files = Vec::new();
    for (n, shape) in SHAPES.into_iter().enumerate() {
        let graph = map_graph("module-temperature/map", &format!("temperature-{n}:1.0.0"));
        registry.push(&format!("graph-{n}"), "1.0.0", &Artifact::new(shape, "graph.yaml", graph));
        registry.push(
            &format!("temperature-{n}"),
            "1.0.0",
            &Artifact::new(shape, "module.wasm", component.clone()),
        );
        let (from, to) = (format!("shape/{n}/in"), format!("shape/{n}/out"));
        files.push(dataflow_graph(
            &format!("shape-{n}"),
            "registry",
            &format!("graph-{n}:1.0.0"),
            &from,
            &to,
        ));
    }
    files.push(registry_endpoint("registry", registry.addr));
    let resources = Resources::default().with("all.yaml", &documents(&files));
    let broker = Serve::new().resources(&resources).start();
    let mut client = Client::connect(broker.addr, &Connect::v5("client"));
    client.subscribe("shape/+/out", 0);
    for (n, shape) in SHAPES.into_iter().enumerate() {
        client.publish(&format!("shape/{n}/in"), 0, READING.as_bytes());
        let message = client.receive();
        assert_eq!(message.topic, format!("shape/{n}/out"), "{shape:?}");
        assert!(message.text().contains("37.77777777777778"), "{shape:?}: {message:?}");
    }
}

#[test]
fn a_graph_definition_of_the_preview_generation_runs_as_well() {
    let registry = Registry::start();
    let definition = "moduleRequirements:
  apiVersion: \"0.2.0\"
  hostlibVersion: \"0.2.0\"
operations:
  - operationType: \"source\"
    name: \"source\"
  - operationType: \"map\"
    name: \"module-temperature/map\"
    module: \"temperature:1.0.0\"
  - operationType: \"sink\"
    name: \"sink\"
connections:
  - from:
      name: \"source\"
    to:
      name: \"module-temperature/map\"
  - from:
      name: \"module-temperature/map\"
    to:
      name: \"sink\"
";
    registry.push("graph-simple", "1.0.0", &Artifact::new(Shape::Oras12, "graph-simple.yaml", definition));
    let module = Artifact::new(Shape::Oras12, "temperature-1.0.0.wasm", operators::component("temperature"));
    registry.push("temperature", "1.0.0", &module);
    let broker = Serve::new().resources(&example(&registry, "graph-simple:1.0.0")).start();
    converts(&broker, "mqttv5", 1);
}

#[test]
fn a_registry_with_a_password_is_used_with_the_secret_that_holds_it() {
    let registry = Registry::start_with_password("device", "open sesame");
    // base64 of "device:open sesame".
    let basic = Some("ZGV2aWNlOm9wZW4gc2VzYW1l");
    let graph = map_graph("module-temperature/map", "temperature:1.0.0");
    registry.push_as("graph-simple", "1.0.0", &Artifact::new(Shape::Graph, "graph.yaml", graph), basic);
    let module = Artifact::new(Shape::Module, "temperature.wasm", operators::component("temperature"));
    registry.push_as("temperature", "1.0.0", &module, basic);
    let endpoint = format!(
        "apiVersion: connectivity.iotoperations.azure.com/v1
kind: RegistryEndpoint
metadata:
  name: registry
  namespace: azure-iot-operations
spec:
  host: {addr}
  authentication:
    method: ArtifactPullSecret
    artifactPullSecretSettings:
      secretRef: pull
---
apiVersion: v1
kind: Secret
metadata:
  name: pull
  namespace: azure-iot-operations
type: kubernetes.io/dockerconfigjson
stringData:
  .dockerconfigjson: '{{\"auths\":{{\"{addr}\":{{\"username\":\"device\",\"password\":\"open sesame\"}}}}}}'
",
        addr = registry.addr
    );
    let graph = dataflow_graph("locked", "registry", "graph-simple:1.0.0", RAW, PROCESSED);
    let resources = Resources::default().with("all.yaml", &documents(&[endpoint, graph]));
    let broker = Serve::new().resources(&resources).start();
    converts(&broker, "mqttv5", 1);
}

#[test]
fn a_registry_over_tls_is_trusted_by_the_certificates_that_its_endpoint_names() {
    let registry = operators::sample_registry();
    let authority = Authority::new("registry");
    let (_tls, addr) = registry.over_tls(&authority);
    let endpoint = registry_endpoint("registry", addr);
    let trusting = endpoint
        .replace("  name: registry\n", "  name: registry\n  annotations: {forebay.dev/ca: trusted}\n");
    let graph = dataflow_graph("simple", "registry", "graph-simple:1.0.0", "raw", "cooked");
    let all = [trusting.clone(), graph.clone(), config_map("trusted", "ca.crt", &authority.certificate)];
    let resources = Resources::default().with("all.yaml", &documents(&all));
    Serve::new().resources(&resources).start();

    let other = config_map("trusted", "ca.crt", &Authority::new("other").certificate);
    let resources = Resources::default().with("all.yaml", &documents(&[trusting, graph, other]));
    let broker = Serve::new().resources(&resources).start_unready();
    let why = wait_reason(&broker, "simple", "DataflowGraphModuleDownloadFailed");
    assert!(why.contains("TLS failed"), "{why}");
}

#[test]
fn nothing_runs_that_is_not_signed_where_signatures_are_wanted() {
    let registry = operators::sample_registry();
    let authority = tempfile::TempDir::new().unwrap();
    let [(graph_name, graph), (module_name, module)] = operators::samples();
    registry.sign(graph_name, &graph, authority.path());
    let certificate = std::fs::read_to_string(authority.path().join("ca.pem")).unwrap();
    let settings = [
        "codeSigningCas:\n    - type: ConfigMap\n      configMapRef: signers\n",
        "trustSettings:\n    trustedSigningKeys:\n      type: Secret\n      secretRef: signers\n",
    ];
    let [current, preview] = settings.map(|setting| {
        let endpoint = format!("{}  {setting}", registry_endpoint("registry", registry.addr));
        let signers = config_map("signers", "ca.crt", &certificate);
        let secret = signers.replace("kind: ConfigMap", "kind: Secret").replace("\ndata:", "\nstringData:");
        let graph = dataflow_graph("main-job", "registry", "graph-simple:1.0.0", RAW, PROCESSED);
        documents(&[endpoint, signers, secret, graph])
    });
    let resources = Resources::default().with("all.yaml", &current);
    let broker = Serve::new().resources(&resources).start_unready();
    let why = wait_reason(&broker, "main-job", "DataflowGraphModuleDownloadFailed");
    assert!(why.contains("temperature:1.0.0") && why.contains("nobody has signed its manifest"), "{why}");
    drop(broker);

    registry.sign(module_name, &module, authority.path());
    for text in [current, preview] {
        let resources = Resources::default().with("all.yaml", &text);
        converts(&Serve::new().resources(&resources).start(), "mqttv5", 1);
    }
}

/// The main job's resources against `registry`.
fn example(registry: &Registry, artifact: &str) -> Resources {
    Resources::default()
        .with("registry.yaml", &registry_endpoint("registry", registry.addr))
        .with("graph.yaml", &dataflow_graph("main-job", "registry", artifact, RAW, PROCESSED))
}
