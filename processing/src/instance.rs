//! One operation's operator: an instance of its module, initialised once, and begun anew when it crashed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use processing_core::graph::Kind;
use processing_core::item::Data;
use processing_core::operator::{Operator, OperatorError};
use processing_core::time::Hlc;
use wasmtime::component::{ComponentNamedList, ComponentType, Instance as Linked, Lift, Lower, TypedFunc};
use wasmtime::{Store, UpdateDeadline};

use crate::bindings::wasm_graph::processor::hybrid_logical_clock::HybridLogicalClock;
pub use crate::bindings::wasm_graph::processor::types::ModuleSchema;
use crate::bindings::wasm_graph::processor::types::{DataModel, Error, ModuleConfiguration};
use crate::host::{Host, Identity, State, Used};
use crate::lift::{lift, lift_time};
use crate::limits::Limits;
use crate::lower::{DataParam, TimeParam, lower, lower_time};
use crate::module::{Contract, Exports, Module, ModuleError};
use crate::wasi::Overslept;

/// The longest wait before a crashed operator is begun anew.
const BACK_OFF_MAX: Duration = Duration::from_secs(10);

/// An operation cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The module is not one for this operation.
    #[error(transparent)]
    Module(#[from] ModuleError),
    /// The component cannot be instantiated.
    #[error("it cannot be instantiated: {0}")]
    Instantiate(String),
    /// `process` or `init` have not the types that the contract says.
    #[error("its functions are not those of the contract: {0}")]
    Signature(String),
    /// `init` said false.
    #[error("its init returned false: it refuses its configuration")]
    Refused,
    /// `init` crashed or took too long.
    #[error("its init failed: {0}")]
    Init(OperatorError),
}

/// What `init` is given.
#[derive(Debug, Clone, Default)]
pub struct Configuration {
    /// Keys and values.
    pub properties: Vec<(String, String)>,
    /// The schemas of what comes in.
    pub schemas: Vec<ModuleSchema>,
}

impl Configuration {
    fn lower(&self) -> ModuleConfiguration {
        ModuleConfiguration { properties: self.properties.clone(), module_schemas: self.schemas.clone() }
    }
}

/// An operation's operator.
pub struct Instance {
    host: Host,
    module: Module,
    kind: Kind,
    exports: Exports,
    identity: Identity,
    limits: Arc<Limits>,
    configuration: Configuration,
    live: Option<Live>,
    /// What the instance before had used of what is limited for the operation as a whole.
    used: Option<Used>,
    crashes: u32,
    again_at: Option<Instant>,
}

/// `process`, by contract.
enum Process<A, R> {
    /// It may answer with an error.
    Current(TypedFunc<A, (Result<R, Error>,)>),
    /// It may not.
    Preview(TypedFunc<A, (R,)>),
}

/// What a `process` takes.
trait Arguments: ComponentNamedList + Lower {}
impl<A: ComponentNamedList + Lower> Arguments for A {}

/// What a `process` gives.
trait Answer: ComponentType + Lift + Send + Sync + 'static {}
impl<R: ComponentType + Lift + Send + Sync + 'static> Answer for R {}

impl<A: Arguments, R: Answer> Process<A, R> {
    fn find(linked: &Linked, store: &mut Store<State>, exports: &Exports) -> wasmtime::Result<Self> {
        Ok(match exports.contract {
            Contract::Current => Self::Current(linked.get_typed_func(store, exports.process)?),
            Contract::Preview => Self::Preview(linked.get_typed_func(store, exports.process)?),
        })
    }

    fn call(&self, store: &mut Store<State>, arguments: A) -> wasmtime::Result<Result<R, Error>> {
        Ok(match self {
            Self::Current(function) => function.call(store, arguments)?.0,
            Self::Preview(function) => Ok(function.call(store, arguments)?.0),
        })
    }
}

