//! The example broker with its graphs, and mosquitto's clients.
#![allow(clippy::expect_used, clippy::panic)]

use std::net::SocketAddr;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use forebay_tests::artifact::{Artifact, Shape};
use forebay_tests::process::Process;
use forebay_tests::registry::Registry;
use forebay_tests::resources::{Resources, dataflow_graph, documents, registry_endpoint};
use forebay_tests::{mosquitto, operators, wait};
use serde_json::{Value, json};

struct Host {
    addr: SocketAddr,
    process: Process,
    _resources: Resources,
    _registry: Registry,
}

/// The example broker with these graphs beside the sample artifacts.
fn host(mqtt: &str, artifacts: &[(&str, String)], graphs: &[String]) -> Host {
    let registry = operators::sample_registry();
    for (name, text) in artifacts {
        registry.push(name, "1.0.0", &Artifact::new(Shape::Graph, "graph.yaml", text.clone()));
    }
    let mut all = vec![registry_endpoint("registry", registry.addr)];
    all.extend_from_slice(graphs);
    let resources = Resources::default().with("all.yaml", &documents(&all));
    let addr = wait::free_addr();
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay-rumqttd"));
    command.arg("-f").arg(resources.path()).args(["--listen", &addr.to_string(), "--mqtt", mqtt]);
    let mut process = Process::start(command);
    process.says("try: mosquitto_sub");
    wait::until("the port is open", || std::net::TcpStream::connect(addr).map_err(|error| error.to_string()));
    Host { addr, process, _resources: resources, _registry: registry }
}

fn reading(value: f64, unit: &str) -> String {
    json!({"temperature": {"value": value, "unit": unit}}).to_string()
}

fn celsius(message: &mosquitto::Message) -> f64 {
    message.json()["temperature"]["value"].as_f64().expect("a number")
}

/// One operation of the temperature module.
fn definition(kind: &str) -> String {
    format!(
        "metadata: {{$schema: x, name: One operation, version: 1.0.0}}
moduleRequirements: {{apiVersion: 1.1.0, runtimeVersion: 1.1.0}}
operations:
  - {{operationType: source, name: source}}
  - {{operationType: {kind}, name: module-temperature/{kind}, module: 'temperature:1.0.0'}}
  - {{operationType: sink, name: sink}}
connections:
  - {{from: {{name: source}}, to: {{name: module-temperature/{kind}}}}}
  - {{from: {{name: module-temperature/{kind}}}, to: {{name: sink}}}}
"
    )
}

#[test]
fn readings_become_celsius_and_keep_their_properties() {
    let graphs = [
        dataflow_graph("simple", "registry", "graph-simple:1.0.0", "raw/+", "cooked/${inputTopic.2}"),
        dataflow_graph("again", "registry", "graph-simple:1.0.0", "cooked/#", "twice"),
    ];
    let host = host("5", &[], &graphs);
    let mut cooked = mosquitto::Subscriber::start(host.addr, "mqttv5", "cooked/#", 0, &[]);
    let mut twice = mosquitto::Subscriber::start(host.addr, "mqttv5", "twice", 0, &[]);
    let said = ["-D", "publish", "user-property", "line", "7"];
    mosquitto::publish(host.addr, "mqttv5", "raw/boiler", &reading(212.0, "F"), 1, &said);
    for (subscriber, topic) in [(&mut cooked, "cooked/boiler"), (&mut twice, "twice")] {
        let message = subscriber.receive();
        assert_eq!((message.topic.as_str(), celsius(&message)), (topic, 100.0));
        let properties = &message.properties;
        assert!(properties.contains("\"line\":\"7\"") && properties.contains("__ts"), "{properties}");
    }
}

