//! Message schemas: kept by name and version, given to guests, and used to check what passes (AIO.md §7.3).

use std::collections::BTreeMap;
use std::sync::Arc;

use jsonschema::Validator;
use parking_lot::RwLock;
use processing_core::item::{Data, Message};
use processing_core::operator::{Operator, OperatorError};
use serde_json::{Map, Value, json};

use crate::instance::ModuleSchema;
use crate::module::digest;

/// The version that is meant when none is said.
pub const VERSION_DEFAULT: &str = "1";
/// How a reference to a schema begins.
const SCHEME: &str = "aio-sr://";
/// Longest schema document, bytes.
const CONTENT_BYTES_MAX: usize = 1 << 20;
/// Most faults that one message is told of.
const FAULTS_MAX: usize = 3;
/// Longest fault that is told, bytes.
const FAULT_BYTES_MAX: usize = 200;

/// How a schema is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// JSON Schema draft-07.
    Json,
    /// `Delta/1.0`: a table's fields.
    Delta,
}

impl Format {
    /// The content type that modules are told.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => "JsonSchema/draft-07",
            Self::Delta => "Delta/1.0",
        }
    }
}

/// What names a schema: `aio-sr://<namespace>/<name>:<version>`, or `<name>:<version>` in any namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SchemaRef {
    /// The namespace; empty for any.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// The version.
    pub version: String,
}

impl SchemaRef {
    /// Reads a reference.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, SchemaError> {
        let malformed = || SchemaError::Reference(text.chars().take(FAULT_BYTES_MAX).collect());
        let (namespace, rest) = match text.strip_prefix(SCHEME) {
            Some(rest) => rest.split_once('/').ok_or_else(malformed)?,
            None => ("", text),
        };
        let (name, version) = rest.split_once(':').unwrap_or((rest, VERSION_DEFAULT));
        let word = |text: &str| !text.is_empty() && !text.contains(['/', ':', ' ']) && text.len() <= 253;
        match (text.starts_with(SCHEME) && !word(namespace)) || !word(name) || !word(version) {
            true => Err(malformed()),
            false => Ok(Self {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                version: version.to_owned(),
            }),
        }
    }
}

impl std::fmt::Display for SchemaRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { namespace, name, version } = self;
        match namespace.is_empty() {
            true => write!(f, "{name}:{version}"),
            false => write!(f, "{SCHEME}{namespace}/{name}:{version}"),
        }
    }
}

/// Something is wrong with a schema.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// A reference that names nothing.
    #[error("`{0}` is no reference to a schema; it is written `aio-sr://<namespace>/<name>:<version>`")]
    Reference(String),
    /// Nobody has it.
    #[error("there is no schema {0}")]
    Unknown(SchemaRef),
    /// The document is no schema.
    #[error("it is no schema that can be used: {0}")]
    Malformed(String),
    /// The document is longer than it may be.
    #[error("a schema has at most {CONTENT_BYTES_MAX} bytes")]
    TooLong,
}

/// A schema.
#[derive(Debug, Clone)]
pub struct Schema {
    /// Its name in full.
    pub id: SchemaRef,
    /// How it is written.
    pub format: Format,
    /// The document.
    pub content: Arc<str>,
    /// `sha256:…` of the document.
    pub hash: Arc<str>,
    validator: Arc<Validator>,
}

