//! Graphs whose messages are persisted: the broker is killed in the middle of their work, and what they derive reaches
//! a persisted subscriber once.

use std::collections::BTreeMap;
use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use forebay_tests::artifact::{Artifact, Shape};
use forebay_tests::forebay::{Forebay, Serve};
use forebay_tests::mqtt::{Client, Connect, user_property};
use forebay_tests::operators;
use forebay_tests::random::{Random, seed};
use forebay_tests::registry::Registry;
use forebay_tests::resources::{Resources, dataflow_graph, documents, registry_endpoint};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Converts each reading at once, and averages those of one time when that is over.
const BOTH_WAYS: &str = "metadata: {$schema: x, name: Both ways, version: 1.0.0}
moduleRequirements: {apiVersion: 1.1.0, runtimeVersion: 1.1.0}
operations:
  - {operationType: source, name: source}
  - {operationType: map, name: module-temperature/map, module: 'temperature:1.0.0'}
  - {operationType: accumulate, name: module-temperature/accumulate, module: 'temperature:1.0.0'}
  - {operationType: concatenate, name: both}
  - {operationType: sink, name: sink}
connections:
  - {from: {name: source}, to: {name: module-temperature/map}}
  - {from: {name: source}, to: {name: module-temperature/accumulate}}
  - {from: {name: module-temperature/map}, to: {name: both}}
  - {from: {name: module-temperature/accumulate}, to: {name: both}}
  - {from: {name: both}, to: {name: sink}}
";

/// Lets everything of one time wait until that is over.
const AVERAGE: &str = "metadata: {$schema: x, name: Average, version: 1.0.0}
moduleRequirements: {apiVersion: 1.1.0, runtimeVersion: 1.1.0}
operations:
  - {operationType: source, name: source}
  - {operationType: accumulate, name: module-temperature/accumulate, module: 'temperature:1.0.0'}
  - {operationType: sink, name: sink}
connections:
  - {from: {name: source}, to: {name: module-temperature/accumulate}}
  - {from: {name: module-temperature/accumulate}, to: {name: sink}}
";

/// A data directory, and the resources of a persisted graph from `raw/#` to `cooked`.
struct Place {
    data: TempDir,
    resources: Resources,
    _registry: Registry,
}

impl Place {
    fn new(artifact: &str, lateness: &str) -> Self {
        let registry = operators::sample_registry();
        for (name, text) in [("both-ways", BOTH_WAYS), ("average", AVERAGE)] {
            registry.push(name, "1.0.0", &Artifact::new(Shape::Graph, "graph.yaml", text.to_owned()));
        }
        let graph = dataflow_graph("kept", "registry", artifact, "raw/#", "cooked")
            .replace("  mode: Enabled\n", "  mode: Enabled\n  requestDiskPersistence: Enabled\n")
            .replace(
                "  name: kept\n",
                &format!("  name: kept\n  annotations: {{forebay.dev/allowed-lateness: {lateness}}}\n"),
            );
        let all = documents(&[registry_endpoint("registry", registry.addr), graph]);
        let resources = Resources::default().with("all.yaml", &all);
        Self { data: TempDir::new().expect("a directory"), resources, _registry: registry }
    }

    fn serve(&self) -> Serve {
        Serve::new().data_dir(self.data.path()).resources(&self.resources)
    }
}

fn lasting(id: &str) -> Connect {
    let asks = user_property("aio-persistence", "true");
    Connect::v5(id).resume().session_expiry(u32::MAX).property(&asks)
}

/// Subscribes for good and goes away.
fn leave_subscriber(broker: &Forebay) {
    Client::connect(broker.addr, &lasting("subscriber")).subscribe("cooked", 1);
}

fn celsius(value: f64) -> Vec<u8> {
    json!({"temperature": {"value": value, "unit": "C"}}).to_string().into_bytes()
}

