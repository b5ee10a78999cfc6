//! Resources as they were written: for whoever shows, compares or keeps them.

use crate::arm;
use crate::finding::{Finding, Report, ResourceId};
use crate::load::{files, load_text};
use crate::resource::DEFAULT_NAMESPACE;
use crate::resource::metadata::PATHS;
use crate::yaml::{Node, Value, documents};
use serde_json::{Map, Number, Value as Json};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A resource as it was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// What it is called.
    pub id: ResourceId,
    /// The file it stands in.
    pub file: Arc<Path>,
    /// How many resources stand in that file.
    pub among: usize,
    /// The whole of it, as Kubernetes has it.
    pub value: Json,
}

/// All resources of these files and directories. What cannot be read is left out; [`load`](crate::load) says what is wrong with it.
pub fn manifests(paths: &[PathBuf]) -> Vec<Manifest> {
    let read = |path: &PathBuf| load_text(path).ok().and_then(|text| manifests_of(path, &text).ok());
    files(paths).iter().filter_map(read).flatten().collect()
}

/// The resources of a text; `file` stands for it in findings.
///
/// # Errors
/// It is no YAML or JSON, or something in it is no resource with a kind and a name.
pub fn manifests_of(file: &Path, text: &str) -> Result<Vec<Manifest>, Vec<Finding>> {
    let mut report = Report::new(file);
    let mut found = Vec::new();
    match documents(text) {
        Ok(documents) => documents.iter().for_each(|document| take(document, &mut found, &mut report)),
        Err(fault) => report.error(fault.position, "", fault.message),
    }
    if report.findings.iter().any(Finding::is_error) {
        return Err(report.findings);
    }
    let (among, file) = (found.len(), Arc::from(file));
    let whole = |(id, value)| Manifest { id, file: Arc::clone(&file), among, value };
    Ok(found.into_iter().map(whole).collect())
}

/// The same resources with paths that hold wherever they are kept: relative ones are those of `directory`. Nothing when the text
/// has no relative path, or cannot be read.
pub fn with_absolute_paths(text: &str, directory: &Path) -> Option<String> {
    let mut manifests = manifests_of(&directory.join("-"), text).ok()?;
    let changed: Vec<bool> =
        manifests.iter_mut().map(|manifest| make_absolute(manifest, directory)).collect();
    changed
        .contains(&true)
        .then(|| manifests.iter().map(|manifest| to_yaml(&manifest.value)).collect::<Vec<_>>().join("---\n"))
}

/// Whether it had a relative path.
fn make_absolute(manifest: &mut Manifest, directory: &Path) -> bool {
    let absolute = |value: &mut Json, prefix: &str| {
        let Some(path) = value.as_str().and_then(|text| text.strip_prefix(prefix)) else { return false };
        if path.is_empty() || path.contains("://") || Path::new(path).is_absolute() {
            return false;
        }
        *value = Json::String(format!("{prefix}{}", directory.join(path).display()));
        true
    };
    let mut changed = false;
    if manifest.id.kind == "RegistryEndpoint"
        && let Some(host) = manifest.value.pointer_mut("/spec/host")
    {
        changed = absolute(host, "oci-layout:");
    }
    let annotations = manifest.value.pointer_mut("/metadata/annotations").and_then(Json::as_object_mut);
    for (key, value) in annotations.into_iter().flatten() {
        if PATHS.contains(&key.as_str()) {
            changed |= absolute(value, "");
        }
    }
    changed
}

