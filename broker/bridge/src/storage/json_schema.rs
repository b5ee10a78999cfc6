//! Columns from JSON Schema draft-07: what `type`, `properties`, `items`, `required` and `format` say.

use serde_json::Value;

use super::schema::{DEPTH_MAX, Field, Kind, unique};

/// The fields of an object.
///
/// # Errors
/// It is no object with properties, or has what cannot be written; says where.
pub fn fields(document: &Value, at: &str, depth: usize) -> Result<Vec<Field>, String> {
    let depth = depth.checked_sub(1).ok_or_else(|| format!("`{at}` is more than {DEPTH_MAX} levels deep"))?;
    let Some(properties) = document.get("properties").and_then(Value::as_object) else {
        return Err(match at {
            "" => "`properties` is missing".to_owned(),
            at => format!("`{at}`: Currently maps are not supported; `properties` must name what is in it"),
        });
    };
    let required: Vec<&str> = match document.get("required").and_then(Value::as_array) {
        Some(names) => names.iter().filter_map(Value::as_str).collect(),
        None => Vec::new(),
    };
    let mut read = Vec::with_capacity(properties.len());
    for (name, property) in properties {
        let at = match at {
            "" => format!("properties.{name}"),
            at => format!("{at}.properties.{name}"),
        };
        let (kind, null) = kind(property, &at, depth)?;
        let nullable = null || !required.contains(&name.as_str());
        read.push(Field { name: name.clone(), kind, nullable });
    }
    unique(&read, if at.is_empty() { "properties" } else { at })?;
    Ok(read)
}

/// What a property is, and whether it may be null.
fn kind(document: &Value, at: &str, depth: usize) -> Result<(Kind, bool), String> {
    let named: Vec<&str> = match document.get("type") {
        Some(Value::String(name)) => vec![name],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let null = named.contains(&"null");
    let mut rest = named.iter().filter(|name| **name != "null");
    let (Some(name), None) = (rest.next(), rest.next()) else {
        return Err(format!("`{at}.type` must name one type, and may name `null` beside it"));
    };
    let kind = match *name {
        "boolean" => Kind::Boolean,
        "integer" => Kind::Integer(64),
        "number" => Kind::Double,
        "string" => text(document),
        "object" => Kind::Struct(fields(document, at, depth)?),
        "array" => {
            let items = document.get("items").filter(|items| items.is_object());
            let items = items.ok_or_else(|| format!("`{at}.items` must say what is in the array"))?;
            let depth =
                depth.checked_sub(1).ok_or_else(|| format!("`{at}` is more than {DEPTH_MAX} levels deep"))?;
            let (kind, nullable) = self::kind(items, &format!("{at}.items"), depth)?;
            Kind::List(Box::new(Field { name: "element".to_owned(), kind, nullable }))
        }
        other => return Err(format!("`{at}.type` is `{other}`, which is no type of JSON Schema")),
    };
    Ok((kind, null))
}

fn text(document: &Value) -> Kind {
    let said = |key: &str| document.get(key).and_then(Value::as_str);
    match (said("format"), said("contentEncoding")) {
        (Some("date-time"), _) => Kind::Timestamp(true),
        (Some("date"), _) => Kind::Date,
        (_, Some("base64")) => Kind::Binary,
        _ => Kind::String,
    }
}

#[cfg(test)]
mod tests {
    use super::super::schema::Schema;
    use super::*;

    #[test]
    fn what_is_required_and_not_null_must_be_there() {
        let schema = Schema::read(
            r#"{"$schema": "http://json-schema.org/draft-07/schema#", "type": "object", "required": ["a", "b"], "properties": {
                "a": {"type": "integer"}, "b": {"type": ["number", "null"]}, "c": {"type": "string", "format": "date-time"},
                "d": {"type": "array", "items": {"type": "object", "properties": {"e": {"type": "boolean"}}}}}}"#,
        )
        .unwrap();
        let told: Vec<_> = schema.fields.iter().map(|field| (field.name.as_str(), field.nullable)).collect();
        assert_eq!(told, [("a", false), ("b", true), ("c", true), ("d", true)]);
        assert_eq!(schema.fields[2].kind, Kind::Timestamp(true));
        let Kind::List(element) = &schema.fields[3].kind else { panic!("{schema:?}") };
        assert!(matches!(&element.kind, Kind::Struct(fields) if fields[0].kind == Kind::Boolean));
    }

    #[test]
    fn objects_without_properties_and_types_without_a_name_are_refused() {
        for (document, why) in [
            (r#"{"properties": {"m": {"type": "object"}}}"#, "Currently maps are not supported"),
            (r#"{"properties": {"m": {}}}"#, "`properties.m.type` must name one type"),
            (r#"{"properties": {"m": {"type": ["string", "integer"]}}}"#, "must name one type"),
            (r#"{"properties": {"m": {"type": "array"}}}"#, "`properties.m.items`"),
            (r#"{"type": "object"}"#, "`properties` is missing"),
            ("nonsense", "no JSON"),
        ] {
            let told = Schema::read(document).unwrap_err();
            assert!(told.contains(why), "{told}");
        }
    }
}
