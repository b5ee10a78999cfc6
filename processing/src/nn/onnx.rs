//! ONNX models, run by `tract`.
//!
//! A model is a guest's bytes. `tract` asserts here and there what a model may well violate, so it is called where a
//! panic is an error like another; and it makes room as a model says, so that is looked at first.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tract_onnx::pb;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::EvalContext;
use tract_onnx::tract_core::ops::OpState;
use tract_onnx::tract_core::plan::eval;
use tract_onnx::tract_hir::infer::Factoid;

use super::bindings::wasi::nn::errors::ErrorCode;
use super::bindings::wasi::nn::tensor::TensorType;
use super::constants::{self, Unfit};
use super::{Failure, Tensor as GuestTensor};

/// Dimensions, type and elements of an output.
pub type Output = (Vec<u32>, TensorType, Vec<u8>);

/// A model, ready to run.
#[derive(Debug)]
pub struct Model {
    plan: Arc<TypedSimplePlan>,
    inputs: Vec<Input>,
    outputs: Vec<String>,
}

/// What a model wants.
#[derive(Debug)]
struct Input {
    name: String,
    shape: Vec<usize>,
    ty: DatumType,
}

/// Runs `work`; a panic in it is a failure.
fn guarded<T>(code: ErrorCode, work: impl FnOnce() -> TractResult<T>) -> Result<T, Failure> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Failure::new(code, format!("{error:#}"))),
        Err(_) => Err(Failure::new(code, "the model breaks a rule that its reader takes for granted")),
    }
}

impl Model {
    /// Reads a model and makes it ready. What one inference computes may not take more than `bytes_max`.
    ///
    /// # Errors
    /// Bytes that are no ONNX model, or one that cannot be run here.
    pub fn load(file: Vec<u8>, bytes_max: usize) -> Result<Self, Failure> {
        let len = file.len();
        let model = guarded(ErrorCode::InvalidEncoding, || {
            tract_onnx::onnx().proto_model_for_read(&mut file.as_slice())
        })?;
        drop(file);
        let Some(graph) = &model.graph else {
            return Err(Failure::new(ErrorCode::InvalidEncoding, "this is no ONNX model: it has no graph"));
        };
        if !sizes_are_true(graph, len) {
            let why = "a tensor of the model has more elements than the model has bytes";
            return Err(Failure::new(ErrorCode::InvalidEncoding, why));
        }
        match constants::fit(graph, bytes_max) {
            Ok(()) => {}
            Err(Unfit::TooLarge) => return Err(Failure::no_room(bytes_max)),
            Err(Unfit::Unclear(why)) => return Err(Failure::new(ErrorCode::UnsupportedOperation, why)),
        }
        let outputs: Vec<String> = graph.output.iter().map(|output| output.name.clone()).collect();
        let read = guarded(ErrorCode::InvalidEncoding, || tract_onnx::onnx().model_for_proto_model(&model))?;
        drop(model);
        let inputs = inputs(&read)?;
        let typed = guarded(ErrorCode::UnsupportedOperation, || read.into_typed()?.into_decluttered())?;
        fits(&typed, bytes_max)?;
        let plan = guarded(ErrorCode::UnsupportedOperation, || typed.into_optimized()?.into_runnable())?;
        Ok(Self { plan, inputs, outputs })
    }

