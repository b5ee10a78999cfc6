//! What is right and wrong in a data flow graph, with the exact place and words.

mod support;

use support::{GRAPH, REGISTRY, graph_with, lines};

/// The graph with one text replaced by another has these findings.
#[track_caller]
fn changed(old: &str, new: &str, findings: &[&str]) {
    assert_eq!(graph_with(old, new), findings);
}

#[test]
fn a_right_graph_has_no_findings() {
    assert_eq!(lines(&format!("{GRAPH}---\n{REGISTRY}")), Vec::<String>::new());
}

#[test]
fn an_unknown_field_is_named_with_the_nearest_known_one() {
    changed(
        "dataSources:",
        "dataSource:",
        &[
            "t.yaml:11:9: error: missing field `spec.nodes[0].sourceSettings.dataSources`",
            "t.yaml:12:9: error: unknown field `spec.nodes[0].sourceSettings.dataSource`, did you \
             mean `dataSources`?",
        ],
    );
    changed(
        "profileRef: default",
        "profileRef: default\n  mood: Enabled",
        &["t.yaml:7:3: error: unknown field `spec.mood`"],
    );
    changed(
        "    - nodeType: Graph\n",
        "    - nodeType: Graph\n      colour: red\n",
        &["t.yaml:15:7: error: unknown field `spec.nodes[1].colour`"],
    );
}

#[test]
fn an_unknown_kind_is_named() {
    changed(
        "kind: DataflowGraph",
        "kind: DataFlowGraph",
        &["t.yaml:2:7: error: the kind `DataFlowGraph` is not known; did you mean `DataflowGraph`?"],
    );
    changed(
        "kind: DataflowGraph",
        "kind: Pod",
        &["t.yaml:2:7: error: the kind `Pod` is not known; known are `DataflowGraph`, \
             `DataflowEndpoint`, `DataflowProfile`, `RegistryEndpoint`, `Broker`, `BrokerListener`, \
             `BrokerAuthentication`, `BrokerAuthorization`, `Asset`, `Secret`, `ConfigMap`"],
    );
}

#[test]
fn an_unknown_api_version_is_named_with_those_that_are_known() {
    changed(
        "azure.com/v1\n",
        "azure.com/v2\n",
        &["t.yaml:1:13: error: `apiVersion` is `connectivity.iotoperations.azure.com/v2`, but for \
             `DataflowGraph` it must be one of `connectivity.iotoperations.azure.com/v1`, \
             `connectivity.iotoperations.azure.com/v1beta1`"],
    );
    changed(
        "connectivity.",
        "mqttbroker.",
        &["t.yaml:1:13: error: `apiVersion` is `mqttbroker.iotoperations.azure.com/v1`, but for \
             `DataflowGraph` it must be one of `connectivity.iotoperations.azure.com/v1`, \
             `connectivity.iotoperations.azure.com/v1beta1`"],
    );
}

#[test]
fn a_missing_field_is_named() {
    changed("kind: DataflowGraph\n", "", &["t.yaml:1:1: error: missing field `kind`"]);
    changed("  name: my-graph\n", "  labels: {}\n", &["t.yaml:4:3: error: missing field `metadata.name`"]);
    changed(
        "        endpointRef: default\n",
        "",
        &["t.yaml:11:9: error: missing field `spec.nodes[0].sourceSettings.endpointRef`"],
    );
    changed(
        "            value: b\n",
        "",
        &["t.yaml:20:13: error: missing field `spec.nodes[1].graphSettings.configuration[0].value`"],
    );
}

#[test]
fn a_wrong_type_is_named() {
    changed(
        "my-graph\nspec:",
        "my-graph\nspec: 5\nspecs:",
        &[
            "t.yaml:5:7: error: `spec` must be a mapping, but is a number",
            "t.yaml:6:1: error: unknown field `specs`, did you mean `spec`?",
        ],
    );
    changed(
        "          - sensor/raw",
        "          key: sensor/raw",
        &["t.yaml:13:11: error: `spec.nodes[0].sourceSettings.dataSources` must be a list, but is \
             a mapping"],
    );
    changed(
        "name: my-graph",
        "name: [my-graph]",
        &["t.yaml:4:9: error: `metadata.name` must be a string, but is a list"],
    );
    changed(
        "value: b",
        "value:",
        &["t.yaml:21:18: error: `spec.nodes[1].graphSettings.configuration[0].value` is empty"],
    );
}

