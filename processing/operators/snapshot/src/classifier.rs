//! The model that knows a thousand things by their look, run by the host through wasi-nn.
//!
//! AIO's sample carries MobileNet v2 (`mobilenet.onnx`: input `data`, normalised by ImageNet's mean and deviation, output
//! `mobilenetv20_output_flatten0_reshape0`). No package registry has that file. Here it is EfficientNet-Lite0, as
//! `model/make` writes it: of the same thousand classes and the same frames, with an output of another name, and with
//! each byte brought to (x − 127) / 128.

use crate::nn::wasi::nn::errors::Error;
use crate::nn::wasi::nn::graph::{ExecutionTarget, GraphEncoding, load};
use crate::nn::wasi::nn::inference::GraphExecutionContext;
use crate::nn::wasi::nn::tensor::{Tensor, TensorType};

static MODEL: &[u8] = include_bytes!("../../target/model/classifier.onnx");
/// A line for each class: an identifier, a space, what it is called.
static LABELS: &str = include_str!("../../target/model/labels.txt");

const INPUT: &str = "data";
const OUTPUT: &str = "scores";
const CHANNELS: usize = 3;
/// Width and height of a frame.
pub const SIDE: u32 = 224;
/// Pixels of a frame.
const PIXELS: usize = (SIDE * SIDE) as usize;
/// Bytes of a frame: red, green and blue of each pixel.
pub const FRAME_BYTES: usize = PIXELS * CHANNELS;

/// The loaded model.
pub struct Classifier(GraphExecutionContext);

impl Classifier {
    /// Hands the model to the host.
    pub fn load() -> Result<Self, String> {
        let graph = load(&[MODEL.to_vec()], GraphEncoding::Onnx, ExecutionTarget::Cpu).map_err(text)?;
        graph.init_execution_context().map(Self).map_err(text)
    }

    /// What a frame shows.
    pub fn classify(&self, frame: &[u8]) -> Result<&'static str, String> {
        let input = Tensor::new(&[1, CHANNELS as u32, SIDE, SIDE], TensorType::Fp32, &tensor(frame));
        let outputs = self.0.compute(vec![(INPUT.to_owned(), input)]).map_err(text)?;
        let (_, scores) =
            outputs.iter().find(|(name, _)| name == OUTPUT).ok_or_else(|| format!("no output {OUTPUT}"))?;
        let scores: Vec<f32> =
            scores.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        // A softmax would not change which one is the highest.
        let best = (0..scores.len()).max_by(|a, b| scores[*a].total_cmp(&scores[*b]));
        best.and_then(label).ok_or_else(|| "the model gives no score that has a label".to_owned())
    }
}

/// The frame's bytes as floats, one colour after the other.
fn tensor(frame: &[u8]) -> Vec<u8> {
    let plane = |channel: usize| frame.iter().skip(channel).step_by(CHANNELS);
    let normalise = |byte: &u8| (f32::from(*byte) - 127.0) / 128.0;
    (0..CHANNELS).flat_map(plane).flat_map(|byte| normalise(byte).to_le_bytes()).collect()
}

fn label(class: usize) -> Option<&'static str> {
    Some(LABELS.lines().nth(class)?.split_once(' ')?.1)
}

fn text(error: Error) -> String {
    format!("{:?}: {}", error.code(), error.data())
}
