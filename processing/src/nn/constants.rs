//! How much room the constants of a model take.
//!
//! What a model computes from constants alone, `tract` computes when it reads the model, and makes room as the model
//! says: a handful of bytes can say `ConstantOfShape` of any size. So the sizes are worked out first, from what is
//! written in the file, never by computing.

use std::collections::HashMap;

use tract_onnx::pb;

/// Longest list of numbers whose values are followed: dimensions of something.
const VALUES_MAX: usize = 64;
/// Room for one element, bytes: the largest type.
const ELEMENT_BYTES: u64 = 16;
/// Deeper than anybody nests graphs.
const DEPTH_MAX: usize = 8;

/// Why a model is not read.
#[derive(Debug, PartialEq, Eq)]
pub enum Unfit {
    /// Its constants would take more than they may.
    TooLarge,
    /// It breaks a rule of the format, or how large it gets cannot be told.
    Unclear(String),
}

/// What is known of a constant.
#[derive(Debug, Clone, Default)]
struct Constant {
    /// It has no more elements than this.
    elements: u64,
    /// Its dimensions, where they are known.
    dims: Option<Vec<u64>>,
    /// Its values, where they are known and whole numbers.
    values: Option<Vec<i64>>,
}

impl Constant {
    fn of_size(elements: u64) -> Self {
        Self { elements, ..Self::default() }
    }

    fn of_tensor(tensor: &pb::TensorProto) -> Self {
        let dims: Vec<u64> =
            tensor.dims.iter().map(|size| u64::try_from(*size).unwrap_or(u64::MAX)).collect();
        Self { elements: product(&dims), values: whole_numbers(tensor), dims: Some(dims) }
    }
}

/// Names of values; `None` for what is not constant.
type Known<'a> = HashMap<&'a str, Option<Constant>>;

/// Whether the constants of a model take no more than `bytes_max`.
///
/// # Errors
/// That they do, or that it cannot be told.
pub fn fit(graph: &pb::GraphProto, bytes_max: usize) -> Result<(), Unfit> {
    let mut left = u64::try_from(bytes_max).unwrap_or(u64::MAX);
    walk(graph, &HashMap::new(), &mut left, 0)
}

fn walk<'a>(graph: &'a pb::GraphProto, outer: &Known<'a>, left: &mut u64, depth: usize) -> Result<(), Unfit> {
    if depth > DEPTH_MAX {
        return Err(Unfit::Unclear("its graphs are nested too deeply".to_owned()));
    }
    let mut known = outer.clone();
    let initializers =
        graph.initializer.iter().map(|tensor| (&*tensor.name, Some(Constant::of_tensor(tensor))));
    known.extend(graph.input.iter().map(|input| (&*input.name, None)).chain(initializers));
    for node in &graph.node {
        let mut inputs = Vec::new();
        for name in node.input.iter().filter(|name| !name.is_empty()) {
            let input = known.get(name.as_str());
            inputs.push(input.ok_or_else(|| Unfit::Unclear(format!("`{name}` is used before it is made")))?);
        }
        for inner in node.attribute.iter().flat_map(|attribute| attribute.g.iter().chain(&attribute.graphs)) {
            walk(inner, &known, left, depth + 1)?;
        }
        let made = match inputs.iter().map(|input| input.as_ref()).collect::<Option<Vec<_>>>() {
            Some(inputs) => Some(fold(node, &inputs)?),
            // The dimensions of what is computed later are known already.
            None if matches!(&*node.op_type, "Shape" | "Size") => Some(Constant::of_size(VALUES_MAX as u64)),
            None => None,
        };
        for output in node.output.iter().filter(|name| !name.is_empty()) {
            let bytes = made.as_ref().map_or(0, |made| made.elements.saturating_mul(ELEMENT_BYTES));
            *left = left.checked_sub(bytes).ok_or(Unfit::TooLarge)?;
            if known.insert(output, made.clone()).is_some() {
                return Err(Unfit::Unclear(format!("`{output}` is made twice")));
            }
        }
    }
    Ok(())
}