#[test]
fn what_yaml_takes_for_a_number_must_be_quoted() {
    changed(
        "value: b",
        "value: 2",
        &["t.yaml:21:20: error: `spec.nodes[1].graphSettings.configuration[0].value` must be a \
             string, but `2` is a number in YAML; quote it: \"2\""],
    );
    changed(
        "value: b",
        "value: 1.10",
        &["t.yaml:21:20: error: `spec.nodes[1].graphSettings.configuration[0].value` must be a \
             string, but `1.10` is a number in YAML; quote it: \"1.10\""],
    );
    changed(
        "value: b",
        "value: true",
        &["t.yaml:21:20: error: `spec.nodes[1].graphSettings.configuration[0].value` must be a \
             string, but `true` is a boolean in YAML; quote it: \"true\""],
    );
}

#[test]
fn a_name_follows_the_rule() {
    changed(
        "name: my-graph",
        "name: My_Graph",
        &["t.yaml:4:9: error: `metadata.name` is `My_Graph`, but must be 3 to 63 lower-case \
             letters, digits or `-`, with a letter or digit at both ends"],
    );
    changed(
        "name: my-graph",
        "name: ab",
        &["t.yaml:4:9: error: `metadata.name` is `ab`, but must be 3 to 63 lower-case letters, \
             digits or `-`, with a letter or digit at both ends"],
    );
    changed(
        "name: my-graph",
        "name: graph-",
        &["t.yaml:4:9: error: `metadata.name` is `graph-`, but must be 3 to 63 lower-case \
             letters, digits or `-`, with a letter or digit at both ends"],
    );
}

#[test]
fn an_enum_is_exact_except_for_the_mode() {
    changed(
        "profileRef: default",
        "mode: enabld\n  profileRef: default",
        &["t.yaml:6:9: error: `spec.mode` is `enabld`, but must be one of `Enabled`, `Disabled`; \
             did you mean `Enabled`?"],
    );
    changed("profileRef: default", "mode: ENABLED\n  profileRef: default", &[]);
    changed(
        "nodeType: Graph",
        "nodeType: graph",
        &["t.yaml:14:17: error: `spec.nodes[1].nodeType` is `graph`, but must be one of `Source`, \
             `Graph`, `Destination`; did you mean `Graph`?"],
    );
}

#[test]
fn settings_must_belong_to_the_type_of_the_node() {
    changed(
        "nodeType: Graph",
        "nodeType: Source",
        &[
            "t.yaml:14:7: error: missing field `spec.nodes[1].sourceSettings`",
            "t.yaml:16:7: error: `spec.nodes[1].graphSettings` must not be set: it belongs to \
             nodeType `Graph`, and nodeType is `Source`",
        ],
    );
}

#[test]
fn a_reference_must_lead_to_something() {
    changed(
        "profileRef: default",
        "profileRef: other",
        &["t.yaml:6:15: error: `spec.profileRef` names the DataflowProfile `other`, which does \
             not exist; known are `default`"],
    );
    changed(
        "registryEndpointRef: my-registry",
        "registryEndpointRef: my-registri",
        &["t.yaml:17:30: error: `spec.nodes[1].graphSettings.registryEndpointRef` names the \
             RegistryEndpoint `my-registri`, which does not exist; known are `my-registry`, \
             `default`"],
    );
    changed(
        "endpointRef: default",
        "endpointRef: kafka",
        &["t.yaml:11:22: error: `spec.nodes[0].sourceSettings.endpointRef` names the \
             DataflowEndpoint `kafka`, which does not exist; known are `default`"],
    );
}

#[test]
fn without_a_profile_the_default_is_used_with_a_warning() {
    changed(
        "  profileRef: default\n",
        "",
        &["t.yaml:1:1: warning: `spec.profileRef` is missing and no profile owns the graph; \
             `default` is used"],
    );
}

#[test]
fn a_graph_without_a_profile_is_told_when_the_default_one_is_not_valid() {
    let profile = "\
apiVersion: connectivity.iotoperations.azure.com/v1
kind: DataflowProfile
metadata:
  name: default
spec:
  instanceCount: 0
";
    let graph = GRAPH.replace("  profileRef: default\n", "");
    assert_eq!(
        lines(&format!("{graph}---\n{REGISTRY}---\n{profile}")),
        [
            "t.yaml:1:1: error: `spec.profileRef` names DataflowProfile `default`, which has errors of its own",
            "t.yaml:1:1: warning: `spec.profileRef` is missing and no profile owns the graph; `default` is used",
            "t.yaml:51:18: error: `spec.instanceCount` must be a whole number from 1 to 20, but is 0",
        ]
    );
}

