//! New content under a tag takes its place while messages pass, and the version before can be had back.
#![allow(clippy::expect_used, clippy::panic)]

use forebay_tests::artifact::{Artifact, Shape};
use forebay_tests::forebay::{self, Forebay, Serve};
use forebay_tests::mqtt::{Client, Connect};
use forebay_tests::operators;
use forebay_tests::registry::Registry;
use forebay_tests::resources::{Resources, dataflow_graph, documents, map_graph, registry_endpoint};
use forebay_tests::wait;
use serde_json::{Value, json};
use tempfile::TempDir;

/// One map operation: of the temperature module, or of one whose output differs.
fn push(registry: &Registry, operation: &str, module: &str) {
    registry.push("line", "1.0.0", &Artifact::new(Shape::Graph, "graph.yaml", map_graph(operation, module)));
}

struct World {
    broker: Forebay,
    registry: Registry,
    data: TempDir,
    _resources: Resources,
}

impl World {
    fn new(poll: &str) -> Self {
        let registry = operators::sample_registry();
        push(&registry, "module-temperature/map", "temperature:1.0.0");
        let opc = Artifact::new(Shape::Module, "opc-ua.wasm", operators::component("opc-ua"));
        registry.push("opc-ua", "1.0.0", &opc);
        let graph = dataflow_graph("line", "registry", "line:1.0.0", "raw", "cooked");
        let all = documents(&[registry_endpoint("registry", registry.addr), graph]);
        let resources = Resources::default().with("all.yaml", &all);
        let data = TempDir::new().expect("a directory");
        let serve = Serve::new().data_dir(data.path()).resources(&resources);
        let broker = serve.options(&["--registry-poll", poll]).start();
        Self { broker, registry, data, _resources: resources }
    }

    fn run(&self, arguments: &[&str]) -> (i32, String) {
        let place = self.data.path().display().to_string();
        let (status, output) = forebay::run([arguments, &["--data-dir", &place]].concat());
        (status.code().expect("an exit code"), output)
    }

    fn digest(&self) -> String {
        let json = self.run(&["get", "graph", "line", "-o", "json"]).1;
        let json: Value = serde_json::from_str(&json).expect("JSON");
        json["status"]["artifacts"][0]["digest"].as_str().expect("a digest").to_owned()
    }

    /// What becomes of 212 °F.
    fn cooked(&self) -> Value {
        let mut client = Client::connect(self.broker.addr, &Connect::v5("watch"));
        client.subscribe("cooked", 1);
        let mut publisher = Client::connect(self.broker.addr, &Connect::v5("publisher"));
        publisher.publish(
            "raw",
            1,
            json!({"temperature": {"value": 212.0, "unit": "F"}}).to_string().as_bytes(),
        );
        serde_json::from_slice(&client.receive().payload).expect("JSON")
    }
}

fn is_celsius(cooked: &Value) -> bool {
    cooked["temperature"]["unit"] == "C"
}

#[test]
fn new_content_is_exchanged_refused_and_rolled_back() {
    let world = World::new("0s");
    assert!(is_celsius(&world.cooked()));
    assert_eq!(world.run(&["refresh"]), (0, "graph line: it is the newest".to_owned()));
    let (code, said) = world.run(&["rollback", "line"]);
    assert!(code == 1 && said.contains("no version before"), "{said}");
    let first = world.digest();

    // The opc-ua operator makes a list of rows out of anything: an empty one here.
    push(&world.registry, "module-opc/map", "opc-ua:1.0.0");
    assert_eq!(
        world.run(&["refresh", "line"]),
        (0, "graph line: new content has taken its place".to_owned())
    );
    assert_eq!(world.cooked(), json!([]));
    assert_ne!(world.digest(), first);

    // What cannot be begun leaves what runs.
    push(&world.registry, "module-nowhere/map", "nowhere:9.9.9");
    let (code, said) = world.run(&["refresh", "line"]);
    assert!(code == 1 && said.contains("runs on") && said.contains("nowhere"), "{said}");
    assert_eq!(world.cooked(), json!([]));
    assert!(world.run(&["get", "graph", "line"]).1.contains("Degraded"));

    assert_eq!(
        world.run(&["rollback", "line"]),
        (0, "graph line: the version before has taken its place".to_owned())
    );
    assert!(is_celsius(&world.cooked()));
    assert_eq!(world.digest(), first);
}

#[test]
fn new_content_is_noticed_without_being_asked_and_what_was_given_up_stays_away() {
    let world = World::new("200ms");
    push(&world.registry, "module-opc/map", "opc-ua:1.0.0");
    wait::until("it is noticed", || match world.cooked() {
        cooked if cooked == json!([]) => Ok(()),
        cooked => Err(cooked.to_string()),
    });
    assert_eq!(world.run(&["rollback", "line"]).0, 0);
    let exchanged = || world.broker.metric("forebay_graph_refreshes_total", &["result=\"exchanged\""]);
    let before = exchanged();
    let looked = || world.broker.output().matches("graph line: running").count();
    let begun = looked();
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert_eq!((exchanged(), looked()), (before, begun));
    assert!(is_celsius(&world.cooked()));
}