    /// Runs the model. `go_on` is asked before each of its operations.
    ///
    /// # Errors
    /// Inputs that are not the model's, and what goes wrong inside. When `go_on` said false, any.
    pub fn run(
        &self,
        given: &[(String, GuestTensor)],
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<Vec<(String, Output)>, Failure> {
        if given.len() != self.inputs.len() {
            let why = format!("the model has {} inputs, not {}", self.inputs.len(), given.len());
            return Err(Failure::new(ErrorCode::InvalidArgument, why));
        }
        let values = self.inputs.iter().map(|input| input.value(given)).collect::<Result<_, _>>()?;
        let found = guarded(ErrorCode::RuntimeError, || {
            let step = |context: &EvalContext<'_>,
                        state: Option<&mut (dyn OpState + 'static)>,
                        node: &TypedNode,
                        inputs: TVec<TValue>| {
                if !go_on() {
                    return Err(TractError::msg("the call is over"));
                }
                eval(context, state, node, inputs)
            };
            self.plan.spawn()?.run_plan_with_eval(values, step)
        })?;
        self.outputs.iter().zip(found).map(|(name, value)| Ok((name.clone(), output(&value)?))).collect()
    }
}

/// Whether no tensor says that it has more elements than the model has bytes: room is made by what it says.
fn sizes_are_true(graph: &pb::GraphProto, model_bytes: usize) -> bool {
    let elements = |tensor: &pb::TensorProto| {
        tensor.dims.iter().try_fold(1_usize, |all, size| all.checked_mul(usize::try_from(*size).ok()?))
    };
    let is_true = |tensor: &pb::TensorProto| elements(tensor).is_some_and(|all| all <= model_bytes);
    let attributes = || graph.node.iter().flat_map(|node| &node.attribute);
    graph.initializer.iter().all(is_true)
        && attributes().flat_map(|attribute| attribute.t.iter().chain(&attribute.tensors)).all(is_true)
        && attributes()
            .flat_map(|attribute| attribute.g.iter().chain(&attribute.graphs))
            .all(|inner| sizes_are_true(inner, model_bytes))
}

fn inputs(model: &InferenceModel) -> Result<Vec<Input>, Failure> {
    let input = |at: &OutletId| {
        let name = model.node(at.node).name.clone();
        let fact = guarded(ErrorCode::InvalidEncoding, || Ok(model.outlet_fact(*at)?.clone()))?;
        let shape = fact.shape.as_concrete_finite().ok().flatten();
        let (Some(shape), Some(ty)) = (shape, fact.datum_type.concretize()) else {
            let why = format!("input `{name}` has no fixed dimensions and type");
            return Err(Failure::new(ErrorCode::UnsupportedOperation, why));
        };
        Ok(Input { name, shape: shape.to_vec(), ty })
    };
    model
        .input_outlets()
        .map_err(|error| Failure::new(ErrorCode::InvalidEncoding, error.to_string()))?
        .iter()
        .map(input)
        .collect()
}

/// Whether everything that an inference computes, all kept until its end, takes no more than `bytes_max`.
fn fits(model: &TypedModel, bytes_max: usize) -> Result<(), Failure> {
    let mut all = 0_usize;
    for node in &model.nodes {
        for output in &node.outputs {
            if output.fact.konst.is_some() {
                continue;
            }
            let Some(shape) = output.fact.shape.as_concrete() else {
                let why = format!("what `{}` computes has no fixed dimensions", node.name);
                return Err(Failure::new(ErrorCode::UnsupportedOperation, why));
            };
            let element = output.fact.datum_type.size_of();
            let bytes = shape.iter().try_fold(element, |all, size| all.checked_mul(*size));
            all = bytes.map_or(usize::MAX, |bytes| all.saturating_add(bytes));
        }
    }
    if all > bytes_max { Err(Failure::no_room(bytes_max)) } else { Ok(()) }
}

impl Input {
    fn value(&self, given: &[(String, GuestTensor)]) -> Result<TValue, Failure> {
        let wrong = |why: String| Failure::new(ErrorCode::InvalidArgument, why);
        let name = &self.name;
        let (_, tensor) = given
            .iter()
            .find(|(given, _)| given == name)
            .ok_or_else(|| wrong(format!("the model's input `{name}` is not given")))?;
        if datum_type(tensor.ty) != Some(self.ty) {
            return Err(wrong(format!("input `{name}` is of {:?}, not {:?}", self.ty, tensor.ty)));
        }
        let same =
            |(given, wanted): (&u32, &usize)| usize::try_from(*given).is_ok_and(|given| given == *wanted);
        let shape = &tensor.dimensions;
        if shape.len() != self.shape.len() || !shape.iter().zip(&self.shape).all(same) {
            return Err(wrong(format!("input `{name}` has the dimensions {:?}, not {shape:?}", self.shape)));
        }
        let mut value = guarded(ErrorCode::RuntimeError, || Tensor::zero_dt(self.ty, &self.shape))?;
        let room = value.as_bytes_mut();
        if room.len() != tensor.data.len() {
            let (wanted, given) = (room.len(), tensor.data.len());
            return Err(wrong(format!("input `{name}` takes {wanted} bytes, not {given}")));
        }
        room.copy_from_slice(&tensor.data);
        Ok(value.into_tvalue())
    }
}

fn output(value: &Tensor) -> Result<Output, Failure> {
    let unfit = || {
        let why = format!("wasi-nn has no tensor for an output of {:?}", value.datum_type());
        Failure::new(ErrorCode::UnsupportedOperation, why)
    };
    let ty = tensor_type(value.datum_type()).ok_or_else(unfit)?;
    let shape: Option<Vec<u32>> = value.shape().iter().map(|size| u32::try_from(*size).ok()).collect();
    Ok((shape.ok_or_else(unfit)?, ty, value.as_bytes().to_vec()))
}

fn datum_type(ty: TensorType) -> Option<DatumType> {
    Some(match ty {
        TensorType::Fp16 => DatumType::F16,
        TensorType::Fp32 => DatumType::F32,
        TensorType::Fp64 => DatumType::F64,
        TensorType::U8 => DatumType::U8,
        TensorType::I32 => DatumType::I32,
        TensorType::I64 => DatumType::I64,
        TensorType::Bf16 => return None,
    })
}

fn tensor_type(ty: DatumType) -> Option<TensorType> {
    Some(match ty {
        DatumType::F16 => TensorType::Fp16,
        DatumType::F32 => TensorType::Fp32,
        DatumType::F64 => TensorType::Fp64,
        DatumType::U8 => TensorType::U8,
        DatumType::I32 => TensorType::I32,
        DatumType::I64 => TensorType::I64,
        _ => return None,
    })
}
