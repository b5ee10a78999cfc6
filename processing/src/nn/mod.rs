//! Neural networks for guests: `wasi:nn@0.2.0-rc-2024-10-28`, ONNX on the CPU (AIO.md §1.5).
//!
//! Models come with their component; the host has none of its own. What a guest holds here counts against
//! [`Limits::nn_bytes_max`](crate::limits::Limits), and each step of an inference asks whether the call may go on.

mod constants;
mod onnx;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use wasmtime::component::{HasSelf, Linker, Resource};

use crate::host::State;
use bindings::wasi::nn::errors::ErrorCode;
use bindings::wasi::nn::graph::{ExecutionTarget, GraphEncoding};
use bindings::wasi::nn::tensor::TensorType;
use bindings::wasi::nn::{errors, graph, inference, tensor};
use onnx::Model;

#[allow(missing_docs, clippy::all, clippy::pedantic)]
mod bindings {
    pub use super::{Context, Failure, Graph, Tensor};

    wasmtime::component::bindgen!({
        path: "wit/deps/nn",
        world: "wasi:nn/ml",
        with: {
            "wasi:nn/tensor.tensor": Tensor,
            "wasi:nn/graph.graph": Graph,
            "wasi:nn/inference.graph-execution-context": Context,
            "wasi:nn/errors.error": Failure,
        },
        imports: { default: trappable },
    });
}

/// Links wasi-nn: a component that does not import it never meets it.
pub fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    fn own(state: &mut State) -> &mut State {
        state
    }
    tensor::add_to_linker::<State, HasSelf<State>>(linker, own)?;
    graph::add_to_linker::<State, HasSelf<State>>(linker, own)?;
    inference::add_to_linker::<State, HasSelf<State>>(linker, own)?;
    errors::add_to_linker::<State, HasSelf<State>>(linker, own)
}

/// Bytes that the guest holds through wasi-nn: those of its models and of its tensors.
#[derive(Debug, Default)]
pub struct Held(Arc<AtomicUsize>);

/// Some of these bytes; given back when it goes.
#[derive(Debug)]
struct Share {
    of: Arc<AtomicUsize>,
    bytes: usize,
}

impl Held {
    /// So many bytes, unless they would be more than `max` with the others.
    fn take(&self, bytes: usize, max: usize) -> Option<Share> {
        let more = |held: usize| held.checked_add(bytes).filter(|sum| *sum <= max);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Share { of: Arc::clone(&self.0), bytes })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.of.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A guest's tensor, as it gave it: whether its data have the length that they should is looked at when it is used.
#[derive(Debug)]
pub struct Tensor {
    dimensions: Vec<u32>,
    ty: TensorType,
    data: Vec<u8>,
    /// None: there was no room for it, and its data are gone. The constructor has no way to say so; computing has.
    share: Option<Share>,
}

/// A model that goes by a handle.
#[derive(Debug)]
pub struct Loaded {
    model: Model,
    _share: Share,
}

/// An execution context: it has no state of its own.
#[derive(Debug)]
pub struct Context(Arc<Loaded>);

/// Why something did not work, in the interface's terms.
#[derive(Debug)]
pub struct Failure {
    code: ErrorCode,
    data: String,
}

impl Failure {
    fn new(code: ErrorCode, data: impl Into<String>) -> Self {
        Self { code, data: data.into() }
    }

    fn no_room(max: usize) -> Self {
        let why = format!("models, tensors and what an inference needs are limited to {max} bytes together");
        Self::new(ErrorCode::TooLarge, why)
    }
}

type Answer<T> = wasmtime::Result<Result<T, Resource<Failure>>>;

impl State {
    fn answer<T: Send + 'static>(&mut self, result: Result<T, Failure>) -> Answer<Resource<T>> {
        Ok(match result {
            Ok(value) => Ok(self.table.push(value)?),
            Err(failure) => Err(self.table.push(failure)?),
        })
    }

    fn load(&mut self, mut files: Vec<Vec<u8>>, encoding: GraphEncoding) -> Result<Arc<Loaded>, Failure> {
        if !matches!(encoding, GraphEncoding::Onnx | GraphEncoding::Autodetect) {
            return Err(Failure::new(ErrorCode::InvalidEncoding, "only ONNX models are run here"));
        }
        let (Some(file), true) = (files.pop(), files.is_empty()) else {
            return Err(Failure::new(ErrorCode::InvalidArgument, "an ONNX model is one file"));
        };
        let max = self.limits.nn_bytes_max;
        let share = self.nn.take(file.len(), max).ok_or_else(|| Failure::no_room(max))?;
        Ok(Arc::new(Loaded { model: Model::load(file, max)?, _share: share }))
    }

    fn tensor(&self, dimensions: Vec<u32>, ty: TensorType, data: Vec<u8>) -> Tensor {
        let share = self.nn.take(data.len(), self.limits.nn_bytes_max);
        let data = if share.is_some() { data } else { Vec::new() };
        Tensor { dimensions, ty, data, share }
    }

