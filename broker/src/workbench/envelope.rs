//! Messages as lines of JSON: what `--input` and `input:` read, and what `forebay run` prints.
//!
//! ```text
//! {"temperature":{"value":50.0,"unit":"F"}}
//! {"topic":"sensors","timestamp":1000,"userProperties":{"site":"A"},"payload":{"temperature":{"value":50.0}}}
//! {"topic":"snapshot_simulation","timestamp":"2000:0:camera","payloadFile":"images/bear.raw"}
//! ```
//!
//! A line with an object that has `payload`, `payloadText`, `payloadBase64` or `payloadFile` is an envelope; any
//! other line is itself the payload. What `forebay run` prints can be read again.

use std::fmt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use broker_core::hlc::Timestamp;
use bytes::Bytes;
use processing_core::item::{self, Data};
use processing_core::time::Hlc;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::input;

/// The fields that make an object an envelope.
pub const PAYLOAD_FIELDS: [&str; 4] = ["payload", "payloadText", "payloadBase64", "payloadFile"];

/// A message on its way in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incoming {
    /// The MQTT topic.
    pub topic: String,
    /// The payload.
    pub payload: Bytes,
    /// The MQTT content type.
    pub content_type: Option<String>,
    /// The MQTT user properties.
    pub user_properties: Vec<(String, String)>,
    /// When it was made, where `__ts` among the user properties does not say so.
    pub timestamp: Option<Timestamp>,
}

impl Incoming {
    /// A payload on a topic, and nothing else.
    pub fn bare(payload: impl Into<Bytes>, topic: &str) -> Self {
        Self {
            topic: topic.to_owned(),
            payload: payload.into(),
            content_type: None,
            user_properties: Vec::new(),
            timestamp: None,
        }
    }

    /// Reads a line of JSON. Its topic is `topic` unless it says so; files that it names are relative to `folder`.
    ///
    /// # Errors
    /// What is wrong with it, in a sentence.
    pub fn parse(line: &str, folder: &Path, topic: &str) -> Result<Self, String> {
        let not_json = |error: serde_json::Error| format!("this is no JSON: {}", without_line(&error));
        let keys: Keys = serde_json::from_str(line).map_err(not_json)?;
        if !keys.envelope {
            return Ok(Self::bare(Bytes::copy_from_slice(line.trim().as_bytes()), topic));
        }
        let envelope: Envelope<'_> = serde_json::from_str(line)
            .map_err(|error| format!("the envelope cannot be used: {}", without_line(&error)))?;
        envelope.open(folder, topic)
    }
}

/// An error of the JSON reader, without the line: it reads one line at a time.
fn without_line(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let end = text.rfind(" at line ").unwrap_or(text.len());
    format!("{} (column {})", &text[..end], error.column())
}

/// Whether a JSON value is an envelope.
struct Keys {
    envelope: bool,
}

impl<'de> Deserialize<'de> for Keys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?;
        let envelope = raw.get().starts_with('{')
            && serde_json::from_str::<Fields>(raw.get())
                .is_ok_and(|fields| fields.0.iter().any(|key| PAYLOAD_FIELDS.contains(&key.as_str())));
        Ok(Self { envelope })
    }
}

/// The keys of an object.
struct Fields(Vec<String>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeysOnly;
        impl<'de> Visitor<'de> for KeysOnly {
            type Value = Vec<String>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<String>, A::Error> {
                let mut keys = Vec::new();
                while let Some((key, IgnoredAny)) = map.next_entry()? {
                    keys.push(key);
                }
                Ok(keys)
            }
        }
        deserializer.deserialize_map(KeysOnly).map(Self)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Envelope<'a> {
    topic: Option<String>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
    payload_text: Option<String>,
    payload_base64: Option<String>,
    payload_file: Option<String>,
    content_type: Option<String>,
    #[serde(default)]
    user_properties: Pairs,
    timestamp: Option<Stamp>,
}

impl Envelope<'_> {
    fn open(self, folder: &Path, topic: &str) -> Result<Incoming, String> {
        let given = [self.payload_text.is_some(), self.payload_base64.is_some(), self.payload_file.is_some()];
        if given.iter().filter(|given| **given).count() + usize::from(self.payload.is_some()) > 1 {
            return Err(format!("the envelope has more than one of `{}`", PAYLOAD_FIELDS.join("`, `")));
        }
        let payload = match (self.payload, self.payload_text, self.payload_base64, self.payload_file) {
            (Some(json), ..) => Bytes::copy_from_slice(json.get().as_bytes()),
            (_, Some(text), ..) => Bytes::from(text),
            (_, _, Some(base64), _) => BASE64
                .decode(base64)
                .map_err(|error| format!("`payloadBase64` is no base64: {error}"))?
                .into(),
            (.., Some(file)) => {
                let path = folder.join(&file);
                input::read(&path).map_err(|why| format!("`payloadFile` {}: {why}", path.display()))?.into()
            }
            // The JSON reader takes `null` for nothing.
            _ => Bytes::from_static(b"null"),
        };
        Ok(Incoming {
            topic: self.topic.unwrap_or_else(|| topic.to_owned()),
            payload,
            content_type: self.content_type,
            user_properties: self.user_properties.0,
            timestamp: self.timestamp.map(|stamp| stamp.0),
        })
    }
}

