//! Operators that call the host: remote commands over the broker, the schema registry, the state store that clients
//! share; and components of the preview contract, which call it by other names.

use std::thread;

use forebay_tests::artifact::{Artifact, Shape};
use forebay_tests::forebay::{Forebay, Serve};
use forebay_tests::mqtt::{Client, Connect, Publish, text, user_property};
use forebay_tests::operators;
use forebay_tests::resources::{
    Resources, configured, dataflow_graph, documents, map_graph, registry_endpoint, with_parameters,
};
use serde_json::{Value, json};

/// A broker that runs `definition`, whose operation is of the component `name`, from `in` to `out`.
fn start(name: &str, definition: String, configuration: &[(&str, &str)], more: &[String]) -> Forebay {
    let registry = operators::sample_registry();
    let component = Artifact::new(Shape::Module, "module.wasm", operators::component(name));
    registry.push(name, "1.0.0", &component);
    registry.push("graph", "1.0.0", &Artifact::new(Shape::Graph, "graph.yaml", definition));
    let graph = dataflow_graph("calls", "registry", "graph:1.0.0", "in", "out");
    let graph = if configuration.is_empty() { graph } else { configured(&graph, configuration) };
    let mut all = vec![registry_endpoint("registry", registry.addr), graph];
    all.extend_from_slice(more);
    let resources = Resources::default().with("all.yaml", &documents(&all));
    Serve::new().resources(&resources).start()
}

