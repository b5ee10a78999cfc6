//! Graphs follow their resources while the broker runs: they start, change places, stop, and lose nothing.
#![allow(clippy::expect_used, clippy::panic)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use forebay_tests::forebay::{Forebay, Serve};
use forebay_tests::mqtt::{Client, Connect, user_property};
use forebay_tests::operators;
use forebay_tests::place::{celsius, value, wait_reason};
use forebay_tests::registry::Registry;
use forebay_tests::resources::{Resources, dataflow_graph, persisted, registry_endpoint};
use rustix::process::Signal;
use tempfile::TempDir;

const PASS: &str = "graph-simple:1.0.0";

/// A broker with a directory of resources that changes.
struct World {
    broker: Forebay,
    resources: Resources,
    data: TempDir,
    _registry: Registry,
}

impl World {
    fn new(graphs: &[(&str, String)]) -> Self {
        let registry = operators::sample_registry();
        let mut resources =
            Resources::default().with("registry.yaml", &registry_endpoint("registry", registry.addr));
        for (file, graph) in graphs {
            resources = resources.with(file, graph);
        }
        let data = TempDir::new().expect("a directory");
        let broker = Serve::new().data_dir(data.path()).resources(&resources).start();
        Self { broker, resources, data, _registry: registry }
    }

    fn write(&self, file: &str, text: &str) {
        std::fs::write(self.resources.file(file), text).expect("a file can be written");
        self.reload();
    }

    fn remove(&self, file: &str) {
        std::fs::remove_file(self.resources.file(file)).expect("the file is there");
        self.reload();
    }

    fn reload(&self) {
        self.broker.process.signal(Signal::HUP);
    }

    fn says(&mut self, text: &str) {
        self.broker.process.says(text);
    }
}

fn graph(name: &str, to: &str) -> String {
    dataflow_graph(name, "registry", PASS, "raw", to)
}

/// Publishes one reading, and waits until it comes on this topic.
fn comes(broker: &Forebay, topic: &str, reading: u32) {
    let mut client = Client::connect(broker.addr, &Connect::v5("watch"));
    client.subscribe(topic, 1);
    Client::connect(broker.addr, &Connect::v5("publisher")).publish("raw", 1, &celsius(reading));
    assert_eq!(value(&client.receive().payload), reading);
}

/// Publishes one reading, of which nothing comes on this topic.
fn is_silent(broker: &Forebay, topic: &str) {
    let mut client = Client::connect(broker.addr, &Connect::v5("watch"));
    client.subscribe(topic, 1);
    Client::connect(broker.addr, &Connect::v5("publisher")).publish("raw", 1, &celsius(1));
    client.settle();
}

#[test]
fn graphs_start_change_and_stop_with_their_files() {
    let mut world = World::new(&[("stays.yaml", graph("stays", "stays"))]);
    comes(&world.broker, "stays", 1);
    world.write("one.yaml", &graph("one", "first"));
    world.says("graph one: running, raw → first");
    comes(&world.broker, "first", 2);
    world.write("one.yaml", &graph("one", "second"));
    world.says("graph one: running, raw → second");
    comes(&world.broker, "second", 3);
    is_silent(&world.broker, "first");
    world.write("one.yaml", &graph("one", "second").replace("mode: Enabled", "mode: Disabled"));
    world.says("graph one: stopped, disabled");
    is_silent(&world.broker, "second");
    world.write("one.yaml", &graph("one", "third"));
    world.says("graph one: running, raw → third");
    comes(&world.broker, "third", 4);
    world.remove("one.yaml");
    world.says("graph one: stopped, gone");
    is_silent(&world.broker, "third");
    // The other one was left alone.
    comes(&world.broker, "stays", 5);
    let begun = world.broker.output().matches("graph stays: running").count();
    assert_eq!(begun, 1, "{}", world.broker.output());
}

#[test]
fn what_cannot_run_leaves_the_one_that_runs() {
    let mut world = World::new(&[("one.yaml", graph("one", "first"))]);
    world.write("one.yaml", &graph("one", "second").replace(PASS, "not-there:1.0.0"));
    world.says("graph one: goes on as it was");
    comes(&world.broker, "first", 1);
    let why = wait_reason(&world.broker, "one", "DataflowGraphConfigurationFailed");
    assert!(why.contains("runs as it was") && why.contains("not-there"), "{why}");
    world.write("one.yaml", "kind: DataflowGraph\n");
    comes(&world.broker, "first", 2);
    world.write("one.yaml", &graph("one", "second").replace("endpointRef: default", "endpointRef: nowhere"));
    world.says("nowhere");
    comes(&world.broker, "first", 3);
    world.write("one.yaml", &graph("one", "second"));
    world.says("graph one: running, raw → second");
    comes(&world.broker, "second", 4);
    is_silent(&world.broker, "first");
}

#[test]
fn a_persisted_graph_loses_and_doubles_nothing_when_it_changes() {
    let version = |number: u32| {
        persisted(&graph("kept", "cooked")).replace(
            "  name: kept\n",
            &format!("  name: kept\n  annotations: {{forebay.dev/log-limit: \"{number}\"}}\n"),
        )
    };
    let mut world = World::new(&[("kept.yaml", version(100))]);
    let asks = user_property("aio-persistence", "true");
    let lasting = Connect::v5("here").resume().session_expiry(u32::MAX).property(&asks);
    Client::connect(world.broker.addr, &lasting).subscribe("cooked", 1);
    let done = AtomicBool::new(false);
    let addr = world.broker.addr;
    let sent = thread::scope(|scope| {
        let publisher = scope.spawn(|| {
            let mut client = Client::connect(addr, &Connect::v5("publisher"));
            let mut next = 0;
            while !done.load(Ordering::Acquire) {
                client.publish("raw", 1, &celsius(next));
                next += 1;
            }
            next
        });
        for number in 1..=8 {
            world.write("kept.yaml", &version(100 + number));
            let printed = usize::try_from(number).expect("a small number") + 1;
            forebay_tests::wait::until("it was exchanged", || {
                let output = world.broker.output();
                let begun = output.matches("graph kept: running").count();
                (begun == printed).then_some(()).ok_or(output)
            });
        }
        done.store(true, Ordering::Release);
        publisher.join().expect("the publisher publishes")
    });
    let mut here = Client::connect(addr, &lasting);
    for expected in 0..sent {
        assert_eq!(value(&here.receive().payload), expected);
    }
    here.settle();

    // Disabled, it keeps what it has; gone, it keeps nothing.
    world.write("kept.yaml", &version(1).replace("mode: Enabled", "mode: Disabled"));
    world.says("graph kept: stopped, disabled");
    world.write("kept.yaml", &version(2));
    forebay_tests::wait::until("it runs again", || {
        let output = world.broker.output();
        (output.matches("graph kept: running").count() == 10).then_some(()).ok_or(output)
    });
    Client::connect(addr, &Connect::v5("publisher")).publish("raw", 1, &celsius(7));
    assert_eq!(value(&here.receive().payload), 7);
    world.remove("kept.yaml");
    world.says("graph kept: stopped, gone");
    let stored = forebay_tests::forebay::run(["store", "stats", &world.data.path().display().to_string()]);
    drop(stored);
}
