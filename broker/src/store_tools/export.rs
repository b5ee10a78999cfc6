//! `forebay store export`: everything as JSON lines, so that nothing is locked in.

use std::collections::BTreeSet;
use std::io::{self, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use broker_core::packet::{PacketType, Place, Properties, Property};
use broker_store::{Entry, Inspection, Lsn, Message, SessionKey, SessionState};
use serde_json::{Map, Value, json};

use crate::persistence;

/// Prints it; says whether every message could be read.
pub fn print(store: &Inspection, out: &mut impl Write) -> io::Result<bool> {
    let mut sessions: Vec<_> = store.state().sessions().collect();
    sessions.sort_unstable_by_key(|&(key, _)| key);
    for &(key, session) in &sessions {
        line(out, self::session(key, session))?;
    }
    for &(key, session) in &sessions {
        for (filter, (options, persisted)) in &session.subscriptions {
            line(out, subscription(key, filter, options, *persisted))?;
        }
    }
    let whole = messages(store, &sessions, out)?;
    for &(key, session) in &sessions {
        for entry in session.queue.iter() {
            line(out, queued(key, &entry))?;
        }
    }
    for (topic, message) in store.state().retained() {
        line(out, json!({"type": "retained", "topic": topic, "message": message.0}))?;
    }
    for (key, value) in store.state().keys() {
        let mut object = of_type("key");
        put_bytes(&mut object, "key", key);
        put_bytes(&mut object, "value", value);
        line(out, Value::Object(object))?;
    }
    Ok(whole)
}

fn line(out: &mut impl Write, value: Value) -> io::Result<()> {
    writeln!(out, "{value}")
}

fn of_type(name: &str) -> Map<String, Value> {
    Map::from_iter([("type".to_owned(), name.into())])
}

fn session(key: SessionKey, session: &SessionState) -> Value {
    let will = session.will.as_ref().map(|will| {
        let mut object = message(&will.message);
        object.insert("delaySeconds".to_owned(), will.delay.into());
        object
    });
    json!({
        "type": "session",
        "session": key,
        "clientId": session.client_id,
        "expirySeconds": session.expiry,
        "closedAt": session.closed,
        "incoming": session.incoming,
        "will": will,
    })
}

fn subscription(session: SessionKey, filter: &str, options: &[u8], persisted: bool) -> Value {
    let options = persistence::options_of(options, persisted);
    json!({
        "type": "subscription",
        "session": session,
        "filter": filter,
        "qos": options.qos as u8,
        "noLocal": options.no_local,
        "retainAsPublished": options.retain_as_published,
        "identifier": options.identifier,
        "persisted": persisted,
    })
}

fn messages(
    store: &Inspection,
    sessions: &[(SessionKey, &SessionState)],
    out: &mut impl Write,
) -> io::Result<bool> {
    let queued = sessions.iter().flat_map(|(_, session)| session.queue.iter().map(|entry| entry.message));
    let retained = store.state().retained().map(|(_, message)| message);
    let all: BTreeSet<Lsn> = queued.chain(retained).collect();
    let mut whole = true;
    for id in all {
        match store.read(id) {
            Ok(found) => {
                let mut object = of_type("message");
                object.insert("id".to_owned(), id.0.into());
                object.extend(message(&found));
                line(out, Value::Object(object))?;
            }
            Err(error) => {
                whole = false;
                line(out, json!({"type": "unreadable", "message": id.0, "why": error.to_string()}))?;
            }
        }
    }
    Ok(whole)
}

fn queued(session: SessionKey, entry: &Entry<'_>) -> Value {
    json!({
        "type": "queued",
        "session": session,
        "message": entry.message.0,
        "qos": entry.qos,
        "retain": entry.retain,
        "packetId": (entry.packet_id != 0).then_some(entry.packet_id),
        "received": entry.received,
        "identifiers": entry.identifiers,
    })
}

fn message(message: &Message) -> Map<String, Value> {
    let mut object = Map::new();
    put_bytes(&mut object, "topic", &message.topic);
    // Topics are text: only a defect could make them anything else.
    if let Some(topic) = object.remove("topicText") {
        object.insert("topic".to_owned(), topic);
    }
    object.insert("qos".to_owned(), message.qos.into());
    object.insert("retain".to_owned(), message.retain.into());
    object.insert("receivedAt".to_owned(), message.received.into());
    object.insert("expirySeconds".to_owned(), message.expiry.into());
    match properties(&message.properties) {
        Some(properties) => drop(object.insert("properties".to_owned(), properties.into())),
        None => drop(object.insert("propertiesBase64".to_owned(), BASE64.encode(&message.properties).into())),
    }
    put_bytes(&mut object, "payload", &message.payload);
    object
}

/// A message's properties under their names, its expiry left aside; nothing if they cannot be read.
fn properties(encoded: &[u8]) -> Option<Map<String, Value>> {
    let properties = Properties::parse(encoded, Place::Packet(PacketType::Publish)).ok()?;
    let mut object = Map::new();
    let mut user = Vec::new();
    for property in properties.iter() {
        let (name, value) = match property {
            Property::PayloadFormatIndicator(is_text) => ("payloadFormatIndicator", u8::from(is_text).into()),
            Property::ContentType(text) => ("contentType", text.into()),
            Property::ResponseTopic(text) => ("responseTopic", text.into()),
            Property::CorrelationData(data) => ("correlationDataBase64", BASE64.encode(data).into()),
            Property::UserProperty((name, value)) => {
                user.push(json!([name, value]));
                continue;
            }
            _ => continue,
        };
        object.insert(name.to_owned(), value);
    }
    if !user.is_empty() {
        object.insert("userProperties".to_owned(), user.into());
    }
    Some(object)
}

/// Bytes as text when they are, else as base64, under a name that says which.
fn put_bytes(object: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => object.insert(format!("{name}Text"), text.into()),
        Err(_) => object.insert(format!("{name}Base64"), BASE64.encode(bytes).into()),
    };
}
