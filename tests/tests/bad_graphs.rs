//! Graphs, components, registries and files that are wrong: each is named clearly and counted, while a second client's
//! traffic and another graph go on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use forebay_tests::artifact::{Artifact, Shape};
use forebay_tests::bystander::Bystander;
use forebay_tests::forebay::{Forebay, Serve};
use forebay_tests::mqtt::{Client, Connect};
use forebay_tests::registry::{self, Registry};
use forebay_tests::resources::{
    Resources, configured, dataflow_graph, documents, map_graph, registry_endpoint, with_parameters,
};
use forebay_tests::{metric, operators, wait};

/// The healthy graph, and a registry that faulty things are pushed to.
struct House {
    registry: Registry,
}

impl House {
    fn new() -> Self {
        Self { registry: operators::sample_registry() }
    }

    /// Starts a broker with the healthy graph and `more` documents; `registry` names the registry in them.
    fn start(&self, more: &[String]) -> Forebay {
        let healthy = dataflow_graph(
            "healthy",
            "registry",
            "graph-simple:1.0.0",
            "sensor/temperature/raw",
            "sensor/temperature/processed",
        );
        let mut all = vec![registry_endpoint("registry", self.registry.addr), healthy];
        all.extend_from_slice(more);
        let resources = Resources::default().with("all.yaml", &documents(&all));
        let broker = Serve::new().resources(&resources).start_unready();
        let mut bystander = Client::connect(broker.addr, &Connect::v4("early"));
        bystander.subscribe("early", 0);
        bystander.publish("early", 0, b"plain traffic waits for no graph");
        bystander.receive();
        // The healthy graph's own life does not depend on the faulty one's.
        broker.wait_metric(metric::RUNNING, &[], 1.0);
        broker
    }

    /// Pushes a graph with one map of `component`, and returns the resource that runs it from `faulty/in`.
    fn faulty(&self, component: Vec<u8>) -> String {
        let definition = map_graph("faulty/map", "faulty:1.0.0");
        self.registry.push("faulty-graph", "1.0.0", &Artifact::new(Shape::Graph, "graph.yaml", definition));
        self.registry.push("faulty", "1.0.0", &Artifact::new(Shape::Module, "faulty.wasm", component));
        faulty_graph("registry", "faulty-graph:1.0.0")
    }
}

fn faulty_graph(registry: &str, artifact: &str) -> String {
    dataflow_graph("faulty", registry, artifact, "faulty/in", "faulty/out")
}

/// Waits until the broker has said something that holds all of `parts` on one line.
fn says(broker: &mut Forebay, parts: &[&str]) {
    broker
        .process
        .line(&format!("one line says {parts:?}"), |line| parts.iter().all(|part| line.contains(part)));
}

#[test]
fn a_payload_that_is_no_json_is_dropped_counted_and_explained() {
    let house = House::new();
    let mut broker = house.start(&[]);
    broker.wait_ready();
    let mut bystander = Bystander::new(&broker);
    let mut client = Client::connect(broker.addr, &Connect::v5("client"));
    for (n, payload) in
        [b"not json".as_slice(), b"", b"\xFF\xFE", b"{\"temperature\":", b"[1,2]"].iter().enumerate()
    {
        client.publish("sensor/temperature/raw", 1, payload);
        broker.wait_metric(metric::PROCESSING_ERRORS, &[], (n + 1) as f64);
        bystander.goes_on();
    }
    says(&mut broker, &["healthy", "module-temperature/map", "Failed to parse payload as JSON"]);
}

/// A house with a graph whose component has this fault, with these annotations of `forebay.dev/`.
fn faulty(fault: &str, value: &str, annotations: &str) -> (House, String) {
    let house = House::new();
    let definition =
        with_parameters(&map_graph("faulty/map", "faulty:1.0.0"), "faulty/map", &["fault", "value"]);
    house.registry.push("faulty-graph", "1.0.0", &Artifact::new(Shape::Graph, "graph.yaml", definition));
    let component = Artifact::new(Shape::Module, "faulty.wasm", operators::component("faults"));
    house.registry.push("faulty", "1.0.0", &component);
    let graph = faulty_graph("registry", "faulty-graph:1.0.0");
    let graph = configured(&graph, &[("fault", fault), ("value", value)]);
    let annotations = format!("  name: faulty\n  annotations: {{forebay.dev/{annotations}}}\n");
    (house, graph.replace("  name: faulty\n", &annotations))
}

