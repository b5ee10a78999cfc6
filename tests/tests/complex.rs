//! Example 2 of AIO's how-to: temperature, humidity and images in, one enriched message per window out.

use std::time::{SystemTime, UNIX_EPOCH};

use forebay_tests::artifact::{Artifact, Shape};
use forebay_tests::forebay::Serve;
use forebay_tests::mqtt::{Client, Connect, user_property};
use forebay_tests::registry::Registry;
use forebay_tests::resources::{Resources, configured, dataflow_graph, documents, registry_endpoint};
use forebay_tests::{operators, repository, wait};
use serde_json::{Value, json};

const MODULES: [&str; 7] =
    ["window", "format", "snapshot", "temperature", "humidity", "collection", "enrichment"];

fn registry() -> Registry {
    let registry = Registry::start();
    for name in MODULES {
        let module = Artifact::new(Shape::Module, &format!("{name}.wasm"), operators::component(name));
        registry.push(name, "1.0.0", &module);
    }
    let graph = Artifact::new(Shape::Graph, "graph-complex.yaml", operators::graph("graph-complex"));
    registry.push("graph-complex", "1.0.0", &graph);
    registry
}

/// The end of the ten-second window that is under way, and begins anew in time for what is to be published in it.
fn window_end_ms() -> u64 {
    wait::until("a window has just begun", || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
        let now = u64::try_from(now).expect("not so late");
        match now % 10_000 {
            100..6_000 => Ok(now.next_multiple_of(10_000)),
            into => Err(format!("{into} ms into a window")),
        }
    })
}

#[test]
fn what_comes_in_one_window_is_one_enriched_message() {
    let registry = registry();
    let graph = dataflow_graph(
        "complex",
        "registry",
        "graph-complex:1.0.0",
        "sensor/temperature/raw\n          - sensor/humidity/raw\n          - sensor/images/raw",
        "analytics/sensor/processed",
    );
    let graph = configured(&graph, &[("snapshot_topic", "sensor/images/raw")])
        // An unoptimised host takes its time over an image.
        .replace("  name: complex\n", "  name: complex\n  annotations: {forebay.dev/call-deadline: 60s}\n");
    let all = documents(&[registry_endpoint("registry", registry.addr), graph]);
    let resources = Resources::default().with("all.yaml", &all);
    let broker = Serve::new().file(resources.path()).start();
    let mut publisher = Client::connect(broker.addr, &Connect::v5("publisher"));
    let mut client = Client::connect(broker.addr, &Connect::v5("client"));
    client.subscribe("analytics/sensor/processed", 1);

    let end = window_end_ms();
    let image = std::fs::read(repository().join("processing/tests/fixtures/cat.jpg")).expect("a fixture");
    let mut send = |topic: &str, node: &str, payload: &[u8]| {
        // By the publishers' own clocks, all in the same window.
        let stamp = user_property("__ts", &format!("{}:0:{node}", end - 4_321));
        publisher.publish_with(topic, 0, false, &stamp, payload);
    };
    send("sensor/temperature/raw", "t", br#"{"temperature":{"value":212,"unit":"F"}}"#);
    send("sensor/temperature/raw", "u", br#"{"temperature":{"value":120,"unit":"C"}}"#);
    send("sensor/temperature/raw", "u", br#"{"temperature":{"value":9999,"unit":"C"}}"#);
    send("sensor/humidity/raw", "h", br#"{"humidity":{"value":85}}"#);
    send("sensor/humidity/raw", "h", br#"{"humidity":{"value":45}}"#);
    send("sensor/images/raw", "camera", &image);

    let message = client.receive();
    let all: Value = serde_json::from_slice(&message.payload).expect("JSON");
    let temperature = &all["temperature"][0];
    assert_eq!((&temperature["count"], &temperature["min"]), (&json!(2), &json!(100.0)), "{all}");
    assert_eq!((&temperature["max"], &temperature["average"]), (&json!(120.0), &json!(110.0)), "{all}");
    assert_eq!(temperature["overtemp"], true, "above 100 degrees");
    let humidity = &all["humidity"][0];
    assert_eq!(
        (&humidity["count"], &humidity["max"], &humidity["last"]),
        (&json!(2), &json!(85.0), &json!(45.0)),
        "{all}"
    );
    let seen = all["object"][0]["result"].as_str().unwrap_or_default();
    assert!(seen.contains("cat") || seen.contains("tabby"), "the image shows a cat: {all}");
    assert_eq!(all["temperature"].as_array().map(Vec::len), Some(1), "one message for the window: {all}");
    // The graph leaves unsaid that it needs neural networks, as AIO's own does: it gets them, and a warning.
    let warning = "moduleRequirements.features does not name it";
    assert!(broker.output().contains(warning), "{}", broker.output());
    // The implausible reading was dropped, and nothing else.
    assert_eq!(broker.metric("aio_dataflow_messages_filtered", &["complex"]), 1.0);
    assert_eq!(
        broker.metric("aio_dataflow_messages_dropped_processing_errors", &["complex"]),
        0.0,
        "{}",
        broker.output()
    );
}
