//! What is told of a bridge: how it fares, what it delivered, and what it never can.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use parking_lot::Mutex;

use crate::parcel::Parcel;
use crate::queue::Shipment;

/// How a bridge fares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It has not been connected yet.
    Starting,
    /// It works.
    Available,
    /// It does not, and goes on trying.
    Unavailable {
        /// AIO's reason code (AIO.md §9.7).
        code: &'static str,
        /// What is wrong and what to do about it.
        why: String,
    },
}

/// Why a message never can be delivered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Rejection {
    /// A word for metrics and dead letters, such as `payload` or `too-large`.
    pub reason: &'static str,
    /// What is wrong with the message, for people.
    pub why: String,
}

/// Takes messages that never can be delivered.
pub type DeadLetters = Arc<dyn Fn(&Parcel, &Rejection) + Send + Sync>;

/// What a bridge is called in metrics and logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// The graph.
    pub graph: String,
    /// The node.
    pub node: String,
    /// The endpoint.
    pub endpoint: String,
    /// The kind of system as AIO's metrics call it (AIO.md §9.6), such as `Unknown Kafka Broker`.
    pub service_type: &'static str,
}

/// Where a bridge tells how it fares. Clones tell the same.
#[derive(Clone)]
pub struct Report(Arc<Inner>);

struct Inner {
    names: Names,
    health: Mutex<Health>,
    dead_letters: DeadLetters,
    metrics: Metrics,
}

struct Metrics {
    received: Counter,
    delivered: Counter,
    rejected: Counter,
    expired: Counter,
    retried: Counter,
    connected: Gauge,
    latency: Histogram,
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Report")
            .field("names", &self.0.names)
            .field("health", &self.health())
            .finish_non_exhaustive()
    }
}

impl Report {
    /// For a bridge of these names; what it never can deliver goes to `dead_letters`.
    pub fn new(names: Names, dead_letters: DeadLetters) -> Self {
        let labels = [
            ("dataflow_id", names.graph.clone()),
            ("node", names.node.clone()),
            ("service_type", names.service_type.to_owned()),
        ];
        let with = |name: &str, value: &str| {
            let mut labels = labels.to_vec();
            labels.push(match name {
                "success" => ("success", value.to_owned()),
                _ => ("outcome", value.to_owned()),
            });
            labels
        };
        let metrics = Metrics {
            received: counter!("forebay_bridge_messages_received_total", &labels),
            delivered: counter!("forebay_bridge_messages_delivered_total", &with("success", "true")),
            rejected: counter!("forebay_bridge_messages_delivered_total", &with("success", "false")),
            expired: counter!("aio_dataflow_messages_expired", "dataflow_id" => names.graph.clone()),
            retried: counter!("aio_dataflow_messages_retried", "dataflow_id" => names.graph.clone()),
            connected: gauge!("forebay_bridge_connected", &labels),
            latency: histogram!("aio_dataflow_upload_latency", &labels),
        };
        Self(Arc::new(Inner { names, health: Mutex::new(Health::Starting), dead_letters, metrics }))
    }

    /// What the bridge is called.
    pub fn names(&self) -> &Names {
        &self.0.names
    }

    /// How the bridge fares.
    pub fn health(&self) -> Health {
        self.0.health.lock().clone()
    }

    /// It works.
    pub fn available(&self) {
        let before = std::mem::replace(&mut *self.0.health.lock(), Health::Available);
        self.0.metrics.connected.set(1.0);
        if before != Health::Available {
            let Names { graph, node, endpoint, .. } = &self.0.names;
            tracing::info!(%graph, %node, %endpoint, "connected");
        }
    }

    /// It does not work, and goes on trying. `why` says what to do about it, where that is known.
    pub fn unavailable(&self, code: &'static str, why: impl Into<String>) {
        let health = Health::Unavailable { code, why: why.into() };
        let before = std::mem::replace(&mut *self.0.health.lock(), health.clone());
        self.0.metrics.connected.set(0.0);
        if before != health
            && let Health::Unavailable { code, why } = health
        {
            let Names { graph, node, endpoint, .. } = &self.0.names;
            tracing::warn!(%graph, %node, %endpoint, code, "{why}");
        }
    }

    /// A message came from the remote system.
    pub fn received(&self) {
        self.0.metrics.received.increment(1);
    }

    /// A message is to be sent once more.
    pub fn retried(&self) {
        self.0.metrics.retried.increment(1);
    }

    /// The remote system has it for certain.
    pub fn delivered(&self, shipment: Shipment) {
        self.0.metrics.delivered.increment(1);
        self.0.metrics.latency.record(shipment.queued.elapsed().as_secs_f64() * 1000.0);
    }

    /// It never can be delivered: it is counted, explained and kept where the graph names a topic for that.
    pub fn rejected(&self, shipment: Shipment, rejection: &Rejection) {
        self.0.metrics.rejected.increment(1);
        (self.0.dead_letters)(&shipment.parcel, rejection);
    }

    /// Gives it back if it is still of use, and counts it if not.
    pub fn unless_expired(&self, shipment: Shipment) -> Option<Shipment> {
        if shipment.parcel.is_expired(Instant::now()) {
            self.0.metrics.expired.increment(1);
            return None;
        }
        Some(shipment)
    }
}

/// Says what the metrics of bridges mean.
pub fn describe_metrics() {
    use metrics::{describe_counter, describe_gauge, describe_histogram};
    describe_counter!("forebay_bridge_messages_received_total", "Messages that came from a remote system.");
    describe_counter!(
        "forebay_bridge_messages_delivered_total",
        "Messages that a remote system has for certain (success true), or never can have (false)."
    );
    describe_gauge!("forebay_bridge_connected", "Whether a remote system can be reached: 1 or 0.");
    describe_gauge!("forebay_bridge_queue_messages", "Messages that wait in memory for remote systems.");
    describe_gauge!("forebay_bridge_queue_bytes", "What they take in memory, bytes.");
    describe_histogram!(
        "aio_dataflow_upload_latency",
        "Milliseconds from when a message left its graph until the remote system had it for certain."
    );
}
