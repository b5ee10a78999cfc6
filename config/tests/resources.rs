//! What is right and wrong in every other kind of resource, with the exact place and words.

mod support;

use support::lines;

/// The text has these findings.
#[track_caller]
fn check(text: &str, findings: &[&str]) {
    assert_eq!(lines(text), findings);
}

#[test]
fn a_registry_host_is_a_host_name_or_a_layout() {
    check(
        "\
apiVersion: connectivity.iotoperations.azure.com/v1
kind: RegistryEndpoint
metadata:
  name: abc
spec:
  host: \"https://a.io\"
  authentication:
    method: Anonymous
",
        &["t.yaml:6:9: error: `spec.host` is `https://a.io`, but must be a host name without \
             `http://` or `https://`"],
    );
    check(
        "\
apiVersion: connectivity.iotoperations.azure.com/v1
kind: RegistryEndpoint
metadata:
  name: abc
spec:
  host: \"a b\"
  authentication:
    method: Anonymous
",
        &["t.yaml:6:9: error: `spec.host` is `a b`, but this is no host name"],
    );
    check(
        "\
apiVersion: connectivity.iotoperations.azure.com/v1
kind: RegistryEndpoint
metadata:
  name: abc
spec:
  host: \"oci-layout:\"
  authentication:
    method: Anonymous
",
        &["t.yaml:6:9: error: `spec.host` is `oci-layout:`, but the directory behind \
             `oci-layout:` is missing"],
    );
    check(
        "\
apiVersion: connectivity.iotoperations.azure.com/v1
kind: RegistryEndpoint
metadata:
  name: abc
spec:
  host: \"a.io/Ü\"
  authentication:
    method: Anonymous
",
        &["t.yaml:6:9: error: `spec.host` is `a.io/Ü`, but the path behind the host may hold \
             lower-case letters, digits, `.`, `_` and `-` only"],
    );
    check(
        "\
apiVersion: connectivity.iotoperations.azure.com/v1
kind: RegistryEndpoint
metadata:
  name: abc
spec:
  host: \"a.io:99999\"
  authentication:
    method: Anonymous
",
        &["t.yaml:6:9: error: `spec.host` is `a.io:99999`, but the port must be a whole number \
             from 1 to 65535"],
    );
    check(
        "\
apiVersion: connectivity.iotoperations.azure.com/v1
kind: RegistryEndpoint
metadata:
  name: abc
spec:
  host: \"[::1\"
  authentication:
    method: Anonymous
",
        &["t.yaml:6:9: error: `spec.host` is `[::1`, but this is no host name"],
    );
}

#[test]
fn a_registry_names_a_secret_that_exists() {
    check(
        "\
apiVersion: connectivity.iotoperations.azure.com/v1
kind: RegistryEndpoint
metadata:
  name: abc
spec:
  host: a.io
  authentication:
    method: ArtifactPullSecret
    artifactPullSecretSettings:
      secretRef: nope
",
        &["t.yaml:10:18: error: `spec.authentication.artifactPullSecretSettings.secretRef` names \
             the Secret `nope`, which does not exist; there is none"],
    );
}

#[test]
fn a_registry_names_a_secret_with_a_login_for_it() {
    check(
        "\
apiVersion: connectivity.iotoperations.azure.com/v1
kind: RegistryEndpoint
metadata:
  name: abc
spec:
  host: a.io
  authentication:
    method: ArtifactPullSecret
    artifactPullSecretSettings:
      secretRef: login
---
apiVersion: v1
kind: Secret
metadata:
  name: login
stringData:
  username: me
",
        &["t.yaml:10:18: error: `spec.authentication.artifactPullSecretSettings.secretRef` names \
             Secret `login`, which has no key `password`"],
    );
    check(
        "\
apiVersion: connectivity.iotoperations.azure.com/v1
kind: RegistryEndpoint
metadata:
  name: abc
spec:
  host: a.io
  authentication:
    method: ArtifactPullSecret
    artifactPullSecretSettings:
      secretRef: login
---
apiVersion: v1
kind: Secret
metadata:
  name: login
type: kubernetes.io/dockerconfigjson
stringData:
  .dockerconfigjson: '{\"auths\":{\"b.io\":{\"auth\":\"bWU6cHc=\"}}}'
",
        &["t.yaml:10:18: error: `spec.authentication.artifactPullSecretSettings.secretRef` names \
             Secret `login`, which has no login for the registry a.io"],
    );
}

