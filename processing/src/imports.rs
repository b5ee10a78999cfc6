//! What guests may call (AIO.md §1.5).

use std::collections::HashSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use processing_core::time::Hlc;
use wasmtime::component::{HasSelf, Linker, Resource};

use crate::bindings::Host_;
use crate::bindings::wasm_graph::processor::{
    command_invoker, hybrid_logical_clock, logger, metrics, rpc_types, schema_registry, schema_types,
    state_store, state_store_types, types,
};
use crate::host::{Buffer, State};
use crate::lift::lower_time;
use crate::state_store::{Condition, Set, StoreError};

/// Links the contract's imports.
pub fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    Host_::add_to_linker::<State, HasSelf<State>>(linker, |state| state)?;
    crate::preview::link(linker)
}

impl types::Host for State {}
impl hybrid_logical_clock::Host for State {}
impl state_store_types::Host for State {}
impl schema_types::Host for State {}
impl rpc_types::Host for State {}

impl types::HostBuffer for State {
    fn read(&mut self, buffer: Resource<Buffer>) -> wasmtime::Result<Vec<u8>> {
        Ok(self.table.get(&buffer)?.0.to_vec())
    }

    fn drop(&mut self, buffer: Resource<Buffer>) -> wasmtime::Result<()> {
        self.table.delete(buffer)?;
        Ok(())
    }
}

impl logger::Host for State {
    fn log(&mut self, level: logger::Level, context: String, message: String) -> wasmtime::Result<()> {
        self.log.line(level, &context, &message);
        Ok(())
    }
}

/// The metrics that a guest has made: each name and label set counts once.
#[derive(Debug)]
pub struct GuestMetrics {
    known: std::collections::HashMap<Key, Handle>,
    max: usize,
}

type Key = (String, Vec<(String, String)>);

#[derive(Debug, Clone)]
enum Handle {
    Counter(::metrics::Counter),
    Histogram(::metrics::Histogram),
}

/// Longest metric name, label key or label value.
const NAME_BYTES_MAX: usize = 128;
/// Labels of one metric.
const LABELS_MAX: usize = 16;

impl GuestMetrics {
    /// At most `max` different ones.
    pub fn new(max: usize) -> Self {
        Self { known: std::collections::HashMap::new(), max }
    }

    fn handle(
        &mut self,
        identity: &crate::host::Identity,
        name: String,
        labels: Option<Vec<metrics::Label>>,
        histogram: bool,
    ) -> Result<Handle, metrics::MetricsError> {
        let labels: Vec<(String, String)> =
            labels.unwrap_or_default().into_iter().map(|label| (label.key, label.value)).collect();
        let key = (name, labels);
        if let Some(handle) = self.known.get(&key) {
            return Ok(handle.clone());
        }
        check_metric(&key, self.known.len() < self.max)?;
        let mut all = vec![
            ::metrics::Label::new("dataflow_id", identity.graph.to_string()),
            ::metrics::Label::new("operation", identity.operation.to_string()),
        ];
        let mut seen = HashSet::from(["dataflow_id", "operation"]);
        for (label, value) in &key.1 {
            if !seen.insert(label) {
                return Err(refused(format!("the label `{label}` comes twice, or is the host's own")));
            }
            all.push(::metrics::Label::new(label.clone(), value.clone()));
        }
        let full_name = format!("forebay_operator_{}", key.0);
        let handle = match histogram {
            true => Handle::Histogram(::metrics::histogram!(full_name, all)),
            false => Handle::Counter(::metrics::counter!(full_name, all)),
        };
        self.known.insert(key, handle.clone());
        Ok(handle)
    }
}

fn check_metric((name, labels): &Key, room: bool) -> Result<(), metrics::MetricsError> {
    let too_long = |text: &str| text.len() > NAME_BYTES_MAX;
    if name.is_empty() || too_long(name) || labels.len() > LABELS_MAX {
        return Err(refused(format!(
            "a metric has a name of 1 to {NAME_BYTES_MAX} bytes and up to {LABELS_MAX} labels"
        )));
    }
    if labels.iter().any(|(key, value)| key.is_empty() || too_long(key) || too_long(value)) {
        return Err(refused(format!(
            "a label has a key of 1 to {NAME_BYTES_MAX} bytes and no longer a value"
        )));
    }
    if !room {
        return Err(refused("this operator has as many metrics as it may have".to_owned()));
    }
    Ok(())
}

fn refused(why: String) -> metrics::MetricsError {
    metrics::MetricsError::LockError(why)
}

