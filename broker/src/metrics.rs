//! The broker's counters. Names of AIO.md §9.5 where AIO has one, `forebay_` otherwise.
//!
//! What `$SYS` shows, too, is counted in [`Tally`]s, which can be read back; the others are handles of the recorder.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use broker_core::packet::QoS;
use broker_core::session::{DropCause, Shed};
use foldhash::HashMap;
use metrics::{Counter, Gauge, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge};
use parking_lot::RwLock;

/// The user property of CONNECT that says whom a client's messages are counted for (AIO.md §9.5).
pub const CATEGORY: &str = "metriccategory";
/// The category of clients that name none, and of those that come after [`CATEGORIES_MAX`] others.
const UNCATEGORIZED: &str = "uncategorized";
/// Values of the label `category`.
const CATEGORIES_MAX: usize = 1000;
/// Longer names are cut.
const CATEGORY_CHARS_MAX: usize = 100;

/// A counter that can be read. Counting is one atomic addition; the recorder is told when metrics are asked for.
pub struct Tally {
    value: AtomicU64,
    counter: Counter,
}

impl Tally {
    fn new(counter: Counter) -> Self {
        Self { value: AtomicU64::new(0), counter }
    }

    /// Counts.
    pub fn increment(&self, by: u64) {
        self.value.fetch_add(by, Ordering::Relaxed);
    }

    /// What was counted so far.
    pub fn get(&self) -> u64 {
        self.value.load(Ordering::Relaxed)
    }

    fn observe(&self) {
        self.counter.absolute(self.get());
    }
}

/// The messages of clients that are counted together.
pub struct Category {
    /// PUBLISH packets taken from clients.
    pub received: Tally,
    /// Payload bytes of those.
    pub received_bytes: Tally,
    /// PUBLISH packets passed to clients.
    pub sent: Tally,
    /// Payload bytes of those.
    pub sent_bytes: Tally,
    /// QoS 0 messages that were not taken.
    pub qos0_dropped_incoming: Tally,
    /// QoS 0 messages that were not passed on.
    pub qos0_dropped_outgoing: Tally,
}

impl Category {
    fn new(name: &str) -> Self {
        let tally = |metric| Tally::new(counter!(metric, "category" => name.to_owned()));
        let dropped = |direction| {
            let labels = [("category", name.to_owned()), ("direction", direction)];
            Tally::new(counter!("aio_broker_qos0_messages_dropped", &labels))
        };
        Self {
            received: tally("aio_broker_publishes_received"),
            received_bytes: tally("aio_broker_payload_bytes_received"),
            sent: tally("aio_broker_publishes_sent"),
            sent_bytes: tally("aio_broker_payload_bytes_sent"),
            qos0_dropped_incoming: dropped("incoming".to_owned()),
            qos0_dropped_outgoing: dropped("outgoing".to_owned()),
        }
    }

    fn all(&self) -> [&Tally; 6] {
        let Self { received, received_bytes, sent, sent_bytes, .. } = self;
        [received, received_bytes, sent, sent_bytes, &self.qos0_dropped_incoming, &self.qos0_dropped_outgoing]
    }
}

impl std::fmt::Debug for Category {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Category")
    }
}

/// Handles made once; counting is one atomic addition.
pub struct Metrics {
    /// Messages of clients that name no category.
    pub uncategorized: Category,
    categories: RwLock<HashMap<Box<str>, Arc<Category>>>,
    /// Packets taken from clients.
    pub packets_received: Tally,
    /// Packets passed to clients, other than PUBLISH.
    pub packets_sent: Tally,
    /// Bytes read from clients.
    pub bytes_received: Tally,
    /// Bytes that clients' sockets took.
    pub bytes_sent: Tally,
    /// Connections accepted.
    pub connections: Tally,
    /// Sessions that ended because their time without a connection was over.
    pub sessions_expired: Tally,
    /// PUBLISH packets refused because the memory for messages is used up.
    pub backpressure: Tally,
    /// Connections that carry a session now.
    pub connected_sessions: Gauge,
    /// Sessions, connected or not.
    pub total_sessions: Gauge,
    /// The same by protocol version, v3 and v5.
    pub sessions_by_version: [Gauge; 2],
    /// The same by whether they are kept on disk, no and yes.
    pub sessions_by_persistence: [Gauge; 2],
    /// How much of the memory for messages is used, in per cent.
    pub memory_used: Gauge,
    /// PUBLISH packets taken in the last second.
    pub received_per_second: Gauge,
    /// PUBLISH packets passed on in the last second.
    pub sent_per_second: Gauge,
    /// Subscriptions, of clients and graphs.
    pub total_subscriptions: Gauge,
    /// Subscriptions that were one too many for their client.
    pub subscriptions_refused: Counter,
    /// Retained messages.
    pub retained_messages: Gauge,
    /// Bytes of retained messages.
    pub retained_bytes: Gauge,
    /// Retained messages that were over a limit.
    pub retained_refused: Counter,
    /// Bytes of other messages in memory.
    pub memory_bytes: Gauge,
    /// Wills that may be published.
    pub will_messages: Gauge,
    /// Bytes of those.
    pub will_bytes: Gauge,
    /// Messages that graphs published.
    pub derived: Counter,
    /// Derived messages dropped because graphs feed one another without end.
    pub derived_loops: Counter,
    dropped: [Tally; 5],
}