/// What an operation makes of constants.
fn fold(node: &pb::NodeProto, inputs: &[&Constant]) -> Result<Constant, Unfit> {
    let unclear = || {
        Unfit::Unclear(format!(
            "how much `{}` ({}) makes of constants cannot be told",
            node.name, node.op_type
        ))
    };
    let sum = || inputs.iter().fold(0_u64, |all, input| all.saturating_add(input.elements));
    let values = |at: usize| inputs.get(at).and_then(|input| input.values.as_deref()).ok_or_else(unclear);
    let elements = |at: usize| inputs.get(at).map(|input| input.elements).ok_or_else(unclear);
    Ok(match &*node.op_type {
        "Constant" => literal(node).ok_or_else(unclear)?,
        "ConstantOfShape" => Constant::of_size(sizes(values(0)?)),
        "Expand" | "Tile" => Constant::of_size(elements(0)?.saturating_mul(sizes(values(1)?))),
        "Range" => {
            let (from, to, step) = (single(values(0)?), single(values(1)?), single(values(2)?));
            let (Some(from), Some(to), Some(step)) = (from, to, step) else { return Err(unclear()) };
            Constant::of_size(from.abs_diff(to) / step.unsigned_abs().max(1) + 1)
        }
        // The same numbers, perhaps of another type or in other dimensions.
        "Identity" | "Cast" | "Squeeze" | "Unsqueeze" | "Reshape" | "Flatten" => {
            let of = *inputs.first().ok_or_else(unclear)?;
            Constant { elements: of.elements, dims: None, values: of.values.clone() }
        }
        "Concat" => {
            let lists: Option<Vec<&[i64]>> = inputs.iter().map(|input| input.values.as_deref()).collect();
            let values = lists.map(|lists| lists.concat()).filter(|values| values.len() <= VALUES_MAX);
            Constant { elements: sum(), dims: None, values }
        }
        op if NOT_MORE.contains(&op) => Constant::of_size(sum()),
        op if BROADCASTING.contains(&op) => broadcast(inputs),
        "Gather" | "GatherElements" | "GatherND" | "MatMul" | "Gemm" => {
            Constant::of_size(inputs.iter().fold(1, |all, input| all.saturating_mul(input.elements)))
        }
        _ => return Err(unclear()),
    })
}

/// Operations that never make more elements than they are given.
const NOT_MORE: &[&str] = &[
    "Abs",
    "Acos",
    "Acosh",
    "ArgMax",
    "ArgMin",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "BatchNormalization",
    "BitwiseNot",
    "Ceil",
    "Clip",
    "Cos",
    "Cosh",
    "CumSum",
    "DepthToSpace",
    "DequantizeLinear",
    "Dropout",
    "Elu",
    "Erf",
    "Exp",
    "Floor",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "IsInf",
    "IsNaN",
    "LayerNormalization",
    "LeakyRelu",
    "Log",
    "LogSoftmax",
    "Neg",
    "Not",
    "QuantizeLinear",
    "Reciprocal",
    "ReduceL1",
    "ReduceL2",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
    "Relu",
    "Round",
    "Selu",
    "Shape",
    "Sigmoid",
    "Sign",
    "Sin",
    "Sinh",
    "Size",
    "Slice",
    "Softmax",
    "Softplus",
    "Softsign",
    "SpaceToDepth",
    "Split",
    "Sqrt",
    "Tan",
    "Tanh",
    "Transpose",
    "Trilu",
];

/// Operations on several inputs, whose dimensions are brought to the same size.
const BROADCASTING: &[&str] = &[
    "Add",
    "And",
    "BitShift",
    "BitwiseAnd",
    "BitwiseOr",
    "BitwiseXor",
    "Div",
    "Equal",
    "Greater",
    "GreaterOrEqual",
    "Less",
    "LessOrEqual",
    "Max",
    "Mean",
    "Min",
    "Mod",
    "Mul",
    "Or",
    "PRelu",
    "Pow",
    "Sub",
    "Sum",
    "Where",
    "Xor",
];

/// Inputs of different dimensions, each stretched to the largest.
fn broadcast(inputs: &[&Constant]) -> Constant {
    let mut dims: Vec<u64> = Vec::new();
    for input in inputs {
        let Some(own) = &input.dims else {
            // Not known: at worst each stretches all others.
            return Constant::of_size(inputs.iter().fold(1, |all, input| all.saturating_mul(input.elements)));
        };
        let longer = own.len().max(dims.len());
        dims = (0..longer)
            .rev()
            .map(|from_end| {
                let of = |dims: &[u64]| dims.len().checked_sub(from_end + 1).map_or(1, |at| dims[at]);
                of(own).max(of(&dims))
            })
            .collect();
    }
    Constant { elements: product(&dims), dims: Some(dims), values: None }
}

/// What an operation `Constant` says.
fn literal(node: &pb::NodeProto) -> Option<Constant> {
    let attribute = node.attribute.iter().find(|attribute| attribute.name.starts_with("value"))?;
    let list = |len: usize| Constant::of_size(u64::try_from(len).unwrap_or(u64::MAX));
    Some(match &*attribute.name {
        "value" => Constant::of_tensor(attribute.t.as_ref()?),
        "value_int" => Constant { elements: 1, dims: Some(Vec::new()), values: Some(vec![attribute.i]) },
        "value_ints" => Constant { values: Some(attribute.ints.clone()), ..list(attribute.ints.len()) },
        "value_float" => list(1),
        "value_floats" => list(attribute.floats.len()),
        _ => return None,
    })
}

fn product(dims: &[u64]) -> u64 {
    dims.iter().fold(1, |all, size| all.saturating_mul(*size))
}

/// The product of sizes that a model computes; what is negative stands for something that is there already.
fn sizes(values: &[i64]) -> u64 {
    values.iter().fold(1, |all, size| all.saturating_mul(u64::try_from(*size).unwrap_or(1)))
}