#[test]
fn clients_of_the_version_before_get_no_properties_and_stay() {
    let graph = dataflow_graph("simple", "registry", "graph-simple:1.0.0", "raw/+", "cooked/${inputTopic.2}");
    let host = host("3.1.1", &[], &[graph]);
    let mut cooked = mosquitto::Subscriber::start(host.addr, "mqttv311", "cooked/#", 0, &[]);
    for degrees in [0.0, 100.0] {
        mosquitto::publish(host.addr, "mqttv311", "raw/kettle", &reading(degrees * 1.8 + 32.0, "F"), 1, &[]);
        let message = cooked.receive();
        assert_eq!((message.topic.as_str(), celsius(&message)), ("cooked/kettle", degrees));
    }
}

#[test]
fn what_cannot_be_processed_goes_to_the_dead_letter_topic_and_the_rest_goes_on() {
    let graph = dataflow_graph("simple", "registry", "graph-simple:1.0.0", "raw/+", "cooked")
        .replace("  name: simple\n", "  name: simple\n  annotations: {forebay.dev/dead-letter-topic: dead}\n")
        .replace("  mode: Enabled\n", "  mode: Enabled\n  requestDiskPersistence: Enabled\n");
    let mut host = host("5", &[], &[graph]);
    host.process.says("keeps nothing on disk");
    let mut dead = mosquitto::Subscriber::start(host.addr, "mqttv5", "dead", 0, &[]);
    let mut cooked = mosquitto::Subscriber::start(host.addr, "mqttv5", "cooked", 0, &[]);
    mosquitto::publish(host.addr, "mqttv5", "raw/a", "nonsense", 0, &[]);
    let ahead = ["-D", "publish", "user-property", "__ts", "999999999999999:0:x"];
    mosquitto::publish(host.addr, "mqttv5", "raw/a", &reading(1.0, "C"), 0, &ahead);
    mosquitto::publish(host.addr, "mqttv5", "raw/a", &reading(2.0, "C"), 0, &[]);
    assert_eq!(celsius(&cooked.receive()), 2.0);
    let first = dead.receive();
    assert_eq!(first.payload, "nonsense");
    assert!(
        first.properties.contains("dead-letter-cause") && first.properties.contains("raw/a"),
        "{}",
        first.properties
    );
    assert!(dead.receive().properties.contains("too far ahead"));
}

#[test]
fn filters_drop_and_windows_close_by_the_clock() {
    let graphs = [
        dataflow_graph("filter", "registry", "filtered:1.0.0", "raw", "plausible"),
        dataflow_graph("average", "registry", "averaged:1.0.0", "raw", "average"),
    ];
    let artifacts = [("filtered", definition("filter")), ("averaged", definition("accumulate"))];
    let host = host("5", &artifacts, &graphs);
    let mut plausible = mosquitto::Subscriber::start(host.addr, "mqttv5", "plausible", 0, &[]);
    let mut average = mosquitto::Subscriber::start(host.addr, "mqttv5", "average", 0, &[]);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
    let stamp = format!("{now}:0:test");
    for value in [10.0, 9000.0, 30.0] {
        let said = ["-D", "publish", "user-property", "__ts", &stamp];
        mosquitto::publish(host.addr, "mqttv5", "raw", &reading(value, "C"), 0, &said);
    }
    assert_eq!((celsius(&plausible.receive()), celsius(&plausible.receive())), (10.0, 30.0));
    // All of one time: one message, without anything else having to come.
    let closed: Value = average.receive().json();
    assert_eq!(closed["temperature"]["count"].as_f64(), Some(3.0), "{closed}");
}

#[test]
fn a_graph_that_leads_elsewhere_is_refused_by_name() {
    let endpoint = "apiVersion: connectivity.iotoperations.azure.com/v1
kind: DataflowEndpoint
metadata: {name: far, namespace: azure-iot-operations}
spec:
  endpointType: Mqtt
  mqttSettings:
    host: elsewhere:1883
    authentication: {method: Anonymous, anonymousSettings: {}}
";
    let graph = dataflow_graph("simple", "registry", "graph-simple:1.0.0", "raw", "cooked").replace(
        "endpointRef: default\n        dataDestination",
        "endpointRef: far\n        dataDestination",
    );
    let mut host = host("5", &[], &[graph, endpoint.to_owned()]);
    host.process.says("graph simple: its node destination names DataflowEndpoint `far`");
}
