//! Graphs to an OpenTelemetry collector that others wrote, by gRPC and by HTTP.
#![allow(clippy::expect_used, clippy::panic)]

use std::collections::HashSet;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use forebay_tests::artifact::{Artifact, Shape};
use forebay_tests::collector::Collector;
use forebay_tests::forebay::{Forebay, Serve};
use forebay_tests::front::Front;
use forebay_tests::mqtt::{Client, Connect};
use forebay_tests::operators;
use forebay_tests::outage;
use forebay_tests::pki::Authority;
use forebay_tests::place::{wait_connected, wait_reason};
use forebay_tests::registry::Registry;
use forebay_tests::resources::{
    Resources, between, config_map, configured, dataflow_graph, documents, persisted, registry_endpoint,
    telemetry_endpoint,
};
use forebay_tests::wait;
use serde_json::json;
use tempfile::TempDir;

const SETTINGS: &str =
    "authentication: {method: Anonymous, anonymousSettings: {}}\nbatching: {latencySeconds: 0}";
const PLAIN: &str = "tls: {mode: Disabled}";

struct Place {
    resources: Resources,
    data: TempDir,
    _registry: Registry,
}

impl Place {
    fn new(endpoint: String, more: &[String], persist: bool) -> Self {
        let registry = operators::sample_registry();
        let graph = Artifact::new(Shape::Graph, "graph.yaml", operators::graph("graph-otel-transform"));
        registry.push("graph-otel-transform", "1.0.0", &graph);
        let module = Artifact::new(Shape::Module, "m.wasm", operators::component("otel-transform"));
        registry.push("otel-transform", "1.0.0", &module);
        let graph = dataflow_graph("telemetry", "registry", "graph-otel-transform:1.0.0", "raw", "boilers");
        let graph = configured(
            &graph,
            &[
                ("metricName", "boiler"),
                ("metricValuePath", "value"),
                ("metricType", "f64_gauge"),
                ("metricUnits", "C"),
            ],
        );
        let graph = between(&graph, "default", "collector").replace(
            "  name: telemetry\n",
            "  name: telemetry\n  annotations: {forebay.dev/dead-letter-topic: dead}\n",
        );
        let graph = if persist { persisted(&graph) } else { graph };
        let mut all = vec![registry_endpoint("registry", registry.addr), endpoint, graph];
        all.extend_from_slice(more);
        let resources = Resources::default().with("all.yaml", &documents(&all));
        Self { resources, data: TempDir::new().expect("a directory"), _registry: registry }
    }

    fn serve(&self) -> Forebay {
        Serve::new().data_dir(self.data.path()).resources(&self.resources).start()
    }
}

fn plain(host: &str) -> String {
    telemetry_endpoint("collector", host, &[SETTINGS, PLAIN])
}

fn reading(value: u32) -> Vec<u8> {
    json!({"value": value}).to_string().into_bytes()
}

fn wait_values(collector: &Collector, values: impl IntoIterator<Item = u32>) {
    let values: Vec<String> = values.into_iter().map(|value| format!("Value: {value}")).collect();
    wait::until("the collector has it", || {
        let output = collector.output();
        let lines: HashSet<&str> = output.lines().map(str::trim).collect();
        let missing: Vec<&String> = values.iter().filter(|value| !lines.contains(value.as_str())).collect();
        let Some(first) = missing.first() else { return Ok(()) };
        let tail: Vec<&str> = output.lines().rev().take(40).collect();
        Err(format!(
            "{} are missing, {first} is the first; from the end on:\n{}",
            missing.len(),
            tail.join("\n")
        ))
    });
}

#[test]
fn metrics_arrive_by_grpc_and_by_http_and_what_does_not_conform_is_kept_apart() {
    let collector = Collector::start();
    let over_http = format!("http://{}", collector.http);
    let grpc: SocketAddr = collector.grpc;
    for (host, from) in [(grpc.to_string(), 100), (over_http, 200)] {
        let place = Place::new(plain(&host), &[], false);
        let broker = place.serve();
        wait_connected(&broker, "destination");
        let mut dead = Client::connect(broker.addr, &Connect::v5("dead"));
        dead.subscribe("dead", 1);
        let mut publisher = Client::connect(broker.addr, &Connect::v5("publisher"));
        publisher.publish("raw", 1, &reading(from));
        // No JSON: the operator passes it on as it is, and no metric can be made of it.
        publisher.publish("raw", 1, b"nonsense");
        publisher.publish("raw", 1, &reading(from + 1));
        wait_values(&collector, [from, from + 1]);
        let letter = dead.receive();
        let said = letter.user_properties();
        assert!(said.contains(&("dead-letter-reason".to_owned(), "payload".to_owned())), "{said:?}");
    }
    let output = collector.output();
    for part in ["-> Name: boiler", "-> DataType: Gauge", "service.name: Str(boilers)"] {
        assert!(output.contains(part), "{part} in {output}");
    }
}

#[test]
fn what_is_acknowledged_reaches_a_collector_that_was_away() {
    let mut collector = Collector::start();
    let place = Place::new(plain(&collector.grpc.to_string()), &[], true);
    let broker = place.serve();
    wait_connected(&broker, "destination");
    let mut publisher = Client::connect(broker.addr, &Connect::v5("publisher"));
    collector.kill();
    let gone = outage::publish(&mut publisher, "raw", reading, 0);
    wait_reason(&broker, "telemetry", "DataflowOtelTargetSendFailed");
    drop(broker);
    let broker = place.serve();
    let mut publisher = Client::connect(broker.addr, &Connect::v5("publisher"));
    let more = gone.end..gone.end + 50;
    more.clone().for_each(|value| publisher.publish("raw", 1, &reading(value)));
    collector.resume();
    wait_values(&collector, 0..more.end);
    broker.wait_metric_is("forebay_store_graph_entries", &["dataflow_id=\"telemetry\""], 0.0);
}

