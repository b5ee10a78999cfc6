//! Resources as they are shown: with their status, and without what is secret.

use config::manifest::{manifests, to_yaml};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::apply::Wanted;
use crate::admin::Admin;
use crate::reload::Watch;

/// What stands in place of what is secret.
const HIDDEN: &str = "<hidden>";
/// The same, where it is another than before.
const OTHER: &str = "<hidden, another one>";

/// A resource, as it is shown.
#[derive(Debug, Serialize, Deserialize)]
pub struct Shown {
    /// The kind.
    pub kind: String,
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// The file it stands in.
    pub file: String,
    /// The whole of it, with its `status`.
    pub resource: Value,
}

/// The resources that are wanted.
pub fn resources(watch: &Watch, admin: &Admin, wanted: &Wanted) -> Vec<Shown> {
    let all = manifests(&watch.paths).into_iter().filter(|manifest| wanted.is(&manifest.id));
    let mut shown: Vec<Shown> = all
        .map(|manifest| {
            let mut resource = manifest.value;
            hide(&mut resource, None);
            if let (Value::Object(fields), Some(mut status)) =
                (&mut resource, admin.health.status(&manifest.id))
            {
                if let Some(artifacts) = admin.graphs.artifacts(&manifest.id) {
                    status["artifacts"] = artifacts;
                }
                fields.insert("status".to_owned(), status);
            }
            let config::ResourceId { kind, namespace, name } = manifest.id;
            Shown { kind, namespace, name, file: manifest.file.display().to_string(), resource }
        })
        .collect();
    shown.sort_by(|a, b| (&a.kind, &a.namespace, &a.name).cmp(&(&b.kind, &b.namespace, &b.name)));
    shown
}

/// How a resource is and would be, as YAML.
pub fn compared(before: Option<&Value>, after: &Value) -> (String, String) {
    let (mut now, mut then) = (before.cloned().unwrap_or(Value::Null), after.clone());
    if let Value::Object(fields) = &mut then {
        fields.remove("status");
    }
    hide(&mut then, before);
    hide(&mut now, None);
    (if before.is_some() { to_yaml(&now) } else { String::new() }, to_yaml(&then))
}

/// Takes away what is secret; says so where it is another than in `before`.
fn hide(resource: &mut Value, before: Option<&Value>) {
    if resource["kind"] != "Secret" {
        return;
    }
    for part in ["data", "stringData"] {
        let Some(entries) = resource.get_mut(part).and_then(Value::as_object_mut) else { continue };
        for (key, value) in entries {
            let was = before.map(|before| &before[part][key.as_str()]);
            let same = was.is_none_or(|was| was == value);
            *value = json!(if same { HIDDEN } else { OTHER });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown_but_that_they_differ_is() {
        let secret =
            |password: &str| json!({"kind": "Secret", "stringData": {"user": "ada", "password": password}});
        let (before, after) = compared(Some(&secret("one")), &secret("two"));
        assert!(!before.contains("one") && !after.contains("two"), "{before}{after}");
        assert!(after.contains(OTHER) && after.matches(HIDDEN).count() == 1, "{after}");
    }
}