/// A component that misbehaves with one message: the instance ends, nobody else notices, and the next message finds a new
/// instance.
fn misbehaves(fault: &str, words: &[&str]) {
    let (house, graph) = faulty(fault, "poison", "call-deadline: 6s");
    let mut broker = house.start(&[graph]);
    broker.wait_ready();
    let mut bystander = Bystander::new(&broker);
    let mut client = Client::connect(broker.addr, &Connect::v5("client"));
    for round in 1..=2 {
        carries(&broker);
        client.publish("faulty/in", 0, b"poison");
        bystander.goes_on();
        broker.wait_metric(metric::MODULE_EXITS, &["faulty"], f64::from(round));
        broker.wait_metric(metric::PROCESSING_ERRORS, &["faulty"], f64::from(round));
        bystander.goes_on();
    }
    carries(&broker);
    // Whoever had to wait for the call to be ended would have waited for its deadline.
    assert!(bystander.worst() < Duration::from_secs(3), "{:?}", bystander.worst());
    says(&mut broker, &[&["faulty", "faulty/map"], words].concat());
}

/// Publishes until a message comes through the faulty graph: after a crash its operator takes none for a moment, and a
/// graph that was slow answers from a thread of its own.
fn carries(broker: &Forebay) {
    let mut client = Client::connect(broker.addr, &Connect::v5("carrier"));
    client.subscribe("faulty/out", 0);
    client.subscribe("marker", 0);
    wait::until("the faulty graph carries good messages", || {
        client.publish("faulty/in", 0, b"good");
        client.publish("marker", 0, b"");
        let mut good = false;
        loop {
            match client.receive().topic.as_str() {
                "marker" if good => return Ok(()),
                "marker" => return Err("none came yet".to_owned()),
                _ => good = true,
            }
        }
    });
}

#[test]
fn a_component_that_traps_loses_the_message_and_gets_a_new_instance() {
    misbehaves("trap", &["trapped"]);
}

#[test]
fn a_component_that_loops_for_ever_is_stopped_by_its_deadline() {
    misbehaves("loop", &["deadline"]);
}

#[test]
fn a_component_that_allocates_without_end_meets_its_memory_limit() {
    misbehaves("allocate", &["memory limit"]);
}

#[test]
fn a_graph_that_was_slow_comes_back_while_more_comes_than_it_can_take() {
    let (house, graph) = faulty("spin", "payload", "call-deadline: 6s, forebay.dev/inline-budget: 5ms");
    let mut broker = house.start(&[graph]);
    broker.wait_ready();
    carries(&broker);
    let over = Arc::new(AtomicBool::new(false));
    let open_taps: Vec<_> = ["one", "two"]
        .map(|name| {
            let (addr, over) = (broker.addr, Arc::clone(&over));
            thread::spawn(move || {
                let mut client = Client::connect(addr, &Connect::v5(name));
                let messages = client.publish_bytes("faulty/in", 0, false, &[], b"good").repeat(500);
                while !over.load(Ordering::Relaxed) {
                    client.send(&messages);
                }
            })
        })
        .into();
    let mut client = Client::connect(broker.addr, &Connect::v5("client"));
    client.publish("faulty/in", 1, b"200");
    says(&mut broker, &["the graph is slow", "faulty"]);
    says(&mut broker, &["the graph is fast again", "faulty"]);
    over.store(true, Ordering::Relaxed);
    open_taps.into_iter().for_each(|tap| tap.join().expect("it is read to the end"));
    client.settle();
}

/// A graph that cannot start: said, counted, and the healthy one runs.
fn does_not_start(house: &House, graph: &[String], words: &[&str]) {
    let mut broker = house.start(graph);
    says(&mut broker, words);
    broker.wait_metric(metric::GRAPH_ERRORS, &[], 1.0);
    let mut bystander = Bystander::new(&broker);
    bystander.goes_on();
}

