//! What guests may call (AIO.md §1.5).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use processing_core::time::Hlc;
use wasmtime::component::{HasSelf, Linker, Resource};

use crate::bindings::wasm_graph::processor::{
    command_invoker, hybrid_logical_clock, rpc_types, schema_registry, schema_types, state_store,
    state_store_types, types,
};
use crate::host::{Buffer, State};
use crate::module::Contract;
use crate::schema::{Format, Schema, SchemaError, SchemaRef};
use crate::state_store::{Condition, Set, StoreError};
use crate::{preview, telemetry};

/// Links the contract's imports.
pub fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    fn own(state: &mut State) -> &mut State {
        state
    }
    types::add_to_linker::<State, HasSelf<State>>(linker, own)?;
    hybrid_logical_clock::add_to_linker::<State, HasSelf<State>>(linker, own)?;
    state_store_types::add_to_linker::<State, HasSelf<State>>(linker, own)?;
    state_store::add_to_linker::<State, HasSelf<State>>(linker, own)?;
    schema_types::add_to_linker::<State, HasSelf<State>>(linker, own)?;
    schema_registry::add_to_linker::<State, HasSelf<State>>(linker, own)?;
    rpc_types::add_to_linker::<State, HasSelf<State>>(linker, own)?;
    command_invoker::add_to_linker::<State, HasSelf<State>>(linker, own)?;
    telemetry::link(linker, Contract::Current)?;
    preview::link(linker)
}

impl types::Host for State {}
impl hybrid_logical_clock::Host for State {}
impl state_store_types::Host for State {}
impl schema_types::Host for State {}

impl types::HostBuffer for State {
    fn read(&mut self, buffer: Resource<Buffer>) -> wasmtime::Result<Vec<u8>> {
        Ok(self.table.get(&buffer)?.0.to_vec())
    }

    fn drop(&mut self, buffer: Resource<Buffer>) -> wasmtime::Result<()> {
        self.table.delete(buffer)?;
        Ok(())
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

fn clock(time: &Hlc) -> Clock {
    let timestamp = hybrid_logical_clock::Timespec { secs: time.secs, nanos: time.nanos };
    Clock { timestamp, counter: time.counter, node_id: time.node.to_string() }
}

fn failed(error: StoreError) -> state_store_types::StateStoreError {
    state_store_types::StateStoreError::RequestError(error.to_string())
}

// The store is a function call away: a timeout has nothing to wait for.
impl state_store::Host for State {
    fn get(&mut self, key: Vec<u8>, _timeout: Wait) -> Stored<state_store_types::StateStoreGetResponse> {
        Ok(self.state_store.get(&key, now()).map_err(failed).map(|found| {
            let (response, version) = found.unzip();
            state_store_types::StateStoreGetResponse { response, version: version.as_ref().map(clock) }
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
            ..Set::default()
        };
        Ok(self.state_store.set(&set, now()).map_err(failed).map(|version| {
            if let Some(version) = &version {
                self.state_store.changed(&key, Some(&value), version);
            }
            let response = version.is_some();
            state_store_types::StateStoreSetResponse { response, version: version.as_ref().map(clock) }
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
        if let (1, Some(version)) = (response, &version) {
            self.state_store.changed(key, None, version);
        }
        Ok(state_store_types::StateStoreDelResponse { response, version: version.as_ref().map(clock) })
    }
}

impl schema_registry::Host for State {
    /// The registry is a function call away: a timeout has nothing to wait for.
    fn get(
        &mut self,
        id: String,
        version: String,
        _timeout: schema_types::Duration,
    ) -> wasmtime::Result<Result<schema_types::Schema, schema_types::SchemaError>> {
        use schema_types::SchemaError as Told;
        if self.schemas.is_empty() {
            return Ok(Err(Told::NotAvailable));
        }
        let reference = match version.is_empty() || id.rsplit('/').next().is_some_and(|id| id.contains(':')) {
            true => id,
            false => format!("{id}:{version}"),
        };
        let found = SchemaRef::parse(&reference).and_then(|reference| self.schemas.get(&reference));
        Ok(found.map(|schema| told(&schema)).map_err(|error| match error {
            SchemaError::Unknown(_) => Told::NotFound,
            error => Told::Request(error.to_string()),
        }))
    }
}

fn told(schema: &Schema) -> schema_types::Schema {
    schema_types::Schema {
        description: None,
        display_name: None,
        format: match schema.format {
            Format::Json => schema_types::SchemaFormat::Json,
            Format::Delta => schema_types::SchemaFormat::Delta,
        },
        hash: Some(schema.hash.to_string()),
        name: schema.id.name.clone(),
        namespace: schema.id.namespace.clone(),
        schema_content: schema.content.to_string(),
        schema_type: schema_types::SchemaType::MessageSchema,
        tags: Vec::new(),
        version: schema.id.version.clone(),
    }
}
