//! Everything that was recognised in one window, each thing once.

use measurement::{
    Measurement, Object, count_request, log_configuration, parse, unexpected_input, unexpected_measurement,
};
use wasm_graph_sdk::macros::accumulate_operator;

const NAME: &str = "module-snapshot/accumulate";

fn start(configuration: ModuleConfiguration) -> bool {
    log_configuration(NAME, &configuration);
    true
}

fn seen(payload: &[u8]) -> Result<String, Error> {
    match parse(payload)? {
        Measurement::Object(Object { result }) => Ok(result),
        _ => Err(unexpected_measurement()),
    }
}

#[accumulate_operator(init = "start")]
fn list(staged: DataModel, inputs: Vec<DataModel>) -> Result<DataModel, Error> {
    count_request(NAME, None);
    let DataModel::Message(mut result) = staged else { return Err(unexpected_input()) };
    let staged = result.payload.read();
    // What was staged is one entry, whatever it is a list of.
    let mut all = if staged.is_empty() { Vec::new() } else { vec![seen(&staged)?] };
    for input in inputs {
        let DataModel::Snapshot(snapshot) = input else { return Err(unexpected_input()) };
        let object = seen(&snapshot.frame.read())?;
        if !all.contains(&object) {
            all.push(object);
        }
    }
    result.payload = Measurement::Object(Object { result: all.join("; ") }).to_json().into();
    Ok(DataModel::Message(result))
}