#[test]
fn a_file_that_is_no_component_is_named_as_such() {
    for bytes in [b"this is not WebAssembly".to_vec(), b"\0asm\x01\0\0\0".to_vec(), Vec::new()] {
        let house = House::new();
        let graph = house.faulty(bytes);
        does_not_start(&house, &[graph], &["faulty:1.0.0", "component"]);
    }
}

#[test]
fn a_component_cut_short_is_named_as_such() {
    let house = House::new();
    let mut component = operators::component("temperature");
    component.truncate(component.len() / 2);
    let graph = house.faulty(component);
    does_not_start(&house, &[graph], &["faulty:1.0.0", "component"]);
}

#[test]
fn a_graph_with_a_cycle_is_refused_with_its_operations_named() {
    let house = House::new();
    let definition = map_graph("first", "temperature:1.0.0").replace(
        "  - operationType: sink",
        "  - operationType: map\n    name: second\n    module: temperature:1.0.0\n  - operationType: sink",
    ) + "  - from: {name: first}\n    to: {name: second}\n  - from: {name: second}\n    to: {name: first}\n";
    house.registry.push("cyclic", "1.0.0", &Artifact::new(Shape::Graph, "graph.yaml", definition));
    does_not_start(&house, &[faulty_graph("registry", "cyclic:1.0.0")], &["first", "second", "cycle"]);
}

#[test]
fn a_graph_definition_with_an_unknown_field_is_refused_with_the_field_and_line_named() {
    let house = House::new();
    let definition = map_graph("first", "temperature:1.0.0").replace("    module:", "    modlue:");
    let line = definition.lines().position(|line| line.contains("modlue")).unwrap() + 1;
    house.registry.push("typo", "1.0.0", &Artifact::new(Shape::Graph, "graph.yaml", definition));
    let place = format!(":{line}:");
    does_not_start(&house, &[faulty_graph("registry", "typo:1.0.0")], &["modlue", &place]);
}

#[test]
fn a_resource_with_an_unknown_field_is_refused_with_the_field_named() {
    let house = House::new();
    let graph = faulty_graph("registry", "graph-simple:1.0.0")
        .replace("  mode: Enabled", "  mode: Enabled\n  modus: x");
    let mut broker = house.start(&[graph]);
    says(&mut broker, &["all.yaml:", "error", "modus"]);
    broker.wait_metric(metric::RESOURCE_ERRORS, &[], 1.0);
    Bystander::new(&broker).goes_on();
}

#[test]
fn an_artifact_whose_bytes_are_not_those_of_its_digest_is_refused() {
    let house = House::new();
    // A component of its own: the healthy graph's is not touched.
    let mut component = operators::component("temperature");
    // An empty custom section changes the digest and nothing else.
    component.extend_from_slice(&[0, 1, 0]);
    let graph = house.faulty(component.clone());
    house.registry.tamper(&component);
    does_not_start(&house, &[graph], &["faulty:1.0.0", "digest"]);
}

#[test]
fn an_artifact_that_is_not_there_is_named() {
    let house = House::new();
    does_not_start(&house, &[faulty_graph("registry", "nothing:9.9.9")], &["nothing:9.9.9", "not"]);
}

#[test]
fn an_unreachable_registry_is_named_and_holds_nobody_up() {
    let house = House::new();
    let addr = registry::unreachable();
    does_not_start(&house, &elsewhere(addr), &[&addr.to_string(), "graph-simple:1.0.0"]);
}

#[test]
fn a_stalled_registry_is_given_up_and_holds_nobody_up() {
    let house = House::new();
    let addr = registry::stalled();
    does_not_start(&house, &elsewhere(addr), &[&addr.to_string(), "graph-simple:1.0.0"]);
}

/// A graph from a second registry.
fn elsewhere(addr: SocketAddr) -> [String; 2] {
    [registry_endpoint("elsewhere", addr), faulty_graph("elsewhere", "graph-simple:1.0.0")]
}