/// `process`, by kind.
enum Function {
    Map(Process<(DataParam<'static>,), DataModel>),
    Filter(Process<(DataParam<'static>,), bool>),
    Branch(Process<(TimeParam<'static>, DataParam<'static>), bool>),
    Accumulate(Process<(DataParam<'static>, Vec<DataParam<'static>>), DataModel>),
    Delay(Process<(DataParam<'static>, TimeParam<'static>), HybridLogicalClock>),
}

struct Live {
    store: Store<State>,
    function: Function,
    /// With more memory than this it is begun anew after a call.
    recycle_bytes: usize,
}

impl Instance {
    /// Instantiates `module` for an operation and calls its `init`.
    ///
    /// # Errors
    /// A module that does not fit, and an `init` that fails or refuses.
    pub fn start(
        host: &Host,
        module: &Module,
        kind: Kind,
        identity: Identity,
        limits: Arc<Limits>,
        configuration: Configuration,
    ) -> Result<Self, StartError> {
        let exports = module.exports(kind)?;
        let mut instance = Self {
            host: host.clone(),
            module: module.clone(),
            kind,
            exports,
            identity,
            limits,
            configuration,
            live: None,
            used: None,
            crashes: 0,
            again_at: None,
        };
        instance.live = Some(instance.begin()?);
        Ok(instance)
    }

    fn begin(&mut self) -> Result<Live, StartError> {
        let failed = |error: wasmtime::Error| StartError::Instantiate(format!("{error:#}"));
        let used = self.used.take();
        let state = State::new(&self.host, self.identity.clone(), Arc::clone(&self.limits), used);
        let mut store = Store::new(&self.host.engine, state);
        store.limiter(|state| state);
        store.epoch_deadline_callback(|mut context| {
            Ok(match context.data_mut().tick() {
                true => UpdateDeadline::Continue(1),
                false => UpdateDeadline::Interrupt,
            })
        });
        let (limits, running) = (&self.limits, self.host.running.clone());
        let _running = running.enter();
        store.data_mut().begin_call(limits.init_max);
        store.set_epoch_deadline(1);
        let linked = self.module.pre.instantiate(&mut store).map_err(failed)?;
        let init: TypedFunc<(&ModuleConfiguration,), (bool,)> = linked
            .get_typed_func(&mut store, self.exports.init)
            .map_err(|error| StartError::Signature(format!("{error:#}")))?;
        let exports = &self.exports;
        let function = match self.kind {
            Kind::Filter => Process::find(&linked, &mut store, exports).map(Function::Filter),
            Kind::Branch => Process::find(&linked, &mut store, exports).map(Function::Branch),
            Kind::Accumulate => Process::find(&linked, &mut store, exports).map(Function::Accumulate),
            Kind::Delay => Process::find(&linked, &mut store, exports).map(Function::Delay),
            _ => Process::find(&linked, &mut store, exports).map(Function::Map),
        };
        let function = function.map_err(|error| StartError::Signature(format!("{error:#}")))?;
        let configuration = self.configuration.lower();
        let error = match init.call(&mut store, (&configuration,)) {
            Ok((true,)) => {
                let recycle_bytes = limits.recycle_bytes(store.data().memory_bytes());
                return Ok(Live { store, function, recycle_bytes });
            }
            Ok((false,)) => StartError::Refused,
            Err(error) => StartError::Init(cause(&store, &error, limits, limits.init_max)),
        };
        self.used = Some(store.into_data().into_used());
        Err(error)
    }

    /// The live instance; begun anew when the wait after a crash is over.
    fn live(&mut self) -> Result<&mut Live, OperatorError> {
        if self.live.is_none() {
            if self.again_at.is_some_and(|at| Instant::now() < at) {
                return Err(OperatorError::Unavailable("it is started again in a moment".to_owned()));
            }
            match self.begin() {
                Ok(live) => {
                    self.live = Some(live);
                    self.count("restarted");
                }
                Err(error) => {
                    tracing::error!(graph = %self.identity.graph, operation = %self.identity.operation,
                        "the operator cannot be started again: {error}");
                    self.wait();
                }
            }
        }
        self.live
            .as_mut()
            .ok_or_else(|| OperatorError::Unavailable("it could not be started again".to_owned()))
    }

    /// The instance has grown: another takes its place, before its growth becomes a crash.
    fn recycle(&mut self) {
        tracing::debug!(graph = %self.identity.graph, operation = %self.identity.operation,
            memory_bytes = self.memory_bytes(), "the operator has grown and is begun anew");
        self.used = self.live.take().map(|live| live.store.into_data().into_used());
        self.count("recycled");
        match self.begin() {
            Ok(live) => self.live = Some(live),
            Err(error) => {
                tracing::error!(graph = %self.identity.graph, operation = %self.identity.operation,
                    "the operator cannot be begun anew: {error}");
                self.wait();
            }
        }
    }

    fn wait(&mut self) {
        let wait = self.limits.restart_wait_min.saturating_mul(1 << self.crashes.min(16)).min(BACK_OFF_MAX);
        self.crashes = self.crashes.saturating_add(1);
        self.again_at = Some(Instant::now() + wait);
    }

    fn count(&self, what: &'static str) {
        metrics::counter!("forebay_operator_instances_total", "dataflow_id" => self.identity.graph.to_string(),
            "operation" => self.identity.operation.to_string(), "event" => what)
        .increment(1);
    }

    /// Makes one call; after a crash the instance is gone.
    fn call<T>(
        &mut self,
        call: impl FnOnce(&mut Live) -> wasmtime::Result<Result<T, Error>>,
    ) -> Result<T, OperatorError> {
        let running = self.host.running.clone();
        let limits = Arc::clone(&self.limits);
        let max = limits.call_max;
        let live = self.live()?;
        live.store.data_mut().begin_call(max);
        live.store.set_epoch_deadline(1);
        let result = {
            let _running = running.enter();
            call(live)
        };
        match result {
            Ok(result) => {
                let has_grown = live.store.data().memory_bytes() > live.recycle_bytes;
                self.crashes = 0;
                if has_grown {
                    self.recycle();
                }
                result.map_err(|error| OperatorError::Failed(error.message))
            }
            Err(error) => {
                let cause = cause(&live.store, &error, &limits, max);
                tracing::error!(graph = %self.identity.graph, operation = %self.identity.operation,
                    "the operator is ended: {cause}");
                // A crash gives no new metrics and no new log lines.
                self.used = self.live.take().map(|live| live.store.into_data().into_used());
                self.wait();
                self.count(cause.reason());
                metrics::counter!("aio_dataflow_graph_module_exit", "dataflow_id" => self.identity.graph.to_string())
                    .increment(1);
                Err(cause)
            }
        }
    }
}

fn cause(store: &Store<State>, error: &wasmtime::Error, limits: &Limits, max: Duration) -> OperatorError {
    let state = store.data();
    if state.call.overdue || error.is::<Overslept>() {
        return OperatorError::Deadline(max);
    }
    if state.memory_refused {
        return OperatorError::Memory(limits.memory_bytes_max);
    }
    let message = error.root_cause().to_string();
    OperatorError::Trapped { message, backtrace: Vec::new() }
}

/// Who made the timestamp that comes with an item's data.
fn node(data: &Data) -> Option<&Arc<str>> {
    match data {
        Data::Message(message) => Some(&message.timestamp.node),
        Data::Snapshot(snapshot) => Some(&snapshot.timestamp.node),
        Data::Bytes(_) => None,
    }
}

fn wrong_kind<T>() -> wasmtime::Result<Result<T, Error>> {
    Err(wasmtime::Error::msg("the engine called an operator of another kind"))
}

impl Operator for Instance {
    fn memory_bytes(&self) -> usize {
        self.live.as_ref().map_or(0, |live| live.store.data().memory_bytes())
    }

    fn map(&mut self, data: Data) -> Result<Data, OperatorError> {
        self.call(|Live { store, function, .. }| {
            let Function::Map(function) = function else { return wrong_kind() };
            let lowered = lower(&data, &mut store.data_mut().table)?;
            match function.call(store, (lowered,))? {
                Ok(made) => Ok(Ok(lift(made, node(&data), &mut store.data_mut().table)?)),
                Err(error) => Ok(Err(error)),
            }
        })
    }

    fn filter(&mut self, data: &Data) -> Result<bool, OperatorError> {
        self.call(|Live { store, function, .. }| {
            let Function::Filter(function) = function else { return wrong_kind() };
            let lowered = lower(data, &mut store.data_mut().table)?;
            function.call(store, (lowered,))
        })
    }

    fn branch(&mut self, time: &Hlc, data: &Data) -> Result<bool, OperatorError> {
        self.call(|Live { store, function, .. }| {
            let Function::Branch(function) = function else { return wrong_kind() };
            let lowered = lower(data, &mut store.data_mut().table)?;
            function.call(store, (lower_time(time), lowered))
        })
    }

    fn accumulate(&mut self, staged: &Data, batch: &[Data]) -> Result<Data, OperatorError> {
        self.call(|Live { store, function, .. }| {
            let Function::Accumulate(function) = function else { return wrong_kind() };
            let table = &mut store.data_mut().table;
            let node = node(staged);
            let staged = lower(staged, table)?;
            let batch = batch.iter().map(|data| lower(data, table)).collect::<wasmtime::Result<Vec<_>>>()?;
            match function.call(store, (staged, batch))? {
                Ok(made) => Ok(Ok(lift(made, node, &mut store.data_mut().table)?)),
                Err(error) => Ok(Err(error)),
            }
        })
    }

    fn delay(&mut self, data: &Data, time: &Hlc) -> Result<Hlc, OperatorError> {
        self.call(|Live { store, function, .. }| {
            let Function::Delay(function) = function else { return wrong_kind() };
            let lowered = lower(data, &mut store.data_mut().table)?;
            Ok(function.call(store, (lowered, lower_time(time)))?.map(lift_time))
        })
    }
}
