//! What the broker says of itself: `$SYS/broker/#` as mosquitto has it, and AIO's metrics.

use std::collections::BTreeMap;
use std::time::Duration;

use forebay_tests::forebay::{Forebay, Serve};
use forebay_tests::mqtt::{Client, Connect, Will, user_property};
use forebay_tests::resources::Resources;
use forebay_tests::{mosquitto, wait};

/// Without the broker's probe of itself, which counts as any client does.
fn broker(interval: &str) -> (Forebay, Resources) {
    let resources = Resources::default().with(
        "broker.yaml",
        &format!(
            "apiVersion: mqttbroker.iotoperations.azure.com/v1\nkind: Broker\nmetadata:\n  name: default\n  \
             annotations:\n    forebay.dev/sys-interval: {interval}\nspec:\n  diagnostics:\n    \
             selfCheck:\n      mode: Disabled\n"
        ),
    );
    (Serve::new().file(resources.file("broker.yaml")).start(), resources)
}

/// The figures, as they come, by what follows `$SYS/broker/`.
struct Figures {
    client: Client,
    values: BTreeMap<String, String>,
}

impl Figures {
    fn new(broker: &Forebay) -> Self {
        let mut client = Client::connect(broker.addr, &Connect::v5("figures"));
        client.subscribe("$SYS/broker/#", 0);
        Self { client, values: BTreeMap::new() }
    }

    /// Waits until a figure is as it should be.
    fn until(&mut self, name: &str, is: impl Fn(f64) -> bool) {
        let end = std::time::Instant::now() + wait::PATIENCE;
        loop {
            if self.values.get(name).and_then(|value| value.parse().ok()).is_some_and(&is) {
                return;
            }
            let now = std::time::Instant::now();
            assert!(now < end, "{name} is {:?} in {:#?}", self.values.get(name), self.values);
            let next = self.client.packet_within(Duration::from_secs(5)).expect("figures keep coming");
            let message = self.client.read_publish(&next.expect("the broker keeps the connection"));
            let topic =
                message.topic.strip_prefix("$SYS/broker/").expect("what was subscribed to").to_owned();
            self.values.insert(topic, message.text());
        }
    }
}

#[test]
fn figures_have_mosquittos_names_and_say_what_happens() {
    let (broker, _resources) = broker("100ms");
    let mut figures = Figures::new(&broker);
    figures.until("clients/connected", |n| n == 1.0);
    let kept = Connect::v5("kept").resume().session_expiry(4);
    let mut other = Client::connect(broker.addr, &kept);
    other.subscribe("some/#", 1);
    other.subscribe("$share/g/some/#", 1);
    figures.until("clients/connected", |n| n == 2.0);
    figures.until("subscriptions/count", |n| n >= 3.0);
    figures.until("shared_subscriptions/count", |n| n == 1.0);
    let retained = figures.values["retained messages/count"].parse::<f64>().unwrap();
    for _ in 0..5 {
        other.publish("nobody/hears/this", 0, b"12345678");
    }
    other.retain("nobody/hears/this", 0, b"kept");
    other.disconnect();
    figures.until("clients/disconnected", |n| n == 1.0);
    figures.until("publish/messages/received", |n| n == 6.0);
    figures.until("publish/bytes/received", |n| n == 44.0);
    figures.until("retained messages/count", |n| n > retained);
    figures.until("clients/expired", |n| n == 1.0);
    figures.until("clients/maximum", |n| n == 2.0);
    figures.until("messages/received", |n| n >= 9.0);
    figures.until("messages/sent", |n| n > 20.0);
    figures.until("bytes/received", |n| n > 100.0);
    figures.until("bytes/sent", |n| n > 1000.0);
    figures.until("load/publish/sent/1min", |n| n > 0.0);
    figures.until("load/connections/15min", |n| n > 0.0);
    assert!(figures.values["version"].starts_with("forebay version "));
    assert!(figures.values["uptime"].ends_with(" seconds"));
    for name in
        ["clients/total", "clients/active", "clients/inactive", "messages/stored", "store/messages/count"]
    {
        assert!(figures.values.contains_key(name), "{name} in {:#?}", figures.values);
    }
    for name in ["store/messages/bytes", "publish/messages/dropped", "publish/messages/sent", "heap/current"]
    {
        assert!(figures.values.contains_key(name), "{name} in {:#?}", figures.values);
    }
}

