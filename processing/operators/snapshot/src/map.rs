//! What an image shows.

use std::sync::OnceLock;

use measurement::{Measurement, Object, count_request, error, log_configuration, unexpected_input};
use wasm_graph_sdk::logger::{self, Level};
use wasm_graph_sdk::macros::map_operator;

use crate::classifier::{Classifier, FRAME_BYTES};

const NAME: &str = "module-snapshot/map";

static CLASSIFIER: OnceLock<Classifier> = OnceLock::new();

fn start(configuration: ModuleConfiguration) -> bool {
    log_configuration(NAME, &configuration);
    match Classifier::load() {
        Ok(classifier) => CLASSIFIER.set(classifier).is_ok(),
        Err(reason) => {
            logger::log(Level::Error, NAME, &format!("the model cannot be loaded: {reason}"));
            false
        }
    }
}

#[map_operator(init = "start")]
fn recognise(input: DataModel) -> Result<DataModel, Error> {
    count_request(NAME, None);
    let DataModel::Snapshot(mut snapshot) = input else { return Err(unexpected_input()) };
    let frame = snapshot.frame.read();
    let classifier = CLASSIFIER.get().expect("init has run");
    let result = match frame.len() {
        FRAME_BYTES => classifier.classify(&frame),
        other => Err(format!("the frame has {other} bytes, not {FRAME_BYTES}")),
    };
    let result = result.map_err(|reason| error(format!("Error executing graph inference: {reason}")))?;
    snapshot.frame = Measurement::Object(Object { result: result.to_owned() }).to_json().into();
    Ok(DataModel::Snapshot(snapshot))
}