fn take(document: &Node, found: &mut Vec<(ResourceId, Json)>, report: &mut Report) {
    if arm::is_body(document) {
        if let Some(document) = arm::to_kubernetes(document, report) {
            take(&document, found, report);
        }
        return;
    }
    let value = json(document);
    let text = |pointer: &str| value.pointer(pointer).and_then(Json::as_str);
    if text("/kind") == Some("List") {
        let Value::Map(entries) = &document.value else { return };
        let items = entries.iter().find(|(key, _)| key.name == "items").map(|(_, items)| &items.value);
        if let Some(Value::List(items)) = items {
            items.iter().for_each(|item| take(item, found, report));
        }
        return;
    }
    match (text("/kind"), text("/metadata/name")) {
        (Some(kind), Some(name)) => {
            let namespace = text("/metadata/namespace").unwrap_or(DEFAULT_NAMESPACE);
            let [kind, namespace, name] = [kind, namespace, name].map(ToOwned::to_owned);
            found.push((ResourceId { kind, namespace, name }, value));
        }
        _ => {
            report.error(document.position, "", "this is no resource: it has no `kind` or no `metadata.name`")
        }
    }
}

fn json(node: &Node) -> Json {
    match &node.value {
        Value::Null => Json::Null,
        Value::Bool(value, _) => Json::Bool(*value),
        Value::Int(value, text) => match i64::try_from(*value) {
            Ok(value) => Json::from(value),
            Err(_) => Json::String(text.clone()),
        },
        Value::Float(text) => match text.parse().ok().and_then(Number::from_f64) {
            Some(number) => Json::Number(number),
            None => Json::String(text.clone()),
        },
        Value::String(text) => Json::String(text.clone()),
        Value::List(items) => Json::Array(items.iter().map(json).collect()),
        Value::Map(entries) => {
            let fields: Map<String, Json> =
                entries.iter().map(|(key, value)| (key.name.clone(), json(value))).collect();
            Json::Object(fields)
        }
    }
}

/// A value as YAML, with mappings in the order of their keys.
pub fn to_yaml(value: &Json) -> String {
    let mut out = String::new();
    match value {
        Json::Object(fields) if !fields.is_empty() => mapping(fields, 0, &mut out),
        Json::Array(items) if !items.is_empty() => list(items, 0, &mut out),
        scalar => out.push_str(&inline(scalar)),
    }
    if !out.ends_with('\n') {
        out.push('\n');
    }
    out
}

fn mapping(fields: &Map<String, Json>, depth: usize, out: &mut String) {
    for (at, (key, value)) in fields.iter().enumerate() {
        if at > 0 || depth == 0 {
            out.push_str(&"  ".repeat(depth));
        }
        out.push_str(&inline(&Json::String(key.clone())));
        out.push(':');
        below(value, depth, out);
    }
}

fn list(items: &[Json], depth: usize, out: &mut String) {
    for item in items {
        out.push_str(&"  ".repeat(depth));
        out.push_str("- ");
        match item {
            Json::Object(fields) if !fields.is_empty() => mapping(fields, depth + 1, out),
            other => {
                out.push_str(&inline(other));
                out.push('\n');
            }
        }
    }
}

/// What stands behind a key.
fn below(value: &Json, depth: usize, out: &mut String) {
    match value {
        Json::Object(fields) if !fields.is_empty() => {
            out.push('\n');
            out.push_str(&"  ".repeat(depth + 1));
            mapping(fields, depth + 1, out);
        }
        Json::Array(items) if !items.is_empty() => {
            out.push('\n');
            list(items, depth, out);
        }
        Json::String(text) if text.contains('\n') && is_block(text) => {
            out.push_str(if text.ends_with('\n') { " |\n" } else { " |-\n" });
            for line in text.trim_end_matches('\n').split('\n') {
                if !line.is_empty() {
                    out.push_str(&"  ".repeat(depth + 1));
                }
                out.push_str(line);
                out.push('\n');
            }
        }
        scalar => {
            out.push(' ');
            out.push_str(&inline(scalar));
            out.push('\n');
        }
    }
}

/// Whether a text of several lines can be written as it is.
fn is_block(text: &str) -> bool {
    let control = |c: char| c.is_control() && c != '\n';
    !text.starts_with([' ', '\n']) && !text.ends_with("\n\n") && !text.contains(control)
}