#[test]
fn who_may_sign_is_in_a_config_map_or_a_secret_that_exists() {
    check(
        "\
apiVersion: connectivity.iotoperations.azure.com/v1
kind: RegistryEndpoint
metadata:
  name: abc
spec:
  host: a.io
  authentication:
    method: Anonymous
  codeSigningCas:
    - type: ConfigMap
      configMapRef: ca
",
        &["t.yaml:11:21: error: `spec.codeSigningCas[0].configMapRef` names the ConfigMap `ca`, \
             which does not exist; there is none"],
    );
    check(
        "\
apiVersion: connectivity.iotoperations.azure.com/v1
kind: RegistryEndpoint
metadata:
  name: abc
spec:
  host: a.io
  authentication:
    method: Anonymous
  codeSigningCas:
    - type: ConfigMap
      secretRef: ca
",
        &[
            "t.yaml:10:7: error: missing field `spec.codeSigningCas[0].configMapRef`",
            "t.yaml:11:7: error: `spec.codeSigningCas[0].secretRef` must not be set: type is `ConfigMap`",
        ],
    );
}

#[test]
fn mirrors_are_registries_and_who_vouches_is_there() {
    let registry = |annotations: &str| {
        format!(
            "apiVersion: connectivity.iotoperations.azure.com/v1\nkind: RegistryEndpoint\nmetadata:\n  name: abc\n  \
             annotations: {annotations}\nspec:\n  host: a.io\n  authentication: {{method: Anonymous}}\n"
        )
    };
    check(&registry("{forebay.dev/mirrors: 'b.io, c.io:5000/path'}"), &[]);
    for (annotations, why) in [
        ("{forebay.dev/mirrors: 'oci-layout:x'}", "must name registries, not directories"),
        ("{forebay.dev/mirrors: 'https://b.io'}", "without `http://`"),
        ("{forebay.dev/ca: nobody}", "names the ConfigMap `nobody`, which does not exist"),
    ] {
        let loaded = forebay_config::load_str("t.yaml", &registry(annotations));
        let told: Vec<String> = loaded.findings.iter().map(ToString::to_string).collect();
        assert!(loaded.has_errors() && told.iter().any(|line| line.contains(why)), "{told:?}");
    }
}

#[test]
fn plain_http_is_true_or_false() {
    check(
        "\
apiVersion: connectivity.iotoperations.azure.com/v1
kind: RegistryEndpoint
metadata:
  name: abc
  annotations:
    forebay.dev/plain-http: 'yes'
spec:
  host: a.io
  authentication:
    method: Anonymous
",
        &["t.yaml:6:29: error: `metadata.annotations[\"forebay.dev/plain-http\"]` is `yes`, but \
             must be \"true\" or \"false\""],
    );
    check(
        "\
apiVersion: connectivity.iotoperations.azure.com/v1
kind: RegistryEndpoint
metadata:
  name: abc
  annotations:
    forebay.dev/plain-http: true
spec:
  host: a.io
  authentication:
    method: Anonymous
",
        &["t.yaml:6:29: error: `metadata.annotations[\"forebay.dev/plain-http\"]` must be a \
             string, but `true` is a boolean in YAML; quote it: \"true\""],
    );
}

#[test]
fn an_endpoint_has_the_settings_of_its_type_and_in_range() {
    check(
        "\
apiVersion: connectivity.iotoperations.azure.com/v1
kind: DataflowEndpoint
metadata:
  name: abc
spec:
  endpointType: Mqtt
  mqttSettings:
    qos: 2
    keepAliveSeconds: 70000
    maxInflightMessages: -1
    retain: never
    host: a:b
    clientIdPrefix: 5
  kafkaSettings: {}
",
        &[
            "t.yaml:8:10: error: `spec.mqttSettings.qos` must be a whole number from 0 to 1, but is 2",
            "t.yaml:9:23: error: `spec.mqttSettings.keepAliveSeconds` must be a whole number from 0 \
             to 65535, but is 70000",
            "t.yaml:10:26: error: `spec.mqttSettings.maxInflightMessages` must be a whole number \
             from 0 to 65535, but is -1",
            "t.yaml:11:13: error: `spec.mqttSettings.retain` is `never`, but must be one of `Keep`, \
             `Never`; did you mean `Never`?",
            "t.yaml:12:11: error: `spec.mqttSettings.host` is `a:b`, but the port must be a whole \
             number from 1 to 65535",
            "t.yaml:13:21: error: `spec.mqttSettings.clientIdPrefix` must be a string, but `5` is a \
             number in YAML; quote it: \"5\"",
            "t.yaml:14:3: error: `spec.kafkaSettings` must not be set: it belongs to endpointType \
             `Kafka`, and endpointType is `Mqtt`",
        ],
    );
}

