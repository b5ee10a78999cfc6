//! DataflowGraphs with several nodes: branches between graphs, windows that close by the clock, and what becomes of
//! messages that cannot be processed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use forebay_tests::artifact::{Artifact, Shape};
use forebay_tests::forebay::{Forebay, Serve};
use forebay_tests::mosquitto_broker::MosquittoBroker;
use forebay_tests::mqtt::{Client, Connect, Publish, user_property};
use forebay_tests::place::{wait_connected, wait_reason};
use forebay_tests::resources::{Resources, dataflow_graph, documents, mqtt_endpoint, registry_endpoint};
use forebay_tests::{http, operators, wait};
use serde_json::{Value, json};

/// A graph definition of one operation with a module, between `sinks`; a branch has two, called `yes` and `no`.
fn definition(kind: &str, sinks: &[(&str, Option<&str>)]) -> String {
    let mut text = format!(
        "metadata: {{$schema: x, name: One operation, version: 1.0.0}}
moduleRequirements: {{apiVersion: 1.1.0, runtimeVersion: 1.1.0}}
operations:
  - {{operationType: source, name: source}}
  - {{operationType: {kind}, name: module-temperature/{kind}, module: 'temperature:1.0.0'}}
"
    );
    for (sink, _) in sinks {
        text += &format!("  - {{operationType: sink, name: {sink}}}\n");
    }
    text +=
        &format!("connections:\n  - {{from: {{name: source}}, to: {{name: module-temperature/{kind}}}}}\n");
    for (sink, arm) in sinks {
        let arm = arm.map(|arm| format!(", arm: \"{arm}\"")).unwrap_or_default();
        text += &format!("  - {{from: {{name: module-temperature/{kind}{arm}}}, to: {{name: {sink}}}}}\n");
    }
    text
}

/// A broker with these graph artifacts beside the samples, and these resources.
fn start(artifacts: &[(&str, String)], resources: &[String]) -> Forebay {
    let registry = operators::sample_registry();
    for (name, text) in artifacts {
        registry.push(name, "1.0.0", &Artifact::new(Shape::Graph, "graph.yaml", text.clone()));
    }
    let mut all = vec![registry_endpoint("registry", registry.addr)];
    all.extend_from_slice(resources);
    let resources = Resources::default().with("all.yaml", &documents(&all));
    Serve::new().resources(&resources).start()
}

struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn json(message: &Publish) -> Value {
    serde_json::from_slice(&message.payload).expect("a JSON payload")
}

fn property<'a>(properties: &'a [(String, String)], key: &str) -> &'a str {
    properties.iter().find(|(k, _)| k == key).map_or("", |(_, value)| value)
}

