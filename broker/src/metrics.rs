//! The broker's counters. Names of AIO.md §9.5 where AIO has one, `forebay_` otherwise.

use broker_core::session::DropCause;
use metrics::{Counter, Gauge, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge};

/// Handles made once; counting is one atomic addition.
pub struct Metrics {
    /// PUBLISH packets taken from clients.
    pub publishes_received: Counter,
    /// PUBLISH packets passed to clients.
    pub publishes_sent: Counter,
    /// Payload bytes of those received.
    pub payload_bytes_received: Counter,
    /// Connections that carry a session now.
    pub connected_sessions: Gauge,
    /// Sessions, connected or not.
    pub total_sessions: Gauge,
    /// Subscriptions, of clients and graphs.
    pub total_subscriptions: Gauge,
    /// Retained messages.
    pub retained_messages: Gauge,
    /// Bytes of retained messages.
    pub retained_bytes: Gauge,
    /// Messages that graphs published.
    pub derived: Counter,
    /// Derived messages dropped because graphs feed one another without end.
    pub derived_loops: Counter,
    dropped: [Counter; 5],
}

const CAUSES: [DropCause; 5] =
    [DropCause::Away, DropCause::Slow, DropCause::QueueFull, DropCause::TooLarge, DropCause::Expired];

impl Metrics {
    /// Registers all of them. Install the recorder before.
    pub fn new() -> Self {
        describe();
        Self {
            publishes_received: counter!("aio_broker_publishes_received"),
            publishes_sent: counter!("aio_broker_publishes_sent"),
            payload_bytes_received: counter!("aio_broker_payload_bytes_received"),
            connected_sessions: gauge!("aio_broker_connected_sessions"),
            total_sessions: gauge!("aio_broker_total_sessions"),
            total_subscriptions: gauge!("aio_broker_total_subscriptions"),
            retained_messages: gauge!("aio_broker_store_retained_messages"),
            retained_bytes: gauge!("aio_broker_store_retained_bytes"),
            derived: counter!("forebay_graph_messages_published_total"),
            derived_loops: counter!("forebay_graph_loops_dropped_total"),
            dropped: CAUSES.map(|c| counter!("forebay_messages_dropped_total", "cause" => c.as_str())),
        }
    }

    /// Counts a message that a session did not get.
    pub fn dropped(&self, cause: DropCause) {
        if let Some(at) = CAUSES.iter().position(|c| *c == cause) {
            self.dropped[at].increment(1);
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

/// Counts a connection that was accepted.
pub fn connection_accepted() {
    counter!("forebay_connections_total").increment(1);
}

fn describe() {
    describe_counter!("aio_broker_publishes_received", "PUBLISH packets taken from clients");
    describe_counter!("aio_broker_publishes_sent", "PUBLISH packets passed to clients");
    describe_counter!("aio_broker_payload_bytes_received", "Payload bytes taken from clients");
    describe_gauge!("aio_broker_connected_sessions", "Sessions with a connection");
    describe_gauge!("aio_broker_total_sessions", "Sessions, with or without a connection");
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