#[test]
fn settings_that_mean_nothing_within_this_broker_are_told() {
    check(
        "\
apiVersion: connectivity.iotoperations.azure.com/v1
kind: DataflowEndpoint
metadata:
  name: abc
spec:
  endpointType: Mqtt
  mqttSettings:
    qos: 0
    maxInflightMessages: 100
    clientIdPrefix: a
    sessionExpirySeconds: 60
    keepAliveSeconds: 5
",
        &[
            "t.yaml:10:5: note: `spec.mqttSettings.clientIdPrefix` has no effect here: graphs are no \
             clients and have no client id",
            "t.yaml:11:5: note: `spec.mqttSettings.sessionExpirySeconds` has no effect here: a graph is \
             never away from this broker; its subscription lasts as long as its resource",
        ],
    );
    // Elsewhere they are in effect.
    check(
        "\
apiVersion: connectivity.iotoperations.azure.com/v1
kind: DataflowEndpoint
metadata:
  name: abc
spec:
  endpointType: Mqtt
  mqttSettings:
    host: elsewhere:8883
    qos: 0
    clientIdPrefix: a
    sessionExpirySeconds: 60
",
        &[],
    );
}

#[test]
fn an_endpoint_names_a_secret_that_exists() {
    check(
        "\
apiVersion: connectivity.iotoperations.azure.com/v1
kind: DataflowEndpoint
metadata:
  name: abc
spec:
  endpointType: Kafka
  kafkaSettings:
    host: a:9093
    authentication:
      method: Sasl
      saslSettings:
        saslType: Plain
        secretRef: x
",
        &["t.yaml:13:20: error: `spec.kafkaSettings.authentication.saslSettings.secretRef` names \
             the Secret `x`, which does not exist; there is none"],
    );
}

#[test]
fn a_profile_has_one_to_twenty_instances() {
    check(
        "\
apiVersion: connectivity.iotoperations.azure.com/v1
kind: DataflowProfile
metadata:
  name: abc
spec:
  instanceCount: 0
",
        &["t.yaml:6:18: error: `spec.instanceCount` must be a whole number from 1 to 20, but is 0"],
    );
    check(
        "\
apiVersion: connectivity.iotoperations.azure.com/v1
kind: DataflowProfile
metadata:
  name: abc
spec:
  instanceCount: 21
",
        &["t.yaml:6:18: error: `spec.instanceCount` must be a whole number from 1 to 20, but is 21"],
    );
    check(
        "\
apiVersion: connectivity.iotoperations.azure.com/v1
kind: DataflowProfile
metadata:
  name: abc
spec:
  instanceCount: '3'
",
        &["t.yaml:6:18: error: `spec.instanceCount` must be a whole number from 1 to 20, but is a \
             string"],
    );
    check(
        "\
apiVersion: connectivity.iotoperations.azure.com/v1
kind: DataflowProfile
metadata:
  name: abc
spec:
  instanceCount: 3
",
        &[],
    );
    check(
        "\
apiVersion: connectivity.iotoperations.azure.com/v1
kind: DataflowProfile
metadata:
  name: abc
spec:
  instanceCount: 1
",
        &[],
    );
}

#[test]
fn a_log_level_is_one() {
    check(
        "\
apiVersion: connectivity.iotoperations.azure.com/v1
kind: DataflowProfile
metadata:
  name: abc
spec:
  diagnostics:
    logs:
      level: inof
",
        &["t.yaml:8:14: error: `spec.diagnostics.logs.level` is `inof`, but is no log level; did \
             you mean `info`?"],
    );
}

#[test]
fn there_is_one_broker_and_it_is_called_default() {
    check(
        "\
apiVersion: mqttbroker.iotoperations.azure.com/v1
kind: Broker
metadata:
  name: other
spec:
  memoryProfile: Medium
",
        &["t.yaml:4:9: error: the Broker must be named `default`; there is one only"],
    );
}

