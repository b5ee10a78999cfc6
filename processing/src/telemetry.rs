//! What guests call most, the log and their metrics: strings are read where they lie in the guest's memory, and a
//! metric that is known already is found without making anything.

use std::borrow::Cow;
use std::collections::HashSet;
use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use metrics::{Counter, Histogram};
use parking_lot::Mutex;
use smallvec::SmallVec;
use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Lift, Linker, LinkerInstance, WasmList, WasmStr};

use crate::bindings::wasm_graph::processor::logger::Level;
use crate::bindings::wasm_graph::processor::metrics::{CounterValue, HistogramValue, MetricsError};
use crate::host::{Identity, State};
use crate::module::Contract;

/// Longest metric name, label key or label value.
const NAME_BYTES_MAX: usize = 128;
/// Labels of one metric.
const LABELS_MAX: usize = 16;
/// Labels that are read without asking for memory.
const LABELS_USUAL: usize = 4;

/// Links the logger and the metrics of a contract.
pub fn link(linker: &mut Linker<State>, contract: Contract) -> wasmtime::Result<()> {
    let mut logger = linker.instance(&contract.interface("logger"))?;
    logger.func_wrap("log", |store: Store<'_>, (level, context, message): (Level, WasmStr, WasmStr)| {
        // Before its words are copied.
        if store.data().log.listens(level) {
            store.data().log.line(level, &context.to_str(&store)?, &message.to_str(&store)?);
        }
        Ok(())
    })?;
    link_metrics(&mut linker.instance(&contract.interface("metrics"))?)
}

type Store<'a> = StoreContextMut<'a, State>;
type Labels = Option<WasmList<LabelArgument>>;

/// `label`, in the guest's memory.
#[derive(ComponentType, Lift)]
#[component(record)]
struct LabelArgument {
    key: WasmStr,
    value: WasmStr,
}

fn link_metrics(instance: &mut LinkerInstance<'_, State>) -> wasmtime::Result<()> {
    instance.func_wrap(
        "add-to-counter",
        |store: Store<'_>, (name, value, labels): (WasmStr, CounterValue, Labels)| {
            let CounterValue::U64(value) = value;
            let add = |metric: &Metric| match metric {
                Metric::Counter(counter) => {
                    counter.increment(value);
                    true
                }
                Metric::Histogram(_) => false,
            };
            Ok((record(store, &name, labels.as_ref(), Kind::Counter, add)?,))
        },
    )?;
    instance.func_wrap(
        "record-to-histogram",
        |store: Store<'_>, (name, value, labels): (WasmStr, HistogramValue, Labels)| {
            let value = match value {
                HistogramValue::F64(value) => value,
                HistogramValue::U64(value) => value as f64,
            };
            let add = |metric: &Metric| match metric {
                Metric::Histogram(histogram) => {
                    histogram.record(value);
                    true
                }
                Metric::Counter(_) => false,
            };
            Ok((record(store, &name, labels.as_ref(), Kind::Histogram, add)?,))
        },
    )
}

/// Finds a metric, or makes it, and adds to it; `add` says whether the metric is of the kind it wants.
fn record(
    mut store: Store<'_>,
    name: &WasmStr,
    labels: Option<&WasmList<LabelArgument>>,
    kind: Kind,
    add: impl FnOnce(&Metric) -> bool,
) -> wasmtime::Result<Result<(), MetricsError>> {
    let count = labels.map_or(0, WasmList::len);
    if count > LABELS_MAX {
        return Ok(Err(refused(format!("a metric has up to {LABELS_MAX} labels"))));
    }
    let mut places = SmallVec::<[LabelArgument; LABELS_USUAL]>::new();
    if let Some(labels) = labels {
        for label in labels.iter(&mut store)? {
            places.push(label?);
        }
    }
    let name = name.to_str(&store)?;
    let mut texts = SmallVec::<[Label<'_>; LABELS_USUAL]>::new();
    for label in &places {
        texts.push((label.key.to_str(&store)?, label.value.to_str(&store)?));
    }
    let state = store.data();
    Ok(state.metrics.record(&state.identity, &name, &texts, kind, add))
}

/// The metrics that a guest has made: each name and label set counts once.
pub struct GuestMetrics {
    known: Mutex<HashTable<Known>>,
    hasher: RandomState,
    max: usize,
}

struct Known {
    name: Box<str>,
    labels: Box<[(Box<str>, Box<str>)]>,
    metric: Metric,
}

enum Metric {
    Counter(Counter),
    Histogram(Histogram),
}

/// What is to be made of a metric that is new.
#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Histogram,
}

