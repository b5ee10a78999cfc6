//! What a graph finds besides its messages: the first content of its state store, and a schema.

use std::path::Path;

use processing::instance::ModuleSchema;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::input;

/// What kind of schema operators are told it is.
const SCHEMA_TYPE: &str = "JsonSchema/draft-07";

/// Keys and values from a JSON file: an object, or a list of objects, as AIO's tools have it.
///
/// # Errors
/// What is wrong with the file, in a sentence.
pub fn state(path: &Path) -> Result<Vec<(String, String)>, String> {
    let fail = |why: String| format!("{}: {why}", path.display());
    let bytes = input::read(path).map_err(fail)?;
    let value: Value =
        serde_json::from_slice(&bytes).map_err(|error| fail(format!("this is no JSON: {error}")))?;
    let objects = match value {
        Value::Array(objects) => objects,
        value => vec![value],
    };
    let mut entries = Vec::new();
    for object in objects {
        let Value::Object(fields) = object else {
            return Err(fail("keys and values stand in an object, or in a list of objects".to_owned()));
        };
        for (key, value) in fields {
            let Value::String(value) = value else {
                return Err(fail(format!("the value of `{key}` is no string")));
            };
            entries.push((key, value));
        }
    }
    Ok(entries)
}

/// A JSON schema, called as its file without the ending.
///
/// # Errors
/// What is wrong with the file, in a sentence.
pub fn schema(path: &Path) -> Result<ModuleSchema, String> {
    let fail = |why: String| format!("{}: {why}", path.display());
    let content = String::from_utf8(input::read(path).map_err(fail)?);
    let content = content.map_err(|_| fail("the file is not UTF-8 text".to_owned()))?;
    serde_json::from_str::<IgnoredAny>(&content)
        .map_err(|error| fail(format!("this is no JSON: {error}")))?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    Ok(ModuleSchema { name, content_type: SCHEMA_TYPE.to_owned(), content })
}
