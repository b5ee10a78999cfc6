//! Graphs to storage: Parquet in directories and in an object store of Azure's, Delta tables there; read by what others wrote.
#![allow(clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;
use std::{fs, thread};

use forebay_tests::artifact::{Artifact, Shape};
use forebay_tests::azurite::{Azurite, duckdb};
use forebay_tests::front::Front;
use forebay_tests::mqtt::{Client, Connect};
use forebay_tests::pki::Authority;
use forebay_tests::place::{Place, wait_connected, wait_reason};
use forebay_tests::resources::{between, config_map, dataflow_graph, persisted, secret};
use forebay_tests::{operators, outage, wait};
use serde_json::{Value, json};

const READINGS: &str = "aio-sr://azure-iot-operations/readings:1";

/// An operator that passes everything on as it is.
const PASS: &str = "metadata: {$schema: x, name: Pass, version: 1.0.0}
moduleRequirements: {apiVersion: 1.1.0, runtimeVersion: 1.1.0}
operations:
  - {operationType: source, name: source}
  - {operationType: map, name: module-otel-enrich/map, module: 'otel-enrich:1.0.0'}
  - {operationType: sink, name: sink}
connections:
  - {from: {name: source}, to: {name: module-otel-enrich/map}}
  - {from: {name: module-otel-enrich/map}, to: {name: sink}}
";

fn schema(fields: &Value) -> String {
    document(
        &json!({"$schema": "Delta/1.0", "type": "object", "properties": {"type": "struct", "fields": fields}}),
    )
}

fn document(schema: &Value) -> String {
    config_map("readings", "schema.json", &schema.to_string()).replace(
        "  name: readings\n",
        &format!("  name: readings\n  annotations: {{forebay.dev/schema: '{READINGS}'}}\n"),
    )
}

fn fields() -> Value {
    json!([
        {"name": "number", "type": "long", "nullable": false},
        {"name": "value", "type": "double"},
        {"name": "at", "type": "timestamp"},
        {"name": "day", "type": "date"},
        {"name": "price", "type": "decimal(10,2)"},
        {"name": "raw", "type": "binary"},
        {"name": "place", "type": {"type": "struct", "fields": [{"name": "line", "type": "string", "nullable": false}]}},
        {"name": "samples", "type": {"type": "array", "elementType": "integer", "containsNull": true}},
    ])
}

/// From `raw` to `target` of the endpoint `store`, in this format.
fn graph(format: &str, target: &str) -> String {
    let output = format!(
        "dataDestination: {target}\n        outputSchemaSettings: {{serializationFormat: {format}, schemaRef: '{READINGS}'}}\n"
    );
    let graph = dataflow_graph("keep", "registry", "pass:1.0.0", "raw", target);
    between(&graph, "default", "store")
        .replace(&format!("dataDestination: {target}\n"), &output)
        .replace("  name: keep\n", "  name: keep\n  annotations: {forebay.dev/dead-letter-topic: dead}\n")
}

fn place(parts: &[String]) -> Place {
    let registry = operators::sample_registry();
    registry.push("pass", "1.0.0", &Artifact::new(Shape::Graph, "graph.yaml", PASS.to_owned()));
    registry.push(
        "otel-enrich",
        "1.0.0",
        &Artifact::new(Shape::Module, "m.wasm", operators::component("otel-enrich")),
    );
    Place::with(registry, parts)
}

fn endpoint(annotations: &str, spec: &str) -> String {
    format!(
        "apiVersion: connectivity.iotoperations.azure.com/v1\nkind: DataflowEndpoint\nmetadata:\n  name: store\n  \
         namespace: azure-iot-operations\n  annotations: {{{annotations}}}\nspec:\n{spec}"
    )
}

fn local(annotations: &str) -> String {
    endpoint(
        annotations,
        "  endpointType: LocalStorage\n  localStorageSettings: {persistentVolumeClaimRef: disk}\n",
    )
}

/// Each message is a batch, or all that came meanwhile.
fn azure(host: &str) -> String {
    let spec = format!(
        "  endpointType: DataLakeStorage\n  dataLakeStorageSettings:\n    host: {host}\n    authentication:\n      \
         method: AccessToken\n      accessTokenSettings: {{secretRef: sas}}\n    batching: {{latencySeconds: 0}}\n"
    );
    endpoint("", &spec)
}

fn sas(token: &str) -> String {
    secret("sas", &[("accessToken", token)])
}

fn reading(number: u32) -> Vec<u8> {
    json!({"number": number, "value": 0.5}).to_string().into_bytes()
}

fn numbers(records: &[Value]) -> BTreeSet<u64> {
    records.iter().filter_map(|record| record["number"].as_u64()).collect()
}

