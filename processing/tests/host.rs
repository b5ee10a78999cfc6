//! Operators built from source, in the real host: each limit obeyed, and violated.
//!
//! `processing/operators/build` makes the components that are used here.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use processing::host::{Host, Options};
use processing::limits::Limits;
use processing::module::Modules;
use processing::runtime::{GraphError, GraphRuntime};
use processing_core::engine::{Cause, Outlet};
use processing_core::graph::{
    Arm, Connection, Definition, Graph, Kind, ModuleConfiguration, Operation, Parameter,
};
use processing_core::item::{Data, Item, Message};
use processing_core::operator::OperatorError;
use processing_core::time::Hlc;

const FAHRENHEIT: &str = r#"{"temperature":{"value":212.0,"unit":"F"}}"#;

fn component(name: &str) -> Bytes {
    let path = format!("{}/operators/target/components/{name}.wasm", env!("CARGO_MANIFEST_DIR"));
    Bytes::from(
        std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}; run processing/operators/build")),
    )
}

/// A chain of operations of one module, with what they are configured with.
fn chain(kinds: &[Kind]) -> Graph {
    let names: Vec<String> =
        kinds.iter().enumerate().map(|(at, kind)| format!("{}{at}", kind.as_str())).collect();
    let operations = names.iter().zip(kinds).map(|(name, &kind)| Operation {
        name: name.clone(),
        kind,
        module: kind.has_module().then(|| "module".to_owned()),
    });
    let connections =
        names.windows(2).map(|pair| Connection { from: pair[0].clone(), arm: None, to: pair[1].clone() });
    let parameter =
        |name: &str| (name.to_owned(), Parameter { name: name.to_owned(), required: false, default: None });
    let configurations = names.iter().zip(kinds).filter(|(_, kind)| kind.has_module()).map(|(name, _)| {
        ModuleConfiguration { name: name.clone(), parameters: vec![parameter("fault"), parameter("value")] }
    });
    Graph::check(Definition {
        name: "test".to_owned(),
        operations: operations.collect(),
        connections: connections.collect(),
        module_configurations: configurations.collect(),
        features: Vec::new(),
    })
    .unwrap()
}

fn start_with(
    host: Host,
    graph: Graph,
    bytes: Bytes,
    settings: &[(&str, &str)],
    limits: &Limits,
) -> Result<GraphRuntime<u32>, GraphError> {
    let settings: Vec<_> = settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let modules = HashMap::from([("module".to_owned(), bytes)]);
    GraphRuntime::start(&Modules::new(host, None), graph, &modules, "test", &settings, limits)
}

fn host() -> Host {
    Host::new(Options::default()).unwrap()
}

fn faults(fault: &str, value: &str, limits: &Limits) -> GraphRuntime<u32> {
    let graph = chain(&[Kind::Source, Kind::Map, Kind::Sink]);
    start_with(host(), graph, component("faults"), &[("fault", fault), ("value", value)], limits).unwrap()
}

fn message(payload: impl Into<Bytes>) -> Message {
    let text = |text: &'static str| Bytes::from_static(text.as_bytes());
    Message {
        topic: text("sensor/temperature/raw"),
        content_type: Some(text("application/json")),
        payload: payload.into(),
        user_properties: vec![(text("line"), text("1")), (text("line"), text("2"))],
        ..Message::empty(Hlc { secs: 1, nanos: 2, counter: 3, node: "node".into() })
    }
}

fn item(payload: impl Into<Bytes>) -> Item<u32> {
    let data = message(payload);
    Item { time: data.timestamp.clone(), data: Data::Message(data), carry: 7 }
}

#[derive(Debug, Default)]
struct Seen {
    out: Vec<Message>,
    dropped: Vec<Cause>,
}

impl Outlet<u32> for Seen {
    fn emit(&mut self, _: usize, item: Item<u32>) {
        assert_eq!(item.carry, 7, "what guests do not see goes with the item");
        let Data::Message(message) = item.data else { panic!("a message went in") };
        self.out.push(message);
    }
    fn dropped(&mut self, _: &str, cause: Cause, _: &u32) {
        self.dropped.push(cause);
    }
}