fn json(payload: &[u8]) -> Value {
    serde_json::from_slice(payload).expect("a JSON payload")
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
    u64::try_from(now).expect("not so late")
}

/// What waits for the subscriber: `count` messages and no more.
fn received(broker: &Forebay, count: usize) -> Vec<Value> {
    let mut subscriber = Client::connect(broker.addr, &lasting("subscriber"));
    assert!(subscriber.session_present());
    let messages = (0..count).map(|_| json(&subscriber.receive().payload)).collect();
    subscriber.settle();
    messages
}

#[test]
fn each_message_is_derived_from_once_however_often_the_broker_is_killed() {
    let place = Place::new("graph-simple:1.0.0", "1s");
    let mut random = Random::new(seed());
    {
        leave_subscriber(&place.serve().start());
    }
    let mut acknowledged = BTreeMap::new();
    for round in 0..6 {
        let broker = place.serve().start_unready();
        let addr = broker.addr;
        let lives = Duration::from_millis(50 + random.below(400));
        let publisher = thread::spawn(move || {
            let mut sent = Vec::new();
            let Some(mut client) = Client::try_connect(addr, &Connect::v5("publisher")) else { return sent };
            for number in 0..2_000 {
                let value = round * 10_000 + number;
                if !client.try_publish("raw/x", &celsius(f64::from(value))) {
                    break;
                }
                sent.push(value);
            }
            sent
        });
        thread::sleep(lives);
        drop(broker);
        for value in publisher.join().expect("the publisher ends") {
            acknowledged.insert(value, 0);
        }
    }
    let broker = place.serve().start();
    broker.wait_metric_is("forebay_store_graph_entries", &["kept"], 0.0);
    let mut subscriber = Client::connect(broker.addr, &lasting("subscriber"));
    let mut last = -1.0;
    while acknowledged.values().any(|count| *count == 0) {
        let value = json(&subscriber.receive().payload)["temperature"]["value"].as_f64().expect("a number");
        assert!(value > last, "{value} after {last}");
        last = value;
        // One may have been taken whose acknowledgement was lost.
        *acknowledged.entry(value as i32).or_default() += 1;
    }
    assert!(acknowledged.values().all(|count| *count == 1));
    assert!(acknowledged.len() > 20, "hardly anything happened");
}

#[test]
fn a_window_that_the_broker_was_killed_in_has_everything_and_comes_once() {
    let place = Place::new("average:1.0.0", "6s");
    let broker = place.serve().start();
    leave_subscriber(&broker);
    let stamp = user_property("__ts", &format!("{}:0:clock", now_ms()));
    let publish = |broker: &Forebay, value: f64| {
        let mut client = Client::connect(broker.addr, &Connect::v5("publisher"));
        client.publish_with("raw/x", 1, false, &stamp, &celsius(value));
    };
    publish(&broker, 10.0);
    publish(&broker, 20.0);
    drop(broker);
    let broker = place.serve().start();
    publish(&broker, 30.0);
    drop(broker);
    let broker = place.serve().start();
    broker.wait_metric_is("forebay_store_graph_entries", &["kept"], 0.0);
    drop(broker);
    let window = received(&place.serve().start(), 1);
    let expected = json!({"count": 3, "min": 10, "max": 30, "average": 20, "last": 30, "unit": "C"});
    assert_eq!(window[0]["temperature"], expected);
}

#[test]
fn what_was_derived_before_the_window_closed_is_not_derived_again() {
    let place = Place::new("both-ways:1.0.0", "4s");
    let broker = place.serve().start();
    leave_subscriber(&broker);
    let mut publisher = Client::connect(broker.addr, &Connect::v5("publisher"));
    let stamp = user_property("__ts", &format!("{}:0:clock", now_ms()));
    for value in [10.0, 20.0] {
        publisher.publish_with("raw/x", 1, false, &stamp, &celsius(value));
    }
    // Both are converted, and their conversions on disk, while their window is still open.
    broker.wait_metric_is("forebay_store_queued", &[], 4.0);
    drop(broker);
    drop(place.serve().start());
    let broker = place.serve().start();
    broker.wait_metric_is("forebay_store_graph_entries", &["kept"], 0.0);
    let messages = received(&broker, 3);
    let values: Vec<&Value> = messages[..2].iter().map(|message| &message["temperature"]["value"]).collect();
    assert_eq!(values, [&json!(10.0), &json!(20.0)]);
    assert_eq!(messages[2]["temperature"]["count"], 2);
}