/// An object of text, in its order. A list stands for a key that comes several times.
#[derive(Default)]
struct Pairs(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a user property is neither text nor a list of texts")]
        enum OneOrMore {
            One(String),
            More(Vec<String>),
        }
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Vec<(String, String)>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of user properties")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some((key, value)) = map.next_entry::<String, OneOrMore>()? {
                    match value {
                        OneOrMore::One(value) => pairs.push((key, value)),
                        OneOrMore::More(values) => {
                            pairs.extend(values.into_iter().map(|value| (key.clone(), value)));
                        }
                    }
                }
                Ok(pairs)
            }
        }
        deserializer.deserialize_map(InOrder).map(Self)
    }
}

/// Milliseconds since the Unix epoch, or the wire form of `__ts` (AIO.md §4.2).
struct Stamp(Timestamp);

impl<'de> Deserialize<'de> for Stamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "`timestamp` is neither milliseconds nor \"<ms>:<counter>:<node>\"")]
        enum Form {
            Millis(u64),
            Wire(String),
        }
        match Form::deserialize(deserializer)? {
            Form::Millis(ms) => Ok(Self(Timestamp { ms, counter: 0, node: "input".into() })),
            Form::Wire(text) => Timestamp::parse(&text)
                .map(Self)
                .map_err(|error| D::Error::custom(format!("`timestamp`: {error}"))),
        }
    }
}

/// A message that came out of a graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// The topic, as the graph left it.
    pub topic: String,
    /// The payload.
    pub payload: Bytes,
    /// The MQTT content type.
    pub content_type: Option<String>,
    /// The MQTT user properties.
    pub user_properties: Vec<(String, String)>,
    /// What a broker would publish as `__ts`.
    pub timestamp: Timestamp,
}

impl Outgoing {
    /// What leaves a graph; `topic` is that of the message it was derived from, for what has no topic of its own.
    pub fn of(data: Data, time: &Hlc, topic: &str) -> Self {
        let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        let bare = |time: &Hlc, payload| Self {
            topic: topic.to_owned(),
            payload,
            content_type: None,
            user_properties: Vec::new(),
            timestamp: stamp(time),
        };
        match data {
            Data::Message(item::Message {
                timestamp, topic, content_type, payload, user_properties, ..
            }) => Self {
                topic: text(&topic),
                payload,
                content_type: content_type.as_ref().map(text),
                user_properties: user_properties.iter().map(|(k, v)| (text(k), text(v))).collect(),
                timestamp: stamp(&timestamp),
            },
            Data::Snapshot(snapshot) => bare(&snapshot.timestamp, snapshot.frame),
            Data::Bytes(payload) => bare(time, payload),
        }
    }

    /// One line of JSON, an envelope.
    pub fn line(&self) -> String {
        let mut fields = vec![
            format!("\"topic\":{}", Value::from(self.topic.as_str())),
            format!("\"timestamp\":{}", Value::from(self.timestamp.to_string())),
        ];
        if let Some(content_type) = &self.content_type {
            fields.push(format!("\"contentType\":{}", Value::from(content_type.as_str())));
        }
        if !self.user_properties.is_empty() {
            fields.push(format!("\"userProperties\":{}", self.properties()));
        }
        fields.push(match std::str::from_utf8(&self.payload) {
            Ok(text) if is_json(text) => format!("\"payload\":{}", on_one_line(text)),
            Ok(text) => format!("\"payloadText\":{}", Value::from(text)),
            Err(_) => format!("\"payloadBase64\":\"{}\"", BASE64.encode(&self.payload)),
        });
        format!("{{{}}}", fields.join(","))
    }

    /// The payload on a line of its own.
    pub fn payload_line(&self) -> Vec<u8> {
        match std::str::from_utf8(&self.payload) {
            Ok(text) if is_json(text) => on_one_line(text).into_bytes(),
            _ => self.payload.to_vec(),
        }
    }

