//! Example 1 of AIO's how-to, as it stands there: only the placeholders are filled in.

use std::fs;

use forebay_tests::forebay::Serve;
use forebay_tests::mosquitto::{self, Subscriber};
use forebay_tests::resources::Resources;
use forebay_tests::{operators, repository};

/// The registry's name, for which the how-to writes `<YOUR_ACR_NAME>.azurecr.io`. What is filled in makes the whole an
/// address on loopback followed by a repository path, as a host may carry one.
fn fill(file: &str, registry: &str) -> String {
    let path = repository().join("tests/fixtures").join(file);
    let text = fs::read_to_string(&path).expect("a fixture");
    let filled = text
        .replace("<REGISTRY_ENDPOINT_NAME>", "my-acr")
        .replace("<YOUR_ACR_NAME>", registry)
        .replace("<GRAPH_NAME>", "temperature-graph");
    assert!(!filled.contains('<'), "a placeholder is left in {file}");
    filled
}

#[test]
fn example_1_runs_unchanged() {
    let registry = forebay_tests::registry::Registry::start();
    operators::push_samples(&registry, "acr.azurecr.io/");
    let name = format!("{}/acr", registry.addr);
    let resources = Resources::default()
        .with("registry-endpoint.yaml", &fill("how-to-registry-endpoint.yaml", &name))
        .with("dataflow-graph.yaml", &fill("how-to-dataflow-graph.yaml", &name));
    let broker = Serve::new().resources(&resources).start();

    let mut subscriber = Subscriber::start(broker.addr, "mqttv5", "sensor/temperature/processed", 1, &[]);
    let reading = r#"{"temperature":{"value":100.0,"unit":"F"}}"#;
    mosquitto::publish(broker.addr, "mqttv5", "sensor/temperature/raw", reading, 1, &[]);
    let json = subscriber.receive().json();
    assert_eq!(json["temperature"]["value"].as_f64(), Some(37.77777777777778));
    assert_eq!(json["temperature"]["unit"], "C");

    // What the example sets and its operator does not read is said, not swallowed.
    let output = broker.output();
    let field = "`conversion`";
    assert!(output.contains(field), "{field} is not mentioned in:\n{output}");
}