/// The same without its registry: the graph cannot run.
fn without_registry(place: &Place) -> Resources {
    let text = std::fs::read_to_string(place.resources.file("all.yaml")).expect("the resources");
    let host = text.lines().find(|line| line.contains("host:")).expect("a host").to_owned();
    let nobody = format!("  host: {}", forebay_tests::wait::free_addr());
    Resources::default().with("all.yaml", &text.replace(&host, &nobody))
}

#[test]
fn what_comes_while_the_graph_does_not_run_waits_for_it() {
    let place = Place::new("graph-simple:1.0.0", "1s");
    {
        leave_subscriber(&place.serve().start());
    }
    let nobody = without_registry(&place);
    let cache = place.data.path().join("registry");
    std::fs::remove_dir_all(cache).expect("the cache of artifacts");
    let broker = Serve::new().data_dir(place.data.path()).file(nobody.path()).start();
    let mut publisher = Client::connect(broker.addr, &Connect::v5("publisher"));
    for value in 0..1_500 {
        publisher.publish("raw/x", 1, &celsius(f64::from(value)));
    }
    broker.wait_metric_is("forebay_store_graph_entries", &["kept"], 1_500.0);
    drop(broker);
    let broker = place.serve().start();
    broker.wait_metric_is("forebay_store_graph_entries", &["kept"], 0.0);
    let values: Vec<Value> =
        received(&broker, 1_500).iter().map(|message| message["temperature"]["value"].clone()).collect();
    assert_eq!(values, (0..1_500).map(|value| json!(f64::from(value))).collect::<Vec<_>>());
}

#[test]
fn a_graph_that_is_gone_leaves_nothing_behind_and_that_is_told() {
    let place = Place::new("average:1.0.0", "60s");
    let broker = place.serve().start();
    let mut publisher = Client::connect(broker.addr, &Connect::v5("publisher"));
    publisher.publish("raw/x", 1, &celsius(1.0));
    broker.wait_metric_is("forebay_store_graph_entries", &["kept"], 1.0);
    drop(broker);
    let bare = |data: &Path| Serve::new().data_dir(data).start();
    let broker = bare(place.data.path());
    assert!(broker.output().contains("graph azure-iot-operations/kept is gone"), "{}", broker.output());
    broker.wait_metric_is("forebay_store_messages", &[], 0.0);
    drop(broker);
    assert!(!bare(place.data.path()).output().contains("is gone"));
}

#[test]
fn without_a_place_the_graph_runs_and_says_that_nothing_is_kept() {
    let place = Place::new("graph-simple:1.0.0", "1s");
    let none = "apiVersion: mqttbroker.iotoperations.azure.com/v1
kind: Broker
metadata: {name: default, namespace: azure-iot-operations}
spec: {persistence: {maxSize: 1GiB, subscriberQueue: {mode: None}}}
";
    let resources = Resources::default().with("broker.yaml", none);
    let broker = place.serve().resources(&resources).start();
    let mut client = Client::connect(broker.addr, &Connect::v5("client"));
    client.subscribe("cooked", 1);
    Client::connect(broker.addr, &Connect::v5("publisher")).publish("raw/x", 1, &celsius(7.0));
    assert_eq!(json(&client.receive().payload)["temperature"]["value"], 7.0);
    assert!(broker.output().contains("requestDiskPersistence needs the Broker's"), "{}", broker.output());
}