const CAUSES: [DropCause; 5] =
    [DropCause::Away, DropCause::Slow, DropCause::QueueFull, DropCause::TooLarge, DropCause::Expired];

impl Metrics {
    /// Registers all of them. Install the recorder before.
    pub fn new() -> Self {
        describe();
        Self {
            uncategorized: Category::new(UNCATEGORIZED),
            categories: RwLock::default(),
            packets_received: Tally::new(counter!("forebay_packets_received_total")),
            packets_sent: Tally::new(counter!("forebay_packets_sent_total")),
            bytes_received: Tally::new(counter!("forebay_bytes_received_total")),
            bytes_sent: Tally::new(counter!("forebay_bytes_sent_total")),
            connections: Tally::new(counter!("forebay_connections_total")),
            sessions_expired: Tally::new(counter!("forebay_sessions_expired_total")),
            backpressure: Tally::new(counter!("aio_broker_backpressure_packets_rejected")),
            connected_sessions: gauge!("aio_broker_connected_sessions"),
            total_sessions: gauge!("forebay_sessions"),
            sessions_by_version: ["v3", "v5"]
                .map(|version| gauge!("aio_broker_total_sessions", "mqtt_version" => version)),
            sessions_by_persistence: ["false", "true"]
                .map(|kept| gauge!("aio_broker_store_total_sessions", "is_persistent" => kept)),
            memory_used: gauge!("aio_broker_buffer_pool_used_percent", "name" => "messages"),
            received_per_second: gauge!("aio_broker_publishes_received_per_second"),
            sent_per_second: gauge!("aio_broker_publishes_sent_per_second"),
            total_subscriptions: gauge!("aio_broker_total_subscriptions"),
            subscriptions_refused: counter!("forebay_subscriptions_refused_total"),
            retained_messages: gauge!("aio_broker_store_retained_messages"),
            retained_bytes: gauge!("aio_broker_store_retained_bytes"),
            retained_refused: counter!("forebay_retained_refused_total"),
            memory_bytes: gauge!("forebay_message_memory_bytes"),
            will_messages: gauge!("aio_broker_store_will_messages"),
            will_bytes: gauge!("aio_broker_store_will_bytes"),
            derived: counter!("forebay_graph_messages_published_total"),
            derived_loops: counter!("forebay_graph_loops_dropped_total"),
            dropped: CAUSES
                .map(|c| Tally::new(counter!("forebay_messages_dropped_total", "cause" => c.as_str()))),
        }
    }

    /// Counts a message that a session did not get.
    pub fn dropped(&self, cause: DropCause) {
        self.dropped_many(cause, 1);
    }

    fn dropped_many(&self, cause: DropCause, many: u64) {
        if let Some(at) = CAUSES.iter().position(|c| *c == cause) {
            self.dropped[at].increment(many);
        }
    }

    /// Counts a message that a session did not get, and for whom.
    pub fn not_sent(&self, cause: DropCause, qos: QoS, category: Option<&Category>) {
        self.dropped(cause);
        if qos == QoS::AtMostOnce {
            category.unwrap_or(&self.uncategorized).qos0_dropped_outgoing.increment(1);
        }
    }

    /// Counts messages that left a queue without being sent.
    pub fn shed(&self, shed: &Shed) {
        for (cause, many) in shed.causes() {
            if many > 0 {
                self.dropped_many(cause, many);
            }
        }
    }

