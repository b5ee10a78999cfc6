//! Example 2 of AIO's how-to: temperature, humidity and images in, one enriched message per window out.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use forebay_tests::artifact::{Artifact, Shape};
use forebay_tests::forebay::{Forebay, Serve};
use forebay_tests::mqtt::{Client, Connect, user_property};
use forebay_tests::random::{self, Random};
use forebay_tests::registry::Registry;
use forebay_tests::resources::{Resources, configured, dataflow_graph, documents, registry_endpoint};
use forebay_tests::{metric, operators, repository, wait};
use model::{Output, Sent, What, verify, window};
use serde_json::{Value, json};

#[path = "complex/model.rs"]
mod model;

const MODULES: [&str; 7] =
    ["window", "format", "snapshot", "temperature", "humidity", "collection", "enrichment"];

fn registry() -> Registry {
    let registry = Registry::start();
    for name in MODULES {
        let module = Artifact::new(Shape::Module, &format!("{name}.wasm"), operators::component(name));
        registry.push(name, "1.0.0", &module);
    }
    let graph = Artifact::new(Shape::Graph, "graph-complex.yaml", operators::graph("graph-complex"));
    registry.push("graph-complex", "1.0.0", &graph);
    registry
}

/// A broker with the graph, which has further annotations.
fn start(annotations: &str) -> Forebay {
    let registry = registry();
    let graph = dataflow_graph(
        "complex",
        "registry",
        "graph-complex:1.0.0",
        "sensor/temperature/raw\n          - sensor/humidity/raw\n          - sensor/images/raw",
        "analytics/sensor/processed",
    );
    // An unoptimised host takes its time over an image.
    let annotations = format!("  annotations: {{forebay.dev/call-deadline: 60s{annotations}}}\n");
    let graph = configured(&graph, &[("snapshot_topic", "sensor/images/raw")])
        .replace("  name: complex\n", &format!("  name: complex\n{annotations}"));
    let all = documents(&[registry_endpoint("registry", registry.addr), graph]);
    let resources = Resources::default().with("all.yaml", &all);
    Serve::new().resources(&resources).start()
}

fn cat() -> Vec<u8> {
    std::fs::read(repository().join("processing/tests/fixtures/cat.jpg")).expect("a fixture")
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
    u64::try_from(now).expect("not so late")
}

/// The end of the ten-second window that is under way, and begins anew in time for what is to be published in it.
fn window_end_ms() -> u64 {
    wait::until("a window has just begun", || {
        let now = now_ms();
        match now % 10_000 {
            100..6_000 => Ok(now.next_multiple_of(10_000)),
            into => Err(format!("{into} ms into a window")),
        }
    })
}

