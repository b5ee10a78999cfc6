//! The preview contract, `tinykube-graph:processor@1.0.0` (AIO.md §1.1): the same host functions under other names.
//!
//! Its types are those of `wasm-graph:processor@1.1.0`, field by field, and so are its resources; only the operators
//! it exports have no error to answer with. What is left to do is to say the names.

use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentNamedList, Lift, Linker, LinkerInstance, Lower, Resource, ResourceType};

use crate::bindings::wasm_graph::processor::{command_invoker, rpc_types, state_store, types};
use crate::host::{Buffer, State};
use crate::module::Contract;
use crate::telemetry;

/// Links the preview's imports.
pub fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    let mut interface =
        |name: &str, fill: Fill| fill(&mut linker.instance(&Contract::Preview.interface(name))?);
    interface("types", link_types)?;
    interface("state-store", link_state_store)?;
    interface("rpc-types", link_rpc_types)?;
    interface("command-invoker", link_command_invoker)?;
    telemetry::link(linker, Contract::Preview)
}

type Fill = fn(&mut LinkerInstance<'_, State>) -> wasmtime::Result<()>;

/// One function: `call` gets what the guest passed.
fn function<A, R>(
    instance: &mut LinkerInstance<'_, State>,
    name: &str,
    call: impl Fn(&mut State, A) -> wasmtime::Result<R> + Send + Sync + 'static,
) -> wasmtime::Result<()>
where
    A: ComponentNamedList + Lift + 'static,
    R: ComponentNamedList + Lower + 'static,
{
    instance.func_wrap(name, move |mut store: StoreContextMut<'_, State>, arguments: A| {
        call(store.data_mut(), arguments)
    })
}

/// A resource, and what is done when a guest drops one.
fn resource<T: 'static>(
    instance: &mut LinkerInstance<'_, State>,
    name: &str,
    drop: fn(&mut State, Resource<T>) -> wasmtime::Result<()>,
) -> wasmtime::Result<()> {
    instance.resource(name, ResourceType::host::<T>(), move |mut store, handle| {
        drop(store.data_mut(), Resource::new_own(handle))
    })
}

fn link_types(instance: &mut LinkerInstance<'_, State>) -> wasmtime::Result<()> {
    use types::HostBuffer;
    resource::<Buffer>(instance, "buffer", HostBuffer::drop)?;
    function(instance, "[method]buffer.read", |state, (buffer,): (Resource<Buffer>,)| {
        Ok((HostBuffer::read(state, buffer)?,))
    })
}

fn link_state_store(instance: &mut LinkerInstance<'_, State>) -> wasmtime::Result<()> {
    use state_store::Host;
    function(instance, "get", |state, (key, timeout)| Ok((Host::get(state, key, timeout)?,)))?;
    function(instance, "set", |state, (key, value, timeout, token, options)| {
        Ok((Host::set(state, key, value, timeout, token, options)?,))
    })?;
    function(instance, "del", |state, (key, token, timeout)| Ok((Host::del(state, key, token, timeout)?,)))?;
    function(instance, "vdel", |state, (key, value, token, timeout)| {
        Ok((Host::vdel(state, key, value, token, timeout)?,))
    })
}

fn link_rpc_types(instance: &mut LinkerInstance<'_, State>) -> wasmtime::Result<()> {
    use rpc_types::{
        HostCommandInvokerOptions, HostCommandInvokerOptionsBuilder as Options, HostCommandRequest,
        HostCommandRequestBuilder as Request,
    };
    resource(instance, "command-request", HostCommandRequest::drop)?;
    resource(instance, "command-request-builder", Request::drop)?;
    resource(instance, "command-invoker-options", HostCommandInvokerOptions::drop)?;
    resource(instance, "command-invoker-options-builder", Options::drop)?;
    function(instance, "[constructor]command-request-builder", |state, ()| Ok((Request::new(state)?,)))?;
    function(instance, "[method]command-request-builder.payload", |state, (this, payload)| {
        Ok((Request::payload(state, this, payload)?,))
    })?;
    function(instance, "[method]command-request-builder.custom-user-data", |state, (this, data)| {
        Ok((Request::custom_user_data(state, this, data)?,))
    })?;
    function(instance, "[method]command-request-builder.topic-tokens", |state, (this, tokens)| {
        Ok((Request::topic_tokens(state, this, tokens)?,))
    })?;
    function(instance, "[method]command-request-builder.timeout", |state, (this, secs, nanos)| {
        Ok((Request::timeout(state, this, secs, nanos)?,))
    })?;
    function(instance, "[method]command-request-builder.build", |state, (this,)| {
        Ok((Request::build(state, this)?,))
    })?;
    function(instance, "[constructor]command-invoker-options-builder", |state, ()| {
        Ok((Options::new(state)?,))
    })?;
    let texts: [(&str, SetText); 6] = [
        ("request-topic-pattern", Options::request_topic_pattern),
        ("response-topic-pattern", Options::response_topic_pattern),
        ("command-name", Options::command_name),
        ("topic-namespace", Options::topic_namespace),
        ("response-topic-prefix", Options::response_topic_prefix),
        ("response-topic-suffix", Options::response_topic_suffix),
    ];
    for (name, set) in texts {
        let name = format!("[method]command-invoker-options-builder.{name}");
        function(instance, &name, move |state, (this, text)| Ok((set(state, this, text)?,)))?;
    }
    function(
        instance,
        "[method]command-invoker-options-builder.topic-token-map",
        |state, (this, tokens)| Ok((Options::topic_token_map(state, this, tokens)?,)),
    )?;
    function(instance, "[method]command-invoker-options-builder.build", |state, (this,)| {
        Ok((Options::build(state, this)?,))
    })
}

type OptionsBuilder = Resource<rpc_types::CommandInvokerOptionsBuilder>;
type SetText =
    fn(&mut State, OptionsBuilder, String) -> wasmtime::Result<Result<OptionsBuilder, rpc_types::RpcError>>;

fn link_command_invoker(instance: &mut LinkerInstance<'_, State>) -> wasmtime::Result<()> {
    use command_invoker::{Host, HostCommandInvoker};
    resource(instance, "command-invoker", HostCommandInvoker::drop)?;
    function(instance, "new-invoker", |state, (options,)| Ok((Host::new_invoker(state, options)?,)))?;
    function(instance, "[method]command-invoker.invoke", |state, (this, request)| {
        Ok((HostCommandInvoker::invoke(state, this, request)?,))
    })
}