    /// All messages that sessions did not get.
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().map(Tally::get).sum()
    }

    /// The category of this name; the common one when there are too many.
    pub fn category(&self, name: &str) -> Option<Arc<Category>> {
        let cut = name.char_indices().nth(CATEGORY_CHARS_MAX).map_or(name.len(), |(at, _)| at);
        let name = &name[..cut];
        if name == UNCATEGORIZED {
            return None;
        }
        if let Some(known) = self.categories.read().get(name) {
            return Some(Arc::clone(known));
        }
        let mut categories = self.categories.write();
        if categories.len() + 1 >= CATEGORIES_MAX && !categories.contains_key(name) {
            return None;
        }
        Some(Arc::clone(categories.entry(name.into()).or_insert_with(|| Arc::new(Category::new(name)))))
    }

    /// The sum of one of the tallies over all categories.
    pub fn sum(&self, of: impl Fn(&Category) -> &Tally) -> u64 {
        let categories = self.categories.read();
        of(&self.uncategorized).get() + categories.values().map(|category| of(category).get()).sum::<u64>()
    }

    /// Tells the recorder what was counted.
    pub fn observe(&self) {
        let categories = self.categories.read();
        let each = categories.values().flat_map(|category| category.all());
        let own = [
            &self.packets_received,
            &self.packets_sent,
            &self.bytes_received,
            &self.bytes_sent,
            &self.connections,
            &self.sessions_expired,
            &self.backpressure,
        ];
        for tally in self.uncategorized.all().into_iter().chain(each).chain(own).chain(&self.dropped) {
            tally.observe();
        }
    }
}

/// Counts a connection that ended because of what the peer sent.
pub fn packet_refused(reason: &'static str) {
    counter!("forebay_packets_refused_total", "reason" => reason).increment(1);
}

/// Counts a message that a client may not publish, or not get.
pub fn message_denied() {
    counter!("forebay_messages_dropped_total", "cause" => "not-authorized").increment(1);
}

