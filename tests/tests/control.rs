//! `forebay apply`, `get`, `describe`, `delete`, `diff`, `events` and `logs` against a running broker.
#![allow(clippy::expect_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use forebay_tests::forebay::{self, Forebay, Serve};
use forebay_tests::mqtt::{Client, Connect};
use forebay_tests::operators;
use forebay_tests::place::{celsius, value};
use forebay_tests::registry::Registry;
use forebay_tests::resources::{Resources, dataflow_graph, registry_endpoint, secret};
use forebay_tests::wait;
use serde_json::Value;
use tempfile::TempDir;

struct World {
    broker: Forebay,
    resources: Resources,
    data: TempDir,
    texts: TempDir,
    _registry: Registry,
}

impl World {
    fn new() -> Self {
        let registry = operators::sample_registry();
        let resources =
            Resources::default().with("registry.yaml", &registry_endpoint("registry", registry.addr));
        let data = TempDir::new().expect("a directory");
        let broker = Serve::new().data_dir(data.path()).resources(&resources).start();
        let texts = TempDir::new().expect("a directory");
        Self { broker, resources, data, texts, _registry: registry }
    }

    /// Runs a command against the broker; its exit code, and what it printed.
    fn run(&self, arguments: &[&str]) -> (i32, String) {
        let place = self.data.path().display().to_string();
        let (status, output) = forebay::run([arguments, &["--data-dir", &place]].concat());
        (status.code().expect("an exit code"), output)
    }

    fn text(&self, text: &str) -> String {
        let path = self.texts.path().join("it.yaml");
        fs::write(&path, text).expect("a file can be written");
        path.display().to_string()
    }

    fn apply(&self, text: &str) -> (i32, String) {
        self.run(&["apply", "-f", &self.text(text)])
    }

    fn wait_for(&self, what: &[&str], text: &str) -> String {
        wait::until(text, || {
            let (_, output) = self.run(what);
            if output.contains(text) { Ok(output) } else { Err(output) }
        })
    }
}

fn graph(to: &str) -> String {
    dataflow_graph("line", "registry", "graph-simple:1.0.0", "raw", to)
}

fn comes(broker: &Forebay, topic: &str) {
    let mut client = Client::connect(broker.addr, &Connect::v5("watch"));
    client.subscribe(topic, 1);
    Client::connect(broker.addr, &Connect::v5("publisher")).publish("raw", 1, &celsius(4));
    assert_eq!(value(&client.receive().payload), 4);
}

#[test]
fn paths_in_what_is_applied_are_those_of_the_file_that_it_came_from() {
    let world = World::new();
    let (code, output) = world.run(&["apply", "-f", "config/samples/fahrenheit.yaml"]);
    assert_eq!(code, 0, "{output}");
    world.wait_for(&["get", "graphs", "fahrenheit"], "Available");
    let (_, shown) = world.run(&["get", "registries", "samples", "-o", "yaml"]);
    assert!(shown.contains("config/samples/registry") && shown.contains("oci-layout:/"), "{shown}");
}

#[test]
fn a_graph_is_applied_shown_changed_and_deleted() {
    let world = World::new();
    assert_eq!(world.apply(&graph("first")), (0, "dataflowgraph/line created".to_owned()));
    world.wait_for(&["get", "graphs"], "Available");
    comes(&world.broker, "first");
    assert_eq!(world.apply(&graph("first")).1, "dataflowgraph/line unchanged");
    let (code, diff) = world.run(&["diff", "-f", &world.text(&graph("second"))]);
    assert!(
        code == 1 && diff.contains("dataDestination: first\n+") && diff.contains("dataDestination: second"),
        "{code} {diff}"
    );
    assert_eq!(world.apply(&graph("second")).1, "dataflowgraph/line configured");
    assert_eq!(world.run(&["diff", "-f", &world.text(&graph("second"))]), (0, String::new()));
    wait::until("it changed", || {
        let output = world.broker.output();
        output.contains("raw → second").then_some(()).ok_or(output)
    });
    comes(&world.broker, "second");

    let (code, json) = world.run(&["get", "graph", "line", "-o", "json"]);
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((code, &json["status"]["conditions"][0]["status"]), (0, &Value::from("True")));
    assert_eq!(json["status"]["healthState"]["status"], "Available");
    // What `get` prints can be applied again.
    let (_, yaml) = world.run(&["get", "graph", "line", "-o", "yaml"]);
    assert_eq!(world.run(&["diff", "-f", &world.text(&yaml)]).0, 0, "{yaml}");
    let (code, told) = world.run(&["describe", "graph", "line"]);
    for part in ["Name:       line", "Health:     Available", "dataDestination: second", "Events:"] {
        assert!(code == 0 && told.contains(part), "{part} in {told}");
    }
    assert!(world.run(&["events"]).1.contains("dataflowgraph/line"));
    assert!(world.run(&["logs", "line"]).1.contains("graph=\"line\""), "{}", world.run(&["logs"]).1);
    assert!(world.run(&["get", "all", "-o", "wide"]).1.contains("registry.yaml"));

    assert_eq!(
        world.run(&["delete", "graph", "line", "--dry-run"]).1,
        "dataflowgraph/line deleted (dry run)"
    );
    assert_eq!(world.run(&["delete", "graph", "line"]), (0, "dataflowgraph/line deleted".to_owned()));
    wait::until("it stopped", || {
        let output = world.broker.output();
        output.contains("graph line: stopped, gone").then_some(()).ok_or(output)
    });
    let (code, said) = world.run(&["delete", "graph", "line"]);
    assert!(code == 1 && said.contains("there is no DataflowGraph `line`"), "{said}");
}

