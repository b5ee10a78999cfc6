//! What comes out of a graph is the same for any number of threads that feed it.

use std::net::SocketAddr;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use forebay_tests::artifact::{Artifact, Shape};
use forebay_tests::forebay::Serve;
use forebay_tests::mqtt::{Client, Connect, user_property};
use forebay_tests::operators;
use forebay_tests::registry::Registry;
use forebay_tests::resources::{Resources, dataflow_graph, documents, registry_endpoint};
use serde_json::{Value, json};

/// Publishers at a time.
const PUBLISHERS: u64 = 4;
/// Readings of each.
const READINGS: u64 = 300;
/// Windows that the readings fall into.
const WINDOWS: u64 = 2;
const WINDOW_MS: u64 = 10_000;

const GRAPH: &str = "metadata:
  $schema: https://www.schemastore.org/aio-wasm-graph-config-1.0.0.json
  name: Windows of temperatures
  version: 1.0.0
moduleRequirements:
  apiVersion: 1.1.0
  runtimeVersion: 1.1.0
operations:
  - {operationType: source, name: source}
  - {operationType: map, name: module-temperature/map, module: 'temperature:1.0.0'}
  - {operationType: delay, name: module-window/delay, module: 'window:1.0.0'}
  - {operationType: accumulate, name: module-temperature/accumulate, module: 'temperature:1.0.0'}
  - {operationType: sink, name: sink}
connections:
  - {from: {name: source}, to: {name: module-temperature/map}}
  - {from: {name: module-temperature/map}, to: {name: module-window/delay}}
  - {from: {name: module-window/delay}, to: {name: module-temperature/accumulate}}
  - {from: {name: module-temperature/accumulate}, to: {name: sink}}
";

/// When a reading was taken, after the beginning of the first window: no two at the same time.
fn offset_ms(publisher: u64, at: u64) -> u64 {
    1 + (at * PUBLISHERS + publisher) * (WINDOWS * WINDOW_MS - 2) / (PUBLISHERS * READINGS)
}

/// A reading in whole degrees, so that sums are exact in any order.
fn degrees(publisher: u64, at: u64) -> u64 {
    (publisher * 7_919 + at * 104_729) % 500
}

/// All publishers at once, each on a connection of its own.
fn publish_all(addr: SocketAddr, begin_ms: u64) {
    thread::scope(|scope| {
        for publisher in 0..PUBLISHERS {
            scope.spawn(move || {
                let mut client = Client::connect(addr, &Connect::v5(&format!("p{publisher}")));
                for at in 0..READINGS {
                    let stamp = format!("{}:0:p{publisher}", begin_ms + offset_ms(publisher, at));
                    let reading =
                        format!(r#"{{"temperature":{{"value":{},"unit":"C"}}}}"#, degrees(publisher, at));
                    client.publish_with("raw", 1, false, &user_property("__ts", &stamp), reading.as_bytes());
                }
            });
        }
    });
}

/// What must come out: the statistics of each window.
fn model() -> Vec<Value> {
    let window = |window: u64| {
        let mut readings: Vec<(u64, u64)> = (0..PUBLISHERS)
            .flat_map(|publisher| (0..READINGS).map(move |at| (publisher, at)))
            .map(|(publisher, at)| (offset_ms(publisher, at), degrees(publisher, at)))
            // A window ends with its last moment.
            .filter(|(offset, _)| (offset - 1) / WINDOW_MS == window)
            .collect();
        readings.sort_unstable();
        let all = || readings.iter().map(|(_, degrees)| *degrees);
        json!({
            "count": readings.len(),
            "max": all().max().unwrap() as f64,
            "min": all().min().unwrap() as f64,
            "last": all().next_back().unwrap() as f64,
            "sum": all().sum::<u64>(),
        })
    };
    (0..WINDOWS).map(window).collect()
}

/// The statistics of a window, its average as the sum that it is made of.
fn statistics(text: &str) -> Value {
    let message: Value = serde_json::from_str(text).expect("JSON");
    let told = &message["temperature"];
    let number = |key: &str| told[key].as_f64().unwrap_or_else(|| panic!("{key}: {text}"));
    json!({
        "count": number("count") as u64,
        "max": number("max"),
        "min": number("min"),
        "last": number("last"),
        "sum": (number("average") * number("count")).round() as u64,
    })
}

#[test]
fn windows_are_the_same_with_one_thread_and_with_four() {
    let registry = Registry::start();
    for name in ["window", "temperature"] {
        let module = Artifact::new(Shape::Module, &format!("{name}.wasm"), operators::component(name));
        registry.push(name, "1.0.0", &module);
    }
    registry.push("windows", "1.0.0", &Artifact::new(Shape::Graph, "graph.yaml", GRAPH));
    let flow = dataflow_graph("windows", "registry", "windows:1.0.0", "raw", "statistics");
    let all = documents(&[registry_endpoint("registry", registry.addr), flow]);
    let resources = Resources::default().with("all.yaml", &all);
    let brokers = ["1", "4"]
        .map(|threads| Serve::new().resources(&resources).env("TOKIO_WORKER_THREADS", threads).start());
    let mut subscribers = brokers.each_ref().map(|broker| {
        let mut client = Client::connect(broker.addr, &Connect::v5("subscriber"));
        client.subscribe("statistics", 1);
        client
    });
    // The window after this one, so that nothing is late however slow the machine is.
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
    let begin_ms = u64::try_from(now_ms).expect("not so late").next_multiple_of(WINDOW_MS);
    thread::scope(|scope| {
        for broker in &brokers {
            scope.spawn(|| publish_all(broker.addr, begin_ms));
        }
    });
    let model = model();
    for subscriber in &mut subscribers {
        for window in &model {
            let text = subscriber.receive().text();
            assert_eq!(&statistics(&text), window, "{text}");
        }
    }
}