/// A value on one line. JSON is YAML; texts go without quotes where they can be nothing else.
fn inline(value: &Json) -> String {
    match value {
        Json::String(text) if is_plain(text) => text.clone(),
        Json::String(text) => Json::String(text.clone()).to_string(),
        other => other.to_string(),
    }
}

fn is_plain(text: &str) -> bool {
    let first = text.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '/');
    let inner = |c: char| c.is_ascii_alphanumeric() || "-_./+$@{}".contains(c) || c == ' ';
    let words = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let is_word = words.iter().any(|word| text.eq_ignore_ascii_case(word));
    first && text.chars().all(inner) && !text.ends_with(' ') && !is_word
}

#[cfg(test)]
mod tests {
    use super::*;

    fn again(text: &str) -> Vec<Json> {
        let manifests =
            manifests_of(Path::new("t.yaml"), text).unwrap_or_else(|findings| panic!("{findings:?}"));
        manifests.into_iter().map(|manifest| manifest.value).collect()
    }

    #[test]
    fn what_is_written_reads_as_what_it_was() {
        let text = r##"{"kind": "A", "metadata": {"name": "n"}, "spec": {"list": [{"a": 1, "b": [1, "2"]}, [], "x: y", "no", null, [[1]]],
            "empty": {}, "text": "one\ntwo\n", "odd": " lead", "tail": "a\n\n", "number": "007", "key with space": true, "#": -1.5,
            "more": {"deep": {"er": ["#", "a#b"]}}}}"##;
        let first = again(text);
        let yaml = to_yaml(&first[0]);
        assert_eq!(again(&yaml), first, "{yaml}");
    }

    #[test]
    fn relative_paths_are_made_to_hold_elsewhere() {
        let directory = Path::new("/etc/graphs");
        let text = "kind: RegistryEndpoint\nmetadata: {name: a}\nspec: {host: 'oci-layout:registry'}\n---\n\
            kind: Secret\nmetadata: {name: b, annotations: {forebay.dev/directory: keys, other: keys}}\n";
        let told = again(&with_absolute_paths(text, directory).unwrap());
        assert_eq!(told[0]["spec"]["host"], "oci-layout:/etc/graphs/registry");
        let annotations = &told[1]["metadata"]["annotations"];
        assert_eq!(
            (&annotations["forebay.dev/directory"], &annotations["other"]),
            (&"/etc/graphs/keys".into(), &"keys".into())
        );
        for whole in ["kind: RegistryEndpoint\nmetadata: {name: a}\nspec: {host: example.com}\n", "a: ["] {
            assert_eq!(with_absolute_paths(whole, directory), None);
        }
        let keys = "kind: B\nmetadata: {name: b, annotations: {forebay.dev/token-keys: 'https://k'}}\n";
        assert_eq!(with_absolute_paths(keys, directory), None);
    }

    #[test]
    fn lists_and_bodies_of_azure_are_taken_apart() {
        let text = r#"{"type": "Microsoft.IoTOperations/instances/dataflowProfiles/dataflowGraphs", "name": "inst/prof/graph",
            "extendedLocation": {"name": "x", "type": "CustomLocation"}, "properties": {"mode": "Enabled", "provisioningState": "Succeeded"}}"#;
        let [graph] = &again(text)[..] else { panic!("one resource expected") };
        assert_eq!(graph["kind"], "DataflowGraph");
        assert_eq!(graph["metadata"]["name"], "graph");
        assert_eq!(graph["spec"], serde_json::json!({"mode": "Enabled", "profileRef": "prof"}));
        let list = "kind: List\nitems:\n- {kind: A, metadata: {name: a}}\n- {kind: B, metadata: {name: b}}\n";
        assert_eq!(again(list).len(), 2);
        for wrong in ["a: [", "kind: A\n", r#"{"type": "Other/x", "name": "a", "properties": {}}"#] {
            assert!(manifests_of(Path::new("t.yaml"), wrong).is_err(), "{wrong}");
        }
    }
}
