//! What is right and wrong in a graph definition file, with the exact place and words.
// Helpers of tests may fail as tests do.
#![allow(clippy::expect_used, clippy::panic)]

use forebay_config::definition::{Arm, Contract};
use forebay_config::{CheckedDefinition, graph_definition};
use processing_core::graph::Kind;

/// A definition that is right; lines 1 to 36.
const BASE: &str = "\
metadata:
  $schema: x
  name: n
  version: 1.0.0
moduleRequirements:
  apiVersion: 1.1.0
  runtimeVersion: 1.1.0
operations:
  - operationType: source
    name: source
  - operationType: branch
    name: b
    module: m:1
  - operationType: concatenate
    name: c
  - operationType: sink
    name: sink
connections:
  - from:
      name: source
    to:
      name: b
  - from:
      name: b
      arm: \"True\"
    to:
      name: c
  - from:
      name: b
      arm: \"False\"
    to:
      name: c
  - from:
      name: c
    to:
      name: sink
";

/// The definition with one text replaced by another has these findings.
#[track_caller]
fn changed(old: &str, new: &str, findings: &[&str]) {
    assert!(BASE.contains(old), "{old:?} is not in the definition");
    whole(&BASE.replacen(old, new, 1), findings);
}

/// The text has these findings.
#[track_caller]
fn whole(text: &str, findings: &[&str]) {
    let found = match graph_definition("g.yaml", text) {
        Ok(checked) => checked.warnings,
        Err(findings) => findings,
    };
    let found: Vec<_> = found.iter().map(ToString::to_string).collect();
    assert_eq!(found, findings);
}

#[track_caller]
fn reads(text: &str) -> CheckedDefinition {
    graph_definition("g.yaml", text).unwrap_or_else(|findings| panic!("{findings:?}"))
}

#[test]
fn a_right_definition_makes_a_graph() {
    let checked = reads(BASE);
    assert_eq!(checked.warnings, []);
    assert_eq!(checked.graph.name(), "n");
    let kinds: Vec<_> = checked.graph.nodes().iter().map(|node| node.operation.kind).collect();
    let expected = [Kind::Source, Kind::Branch, Kind::Concatenate, Kind::Sink];
    assert_eq!(kinds, expected);
    assert_eq!(checked.definition.contract, Contract::Ga);
    assert_eq!(checked.definition.connections[1].from.arm, Some(Arm::True));
}

#[test]
fn the_contract_is_told_by_the_keys() {
    let start = BASE.find("operations").expect("it is there");
    let preview = "moduleRequirements:\n  apiVersion: \"0.2.0\"\n  hostlibVersion: \"0.2.0\"\n";
    let checked = reads(&format!("{preview}{}", &BASE[start..]));
    assert_eq!(checked.definition.contract, Contract::Preview);
    assert_eq!(checked.graph.name(), "");
}

#[test]
fn parameters_come_with_the_operation() {
    let new = "moduleConfigurations:
  - name: b
    parameters:
      key1:
        name: key2
        description: key2
        required: true
        default: \"1\"
operations:";
    let checked = reads(&BASE.replacen("operations:", new, 1));
    let parts = checked.definition.parts();
    let (id, parameter) = &parts.module_configurations[0].parameters[0];
    assert_eq!(id, "key1");
    assert_eq!((parameter.name.as_str(), parameter.required), ("key2", true));
    assert_eq!(parameter.default.as_deref(), Some("1"));
}

#[test]
fn an_unquoted_arm_means_what_it_says() {
    for (written, arm) in [("True", Arm::True), ("true", Arm::True), ("'True'", Arm::True)] {
        let checked = reads(&BASE.replacen("\"True\"", written, 1));
        assert_eq!(checked.definition.connections[1].from.arm, Some(arm), "{written}");
    }
}

#[test]
fn json_is_yaml_too() {
    let text = r#"{"metadata": {"$schema": "x", "name": "n", "version": "1"},
      "moduleRequirements": {"apiVersion": "1.1.0", "runtimeVersion": "1.1.0", "features": null},
      "moduleConfigurations": null,
      "operations": [{"operationType": "source", "name": "s", "module": null},
                     {"operationType": "sink", "name": "t"}],
      "connections": [{"from": {"name": "s", "arm": null, "schemaName": null}, "to": {"name": "t"}}]}"#;
    assert_eq!(reads(text).graph.nodes().len(), 2);
}

