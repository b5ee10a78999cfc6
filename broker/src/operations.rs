//! The metrics of a graph's operations.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;
use std::time::Instant;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use processing_core::engine::{Engine, Stats};

/// Metrics of one graph and of its operations.
pub struct Operations {
    /// In the order of the graph's nodes.
    each: Vec<Operation>,
    /// What waits inside of the graph.
    accumulated: Gauge,
    accumulated_bytes: Gauge,
}

struct Operation {
    received: Counter,
    sent: Counter,
    filtered: Counter,
    refused: Counter,
    errors: Counter,
    /// Of those with an operator.
    memory: Option<Gauge>,
}

impl Operations {
    /// Registers the metrics of a graph, and has the time measured that its operators take.
    pub fn new<C: Clone>(graph: &str, engine: &mut Engine<C>) -> Self {
        let mut latencies: Vec<Option<Histogram>> = Vec::new();
        let mut operations = Vec::new();
        for node in engine.graph().nodes() {
            let (name, kind) = (&node.operation.name, node.operation.kind);
            let labels = [
                ("dataflow_id", graph.to_owned()),
                ("operation", name.clone()),
                ("operator_type", operator_type(kind.as_str())),
            ];
            let of = |metric: &'static str| counter!(metric, &labels);
            let histogram = || histogram!("forebay_operation_latency_seconds", &labels);
            latencies.push(kind.has_module().then(histogram));
            operations.push(Operation {
                received: of("forebay_operation_messages_received_total"),
                sent: of("forebay_operation_messages_sent_total"),
                filtered: of("forebay_operation_messages_filtered_total"),
                refused: of("forebay_operation_messages_late_total"),
                errors: of("forebay_operation_errors_total"),
                memory: kind.has_module().then(|| gauge!("forebay_operation_memory_bytes", &labels)),
            });
        }
        let observer = move |node: usize, nanos: u64| {
            if let Some(Some(latency)) = latencies.get(node) {
                latency.record(nanos as f64 / 1e9);
            }
        };
        engine.set_clock(nanos, Box::new(observer));
        show_shape(graph, engine);
        let of = |metric: &'static str| gauge!(metric, "dataflow_id" => graph.to_owned());
        Self {
            each: operations,
            accumulated: of("aio_dataflow_graph_accumulated_messages"),
            accumulated_bytes: of("aio_dataflow_graph_accumulated_bytes"),
        }
    }

    /// Brings them up to date.
    pub fn show<C: Clone>(&self, engine: &Engine<C>) {
        self.accumulated.set(engine.held() as f64);
        self.accumulated_bytes.set(engine.held_bytes() as f64);
        for (operation, (_, stats)) in self.each.iter().zip(engine.stats()) {
            let Stats { received, passed, filtered, errors, refused, .. } = stats;
            operation.received.absolute(received);
            operation.sent.absolute(passed);
            operation.filtered.absolute(filtered);
            operation.errors.absolute(errors);
            operation.refused.absolute(refused);
        }
        let with_memory = self.each.iter().filter_map(|operation| operation.memory.as_ref());
        for (memory, (_, bytes)) in with_memory.zip(engine.memory_bytes()) {
            memory.set(bytes as f64);
        }
    }
}

/// What a graph is made of (AIO.md §9.6).
fn show_shape<C: Clone>(graph: &str, engine: &Engine<C>) {
    let (mut modules, mut kinds) = (BTreeSet::new(), BTreeMap::<&str, u32>::new());
    for node in engine.graph().nodes() {
        modules.extend(node.operation.module.as_deref());
        *kinds.entry(node.operation.kind.as_str()).or_default() += 1;
    }
    gauge!("aio_dataflow_graph_modules", "dataflow_id" => graph.to_owned()).set(modules.len() as f64);
    for (kind, count) in kinds {
        let labels = [("dataflow_id", graph.to_owned()), ("operator_type", operator_type(kind))];
        gauge!("aio_dataflow_graph_operators", &labels).set(f64::from(count));
    }
}

/// The word that AIO's metrics use (AIO.md §4.1): `Map` for `map`.
fn operator_type(kind: &str) -> String {
    let mut letters = kind.chars();
    letters.next().map(|first| first.to_ascii_uppercase().to_string() + letters.as_str()).unwrap_or_default()
}

fn nanos() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    u64::try_from(START.get_or_init(Instant::now).elapsed().as_nanos()).unwrap_or(u64::MAX)
}
