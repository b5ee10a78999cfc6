//! Temperatures one way, everything else the other.

use wasm_graph_sdk::macros::branch_operator;

use measurement::{Measurement, count_request, log_configuration, parse, unexpected_input};

const NAME: &str = "module-temperature/branch";

fn start(configuration: ModuleConfiguration) -> bool {
    log_configuration(NAME, &configuration);
    true
}

#[branch_operator(init = "start")]
fn is_temperature(_: HybridLogicalClock, input: DataModel) -> Result<bool, Error> {
    count_request(NAME, None);
    let DataModel::Message(message) = input else { return Err(unexpected_input()) };
    Ok(matches!(parse(&message.payload.read())?, Measurement::Temperature(_)))
}