fn wrong_type(name: &str) -> metrics::MetricsError {
    metrics::MetricsError::IncompatibleType(format!("`{name}` is a metric of another kind"))
}

impl metrics::Host for State {
    fn add_to_counter(
        &mut self,
        name: String,
        metrics::CounterValue::U64(value): metrics::CounterValue,
        labels: Option<Vec<metrics::Label>>,
    ) -> wasmtime::Result<Result<(), metrics::MetricsError>> {
        Ok(match self.metrics.handle(&self.identity, name.clone(), labels, false) {
            Ok(Handle::Counter(counter)) => {
                counter.increment(value);
                Ok(())
            }
            Ok(Handle::Histogram(_)) => Err(wrong_type(&name)),
            Err(error) => Err(error),
        })
    }

    fn record_to_histogram(
        &mut self,
        name: String,
        value: metrics::HistogramValue,
        labels: Option<Vec<metrics::Label>>,
    ) -> wasmtime::Result<Result<(), metrics::MetricsError>> {
        let value = match value {
            metrics::HistogramValue::F64(value) => value,
            metrics::HistogramValue::U64(value) => value as f64,
        };
        Ok(match self.metrics.handle(&self.identity, name.clone(), labels, true) {
            Ok(Handle::Histogram(histogram)) => {
                histogram.record(value);
                Ok(())
            }
            Ok(Handle::Counter(_)) => Err(wrong_type(&name)),
            Err(error) => Err(error),
        })
    }
}

type Clock = hybrid_logical_clock::HybridLogicalClock;
type Wait = Option<state_store_types::Duration>;
type Stored<T> = wasmtime::Result<Result<T, state_store_types::StateStoreError>>;

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn time(clock: Clock) -> Hlc {
    let Clock { timestamp, counter, node_id } = clock;
    Hlc { secs: timestamp.secs, nanos: timestamp.nanos, counter, node: node_id.into() }
}

fn failed(error: StoreError) -> state_store_types::StateStoreError {
    state_store_types::StateStoreError::RequestError(error.to_string())
}

// The store is a function call away: a timeout has nothing to wait for.
impl state_store::Host for State {
    fn get(&mut self, key: Vec<u8>, _timeout: Wait) -> Stored<state_store_types::StateStoreGetResponse> {
        Ok(self.state_store.get(&key, now()).map_err(failed).map(|found| {
            let (response, version) = found.unzip();
            state_store_types::StateStoreGetResponse { response, version: version.as_ref().map(lower_time) }
        }))
    }

    fn set(
        &mut self,
        key: Vec<u8>,
        value: Vec<u8>,
        _timeout: Wait,
        fencing_token: Option<Clock>,
        options: state_store_types::SetOptions,
    ) -> Stored<state_store_types::StateStoreSetResponse> {
        use state_store_types::SetConditions;
        let set = Set {
            key: &key,
            value: &value,
            condition: match options.conditions {
                SetConditions::OnlyIfDoesNotExist => Condition::IfAbsent,
                SetConditions::OnlyIfEqualOrDoesNotExist => Condition::IfAbsentOrEqual,
                SetConditions::Unconditional => Condition::Unconditional,
            },
            expires: options
                .expires
                .map(|d| Duration::new(d.seconds, 0) + Duration::from_nanos(d.nanos.into())),
            token: fencing_token.map(time),
        };
        Ok(self.state_store.set(&set, now()).map_err(failed).map(|version| {
            let response = version.is_some();
            state_store_types::StateStoreSetResponse { response, version: version.as_ref().map(lower_time) }
        }))
    }

    fn del(
        &mut self,
        key: Vec<u8>,
        fencing_token: Option<Clock>,
        _timeout: Wait,
    ) -> Stored<state_store_types::StateStoreDelResponse> {
        Ok(self.delete(&key, None, fencing_token))
    }

    fn vdel(
        &mut self,
        key: Vec<u8>,
        value: Vec<u8>,
        fencing_token: Option<Clock>,
        _timeout: Wait,
    ) -> Stored<state_store_types::StateStoreDelResponse> {
        Ok(self.delete(&key, Some(&value), fencing_token))
    }
}

impl State {
    fn delete(
        &self,
        key: &[u8],
        value: Option<&[u8]>,
        token: Option<Clock>,
    ) -> Result<state_store_types::StateStoreDelResponse, state_store_types::StateStoreError> {
        let (response, version) =
            self.state_store.delete(key, value, token.map(time).as_ref(), now()).map_err(failed)?;
        Ok(state_store_types::StateStoreDelResponse { response, version: version.as_ref().map(lower_time) })
    }
}