impl Seen {
    fn payload(&self) -> &str {
        let [message] = self.out.as_slice() else { panic!("{self:?}") };
        std::str::from_utf8(&message.payload).unwrap()
    }
    fn error(&self) -> &OperatorError {
        let [Cause::Error(error)] = self.dropped.as_slice() else { panic!("{self:?}") };
        error
    }
}

fn run(graph: &mut GraphRuntime<u32>, payload: impl Into<Bytes>) -> Seen {
    let mut seen = Seen::default();
    graph.push(item(payload), &mut seen);
    seen
}

#[test]
fn fahrenheit_becomes_celsius_and_the_rest_of_the_message_stays() {
    let graph = chain(&[Kind::Source, Kind::Map, Kind::Filter, Kind::Sink]);
    let mut graph = start_with(host(), graph, component("temperature"), &[], &Limits::default()).unwrap();
    let seen = run(&mut graph, FAHRENHEIT);
    assert!(
        seen.payload().contains(r#""value":100.0"#) && seen.payload().contains(r#""unit":"C""#),
        "{seen:?}"
    );
    assert_eq!(seen.out[0], Message { payload: seen.out[0].payload.clone(), ..message("") });
    let hot = run(&mut graph, FAHRENHEIT.replace("212", "99999"));
    assert_eq!(hot.dropped, [Cause::Filtered]);
    let error = run(&mut graph, "no json");
    assert_eq!(error.error(), &OperatorError::Failed("Failed to parse payload as JSON".to_owned()));
}

#[test]
fn branches_take_their_arms() {
    let operation = |name: &str, kind: Kind| Operation {
        name: name.to_owned(),
        kind,
        module: kind.has_module().then(|| "module".to_owned()),
    };
    let connection = |from: &str, arm, to: &str| Connection { from: from.to_owned(), arm, to: to.to_owned() };
    let graph = Graph::check(Definition {
        operations: vec![
            operation("source", Kind::Source),
            operation("is temperature", Kind::Branch),
            operation("celsius", Kind::Map),
            operation("both", Kind::Concatenate),
            operation("sink", Kind::Sink),
        ],
        connections: vec![
            connection("source", None, "is temperature"),
            connection("is temperature", Some(Arm::True), "celsius"),
            connection("is temperature", Some(Arm::False), "both"),
            connection("celsius", None, "both"),
            connection("both", None, "sink"),
        ],
        ..Definition::default()
    })
    .unwrap();
    let mut graph = start_with(host(), graph, component("temperature"), &[], &Limits::default()).unwrap();
    assert!(run(&mut graph, FAHRENHEIT).payload().contains("100.0"));
    let humid = r#"{"humidity":{"value":50.0}}"#;
    assert_eq!(run(&mut graph, humid).payload(), humid);
}

#[test]
fn a_window_of_readings_is_reduced_to_one_when_its_time_is_over() {
    let graph = chain(&[Kind::Source, Kind::Accumulate, Kind::Sink]);
    let mut graph = start_with(host(), graph, component("temperature"), &[], &Limits::default()).unwrap();
    let mut seen = Seen::default();
    for celsius in ["20.0", "24.0"] {
        let payload = format!(r#"{{"temperature":{{"value":{celsius},"unit":"C"}}}}"#);
        graph.push_at(item(payload), 1_000, &mut seen);
    }
    assert_eq!(seen.out.len(), 0);
    let due_ms = graph.due_ms().unwrap();
    graph.advance(due_ms, &mut seen);
    assert_eq!(
        seen.payload(),
        r#"{"temperature":{"count":2,"max":24,"min":20,"average":22,"last":24,"unit":"C"}}"#
    );
    assert_eq!(graph.due_ms(), None);
}

#[test]
fn an_error_of_the_contract_drops_the_message_and_nothing_else() {
    let mut graph = faults("error", "bad", &Limits::default());
    assert_eq!(run(&mut graph, "bad").error(), &OperatorError::Failed("as asked".to_owned()));
    assert_eq!(run(&mut graph, "good").payload(), "good");
}

#[test]
fn a_trap_ends_the_instance_and_another_takes_its_place() {
    let mut graph = faults("trap", "bad", &Limits::default());
    assert_eq!(run(&mut graph, "good").payload(), "good");
    let seen = run(&mut graph, "bad");
    let OperatorError::Trapped { message, .. } = seen.error() else { panic!("{seen:?}") };
    assert!(message.contains("unreachable"), "{message}");
    assert!(matches!(run(&mut graph, "good").error(), OperatorError::Unavailable(_)), "it waits a little");
    comes_back(&mut graph);
}

fn comes_back(graph: &mut GraphRuntime<u32>) {
    let begun = Instant::now();
    while run(graph, "good").out.is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(5), "it does not come back");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_call_that_takes_too_long_is_ended_in_time() {
    let limits = Limits { call_max: Duration::from_millis(100), ..Limits::default() };
    let mut graph = faults("loop", "bad", &limits);
    let begun = Instant::now();
    let seen = run(&mut graph, "bad");
    assert_eq!(seen.error(), &OperatorError::Deadline(Duration::from_millis(100)));
    let took = begun.elapsed();
    assert!((Duration::from_millis(90)..Duration::from_secs(2)).contains(&took), "{took:?}");
    comes_back(&mut graph);
}

#[test]
fn whoever_makes_the_call_is_told_once_it_passes_the_inline_budget() {
    let told = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&told);
    let on_overrun = Some(Arc::new(move || {
        count.fetch_add(1, Ordering::Relaxed);
    }) as processing::host::OnOverrun);
    let host = Host::new(Options { on_overrun, ..Options::default() }).unwrap();
    let graph = chain(&[Kind::Source, Kind::Map, Kind::Sink]);
    let settings = [("fault", "spin"), ("value", "200")];
    let mut graph = start_with(host, graph, component("faults"), &settings, &Limits::default()).unwrap();
    assert_eq!(run(&mut graph, "x").payload(), "x", "the call goes on to its end");
    assert!(told.load(Ordering::Relaxed) > 0);
}

#[test]
fn a_guest_that_wants_more_memory_than_it_may_have_is_ended() {
    let mut graph = faults("allocate", "bad", &Limits::default());
    assert_eq!(run(&mut graph, "bad").error(), &OperatorError::Memory(64 << 20));
    comes_back(&mut graph);
    let limits = Limits { memory_bytes_max: 64 << 10, ..Limits::default() };
    let graph = chain(&[Kind::Source, Kind::Map, Kind::Sink]);
    assert!(start_with(host(), graph, component("faults"), &[], &limits).is_err(), "not even its own memory");
}

#[test]
fn an_operator_that_refuses_its_configuration_does_not_start() {
    let start = |fault| {
        let graph = chain(&[Kind::Source, Kind::Map, Kind::Sink]);
        start_with(host(), graph, component("faults"), &[("fault", fault)], &Limits::default())
    };
    let error = start("refuse").err().unwrap();
    assert_eq!(error.reason_code(), "DataflowGraphInstantiationFailed");
    assert!(error.to_string().contains("init returned false"), "{error}");
    let error = start("init-trap").err().unwrap();
    assert!(error.to_string().contains("map1") && error.to_string().contains("init"), "{error}");
}

#[test]
fn what_is_no_module_is_told_by_what_it_lacks() {
    let error = |bytes: Bytes, kind| {
        let graph = chain(&[Kind::Source, kind, Kind::Sink]);
        start_with(host(), graph, bytes, &[], &Limits::default()).err().unwrap().to_string()
    };
    assert!(error(Bytes::from_static(b"#!/bin/sh"), Kind::Map).contains("no WebAssembly component"));
    assert!(error(Bytes::from_static(b"\0asm\x01\0\0\0"), Kind::Map).contains("core module"));
    let found = error(component("faults"), Kind::Filter);
    assert!(found.contains("wasm-graph:processor/filter@1.1.0"), "{found}");
    assert!(found.contains("wasm-graph:processor/map@1.1.0"), "it says what is there instead: {found}");
}

#[test]
fn a_long_payload_comes_back_as_the_same_bytes_and_not_as_a_copy() {
    let mut graph = faults("", "never this payload", &Limits::default());
    let long = Bytes::from(vec![b'x'; 1 << 20]);
    for _ in 0..3 {
        assert_eq!(run(&mut graph, long.clone()).out[0].payload, long);
    }
}

#[test]
fn handles_do_not_pile_up_over_many_calls() {
    let limits = Limits { handles_max: 16, ..Limits::default() };
    let mut graph = faults("", "never", &limits);
    for _ in 0..1_000 {
        assert_eq!(run(&mut graph, vec![b'x'; 10_000]).out.len(), 1);
    }
}

#[test]
fn a_guest_that_keeps_what_it_is_given_meets_its_handle_limit() {
    let limits = Limits { handles_max: 16, restart_wait_min: Duration::ZERO, ..Limits::default() };
    let mut graph = faults("keep", "", &limits);
    let mut ended = Vec::new();
    for at in 0..100 {
        let seen = run(&mut graph, vec![b'x'; 10_000]);
        if seen.out.is_empty() {
            assert!(seen.error().is_fault(), "{:?}", seen.error());
            ended.push(at);
        }
    }
    assert!((3..=12).contains(&ended.len()), "one in sixteen or so: {ended:?}");
}

#[test]
fn a_guest_sees_nothing_of_the_world() {
    let seen = run(&mut faults("look", "", &Limits::default()), "x");
    assert_eq!(seen.payload(), "environment 0, arguments 0, files false, network false");
}

#[test]
fn log_lines_metrics_and_prints_are_bounded() {
    assert_eq!(run(&mut faults("metrics", "", &Limits::default()), "x").payload(), "Some(1000)");
    let few = Limits { metrics_max: 5, ..Limits::default() };
    assert_eq!(run(&mut faults("metrics", "", &few), "x").payload(), "Some(5)");
    assert_eq!(run(&mut faults("log", "", &Limits::default()), "x").payload(), "x");
    assert_eq!(run(&mut faults("print", "", &Limits::default()), "x").payload(), "x");
}

#[test]
fn an_init_that_fails_is_told_with_the_operation_and_the_module() {
    let graph = chain(&[Kind::Source, Kind::Map, Kind::Sink]);
    let settings = [("fault", "init-trap")];
    let error = start_with(host(), graph, component("faults"), &settings, &Limits::default()).err().unwrap();
    assert!(error.to_string().starts_with("operation `map1` (module `module`): its init failed"), "{error}");
}

/// The broker calls guests on the threads of its runtime, where whatever blocks, or starts a runtime of its own,
/// panics. A guest must not be able to bring that about.
mod on_a_worker_of_an_async_runtime {
    use super::*;

    fn on_worker<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async { tokio::spawn(async { work() }).await.expect("the worker did not panic") })
    }

    #[test]
    fn a_guest_may_look_for_files_and_network() {
        let payload =
            on_worker(|| run(&mut faults("look", "", &Limits::default()), "x").payload().to_owned());
        assert_eq!(payload, "environment 0, arguments 0, files false, network false");
    }

    #[test]
    fn a_guest_may_print() {
        assert_eq!(
            on_worker(|| run(&mut faults("print", "", &Limits::default()), "x").payload().to_owned()),
            "x"
        );
    }

    #[test]
    fn a_guest_that_sleeps_is_woken_by_its_deadline() {
        let limits = Limits { call_max: Duration::from_millis(200), ..Limits::default() };
        let begun = Instant::now();
        let seen = on_worker(move || run(&mut faults("sleep", "", &limits), "x"));
        assert_eq!(seen.error(), &OperatorError::Deadline(Duration::from_millis(200)));
        assert!(begun.elapsed() < Duration::from_secs(60));
    }
}