#[test]
fn sizes_of_the_broker_have_their_own_forms() {
    check(
        "\
apiVersion: mqttbroker.iotoperations.azure.com/v1
kind: Broker
metadata:
  name: default
spec:
  memoryProfile: Huge
  persistence:
    maxSize: 10MB
  diskBackedMessageBuffer:
    maxSize: 10GiB
  cardinality:
    frontend:
      replicas: 17
    backendChain:
      partitions: 1
      redundancyFactor: 0
",
        &[
            "t.yaml:6:18: error: `spec.memoryProfile` is `Huge`, but must be one of `Tiny`, `Low`, \
             `Medium`, `High`",
            "t.yaml:8:14: error: `spec.persistence.maxSize` is `10MB`, but must be more than 100 MB",
            "t.yaml:10:14: error: `spec.diskBackedMessageBuffer.maxSize` is `10GiB`, but must be \
             digits and one of `K`, `M`, `G`, `T`, `P`, `E`",
            "t.yaml:13:17: error: `spec.cardinality.frontend.replicas` must be a whole number from \
             1 to 16, but is 17",
            "t.yaml:16:25: error: `spec.cardinality.backendChain.redundancyFactor` must be a whole \
             number from 1 to 5, but is 0",
        ],
    );
}

#[test]
fn broker_settings_come_later() {
    check(
        "\
apiVersion: mqttbroker.iotoperations.azure.com/v1
kind: Broker
metadata:
  name: default
  annotations:
    forebay.dev/message-memory: 64MiB
spec:
  memoryProfile: Low
  cardinality:
    frontend: {replicas: 1}
    backendChain: {partitions: 1, redundancyFactor: 2}
",
        &["t.yaml:9:3: note: `spec.cardinality` has no effect here: one process serves everything"],
    );
    check(
        "\
apiVersion: mqttbroker.iotoperations.azure.com/v1
kind: Broker
metadata:
  name: default
  annotations:
    forebay.dev/topic-level: \"5\"
    forebay.dev/inflight-messages: \"0\"
    forebay.dev/topic-aliases: \"65536\"
spec: {}
",
        &[
            "t.yaml:6:5: error: unknown annotation `forebay.dev/topic-level` for Broker, did you mean \
             `forebay.dev/topic-levels`?",
            "t.yaml:7:36: error: `metadata.annotations[\"forebay.dev/inflight-messages\"]` is `0`, but must be from 1 to \
             32767",
            "t.yaml:8:32: error: `metadata.annotations[\"forebay.dev/topic-aliases\"]` is `65536`, but must be from 0 to \
             65535",
        ],
    );
    check(
        "\
apiVersion: mqttbroker.iotoperations.azure.com/v1
kind: Broker
metadata:
  name: default
spec:
  memoryProfile: Medium
  advanced:
    encryptInternalTraffic: Disabled
",
        &[],
    );
}

#[test]
fn a_listener_has_ports_and_names_what_exists() {
    check(
        "\
apiVersion: mqttbroker.iotoperations.azure.com/v1
kind: BrokerListener
metadata:
  name: default
spec:
  ports:
    - port: 0
      tls:
        mode: Manual
",
        &[
            "t.yaml:7:13: error: `spec.ports[0].port` must be a whole number from 1 to 65535, but is 0",
            "t.yaml:9:9: error: missing field `spec.ports[0].tls.manual`",
        ],
    );
    check(
        "\
apiVersion: mqttbroker.iotoperations.azure.com/v1
kind: BrokerListener
metadata:
  name: default
spec:
  ports:
    - port: 1883
      authenticationRef: nobody
      authorizationRef: nothing
      tls:
        mode: Manual
        manual:
          secretRef: cert
",
        &[
            "t.yaml:8:26: error: `spec.ports[0].authenticationRef` names the \
             BrokerAuthentication `nobody`, which does not exist; known are `default`",
            "t.yaml:9:25: error: `spec.ports[0].authorizationRef` names the \
             BrokerAuthorization `nothing`, which does not exist; there is none",
            "t.yaml:13:22: error: `spec.ports[0].tls.manual.secretRef` names the Secret `cert`, \
             which does not exist; there is none",
        ],
    );
    check(
        "\
apiVersion: mqttbroker.iotoperations.azure.com/v1
kind: BrokerListener
metadata:
  name: default
spec:
  ports: []
  brokerRef: other
",
        &["t.yaml:7:14: error: `spec.brokerRef` names the Broker `other`, which does not exist; \
             known are `default`"],
    );
}