    /// The user properties as an object; of a key that comes several times, a list.
    pub fn properties(&self) -> Value {
        let mut object: Map<String, Value> = Map::new();
        for (key, value) in &self.user_properties {
            let value = Value::from(value.as_str());
            match object.get_mut(key) {
                None => drop(object.insert(key.clone(), value)),
                Some(Value::Array(values)) => values.push(value),
                Some(first) => *first = Value::from(vec![first.take(), value]),
            }
        }
        Value::Object(object)
    }
}

/// The wire form has milliseconds, and no `:` in its node.
fn stamp(time: &Hlc) -> Timestamp {
    let node = if time.node.contains(':') { time.node.replace(':', "-").into() } else { time.node.clone() };
    Timestamp { ms: time.time().to_millis_floor(), counter: time.counter, node }
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// JSON without the white space between its parts; numbers and the order of keys stay as they are.
fn on_one_line(json: &str) -> String {
    let (mut in_text, mut escaped) = (false, false);
    json.chars()
        .filter(|&c| {
            let keep = in_text || !matches!(c, ' ' | '\t' | '\r' | '\n');
            if !escaped && c == '"' {
                in_text = !in_text;
            }
            escaped = in_text && !escaped && c == '\\';
            keep
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Incoming, String> {
        Incoming::parse(line, Path::new("/nowhere"), "default")
    }

    #[test]
    fn a_line_without_a_payload_field_is_itself_the_payload_byte_for_byte() {
        for line in [r#"{"b":1.50,"a":[1, 2]}"#, "[1,2]", "3", "\"text\"", r#"{"topic":"x"}"#] {
            let message = parse(line).unwrap();
            assert_eq!((&*message.payload, &*message.topic), (line.as_bytes(), "default"));
        }
    }

    #[test]
    fn an_envelope_has_topic_time_type_and_properties_beside_the_payload() {
        let line = r#"{"topic":"t","timestamp":1500,"contentType":"c","userProperties":{"b":"1","a":["2","3"]},
            "payload":{"x":1.50}}"#;
        let message = parse(line).unwrap();
        assert_eq!(message.payload, r#"{"x":1.50}"#);
        assert_eq!((&*message.topic, message.content_type.as_deref()), ("t", Some("c")));
        let pairs = [("b", "1"), ("a", "2"), ("a", "3")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(message.user_properties, pairs);
        assert_eq!(message.timestamp.unwrap().to_string(), "000000000001500:00000:input");
        assert_eq!(parse(r#"{"payload":null}"#).unwrap().payload, "null");
        assert_eq!(parse(r#"{"payloadText":""}"#).unwrap().payload, "");
        assert_eq!(parse(r#"{"payloadBase64":"AP8="}"#).unwrap().payload, &[0, 255][..]);
    }

    #[test]
    fn what_is_wrong_with_a_line_is_said() {
        for (line, why) in [
            ("{", "no JSON"),
            (r#"{"payload":1,"tpoic":"x"}"#, "unknown field `tpoic`"),
            (r#"{"payload":1,"payloadText":"x"}"#, "more than one of"),
            (r#"{"payload":1,"timestamp":-1}"#, "neither milliseconds nor"),
            (r#"{"payload":1,"timestamp":"1:2"}"#, "three parts"),
            (r#"{"payload":1,"userProperties":{"a":1}}"#, "neither text nor a list"),
            (r#"{"payloadBase64":"*"}"#, "no base64"),
            (r#"{"payloadFile":"none.raw"}"#, "/nowhere/none.raw"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(why), "{line}: {error}");
        }
    }

    #[test]
    fn what_is_printed_can_be_read_again() {
        for payload in
            [&b"{\"a \\\" b\" : 1.50 ,\n \"c\":[ ]}"[..], b"text", b"", &[0xff, 0x00], b"\"a\\\\\" "]
        {
            let printed = Outgoing {
                topic: "a/\"b\"".to_owned(),
                payload: Bytes::copy_from_slice(payload),
                content_type: Some("x".to_owned()),
                user_properties: vec![("k".to_owned(), "1".to_owned()), ("k".to_owned(), "2".to_owned())],
                timestamp: Timestamp { ms: 5, counter: 1, node: "n".into() },
            };
            let line = printed.line();
            assert!(!line.contains('\n'), "{line}");
            let read = parse(&line).unwrap();
            assert_eq!(
                (read.topic, read.timestamp),
                (printed.topic.clone(), Some(printed.timestamp.clone()))
            );
            assert_eq!(
                (read.user_properties, read.content_type),
                (printed.user_properties.clone(), printed.content_type.clone())
            );
            assert_eq!(read.payload, printed.payload_line());
        }
        assert_eq!(on_one_line("{\"a \\\" b\" : 1.50 ,\n \"c\":[ ]}"), r#"{"a \" b":1.50,"c":[]}"#);
    }
}