#[test]
fn figures_are_retained_hidden_from_plain_wildcards_and_nobody_elses() {
    let (broker, _resources) = broker("1h");
    let mut subscriber =
        mosquitto::Subscriber::start(broker.addr, "mqttv311", "$SYS/broker/clients/total", 0, &[]);
    assert_eq!(subscriber.receive().topic, "$SYS/broker/clients/total");
    let mut all = Client::connect(broker.addr, &Connect::v5("all"));
    all.subscribe("#", 0);
    all.subscribe("+/broker/version", 0);
    all.publish("$SYS/broker/version", 0, b"mine");
    all.settle();
    all.subscribe("$SYS/broker/version", 0);
    assert!(all.receive().text().starts_with("forebay version "));

    let (silent, _resources) = self::broker("0s");
    let mut client = Client::connect(silent.addr, &Connect::v5("all"));
    client.subscribe("$SYS/#", 0);
    client.settle();
}

/// AIO.md §9.5: by the category that a client named in CONNECT.
#[test]
fn messages_are_counted_by_category_in_both_directions() {
    let (broker, _resources) = broker("0s");
    let plant = Connect::v5("plant").property(&user_property("metriccategory", "plant"));
    let mut plant = Client::connect(broker.addr, &plant);
    let mut other = Client::connect(broker.addr, &Connect::v5("other"));
    plant.subscribe("to/plant", 1);
    other.subscribe("to/other", 0);
    for _ in 0..3 {
        plant.publish("to/other", 0, b"12345");
        assert_eq!(other.receive().text(), "12345");
    }
    other.publish("to/plant", 1, b"1234567");
    plant.receive();
    plant.settle();
    for (name, category, value) in [
        ("publishes_received", "plant", 3.0),
        ("payload_bytes_received", "plant", 15.0),
        ("publishes_sent", "plant", 1.0),
        ("payload_bytes_sent", "plant", 7.0),
        ("publishes_received", "uncategorized", 1.0),
        ("payload_bytes_received", "uncategorized", 7.0),
        ("publishes_sent", "uncategorized", 3.0),
        ("payload_bytes_sent", "uncategorized", 15.0),
    ] {
        let label = format!("category=\"{category}\"");
        assert_eq!(broker.metric(&format!("aio_broker_{name}"), &[&label]), value, "{name} of {category}");
    }
}

#[test]
fn wills_and_sessions_are_counted() {
    let (broker, _resources) = broker("0s");
    let will = Will { topic: "will", payload: b"123456", qos: 0, retain: false };
    let with_will = Client::connect(broker.addr, &Connect::v5("a").will(will));
    Client::connect(broker.addr, &Connect::v5("b").resume().session_expiry(100)).is_gone();
    broker.wait_metric("aio_broker_store_will_messages", &[], 1.0);
    assert_eq!(broker.metric("aio_broker_store_will_bytes", &[]), 10.0);
    assert_eq!(broker.metric("aio_broker_connected_sessions", &[]), 1.0);
    broker.wait_metric("aio_broker_total_sessions", &["v5"], 2.0);
    broker.wait_metric("aio_broker_store_total_sessions", &["false"], 2.0);
    Client::connect(broker.addr, &Connect::v4("c").resume()).is_gone();
    broker.wait_metric("aio_broker_total_sessions", &["v3"], 1.0);
    with_will.disconnect();
    wait::until("the will is gone", || match broker.metric("aio_broker_store_will_messages", &[]) {
        0.0 => Ok(()),
        n => Err(n.to_string()),
    });
}