fn wait_numbers(records: impl Fn() -> Vec<Value>, expected: std::ops::Range<u64>) {
    let expected: BTreeSet<u64> = expected.collect();
    wait::until("everything is there", || {
        let got = numbers(&records());
        (got == expected).then_some(()).ok_or_else(|| format!("{} are there: {got:?}", got.len()))
    });
}

fn files(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn messages_become_parquet_by_their_schema_and_what_does_not_fit_is_kept_apart() {
    let parts =
        [local("forebay.dev/batch-latency: 300ms"), schema(&fields()), graph("Parquet", "line1/readings")];
    let place = place(&parts);
    let broker = place.serve().start();
    wait_connected(&broker, "destination");
    let mut dead = Client::connect(broker.addr, &Connect::v5("dead"));
    dead.subscribe("dead", 1);
    let mut client = Client::connect(broker.addr, &Connect::v5("client"));
    let whole = json!({
        "number": 1.9, "value": 2, "at": "2026-01-31T12:00:00.25+01:00", "day": "2026-01-31", "price": 12.5,
        "raw": "AAH/", "place": {"line": "a"}, "samples": [1, null, 3],
    });
    client.publish("raw", 1, whole.to_string().as_bytes());
    let poison = [
        (r#"{"value": 1}"#, "missing property that is not Nullable: number"),
        (r#"{"number": null}"#, "missing property that is not Nullable: number"),
        (r#"{"number": 1, "place": {}}"#, "missing property that is not Nullable: place.line"),
        (r#"{"number": 1, "more": 2}"#, "could not set a field more, it does not exist by the schema"),
        (r#"{"number": "one"}"#, "could not set a field number: it is to be an integer"),
        ("nonsense", "no JSON"),
    ];
    for (payload, why) in poison {
        client.publish("raw", 1, payload.as_bytes());
        let letter = dead.receive();
        assert_eq!(letter.text(), payload);
        let said = letter.user_properties();
        assert!(
            said.iter().any(|(key, value)| key == "dead-letter-cause" && value.contains(why)),
            "{said:?}"
        );
    }
    client.publish("raw", 1, br#"[{"number": 2}, {"number": 3}]"#);
    let directory = place.data().join("volumes/disk/line1/readings");
    wait_numbers(|| duckdb(&directory), 1..4);
    let records = duckdb(&directory);
    let first = records.iter().find(|record| record["number"] == 1).expect("the first");
    assert_eq!(first["value"], 2.0);
    assert!(first["at"].as_str().is_some_and(|at| at.starts_with("2026-01-31 11:00:00.25")), "{first}");
    assert_eq!((&first["day"], &first["price"]), (&json!("2026-01-31"), &json!("12.50")));
    assert_eq!((&first["raw"], &first["place"]["line"]), (&json!([0, 1, 255]), &json!("a")));
    assert_eq!(first["samples"], json!([1, null, 3]));
    assert!(files(&directory).iter().all(|name| name.starts_with("azure-iot-operations.keep.destination-")));
    assert!(broker.metric("forebay_bridge_messages_delivered", &["success=\"false\""]) == 6.0);
}

#[test]
fn a_batch_is_as_large_as_its_time_and_what_is_acknowledged_is_in_one_after_a_crash() {
    let volume = tempfile::TempDir::new().expect("a directory");
    let annotations =
        format!("forebay.dev/directory: '{}', forebay.dev/batch-latency: 2s", volume.path().display());
    let place = place(&[local(&annotations), schema(&fields()), persisted(&graph("Parquet", "kept"))]);
    let directory = volume.path().join("kept");
    let broker = place.serve().start();
    wait_connected(&broker, "destination");
    let mut client = Client::connect(broker.addr, &Connect::v5("client"));
    (0..200).for_each(|number| client.publish("raw", 1, &reading(number)));
    drop(broker);
    assert_eq!(files(&directory), [""; 0], "killed before there was a batch");
    // As a crash in the middle of a file leaves it.
    let process = fs::read_to_string(place.data().join("process-id")).expect("an identity");
    let unfinished = format!(".azure-iot-operations.keep.destination-{}-x.parquet", process.trim());
    fs::write(directory.join(&unfinished), "half").expect("a file can be written");
    let broker = place.serve().start();
    let mut client = Client::connect(broker.addr, &Connect::v5("client"));
    (200..300).for_each(|number| client.publish("raw", 1, &reading(number)));
    wait_numbers(|| duckdb(&directory), 0..300);
    let names = files(&directory);
    assert!(names.len() <= 5 && names.iter().all(|name| !name.starts_with('.')), "{names:?}");
    broker.wait_metric_is("forebay_store_graph_entries", &["dataflow_id=\"keep\""], 0.0);
}

#[test]
fn a_directory_that_cannot_be_written_is_told_of_and_waited_for() {
    let volume = tempfile::TempDir::new().expect("a directory");
    let annotations =
        format!("forebay.dev/directory: '{}', forebay.dev/batch-latency: 0s", volume.path().display());
    let place = place(&[local(&annotations), schema(&fields()), graph("Parquet", "kept")]);
    let directory = volume.path().join("kept");
    fs::write(&directory, "in the way").expect("a file can be written");
    let broker = place.serve().start();
    let why = wait_reason(&broker, "keep", "DataflowObjectStoreTargetSendFailed");
    assert!(why.contains("kept"), "{why}");
    let mut client = Client::connect(broker.addr, &Connect::v5("client"));
    (0..20).for_each(|number| client.publish("raw", 1, &reading(number)));
    fs::remove_file(&directory).expect("it is there");
    wait_numbers(|| duckdb(&directory), 0..20);
    wait_connected(&broker, "destination");
}

#[test]
fn an_object_store_gets_files_also_what_was_acknowledged_while_it_was_away() {
    let mut store = Azurite::start();
    store.create("raw");
    // As Kubernetes would mount it.
    let mounted = tempfile::TempDir::new().expect("a directory");
    fs::write(mounted.path().join("accessToken"), store.access_token()).expect("a file can be written");
    let mount =
        format!("  name: sas\n  annotations: {{forebay.dev/directory: '{}'}}\n", mounted.path().display());
    let parts = [
        azure(&store.host()),
        secret("sas", &[]).replace("  name: sas\n", &mount).replace("stringData:\n", ""),
        schema(&fields()),
        persisted(&graph("Parquet", "raw/line1")),
    ];
    let place = place(&parts);
    let broker = place.serve().start();
    wait_connected(&broker, "destination");
    let mut client = Client::connect(broker.addr, &Connect::v5("client"));
    (0..50).for_each(|number| client.publish("raw", 1, &reading(number)));
    wait_numbers(|| store.parquet("raw"), 0..50);
    assert!(
        store
            .names("raw")
            .iter()
            .all(|name| name.starts_with("line1/azure-iot-operations.keep.destination-"))
    );
    store.stop();
    let gone = outage::publish(&mut client, "raw", reading, 50);
    wait_reason(&broker, "keep", "DataflowObjectStoreTargetSendFailed");
    drop(broker);
    let broker = place.serve().start();
    let mut client = Client::connect(broker.addr, &Connect::v5("client"));
    let more = gone.end..gone.end + 50;
    more.clone().for_each(|number| client.publish("raw", 1, &reading(number)));
    store.resume();
    wait_numbers(|| store.parquet("raw"), 0..more.end.into());
    broker.wait_metric_is("forebay_store_graph_entries", &["dataflow_id=\"keep\""], 0.0);
}

#[test]
fn an_object_store_that_hangs_is_waited_for() {
    let store = Azurite::start();
    store.create("raw");
    let parts =
        [azure(&store.host()), sas(&store.access_token()), schema(&fields()), graph("Parquet", "raw")];
    let place = place(&parts);
    let broker = place.serve().start();
    wait_connected(&broker, "destination");
    store.hang();
    let mut client = Client::connect(broker.addr, &Connect::v5("client"));
    (0..50).for_each(|number| client.publish("raw", 1, &reading(number)));
    thread::sleep(Duration::from_secs(3));
    client.settle();
    store.go_on();
    wait_numbers(|| store.parquet("raw"), 0..50);
}

#[test]
fn batches_are_commits_of_a_table_which_is_made_if_need_be() {
    let mut store = Azurite::start();
    store.create("lake");
    let parts = [
        azure(&store.host()),
        sas(&store.access_token()),
        schema(&fields()),
        persisted(&graph("Delta", "lake/readings")),
    ];
    let place = place(&parts);
    let broker = place.serve().start();
    wait_connected(&broker, "destination");
    let mut client = Client::connect(broker.addr, &Connect::v5("client"));
    (0..30).for_each(|number| client.publish("raw", 1, &reading(number)));
    wait_numbers(|| store.delta("lake/readings"), 0..30);
    store.stop();
    (30..60).for_each(|number| client.publish("raw", 1, &reading(number)));
    wait_reason(&broker, "keep", "DataflowDeltaLakeTargetSendFailed");
    store.resume();
    wait_numbers(|| store.delta("lake/readings"), 0..60);
    drop(broker);
    // It is there, and is written on.
    let broker = place.serve().start();
    let mut client = Client::connect(broker.addr, &Connect::v5("client"));
    let place_of = json!({"number": 60, "place": {"line": "b"}, "samples": [7]});
    client.publish("raw", 1, place_of.to_string().as_bytes());
    wait_numbers(|| store.delta("lake/readings"), 0..61);
    let records = store.delta("lake/readings");
    let last = records.iter().find(|record| record["number"] == 60).expect("the last");
    assert_eq!((&last["place"]["line"], &last["samples"]), (&json!("b"), &json!([7])));
}

#[test]
fn a_table_of_another_schema_is_told_of() {
    let store = Azurite::start();
    store.create("lake");
    let token = store.access_token();
    let make = |fields: &Value| {
        place(&[azure(&store.host()), sas(&token), schema(fields), graph("Delta", "lake/readings")])
    };
    let first = make(&fields());
    let broker = first.serve().start();
    Client::connect(broker.addr, &Connect::v5("client")).publish("raw", 1, &reading(1));
    wait_numbers(|| store.delta("lake/readings"), 1..2);
    drop(broker);
    let other = make(&json!([{"name": "number", "type": "long"}, {"name": "colour", "type": "string"}]));
    let broker = other.serve().start();
    Client::connect(broker.addr, &Connect::v5("client")).publish(
        "raw",
        1,
        br#"{"number": 2, "colour": "red"}"#,
    );
    let why = wait_reason(&broker, "keep", "DataflowDeltaLakeTargetConfigurationError");
    assert!(why.contains("another schema"), "{why}");
}

#[test]
fn who_is_not_let_in_and_what_is_not_there_is_told_of_without_the_access_token() {
    let store = Azurite::start();
    store.create("raw");
    let nobody = wait::free_addr();
    let (authority, secured) = (Authority::new("plant"), wait::free_addr());
    let server = format!("mode tcp\nbind {secured} ssl crt SERVER\nserver store {}", store.addr);
    let _front = Front::new(&authority, &server);
    let nonsense = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let garbled = nonsense.local_addr().expect("an address");
    thread::spawn(move || {
        for stream in nonsense.incoming().flatten() {
            let _ = std::io::Write::write_all(&mut &stream, b"no HTTP at all\r\n\r\n");
        }
    });
    let (token, ended) = (store.access_token(), store.ended_access_token());
    for (host, token, target, code) in [
        (store.host(), &ended, "raw", "DataflowObjectStoreTargetAuthenticationFailed"),
        (store.host(), &token, "elsewhere", "DataflowObjectStoreTargetConfigurationError"),
        (format!("http://{nobody}/account"), &token, "raw", "DataflowObjectStoreTargetSendFailed"),
        (format!("http://{garbled}/account"), &token, "raw", "DataflowObjectStoreTargetSendFailed"),
        // Nobody vouches for it; and it waits for TLS in vain.
        (format!("https://{secured}/account"), &token, "raw", "DataflowObjectStoreTargetSendFailed"),
        (format!("http://{secured}/account"), &token, "raw", "DataflowObjectStoreTargetSendFailed"),
    ] {
        let place = place(&[azure(&host), sas(token), schema(&fields()), graph("Parquet", target)]);
        let broker = place.serve().start();
        let why = wait_reason(&broker, "keep", code);
        let signature = token.split("sig=").nth(1).expect("a signature");
        assert!(!why.contains(signature) && !broker.output().contains(signature), "{why}");
    }
}

#[test]
fn what_cannot_be_used_is_said_by_its_name() {
    let map = json!({"type": "object", "properties": {"m": {"type": "object"}}});
    let host = "account.blob.core.windows.net";
    for (parts, code, why) in [
        (
            [local(""), schema(&fields()), graph("Delta", "kept")],
            "DataflowObjectStoreTargetConfigurationError",
            "local storage is written as Parquet",
        ),
        (
            [local(""), schema(&fields()), graph("Parquet", "../kept")],
            "DataflowObjectStoreTargetConfigurationError",
            "leads out of the volume",
        ),
        (
            [local(""), document(&map), graph("Parquet", "kept")],
            "DataflowTransformTargetSchemaRetrievalFailed",
            "Currently maps are not supported",
        ),
        (
            [
                [azure(host), secret("sas", &[("token", "x")])].join("---\n"),
                schema(&fields()),
                graph("Parquet", "kept"),
            ],
            "DataflowObjectStoreTargetConfigurationError",
            "accessToken",
        ),
    ] {
        let place = place(&parts);
        let broker = place.serve().start_unready();
        let told = wait_reason(&broker, "keep", code);
        assert!(told.contains(why), "{told}");
    }
}