impl Schema {
    /// Reads a document: JSON Schema draft-07 or `Delta/1.0`, told apart by its `$schema`. It may refer to nothing
    /// outside itself.
    ///
    /// # Errors
    /// Says what is wrong with the document.
    pub fn read(id: SchemaRef, content: &str) -> Result<Self, SchemaError> {
        if content.len() > CONTENT_BYTES_MAX {
            return Err(SchemaError::TooLong);
        }
        let malformed = |why: String| SchemaError::Malformed(why);
        let document: Value = serde_json::from_str(content).map_err(|error| malformed(error.to_string()))?;
        let is_delta =
            document.get("$schema").and_then(Value::as_str).is_some_and(|s| s.starts_with("Delta/"));
        let (format, rules) = match is_delta {
            true => (Format::Delta, delta_rules(&document).map_err(malformed)?),
            false => (Format::Json, document),
        };
        let validator = jsonschema::draft7::new(&rules).map_err(|error| malformed(error.to_string()))?;
        let hash = digest(content.as_bytes()).into();
        Ok(Self { id, format, content: content.into(), hash, validator: Arc::new(validator) })
    }

    /// What a module's `init` is told of it.
    pub fn for_module(&self) -> ModuleSchema {
        ModuleSchema {
            name: self.id.name.clone(),
            content_type: self.format.content_type().to_owned(),
            content: self.content.to_string(),
        }
    }

    /// Whether a payload is as the schema says.
    ///
    /// # Errors
    /// The first few faults, each with its place in the payload.
    pub fn check(&self, payload: &[u8]) -> Result<(), String> {
        let value: Value =
            serde_json::from_slice(payload).map_err(|error| format!("the payload is not JSON: {error}"))?;
        if self.validator.is_valid(&value) {
            return Ok(());
        }
        let faults = self.validator.iter_errors(&value).take(FAULTS_MAX);
        let tell = |error: jsonschema::ValidationError<'_>| {
            let (place, text) = (error.instance_path().to_string(), error.to_string());
            let text = &text[..text.floor_char_boundary(FAULT_BYTES_MAX)];
            if place.is_empty() { text.to_owned() } else { format!("{place}: {text}") }
        };
        Err(faults.map(tell).collect::<Vec<_>>().join("; "))
    }
}

/// The JSON Schema that says what a Delta schema says.
fn delta_rules(document: &Value) -> Result<Value, String> {
    let properties = document.get("properties").ok_or("`properties` is missing")?;
    let fields =
        properties.get("fields").and_then(Value::as_array).ok_or("`properties.fields` is no list")?;
    delta_struct(fields, 0)
}

/// Deeper than anybody writes tables.
const DEPTH_MAX: usize = 64;

fn delta_struct(fields: &[Value], depth: usize) -> Result<Value, String> {
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for field in fields {
        let name = field.get("name").and_then(Value::as_str).ok_or("a field has no `name`")?;
        let kind = field.get("type").ok_or_else(|| format!("the field `{name}` has no `type`"))?;
        let nullable = field.get("nullable").and_then(Value::as_bool).unwrap_or(true);
        let rules = delta_type(name, kind, depth + 1)?;
        if !nullable {
            required.push(name);
        }
        let rules = if nullable { json!({"anyOf": [{"type": "null"}, rules]}) } else { rules };
        properties.insert(name.to_owned(), rules);
    }
    Ok(json!({"type": "object", "properties": properties, "required": required}))
}

fn delta_type(name: &str, kind: &Value, depth: usize) -> Result<Value, String> {
    if depth > DEPTH_MAX {
        return Err(format!("the field `{name}` is nested too deeply"));
    }
    if let Some(kind) = kind.as_str() {
        return Ok(match kind {
            "string" | "binary" | "date" | "timestamp" | "timestamp_ntz" => json!({"type": "string"}),
            "byte" => json!({"type": "integer", "minimum": i8::MIN, "maximum": i8::MAX}),
            "short" => json!({"type": "integer", "minimum": i16::MIN, "maximum": i16::MAX}),
            "integer" => json!({"type": "integer", "minimum": i32::MIN, "maximum": i32::MAX}),
            "long" => json!({"type": "integer"}),
            "float" | "double" => json!({"type": "number"}),
            "boolean" => json!({"type": "boolean"}),
            "map" => return Err(format!("the field `{name}` is a map, and maps are not supported")),
            decimal if decimal.starts_with("decimal") => json!({"type": ["number", "string"]}),
            other => return Err(format!("the field `{name}` has the unknown type `{other}`")),
        });
    }
    match kind.get("type").and_then(Value::as_str) {
        Some("struct") => {
            let fields = kind.get("fields").and_then(Value::as_array);
            delta_struct(fields.ok_or_else(|| format!("the struct `{name}` has no `fields`"))?, depth)
        }
        Some("array") => {
            let element =
                kind.get("elementType").ok_or_else(|| format!("the array `{name}` has no `elementType`"))?;
            Ok(json!({"type": "array", "items": delta_type(name, element, depth + 1)?}))
        }
        Some("map") => Err(format!("the field `{name}` is a map, and maps are not supported")),
        _ => Err(format!("the field `{name}` has no type that is known")),
    }
}