#[test]
fn a_preview_file_has_hostlib_version_and_no_metadata() {
    changed(
        "metadata:\n  $schema: x\n  name: n\n  version: 1.0.0\nmoduleRequirements:\n  apiVersion: \
         1.1.0\n  runtimeVersion: 1.1.0\n",
        "moduleRequirements:\n  apiVersion: 0.2.0\n  hostlibVersion: 0.2.0\n",
        &[],
    );
    changed(
        "metadata:\n  $schema: x\n  name: n\n  version: 1.0.0\nmoduleRequirements:\n  apiVersion: \
         1.1.0\n  runtimeVersion: 1.1.0\n",
        "metadata:\n  $schema: x\n  name: n\n  version: 1.0.0\nmoduleRequirements:\n  apiVersion: \
         0.2.0\n  hostlibVersion: 0.2.0\n",
        &["g.yaml:1:1: error: `metadata` must not be set: graph definitions with `hostlibVersion` \
             have none"],
    );
    changed(
        "metadata:\n  $schema: x\n  name: n\n  version: 1.0.0\nmoduleRequirements:\n  apiVersion: \
         1.1.0\n  runtimeVersion: 1.1.0\n",
        "moduleRequirements:\n  apiVersion: 0.3.0\n  hostlibVersion: 0.2.0\n",
        &["g.yaml:2:15: error: `moduleRequirements.apiVersion` is `0.3.0`, but with \
             `hostlibVersion` the host serves 0.2.0 only"],
    );
}

#[test]
fn a_file_of_today_has_metadata_and_runtime_version() {
    changed(
        "metadata:\n  $schema: x\n  name: n\n  version: 1.0.0\n",
        "",
        &["g.yaml:1:1: error: missing field `metadata`"],
    );
    changed("  $schema: x\n", "", &["g.yaml:2:3: error: missing field `metadata.$schema`"]);
    changed(
        "  runtimeVersion: 1.1.0\n",
        "",
        &["g.yaml:6:3: error: missing field `moduleRequirements.runtimeVersion`"],
    );
    changed(
        "  runtimeVersion: 1.1.0\n",
        "  runtimeVersion: 1.1.0\n  hostlibVersion: 1.1.0\n",
        &["g.yaml:8:3: error: `moduleRequirements.hostlibVersion` must not be set: \
             `runtimeVersion` stands in its place since 1.1"],
    );
    changed(
        "  name: n\n",
        "  name: n\n  author: me\n",
        &["g.yaml:4:3: error: unknown field `metadata.author`"],
    );
}

#[test]
fn without_either_version_both_are_named() {
    changed(
        "metadata:\n  $schema: x\n  name: n\n  version: 1.0.0\nmoduleRequirements:\n  apiVersion: \
         1.1.0\n  runtimeVersion: 1.1.0\n",
        "moduleRequirements:\n  apiVersion: 1.1.0\n",
        &["g.yaml:2:3: error: missing field `moduleRequirements.runtimeVersion` (or \
             `hostlibVersion`, in preview)"],
    );
}

#[test]
fn the_api_version_is_of_the_same_major_and_not_newer() {
    changed("apiVersion: 1.1.0", "apiVersion: 1.0.0", &[]);
    changed(
        "apiVersion: 1.1.0",
        "apiVersion: 1.2.0",
        &["g.yaml:6:15: error: `moduleRequirements.apiVersion` is `1.2.0`, but the host serves no \
             newer than 1.1.0"],
    );
    changed(
        "apiVersion: 1.1.0",
        "apiVersion: 2.0.0",
        &["g.yaml:6:15: error: `moduleRequirements.apiVersion` is `2.0.0`, but the host serves \
             1.1.0 (and 0.2.0 with `hostlibVersion`)"],
    );
    changed(
        "apiVersion: 1.1.0",
        "apiVersion: 0.2.0",
        &["g.yaml:6:15: error: `moduleRequirements.apiVersion` is `0.2.0`, but the host serves \
             1.1.0 (and 0.2.0 with `hostlibVersion`)"],
    );
    changed(
        "apiVersion: 1.1.0",
        "apiVersion: one",
        &["g.yaml:6:15: error: `moduleRequirements.apiVersion` is `one`, but must be a \
             version such as `1.1.0`"],
    );
    changed(
        "apiVersion: 1.1.0",
        "apiVersion: 1.1",
        &["g.yaml:6:15: error: `moduleRequirements.apiVersion` must be a string, but `1.1` is a \
             number in YAML; quote it: \"1.1\""],
    );
    changed(
        "apiVersion: 1.1.0",
        "apiVersion: 1.1.0.0",
        &["g.yaml:6:15: error: `moduleRequirements.apiVersion` is `1.1.0.0`, but must be a \
             version such as `1.1.0`"],
    );
    changed(
        "apiVersion: 1.1.0",
        "apiVersion: -1.0.0",
        &["g.yaml:6:15: error: `moduleRequirements.apiVersion` is `-1.0.0`, but must be a \
             version such as `1.1.0`"],
    );
}