#[test]
fn what_comes_in_one_window_is_one_enriched_message() {
    let broker = start("");
    let mut publisher = Client::connect(broker.addr, &Connect::v5("publisher"));
    let mut client = Client::connect(broker.addr, &Connect::v5("client"));
    client.subscribe("analytics/sensor/processed", 1);

    let end = window_end_ms();
    let image = cat();
    let mut send = |topic: &str, node: &str, payload: &[u8]| {
        // By the publishers' own clocks, all in the same window.
        let stamp = user_property("__ts", &format!("{}:0:{node}", end - 4_321));
        publisher.publish_with(topic, 0, false, &stamp, payload);
    };
    send("sensor/temperature/raw", "t", br#"{"temperature":{"value":212,"unit":"F"}}"#);
    send("sensor/temperature/raw", "u", br#"{"temperature":{"value":120,"unit":"C"}}"#);
    send("sensor/temperature/raw", "u", br#"{"temperature":{"value":9999,"unit":"C"}}"#);
    send("sensor/humidity/raw", "h", br#"{"humidity":{"value":85}}"#);
    send("sensor/humidity/raw", "h", br#"{"humidity":{"value":45}}"#);
    send("sensor/images/raw", "camera", &image);

    let message = client.receive();
    let all: Value = serde_json::from_slice(&message.payload).expect("JSON");
    let temperature = &all["temperature"][0];
    assert_eq!((&temperature["count"], &temperature["min"]), (&json!(2), &json!(100.0)), "{all}");
    assert_eq!((&temperature["max"], &temperature["average"]), (&json!(120.0), &json!(110.0)), "{all}");
    assert_eq!(temperature["overtemp"], true, "above 100 degrees");
    let humidity = &all["humidity"][0];
    assert_eq!(
        (&humidity["count"], &humidity["max"], &humidity["last"]),
        (&json!(2), &json!(85.0), &json!(45.0)),
        "{all}"
    );
    let seen = all["object"][0]["result"].as_str().unwrap_or_default();
    assert!(seen.contains("cat") || seen.contains("tabby"), "the image shows a cat: {all}");
    assert_eq!(all["temperature"].as_array().map(Vec::len), Some(1), "one message for the window: {all}");
    // The graph leaves unsaid that it needs neural networks, as AIO's own does: it gets them, and a warning.
    let warning = "moduleRequirements.features does not name it";
    assert!(broker.output().contains(warning), "{}", broker.output());
    // The implausible reading was dropped, and nothing else.
    assert_eq!(broker.metric("aio_dataflow_messages_filtered", &["complex"]), 1.0);
    assert_eq!(broker.metric(metric::PROCESSING_ERRORS, &["complex"]), 0.0, "{}", broker.output());
}

/// How many publish at once.
const PUBLISHERS: u64 = 4;
/// How long the test below publishes, unless `FOREBAY_COMPLEX_SECONDS` says so.
const SECONDS: u64 = 60;
/// How far clocks of publishers and broker, which are one, seem apart.
const CLOCK_MS: u64 = 2;

/// One of many publishers.
struct Publisher {
    client: Client,
    node: String,
    random: Random,
    image: Vec<u8>,
    sent: Vec<Sent>,
}

impl Publisher {
    fn connect(broker: SocketAddr, number: u64, seed: u64) -> Self {
        let node = format!("publisher-{number}");
        let client = Client::connect(broker, &Connect::v5(&node));
        // Seeds beside each other have sequences that are not.
        let random = Random::new(Random::new(seed + number).number());
        Self { client, node, random, image: cat(), sent: Vec::new() }
    }

    /// Publishes until then, now and then something else.
    fn publish_until(mut self, end_ms: u64) -> Vec<Sent> {
        while now_ms() < end_ms {
            thread::sleep(Duration::from_millis(self.random.below(40)));
            match self.random.below(1000) {
                0..2 => self.picture(),
                2..12 => self.stamped(What::Broken, "sensor/images/raw", b"no picture"),
                12..40 => self.broken(),
                40..60 => self.implausible(),
                60..90 => self.late(),
                _ => self.reading(),
            }
        }
        self.sent
    }

    fn reading(&mut self) {
        let (what, payload) = match self.random.below(2) {
            0 => {
                let value = self.random.decimal(0, 100);
                (What::Humidity(value), json!({"humidity": {"value": value}}))
            }
            _ => self.temperature(),
        };
        let (topic, payload) = (topic(what), payload.to_string());
        match self.random.below(4) {
            0 => self.unstamped(what, topic, payload.as_bytes()),
            _ => self.stamped(what, topic, payload.as_bytes()),
        }
    }

    /// Some windows are hot, some cold, and some neither.
    fn temperature(&mut self) -> (What, Value) {
        let (from, to) = [(50, 150), (1, 100), (-39, 90)][(window(now_ms()) / 10_000 % 3) as usize];
        let celsius = self.random.decimal(from, to);
        if self.random.below(2) == 0 {
            return (What::Temperature(celsius), json!({"temperature": {"value": celsius, "unit": "C"}}));
        }
        let fahrenheit = (celsius * 180.0).round() / 100.0 + 32.0;
        let value = (fahrenheit - 32.0) * 5.0 / 9.0;
        (What::Temperature(value), json!({"temperature": {"value": fahrenheit, "unit": "F"}}))
    }

    fn implausible(&mut self) {
        let value = [-40.0, -40.5, 3422.0, 9999.0][self.random.below(4) as usize];
        let payload = json!({"temperature": {"value": value, "unit": "C"}}).to_string();
        self.stamped(What::Implausible, "sensor/temperature/raw", payload.as_bytes());
    }

    fn broken(&mut self) {
        let payloads = ["", "{", r#"{"pressure":{"value":1}}"#, r#"{"temperature":{"value":1}}"#];
        let payload = payloads[self.random.below(4) as usize];
        self.stamped(What::Broken, "sensor/humidity/raw", payload.as_bytes());
    }

    fn picture(&mut self) {
        let image = self.image.clone();
        self.stamped(What::Picture, "sensor/images/raw", &image);
    }

    /// By the publisher's own clock: made up to two seconds ago.
    fn stamped(&mut self, what: What, topic: &str, payload: &[u8]) {
        let made_ms = now_ms() - self.random.below(2_000);
        self.publish(what, topic, made_ms, payload);
    }

    /// Made when its window was long over.
    fn late(&mut self) {
        let made_ms = now_ms() - 20_000 - self.random.below(60_000);
        self.publish(What::Late, "sensor/humidity/raw", made_ms, br#"{"humidity":{"value":1000}}"#);
    }

    fn publish(&mut self, what: What, topic: &str, made_ms: u64, payload: &[u8]) {
        let stamp = format!("{made_ms}:{}:{}", self.random.below(3), self.node);
        let qos = self.random.below(2) as u8;
        self.client.publish_with(topic, qos, false, &user_property("__ts", &stamp), payload);
        self.sent.push(Sent { what, made_ms: made_ms..=made_ms });
    }

    /// Made when it arrives: before it is acknowledged.
    fn unstamped(&mut self, what: What, topic: &str, payload: &[u8]) {
        let before = now_ms() - CLOCK_MS;
        self.client.publish(topic, 1, payload);
        self.sent.push(Sent { what, made_ms: before..=now_ms() + CLOCK_MS });
    }
}

fn topic(what: What) -> &'static str {
    match what {
        What::Humidity(_) => "sensor/humidity/raw",
        _ => "sensor/temperature/raw",
    }
}

/// What comes out, up to the window that ends then.
fn outputs_until(mut client: Client, end_ms: u64) -> Vec<Output> {
    let mut outputs: Vec<Output> = Vec::new();
    while outputs.last().is_none_or(|output| !output.ends_at(end_ms)) {
        let message = client.receive();
        let properties = message.user_properties();
        let stamp =
            properties.iter().find(|(key, _)| key == "__ts").expect("what a graph publishes has __ts");
        outputs.push(Output::read(&stamp.1, &message.payload));
    }
    outputs
}

/// For longer: `FOREBAY_COMPLEX_SECONDS=3600`; the same again: `FOREBAY_SEED=…`, as a failure shows it.
#[test]
fn random_readings_of_several_publishers_are_each_in_one_window() {
    let seed = random::seed();
    let seconds = std::env::var("FOREBAY_COMPLEX_SECONDS").ok();
    let seconds = seconds.map_or(SECONDS, |text| text.parse().expect("a number of seconds"));
    let broker = start(", forebay.dev/allowed-lateness: 5s");
    let mut client = Client::connect(broker.addr, &Connect::v5("client"));
    client.subscribe("analytics/sensor/processed", 1);
    let end_ms = now_ms() + seconds * 1000;
    // Nothing else is in the last window: when it has come, all have.
    let last_ms = window(end_ms) + 15_000;
    let (sent, outputs) = thread::scope(|scope| {
        let outputs = scope.spawn(|| outputs_until(client, window(last_ms)));
        let publishers: Vec<_> = (0..PUBLISHERS)
            .map(|number| {
                let publisher = Publisher::connect(broker.addr, number, seed);
                scope.spawn(move || publisher.publish_until(end_ms))
            })
            .collect();
        let sent = publishers.into_iter().map(|one| one.join().expect("a publisher ends"));
        let mut sent: Vec<Sent> = sent.flatten().collect();
        let mut last = Publisher::connect(broker.addr, PUBLISHERS, seed);
        last.publish(What::Humidity(50.0), "sensor/humidity/raw", last_ms, br#"{"humidity":{"value":50}}"#);
        sent.extend(last.sent);
        (sent, outputs.join().expect("outputs come"))
    });
    verify(&sent, &outputs);
    let count = |what: What| sent.iter().filter(|sent| sent.what == what).count() as f64;
    assert_eq!(broker.metric("aio_dataflow_messages_filtered", &["complex"]), count(What::Implausible));
    assert_eq!(broker.metric("aio_dataflow_errors", &["complex", "\"late\""]), count(What::Late));
    let errors = count(What::Broken) + count(What::Late);
    assert_eq!(broker.metric(metric::PROCESSING_ERRORS, &["complex"]), errors);
    println!("{} messages in {} windows", sent.len(), outputs.len());
}