const SORTED: &str = "apiVersion: connectivity.iotoperations.azure.com/v1
kind: DataflowGraph
metadata: {name: sorted, namespace: azure-iot-operations}
spec:
  profileRef: default
  nodes:
    - nodeType: Source
      name: hall
      sourceSettings: {endpointRef: default, dataSources: [hall/+]}
    - nodeType: Source
      name: yard
      sourceSettings: {endpointRef: default, dataSources: [yard/#, yard2/#]}
    - nodeType: Graph
      name: sort
      graphSettings: {registryEndpointRef: registry, artifact: 'sort:1.0.0'}
    - nodeType: Graph
      name: convert
      graphSettings: {registryEndpointRef: registry, artifact: 'graph-simple:1.0.0'}
    - nodeType: Graph
      name: again
      graphSettings: {registryEndpointRef: registry, artifact: 'graph-simple:1.0.0'}
    - nodeType: Destination
      name: celsius
      destinationSettings: {endpointRef: default, dataDestination: 'celsius/${inputTopic.2}'}
    - nodeType: Destination
      name: other
      destinationSettings: {endpointRef: default, dataDestination: other}
  nodeConnections:
    - {from: {name: hall}, to: {name: sort}}
    - {from: {name: yard}, to: {name: sort}}
    - {from: {name: sort.output.true}, to: {name: convert}}
    - {from: {name: convert}, to: {name: again}}
    - {from: {name: again}, to: {name: celsius}}
    - {from: {name: sort.output.false}, to: {name: other}}
";

#[test]
fn graphs_with_two_outputs_lead_to_other_graphs_and_destinations() {
    let sort = definition("branch", &[("yes", Some("True")), ("no", Some("False"))]);
    let broker = start(&[("sort", sort)], &[SORTED.to_owned()]);
    let mut publisher = Client::connect(broker.addr, &Connect::v5("publisher"));
    let mut client = Client::connect(broker.addr, &Connect::v5("client"));
    client.subscribe("celsius/+", 0);
    client.subscribe("other", 0);
    publisher.publish("hall/oven", 1, br#"{"temperature":{"value":212.0,"unit":"F"}}"#);
    let celsius = client.receive();
    assert_eq!(celsius.topic, "celsius/oven");
    assert_eq!(json(&celsius)["temperature"]["value"], json!(100.0));
    publisher.publish("yard2/a/b", 0, br#"{"humidity":{"value":40}}"#);
    let other = client.receive();
    assert_eq!((other.topic.as_str(), other.text().as_str()), ("other", r#"{"humidity":{"value":40}}"#));
}

#[test]
fn a_window_closes_by_the_clock_and_gives_one_message() {
    let graph = dataflow_graph("window", "registry", "average:1.0.0", "raw/#", "average");
    let average = definition("accumulate", &[("sink", None)]);
    let broker = start(&[("average", average)], &[graph]);
    let mut client = Client::connect(broker.addr, &Connect::v5("client"));
    client.subscribe("average", 1);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
    for (at, (node, celsius)) in [("a", 20.0), ("b", 22.0), ("c", 27.0)].into_iter().enumerate() {
        let stamp = user_property("__ts", &format!("{now}:0:{node}"));
        let payload = json!({"temperature": {"value": celsius, "unit": "C"}}).to_string();
        client.publish_with(&format!("raw/{at}"), 0, false, &stamp, payload.as_bytes());
    }
    // Nothing more is published: time alone closes the window.
    let window = client.receive();
    let expected = json!({"count": 3, "min": 20, "max": 27, "average": 23, "last": 27, "unit": "C"});
    assert_eq!(json(&window)["temperature"], expected);
    let stamp = user_property("__ts", &format!("{}:0:late", now - 30_000));
    client.publish_with("raw/late", 0, false, &stamp, br#"{"temperature":{"value":1,"unit":"C"}}"#);
    broker.wait_metric("aio_dataflow_errors", &["window", "late"], 1.0);
}

#[test]
fn a_message_that_finds_the_metrics_in_the_graph_is_not_left_behind() {
    let graph = dataflow_graph("watched", "registry", "graph-simple:1.0.0", "raw", "cooked");
    let broker = start(&[], &[graph]);
    let mut client = Client::connect(broker.addr, &Connect::v5("client"));
    client.subscribe("cooked", 0);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                http::get(broker.admin, "/metrics").expect("metrics");
            }
        });
        // Also when something is wrong below.
        let ending = Ending(&done);
        for _ in 0..500 {
            client.publish("raw", 0, br#"{"temperature":{"value":32.0,"unit":"F"}}"#);
            assert!(client.receive().text().contains(r#""value":0.0"#));
        }
        drop(ending);
    });
}

#[test]
fn messages_of_each_publisher_stay_in_their_order_however_many_publish() {
    let graph = dataflow_graph("shared", "registry", "graph-simple:1.0.0", "raw/+", "cooked");
    let broker = start(&[], &[graph]);
    let mut client = Client::connect(broker.addr, &Connect::v5("client"));
    client.subscribe("cooked", 1);
    let (publishers, each) = (4, 400);
    thread::scope(|scope| {
        for publisher in 0..publishers {
            let mut client = Client::connect(broker.addr, &Connect::v5(&format!("publisher-{publisher}")));
            scope.spawn(move || {
                for number in 0..each {
                    let value = publisher * 10_000 + number;
                    let payload = json!({"temperature": {"value": value, "unit": "C"}}).to_string();
                    let topic = format!("raw/{publisher}");
                    client.send(&client.publish_bytes(&topic, 0, false, &[], payload.as_bytes()));
                }
                client.settle();
            });
        }
    });
    let mut next = vec![0; publishers];
    for _ in 0..publishers * each {
        let value = json(&client.receive())["temperature"]["value"].as_f64().expect("a number") as usize;
        let (publisher, number) = (value / 10_000, value % 10_000);
        assert_eq!(number, next[publisher], "of publisher {publisher}");
        next[publisher] += 1;
    }
}

#[test]
fn a_message_that_cannot_be_processed_is_kept_with_what_happened_to_it() {
    let graph = dataflow_graph("keeps", "registry", "graph-simple:1.0.0", "in", "out")
        .replace("  name: keeps\n", "  name: keeps\n  annotations: {forebay.dev/dead-letter-topic: lost}\n");
    let broker = start(&[], &[graph]);
    let mut publisher = Client::connect(broker.addr, &Connect::v5("publisher"));
    let mut client = Client::connect(broker.addr, &Connect::v5("client"));
    client.subscribe("lost", 1);
    let properties =
        [[0x03].as_slice(), &forebay_tests::mqtt::text("text/plain"), &user_property("line", "7")].concat();
    publisher.publish_with("in", 1, false, &properties, b"not json");
    let letter = client.receive();
    assert_eq!((letter.topic.as_str(), letter.text().as_str(), letter.qos), ("lost", "not json", 1));
    let told = letter.user_properties();
    assert_eq!(property(&told, "line"), "7");
    assert_eq!(property(&told, "dead-letter-topic"), "in");
    assert_eq!(property(&told, "dead-letter-graph"), "keeps");
    assert_eq!(property(&told, "dead-letter-operation"), "module-temperature/map");
    assert_eq!(property(&told, "dead-letter-cause"), "Failed to parse payload as JSON");
    assert_eq!(property(&told, "dead-letter-attempt"), "1");
    assert!(property(&told, "dead-letter-module").starts_with("sha256:"), "{told:?}");
    assert!(!property(&told, "dead-letter-reason").is_empty(), "{told:?}");
}

/// The graph resource with a schema on the connection that leads into its graph.
fn with_schema(graph: &str, reference: &str) -> String {
    let plain = "    - from:\n        name: source\n      to:";
    let schema = format!(
        "    - from:\n        name: source\n        schema: {{serializationFormat: Json, schemaRef: '{reference}'}}\n      to:"
    );
    assert!(graph.contains(plain));
    graph.replace(plain, &schema)
}

const SCHEMA: &str = r#"apiVersion: v1
kind: ConfigMap
metadata:
  name: reading-schema
  namespace: azure-iot-operations
  annotations: {forebay.dev/schema: "aio-sr://plant/reading:1"}
data:
  schema.json: |
    {"$schema": "http://json-schema.org/draft-07/schema#", "type": "object", "required": ["temperature"],
     "properties": {"temperature": {"type": "object", "properties": {"value": {"type": "number", "maximum": 300}}}}}
"#;

#[test]
fn what_is_not_as_its_schema_says_is_dropped_counted_and_explained() {
    let checked = with_schema(
        &dataflow_graph("checked", "registry", "graph-simple:1.0.0", "in", "out"),
        "aio-sr://plant/reading:1",
    );
    let unknown = with_schema(
        &dataflow_graph("unknown", "registry", "graph-simple:1.0.0", "in2", "out"),
        "aio-sr://plant/nobody:1",
    );
    let mut broker = start(&[], &[checked, unknown, SCHEMA.to_owned()]);
    let mut publisher = Client::connect(broker.addr, &Connect::v5("publisher"));
    let mut client = Client::connect(broker.addr, &Connect::v5("client"));
    client.subscribe("out", 0);
    publisher.publish("in", 1, br#"{"temperature":{"value":400,"unit":"F"}}"#);
    publisher.publish("in", 1, br#"{"temperature":{"value":212,"unit":"F"}}"#);
    assert_eq!(json(&client.receive())["temperature"]["value"], json!(100.0));
    broker.process.line("the fault is explained", |line| {
        line.contains("checked")
            && line.contains("/temperature/value: 400 is greater than the maximum of 300")
    });
    broker.wait_metric("aio_dataflow_messages_dropped_processing_errors", &["checked"], 1.0);
    let conflict = user_property("dataschema", "aio-sr://plant/other:1");
    publisher.publish_with("in", 1, false, &conflict, br#"{"temperature":{"value":212,"unit":"F"}}"#);
    broker.process.line("a conflict is explained", |line| line.contains("conflicting schema"));
    // A schema that only the cloud has is no reason to lose messages.
    publisher.publish("in2", 1, br#"{"temperature":{"value":400,"unit":"C"}}"#);
    assert_eq!(json(&client.receive())["temperature"]["value"], json!(400));
    let status = status(&broker);
    assert_eq!(health(&status, "checked")["status"], "Available");
    let unknown = health(&status, "unknown");
    assert_eq!(unknown["status"], "Available");
    assert!(unknown["message"].as_str().is_some_and(|m| m.contains("aio-sr://plant/nobody:1")), "{unknown}");
}

fn status(broker: &Forebay) -> Value {
    let text = http::get(broker.admin, "/status").expect("an answer").text();
    serde_json::from_str(&text).expect("JSON")
}

fn health(status: &Value, name: &str) -> Value {
    let all = status.as_array().expect("a list");
    all.iter().find(|one| one["name"] == name).unwrap_or_else(|| panic!("{name} in {status}"))["healthState"]
        .clone()
}

#[test]
fn each_resource_says_how_it_fares_and_each_operation_what_it_did() {
    let good = dataflow_graph("good", "registry", "graph-plausible:1.0.0", "in", "out");
    let missing = dataflow_graph("missing", "registry", "no-such-graph:1.0.0", "a", "b");
    let wrong = dataflow_graph("wrong", "registry", "graph-simple:1.0.0", "a", "b/#");
    let broker = start(&[("graph-plausible", operators::graph("graph-plausible"))], &[good, missing, wrong]);
    let mut client = Client::connect(broker.addr, &Connect::v5("client"));
    for payload in
        [r#"{"temperature":{"value":1,"unit":"C"}}"#, r#"{"temperature":{"value":-99,"unit":"C"}}"#, "x"]
    {
        client.publish("in", 1, payload.as_bytes());
    }
    let status = status(&broker);
    assert_eq!(health(&status, "good")["status"], "Available");
    assert_eq!(health(&status, "registry")["status"], "Available");
    let missing = health(&status, "missing");
    assert_eq!(
        (&missing["status"], &missing["reasonCode"]),
        (&json!("Unavailable"), &json!("DataflowGraphModuleDownloadFailed"))
    );
    let wrong = health(&status, "wrong");
    assert_eq!(wrong["reasonCode"], "DataflowGraphConfigurationFailed");
    assert!(wrong["message"].as_str().is_some_and(|m| m.contains("dataDestination")), "{wrong}");
    let count = |metric: &str, operation: &str| broker.metric(metric, &["good", &format!("\"{operation}\"")]);
    // A graph that was slow once takes them on a thread of its own.
    broker.wait_metric_is(
        "forebay_operation_messages_received",
        &["good", "\"module-temperature/branch\""],
        3.0,
    );
    broker.wait_metric_is(
        "forebay_operation_messages_filtered",
        &["good", "\"module-temperature/filter\""],
        1.0,
    );
    assert_eq!(count("forebay_operation_errors", "module-temperature/branch"), 1.0);
    assert_eq!(count("forebay_operation_messages_sent", "module-temperature/map"), 2.0);
    assert_eq!(count("forebay_operation_messages_filtered", "module-temperature/filter"), 1.0);
    assert!(count("forebay_operation_memory_bytes", "module-temperature/map") >= 65_536.0);
    assert!(count("forebay_operation_latency_seconds_count", "module-temperature/map") >= 1.0);
}

#[test]
fn headers_and_what_the_local_endpoint_says_apply_on_the_way_out() {
    let graph = dataflow_graph("dressed", "registry", "graph-simple:1.0.0", "raw", "dressed")
        .replace("endpointRef: default\n        dataDestination: dressed\n", "endpointRef: local\n        dataDestination: dressed\n        headers: [{actionType: AddOrReplace, key: line, value: '8'}, {actionType: Remove, key: secret}, {actionType: AddIfNotPresent, key: site, value: north}]\n");
    let endpoint = "apiVersion: connectivity.iotoperations.azure.com/v1
kind: DataflowEndpoint
metadata: {name: local, namespace: azure-iot-operations}
spec:
  endpointType: Mqtt
  mqttSettings: {retain: Never, cloudEventAttributes: CreateOrRemap, qos: 1}
";
    let broker = start(&[], &[graph, endpoint.to_owned()]);
    let mut client = Client::connect(broker.addr, &Connect::v5("c"));
    client.subscribe("dressed", 1);
    let properties =
        [user_property("line", "7"), user_property("secret", "x"), user_property("type", "mine")].concat();
    let payload = json!({"temperature": {"value": 1.0, "unit": "C"}}).to_string();
    let mut publisher = Client::connect(broker.addr, &Connect::v5("publisher"));
    publisher.publish_with("raw", 0, true, &properties, payload.as_bytes());
    let message = client.receive();
    assert_eq!(message.qos, 1);
    let said = message.user_properties();
    for (key, value) in [
        ("line", "8"),
        ("secret", ""),
        ("site", "north"),
        ("type", "mine"),
        ("specversion", "1.0"),
        ("source", "aio://destination"),
        ("subject", "dressed"),
    ] {
        assert_eq!(property(&said, key), value, "{key} in {said:?}");
    }
    assert_eq!(said.iter().filter(|(key, _)| key == "line").count(), 1);
    // Nothing was kept.
    let mut later = Client::connect(broker.addr, &Connect::v5("later"));
    later.subscribe("dressed", 1);
    later.settle();
}

#[test]
fn what_a_source_takes_has_the_qos_that_its_endpoint_says() {
    let graph = dataflow_graph("plain", "registry", "graph-simple:1.0.0", "raw", "cooked").replacen(
        "endpointRef: default",
        "endpointRef: once",
        1,
    );
    let endpoint = "apiVersion: connectivity.iotoperations.azure.com/v1
kind: DataflowEndpoint
metadata: {name: once, namespace: azure-iot-operations}
spec: {endpointType: Mqtt, mqttSettings: {qos: 0}}
";
    let broker = start(&[], &[graph, endpoint.to_owned()]);
    let mut client = Client::connect(broker.addr, &Connect::v5("c"));
    client.subscribe("cooked", 2);
    let mut publisher = Client::connect(broker.addr, &Connect::v5("publisher"));
    publisher.publish("raw", 1, br#"{"temperature":{"value":1,"unit":"C"}}"#);
    assert_eq!(client.receive().qos, 0);
}

/// A profile that has every third message copied to this endpoint, and a graph that is of it.
fn watched(graph: &str, endpoint: &str) -> [String; 2] {
    let profile = format!(
        "apiVersion: connectivity.iotoperations.azure.com/v1
kind: DataflowProfile
metadata: {{name: watched, namespace: azure-iot-operations}}
spec:
  diagnostics:
    debuggingSettings:
      destinationSettings: {{endpointRef: {endpoint}}}
      samplingPolicy: {{method: Count, countSettings: {{nth: 3}}}}
"
    );
    [profile, graph.replace("profileRef: default", "profileRef: watched")]
}

#[test]
fn every_nth_message_is_copied_for_who_looks_for_a_fault() {
    // It takes its own copies, too, which are not copied again.
    let graph = dataflow_graph("probed", "registry", "graph-simple:1.0.0", "raw", "cooked/${inputTopic}");
    let graph = graph.replace("          - raw\n", "          - raw\n          - diagnostics/#\n");
    let far = MosquittoBroker::start();
    let remote = mqtt_endpoint(
        "remote",
        &far.addr.to_string(),
        &["authentication: {method: Anonymous, anonymousSettings: {}}\ntls: {mode: Disabled}"],
        &[],
    );
    let mut there = Client::connect(far.addr, &Connect::v5("there"));
    there.subscribe("diagnostics/#", 1);
    for (endpoint, is_here) in [("default", true), ("remote", false)] {
        let broker = start(&[], &[&watched(&graph, endpoint)[..], std::slice::from_ref(&remote)].concat());
        let mut here = Client::connect(broker.addr, &Connect::v5("here"));
        here.subscribe("diagnostics/#", 1);
        if !is_here {
            wait_connected(&broker, "debuggingSettings");
        }
        let mut publisher = Client::connect(broker.addr, &Connect::v5("publisher"));
        for number in 1..=10 {
            let payload = json!({"temperature": {"value": number, "unit": "C"}}).to_string();
            publisher.publish_with("raw", 1, false, &user_property("line", "7"), payload.as_bytes());
        }
        let looks = if is_here { &mut here } else { &mut there };
        for number in [3, 6, 9] {
            let copy = looks.receive();
            assert_eq!(copy.topic, "diagnostics/probed");
            assert_eq!(json(&copy)["temperature"]["value"], number);
            let said = copy.user_properties();
            assert_eq!((property(&said, "line"), property(&said, "sample-topic")), ("7", "raw"));
        }
        broker.wait_metric_is("forebay_graph_samples_total", &["probed"], 3.0);
        here.settle();
        there.settle();
    }
}

/// A profile of three instances, and a graph that is of it.
fn of_three(graph: &str) -> [String; 2] {
    let profile = "apiVersion: connectivity.iotoperations.azure.com/v1
kind: DataflowProfile
metadata: {name: three, namespace: azure-iot-operations}
spec: {instanceCount: 3}
";
    [profile.to_owned(), graph.replace("profileRef: default", "profileRef: three")]
}

#[test]
fn instances_share_what_comes_in_and_topics_stay_together() {
    let graph = dataflow_graph("many", "registry", "graph-simple:1.0.0", "raw/+", "cooked/${inputTopic.2}");
    let graph = graph.replace("          - raw/+\n", "          - raw/+\n          - single\n");
    let broker = start(&[], &of_three(&graph));
    let mut client = Client::connect(broker.addr, &Connect::v5("client"));
    client.subscribe("cooked/#", 0);
    let mut publisher = Client::connect(broker.addr, &Connect::v5("publisher"));
    for number in 0..300 {
        let payload = json!({"temperature": {"value": number, "unit": "C"}}).to_string();
        publisher.publish(&format!("raw/{}", number % 10), 1, payload.as_bytes());
    }
    let mut last = [-1.0; 10];
    for _ in 0..300 {
        let message = client.receive();
        let value = json(&message)["temperature"]["value"].as_f64().expect("a number");
        let topic: usize = message.topic["cooked/".len()..].parse().expect("a number");
        assert!(value > last[topic], "{value} after {} of {topic}", last[topic]);
        last[topic] = value;
    }
    client.settle();
    let each =
        |id: &str| broker.metric("aio_dataflow_messages_received", &[&format!("dataflow_id=\"{id}\"")]);
    let counts = ["many", "many.2", "many.3"].map(each);
    assert!(
        counts.iter().sum::<f64>() == 300.0 && counts.iter().filter(|count| **count > 0.0).count() > 1,
        "{counts:?}"
    );
    // Without wildcards, and without a word of who belongs together, each has its turn; with one, they stay together.
    for (properties, takers) in [(vec![], 3), (user_property("$partition", "press 7"), 1)] {
        let before = ["many", "many.2", "many.3"].map(each);
        for _ in 0..9 {
            client.publish_with(
                "single",
                1,
                false,
                &properties,
                br#"{"temperature":{"value":1,"unit":"C"}}"#,
            );
        }
        let after = ["many", "many.2", "many.3"].map(each);
        let took = before.iter().zip(after).filter(|(before, after)| *before != after).count();
        assert_eq!(took, takers, "{before:?} {after:?}");
    }
}

#[test]
fn a_client_and_a_graph_may_share() {
    let graph = dataflow_graph("member", "registry", "graph-simple:1.0.0", "$shared/group/raw", "cooked");
    let broker = start(&[], &[graph]);
    let mut member = Client::connect(broker.addr, &Connect::v5("member"));
    member.subscribe("$share/group/raw", 0);
    let mut watch = Client::connect(broker.addr, &Connect::v5("watch"));
    watch.subscribe("cooked", 0);
    for _ in 0..10 {
        watch.publish("raw", 0, br#"{"temperature":{"value":1,"unit":"C"}}"#);
    }
    for _ in 0..5 {
        member.receive();
        watch.receive();
    }
    member.settle();
    watch.settle();
}

#[test]
fn windows_are_not_split_over_instances() {
    let graph = dataflow_graph("windows", "registry", "averaged:1.0.0", "raw", "average");
    let registry = operators::sample_registry();
    let averaged = definition("accumulate", &[("sink", None)]);
    registry.push("averaged", "1.0.0", &Artifact::new(Shape::Graph, "graph.yaml", averaged));
    let all = [&[registry_endpoint("registry", registry.addr)][..], &of_three(&graph)].concat();
    let resources = Resources::default().with("all.yaml", &documents(&all));
    let broker = Serve::new().resources(&resources).start_unready();
    let why = wait_reason(&broker, "windows", "DataflowGraphConfigurationFailed");
    assert!(why.contains("3 instances (`instanceCount`)"), "{why}");
}

#[test]
fn each_graph_says_as_much_as_its_profile_lets_it() {
    let profile = "apiVersion: connectivity.iotoperations.azure.com/v1
kind: DataflowProfile
metadata: {name: quiet, namespace: azure-iot-operations}
spec: {diagnostics: {logs: {level: error}}}
";
    let graph = |name: &str| dataflow_graph(name, "registry", "graph-simple:1.0.0", "raw", "cooked");
    let quiet = graph("hushed").replace("profileRef: default", "profileRef: quiet");
    let broker = start(&[], &[profile.to_owned(), quiet, graph("loud")]);
    let output = broker.output();
    let says = |graph: &str| output.lines().any(|line| line.contains("INFO started") && line.contains(graph));
    assert!(says("loud") && !says("hushed"), "{output}");
}

#[test]
fn the_broker_logs_at_the_level_that_its_resource_says_and_as_soon_as_it_does() {
    let broker_of = |level: &str| {
        format!(
            "apiVersion: mqttbroker.iotoperations.azure.com/v1\nkind: Broker\nmetadata: {{name: default, namespace: \
             azure-iot-operations}}\nspec: {{diagnostics: {{logs: {{level: '{level}'}}}}}}\n"
        )
    };
    let resources = Resources::default().with("broker.yaml", &broker_of("debug"));
    let broker = Serve::new().resources(&resources).start();
    let told = |level: &str| broker.output().lines().filter(|line| line.contains(level)).count();
    Client::connect(broker.addr, &Connect::v5("first")).disconnect();
    wait::until("it tells more", || (told("DEBUG") > 0).then_some(()).ok_or_else(|| broker.output()));
    let resources = resources.with("broker.yaml", &broker_of("error"));
    wait::until("it tells less", || {
        let before = told("DEBUG");
        Client::connect(broker.addr, &Connect::v5("second")).disconnect();
        thread::sleep(std::time::Duration::from_millis(300));
        (told("DEBUG") == before).then_some(()).ok_or_else(|| format!("{before}"))
    });
    drop(resources);
}
