//! What the columns of a file or table are, from a schema document: Delta's own (`Delta/1.0`) or JSON Schema draft-07.

use std::sync::Arc;

use arrow_schema::{DataType, Field as ArrowField, Fields, Schema as ArrowSchema, TimeUnit};
use serde_json::Value;

use super::json_schema;

/// Schemas nest no deeper.
pub const DEPTH_MAX: usize = 32;
/// Columns of a schema, those inside of others counted.
const FIELDS_MAX: usize = 10_000;

/// What a record looks like.
#[derive(Clone, Debug, PartialEq)]
pub struct Schema {
    /// Its fields, in the order of the columns.
    pub fields: Vec<Field>,
}

/// A field of a record.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// The name.
    pub name: String,
    /// What its values are.
    pub kind: Kind,
    /// It may be missing or null.
    pub nullable: bool,
}

/// What the values of a field are; the names are Delta's.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// `boolean`.
    Boolean,
    /// `byte`, `short`, `integer` or `long`: so many bits.
    Integer(u8),
    /// `float`.
    Float,
    /// `double`.
    Double,
    /// `decimal(precision, scale)`.
    Decimal(u8, i8),
    /// `string`.
    String,
    /// `binary`: base64 in JSON, or an array of bytes.
    Binary,
    /// `date`: `2026-01-31` in JSON.
    Date,
    /// `timestamp` (in UTC: true) or `timestamp_ntz`: RFC 3339 in JSON.
    Timestamp(bool),
    /// `struct`.
    Struct(Vec<Field>),
    /// `array`.
    List(Box<Field>),
}

impl Schema {
    /// Reads a schema document.
    ///
    /// # Errors
    /// It is none, or says something that cannot be written; says where.
    pub fn read(document: &str) -> Result<Self, String> {
        let document: Value =
            serde_json::from_str(document).map_err(|error| format!("it is no JSON: {error}"))?;
        let dialect = document.get("$schema").and_then(Value::as_str).unwrap_or_default();
        let fields = match dialect.eq_ignore_ascii_case("Delta/1.0") {
            true => delta_fields(
                document.get("properties").ok_or("`properties` is missing")?,
                "properties",
                DEPTH_MAX,
            )?,
            false => json_schema::fields(&document, "", DEPTH_MAX)?,
        };
        let schema = Self { fields };
        match schema.fields.iter().map(Field::count).sum::<usize>() {
            0 => Err("it has no fields".to_owned()),
            count if count > FIELDS_MAX => Err(format!("it has {count} fields; {FIELDS_MAX} may be")),
            _ => Ok(schema),
        }
    }

    /// The same for Arrow.
    pub fn arrow(&self) -> ArrowSchema {
        ArrowSchema::new(arrow_fields(&self.fields))
    }
}

impl Field {
    fn count(&self) -> usize {
        1 + match &self.kind {
            Kind::Struct(fields) => fields.iter().map(Field::count).sum(),
            Kind::List(element) => element.count(),
            _ => 0,
        }
    }

    /// The same for Arrow.
    pub fn arrow(&self) -> ArrowField {
        ArrowField::new(&self.name, self.kind.arrow(), self.nullable)
    }
}

/// The same for Arrow.
pub fn arrow_fields(fields: &[Field]) -> Fields {
    fields.iter().map(|field| Arc::new(field.arrow())).collect()
}

impl Kind {
    fn arrow(&self) -> DataType {
        match self {
            Self::Boolean => DataType::Boolean,
            Self::Integer(8) => DataType::Int8,
            Self::Integer(16) => DataType::Int16,
            Self::Integer(32) => DataType::Int32,
            Self::Integer(_) => DataType::Int64,
            Self::Float => DataType::Float32,
            Self::Double => DataType::Float64,
            Self::Decimal(precision, scale) => DataType::Decimal128(*precision, *scale),
            Self::String => DataType::Utf8,
            Self::Binary => DataType::Binary,
            Self::Date => DataType::Date32,
            Self::Timestamp(utc) => DataType::Timestamp(TimeUnit::Microsecond, utc.then(|| Arc::from("UTC"))),
            Self::Struct(fields) => DataType::Struct(arrow_fields(fields)),
            Self::List(element) => DataType::List(Arc::new(element.arrow())),
        }
    }

    /// What its values are called, for people.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Boolean => "a boolean",
            Self::Integer(_) => "an integer",
            Self::Float | Self::Double => "a number",
            Self::Decimal(..) => "a decimal number",
            Self::String => "a string",
            Self::Binary => "bytes, as base64 or an array",
            Self::Date => "a date such as 2026-01-31",
            Self::Timestamp(_) => "a time such as 2026-01-31T12:00:00Z",
            Self::Struct(_) => "an object",
            Self::List(_) => "an array",
        }
    }
}

/// The fields of `{"type": "struct", "fields": […]}`.
fn delta_fields(document: &Value, at: &str, depth: usize) -> Result<Vec<Field>, String> {
    let fields = document.get("fields").and_then(Value::as_array);
    let fields = fields.ok_or_else(|| format!("`{at}.fields` is no array"))?;
    let mut read = Vec::with_capacity(fields.len());
    for (index, field) in fields.iter().enumerate() {
        let at = format!("{at}.fields[{index}]");
        let name = field.get("name").and_then(Value::as_str);
        let name = name.filter(|name| !name.is_empty()).ok_or_else(|| format!("`{at}.name` is missing"))?;
        let kind = field.get("type").ok_or_else(|| format!("`{at}.type` is missing"))?;
        let nullable = field.get("nullable").and_then(Value::as_bool).unwrap_or(true);
        read.push(Field {
            name: name.to_owned(),
            kind: delta_kind(kind, &format!("{at}.type"), depth)?,
            nullable,
        });
    }
    unique(&read, at)?;
    Ok(read)
}