#[test]
fn an_artifact_has_a_name_and_a_version() {
    changed(
        "artifact: graph-simple:1.0.0",
        "artifact: graph-simple",
        &["t.yaml:18:19: error: `spec.nodes[1].graphSettings.artifact` is `graph-simple`, but \
             must have the form `<name>:<version>`; the version is missing"],
    );
    changed(
        "artifact: graph-simple:1.0.0",
        "artifact: ghcr.io/Azure/graph:1",
        &["t.yaml:18:19: error: `spec.nodes[1].graphSettings.artifact` is \
             `ghcr.io/Azure/graph:1`, but the name may hold lower-case letters, digits, `.`, `_`, \
             `-` and `/` only (the registry's host stands in the RegistryEndpoint)"],
    );
    changed(
        "artifact: graph-simple:1.0.0",
        "artifact: graph:.1",
        &["t.yaml:18:19: error: `spec.nodes[1].graphSettings.artifact` is `graph:.1`, but the \
             version behind `:` is no valid tag"],
    );
    changed(
        "artifact: graph-simple:1.0.0",
        "artifact: graph@sha256:12",
        &["t.yaml:18:19: error: `spec.nodes[1].graphSettings.artifact` is `graph@sha256:12`, but \
             the digest behind `@` must be `sha256:` and 64 hexadecimal digits"],
    );
}

#[test]
fn a_configuration_key_stands_once() {
    changed(
        "            value: b\n",
        "            value: b\n          - key: a\n            value: c\n",
        &["t.yaml:22:18: error: the configuration key `a` stands twice"],
    );
}

#[test]
fn a_source_needs_valid_filters() {
    changed(
        "- sensor/raw",
        "- sensor/#/raw",
        &["t.yaml:13:13: error: `spec.nodes[0].sourceSettings.dataSources[0]` is `sensor/#/raw`, \
             but `#` must stand alone at the end"],
    );
    changed(
        "- sensor/raw",
        "- $share/g",
        &["t.yaml:13:13: error: `spec.nodes[0].sourceSettings.dataSources[0]` is `$share/g`, but \
             a shared subscription needs a group and a filter"],
    );
    changed(
        "- sensor/raw",
        "- \"\"",
        &["t.yaml:13:13: error: `spec.nodes[0].sourceSettings.dataSources[0]` is ``, but must not \
             be empty"],
    );
    changed(
        "\n          - sensor/raw",
        " []",
        &["t.yaml:11:22: error: `spec.nodes[0].sourceSettings.dataSources` is empty; name a topic \
             filter"],
    );
}

#[test]
fn a_destination_needs_a_valid_topic() {
    changed(
        "dataDestination: sensor/done",
        "dataDestination: a/${topic}",
        &["t.yaml:26:26: error: `spec.nodes[2].destinationSettings.dataDestination` is \
             `a/${topic}`, but the variable `${topic}` is not known; known are `${inputTopic}`, \
             `${inputTopic.1}` and so on, and `${outputTopic}`"],
    );
    changed(
        "dataDestination: sensor/done",
        "dataDestination: a/${inputTopic",
        &["t.yaml:26:26: error: `spec.nodes[2].destinationSettings.dataDestination` is \
             `a/${inputTopic`, but the variable behind `${` is not closed by `}`"],
    );
    changed(
        "dataDestination: sensor/done",
        "dataDestination: a/+",
        &["t.yaml:26:26: error: `spec.nodes[2].destinationSettings.dataDestination` is `a/+`, but \
             a topic that is published to holds no `+` or `#`"],
    );
}

#[test]
fn a_graph_that_feeds_itself_is_warned_of() {
    changed(
        "- sensor/raw",
        "- $shared/g/sensor/+",
        &["t.yaml:26:26: warning: a loop: the graph publishes to `sensor/done`, which its \
             own source `$shared/g/sensor/+` matches"],
    );
    changed(
        "dataDestination: sensor/done",
        "dataDestination: sensor/raw",
        &["t.yaml:26:26: warning: a loop: the graph publishes to `sensor/raw`, which its \
             own source `sensor/raw` matches"],
    );
}