#[test]
fn each_service_type_has_one_listener() {
    check(
        "\
apiVersion: mqttbroker.iotoperations.azure.com/v1
kind: BrokerListener
metadata:
  name: one
spec:
  ports: []
---
apiVersion: mqttbroker.iotoperations.azure.com/v1
kind: BrokerListener
metadata:
  name: two
spec:
  ports: []
",
        &["t.yaml:8:1: error: BrokerListener `one` has the same service type; each may have one \
             listener"],
    );
}

#[test]
fn authorization_needs_authentication() {
    check(
        "\
apiVersion: mqttbroker.iotoperations.azure.com/v1
kind: BrokerAuthorization
metadata:
  name: abc
spec:
  authorizationPolicies: {}
---
apiVersion: mqttbroker.iotoperations.azure.com/v1
kind: BrokerListener
metadata:
  name: abc
spec:
  ports:
    - port: 1883
      authorizationRef: abc
",
        &["t.yaml:15:25: error: `spec.ports[0].authorizationRef` needs an `authenticationRef` \
             on the same port"],
    );
}

#[test]
fn authentication_methods_have_their_settings() {
    check(
        "\
apiVersion: mqttbroker.iotoperations.azure.com/v1
kind: BrokerAuthentication
metadata:
  name: abc
spec:
  authenticationMethods:
    - method: Custom
      customSettings:
        endpoint: http://x
    - method: x509
    - method: ServiceAccountToken
",
        &[
            "t.yaml:9:19: error: `spec.authenticationMethods[0].customSettings.endpoint` is \
             `http://x`, but must begin with `https://`",
            "t.yaml:10:15: error: `spec.authenticationMethods[1].method` is `x509`, but must be one \
             of `Custom`, `ServiceAccountToken`, `X509`; did you mean `X509`?",
            "t.yaml:11:7: error: missing field \
             `spec.authenticationMethods[2].serviceAccountTokenSettings`",
        ],
    );
}

#[test]
fn authentication_names_what_exists() {
    check(
        "\
apiVersion: mqttbroker.iotoperations.azure.com/v1
kind: BrokerAuthentication
metadata:
  name: abc
spec:
  authenticationMethods:
    - method: Custom
      customSettings:
        endpoint: https://x
        caCertConfigMap: ca
        auth:
          x509:
            secretRef: s
    - method: X509
      x509Settings:
        trustedClientCaCert: ca2
",
        &[
            "t.yaml:10:26: error: `spec.authenticationMethods[0].customSettings.caCertConfigMap` \
             names the ConfigMap `ca`, which does not exist; there is none",
            "t.yaml:13:24: error: \
             `spec.authenticationMethods[0].customSettings.auth.x509.secretRef` names the Secret \
             `s`, which does not exist; there is none",
            "t.yaml:16:30: error: `spec.authenticationMethods[1].x509Settings.trustedClientCaCert` \
             names the ConfigMap `ca2`, which does not exist; there is none",
        ],
    );
}

#[test]
fn authorization_rules_are_exact() {
    check(
        "\
apiVersion: mqttbroker.iotoperations.azure.com/v1
kind: BrokerAuthorization
metadata:
  name: abc
spec:
  authorizationPolicies:
    rules:
      - principals: {}
        brokerResources:
          - method: publish
        stateStoreResources:
          - method: Read
            keyType: Regex
            keys: []
",
        &[
            "t.yaml:10:21: error: `spec.authorizationPolicies.rules[0].brokerResources[0].method` \
             is `publish`, but must be one of `Connect`, `Publish`, `Subscribe`; did you \
             mean `Publish`?",
            "t.yaml:13:22: error: \
             `spec.authorizationPolicies.rules[0].stateStoreResources[0].keyType` is `Regex`, but \
             must be one of `Pattern`, `String`, `Binary`",
        ],
    );
}

#[test]
fn a_resource_is_defined_once() {
    check(
        "\
apiVersion: connectivity.iotoperations.azure.com/v1
kind: DataflowProfile
metadata:
  name: abc
spec:
  instanceCount: 1
---
apiVersion: connectivity.iotoperations.azure.com/v1
kind: DataflowProfile
metadata:
  name: abc
spec:
  instanceCount: 1
",
        &["t.yaml:9:7: error: DataflowProfile `abc` is defined twice; first at t.yaml:2:7"],
    );
}

