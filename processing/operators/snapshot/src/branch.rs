//! Images one way, everything else the other.

use std::sync::OnceLock;

use measurement::{count_request, error, log_configuration, property};
use wasm_graph_sdk::macros::branch_operator;

const NAME: &str = "module-snapshot/branch";

/// Messages of this topic are images.
static SNAPSHOT_TOPIC: OnceLock<String> = OnceLock::new();

fn start(configuration: ModuleConfiguration) -> bool {
    log_configuration(NAME, &configuration);
    property(&configuration, "snapshot_topic")
        .is_none_or(|topic| SNAPSHOT_TOPIC.set(topic.to_owned()).is_ok())
}

#[branch_operator(init = "start")]
fn is_snapshot(_: HybridLogicalClock, input: DataModel) -> Result<bool, Error> {
    count_request(NAME, None);
    match input {
        DataModel::Snapshot(_) => Ok(true),
        DataModel::Message(message) => {
            Ok(SNAPSHOT_TOPIC.get().is_some_and(|topic| message.topic.read() == topic.as_bytes()))
        }
        DataModel::BufferOrBytes(_) => Err(error("Unexpected input type.")),
    }
}