#[test]
fn node_names_are_unique() {
    changed(
        "      name: out\n",
        "      name: work\n",
        &[
            "t.yaml:23:13: error: the node name `work` stands twice",
            "t.yaml:35:15: error: `spec.nodeConnections[1].to.name` names the node `out`, which \
             does not exist; known are `in`, `work`",
        ],
    );
}

#[test]
fn connections_name_nodes() {
    changed(
        "    - from:\n        name: in\n",
        "    - from:\n        name: inn\n",
        &["t.yaml:29:15: error: `spec.nodeConnections[0].from.name` names the node `inn`, which \
             does not exist; known are `in`, `out`, `work`"],
    );
    changed(
        "      to:\n        name: out\n",
        "      to:\n        name: nowhere\n",
        &["t.yaml:35:15: error: `spec.nodeConnections[1].to.name` names the node `nowhere`, which \
             does not exist; known are `in`, `out`, `work`"],
    );
}

#[test]
fn connections_go_from_source_by_graph_to_destination() {
    changed(
        "    - from:\n        name: in\n",
        "    - from:\n        name: out\n",
        &["t.yaml:29:15: error: a Destination cannot be connected to a Graph; the way is from \
             Source by Graph to Destination"],
    );
    changed(
        "      to:\n        name: work\n",
        "      to:\n        name: out\n",
        &["t.yaml:29:15: error: a Source cannot be connected to a Destination; the way is from \
             Source by Graph to Destination"],
    );
    changed(
        "    - from:\n        name: in\n",
        "    - from:\n        name: in.output.true\n",
        &["t.yaml:29:15: error: `in` is no Graph node and has no `.output.…`"],
    );
}

#[test]
fn every_node_lies_on_the_way() {
    changed(
        "    - from:\n        name: work\n      to:\n        name: out\n",
        "",
        &[
            "t.yaml:15:13: error: no connection leads from the node `work`",
            "t.yaml:23:13: error: no connection leads to the node `out`",
        ],
    );
    changed(
        "    - from:\n        name: in\n      to:\n        name: work\n",
        "",
        &[
            "t.yaml:9:13: error: no connection leads from the node `in`",
            "t.yaml:15:13: error: no connection leads to the node `work`",
        ],
    );
}

#[test]
fn a_cycle_is_named() {
    changed(
        "      to:\n        name: out\n",
        "      to:\n        name: work\n",
        &[
            "t.yaml:23:13: error: no connection leads to the node `out`",
            "t.yaml:33:15: error: the connection from `work` closes a cycle",
        ],
    );
}

#[test]
fn a_connection_stands_once() {
    changed(
        "      to:\n        name: out\n",
        "      to:\n        name: out\n    - from:\n        name: work\n      to:\n        name: out\n",
        &["t.yaml:37:15: error: `work` and `out` are connected twice"],
    );
}

#[test]
fn what_would_change_messages_is_not_left_out_silently() {
    changed(
        "dataDestination: sensor/done",
        "dataDestination: \
         sensor/done\n        outputSchemaSettings:\n          serializationFormat: Parquet",
        &["t.yaml:25:22: error: `spec.nodes[2].destinationSettings.outputSchemaSettings` is for storage \
             only; messages go out as the graph makes them"],
    );
    changed(
        "  profileRef: default\n",
        "  profileRef: default\n  fileStores:\n    - id: a\n      persistentVolumeClaimRef: b\n",
        &["t.yaml:7:3: error: `spec.fileStores` is not supported yet: files for graph nodes"],
    );
}

#[test]
fn what_comes_later_is_told() {
    for mode in ["enabled", "Disabled"] {
        let text = format!("requestDiskPersistence: {mode}\n  profileRef: default");
        changed("profileRef: default", &text, &[]);
    }
    changed(
        "        endpointRef: default\n        dataSources:",
        "        endpointRef: default\n        assetRef: my-asset\n        dataSources:",
        &[
            "t.yaml:12:19: warning: `spec.nodes[0].sourceSettings.assetRef` names the Asset `my-asset`, which is not among \
             the resources: no schema is taken from it",
        ],
    );
    changed(
        "        name: in\n      to",
        "        name: in\n        schema:\n          serializationFormat: \
         Json\n          schemaRef: aio-sr://a/b:1\n      to",
        &[],
    );
    changed(
        "        name: in\n      to",
        "        name: in\n        schema:\n          serializationFormat: Avro\n      to",
        &["t.yaml:31:11: note: `spec.nodeConnections[0].from.schema.serializationFormat` is \
             accepted, but not yet in effect: messages are passed on as they came"],
    );
}