#[test]
fn who_we_are_is_shown_by_certificate_or_by_token_and_refused_when_it_is_wrong() {
    let (authority, other) = (Authority::new("plant"), Authority::new("other"));
    let collector = Collector::start();
    let (by_certificate, by_token) = (wait::free_addr(), wait::free_addr());
    let server = format!("mode http\nserver collector {} proto h2", collector.grpc);
    let _certificates = Front::new(
        &authority,
        &format!("bind {by_certificate} ssl crt SERVER ca-file CLIENTS verify required alpn h2\n{server}"),
    );
    let refuse =
        "http-request deny deny_status 401 unless { req.hdr(authorization) -m str 'Bearer open-sesame' }";
    let _tokens =
        Front::new(&authority, &format!("bind {by_token} ssl crt SERVER alpn h2\n{refuse}\n{server}"));
    let tokens = TempDir::new().expect("a directory");
    let [right, wrong] = ["open-sesame", "guessed"].map(|token| {
        let path = tokens.path().join(token);
        std::fs::write(&path, token).expect("a file can be written");
        path.display().to_string()
    });
    let tls =
        "tls: {mode: Enabled, trustedCaCertificateConfigMapRef: trusted}\nbatching: {latencySeconds: 0}";
    let device = "authentication: {method: X509Certificate, x509CertificateSettings: {secretRef: device}}";
    let account =
        "authentication: {method: ServiceAccountToken, serviceAccountTokenSettings: {audience: plant}}";
    let token = |path: &str| {
        let annotation = format!("  name: collector\n  annotations: {{forebay.dev/token-file: '{path}'}}\n");
        telemetry_endpoint("collector", &by_token.to_string(), &[account, tls])
            .replace("  name: collector\n", &annotation)
    };
    let certificate = telemetry_endpoint("collector", &by_certificate.to_string(), &[device, tls]);
    let place = |endpoint: String, trusted: &Authority, device: &Authority| {
        let trusted = config_map("trusted", "ca.crt", &trusted.certificate);
        Place::new(endpoint, &[trusted, device.client("device-7").secret("device")], false)
    };
    for (endpoint, value) in [(certificate.clone(), 1), (token(&right), 2)] {
        let place = place(endpoint, &authority, &authority);
        let broker = place.serve();
        wait_connected(&broker, "destination");
        let mut publisher = Client::connect(broker.addr, &Connect::v5("publisher"));
        publisher.publish("raw", 1, &reading(value));
        wait_values(&collector, [value]);
    }
    for (endpoint, trusted, device, says) in [
        (certificate.clone(), &other, &authority, "UnknownIssuer"),
        (certificate, &authority, &other, ""),
        (token(&wrong), &authority, &authority, "401"),
    ] {
        let place = place(endpoint, trusted, device);
        let broker = place.serve();
        let mut publisher = Client::connect(broker.addr, &Connect::v5("publisher"));
        publisher.publish("raw", 1, &reading(3));
        let why = wait_reason(&broker, "telemetry", "DataflowOtelTargetSendFailed");
        assert!(why.contains(says), "{why}");
        assert!(!why.contains("guessed") && !broker.output().contains("guessed"));
    }
}

#[test]
fn a_collector_that_hangs_is_waited_for() {
    let collector = Collector::start();
    let place = Place::new(plain(&collector.grpc.to_string()), &[], false);
    let broker = place.serve();
    wait_connected(&broker, "destination");
    collector.hang();
    let mut publisher = Client::connect(broker.addr, &Connect::v5("publisher"));
    (0..20).for_each(|value| publisher.publish("raw", 1, &reading(value)));
    thread::sleep(Duration::from_secs(3));
    publisher.settle();
    collector.go_on();
    wait_values(&collector, 0..20);
}

#[test]
fn a_collector_whom_nobody_vouches_for_or_who_talks_nonsense_is_told_of() {
    let nonsense = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let garbled = nonsense.local_addr().expect("an address");
    thread::spawn(move || {
        for mut socket in nonsense.incoming().flatten() {
            let _ = std::io::Write::write_all(&mut socket, b"220 mail.example ESMTP\r\n");
        }
    });
    let trusting = "tls: {mode: Enabled, trustedCaCertificateConfigMapRef: trusted}";
    let authority = Authority::new("plant");
    for (endpoint, more) in [
        (plain(&garbled.to_string()), vec![]),
        (plain(&format!("http://{garbled}")), vec![]),
        (plain(&wait::free_addr().to_string()), vec![]),
        (
            telemetry_endpoint("collector", &garbled.to_string(), &[SETTINGS, trusting]),
            vec![config_map("trusted", "ca.crt", &authority.certificate)],
        ),
    ] {
        let place = Place::new(endpoint, &more, false);
        let broker = place.serve();
        let mut publisher = Client::connect(broker.addr, &Connect::v5("publisher"));
        publisher.publish("raw", 1, &reading(1));
        let why = wait_reason(&broker, "telemetry", "DataflowOtelTargetSendFailed");
        assert!(!why.is_empty());
        publisher.settle();
    }
}