type Label<'a> = (Cow<'a, str>, Cow<'a, str>);

impl GuestMetrics {
    /// At most `max` different ones.
    pub fn new(max: usize) -> Self {
        Self { known: Mutex::default(), hasher: RandomState::default(), max }
    }

    fn record(
        &self,
        identity: &Identity,
        name: &str,
        labels: &[Label<'_>],
        kind: Kind,
        add: impl FnOnce(&Metric) -> bool,
    ) -> Result<(), MetricsError> {
        let hash = self.hasher.hash_one((name, labels));
        let same = |known: &Known| {
            let pair =
                |((k, v), (key, value)): (&(Box<str>, Box<str>), &Label<'_>)| **k == **key && **v == **value;
            *known.name == *name
                && known.labels.len() == labels.len()
                && known.labels.iter().zip(labels).all(pair)
        };
        let mut known = self.known.lock();
        let added = match known.find(hash, same) {
            Some(found) => add(&found.metric),
            None => {
                check(name, labels, known.len() < self.max)?;
                let metric = kind.make(identity, name, labels);
                let added = add(&metric);
                let labels = labels.iter().map(|(key, value)| (key.as_ref().into(), value.as_ref().into()));
                let new = Known { name: name.into(), labels: labels.collect(), metric };
                known.insert_unique(hash, new, |known| self.hasher.hash_one((&*known.name, &*known.labels)));
                added
            }
        };
        match added {
            true => Ok(()),
            false => Err(MetricsError::IncompatibleType(format!("`{name}` is a metric of another kind"))),
        }
    }
}

impl Kind {
    fn make(self, identity: &Identity, name: &str, labels: &[Label<'_>]) -> Metric {
        let mut all = vec![
            metrics::Label::new("dataflow_id", identity.graph.to_string()),
            metrics::Label::new("operation", identity.operation.to_string()),
        ];
        all.extend(labels.iter().map(|(key, value)| metrics::Label::new(key.to_string(), value.to_string())));
        let name = format!("forebay_operator_{name}");
        match self {
            Self::Counter => Metric::Counter(metrics::counter!(name, all)),
            Self::Histogram => Metric::Histogram(metrics::histogram!(name, all)),
        }
    }
}

fn check(name: &str, labels: &[Label<'_>], room: bool) -> Result<(), MetricsError> {
    let too_long = |text: &str| text.len() > NAME_BYTES_MAX;
    if name.is_empty() || too_long(name) {
        return Err(refused(format!("a metric has a name of 1 to {NAME_BYTES_MAX} bytes")));
    }
    let mut seen = HashSet::from(["dataflow_id", "operation"]);
    for (key, value) in labels {
        if key.is_empty() || too_long(key) || too_long(value) {
            let why = format!("a label has a key of 1 to {NAME_BYTES_MAX} bytes and no longer a value");
            return Err(refused(why));
        }
        if !seen.insert(key) {
            return Err(refused(format!("the label `{key}` comes twice, or is the host's own")));
        }
    }
    match room {
        true => Ok(()),
        false => Err(refused("this operator has as many metrics as it may have".to_owned())),
    }
}

fn refused(why: String) -> MetricsError {
    MetricsError::LockError(why)
}