#[test]
fn header_actions_have_the_fields_of_their_type() {
    changed(
        "dataDestination: sensor/done",
        "dataDestination: sensor/done\n        headers:\n          - actionType: \
         Remove\n            key: a\n            value: x\n          - actionType: \
         AddOrReplace\n            key: a\n          - actionType: Add\n            key: a",
        &[
            "t.yaml:30:13: error: `spec.nodes[2].destinationSettings.headers[0].value` must not be \
             set: actionType is `Remove`",
            "t.yaml:31:13: error: missing field `spec.nodes[2].destinationSettings.headers[1].value`",
            "t.yaml:33:25: error: `spec.nodes[2].destinationSettings.headers[2].actionType` is \
             `Add`, but must be one of `AddIfNotPresent`, `AddOrReplace`, `Remove`",
        ],
    );
}

#[test]
fn file_stores_stay_below_their_volume() {
    changed(
        "  profileRef: default\n",
        "  profileRef: default\n  fileStores:\n    - id: a\n      persistentVolumeClaimRef: \
         b\n      subPath: ../c\n",
        &["t.yaml:10:16: error: `spec.fileStores[0].subPath` is `../c`, but must be a relative \
             path without `..`"],
    );
}

#[test]
fn own_settings_are_checked() {
    changed(
        "  name: my-graph\n",
        "  name: my-graph\n  annotations:\n    forebay.dev/call-deadlin: \
         5ms\n    forebay.dev/memory-limit: 1K\n    forebay.dev/call-deadline: \
         0s\n    forebay.dev/inline-budget: soon\n    forebay.dev/dead-letter-topic: a/#\n",
        &[
            "t.yaml:6:5: error: unknown annotation `forebay.dev/call-deadlin` for DataflowGraph, \
             did you mean `forebay.dev/call-deadline`?",
            "t.yaml:7:31: error: `metadata.annotations[\"forebay.dev/memory-limit\"]` is `1K`, but \
             must be at least 64KiB",
            "t.yaml:8:32: error: `metadata.annotations[\"forebay.dev/call-deadline\"]` is `0s`, but \
             must be longer than nothing",
            "t.yaml:9:32: error: `metadata.annotations[\"forebay.dev/inline-budget\"]` is `soon`, \
             but must be a length of time such as `50ms`, `2s` or `1h30m`",
            "t.yaml:10:36: error: `metadata.annotations[\"forebay.dev/dead-letter-topic\"]` is \
             `a/#`, but a topic that is published to holds no `+` or `#`",
        ],
    );
    changed(
        "  name: my-graph\n",
        "  name: my-graph\n  annotations:\n    forebay.dev/max-lateness: 500ms\n    forebay.dev/late-messages: drop\n",
        &[
            "t.yaml:6:5: error: `forebay.dev/max-lateness` needs `forebay.dev/order-by: __ts` beside it",
            "t.yaml:7:5: error: `forebay.dev/late-messages` needs `forebay.dev/order-by: __ts` beside it",
        ],
    );
    changed(
        "  name: my-graph\n",
        "  name: my-graph\n  annotations:\n    forebay.dev/order-by: time\n    forebay.dev/max-lateness: \
         11m\n    forebay.dev/late-messages: keep\n",
        &[
            "t.yaml:6:27: error: `metadata.annotations[\"forebay.dev/order-by\"]` is `time`, but must be `__ts`",
            "t.yaml:7:31: error: `metadata.annotations[\"forebay.dev/max-lateness\"]` is `11m`, but must be \
             at most 10m",
            "t.yaml:8:32: error: `metadata.annotations[\"forebay.dev/late-messages\"]` is `keep`, but must be \
             `deliver` or `drop`",
        ],
    );
    changed(
        "  name: my-graph\n",
        "  name: my-graph\n  annotations:\n    forebay.dev/handle-limit: many\n    forebay.dev/log-limit: \"-1\"\n",
        &[
            "t.yaml:6:31: error: `metadata.annotations[\"forebay.dev/handle-limit\"]` is `many`, but must be a \
             whole number, such as \"1000\"",
            "t.yaml:7:28: error: `metadata.annotations[\"forebay.dev/log-limit\"]` is `-1`, but must be a whole \
             number, such as \"1000\"",
        ],
    );
    changed(
        "  name: my-graph\n",
        "  name: my-graph\n  annotations:\n    forebay.dev/plain-http: \"true\"\n",
        &["t.yaml:6:5: error: unknown annotation `forebay.dev/plain-http` for DataflowGraph"],
    );
}