    /// Takes the guest's inputs out of the table.
    fn inputs(&mut self, inputs: Vec<(String, Resource<Tensor>)>) -> wasmtime::Result<Vec<(String, Tensor)>> {
        inputs.into_iter().map(|(name, tensor)| Ok((name, self.table.delete(tensor)?))).collect()
    }

    fn compute(
        &mut self,
        loaded: &Loaded,
        inputs: &[(String, Tensor)],
    ) -> Result<Vec<(String, Tensor)>, Failure> {
        let max = self.limits.nn_bytes_max;
        if inputs.iter().any(|(_, tensor)| tensor.share.is_none()) {
            return Err(Failure::no_room(max));
        }
        let outputs = loaded.model.run(inputs, &mut || self.tick())?;
        let outputs = outputs.into_iter().map(|(name, (dimensions, ty, data))| {
            let tensor = self.tensor(dimensions, ty, data);
            tensor.share.is_some().then_some((name, tensor)).ok_or_else(|| Failure::no_room(max))
        });
        outputs.collect()
    }

    /// Ends a call that has no time left; a function of the host is not interrupted by an epoch.
    fn in_time(&mut self) -> wasmtime::Result<()> {
        if self.tick() { Ok(()) } else { Err(wasmtime::Error::msg("the call is over")) }
    }
}

impl tensor::Host for State {}

impl tensor::HostTensor for State {
    fn new(
        &mut self,
        dimensions: Vec<u32>,
        ty: TensorType,
        data: Vec<u8>,
    ) -> wasmtime::Result<Resource<Tensor>> {
        let tensor = self.tensor(dimensions, ty, data);
        Ok(self.table.push(tensor)?)
    }
    fn dimensions(&mut self, tensor: Resource<Tensor>) -> wasmtime::Result<Vec<u32>> {
        Ok(self.table.get(&tensor)?.dimensions.clone())
    }
    fn ty(&mut self, tensor: Resource<Tensor>) -> wasmtime::Result<TensorType> {
        Ok(self.table.get(&tensor)?.ty)
    }
    fn data(&mut self, tensor: Resource<Tensor>) -> wasmtime::Result<Vec<u8>> {
        Ok(self.table.get(&tensor)?.data.clone())
    }
    fn drop(&mut self, tensor: Resource<Tensor>) -> wasmtime::Result<()> {
        self.table.delete(tensor)?;
        Ok(())
    }
}

/// A handle of a model.
pub type Graph = Arc<Loaded>;

impl graph::Host for State {
    fn load(
        &mut self,
        builder: Vec<Vec<u8>>,
        encoding: GraphEncoding,
        target: ExecutionTarget,
    ) -> Answer<Resource<Graph>> {
        if target != ExecutionTarget::Cpu {
            let failure = Failure::new(ErrorCode::UnsupportedOperation, "models are run on the CPU only");
            return self.answer(Err(failure));
        }
        self.in_time()?;
        let loaded = self.load(builder, encoding);
        self.in_time()?;
        self.answer(loaded)
    }

    fn load_by_name(&mut self, name: String) -> Answer<Resource<Graph>> {
        let why = format!("there is no model `{name}`: a model comes with the component that uses it");
        self.answer(Err(Failure::new(ErrorCode::NotFound, why)))
    }
}

impl graph::HostGraph for State {
    fn init_execution_context(&mut self, graph: Resource<Graph>) -> Answer<Resource<Context>> {
        let loaded = Arc::clone(self.table.get(&graph)?);
        self.answer(Ok(Context(loaded)))
    }
    fn drop(&mut self, graph: Resource<Graph>) -> wasmtime::Result<()> {
        self.table.delete(graph)?;
        Ok(())
    }
}

impl inference::Host for State {}

impl inference::HostGraphExecutionContext for State {
    fn compute(
        &mut self,
        context: Resource<Context>,
        inputs: Vec<(String, Resource<Tensor>)>,
    ) -> Answer<Vec<(String, Resource<Tensor>)>> {
        let loaded = Arc::clone(&self.table.get(&context)?.0);
        let inputs = self.inputs(inputs)?;
        self.in_time()?;
        let computed = State::compute(self, &loaded, &inputs);
        if self.call.overdue {
            return Err(wasmtime::Error::msg("the call is over"));
        }
        Ok(match computed {
            Ok(outputs) => Ok(outputs
                .into_iter()
                .map(|(name, tensor)| Ok((name, self.table.push(tensor)?)))
                .collect::<wasmtime::Result<_>>()?),
            Err(failure) => Err(self.table.push(failure)?),
        })
    }
    fn drop(&mut self, context: Resource<Context>) -> wasmtime::Result<()> {
        self.table.delete(context)?;
        Ok(())
    }
}

impl errors::Host for State {}

impl errors::HostError for State {
    fn code(&mut self, error: Resource<Failure>) -> wasmtime::Result<ErrorCode> {
        Ok(self.table.get(&error)?.code)
    }
    fn data(&mut self, error: Resource<Failure>) -> wasmtime::Result<String> {
        Ok(self.table.get(&error)?.data.clone())
    }
    fn drop(&mut self, error: Resource<Failure>) -> wasmtime::Result<()> {
        self.table.delete(error)?;
        Ok(())
    }
}