#[test]
fn what_is_wrong_changes_nothing_and_is_told() {
    let world = World::new();
    world.apply(&graph("first"));
    let files = || {
        let all = fs::read_dir(world.resources.path()).expect("a directory").flatten();
        let mut all: Vec<_> =
            all.map(|entry| (entry.file_name(), fs::read(entry.path()).expect("a file"))).collect();
        all.sort();
        all
    };
    let before = files();
    let wrong = graph("second").replace("registryEndpointRef: registry", "registryEndpointRef: nowhere");
    let both = format!("{}---\n{wrong}", secret("fine", &[("a", "b")]));
    let (code, said) = world.apply(&both);
    assert!(code == 1 && said.contains("nowhere"), "{said}");
    assert_eq!(files(), before, "all or nothing");
    for (text, says) in [
        ("kind: [", "bracket"),
        ("a: 1\n", "no `kind`"),
        ("", "no resource"),
        ("apiVersion: v1\nkind: Secret\nmetadata: {name: ../../../etc/passwd}\n", "name"),
    ] {
        let (code, said) = world.apply(text);
        assert!(code == 1 && said.to_lowercase().contains(says), "{text}: {said}");
    }
    assert_eq!(world.run(&["apply", "--dry-run", "-f", &world.text(&graph("second"))]).0, 0);
    assert_eq!(files(), before);
    // What stands with others in a file of the user's is changed there.
    let two = format!("{}---\n{}", secret("one", &[("a", "b")]), secret("two", &[("a", "b")]));
    fs::write(world.resources.file("both.yaml"), two).expect("a file can be written");
    let (code, said) = world.apply(&secret("one", &[("a", "c")]));
    assert!(code == 1 && said.contains("both.yaml with 1 others"), "{said}");
    assert_eq!(world.run(&["get", "nonsense"]).0, 1);
    assert_eq!(world.run(&["get", "graph", "nobody"]).0, 1);
    assert_eq!(world.run(&["diff", "-f", "/nowhere/at/all.yaml"]).0, 2);
}

#[test]
fn secrets_are_written_for_the_owner_only_and_never_shown() {
    let world = World::new();
    assert_eq!(world.apply(&secret("login", &[("password", "open sesame")])).0, 0);
    let file = world.resources.file("secret.azure-iot-operations.login.yaml");
    assert_eq!(fs::metadata(&file).expect("the file is there").permissions().mode() & 0o777, 0o600);
    for what in [&["get", "secret", "login", "-o", "yaml"][..], &["describe", "secret", "login"]] {
        let (_, shown) = world.run(what);
        assert!(shown.contains("<hidden>") && !shown.contains("sesame"), "{shown}");
    }
    let other = world.text(&secret("login", &[("password", "another")]));
    let (code, diff) = world.run(&["diff", "-f", &other]);
    assert!(code == 1 && diff.contains("another one") && !diff.contains("sesame"), "{diff}");
    let socket = world.data.path().join("forebay.sock");
    assert_eq!(fs::metadata(socket).expect("a socket").permissions().mode() & 0o777, 0o600);
}

#[test]
fn bodies_of_azure_resource_manager_are_taken_as_they_are() {
    let world = World::new();
    let spec = serde_json::json!({
        "profileRef": null, "mode": "Enabled",
        "nodes": [
            {"nodeType": "Source", "name": "s", "sourceSettings": {"endpointRef": "default", "dataSources": ["raw"]}},
            {"nodeType": "Graph", "name": "g", "graphSettings": {"registryEndpointRef": "registry", "artifact": "graph-simple:1.0.0"}},
            {"nodeType": "Destination", "name": "d", "destinationSettings": {"endpointRef": "default", "dataDestination": "arm"}},
        ],
        "nodeConnections": [{"from": {"name": "s"}, "to": {"name": "g"}}, {"from": {"name": "g"}, "to": {"name": "d"}}],
    });
    let mut spec = spec;
    spec.as_object_mut().expect("an object").remove("profileRef");
    let body = serde_json::json!({
        "type": "Microsoft.IoTOperations/instances/dataflowProfiles/dataflowGraphs",
        "name": "my-instance/default/by-arm",
        "extendedLocation": {"name": "somewhere", "type": "CustomLocation"},
        "properties": spec,
    });
    let (code, said) = world.apply(&body.to_string());
    assert_eq!((code, said.lines().next()), (0, Some("dataflowgraph/by-arm created")), "{said}");
    world.wait_for(&["get", "graph", "by-arm"], "Available");
    comes(&world.broker, "arm");
}

#[test]
fn without_a_broker_the_commands_say_where_one_should_be() {
    let nowhere = TempDir::new().expect("a directory");
    let place = nowhere.path().display().to_string();
    let (status, said) = forebay::run(["get", "graphs", "--data-dir", &place]);
    assert!(
        !status.success() && said.contains("no broker answers on") && said.contains("forebay.sock"),
        "{said}"
    );
    let (status, said) = forebay::run(["get", "graphs"]);
    assert!(!status.success() && said.contains("--data-dir"), "{said}");
    assert!(Path::new(&place).exists());
}