#[test]
fn a_newer_runtime_is_worth_a_warning() {
    changed(
        "runtimeVersion: 1.1.0",
        "runtimeVersion: 1.1.3",
        &["g.yaml:7:19: warning: `moduleRequirements.runtimeVersion` is `1.1.3`, which is newer \
             than the host's 1.1.0"],
    );
}

#[test]
fn unknown_features_are_worth_a_warning() {
    changed(
        "runtimeVersion: 1.1.0",
        "runtimeVersion: 1.1.0\n  features:\n    - name: wasi-nm\n    - name: gpu\n    - name: \
         wasi-nn\n      value: x",
        &[
            "g.yaml:9:13: warning: the feature `wasi-nm` is not known and has no effect; did you \
             mean `wasi-nn`?",
            "g.yaml:10:13: warning: the feature `gpu` is not known and has no effect; known are `wasi-nn`",
        ],
    );
    changed(
        "runtimeVersion: 1.1.0",
        "runtimeVersion: 1.1.0\n  features:\n    - nam: x",
        &[
            "g.yaml:9:7: error: missing field `moduleRequirements.features[0].name`",
            "g.yaml:9:7: error: unknown field `moduleRequirements.features[0].nam`, did you mean `name`?",
        ],
    );
    changed("runtimeVersion: 1.1.0", "runtimeVersion: 1.1.0\n  features: null", &[]);
}

#[test]
fn an_arm_is_true_or_false_with_or_without_quotes() {
    changed("\"True\"", "True", &[]);
    changed("\"True\"", "true", &[]);
    changed(
        "\"True\"",
        "\"true\"",
        &["g.yaml:25:12: error: `connections[1].from.arm` is `true`, but must be one of `False`, \
             `True`; did you mean `True`?"],
    );
    changed(
        "\"True\"",
        "yes",
        &["g.yaml:25:12: error: `connections[1].from.arm` is `yes`, but must be one of `False`, `True`"],
    );
    changed(
        "\"True\"",
        "1",
        &["g.yaml:25:12: error: `connections[1].from.arm` must be \"False\" or \"True\", but is a \
             number"],
    );
}

#[test]
fn an_operation_type_is_exact() {
    changed(
        "operationType: branch",
        "operationType: brnch",
        &["g.yaml:11:20: error: `operations[1].operationType` is `brnch`, but must be one of \
             `source`, `map`, `filter`, `branch`, `concatenate`, `accumulate`, `delay`, `sink`; did \
             you mean `branch`?"],
    );
    changed(
        "operationType: branch",
        "operationType: Branch",
        &["g.yaml:11:20: error: `operations[1].operationType` is `Branch`, but must be one of \
             `source`, `map`, `filter`, `branch`, `concatenate`, `accumulate`, `delay`, `sink`; did \
             you mean `branch`?"],
    );
}

#[test]
fn unknown_fields_are_named() {
    changed(
        "    module: m:1",
        "    modul: m:1",
        &["g.yaml:13:5: error: unknown field `operations[1].modul`, did you mean `module`?"],
    );
    changed(
        "connections:",
        "conections:",
        &[
            "g.yaml:1:1: error: missing field `connections`",
            "g.yaml:18:1: error: unknown field `conections`, did you mean `connections`?",
        ],
    );
    changed(
        "      arm: \"True\"",
        "      arms: \"True\"",
        &["g.yaml:25:7: error: unknown field `connections[1].from.arms`, did you mean `arm`?"],
    );
    changed(
        "    to:\n      name: b",
        "    to:\n      name: b\n      arm: \"True\"",
        &["g.yaml:23:7: error: unknown field `connections[0].to.arm`"],
    );
}

