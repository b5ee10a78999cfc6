//! Items into the guest's types: short fields inline, straight from the item's own bytes; long ones by handle.

use bytes::Bytes;
use processing_core::item::{self, Data};
use processing_core::time::Hlc;
use wasmtime::component::{ComponentType, Lower, Resource, ResourceTable};

use crate::bindings::wasm_graph::processor::hybrid_logical_clock::Timespec;
use crate::host::Buffer;

/// From this length on, a field crosses by handle: what the guest does not read costs nothing, and what it
/// hands back is not copied. Below, a handle costs more than the bytes.
pub const HANDLE_BYTES_MIN: usize = 4096;

/// `buffer-or-bytes`, borrowed.
#[derive(ComponentType, Lower)]
#[component(variant)]
pub enum BytesParam<'a> {
    #[component(name = "buffer")]
    Buffer(Resource<Buffer>),
    #[component(name = "bytes")]
    Bytes(&'a [u8]),
}

/// `buffer-or-string`, borrowed.
#[derive(ComponentType, Lower)]
#[component(variant)]
pub enum TextParam<'a> {
    #[component(name = "buffer")]
    Buffer(Resource<Buffer>),
    #[component(name = "string")]
    String(&'a str),
}

/// `timestamp`, borrowed.
#[derive(ComponentType, Lower)]
#[component(record)]
pub struct TimestampParam<'a> {
    timestamp: Timespec,
    counter: u64,
    #[component(name = "node-id")]
    node_id: TextParam<'a>,
}

/// `hybrid-logical-clock`, borrowed.
#[derive(ComponentType, Lower)]
#[component(record)]
pub struct TimeParam<'a> {
    timestamp: Timespec,
    counter: u64,
    #[component(name = "node-id")]
    node_id: &'a str,
}

/// `message-properties`, borrowed.
#[derive(ComponentType, Lower)]
#[component(record)]
pub struct PropertiesParam<'a> {
    #[component(name = "user-properties")]
    user_properties: Vec<(TextParam<'a>, TextParam<'a>)>,
}

/// `inline-schema`, borrowed.
#[derive(ComponentType, Lower)]
#[component(record)]
pub struct InlineSchemaParam<'a> {
    name: TextParam<'a>,
    content: TextParam<'a>,
}

/// `message-schema`, borrowed.
#[derive(ComponentType, Lower)]
#[component(variant)]
pub enum SchemaParam<'a> {
    #[component(name = "registry-reference")]
    RegistryReference(TextParam<'a>),
    #[component(name = "inline")]
    Inline(InlineSchemaParam<'a>),
}

/// `message`, borrowed.
#[derive(ComponentType, Lower)]
#[component(record)]
pub struct MessageParam<'a> {
    timestamp: TimestampParam<'a>,
    topic: BytesParam<'a>,
    #[component(name = "content-type")]
    content_type: Option<TextParam<'a>>,
    payload: BytesParam<'a>,
    properties: PropertiesParam<'a>,
    schema: Option<SchemaParam<'a>>,
}

/// `snapshot`, borrowed.
#[derive(ComponentType, Lower)]
#[component(record)]
pub struct SnapshotParam<'a> {
    timestamp: TimestampParam<'a>,
    format: TextParam<'a>,
    width: u32,
    height: u32,
    frame: BytesParam<'a>,
}

/// `data-model`, borrowed.
#[derive(ComponentType, Lower)]
#[component(variant)]
pub enum DataParam<'a> {
    #[component(name = "buffer-or-bytes")]
    BufferOrBytes(BytesParam<'a>),
    #[component(name = "message")]
    Message(MessageParam<'a>),
    #[component(name = "snapshot")]
    Snapshot(SnapshotParam<'a>),
}

/// The guest's view of `data`.
///
/// # Errors
/// The guest holds too many handles.
pub fn lower<'a>(data: &'a Data, table: &mut ResourceTable) -> wasmtime::Result<DataParam<'a>> {
    Ok(match data {
        Data::Bytes(bytes) => DataParam::BufferOrBytes(lower_bytes(bytes, table)?),
        Data::Message(message) => DataParam::Message(lower_message(message, table)?),
        Data::Snapshot(snapshot) => DataParam::Snapshot(SnapshotParam {
            timestamp: lower_timestamp(&snapshot.timestamp),
            format: lower_text(&snapshot.format, table)?,
            width: snapshot.width,
            height: snapshot.height,
            frame: lower_bytes(&snapshot.frame, table)?,
        }),
    })
}

fn lower_message<'a>(
    message: &'a item::Message,
    table: &mut ResourceTable,
) -> wasmtime::Result<MessageParam<'a>> {
    let properties = message.user_properties.iter();
    Ok(MessageParam {
        timestamp: lower_timestamp(&message.timestamp),
        topic: lower_bytes(&message.topic, table)?,
        content_type: message.content_type.as_ref().map(|text| lower_text(text, table)).transpose()?,
        payload: lower_bytes(&message.payload, table)?,
        properties: PropertiesParam {
            user_properties: properties
                .map(|(key, value)| Ok((lower_text(key, table)?, lower_text(value, table)?)))
                .collect::<wasmtime::Result<_>>()?,
        },
        schema: message.schema.as_ref().map(|schema| lower_schema(schema, table)).transpose()?,
    })
}

/// The guest's view of a logical time.
pub fn lower_time(time: &Hlc) -> TimeParam<'_> {
    TimeParam {
        timestamp: Timespec { secs: time.secs, nanos: time.nanos },
        counter: time.counter,
        node_id: &time.node,
    }
}

fn lower_timestamp(time: &Hlc) -> TimestampParam<'_> {
    TimestampParam {
        timestamp: Timespec { secs: time.secs, nanos: time.nanos },
        counter: time.counter,
        node_id: TextParam::String(&time.node),
    }
}

fn lower_bytes<'a>(bytes: &'a Bytes, table: &mut ResourceTable) -> wasmtime::Result<BytesParam<'a>> {
    Ok(match bytes.len() < HANDLE_BYTES_MIN {
        true => BytesParam::Bytes(bytes),
        false => BytesParam::Buffer(table.push(Buffer(bytes.clone()))?),
    })
}

fn lower_text<'a>(bytes: &'a Bytes, table: &mut ResourceTable) -> wasmtime::Result<TextParam<'a>> {
    Ok(match std::str::from_utf8(bytes) {
        Ok(text) if text.len() < HANDLE_BYTES_MIN => TextParam::String(text),
        _ => TextParam::Buffer(table.push(Buffer(bytes.clone()))?),
    })
}

fn lower_schema<'a>(
    schema: &'a item::MessageSchema,
    table: &mut ResourceTable,
) -> wasmtime::Result<SchemaParam<'a>> {
    Ok(match schema {
        item::MessageSchema::RegistryReference(reference) => {
            SchemaParam::RegistryReference(lower_text(reference, table)?)
        }
        item::MessageSchema::Inline { name, content } => SchemaParam::Inline(InlineSchemaParam {
            name: lower_text(name, table)?,
            content: lower_text(content, table)?,
        }),
    })
}