#[test]
fn managed_metadata_and_status_are_accepted() {
    check(
        "\
apiVersion: connectivity.iotoperations.azure.com/v1
kind: DataflowProfile
metadata:
  name: abc
  uid: 1
  resourceVersion: 2
  creationTimestamp: 2026-01-01T00:00:00Z
  generation: 1
  managedFields: []
  labels:
    a: b
  annotations:
    a.b/c: d
  ownerReferences:
    - apiVersion: v1
      kind: X
      name: y
      uid: z
      controller: true
spec: {}
status:
  anything: 1
",
        &[],
    );
}

#[test]
fn unknown_metadata_is_an_error() {
    check(
        "\
apiVersion: connectivity.iotoperations.azure.com/v1
kind: DataflowProfile
metadata:
  name: abc
  label: {}
",
        &["t.yaml:5:3: error: unknown field `metadata.label`, did you mean `labels`?"],
    );
}

#[test]
fn a_list_is_read_item_by_item() {
    check(
        "\
apiVersion: v1
kind: List
metadata: {}
items:
  - apiVersion: v1
    kind: ConfigMap
    metadata:
      name: a.b
    data:
      x: 1
",
        &["t.yaml:10:10: error: `items[0].data.x` must be a string, but `1` is a number in YAML; \
             quote it: \"1\""],
    );
}

#[test]
fn a_graph_definition_among_resources_is_left_out() {
    check(
        "\
moduleRequirements: {}
operations: []
connections: []
",
        &["t.yaml:1:1: warning: this is a graph definition, not a resource, and is left out; it \
             belongs into a registry"],
    );
}

#[test]
fn secret_faults_do_not_repeat_the_secret() {
    check(
        "\
apiVersion: v1
kind: Secret
metadata:
  name: abc
data:
  a: hunter2!
stringData:
  b: 12345
",
        &[
            "t.yaml:6:6: error: `data.a` is no valid base64; use `stringData` for plain text",
            "t.yaml:8:6: error: `stringData.b` must be a string; quote it",
        ],
    );
    check(
        "\
apiVersion: v1
kind: Secret
metadata:
  name: abc
type: kubernetes.io/dockerconfigjson
stringData:
  .dockerconfigjson: hunter2
",
        &["t.yaml:1:1: error: a Secret of type kubernetes.io/dockerconfigjson holds no docker \
             configuration (JSON with `auths`) under `.dockerconfigjson`"],
    );
    check(
        "\
apiVersion: v1
kind: Secret
metadata:
  name: abc
type: kubernetes.io/dockerconfigjson
stringData:
  .dockerconfigjson: '{\"auths\":{\"a.io\":{\"auth\":\"hunter2\"}}}'
",
        &["t.yaml:1:1: error: a Secret of type kubernetes.io/dockerconfigjson has neither \
             `username` and `password` nor a valid `auth` for `a.io`"],
    );
    check(
        "\
apiVersion: v1
kind: Secret
metadata:
  name: abc
type: kubernetes.io/dockerconfigjson
",
        &["t.yaml:1:1: error: a Secret of type kubernetes.io/dockerconfigjson has no key \
             `.dockerconfigjson`"],
    );
}

#[test]
fn annotations_of_listeners_and_authentication_are_checked() {
    check(
        "\
apiVersion: mqttbroker.iotoperations.azure.com/v1
kind: BrokerListener
metadata:
  name: abc
  annotations:
    forebay.dev/address: localhost
    forebay.dev/allowed-origins: \" , \"
    forebay.dev/adress: 0.0.0.0
spec:
  ports: []
---
apiVersion: mqttbroker.iotoperations.azure.com/v1
kind: BrokerAuthentication
metadata:
  name: abc
  annotations:
    forebay.dev/token-keys: http://a
    forebay.dev/kubernetes-api: a:6443
    forebay.dev/password-file: \"\"
spec:
  authenticationMethods: []
",
        &[
            "t.yaml:6:26: error: `metadata.annotations[\"forebay.dev/address\"]` is `localhost`, but must be \
             an IP address, such as 0.0.0.0",
            "t.yaml:7:34: error: `metadata.annotations[\"forebay.dev/allowed-origins\"]` is ` , `, but must \
             name at least one origin, such as https://example.com",
            "t.yaml:8:5: error: unknown annotation `forebay.dev/adress` for BrokerListener, did you mean \
             `forebay.dev/address`?",
            "t.yaml:17:29: error: `metadata.annotations[\"forebay.dev/token-keys\"]` is `http://a`, but must \
             be a file or begin with `https://`",
            "t.yaml:18:33: error: `metadata.annotations[\"forebay.dev/kubernetes-api\"]` is `a:6443`, but \
             must begin with `https://`",
            "t.yaml:19:32: error: `metadata.annotations[\"forebay.dev/password-file\"]` is ``, but must name \
             a file or directory",
        ],
    );
}