#[test]
fn where_other_fields_are_allowed_they_are_worth_a_warning() {
    changed(
        "operations:",
        "moduleConfigurations:\n  - name: b\n    purpose: \
         x\n    parameters:\n      k:\n        name: n\n        requird: true\n        default: \
         x\nschemas:\n  - name: s\n    format: f\n    schema: x\n    colour: red\noperations:",
        &[
            "g.yaml:10:5: warning: the field `moduleConfigurations[0].purpose` has no meaning",
            "g.yaml:14:9: warning: the field `moduleConfigurations[0].parameters.k.requird` has no \
             meaning, did you mean `required`?",
            "g.yaml:20:5: warning: the field `schemas[0].colour` has no meaning",
        ],
    );
}

#[test]
fn parameters_have_a_name() {
    changed(
        "operations:",
        "moduleConfigurations:\n  - name: b\n    parameters:\n      l: {}\n      m:\n        name: \
         m\n        required: \"yes\"\noperations:",
        &[
            "g.yaml:11:10: error: missing field `moduleConfigurations[0].parameters.l.name`",
            "g.yaml:14:19: error: `moduleConfigurations[0].parameters.m.required` must be true or \
             false, but is a string",
        ],
    );
}

#[test]
fn schemas_are_named_once_and_exist() {
    changed(
        "      arm: \"True\"",
        "      schemaName: s\n      arm: \"True\"",
        &["g.yaml:25:19: error: `connections[1].from.schemaName` names the schema `s`, which does \
             not exist; there is none"],
    );
    changed(
        "operations:",
        "schemas:\n  - name: s\n    format: f\n    schema: x\n  - name: s\n    format: \
         f\n    schema: y\noperations:",
        &["g.yaml:12:11: error: the schema `s` stands twice"],
    );
}

#[test]
fn a_definition_is_one_document() {
    changed(
        "connections:",
        "connections: []\n---\nfoo:",
        &["g.yaml:20:1: error: a graph definition is one document, and here a second one begins"],
    );
    whole("", &["g.yaml:1:1: error: the graph definition is empty"]);
    whole("[]", &["g.yaml:1:1: error: the document must be a mapping, but is a list"]);
    whole("a: [\n", &["g.yaml:1:4: error: no valid YAML: unclosed bracket '['"]);
}

/// The definition with one text replaced by another has one error with this place and key. The words
/// are those of `processing_core`.
#[track_caller]
fn no_graph(old: &str, new: &str, place: &str, key: &str) {
    assert!(BASE.contains(old), "{old:?} is not in the definition");
    let findings = graph_definition("g.yaml", &BASE.replacen(old, new, 1)).expect_err("it is wrong");
    let first = findings.first().expect("there is one");
    assert_eq!(
        (first.to_string().starts_with(&format!("{place}: error: ")), first.key.as_str()),
        (true, key),
        "{first}"
    );
}

#[test]
fn what_is_no_graph_is_told_with_its_line() {
    let second_arm = "  - from:\n      name: b\n      arm: \"False\"\n    to:\n      name: c\n";
    no_graph("    to:\n      name: b\n", "    to:\n      name: nowhere\n", "g.yaml:19:5", "connections[0]");
    no_graph("name: sink\nconnections", "name: b\nconnections", "g.yaml:17:11", "operations[3].name");
    no_graph("    module: m:1\n", "", "g.yaml:12:11", "operations[1].name");
    no_graph(second_arm, "", "g.yaml:12:11", "operations[1].name");
    no_graph("      arm: \"False\"\n", "", "g.yaml:28:5", "connections[2]");
    // It closes a cycle, which is told first; the second input that it is for `b`, too.
    no_graph("    to:\n      name: sink\n", "    to:\n      name: b\n", "g.yaml:12:11", "operations[1].name");
    no_graph("operationType: source", "operationType: sink", "g.yaml:1:1", "");
    let configuration = "moduleConfigurations:\n  - name: bb\n    parameters: {}\noperations:";
    no_graph("operations:", configuration, "g.yaml:9:11", "moduleConfigurations[0].name");
}

#[test]
fn a_definition_of_absurd_size_is_refused_at_once() {
    let operations = "  - {operationType: sink, name: x}\n".repeat(1001);
    changed(
        "operations:\n",
        &format!("operations:\n{operations}"),
        &["g.yaml:1:1: error: a graph may have at most 1000 operations and 10000 connections"],
    );
}