/// Response topic and correlation data of a request, read by hand.
fn reply_to(request: &Publish) -> (String, Vec<u8>) {
    let bytes = &request.properties;
    let (mut topic, mut correlation, mut at) = (String::new(), Vec::new(), 0);
    let take = |at: &mut usize| {
        let length = usize::from(u16::from_be_bytes([bytes[*at], bytes[*at + 1]]));
        *at += 2 + length;
        bytes[*at - length..*at].to_vec()
    };
    while at < bytes.len() {
        at += 1;
        match bytes[at - 1] {
            0x01 => at += 1,
            0x02 => at += 4,
            0x03 => drop(take(&mut at)),
            0x08 => topic = String::from_utf8(take(&mut at)).expect("UTF-8"),
            0x09 => correlation = take(&mut at),
            0x26 => drop((take(&mut at), take(&mut at))),
            other => panic!("property {other}"),
        }
    }
    (topic, correlation)
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn an_operator_calls_a_remote_command_and_gets_its_answer_or_its_error() {
    let definition = map_graph("command", "caller:1.0.0");
    let broker = start("caller", definition, &[], &[]);
    let addr = broker.addr;
    let mut responder = Client::connect(addr, &Connect::v5("responder"));
    responder.subscribe("plant/press-4/convert", 0);
    let responder = thread::spawn(move || {
        for status in ["200", "500"] {
            let request = responder.receive();
            assert!(contains(&request.properties, b"__ts") && contains(&request.properties, b"__protVer"));
            assert!(contains(&request.properties, b"line"), "the operator's own property comes along");
            let (topic, correlation) = reply_to(&request);
            assert_eq!(topic, "clients/forebay-graphs/plant/press-4/convert");
            // An answer to somebody else's question changes nothing.
            let wrong = [[0x09, 0, 16].as_slice(), &[7; 16], &user_property("__stat", "200")].concat();
            responder.publish_with(&topic, 0, false, &wrong, b"wrong");
            let length = u16::try_from(correlation.len()).expect("short").to_be_bytes();
            let mut properties = [[0x09].as_slice(), &length, &correlation].concat();
            properties.extend(user_property("__stat", status));
            properties.extend(user_property("speed", "fast"));
            let answer = format!("{}!", request.text());
            responder.publish_with(&topic, 0, false, &properties, answer.as_bytes());
        }
    });
    let mut publisher = Client::connect(addr, &Connect::v5("publisher"));
    let mut client = Client::connect(addr, &Connect::v5("client"));
    client.subscribe("out", 0);
    publisher.publish("in", 1, b"question");
    let answer = client.receive();
    assert_eq!(answer.text(), "question!");
    assert!(contains(&answer.properties, b"speed") && !contains(&answer.properties, b"__stat"), "{answer:?}");
    publisher.publish("in", 1, b"again");
    broker.wait_metric("aio_dataflow_messages_dropped_processing_errors", &["calls"], 1.0);
    responder.join().expect("every request was answered");
    // Nobody is there any more: the call ends by its own timeout, and the graph goes on.
    publisher.publish("in", 1, b"anybody?");
    broker.wait_metric("aio_dataflow_messages_dropped_processing_errors", &["calls"], 2.0);
    assert!(broker.output().contains("RpcError::Timeout"), "{}", broker.output());
    assert_eq!(broker.metric("aio_dataflow_graph_module_exit", &[]), 0.0);
}

const SCHEMA: &str = r#"apiVersion: v1
kind: ConfigMap
metadata:
  name: reading-schema
  namespace: azure-iot-operations
  annotations: {forebay.dev/schema: "aio-sr://plant/reading:1"}
data: {schema.json: '{"type": "object"}'}
"#;

#[test]
fn clients_ask_for_the_same_schemas_over_mqtt() {
    let resources = Resources::default().with("schema.yaml", SCHEMA);
    let broker = Serve::new().resources(&resources).start();
    let mut client = Client::connect(broker.addr, &Connect::v5("client"));
    client.subscribe("answers", 1);
    let mut ask = |request: &str| {
        let properties = [[0x08].as_slice(), &text("answers"), &[0x09], &text("0123456789abcdef")].concat();
        let topic = "adr/dtmi:ms:adr:SchemaRegistry;2/get";
        client.send(&client.publish_bytes(topic, 0, false, &properties, request.as_bytes()));
        let answer = client.receive();
        let said = answer.user_properties();
        let of = |name: &str| said.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        assert!(contains(&answer.properties, b"0123456789abcdef") && of("__ts").is_some(), "{answer:?}");
        assert_eq!(of("__apErr").is_some(), of("__stat").as_deref() != Some("200"));
        let json: Value = serde_json::from_slice(&answer.payload).expect("JSON");
        (of("__stat").unwrap_or_default(), json)
    };
    for request in [
        r#"{"name": "reading"}"#,
        r#"{"name": "reading", "version": "1"}"#,
        r#"{"name": "aio-sr://plant/reading", "version": "1"}"#,
    ] {
        let (status, answer) = ask(request);
        assert_eq!(status, "200", "{answer}");
        let schema = &answer["schema"];
        assert_eq!((&schema["name"], &schema["namespace"]), (&json!("reading"), &json!("plant")));
        assert_eq!(schema["format"], "JsonSchema/draft-07");
        assert_eq!(schema["schemaContent"], r#"{"type": "object"}"#);
    }
    let (status, answer) = ask(r#"{"name": "reading", "version": "2"}"#);
    assert_eq!((status.as_str(), &answer["message"]), ("404", &json!("there is no schema reading:2")));
    for request in ["", "{}", r#"{"name": 7}"#, r#"{"name": "a b"}"#, r#"{"name": "a", "version": ""}"#] {
        assert_eq!(ask(request).0, "400", "{request}");
    }
    // Who cannot be answered is counted and ends nothing.
    client.publish("adr/dtmi:ms:adr:SchemaRegistry;2/get", 1, b"{}");
    assert_eq!(broker.metric("forebay_schema_requests_total", &["unanswerable"]), 1.0);
}

#[test]
fn an_operator_asks_for_schemas_by_name() {
    let definition =
        map_graph("schema", "caller:1.0.0").replace("operationType: map", "operationType: filter");
    let mut broker = start("caller", definition, &[], &[SCHEMA.to_owned()]);
    let mut publisher = Client::connect(broker.addr, &Connect::v5("publisher"));
    let mut client = Client::connect(broker.addr, &Connect::v5("client"));
    client.subscribe("out", 0);
    for name in ["nobody", "reading:2", "reading:1", "reading"] {
        publisher.publish("in", 1, name.as_bytes());
    }
    assert_eq!(client.receive().text(), "reading:1");
    assert_eq!(client.receive().text(), "reading");
    broker.wait_metric("aio_dataflow_messages_dropped_processing_errors", &["calls"], 2.0);
    broker.process.line("the error is told", |line| line.contains("SchemaError::NotFound"));
}

#[test]
fn components_of_the_preview_contract_run_unchanged_and_share_the_state_store() {
    let definition = with_parameters(&map_graph("shout", "preview:1.0.0"), "shout", &["suffix"]);
    let broker = start("preview", definition, &[("suffix", "'!'")], &[]);
    let mut publisher = Client::connect(broker.addr, &Connect::v5("publisher"));
    let mut client = Client::connect(broker.addr, &Connect::v5("client"));
    client.subscribe("out", 0);
    client.subscribe("answers", 0);
    // Whoever watches a key hears of what operators set, too.
    client.subscribe(
        "clients/statestore/v1/FA9AE35F-2F64-47CD-9BFF-08E2B32A0FE8/636C69656E74/command/notify/#",
        0,
    );
    let ask = |client: &mut Client, words: &[&str]| {
        let mut payload = format!("*{}\r\n", words.len());
        words.iter().for_each(|word| payload += &format!("${}\r\n{word}\r\n", word.len()));
        let properties = [[0x08].as_slice(), &text("answers"), &[0x09], &text("c")].concat();
        let topic = "statestore/v1/FA9AE35F-2F64-47CD-9BFF-08E2B32A0FE8/command/invoke";
        client.publish_with(topic, 0, false, &properties, payload.as_bytes());
    };
    ask(&mut client, &["KEYNOTIFY", "last-shout"]);
    assert_eq!(client.receive().text(), "+OK\r\n");
    publisher.publish("in", 1, b"hello");
    let mut got = [client.receive().text(), client.receive().text()];
    got.sort();
    assert_eq!(got, ["*4\r\n$6\r\nNOTIFY\r\n$3\r\nSET\r\n$5\r\nVALUE\r\n$5\r\nHELLO\r\n", "HELLO!"]);
    ask(&mut client, &["GET", "last-shout"]);
    assert_eq!(client.receive().text(), "$5\r\nHELLO\r\n");
}