fn describe() {
    describe_counter!("aio_broker_publishes_received", "PUBLISH packets taken from clients");
    describe_counter!("aio_broker_publishes_sent", "PUBLISH packets passed to clients");
    describe_counter!("aio_broker_payload_bytes_received", "Payload bytes taken from clients");
    describe_counter!("aio_broker_payload_bytes_sent", "Payload bytes passed to clients");
    describe_counter!("aio_broker_qos0_messages_dropped", "QoS 0 messages not taken or not passed on");
    describe_counter!(
        "aio_broker_backpressure_packets_rejected",
        "PUBLISH packets refused because the memory for messages is used up"
    );
    describe_gauge!("aio_broker_store_will_messages", "Wills that may be published");
    describe_gauge!("aio_broker_store_will_bytes", "Bytes of wills that may be published");
    describe_gauge!("forebay_message_memory_bytes", "Bytes of messages in memory, other than retained ones");
    describe_counter!("forebay_subscriptions_refused_total", "Subscriptions over a client's limit");
    describe_counter!("forebay_retained_refused_total", "Retained messages that were over a limit");
    describe_counter!("forebay_packets_received_total", "MQTT packets taken from clients");
    describe_counter!("forebay_packets_sent_total", "MQTT packets other than PUBLISH passed to clients");
    describe_counter!("forebay_bytes_received_total", "Bytes read from clients");
    describe_counter!("forebay_bytes_sent_total", "Bytes written to clients");
    describe_counter!(
        "forebay_sessions_expired_total",
        "Sessions that ended because their time without a connection was over"
    );
    describe_gauge!("aio_broker_connected_sessions", "Sessions with a connection");
    describe_gauge!("forebay_sessions", "Sessions, with or without a connection");
    describe_gauge!("aio_broker_total_sessions", "Sessions, with or without a connection, by version");
    describe_gauge!("aio_broker_store_total_sessions", "Sessions, by whether they are kept on disk");
    describe_gauge!("aio_broker_buffer_pool_used_percent", "How much of the memory for messages is used");
    describe_gauge!("aio_broker_publishes_received_per_second", "PUBLISH packets taken in the last second");
    describe_gauge!("aio_broker_publishes_sent_per_second", "PUBLISH packets passed on in the last second");
    describe_gauge!("aio_broker_total_subscriptions", "Subscriptions of clients and graphs");
    describe_gauge!("aio_broker_store_retained_messages", "Retained messages");
    describe_gauge!("aio_broker_store_retained_bytes", "Bytes of retained messages");
    describe_counter!("forebay_graph_messages_published_total", "Messages that graphs published");
    describe_counter!(
        "forebay_graph_loops_dropped_total",
        "Derived messages dropped because graphs feed one another without end"
    );
    describe_counter!("forebay_messages_dropped_total", "Messages that a subscriber did not get, by cause");
    describe_counter!("forebay_packets_refused_total", "Connections ended for what the peer sent, by reason");
    describe_counter!("forebay_connections_total", "Connections accepted");
    describe_gauge!("forebay_connections_open", "Connections, with or without a session");
    describe_counter!("forebay_connections_refused_total", "Connections refused at once, by limit");
    describe_counter!("forebay_handshakes_failed_total", "TLS and WebSocket handshakes that came to nothing");
    describe_counter!("forebay_reloads_total", "Times that listeners were read again, by result");
    describe_counter!("forebay_credentials_expired_total", "Clients sent away since their credential ended");
    describe_counter!(
        "forebay_authentication_service_errors_total",
        "Times that a web service of the user's own could not be asked who a client is"
    );
    describe_counter!("aio_broker_authentication_successes", "Clients that have proven who they are");
    describe_counter!("aio_broker_authentication_failures", "Clients whose credentials are not good");
    describe_counter!("aio_broker_authentication_deny", "Clients without credentials that any method takes");
    describe_counter!("aio_broker_authorization_allow", "Times that a client was allowed something");
    describe_counter!("aio_broker_authorization_deny", "Times that a client was denied something");
    describe_counter!("aio_dataflow_reconcile_errors", "Errors found in resources");
    describe_gauge!("aio_dataflow_active_dataflow_graphs", "Graphs that run");
    describe_counter!("aio_dataflow_graph_errors", "Graphs that could not be started, by reason code");
    describe_counter!("aio_dataflow_graph_module_exit", "Operator instances that were ended");
    describe_counter!("aio_dataflow_messages_received", "Messages that graphs took");
    describe_counter!("aio_dataflow_graph_messages_received", "Messages that graphs took");
    describe_counter!("aio_dataflow_bytes_received", "Payload bytes that graphs took");
    describe_counter!("aio_dataflow_messages_sent", "Messages that graphs published");
    describe_counter!("aio_dataflow_graph_messages_sent", "Messages that graphs published");
    describe_counter!("aio_dataflow_bytes_sent", "Payload bytes that graphs published");
    describe_gauge!("aio_dataflow_graphs", "DataflowGraphs that are to run");
    describe_gauge!("aio_dataflow_version", "1, with the version");
    describe_gauge!("aio_dataflow_graph_modules", "Modules of a graph");
    describe_gauge!("aio_dataflow_graph_operators", "Operations of a graph, by type");
    describe_gauge!("aio_dataflow_graph_accumulated_messages", "Items that wait inside a graph");
    describe_gauge!("aio_dataflow_graph_accumulated_bytes", "Bytes that wait inside a graph");
    describe_counter!("aio_dataflow_messages_filtered", "Messages that a filter dropped");
    describe_counter!(
        "aio_dataflow_messages_expired",
        "Messages whose time was over before a graph came to them"
    );
    describe_counter!(
        "aio_dataflow_messages_dropped_processing_errors",
        "Messages dropped for an error in a graph"
    );
    describe_counter!(
        "aio_dataflow_messages_dropped_when_busy",
        "Messages dropped since a graph had too many waiting"
    );
    describe_counter!("aio_dataflow_errors", "Errors in graphs, by reason");
    describe_counter!(
        "forebay_graph_samples_total",
        "Messages that a profile's debuggingSettings had copied"
    );
    describe_counter!("forebay_graph_samples_dropped_total", "Copies of messages that there was no room for");
    describe_counter!("forebay_graph_moved_off_total", "Times a slow graph was moved to a thread of its own");
    describe_counter!(
        "forebay_operator_instances_total",
        "Ends and restarts of operator instances, by event"
    );
    describe_counter!(
        "forebay_schema_requests_total",
        "Requests for schemas over MQTT, by status of the answer"
    );
    describe_counter!(
        "forebay_order_late_total",
        "Messages that came too late to be in the order of __ts, by action"
    );
    describe_counter!(
        "forebay_order_forced_total",
        "Messages passed on before their time since too many waited to be put in order"
    );
    describe_counter!(
        "forebay_order_timestamps_unused_total",
        "Messages ordered by their arrival since their __ts cannot be used, by reason"
    );
    describe_histogram!(
        "aio_dataflow_processing_latency",
        Unit::Milliseconds,
        "Time a message spent in a graph"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_only_so_many_categories() {
        let metrics = Metrics::new();
        let named = (0..1500).filter(|n| metrics.category(&format!("category {n}")).is_some()).count();
        assert_eq!(named + 1, CATEGORIES_MAX, "the common one is one of them");
        assert!(metrics.category("category 3").is_some(), "one that is known stays");
        assert!(metrics.category(UNCATEGORIZED).is_none());
        metrics.category("category 3").unwrap().received.increment(2);
        metrics.uncategorized.received.increment(3);
        assert_eq!(metrics.sum(|category| &category.received), 5);
    }

    #[test]
    fn long_names_are_cut_between_characters() {
        let metrics = Metrics::new();
        let long = "ä".repeat(CATEGORY_CHARS_MAX + 5);
        metrics.category(&long).unwrap().sent.increment(1);
        assert_eq!(metrics.category(&"ä".repeat(CATEGORY_CHARS_MAX)).unwrap().sent.get(), 1);
    }
}
