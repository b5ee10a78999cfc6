//! The commands: `serve` ends in good order and starts again without its registry, `validate` finds what is wrong, `demo`
//! shows the main job.

use std::net::TcpStream;

use forebay_tests::artifact::{Artifact, Shape};
use forebay_tests::forebay::{self, Serve};
use forebay_tests::mqtt::{Client, Connect};
use forebay_tests::operators;
use forebay_tests::registry::Registry;
use forebay_tests::resources::{Resources, dataflow_graph, map_graph, registry_endpoint};
use tempfile::TempDir;

const READING: &[u8] = br#"{"temperature":{"value":100.0,"unit":"F"}}"#;

#[test]
fn serve_says_what_is_bound_and_which_graphs_run() {
    let mut broker = Serve::new().file("config/samples/fahrenheit.yaml").start();
    let (addr, admin) = (broker.addr.to_string(), broker.admin.to_string());
    broker.process.says(&addr);
    broker.process.says(&admin);
    broker.process.says("sensor/temperature/raw");
}

#[test]
fn sigterm_tells_clients_drains_and_ends_with_0() {
    let mut broker = Serve::new().start();
    let new = Client::connect(broker.addr, &Connect::v5("new"));
    let old = Client::connect(broker.addr, &Connect::v4("old"));
    let status = broker.terminate();
    assert_eq!(status.code(), Some(0), "{}", broker.output());
    // Server shutting down [MQTT5-3.14.2.1].
    let said = new.closed();
    assert_eq!((said[0].first, said[0].body.first()), (0xE0, Some(&0x8B)), "{said:02x?}");
    assert_eq!(old.closed(), [], "MQTT 3.1.1 has no DISCONNECT from the server");
    assert!(TcpStream::connect(broker.addr).is_err());
}

#[test]
fn a_restart_works_while_the_registry_is_away() {
    let data = TempDir::new().unwrap();
    let registry = Registry::start();
    let graph = map_graph("module-temperature/map", "temperature:1.0.0");
    registry.push("graph", "1.0.0", &Artifact::new(Shape::Graph, "graph.yaml", graph));
    let module = Artifact::new(Shape::Module, "temperature.wasm", operators::component("temperature"));
    registry.push("temperature", "1.0.0", &module);
    let resources = Resources::default()
        .with("registry.yaml", &registry_endpoint("registry", registry.addr))
        .with("graph.yaml", &dataflow_graph("cached", "registry", "graph:1.0.0", "in", "out"));
    let serve = || Serve::new().data_dir(data.path()).resources(&resources).start();
    let mut first = serve();
    converts(first.addr);
    assert_eq!(first.terminate().code(), Some(0));
    drop(registry);
    let second = serve();
    converts(second.addr);
}

fn converts(addr: std::net::SocketAddr) {
    let mut client = Client::connect(addr, &Connect::v5("client"));
    client.subscribe("out", 0);
    client.publish("in", 0, READING);
    assert!(client.receive().text().contains("37.77777777777778"));
}

#[test]
fn demo_once_shows_ten_readings_and_ends_with_0() {
    let (status, output) = forebay::run(["demo", "--once"]);
    assert_eq!(status.code(), Some(0), "{output}");
    let celsius = output.lines().filter(|line| line.contains("\"C\"") || line.contains("°C")).count();
    assert!(celsius >= 10, "ten readings in Celsius are shown:\n{output}");
}

#[test]
fn validate_passes_the_samples_with_0() {
    let (status, output) = forebay::run(["validate", "-f", "config/samples/fahrenheit.yaml"]);
    assert_eq!(status.code(), Some(0), "{output}");
}

#[test]
fn validate_names_file_line_and_key_of_an_unknown_field_and_ends_with_1() {
    let text = dataflow_graph("typo", "registry", "graph:1.0.0", "in", "out").replace("  mode:", "  moed:");
    let line = text.lines().position(|line| line.contains("moed")).unwrap() + 1;
    let endpoint = registry_endpoint("registry", ([127, 0, 0, 1], 5000).into());
    let resources = Resources::default().with("graph.yaml", &text).with("registry.yaml", &endpoint);
    let (status, output) = forebay::run(["validate".as_ref(), "-f".as_ref(), resources.path().as_os_str()]);
    assert_eq!(status.code(), Some(1), "{output}");
    let place = format!("graph.yaml:{line}:");
    let found = output.lines().find(|line| line.contains("moed")).expect("a line about it");
    assert!(found.contains(&place) && found.contains("error"), "{output}");
    assert_eq!(
        output.lines().filter(|line| line.contains(": error: ")).count(),
        1,
        "one line, one finding:\n{output}"
    );
}

#[test]
fn validate_reports_what_is_accepted_but_not_yet_in_effect_and_still_ends_with_0() {
    let broker = "apiVersion: mqttbroker.iotoperations.azure.com/v1\nkind: Broker\nmetadata:\n  name: default\n\
        spec:\n  diagnostics:\n    traces:\n      mode: Enabled\n";
    let resources = Resources::default().with("broker.yaml", broker);
    let (status, output) = forebay::run(["validate".as_ref(), "-f".as_ref(), resources.path().as_os_str()]);
    assert_eq!(status.code(), Some(0), "{output}");
    assert!(
        output.contains("note: `spec.diagnostics.traces` is accepted, but not yet in effect"),
        "{output}"
    );
}

#[test]
fn validate_finds_references_to_what_is_not_there() {
    let text = dataflow_graph("lonely", "nowhere", "graph:1.0.0", "in", "out");
    let resources = Resources::default().with("graph.yaml", &text);
    let (status, output) = forebay::run(["validate".as_ref(), "-f".as_ref(), resources.path().as_os_str()]);
    assert_eq!(status.code(), Some(1), "{output}");
    assert!(output.contains("nowhere"), "{output}");
}

#[test]
fn an_address_off_loopback_needs_an_explicit_word() {
    let (status, output) = forebay::run(["serve", "--listen", "0.0.0.0:0"]);
    assert_eq!(status.code(), Some(1), "{output}");
    assert!(output.contains("--allow-anonymous"), "{output}");
}
