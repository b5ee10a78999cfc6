//! The metrics that tests look at, each named once.

/// Graphs that run now.
pub const RUNNING: &str = "aio_dataflow_active_dataflow_graphs";
/// Graphs that could not be started or had to be stopped, by reason.
pub const GRAPH_ERRORS: &str = "aio_dataflow_graph_errors";
/// Messages dropped because an operator failed on them.
pub const PROCESSING_ERRORS: &str = "aio_dataflow_messages_dropped_processing_errors";
/// Instances ended by a trap, a deadline or a memory limit.
pub const MODULE_EXITS: &str = "aio_dataflow_graph_module_exit";
/// Connections ended for what the peer sent.
pub const PACKETS_REFUSED: &str = "forebay_packets_refused_total";
/// Resources that cannot be used as they are written.
pub const RESOURCE_ERRORS: &str = "aio_dataflow_reconcile_errors";