#[test]
fn a_graph_of_absurd_size_is_refused_at_once() {
    let node = "    - nodeType: Source\n      name: x\n      sourceSettings: {endpointRef: default, dataSources: [a]}\n";
    let nodes = node.repeat(1001);
    let findings = graph_with("    - nodeType: Graph\n", &format!("{nodes}    - nodeType: Graph\n"));
    assert_eq!(findings, ["t.yaml:1:1: error: a graph may have at most 1000 nodes and connections"]);
}

#[test]
fn a_message_lists_only_so_many_names() {
    let registry = |number: usize| REGISTRY.replace("my-registry", &format!("registry-{number:02}"));
    let registries: Vec<_> = (0..20).map(registry).collect();
    let findings = lines(&format!("{GRAPH}---\n{}", registries.join("---\n")));
    assert_eq!(findings.len(), 1);
    assert!(findings[0].ends_with("`registry-14`, `registry-15`, and 5 more"), "{}", findings[0]);
}

#[test]
fn an_asset_gives_its_source_a_schema() {
    let graph = GRAPH.replacen("        dataSources:", "        assetRef: pump\n        dataSources:", 1);
    let asset = |rest: &str| {
        format!(
            "apiVersion: namespaces.deviceregistry.microsoft.com/v1\nkind: Asset\nmetadata:\n  name: pump\n{rest}"
        )
    };
    let of =
        |name: &str| format!("{{schemaRegistryNamespace: plant, schemaName: {name}, schemaVersion: \"1\"}}");
    let read = |asset: &str| {
        let loaded = forebay_config::load_str("t.yaml", &format!("{graph}---\n{REGISTRY}---\n{asset}"));
        let findings: Vec<String> = loaded.findings.iter().map(ToString::to_string).collect();
        let plans = loaded.plans();
        let links = plans.iter().flat_map(|plan| &plan.links);
        let schemas: Vec<Option<String>> = links.map(|link| link.schema_ref.map(ToOwned::to_owned)).collect();
        (schemas, findings)
    };
    // Of two sets the one that is published where the source listens; the rest of an Asset is for others.
    let two = format!(
        "spec:\n  deviceRef: {{deviceName: d, endpointName: e}}\n  datasets:\n    - name: a\n      dataPoints: []\n      \
         destinations: [{{target: Mqtt, configuration: {{topic: sensor/raw, qos: Qos1}}}}]\n    - name: b\n      topic: {{path: elsewhere}}\n\
         status:\n  datasets:\n    - name: a\n      messageSchemaReference: {}\n    - name: b\n      messageSchemaReference: {}\n",
        of("one"),
        of("two")
    );
    assert_eq!(read(&asset(&two)), (vec![Some("aio-sr://plant/one:1".to_owned()), None], vec![]));
    // Where it is not said what is published where, all of them could be meant.
    let unclear = format!(
        "status:\n  datasets:\n    - name: a\n      messageSchemaReference: {}\n    - name: b\n      messageSchemaReference: {}\n",
        of("one"),
        of("two")
    );
    let (schemas, findings) = read(&asset(&unclear));
    assert_eq!(schemas, [None, None]);
    assert!(findings[0].contains("several schemas for these topics: `aio-sr://plant/one:1`"), "{findings:?}");
    // Away from Azure an annotation says it.
    let annotated = "  annotations:\n    forebay.dev/schema: aio-sr://plant/own:2\n";
    assert_eq!(read(&asset(annotated)), (vec![Some("aio-sr://plant/own:2".to_owned()), None], vec![]));
    let (schemas, findings) = read(&asset("spec: {}\n"));
    assert_eq!(schemas, [None, None]);
    assert!(findings[0].contains("which has no schema"), "{findings:?}");
    let (schemas, findings) =
        read(&asset("status: {datasets: [{messageSchemaReference: {schemaName: x}}]}\n"));
    assert_eq!(schemas, Vec::<Option<String>>::new());
    assert!(
        findings.iter().any(|finding| {
            finding
                .contains("missing field `status.datasets[0].messageSchemaReference.schemaRegistryNamespace`")
        }),
        "{findings:?}"
    );
}