fn single(values: &[i64]) -> Option<i64> {
    values.first().copied().filter(|_| values.len() == 1)
}

/// The values of a short tensor of whole numbers.
fn whole_numbers(tensor: &pb::TensorProto) -> Option<Vec<i64>> {
    const INT32: i32 = 6;
    const INT64: i32 = 7;
    let count =
        tensor.dims.iter().try_fold(1_usize, |all, size| all.checked_mul(usize::try_from(*size).ok()?))?;
    if count > VALUES_MAX {
        return None;
    }
    let raw = &tensor.raw_data;
    let values: Vec<i64> = match tensor.data_type {
        INT64 if raw.is_empty() => tensor.int64_data.clone(),
        INT32 if raw.is_empty() => tensor.int32_data.iter().map(|value| i64::from(*value)).collect(),
        INT64 => raw.as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect(),
        INT32 => raw.as_chunks().0.iter().map(|bytes| i64::from(i32::from_le_bytes(*bytes))).collect(),
        _ => return None,
    };
    (values.len() == count).then_some(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: usize = 1 << 20;

    fn tensor(name: &str, values: &[i64]) -> pb::TensorProto {
        pb::TensorProto {
            name: name.to_owned(),
            dims: vec![values.len() as i64],
            data_type: 7,
            int64_data: values.to_vec(),
            ..Default::default()
        }
    }

    fn weights(name: &str, dims: &[i64]) -> pb::TensorProto {
        pb::TensorProto { name: name.to_owned(), dims: dims.to_vec(), data_type: 1, ..Default::default() }
    }

    fn node(op: &str, inputs: &[&str], output: &str) -> pb::NodeProto {
        pb::NodeProto {
            op_type: op.to_owned(),
            name: op.to_lowercase(),
            input: inputs.iter().map(|name| (*name).to_owned()).collect(),
            output: vec![output.to_owned()],
            ..Default::default()
        }
    }

    fn graph(initializer: Vec<pb::TensorProto>, nodes: Vec<pb::NodeProto>) -> pb::GraphProto {
        let input = vec![pb::ValueInfoProto { name: "x".to_owned(), ..Default::default() }];
        pb::GraphProto { input, initializer, node: nodes, ..Default::default() }
    }

    #[test]
    fn a_few_bytes_that_ask_for_much_get_nothing() {
        let huge = [1 << 20, 1 << 20];
        for nodes in [
            vec![node("ConstantOfShape", &["huge"], "y")],
            vec![node("Expand", &["one", "huge"], "y")],
            vec![node("Tile", &["one", "huge"], "y")],
            vec![node("Identity", &["huge"], "same"), node("ConstantOfShape", &["same"], "y")],
            vec![node("Range", &["zero", "billion", "one"], "y")],
            vec![node("Add", &["tall", "wide"], "y")],
            vec![node("MatMul", &["tall", "wide"], "y")],
        ] {
            let initializer = vec![
                tensor("huge", &huge),
                tensor("zero", &[0]),
                tensor("one", &[1]),
                tensor("billion", &[1 << 30]),
                weights("tall", &[1 << 12, 1]),
                weights("wide", &[1, 1 << 12]),
            ];
            let graph = graph(initializer, nodes);
            assert_eq!(fit(&graph, ROOM), Err(Unfit::TooLarge), "{:?}", graph.node);
        }
    }

    #[test]
    fn what_cannot_be_told_is_refused() {
        for nodes in [
            vec![node("Mul", &["a", "a"], "b"), node("ConstantOfShape", &["b"], "y")],
            vec![node("Shape", &["x"], "s"), node("ConstantOfShape", &["s"], "y")],
            vec![node("RandomNormal", &[], "y")],
            vec![node("ConstantOfShape", &["later"], "y"), node("Identity", &["a"], "later")],
            vec![node("Identity", &["a"], "y"), node("Identity", &["a"], "y")],
        ] {
            let graph = graph(vec![tensor("a", &[1 << 20])], nodes);
            assert!(matches!(fit(&graph, ROOM), Err(Unfit::Unclear(_))), "{:?}", graph.node);
        }
    }

    #[test]
    fn what_models_do_with_constants_is_fine() {
        let nodes = vec![
            node("Conv", &["x", "w"], "c"),
            node("Shape", &["c"], "s"),
            node("Gather", &["s", "zero"], "batch"),
            node("Unsqueeze", &["batch", "zero"], "first"),
            node("Concat", &["first", "rest"], "shape"),
            node("Reshape", &["c", "shape"], "flat"),
            node("Mul", &["w", "scale"], "scaled"),
            node("ConstantOfShape", &["rest"], "zeros"),
            node("RandomNormalLike", &["flat"], "y"),
        ];
        let initializer = vec![
            weights("w", &[64, 3, 3, 3]),
            weights("scale", &[64, 1, 1, 1]),
            tensor("zero", &[0]),
            tensor("rest", &[64, 49]),
        ];
        assert_eq!(fit(&graph(initializer, nodes), ROOM), Ok(()));
    }
}
