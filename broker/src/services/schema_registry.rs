//! The schema registry over MQTT (AIO.md §8): a schema is asked for by name and version, and answered as JSON. The same
//! schemas as operators ask for and connections are checked against.

use std::sync::Arc;

use broker_core::message::Message;
use metrics::counter;
use processing::schema::{Schema, SchemaError, SchemaRef, SchemaRegistry, VERSION_DEFAULT};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::broker::Broker;
use crate::clock;
use crate::services::call::{Call, Reply};
use crate::services::{Service, access_of};
use crate::translate::TIMESTAMP;

/// Where requests are published.
pub const REQUEST_TOPIC: &str = "adr/dtmi:ms:adr:SchemaRegistry;2/get";
/// Longest request, bytes: a name and a version.
const REQUEST_BYTES_MAX: usize = 4096;

/// Answers requests for schemas.
pub struct SchemaRegistryService {
    schemas: Arc<SchemaRegistry>,
}

/// What is asked for.
#[derive(Deserialize)]
struct Request {
    /// The name, alone or in full (`aio-sr://NAMESPACE/NAME`).
    name: String,
    #[serde(default)]
    version: Option<String>,
}

/// Why there is no schema in the answer.
struct Refusal {
    status: u16,
    message: String,
    /// The field of the request that it is about.
    field: Option<&'static str>,
}

impl SchemaRegistryService {
    /// Serves `schemas` on `broker`.
    pub fn start(schemas: &Arc<SchemaRegistry>, broker: &Arc<Broker>) {
        broker.serve(REQUEST_TOPIC, Arc::new(Self { schemas: Arc::clone(schemas) }));
    }

    fn find(&self, payload: &[u8]) -> Result<Schema, Refusal> {
        let refuse = |status, message: String, field| Refusal { status, message, field };
        if payload.len() > REQUEST_BYTES_MAX {
            return Err(refuse(400, format!("a request has at most {REQUEST_BYTES_MAX} bytes"), None));
        }
        let request: Request = serde_json::from_slice(payload).map_err(|error| {
            refuse(400, format!("the request is no JSON object with `name` and `version`: {error}"), None)
        })?;
        let version = request.version.as_deref().unwrap_or(VERSION_DEFAULT);
        let reference = SchemaRef::parse(&format!("{}:{version}", request.name))
            .map_err(|error| refuse(400, error.to_string(), Some("name")))?;
        self.schemas.get(&reference).map_err(|error| match error {
            SchemaError::Unknown(_) => refuse(404, error.to_string(), Some("name")),
            _ => refuse(500, error.to_string(), None),
        })
    }
}

fn described(schema: &Schema) -> Value {
    json!({"schema": {
        "name": schema.id.name,
        "namespace": schema.id.namespace,
        "version": schema.id.version,
        "format": schema.format.content_type(),
        "schemaContent": &*schema.content,
        "schemaType": "MessageSchema",
        "hash": &*schema.hash,
        "tags": {},
    }})
}

impl Service for SchemaRegistryService {
    fn answer(&self, request: &Arc<Message>, broker: &Broker, emit: &mut dyn FnMut(Arc<Message>)) {
        // An answer to the own topic would be answered again.
        let Some(call) = Call::of(request).filter(|call| call.response_topic != REQUEST_TOPIC) else {
            return counter!("forebay_schema_requests_total", "status" => "unanswerable").increment(1);
        };
        if access_of(request, broker).is_some_and(|access| !access.may_subscribe(call.response_topic)) {
            // The broker is not to publish for a client where that could not even listen.
            return counter!("forebay_schema_requests_total", "status" => "unanswerable").increment(1);
        }
        let stamp = broker.timestamp(clock::wall()).to_string();
        let (status, payload, refused) = match self.find(request.payload()) {
            Ok(schema) => (200, described(&schema), None),
            Err(Refusal { status, message, field }) => {
                let told = json!({"code": status, "message": message, "target": field});
                (status, told, Some((message, field)))
            }
        };
        let mut user_properties = vec![(TIMESTAMP, stamp.as_str())];
        if let Some((message, field)) = &refused {
            user_properties.extend([("__stMsg", message.as_str()), ("__apErr", "true")]);
            user_properties.extend(field.map(|field| ("__propName", field)));
        }
        counter!("forebay_schema_requests_total", "status" => status.to_string()).increment(1);
        let reply = Reply {
            status,
            content_type: "application/json",
            user_properties: &user_properties,
            payload: payload.to_string().into(),
        };
        if let Some(message) = call.answer(reply) {
            emit(Arc::new(message));
        }
    }
}