/// No two columns of one record may be taken for one another; the readers of tables do not tell case apart.
pub fn unique(fields: &[Field], at: &str) -> Result<(), String> {
    let mut seen = std::collections::HashSet::new();
    match fields.iter().find(|field| !seen.insert(field.name.to_lowercase())) {
        Some(twice) => Err(format!("`{at}` has `{}` twice", twice.name)),
        None => Ok(()),
    }
}

fn delta_kind(document: &Value, at: &str, depth: usize) -> Result<Kind, String> {
    let depth = depth.checked_sub(1).ok_or_else(|| format!("`{at}` is more than {DEPTH_MAX} levels deep"))?;
    if let Some(name) = document.as_str() {
        return primitive(name).ok_or_else(|| format!("`{at}` is `{name}`, which is no type of Delta"));
    }
    match document.get("type").and_then(Value::as_str) {
        Some("struct") => Ok(Kind::Struct(delta_fields(document, at, depth)?)),
        Some("array") => {
            let element =
                document.get("elementType").ok_or_else(|| format!("`{at}.elementType` is missing"))?;
            let kind = delta_kind(element, &format!("{at}.elementType"), depth)?;
            let nullable = document.get("containsNull").and_then(Value::as_bool).unwrap_or(true);
            Ok(Kind::List(Box::new(Field { name: "element".to_owned(), kind, nullable })))
        }
        Some("map") => Err(format!("`{at}`: Currently maps are not supported")),
        _ => Err(format!("`{at}` is no type of Delta")),
    }
}

fn primitive(name: &str) -> Option<Kind> {
    Some(match name {
        "boolean" => Kind::Boolean,
        "byte" => Kind::Integer(8),
        "short" => Kind::Integer(16),
        "integer" => Kind::Integer(32),
        "long" => Kind::Integer(64),
        "float" => Kind::Float,
        "double" => Kind::Double,
        "string" => Kind::String,
        "binary" => Kind::Binary,
        "date" => Kind::Date,
        "timestamp" => Kind::Timestamp(true),
        "timestamp_ntz" => Kind::Timestamp(false),
        "decimal" => Kind::Decimal(10, 0),
        other => {
            let inside = other.strip_prefix("decimal(")?.strip_suffix(')')?;
            let (precision, scale) = inside.split_once(',')?;
            let (precision, scale): (u8, i8) = (precision.trim().parse().ok()?, scale.trim().parse().ok()?);
            let fits = (1..=38).contains(&precision) && scale >= 0 && scale.unsigned_abs() <= precision;
            return fits.then_some(Kind::Decimal(precision, scale));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delta(fields: &str) -> Result<Schema, String> {
        let head =
            r#"{"$schema": "Delta/1.0", "type": "object", "properties": {"type": "struct", "fields": "#;
        Schema::read(&format!("{head}{fields}}}}}"))
    }

    #[test]
    fn deltas_types_are_read_with_those_inside_of_others() {
        let schema = delta(
            r#"[{"name": "a", "type": "long", "nullable": false, "metadata": {}},
                {"name": "b", "type": "decimal(12, 2)"},
                {"name": "c", "type": {"type": "array", "elementType": "date", "containsNull": false}},
                {"name": "d", "type": {"type": "struct", "fields": [{"name": "e", "type": "timestamp_ntz"}]}}]"#,
        );
        let field = |name: &str, kind, nullable| Field { name: name.to_owned(), kind, nullable };
        let element = Box::new(field("element", Kind::Date, false));
        let inner = vec![field("e", Kind::Timestamp(false), true)];
        let fields = vec![
            field("a", Kind::Integer(64), false),
            field("b", Kind::Decimal(12, 2), true),
            field("c", Kind::List(element), true),
            field("d", Kind::Struct(inner), true),
        ];
        assert_eq!(schema, Ok(Schema { fields }));
    }

    #[test]
    fn what_cannot_be_written_is_told_with_its_place() {
        let map = r#"[{"name": "m", "type": {"type": "map", "keyType": "string", "valueType": "long"}}]"#;
        let mut deep = r#""long""#.to_owned();
        for _ in 0..40 {
            deep = format!(r#"{{"type": "array", "elementType": {deep}}}"#);
        }
        for (fields, why) in [
            (map, "`properties.fields[0].type`: Currently maps are not supported"),
            (r#"[{"name": "a", "type": "lng"}]"#, "`lng`, which is no type"),
            (r#"[{"name": "a", "type": "decimal(39,1)"}]"#, "no type of Delta"),
            (r#"[{"type": "long"}]"#, "`properties.fields[0].name` is missing"),
            (r#"[{"name": "a", "type": "long"}, {"name": "A", "type": "long"}]"#, "has `A` twice"),
            ("[]", "no fields"),
            (&format!(r#"[{{"name": "a", "type": {deep}}}]"#), "levels deep"),
        ] {
            let told = delta(fields).unwrap_err();
            assert!(told.contains(why), "{told}");
        }
    }
}