/// All schemas of the process.
#[derive(Debug, Default)]
pub struct SchemaRegistry {
    schemas: RwLock<BTreeMap<SchemaRef, Schema>>,
}

impl SchemaRegistry {
    /// Adds a schema, in place of one of the same name.
    pub fn add(&self, schema: Schema) {
        self.schemas.write().insert(schema.id.clone(), schema);
    }

    /// The schema that a reference names; without a namespace, the first of that name.
    ///
    /// # Errors
    /// There is none.
    pub fn get(&self, reference: &SchemaRef) -> Result<Schema, SchemaError> {
        let schemas = self.schemas.read();
        let any = || {
            let same = |id: &SchemaRef| id.name == reference.name && id.version == reference.version;
            schemas
                .iter()
                .find(|(id, _)| reference.namespace.is_empty() && same(id))
                .map(|(_, schema)| schema)
        };
        let found = schemas.get(reference).or_else(any);
        found.cloned().ok_or_else(|| SchemaError::Unknown(reference.clone()))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.schemas.read().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Lets only those messages pass whose payload is as a schema says.
#[derive(Debug)]
pub struct SchemaCheck {
    schema: Schema,
    reference: String,
}

impl SchemaCheck {
    /// For messages that must be as `schema` says, which the connection calls `reference`.
    pub fn new(schema: Schema, reference: &str) -> Self {
        Self { schema, reference: reference.to_owned() }
    }

    /// A message that names a schema of its own must name this one.
    fn conflict(&self, message: &Message) -> Option<String> {
        let named = message.user_properties.iter().find(|(key, _)| key == "dataschema");
        let (_, named) =
            named.filter(|(_, named)| *named != self.reference && *named != self.schema.id.to_string())?;
        Some(format!("conflicting schema: its dataschema is {}", String::from_utf8_lossy(named)))
    }
}

impl Operator for SchemaCheck {
    fn filter(&mut self, data: &Data) -> Result<bool, OperatorError> {
        let Data::Message(message) = data else {
            return Err(OperatorError::Failed("only messages can be checked against a schema".to_owned()));
        };
        if let Some(conflict) = self.conflict(message) {
            return Err(OperatorError::Failed(conflict));
        }
        let told = |faults| format!("not as the schema {} says: {faults}", self.schema.id);
        self.schema
            .check(&message.payload)
            .map(|()| true)
            .map_err(|faults| OperatorError::Failed(told(faults)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(content: &str) -> Result<Schema, SchemaError> {
        Schema::read(SchemaRef::parse("aio-sr://plant/reading:1").unwrap(), content)
    }

    const READING: &str = r#"{"$schema": "http://json-schema.org/draft-07/schema#", "type": "object",
        "properties": {"humidity": {"type": "integer"}, "temperature": {"type": "number"}}}"#;

    #[test]
    fn references_name_a_schema_in_full_or_in_any_namespace() {
        let full = SchemaRef::parse("aio-sr://plant/reading:2").unwrap();
        assert_eq!(full.to_string(), "aio-sr://plant/reading:2");
        assert_eq!(SchemaRef::parse("reading").unwrap().to_string(), "reading:1");
        for wrong in ["", "aio-sr://reading:1", "aio-sr:///reading:1", "a:b:c", "a/b:1", "aio-sr://n/:1"] {
            assert!(SchemaRef::parse(wrong).is_err(), "{wrong}");
        }
        let registry = SchemaRegistry::default();
        registry.add(schema(READING).unwrap());
        assert!(registry.get(&SchemaRef::parse("reading:1").unwrap()).is_ok());
        assert!(registry.get(&SchemaRef::parse("aio-sr://plant/reading:1").unwrap()).is_ok());
        for unknown in ["reading:2", "aio-sr://other/reading:1", "aio-sr://plant/readin:1"] {
            let unknown = SchemaRef::parse(unknown).unwrap();
            assert_eq!(registry.get(&unknown).unwrap_err(), SchemaError::Unknown(unknown));
        }
    }

    #[test]
    fn faults_are_told_with_their_place() {
        let schema = schema(READING).unwrap();
        assert_eq!(schema.check(br#"{"humidity":175,"temperature":12.5}"#), Ok(()));
        assert_eq!(
            schema.check(br#"{"humidity":175.1,"temperature":"x"}"#).unwrap_err(),
            r#"/humidity: 175.1 is not of type "integer"; /temperature: "x" is not of type "number""#
        );
        assert!(schema.check(b"no").unwrap_err().starts_with("the payload is not JSON: "));
    }

    #[test]
    fn a_delta_schema_says_which_fields_a_table_has() {
        let delta = |fields: &str| {
            let struct_of = format!(r#"{{"type": "struct", "fields": [{fields}]}}"#);
            schema(&format!(r#"{{"$schema": "Delta/1.0", "type": "object", "properties": {struct_of}}}"#))
        };
        let table = delta(
            r#"{"name": "id", "type": "long", "nullable": false}, {"name": "note", "type": "string"},
               {"name": "at", "type": {"type": "struct", "fields": [{"name": "x", "type": "byte", "nullable": false}]}},
               {"name": "all", "type": {"type": "array", "elementType": "double"}}"#,
        )
        .unwrap();
        assert_eq!(table.format, Format::Delta);
        for right in [r#"{"id":1}"#, r#"{"id":1,"note":null,"at":{"x":-128},"all":[1,2.5],"more":true}"#] {
            assert_eq!(table.check(right.as_bytes()), Ok(()), "{right}");
        }
        for wrong in [
            "{}",
            r#"{"id":null}"#,
            r#"{"id":1.5}"#,
            r#"{"id":1,"at":{"x":200}}"#,
            r#"{"id":1,"all":["a"]}"#,
            "[]",
        ] {
            assert!(table.check(wrong.as_bytes()).is_err(), "{wrong}");
        }
        let fault = |fields: &str| delta(fields).unwrap_err().to_string();
        assert!(fault(r#"{"name": "m", "type": "map"}"#).contains("the field `m` is a map"));
        assert!(fault(r#"{"name": "m", "type": "int"}"#).contains("unknown type `int`"));
        assert!(fault(r#"{"type": "long"}"#).contains("a field has no `name`"));
    }

    #[test]
    fn what_is_no_schema_is_refused() {
        let fault = |content: &str| schema(content).unwrap_err().to_string();
        assert!(fault("{").starts_with("it is no schema that can be used"));
        assert!(fault(r#"{"type": "objekt"}"#).contains("objekt"));
        // Nothing is fetched from anywhere.
        assert!(schema(r#"{"$ref": "http://127.0.0.1:1/other.json"}"#).is_err());
        assert!(schema(r#"{"$ref": "file:///etc/passwd"}"#).is_err());
        assert_eq!(
            schema(&format!("\"{}\"", "x".repeat(CONTENT_BYTES_MAX))).unwrap_err(),
            SchemaError::TooLong
        );
    }
}