#[test]
fn what_only_a_cluster_has_is_told() {
    check(
        "\
apiVersion: mqttbroker.iotoperations.azure.com/v1
kind: BrokerListener
metadata:
  name: default
spec:
  serviceName: aio-broker
  serviceType: LoadBalancer
  ports:
    - port: 8883
      nodePort: 31883
      tls:
        mode: Automatic
        certManagerCertificateSpec:
          issuerRef:
            name: issuer
            kind: ClusterIssuer
",
        &[
            "t.yaml:6:3: note: `spec.serviceName` has no effect here: there is no service; \
             certificates name it, though",
            "t.yaml:7:3: note: `spec.serviceType` has no effect here: there is no service; \
             ports are bound on this machine",
            "t.yaml:10:7: note: `spec.ports[0].nodePort` has no effect here: there is no \
             node; `port` is bound",
            "t.yaml:14:11: note: `spec.ports[0].tls.certManagerCertificateSpec.issuerRef` has no effect \
             here: the broker's own certificate authority issues the certificate",
        ],
    );
}

#[test]
fn copies_of_messages_go_to_an_mqtt_broker() {
    let profile = |endpoint: &str, nth: &str| {
        format!(
            "apiVersion: connectivity.iotoperations.azure.com/v1
kind: DataflowProfile
metadata:
  name: watched
spec:
  diagnostics:
    debuggingSettings:
      destinationSettings:
        endpointRef: {endpoint}
      samplingPolicy: {{method: Count, countSettings: {{nth: {nth}}}}}
---
apiVersion: connectivity.iotoperations.azure.com/v1
kind: DataflowEndpoint
metadata:
  name: files
spec:
  endpointType: LocalStorage
  localStorageSettings: {{persistentVolumeClaimRef: claim}}
"
        )
    };
    let place = "`spec.diagnostics.debuggingSettings.destinationSettings.endpointRef`";
    check(&profile("default", "1"), &[]);
    check(
        &profile("files", "1"),
        &[&format!(
            "t.yaml:9:22: error: {place} names DataflowEndpoint `files`, which is of type LocalStorage; it must \
             be of type Mqtt"
        )],
    );
    check(
        &profile("nowhere", "1"),
        &[&format!(
            "t.yaml:9:22: error: {place} names the DataflowEndpoint `nowhere`, which does not exist; known are `files`, `default`"
        )],
    );
    let nth = "spec.diagnostics.debuggingSettings.samplingPolicy.countSettings.nth";
    check(
        &profile("default", "0"),
        &[&format!("t.yaml:10:60: error: `{nth}` must be a whole number from 1 to 4294967295, but is 0")],
    );
}

#[test]
fn annotations_of_endpoints_are_for_their_kinds() {
    let endpoint = |annotations: &str, spec: &str| {
        format!(
            "apiVersion: connectivity.iotoperations.azure.com/v1\nkind: DataflowEndpoint\nmetadata:\n  name: abc\n  \
             annotations: {{{annotations}}}\nspec: {{{spec}}}\n"
        )
    };
    let local = "endpointType: LocalStorage, localStorageSettings: {persistentVolumeClaimRef: disk}";
    let kafka = "endpointType: Kafka, kafkaSettings: {host: 'k:9092', authentication: {method: Anonymous, anonymousSettings: {}}}";
    check(&endpoint("forebay.dev/directory: /srv, forebay.dev/batch-latency: 5s", local), &[]);
    check(
        &endpoint("forebay.dev/batch-latency: 5s", kafka),
        &[
            "t.yaml:1:1: error: `metadata.annotations.forebay.dev/batch-latency` is for endpoints of type LocalStorage; \
             this one is of type Kafka",
        ],
    );
    check(
        &endpoint("forebay.dev/login: me", local),
        &[
            "t.yaml:1:1: error: `metadata.annotations.forebay.dev/login` is for endpoints of type Mqtt; this one is of \
             type LocalStorage",
            "t.yaml:1:1: error: `metadata.annotations.forebay.dev/login` names the Secret `me`, which does not exist; there \
             is none",
        ],
    );
}
