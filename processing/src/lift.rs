//! What guests answer, as items.

use std::sync::Arc;

use bytes::Bytes;
use processing_core::item::{self, Data};
use processing_core::time::Hlc;
use wasmtime::component::{Resource, ResourceTable};

use crate::bindings::wasm_graph::processor::hybrid_logical_clock as clock;
use crate::bindings::wasm_graph::processor::types::{self, BufferOrBytes, BufferOrString, DataModel};
use crate::host::Buffer;

/// What the guest says a logical time is.
pub fn lift_time(time: clock::HybridLogicalClock) -> Hlc {
    let clock::HybridLogicalClock { timestamp, counter, node_id } = time;
    Hlc { secs: timestamp.secs, nanos: timestamp.nanos, counter, node: node_id.into() }
}

/// What the guest made of it. A handle that comes back is taken out of the table, its bytes are not copied; nor is `node`, who made the
/// timestamp that went in, when it stays.
///
/// # Errors
/// The guest handed back a handle that is none of a buffer.
pub fn lift(data: DataModel, node: Option<&Arc<str>>, table: &mut ResourceTable) -> wasmtime::Result<Data> {
    Ok(match data {
        DataModel::BufferOrBytes(bytes) => Data::Bytes(lift_bytes(bytes, table)?),
        DataModel::Message(message) => Data::Message(item::Message {
            timestamp: lift_timestamp(message.timestamp, node, table)?,
            topic: lift_bytes(message.topic, table)?,
            content_type: message.content_type.map(|text| lift_text(text, table)).transpose()?,
            payload: lift_bytes(message.payload, table)?,
            user_properties: message
                .properties
                .user_properties
                .into_iter()
                .map(|(key, value)| Ok((lift_text(key, table)?, lift_text(value, table)?)))
                .collect::<wasmtime::Result<_>>()?,
            schema: message.schema.map(|schema| lift_schema(schema, table)).transpose()?,
        }),
        DataModel::Snapshot(snapshot) => Data::Snapshot(item::Snapshot {
            timestamp: lift_timestamp(snapshot.timestamp, node, table)?,
            format: lift_text(snapshot.format, table)?,
            width: snapshot.width,
            height: snapshot.height,
            frame: lift_bytes(snapshot.frame, table)?,
        }),
    })
}

fn lift_timestamp(
    timestamp: types::Timestamp,
    node: Option<&Arc<str>>,
    table: &mut ResourceTable,
) -> wasmtime::Result<Hlc> {
    let said = lift_text(timestamp.node_id, table)?;
    Ok(Hlc {
        secs: timestamp.timestamp.secs,
        nanos: timestamp.timestamp.nanos,
        counter: timestamp.counter,
        node: match node {
            Some(node) if node.as_bytes() == said => Arc::clone(node),
            _ => String::from_utf8_lossy(&said).into(),
        },
    })
}

fn take(handle: Resource<Buffer>, table: &mut ResourceTable) -> wasmtime::Result<Bytes> {
    Ok(table.delete(handle)?.0)
}

fn lift_bytes(bytes: BufferOrBytes, table: &mut ResourceTable) -> wasmtime::Result<Bytes> {
    match bytes {
        BufferOrBytes::Buffer(handle) => take(handle, table),
        BufferOrBytes::Bytes(bytes) => Ok(bytes.into()),
    }
}

fn lift_text(text: BufferOrString, table: &mut ResourceTable) -> wasmtime::Result<Bytes> {
    match text {
        BufferOrString::Buffer(handle) => take(handle, table),
        BufferOrString::String(text) => Ok(text.into()),
    }
}

fn lift_schema(
    schema: types::MessageSchema,
    table: &mut ResourceTable,
) -> wasmtime::Result<item::MessageSchema> {
    Ok(match schema {
        types::MessageSchema::RegistryReference(reference) => {
            item::MessageSchema::RegistryReference(lift_text(reference, table)?)
        }
        types::MessageSchema::Inline(inline) => item::MessageSchema::Inline {
            name: lift_text(inline.name, table)?,
            content: lift_text(inline.content, table)?,
        },
    })
}
