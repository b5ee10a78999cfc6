//! An operator that runs whatever model it is sent. For tests of what the host does about bad ones.
//!
//! A message of the topic `model` is an ONNX model, which takes the place of the one before. One of the topic `input` is
//! given to it, as 32-bit floats: the user property `dimensions` (`1,3,2,2`) says how they are arranged, `name` what they
//! are called (`data` unless said), and its answer is the message's new payload. Everything else goes on as it is.

use std::sync::{Mutex, PoisonError};

use nn::wasi::nn::errors;
use nn::wasi::nn::graph::{ExecutionTarget, GraphEncoding, load};
use nn::wasi::nn::inference::GraphExecutionContext;
use nn::wasi::nn::tensor::{Tensor, TensorType};
use wasm_graph_sdk::macros::map_operator;

/// wasi-nn, which the SDK leaves to those who use it.
mod nn {
    wit_bindgen::generate!({
        path: "../../wit/deps/nn",
        world: "wasi:nn/ml",
        generate_all,
    });
}

static MODEL: Mutex<Option<GraphExecutionContext>> = Mutex::new(None);

#[map_operator]
fn infer(input: DataModel) -> Result<DataModel, Error> {
    let DataModel::Message(mut message) = input else { return Err(error("only messages here")) };
    match message.topic.read().as_slice() {
        b"model" => read_model(message.payload.read())?,
        b"input" => message.payload = answer(&message)?.into(),
        _ => {}
    }
    Ok(DataModel::Message(message))
}

fn read_model(file: Vec<u8>) -> Result<(), Error> {
    let graph = load(&[file], GraphEncoding::Onnx, ExecutionTarget::Cpu).map_err(failure)?;
    let context = graph.init_execution_context().map_err(failure)?;
    *MODEL.lock().unwrap_or_else(PoisonError::into_inner) = Some(context);
    Ok(())
}

/// The first of the model's outputs.
fn answer(message: &Message) -> Result<Vec<u8>, Error> {
    let model = MODEL.lock().unwrap_or_else(PoisonError::into_inner);
    let model = model.as_ref().ok_or_else(|| error("there is no model yet"))?;
    let dimensions = property(message, "dimensions").unwrap_or_default();
    let dimensions: Result<Vec<u32>, _> = dimensions.split(',').map(str::parse).collect();
    let dimensions = dimensions.map_err(|reason| error(&format!("dimensions: {reason}")))?;
    let name = property(message, "name").unwrap_or_else(|| "data".to_owned());
    let tensor = Tensor::new(&dimensions, TensorType::Fp32, &message.payload.read());
    let outputs = model.compute(vec![(name, tensor)]).map_err(failure)?;
    outputs.first().map(|(_, tensor)| tensor.data()).ok_or_else(|| error("the model gives nothing"))
}

fn property(message: &Message, name: &str) -> Option<String> {
    let found = message.properties.user_properties.iter().find(|(key, _)| key.read() == name.as_bytes());
    found.map(|(_, value)| String::from_utf8_lossy(&value.read()).into_owned())
}

fn failure(failure: errors::Error) -> Error {
    error(&format!("{:?}: {}", failure.code(), failure.data()))
}

fn error(message: &str) -> Error {
    Error { message: message.to_owned() }
}