impl schema_registry::Host for State {
    /// No schema registry is configured.
    fn get(
        &mut self,
        _id: String,
        _version: String,
        _timeout: schema_types::Duration,
    ) -> wasmtime::Result<Result<schema_types::Schema, schema_types::SchemaError>> {
        Ok(Err(schema_types::SchemaError::NotAvailable))
    }
}

// Remote calls are not configured: builders are refused with the error that says so, and nothing can be made.
type Built<T> = wasmtime::Result<Result<Resource<T>, rpc_types::RpcError>>;
const NO_RPC: rpc_types::RpcError = rpc_types::RpcError::ConfigurationInvalid;
type Request = rpc_types::CommandRequestBuilder;
type InvokerOptions = rpc_types::CommandInvokerOptionsBuilder;
type Pairs = Vec<(String, String)>;

impl rpc_types::HostCommandRequest for State {
    fn drop(&mut self, _: Resource<rpc_types::CommandRequest>) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl rpc_types::HostCommandRequestBuilder for State {
    fn new(&mut self) -> wasmtime::Result<Resource<Request>> {
        Ok(Resource::new_own(0))
    }
    fn payload(&mut self, _: Resource<Request>, _: Vec<u8>) -> Built<Request> {
        Ok(Err(NO_RPC))
    }
    fn custom_user_data(&mut self, _: Resource<Request>, _: Pairs) -> Built<Request> {
        Ok(Err(NO_RPC))
    }
    fn topic_tokens(&mut self, _: Resource<Request>, _: Pairs) -> Built<Request> {
        Ok(Err(NO_RPC))
    }
    fn timeout(&mut self, _: Resource<Request>, _: u64, _: u32) -> Built<Request> {
        Ok(Err(NO_RPC))
    }
    fn build(&mut self, _: Resource<Request>) -> Built<rpc_types::CommandRequest> {
        Ok(Err(NO_RPC))
    }
    fn drop(&mut self, _: Resource<Request>) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl rpc_types::HostCommandInvokerOptions for State {
    fn drop(&mut self, _: Resource<rpc_types::CommandInvokerOptions>) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl rpc_types::HostCommandInvokerOptionsBuilder for State {
    fn new(&mut self) -> wasmtime::Result<Resource<InvokerOptions>> {
        Ok(Resource::new_own(0))
    }
    fn request_topic_pattern(&mut self, _: Resource<InvokerOptions>, _: String) -> Built<InvokerOptions> {
        Ok(Err(NO_RPC))
    }
    fn response_topic_pattern(&mut self, _: Resource<InvokerOptions>, _: String) -> Built<InvokerOptions> {
        Ok(Err(NO_RPC))
    }
    fn command_name(&mut self, _: Resource<InvokerOptions>, _: String) -> Built<InvokerOptions> {
        Ok(Err(NO_RPC))
    }
    fn topic_namespace(&mut self, _: Resource<InvokerOptions>, _: String) -> Built<InvokerOptions> {
        Ok(Err(NO_RPC))
    }
    fn topic_token_map(&mut self, _: Resource<InvokerOptions>, _: Pairs) -> Built<InvokerOptions> {
        Ok(Err(NO_RPC))
    }
    fn response_topic_prefix(&mut self, _: Resource<InvokerOptions>, _: String) -> Built<InvokerOptions> {
        Ok(Err(NO_RPC))
    }
    fn response_topic_suffix(&mut self, _: Resource<InvokerOptions>, _: String) -> Built<InvokerOptions> {
        Ok(Err(NO_RPC))
    }
    fn build(&mut self, _: Resource<InvokerOptions>) -> Built<rpc_types::CommandInvokerOptions> {
        Ok(Err(NO_RPC))
    }
    fn drop(&mut self, _: Resource<InvokerOptions>) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl command_invoker::HostCommandInvoker for State {
    fn invoke(
        &mut self,
        _: Resource<command_invoker::CommandInvoker>,
        _: Resource<rpc_types::CommandRequest>,
    ) -> wasmtime::Result<Result<rpc_types::CommandResponse, rpc_types::RpcError>> {
        Ok(Err(NO_RPC))
    }
    fn drop(&mut self, _: Resource<command_invoker::CommandInvoker>) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl command_invoker::Host for State {
    fn new_invoker(
        &mut self,
        _: Resource<rpc_types::CommandInvokerOptions>,
    ) -> Built<command_invoker::CommandInvoker> {
        Ok(Err(NO_RPC))
    }
}
